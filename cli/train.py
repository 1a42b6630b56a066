"""`sbmini train`: a recipe -> a model directory. `sbmini recipes`: the recipes that travel with the package."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbert_mini.errors import ModelNotFoundError, UsageError

from . import options
from .notes import Interrupted, note, progress_wanted, quiet_notes

if TYPE_CHECKING:
    from sbert_mini.recipes.fit import Plan

EXAMPLE = """Examples:

  sbmini recipes show paraphrase > recipe.toml

  sbmini train recipe.toml --dry-run

  sbmini train recipe.toml

  sbmini train recipe.toml --resume

  sbmini train recipe.toml --report report/

  torchrun --standalone --nproc-per-node 2 -m sbert_mini train recipe.toml
"""

SOUP_EXAMPLE = """Example:

  for seed in 1 2 3; do sbmini train recipe.toml --seed $seed -o model-$seed; done

  sbmini soup model-1 model-2 model-3 -o model
"""

recipes = typer.Typer(help="The training recipes in the package.", no_args_is_help=True, rich_markup_mode=None)


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe: a TOML file, or the name of a built-in one; ./NAME is always a file.", show_default=False
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The model directory, in place of the recipe's.", show_default=False),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the newest checkpoint, if there is one.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="In place of the recipe's.", show_default=False)
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="A folder for tables, pictures, JSON and one HTML page of the run; those of `sbmini bench` may share it. With "
            "--resume, and a run that is over, the report alone is made.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check recipe and data, print the plan and its cost, and train nothing."),
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="The folder that $SBMINI_DATA means in the recipe. [env: SBMINI_DATA]", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, the last line of stdout.")] = False,
    threads: options.Threads = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a model on one or several tasks, by a recipe.

    The recipe names tasks, files, columns, losses, heads, batch sizes, schedule, gradient surgery, optimizer and evaluation;
    docs/recipes.md describes each key. Data are checked first. Checkpoints are in OUTPUT.run/ during training. --resume continues
    an interrupted or killed run, and gives the same weights as an uninterrupted one. The model directory loads in plain
    sentence-transformers; `sbmini predict` uses its task heads. Several processes train one model under torchrun.
    """
    first = os.environ.get("RANK", "0") == "0"  # under torchrun the first process speaks
    quiet = quiet or not first
    quiet_notes(quiet)
    if data is not None:
        if not data.is_dir():
            raise UsageError(f"the data folder {data} does not exist")
        os.environ["SBMINI_DATA"] = str(data.resolve())
    from sbert_mini.runtime.engine import thread_count

    budget = thread_count(threads)
    os.environ["OMP_NUM_THREADS"] = str(budget)  # before torch is loaded
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from sbert_mini.evaluation.tables import NO_BEST, figure_text
    from sbert_mini.model.registry import resolve
    from sbert_mini.recipes.data import read_data
    from sbert_mini.recipes.launchers import refuse_sharding
    from sbert_mini.recipes.recipe import find_recipe, read_recipe

    if report is not None and dry_run:
        raise UsageError("--report tells of a run, and --dry-run makes none: give one of the two")
    if report is not None:
        from sbert_mini.evaluation.report import check_folder

        check_folder(report)
    chosen = read_recipe(find_recipe(recipe))
    for package in ("torch", "sentence_transformers"):  # without them no other advice helps
        if find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    refuse_sharding()
    held = read_data(chosen)
    resolve(chosen.local_model(chosen.model.start), offline=offline)
    # Importing torch takes seconds: mistakes in the recipe, its files and names are reported before.
    from sbert_mini.recipes import fit as training
    from sbert_mini.recipes.progress import ProgressCallback
    from sbert_mini.training import processes

    plan = training.prepare(chosen, output=output, data=held)
    del held
    for finding in plan.findings if first else ():
        note(f"task {finding.task}: {finding.text}" if finding.task else finding.text)
    if dry_run:
        _describe(plan, as_json, offline)
        return
    if report is not None and resume and training.is_finished(plan, seed=seed, offline=offline):
        if first:
            note(f"{plan.output} is trained already")
            saved = _report(plan, report, budget, offline)["saved"]
            if as_json:
                print(_document(plan, saved["step"], saved["step"], saved["figures"]))
        return
    if report is not None and resume and (plan.output / "modules.json").is_file():
        raise UsageError(
            f"{plan.output} is not what this recipe, seed and data gave: there is no report of it; name another output to train"
        )
    tell = note if first else lambda text: None  # noqa: ARG005
    bar = ProgressCallback(bar=progress_wanted(quiet))
    with training.computing_threads(budget):
        try:
            done = training.fit(plan, seed=seed, resume=resume, offline=offline, callbacks=[bar], on_progress=tell)
        except KeyboardInterrupt:
            kept = training.newest_checkpoint(plan.run)
            if kept is None:
                raise
            raise Interrupted(f"{kept} is kept; the same command with --resume goes on from it") from None
        finally:
            bar.close()
    processes.leave()
    if not first:
        return
    if as_json:
        print(_document(plan, done.steps, done.resumed_from, done.figures), flush=True)
    for name, value in done.figures.items() if not as_json else ():
        print(f"{name.replace('_', ' '):<24}{figure_text(value)}", flush=True)
    if done.figures and done.figures["mean"] is None:
        note(NO_BEST)
    note(f"the weights of step {done.steps} -> {done.output}")
    if report is not None:
        _report(plan, report, budget, offline)


