"""The model card of a trained model: what it was trained on, by which recipe, and its figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sbert_mini.evaluation.gain_tables import against_start
from sbert_mini.evaluation.gains import Comparison
from sbert_mini.evaluation.measure import machine
from sbert_mini.evaluation.sets import TRAINED_ON, card_metadata
from sbert_mini.evaluation.tables import NO_BEST, figure_text
from sbert_mini.recipes.plan import Fit, Plan
from sbert_mini.recipes.recipe import Recipe
from sbert_mini.text.markdown import code_block, plain
from sbert_mini.training.schedule import Change
from sbert_mini.training.tasks import Task


def write_card(
    model: Path, plan: Plan, fit: Fit, *, start: Path, teachers: Sequence[Path], seed: int, threads: int
) -> None:
    """Write `README.md` into the model directory.

    Its metadata names the data (`datasets`) and, under `sbmini_trained_on`, the STS sets of which pairs were trained on, those of
    the starting model and the teachers included, so that `sbmini bench sts` can leave them out of a mean.

    Args:
        model: the model directory.
        plan: the plan that was carried out.
        fit: what it gave.
        start: the directory of the starting model.
        teachers: the directories of the models that `distillation` learnt from.
        seed: of everything that was drawn.
        threads: that computed; another number gives weights that differ in their last bits.
    """
    from huggingface_hub import ModelCardData

    recipe = plan.recipe
    tasks = [task for task in plan.tasks if not task.only_measured]
    parents = [card_metadata(path) for path in dict.fromkeys((start, *teachers))]
    inherited = _inherited(parents)
    datasets = [stem(file) for part in recipe.tasks for file in part.files("train")]
    metadata: dict[str, Any] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "sentence-similarity", "sbert-mini"],
        "base_model": _shown(recipe.model.start),
        "datasets": list(dict.fromkeys([*datasets, *inherited])),
    }
    if license := parents[0].get("license"):
        metadata["license"] = license
    if counts := _trained_on(plan.overlap, parents):
        metadata[TRAINED_ON] = counts
    parts = [
        f"---\n{ModelCardData(**metadata).to_yaml()}\n---",
        f"# {plain(plan.output.name)}",
        *_introduction(recipe, tasks, fit.steps),
        f"## Data\n\n{_data(recipe, tasks)}",
        *_overlap(plan.overlap),
        *_inherited_note(inherited, bool(teachers)),
        *_figures(fit.figures),
        *_against_start(fit.comparison),
        *_allocation(fit.history),
        f"## Recipe\n\nSeed {seed}, {threads} threads.\n\n{code_block(recipe.text.strip(), 'toml')}",
        _measured_on(),
    ]
    (model / "README.md").write_text("\n\n".join(parts) + "\n", "utf-8")


def _inherited(parents: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the data that the starting model and the teachers name in their cards."""
    names: list[str] = []
    for parent in parents:
        datasets = parent.get("datasets") or []
        names += [datasets] if isinstance(datasets, str) else map(str, datasets)
    return list(dict.fromkeys(names))


