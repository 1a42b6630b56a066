"""`sbmini train`: a recipe -> a model directory. `sbmini recipes`: the recipes that travel with the package."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbert_mini.errors import ModelNotFoundError, UsageError
from sbert_mini.training.surgery_rules import PREFIX, SURGERY_RULES

from . import options
from .notes import Interrupted, note, progress_wanted, quiet_notes
from .printing import print_json, print_text
from .rejects import PARTLY_DONE

if TYPE_CHECKING:
    from sbert_mini.recipes.plan import Fit, Plan

EXAMPLE = """Examples:

  sbmini train pairs.csv -o my-model

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


RecipeName = Annotated[
    str,
    typer.Argument(
        help="A recipe: a TOML file, or the name of a built-in one; ./NAME is always a file. Or a table to train from: csv, "
        "tsv, jsonl, json or parquet, with --output.",
        show_default=False,
    ),
]
OutputDirectory = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="The model directory, in place of the recipe's.", show_default=False),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the newest checkpoint, if there is one.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="In place of the recipe's.", show_default=False)]
Surgery = Annotated[
    str | None,
    typer.Option(
        "--surgery",
        help="How the tasks' gradients are combined, in place of the recipe's train.surgery: none, "
        f"{', '.join(SURGERY_RULES)}. Those with {PREFIX} need the extra 'torchjd'.",
        show_default=False,
    ),
]
ReportFolder = Annotated[
    Path | None,
    typer.Option(
        "--report",
        help="A folder for tables, pictures, JSON and one HTML page of the run; those of `sbmini bench` may share it. With "
        "--resume, and a run that is over, the report alone is made.",
        show_default=False,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Check recipe and data, print the plan and its cost, and train nothing."),
]
DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data", help="The folder that $SBMINI_DATA means in the recipe. [env: SBMINI_DATA]", show_default=False
    ),
]
TextColumns = Annotated[
    list[str] | None,
    typer.Option("--text-column", help="Of a table: a column of text. [default: found]", show_default=False),
]
LabelColumn = Annotated[
    str | None,
    typer.Option("--label-column", help="Of a table: the column of labels. [default: found]", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document, the last line of stdout.")]


def train(
    recipe: RecipeName,
    output: OutputDirectory = None,
    resume: Resume = False,
    seed: Seed = None,
    surgery: Surgery = None,
    report: ReportFolder = None,
    dry_run: DryRun = False,
    data: DataFolder = None,
    text_column: TextColumns = None,
    label_column: LabelColumn = None,
    delimiter: options.Delimiter = None,
    as_json: AsJson = False,
    threads: options.Threads = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a model on one or several tasks, by a recipe or from a table.

    A table is enough: pairs with 0 and 1, with grades, or pairs that match; anchor, positive and negatives; texts with a label.
    Columns, loss, batch and epochs follow by the rules in docs/training.md. A fifth of the rows is held back to measure on. The
    recipe is written to OUTPUT.recipe/.

    The recipe names tasks, files, columns, losses, heads, batch sizes, schedule, gradient surgery, optimizer and evaluation;
    docs/recipes.md describes each key. Data are checked first. Checkpoints are in OUTPUT.run/ during training. --resume continues
    an interrupted or killed run, and gives the same weights as an uninterrupted one. The model directory loads in plain
    sentence-transformers; `sbmini predict` uses its task heads. Several processes train one model under torchrun.

    In the end the model is compared with the starting model on the same dev rows. If a model from a table is worse, OUTPUT is not
    made: the weights are in OUTPUT.worse, and the exit code is 4. For a recipe, evaluation.keep decides.
    """
    from sbert_mini.recipes.from_table import is_table
    from sbert_mini.recipes.launchers import is_first_process
    from sbert_mini.runtime.engine import thread_count

    quiet = quiet or not is_first_process()
    quiet_notes(quiet)
    if report is not None and dry_run:
        raise UsageError("--report tells of a run, and --dry-run makes none: give one of the two")
    if data is not None:
        if not data.is_dir():
            raise UsageError(f"the data folder {data} does not exist")
        os.environ["SBMINI_DATA"] = str(data.resolve())
    budget = thread_count(threads)
    os.environ["OMP_NUM_THREADS"] = str(budget)  # before torch is loaded
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if surgery is not None and is_table(recipe):
        raise UsageError("--surgery is for a recipe of several tasks, and a table is one task")
    recipe = _of_table(recipe, output, text_column or [], label_column, delimiter, seed, resume=resume)
    plan = _plan(recipe, output, surgery, report, offline, only_report=report is not None and resume)
    if dry_run:
        _describe(plan, as_json, offline)
        return
    done = _trained_already(plan, seed, offline) if report is not None and resume else None
    if done is None:
        done = _fit(plan, seed, budget, resume=resume, offline=offline, quiet=quiet)
    if not is_first_process():
        return
    if as_json:
        print_json(_document(plan, done), flush=True)
    for name, value in done.figures.items() if not as_json else ():
        print_text(f"{name.replace('_', ' '):<24}{_figure(value)}", flush=True)
    if report is not None:
        _report(plan, done, report, budget, offline)
    _conclude(plan, done, as_json=as_json)


def _of_table(
    name: str,
    output: Path | None,
    texts: list[str],
    label: str | None,
    delimiter: str | None,
    seed: int | None,
    *,
    resume: bool,
) -> str:
    """Return the recipe of a table, which is written; any other name as it is.

    Raises:
        UsageError: the options and the name do not go together, or the output is there already.
    """
    from sbert_mini.recipes.from_table import is_table, recipe_from_table

    if not is_table(name):
        if texts or label is not None or delimiter is not None:
            raise UsageError(
                "--text-column, --label-column and --delimiter are for a table; a recipe names its columns"
            )
        return name
    from sbert_mini.files.outputs import check_new
    from sbert_mini.recipes.launchers import process_count

    if output is None:
        raise UsageError(f"--output (-o) is needed: the directory of the model that is trained from {name}")
    if process_count() is not None:
        raise UsageError("one process trains from a table; several train its recipe, OUTPUT.recipe/recipe.toml")
    if not resume:  # a run that is over may be reported on
        check_new(output)
    columns = {"text_columns": texts, "label_column": label, "delimiter": delimiter}
    return str(recipe_from_table(Path(name), output, **columns, seed=seed or 0, on_note=note))  # type: ignore[arg-type]


def _conclude(plan: "Plan", done: "Fit", *, as_json: bool) -> None:
    """Say where the model is, and what it is beside its start.

    Raises:
        typer.Exit: it is worse than its start, and not kept.
    """
    from sbert_mini.evaluation.gain_tables import against_start

    comparison = done.comparison
    if comparison is not None and not as_json:
        print_text("\n" + against_start(comparison.to_json()).terminal(), flush=True)
    note(f"the weights of step {done.steps} -> {done.output}")
    if comparison is None:
        return
    for warning in comparison.warnings:
        note(warning)
    if done.output == plan.output:
        note(comparison.text)
        return
    note(f"{comparison.text}: {plan.output} is not made; the weights are in {done.output}")
    raise typer.Exit(PARTLY_DONE)


def _plan(
    name: str, output: Path | None, surgery: str | None, report: Path | None, offline: bool, *, only_report: bool
) -> "Plan":
    """Return the plan of a recipe. Importing torch takes seconds: mistakes in the recipe, its files and names come before.

    The output may be there already only if `only_report`.
    """
    from sbert_mini.files.outputs import check_new
    from sbert_mini.model.registry import resolve
    from sbert_mini.recipes.data import read_data
    from sbert_mini.recipes.launchers import is_first_process, refuse_sharding
    from sbert_mini.recipes.reader import read_recipe
    from sbert_mini.recipes.recipe import find_recipe

    if report is not None:
        from sbert_mini.evaluation.report import check_folder

        check_folder(report)
    recipe = read_recipe(find_recipe(name))
    if surgery is not None:
        recipe = recipe.with_surgery(surgery)
    more = ("torchjd",) if recipe.train.surgery.startswith(PREFIX) else ()
    for package in ("torch", "sentence_transformers", *more):  # without them no other advice helps
        if find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    refuse_sharding()
    if not only_report:
        check_new(recipe.output(output))
    data = read_data(recipe)
    resolve(recipe.local_model(recipe.model.start), offline=offline)
    from sbert_mini.recipes.plan import prepare

    plan = prepare(recipe, output=output, data=data)
    for finding in plan.findings if is_first_process() else ():
        note(f"task {finding.task}: {finding.text}" if finding.task else finding.text)
    return plan


def _trained_already(plan: "Plan", seed: int | None, offline: bool) -> "Fit | None":
    """Return what an earlier run of this plan gave, where its model is there; else None.

    Raises:
        UsageError: the output is a model of another plan.
    """
    from sbert_mini.recipes.record import saved_fit
    from sbert_mini.recipes.run_folder import is_finished

    if is_finished(plan, seed=seed, offline=offline):
        note(f"{plan.output} is trained already")
        return saved_fit(plan, offline=offline)
    if plan.written() is not None:
        raise UsageError(
            f"{plan.output} is not what this recipe, seed and data gave: there is no report of it; name another output to train"
        )
    return None


def _fit(plan: "Plan", seed: int | None, threads: int, *, resume: bool, offline: bool, quiet: bool) -> "Fit":
    """Train, with a bar and notes where they are wanted; an interrupt says what is kept."""
    from sbert_mini.evaluation.tables import NO_BEST
    from sbert_mini.recipes.callbacks import ProgressCallback
    from sbert_mini.recipes.fit import fit
    from sbert_mini.recipes.launchers import is_first_process
    from sbert_mini.recipes.run_folder import newest_checkpoint
    from sbert_mini.recipes.settings import computing_threads
    from sbert_mini.training import processes

    on_progress = note if is_first_process() else lambda text: None  # noqa: ARG005
    bar = ProgressCallback(bar=progress_wanted(quiet))
    with computing_threads(threads):
        try:
            done = fit(plan, seed=seed, resume=resume, offline=offline, callbacks=[bar], on_progress=on_progress)
        except KeyboardInterrupt:
            checkpoint = newest_checkpoint(plan.run)
            if checkpoint is None:
                raise
            raise Interrupted(f"{checkpoint} is kept; the same command with --resume goes on from it") from None
        finally:
            bar.close()
    processes.leave()
    if is_first_process() and done.figures and done.figures["mean"] is None:
        note(NO_BEST)
    return done


def _figure(value: float | None) -> str:
    from sbert_mini.evaluation.tables import figure_text

    return figure_text(value)


def _document(plan: "Plan", done: "Fit") -> dict[str, Any]:
    """Return what `--json` prints of a run that is over."""
    return {
        "output": str(done.output),
        "steps": done.steps,
        "resumed_from": done.resumed_from,
        "figures": dict(done.figures),
        "overlap": {name: dict(counts) for name, counts in plan.overlap.items()},
        "start": done.comparison.to_json() if done.comparison is not None else None,
    }


def _report(plan: "Plan", done: "Fit", folder: Path, threads: int, offline: bool) -> None:
    """Write the report of a run that is over."""
    from sbert_mini.evaluation.measure import command_line, machine
    from sbert_mini.evaluation.report import write_report
    from sbert_mini.recipes.record import training_record

    note("predicting the dev sets once more, for the report")
    record = training_record(plan, comparison=done.comparison, threads=threads, offline=offline)
    document = {"command": command_line(), "machine": machine(threads), **record}
    note(f"report -> {write_report(folder, 'training', document)}")


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
    """Print what a plan will do and cost."""
    from sbert_mini.recipes.estimates import describe, estimate
    from sbert_mini.training.examples import OTHER_ORDER

    costs = estimate(plan, offline=offline)
    description = describe(plan, costs, offline=offline)
    if as_json:
        print_json(description)
        return
    print_text(f"{description['model']} ({description['parameters']:,} parameters) -> {description['output']}")
    print_text(
        f"{description['steps']:,} steps of {description['batch_size']} examples, surgery {description['surgery']}"
    )
    for number, cost in enumerate(costs, start=1):
        phase = f"phase {number}, encoder {cost.encoder}: " if len(costs) > 1 else ""
        print_text(
            f"{phase}{cost.steps:,} steps of {cost.seconds_a_step:.2f} s: about {_duration(cost.seconds)}, evaluations left out; "
            f"up to {cost.peak_bytes / 1e9:.1f} GB, measured on this machine"
        )
    for task, entry in zip(plan.tasks, description["tasks"], strict=True):
        if task.only_measured:
            print_text(f"{entry['name']}: measured only, {entry['dev_rows']:,} dev rows")
            continue
        dev = f"{entry['dev_rows']:,} dev rows" if task.dev is not None else "no dev rows"
        print_text(
            f"{entry['name']}: {entry['structure']}, {entry['loss']}, {entry['train_rows']:,} train rows, {dev}, "
            f"{entry['examples_a_batch']} examples a batch"
        )
        for reason, count in task.train.dropped.items():
            print_text(f"  {count:,} rows dropped, {reason}")
        if added := task.train.counts.get(OTHER_ORDER):
            print_text(f"  {added:,} rows added, in the other order")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@recipes.command("list", epilog="Example:\n\n  sbmini recipes list\n")
def list_recipes() -> None:
    """List the recipes: name and description."""
    from sbert_mini.recipes.recipe import built_in

    for name, file in built_in().items():
        print_text(f"{name}\t{file.read_text('utf-8').splitlines()[0].removeprefix('# ')}")


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
    print_text(text, end="")