def _document(plan: "Plan", steps: int, resumed_from: int, figures: Mapping[str, float | None]) -> str:
    """Return what `--json` prints of a run that is over."""
    found = {
        "output": str(plan.output),
        "steps": steps,
        "resumed_from": resumed_from,
        "figures": dict(figures),
        "overlap": {name: dict(counts) for name, counts in plan.overlap.items()},
    }
    return json.dumps(found, ensure_ascii=False)


def _report(plan: "Plan", folder: Path, threads: int, offline: bool) -> dict[str, Any]:
    """Write the report of a run that is over, and return its record."""
    from sbert_mini.evaluation.measure import command_line, machine
    from sbert_mini.evaluation.report import write_report
    from sbert_mini.recipes.record import training_record

    note("predicting the dev sets once more, for the report")
    found = training_record(plan, threads=threads, offline=offline)
    record: dict[str, Any] = {"command": command_line(), "machine": machine(threads), **found}
    note(f"report -> {write_report(folder, 'training', record)}")
    return record


def soup(
    models: Annotated[
        list[Path], typer.Argument(help="Model directories, all trained from the same start.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model directory to write.", show_default=False)],
    quiet: options.Quiet = False,
) -> None:
    """Average the weights of several trained models, heads included (a model soup).

    Everything else, including the card, comes from the first model.
    """
    quiet_notes(quiet)
    for model in models:
        if not model.is_dir():
            raise ModelNotFoundError(f"the model directory {model} does not exist")
    from sbert_mini.training.averaging import soup as average

    average(models, output)
    note(f"the mean of {len(models)} models -> {output}")


def _describe(plan: "Plan", as_json: bool, offline: bool) -> None:
    from sbert_mini.recipes import fit as training
    from sbert_mini.recipes.estimates import estimate
    from sbert_mini.training.schedule import Schedule

    recipe = plan.recipe
    model = training.load_start(recipe, offline=offline)
    costs = estimate(plan, offline=offline)
    counts = {task.config.name: len(task.train) for task in plan.tasks if not task.only_measured}
    schedule = Schedule(recipe.train.schedule, counts, recipe.train.batch_size, 1, recipe.train.floor)
    sizes = dict(zip(counts, schedule.sizes_at(0), strict=True))
    found = {
        "model": recipe.model.start,
        "output": str(plan.output),
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": training.total_steps(plan),
        "batch_size": recipe.train.batch_size,
        "surgery": recipe.train.surgery,
        "memory_bytes": max(cost.peak_bytes for cost in costs),
        "seconds": sum(cost.seconds for cost in costs),
        "phases": [asdict(cost) for cost in costs],
        "tasks": [
            {
                "name": task.config.name,
                "structure": task.config.structure,
                "loss": task.config.loss,
                "train_rows": len(task.train),
                "dev_rows": len(task.dev) if task.dev is not None else 0,
                "labels": list(task.labels),
                "examples_a_batch": sizes.get(task.config.name, 0),
                "dropped": {
                    k.removeprefix("dropped: "): n for k, n in task.train.counts.items() if k.startswith("dropped: ")
                },
            }
            for task in plan.tasks
        ],
    }
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    print(f"{found['model']} ({found['parameters']:,} parameters) -> {found['output']}")
    print(f"{found['steps']:,} steps of {found['batch_size']} examples, surgery {found['surgery']}")
    for number, cost in enumerate(costs, start=1):
        named = f"phase {number}, encoder {cost.encoder}: " if len(costs) > 1 else ""
        print(
            f"{named}{cost.steps:,} steps of {cost.seconds_a_step:.2f} s: about {_duration(cost.seconds)}, evaluations left out; "
            f"up to {cost.peak_bytes / 1e9:.1f} GB, measured on this machine"
        )
    for task in plan.tasks:
        if task.only_measured:
            print(f"{task.config.name}: measured only, {len(task.dev or ()):,} dev rows")
            continue
        size = sizes[task.config.name]
        dev = f"{len(task.dev):,} dev rows" if task.dev is not None else "no dev rows"
        print(
            f"{task.config.name}: {task.config.structure}, {task.config.loss}, {len(task.train):,} train rows, {dev}, "
            f"{size} examples a batch"
        )
        for key, count in task.train.counts.items():
            if key != "read":
                print(f"  {count:,} rows {key.replace(':', ',', 1)}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@recipes.command("list", epilog="Example:\n\n  sbmini recipes list\n")
def list_recipes() -> None:
    """List the recipes: name and description."""
    from sbert_mini.recipes.recipe import built_in

    for name, file in built_in().items():
        print(f"{name}\t{file.read_text('utf-8').splitlines()[0].removeprefix('# ')}")


@recipes.command("show", epilog="Example:\n\n  sbmini recipes show paraphrase > recipe.toml\n")
def show(
    name: Annotated[str, typer.Argument(help="A built-in recipe's name; ./NAME is a file.", show_default=False)],
) -> None:
    """Print a recipe, to edit and pass to `sbmini train`."""
    from sbert_mini.recipes.recipe import find_recipe

    quiet_notes(quiet=False)
    file = find_recipe(name)
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the recipe {file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    print(text, end="")