def _trained_on(overlap: Mapping[str, Mapping[str, int]], parents: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return STS set -> pairs of it that this model, its start and its teachers were trained on."""
    counts = {name: sum(of_tasks.values()) for name, of_tasks in overlap.items()}
    for parent in parents:
        earlier = parent.get(TRAINED_ON)
        for name, count in earlier.items() if isinstance(earlier, dict) else ():
            counts[name] = counts.get(name, 0) + (count if isinstance(count, int) else 0)
    return counts


def _introduction(recipe: Recipe, tasks: Sequence[Task], steps: int) -> list[str]:
    headed = [task.config.name for task in tasks if task.config.head_kind is not None]
    heads = f" with {'a head' if len(headed) == 1 else 'heads'} for {plain(', '.join(headed))}" if headed else ""
    where = "; the heads are in `heads/`, for `sbmini predict`" if headed else ""
    predict = f"sbmini predict -m . --help{chr(10)}" if headed else ""
    parts = [
        f"A sentence-embedding model{heads}, trained from {plain(_shown(recipe.model.start))} by sbert-mini in {steps} steps. "
        f"The encoder loads in plain sentence-transformers{where}.",
        f"```sh\nsbmini encode 'a sentence' -m .\n{predict}```",
    ]
    if any(task.config.has_weights for task in tasks):
        parts.append(
            "A head reads the model's sentence vectors, of length 1, times the square root of their dimension."
        )
    dimensions = sorted({d for task in tasks for d in task.config.dimensions}, reverse=True)
    if dimensions:
        parts.append(
            f"The first {', '.join(map(str, dimensions))} components of its vectors can be used alone: `sbmini encode --dim "
            f"{dimensions[0]}`, or `truncate_dim` in Python."
        )
    return parts


def _data(recipe: Recipe, tasks: Sequence[Task]) -> str:
    rows = ["| task | structure | loss | files | rows | left out |", "| --- | --- | --- | --- | --- | --- |"]
    trained = {task.config.name: task for task in tasks}
    for part in recipe.tasks:
        if part.name not in trained:
            continue  # it is only measured
        task, config = trained[part.name], part.config
        left_out = ", ".join(f"{n:,} ({reason})" for reason, n in task.train.dropped.items()) or "none"
        files = ", ".join(stem(name) for name in part.files("train"))
        loss = f"{config.loss} of {_shown(part.teacher)}" if part.teacher else config.loss
        rows.append(_row(part.name, config.structure, loss, files, f"{len(task.train):,}", left_out))
    return "\n".join(rows)


def _overlap(overlap: Mapping[str, Mapping[str, int]]) -> list[str]:
    if not overlap:
        return []
    rows = [_row(name, ", ".join(f"{t}: {n}" for t, n in of_tasks.items())) for name, of_tasks in overlap.items()]
    return ["Training rows that also occur in STS sets:\n\n| set | rows |\n| --- | --- |\n" + "\n".join(rows)]


def _inherited_note(datasets: Sequence[str], with_teachers: bool) -> list[str]:
    if not datasets:
        return []
    teachers = ", or a teacher," if with_teachers else ""
    return [
        f"The starting model{teachers} was trained on {plain(', '.join(datasets))}: figures on these sets are not free of "
        "leakage."
    ]


def _figures(figures: Mapping[str, float | None]) -> list[str]:
    if not figures:
        return []
    rows = "\n".join(_row(name.replace("_", " "), figure_text(value)) for name, value in figures.items())
    mean = "The mean is over the tasks' main figures that are defined, a correlation r counted as (r + 1) / 2."
    return [
        f"## Dev figures\n\n| figure | value |\n| --- | --- |\n{rows}",
        NO_BEST if figures["mean"] is None else mean,
    ]


def _against_start(comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return []
    table = against_start({**comparison.to_json(), "start": _shown(comparison.start)})
    return [f"## {table.title}\n\n{table.markdown()}"]


def _allocation(history: Sequence[Change]) -> list[str]:
    if len(history) < 2:
        return []
    rows = "\n".join(_row(str(c.batch), ", ".join(map(str, c.sizes)), c.reason) for c in history)
    return [f"## Batch allocation\n\n| from batch | examples a task | why |\n| --- | --- | --- |\n{rows}"]


def _row(*cells: str) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(map(plain, cells))} |"


def _measured_on() -> str:
    card = machine()
    versions = ", ".join(f"{name} {version}" for name, version in card["packages"].items())
    return f"{card['date']}, sbert-mini {card['sbert_mini']}, {card['cpu']}, Python {card['python']}, {versions}."


def _shown(model: str) -> str:
    """Return a model's name as the recipe has it, without a folder that only the environment names."""
    return Path(model).name if "$" in model else model


def stem(name: str) -> str:
    """Return a data file's name without suffixes, with its folder where the recipe names one."""
    path = Path(name)
    base = path.name.partition(".")[0]
    return f"{path.parent.name}/{base}" if path.parent.name and "$" not in path.parent.name else base
