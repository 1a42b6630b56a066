"""The model card of a trained model: what it was trained on, by which recipe, and its figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sbert_mini.evaluation.measure import machine
from sbert_mini.evaluation.sets import TRAINED_ON, card_metadata
from sbert_mini.evaluation.tables import NO_BEST, figure_text
from sbert_mini.recipes.recipe import Recipe
from sbert_mini.training.schedule import Change
from sbert_mini.training.tasks import Task


def write_card(
    model: Path,
    name: str,
    recipe: Recipe,
    start: Path,
    teachers: Sequence[Path],
    tasks: Sequence[Task],
    figures: Mapping[str, float | None],
    overlap: Mapping[str, Mapping[str, int]],
    history: Sequence[Change],
    steps: int,
    seed: int,
    threads: int,
) -> None:
    """Write `README.md` into the model directory.

    Its metadata names the data (`datasets`) and, under `sbmini_trained_on`, the STS sets of which pairs were trained on, those of
    the starting model and the teachers included, so that `sbmini bench sts` can leave them out of a mean.

    Args:
        model: the model directory.
        name: what the model is called.
        recipe: the recipe.
        start: the directory of the starting model.
        teachers: the directories of the models that `distillation` learnt from.
        tasks: the tasks with the rows that were trained on.
        figures: the dev figures, by `<task>_<metric>`; None for one that is not defined.
        overlap: STS set -> task -> training rows that stand in it.
        history: of the batch sizes.
        steps: optimizer steps taken to the weights that are saved.
        seed: of everything that was drawn.
        threads: that computed; another number gives weights that differ in their last bits.
    """
    from huggingface_hub import ModelCardData

    parent = card_metadata(start)
    own = [stem(file) for task in recipe.tasks for file in task.files("train")]
    inherited: list[str] = []
    counted = {held: sum(found.values()) for held, found in overlap.items()}
    for learnt_from in (parent, *(card_metadata(teacher) for teacher in dict.fromkeys(teachers) if teacher != start)):
        before = learnt_from.get("datasets") or []
        inherited += [before] if isinstance(before, str) else map(str, before)
        trained_on = learnt_from.get(TRAINED_ON)
        for held, count in trained_on.items() if isinstance(trained_on, dict) else ():
            counted[held] = counted.get(held, 0) + (count if isinstance(count, int) else 0)
    inherited = list(dict.fromkeys(inherited))
    metadata: dict[str, Any] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "sentence-similarity", "sbert-mini"],
        "base_model": _shown(recipe.model.start),
        "datasets": list(dict.fromkeys([*own, *inherited])),
    }
    if license := parent.get("license"):
        metadata["license"] = license
    if counted:
        metadata[TRAINED_ON] = counted
    parts = [f"---\n{ModelCardData(**metadata).to_yaml()}\n---", f"# {name}"]
    headed = [t.config.name for t in tasks if t.config.head_kind is not None]
    heads = f" with {'a head' if len(headed) == 1 else 'heads'} for {', '.join(headed)}" if headed else ""
    told = "; the heads are in `heads/`, for `sbmini predict`" if headed else ""
    parts.append(
        f"A sentence-embedding model{heads}, trained from {_shown(recipe.model.start)} by sbert-mini in {steps} steps. The "
        f"encoder loads in plain sentence-transformers{told}."
    )
    parts.append(
        f"```sh\nsbmini encode 'a sentence' -m .\n{'sbmini predict -m . --help' + chr(10) if headed else ''}```"
    )
    dimensions = sorted({d for t in tasks for d in t.config.dimensions}, reverse=True)
    if dimensions:
        parts.append(
            f"The first {', '.join(map(str, dimensions))} components of its vectors can be used alone: `sbmini encode --dim "
            f"{dimensions[0]}`, or `truncate_dim` in Python."
        )
    parts.append(f"## Data\n\n{_data(recipe, tasks)}")
    if overlap:
        rows = [f"| {name} | {', '.join(f'{t}: {n}' for t, n in found.items())} |" for name, found in overlap.items()]
        parts.append("Training rows that stand in STS sets:\n\n| set | rows |\n| --- | --- |\n" + "\n".join(rows))
    if inherited:
        taught = ", or a teacher," if teachers else ""
        parts.append(
            f"The starting model{taught} was trained on {', '.join(inherited)}: what is evaluated on those is not clean of them."
        )
    if figures:
        shown = "\n".join(f"| {name.replace('_', ' ')} | {figure_text(value)} |" for name, value in figures.items())
        parts.append(f"## Dev figures\n\n| figure | value |\n| --- | --- |\n{shown}")
        parts.append(
            NO_BEST
            if figures["mean"] is None
            else "The mean is over the tasks' main figures that are defined, a correlation r counted as (r + 1) / 2."
        )
    if len(history) > 1:
        shown = "\n".join(f"| {c.batch} | {', '.join(map(str, c.sizes))} | {c.reason} |" for c in history)
        parts.append(f"## Batch allocation\n\n| from batch | examples a task | why |\n| --- | --- | --- |\n{shown}")
    parts.append(f"## Recipe\n\nSeed {seed}, {threads} threads.\n\n```toml\n{recipe.text.strip()}\n```")
    card = machine()
    versions = ", ".join(f"{name} {found}" for name, found in card["packages"].items())
    parts.append(
        f"{card['date']}, sbert-mini {card['sbert_mini']}, {card['cpu']}, Python {card['python']}, {versions}."
    )
    (model / "README.md").write_text("\n\n".join(parts) + "\n", "utf-8")


def _shown(model: str) -> str:
    """Return a model's name as the recipe has it, without a folder that only the environment names."""
    return Path(model).name if "$" in model else model


def stem(name: str) -> str:
    """Return a data file's name without suffixes, with the folder that it lies in where the recipe names one."""
    path = Path(name)
    base = path.name.partition(".")[0]
    return f"{path.parent.name}/{base}" if path.parent.name and "$" not in path.parent.name else base


def _data(recipe: Recipe, tasks: Sequence[Task]) -> str:
    rows = ["| task | structure | loss | files | rows | left out |", "| --- | --- | --- | --- | --- | --- |"]
    trained = {task.config.name: task for task in tasks}
    for part in recipe.tasks:
        if part.name not in trained:
            continue  # it is only measured
        task = trained[part.name]
        counts = task.train.counts
        left = (
            ", ".join(
                f"{n:,} ({key.removeprefix('dropped: ')})" for key, n in counts.items() if key.startswith("dropped: ")
            )
            or "none"
        )
        files = ", ".join(stem(name) for name in part.files("train"))
        loss = f"{part.loss} of {_shown(part.teacher)}" if part.teacher else part.loss
        rows.append(f"| {part.name} | {part.structure} | {loss} | {files} | {len(task.train):,} | {left} |")
    return "\n".join(rows)
