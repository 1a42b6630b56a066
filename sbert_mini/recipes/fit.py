"""A recipe, carried out: data read and checked, model loaded, trained, saved. What `sbmini train` does."""

import contextlib
import hashlib
import itertools
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainingArguments
from transformers import TrainerCallback, TrainerState, set_seed

from sbert_mini.encoder.module import MiniBertModule, MiniSentenceTransformer, load
from sbert_mini.errors import SbertMiniError, UsageError
from sbert_mini.evaluation.measure import machine
from sbert_mini.files import outputs
from sbert_mini.files.durable import write_durably
from sbert_mini.model import registry
from sbert_mini.model.layout import read_layout
from sbert_mini.model.weights import weight_files
from sbert_mini.recipes.card import write_card
from sbert_mini.recipes.data import RecipeData, read_data
from sbert_mini.recipes.launchers import refuse_sharding
from sbert_mini.recipes.recipe import MarginPart, Recipe, TaskPart
from sbert_mini.runtime.fingerprint import file_sha256
from sbert_mini.training import checkpoints, losses, processes
from sbert_mini.training.checks import Finding, findings, overlap, overlap_counts, why_unmeasurable
from sbert_mini.training.config import FitterConfig
from sbert_mini.training.distill import teacher_vectors
from sbert_mini.training.examples import Examples
from sbert_mini.training.schedule import Change
from sbert_mini.training.tasks import Task
from sbert_mini.training.trainer import MultiTaskTrainer, Patience

log = logging.getLogger("sbert_mini")
RUN_SUFFIX, RUN = ".run", "run.json"
_DECAYS = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


@dataclass(frozen=True)
class Plan:
    """What a recipe comes to, its data read and checked; nothing is trained yet.

    Attributes:
        recipe: the recipe.
        tasks: its tasks, with the rows that are trained on.
        findings: what a person should know of the data.
        overlap: STS set -> task -> training rows that stand in it.
        output: the model directory to be written.
        run: the folder of checkpoints and logs beside it.
    """

    recipe: Recipe
    tasks: tuple[Task, ...]
    findings: tuple[Finding, ...]
    overlap: Mapping[str, Mapping[str, int]]
    output: Path
    run: Path


@dataclass(frozen=True)
class Fit:
    """What a training run gave.

    Attributes:
        output: the model directory.
        steps: optimizer steps to the weights that are saved: those of the best mean, where there are dev sets and a mean is
            defined; else the last ones.
        figures: their dev figures, by `<task>_<metric>`, and the mean; None for one that is not defined; empty without dev sets.
        history: the batch sizes over time.
        resumed_from: the step that the run went on from; 0 for a fresh one.
    """

    output: Path
    steps: int
    figures: Mapping[str, float | None]
    history: tuple[Change, ...]
    resumed_from: int


def prepare(recipe: Recipe, *, output: Path | None = None, data: RecipeData | None = None) -> Plan:
    """Return the plan of a recipe: its data read and checked.

    Args:
        recipe: the recipe.
        output: the model directory; None for the recipe's.
        data: what the recipe's files hold, where it has been read.

    Raises:
        UsageError: something in the recipe does not fit its data.
        InputError: a file is missing or cannot be read, or a row of it cannot be meant.
    """
    data = data or read_data(recipe)
    tasks = []
    found: list[Finding] = []
    for part in recipe.tasks:
        task = _task(recipe, part, data)
        if not task.only_measured:
            found += findings(part.name, task.train, task.dev, task.labels)
        tasks.append(task)
    found += _dev_findings(tasks)
    found += _hidden_models(recipe)
    counted = overlap_counts({task.config.name: task.train for task in tasks}, data.evaluation)
    for name, counts in counted.items():
        for task_name, count in counts.items():
            text = f"{count} training rows stand in {name}; data.drop_evaluation = true leaves such rows out"
            found.append(Finding(task_name, text))
    place = outputs.with_name(output or recipe.resolve(recipe.model.output, in_data=False))
    return Plan(recipe, tuple(tasks), tuple(found), counted, place, place.with_name(place.name + RUN_SUFFIX))


def _hidden_models(recipe: Recipe) -> list[Finding]:
    """Return the built-in models under whose names a folder lies beside the recipe, too."""
    named = dict.fromkeys([recipe.model.start, *(part.teacher for part in recipe.tasks if part.teacher)])
    return [
        Finding("", f"{name} is the built-in model, and ./{name} in the recipe means the folder of that name beside it")
        for name in named
        if name in registry.BUILTIN and (recipe.folder / name).is_dir()
    ]


def _dev_findings(tasks: Sequence[Task]) -> list[Finding]:
    """Return which dev sets no model has a figure on."""
    reasons = {}
    for task in tasks:
        config = task.config
        if task.dev is not None:
            scored, ranked = config.graded and config.needs_label, not config.needs_label
            reasons[config.name] = why_unmeasurable(task.dev, scored=scored, ranked=ranked)
    found = [
        Finding(name, f"dev: {reason}: its dev figures are undefined, and no mean counts them")
        for name, reason in reasons.items()
        if reason
    ]
    if found and all(reasons.values()):
        found.append(Finding("", "no dev set can be measured: the weights of the last step will be saved"))
    return found


def _task(recipe: Recipe, part: TaskPart, data: RecipeData) -> Task:
    config = part.config()
    if recipe.model.encoder == "frozen" and not recipe.phases and part.files("train") and not config.has_weights:
        raise UsageError(f"task {part.name!r}: the encoder is frozen, and the loss {part.loss} has no head to train")
    train, dev = data.tables[part.name]
    if train is None:
        return Task(config, Examples(()), dev, _margin(part.margin))
    if part.drop_overlap and dev is not None:
        train = train.kept([not x for x in overlap(train.texts, dev.texts)], "in the dev set")
    if drop := recipe.data.drop_evaluation:
        rows = [pair for name, pairs in data.evaluation.items() if drop is True or name in drop for pair in pairs]
        train = train.kept([not x for x in overlap(train.texts, rows)], "in an STS set")
    task = Task(config, train, dev, _margin(part.margin)).trained()
    return replace(task, train=task.train.in_both_orders()) if part.both_orders else task


def _margin(part: MarginPart | None) -> losses.Margin | None:
    if part is None:
        return None
    if part.rule == "fixed":
        return losses.FixedMargin(part.value)
    if part.rule == "scheduled":
        return losses.ScheduledMargin(part.start, part.end, part.shape)
    return losses.HardNegativeMargin(part.value, part.quantile, part.rate, part.low, part.high, part.every)


def phase_tasks(recipe: Recipe, tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks as a phase takes them: while the encoder is frozen, those without a head to train are only measured."""
    if recipe.model.encoder == "trained":
        return list(tasks)
    return [
        task
        if task.config.has_weights or task.only_measured
        else Task(task.config, Examples(()), task.dev, task.margin)
        for task in tasks
        if task.config.has_weights or task.dev is not None
    ]


def load_start(recipe: Recipe, *, offline: bool = False, held: Path | None = None) -> MiniSentenceTransformer:
    """Return the model that training starts from, with the recipe's length and dropout; `held` is an earlier phase's."""
    model = load(held or start_name(recipe), device=None, offline=offline)
    encoder = model[0]
    assert isinstance(encoder, MiniBertModule)  # noqa: S101
    if recipe.model.layers and held is None:
        encoder.model.keep_layers(recipe.model.layers)
    if recipe.model.max_seq_length is not None:
        model.max_seq_length = recipe.model.max_seq_length
    if recipe.model.dropout is not None:
        encoder.model.with_dropout(recipe.model.dropout)
    return model


def _teachers(recipe: Recipe) -> dict[str, str | Path]:
    """Return the tasks that learn from a teacher, and its name."""
    return {part.name: recipe.local_model(part.teacher) for part in recipe.tasks if part.teacher is not None}


def _taught(plan: Plan, tasks: Sequence[Task], offline: bool, on_progress: Callable[[str], None]) -> list[Task]:
    """Return the tasks, those that learn from a teacher with its vectors: the first process computes them."""
    teachers = _teachers(plan.recipe)
    graphs: dict[str, Any] = {part.name: part.teacher_graph for part in plan.recipe.tasks}
    found = []
    for task in tasks:
        if not task.config.spec.taught:
            found.append(task)
            continue
        texts = [row[0] for row in task.train.texts]
        encode = partial(
            teacher_vectors,
            texts,
            teachers[task.config.name],
            plan.run / "teachers",
            graph=graphs[task.config.name],
            threads=torch.get_num_threads(),
            offline=offline,
        )
        if is_first_process():
            encode(on_progress=on_progress)
        processes.wait()
        vectors = encode()
        found.append(replace(task, teacher_vectors=vectors))
    return found


def phase_run(run: Path, number: int, phases: int) -> Path:
    """Return the folder of a phase's checkpoints and log: the run's own where there is one phase."""
    return run if phases == 1 else run / f"phase-{number}"


def total_steps(plan: Plan) -> int:
    """Return the optimizer steps of a plan, all phases together."""
    return sum(_steps(recipe, phase_tasks(recipe, plan.tasks)) for recipe in plan.recipe.in_phases())


def _steps(recipe: Recipe, tasks: Sequence[Task]) -> int:
    train = recipe.train
    if train.steps is not None:
        return train.steps
    examples = sum(len(task.train) for task in tasks)
    batches = math.ceil(examples / train.batch_size)
    return math.ceil(math.ceil(batches / train.gradient_accumulation) * (train.epochs or 0))


def arguments(
    recipe: Recipe, tasks: Sequence[Task], run: Path, *, seed: int | None = None
) -> SentenceTransformerTrainingArguments:
    """Return sentence-transformers' training arguments for a recipe of one phase.

    Args:
        recipe: the recipe.
        tasks: its tasks.
        run: the folder of checkpoints.
        seed: of everything that is drawn; None for the recipe's.
    """
    refuse_sharding()
    train, optimizer = recipe.train, recipe.optimizer
    steps = _steps(recipe, tasks)
    with_dev = any(task.dev is not None for task in tasks)
    parts = train.epochs if train.epochs is not None and train.epochs > 1 else 10
    every = recipe.evaluation.every or max(math.ceil(steps / parts), 1)
    save = every if with_dev else train.save_every or 250
    on_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    return SentenceTransformerTrainingArguments(
        output_dir=str(run),
        max_steps=steps,
        gradient_accumulation_steps=train.gradient_accumulation,
        learning_rate=optimizer.learning_rate,
        weight_decay=optimizer.weight_decay,
        adam_beta1=optimizer.beta1,
        adam_beta2=optimizer.beta2,
        adam_epsilon=optimizer.epsilon,
        warmup_steps=math.ceil(optimizer.warmup * steps) if optimizer.warmup < 1 else int(optimizer.warmup),
        lr_scheduler_type=_DECAYS[optimizer.decay],
        max_grad_norm=train.max_grad_norm,
        bf16=train.precision == "bf16",
        use_cpu=not on_gpu,
        dataloader_drop_last="WORLD_SIZE" in os.environ,  # it has no partial batches; the stock trainer warns else
        ddp_backend=None if on_gpu or "WORLD_SIZE" not in os.environ else "gloo",
        logging_steps=train.log_every,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if with_dev else "no",
        eval_steps=every,
        save_strategy="steps",
        save_steps=save,
        save_total_limit=train.keep_checkpoints + 1,
        load_best_model_at_end=with_dev,
        metric_for_best_model="eval_mean" if with_dev else None,
        greater_is_better=True if with_dev else None,
        restore_callback_states_from_checkpoint=True,
        report_to=train.report_to or "none",
        disable_tqdm=True,
        seed=train.seed if seed is None else seed,
    )


def fit(
    plan: Plan,
    *,
    seed: int | None = None,
    resume: bool = False,
    offline: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    on_progress: Callable[[str], None] = lambda text: None,  # noqa: ARG005
) -> Fit:
    """Train by a plan, and write the model directory.

    Checkpoints and the log lie in `<output>.run/` while it trains, those of a phase in `<output>.run/phase-<n>/`; the checkpoints
    are deleted when the model is written. Under torchrun every process calls this, and the first one writes.

    Args:
        plan: the plan.
        seed: of everything that is drawn; None for the recipe's.
        resume: go on from the newest checkpoint, if there is one.
        offline: open no socket.
        callbacks: of the trainer, further ones.
        on_progress: told what is being done.

    Raises:
        UsageError: the output exists already, or there are checkpoints and `resume` is not asked for, or they are of another
            recipe.
    """
    recipe = plan.recipe
    outputs.check_new(plan.output)
    _check_run(plan.run)
    kept = newest_checkpoint(plan.run)
    if kept is not None and not resume:
        raise UsageError(
            f"{plan.run} holds {kept.relative_to(plan.run)} of an earlier run: go on with it by --resume, or delete the folder"
        )
    seed = recipe.train.seed if seed is None else seed
    start = registry.resolve(start_name(recipe), offline=offline)
    if is_first_process():
        outputs.make_folder(plan.run)
        names = {"start": str(start_name(recipe)), "teachers": ", ".join(map(str, _teachers(recipe).values()))}
        _same_run(plan.run / RUN, _identity(plan, seed, start, offline), names, started=kept is not None)
    phases = recipe.in_phases()
    held: Path | None = None
    resumed = 0
    for number, phase in enumerate(phases, start=1):
        last = number == len(phases)
        run = phase_run(plan.run, number, len(phases))
        if not last and outputs.is_made(run / "model"):
            held = run / "model"
            resumed += _steps(phase, phase_tasks(phase, plan.tasks))
            continue
        if len(phases) > 1:
            on_progress(f"phase {number} of {len(phases)}: encoder {phase.model.encoder}")
        done = _fit_phase(
            phase, plan, run, held, seed, offline, callbacks, on_progress, None if last else run / "model", start
        )
        resumed += done.resumed_from
        held = run / "model"
    return replace(done, resumed_from=resumed)


def _fit_phase(
    recipe: Recipe,
    plan: Plan,
    run: Path,
    held: Path | None,
    seed: int,
    offline: bool,
    callbacks: Sequence[TrainerCallback],
    on_progress: Callable[[str], None],
    output: Path | None,
    start: Path,
) -> Fit:
    """Train one phase, from the start or from what an earlier phase gave (`held`), into `output`, or the plan's with a card."""
    checkpoint = newest_checkpoint(run)
    tasks = phase_tasks(recipe, plan.tasks)
    for name in sorted(
        {t.config.name for t in plan.tasks if not t.only_measured}
        - {t.config.name for t in tasks if not t.only_measured}
    ):
        on_progress(f"task {name}: it has no head to train, and waits until the encoder is trained")
    settings = arguments(recipe, tasks, run, seed=seed)  # joins the other processes, if there are some
    tasks = _taught(plan, tasks, offline, on_progress)
    set_seed(seed)
    on_progress(f"loading {recipe.model.start if held is None else held}")
    model = load_start(recipe, offline=offline, held=held)
    with_dev = any(task.dev is not None for task in tasks)
    patience = recipe.evaluation.patience if with_dev else 0
    stopping = [Patience(patience, [task.config for task in tasks])] if patience else []
    if is_first_process():
        _trim_log(run / "log.jsonl", int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0)
    try:
        with _tensorboard_in(plan.run / "tensorboard"):
            trainer = MultiTaskTrainer(
                model,
                settings,
                tasks,
                fitter_config(recipe),
                callbacks=[_Log(run), _AtEnd(), *stopping, *callbacks],
            )
    except (ValueError, RuntimeError) as error:
        if isinstance(error, SbertMiniError):
            raise
        raise UsageError(f"{recipe.path}: sentence-transformers refuses these settings: {error}") from error
    if held is not None:
        trainer.load_heads(held)
    if checkpoint is None or not _is_over(checkpoint):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    else:  # killed between its last checkpoint and the model's writing
        trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        last = checkpoint.with_name(f"checkpoint-{trainer.state.best_global_step}")
        trainer.restore(last if last.is_dir() else checkpoint)
    best = trainer.state.best_global_step if with_dev and trainer.state.best_global_step else trainer.state.global_step
    figures = _figures_at(trainer.state.log_history, best)
    history = tuple(trainer.schedule.history)
    resumed = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    done = Fit(plan.output, best, figures, history, resumed)
    if is_first_process():
        final = output or plan.output
        part = outputs.new_part(final)
        trainer.save_model(str(part))
        if output is None:
            _write_card(plan, part, trainer.tasks, done, start, seed, offline)
        outputs.finish(part, final, keep_mark=output is not None)
        for folder in _run_folders(plan.run) if output is None else [run]:
            for stale in filter(checkpoints.is_checkpoint, checkpoints.checkpoint_folders(folder)):
                shutil.rmtree(stale, ignore_errors=True)
            if output is None and outputs.is_made(folder / "model"):
                shutil.rmtree(folder / "model", ignore_errors=True)
    processes.wait()
    return done


@contextlib.contextmanager
def _tensorboard_in(folder: Path) -> Iterator[None]:
    """Name the folder to TensorBoard's callback while the trainer is made, unless the user named one."""
    name = "TENSORBOARD_LOGGING_DIR"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        del os.environ[name]


def _write_card(
    plan: Plan, part: Path, tasks: Sequence[Task], done: Fit, start: Path, seed: int, offline: bool
) -> None:
    write_card(
        part,
        plan.output.name,
        plan.recipe,
        start,
        [registry.resolve(name, offline=offline) for name in _teachers(plan.recipe).values()],
        tasks,
        done.figures,
        plan.overlap,
        done.history,
        done.steps,
        seed,
        torch.get_num_threads(),
    )


def fitter_config(recipe: Recipe) -> FitterConfig:
    """Return what a recipe of one phase says to the trainer, beside `arguments`."""
    return FitterConfig(
        batch_size=recipe.train.batch_size,
        schedule=recipe.train.schedule,
        floor=recipe.train.floor,
        surgery=None if recipe.train.surgery == "none" else recipe.train.surgery,
        encoder=recipe.model.encoder,
        head_learning_rate=recipe.optimizer.head_learning_rate,
        optimizer=recipe.optimizer.name,
        length_batches=recipe.train.length_batches,
        layer_decay=recipe.optimizer.layer_decay,
        unfreeze_every=recipe.optimizer.unfreeze_every,
        regularization=recipe.regularization,
        average=recipe.average,
        lora=recipe.lora,
        train_rows=recipe.evaluation.train_rows,
    )


def is_first_process() -> bool:
    """Return whether this process is the one that writes: the only one, or the first under torchrun."""
    return int(os.environ.get("RANK", "0")) == 0


def start_name(recipe: Recipe) -> str | Path:
    """Return the name of the starting model; a directory beside the recipe wins over a hub id."""
    return recipe.local_model(recipe.model.start)


def newest_checkpoint(run: Path) -> Path | None:
    """Return the newest whole checkpoint in a run's folder, or None."""
    for folder in reversed(_run_folders(run)):
        if own := [path for path in checkpoints.checkpoint_folders(folder) if checkpoints.is_checkpoint(path)]:
            return own[-1]
        if folder != run and outputs.is_made(folder / "model"):
            return folder / "model"
    return None


def _run_folders(run: Path) -> list[Path]:
    """Return a run's folder and those of its phases, in order."""
    phases = [path for path in run.glob("phase-*") if path.is_dir() and path.name.removeprefix("phase-").isdecimal()]
    return [run, *sorted(phases, key=lambda path: int(path.name.removeprefix("phase-")))]


def _check_run(run: Path) -> None:
    """Refuse a folder of checkpoints that a run would write into, or remove from, what it did not make.

    Raises:
        UsageError: the text names what stands there.
    """
    if not run.exists():
        return
    if not run.is_dir():
        raise UsageError(f"{run}, the folder for checkpoints, is a file: move it, or name another output")
    others = [path for path in run.iterdir() if not path.name.startswith(f".{RUN}.")]
    if others and not {"recipe", "seed"} <= set(run_notes(run)):
        raise UsageError(
            f"{run}, the folder for checkpoints, holds {others[0].name}, and was not made by sbmini: move it, or name another "
            "output"
        )
    for folder in _run_folders(run):
        made = [(path, checkpoints.is_checkpoint(path)) for path in checkpoints.checkpoint_folders(folder)]
        made += [(path, outputs.is_made(path)) for path in folder.glob(f"checkpoint-*{outputs.PART}")]
        if folder != run:
            made += [
                (path, outputs.is_made(path)) for name in ("model", "model.part") if (path := folder / name).exists()
            ]
        for path, ours in made:
            if not ours:
                raise UsageError(f"{path} is in the way, and was not made by sbmini: move it, or name another output")


def _is_over(checkpoint: Path) -> bool:
    """Return whether a checkpoint is that of a run's last step: all steps done, or stopped early."""
    state = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
    control = state["stateful_callbacks"].get("TrainerControl", {}).get("args", {})
    return bool(control.get("should_training_stop")) or state["global_step"] >= state["max_steps"]


def _digest(tasks: Sequence[Task]) -> str:
    """Return the sha256 of all rows and labels."""
    digest = hashlib.sha256()
    for task in tasks:
        for examples in (task.train, task.dev):
            rows = [] if examples is None else [examples.texts, examples.labels]
            digest.update(json.dumps([task.config.name, rows], ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _start_digest(start: Path) -> str:
    """Return the sha256 of the starting model's weights."""
    layout = read_layout(start)
    return ", ".join(file_sha256(file) for file in weight_files(layout.encoder_path))


def is_finished(plan: Plan, *, seed: int | None = None, offline: bool = False) -> bool:
    """Return whether the plan's output is the model that just this plan, with this seed, gave, by however many processes."""
    if not (plan.output / "modules.json").is_file():
        return False
    seed = plan.recipe.train.seed if seed is None else seed
    identity = _identity(plan, seed, registry.resolve(start_name(plan.recipe), offline=offline), offline)
    noted = run_notes(plan.run)
    return all(noted.get(key) == value for key, value in identity.items() if key != "processes")


def _identity(plan: Plan, seed: int, start: Path, offline: bool) -> dict[str, Any]:
    """Return what must be the same for a run to go on."""
    teachers = {
        task: _start_digest(registry.resolve(name, offline=offline)) for task, name in _teachers(plan.recipe).items()
    }
    return {
        "recipe": plan.recipe.text,
        "seed": seed,
        "data": _digest(plan.tasks),
        "start": _start_digest(start),
        **({"teachers": teachers} if teachers else {}),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }


def run_notes(run: Path) -> dict[str, Any]:
    """Return what a run's folder notes of the run: what must be the same to go on, and the `machine`; empty where it does not."""
    try:
        return dict(json.loads((run / RUN).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _differences(noted: Mapping[str, Any], identity: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    """Return what a run's notes have otherwise than this run, in words.

    Args:
        noted: from `run_notes`.
        identity: this run's.
        names: what this run's starting model and teachers are called.
    """
    found = []
    before = noted.get("names") or {}
    if noted.get("start") != identity["start"]:
        theirs, ours = before.get("start"), names["start"]
        named = f"the starting model {theirs}, and this run starts from {ours}" if theirs not in (None, ours) else ""
        found.append(named or f"another starting model (the weights of {ours} have changed, or it is another one)")
    if noted.get("recipe") != identity["recipe"]:
        found.append(f"another recipe{_first_change(str(noted.get('recipe')), str(identity['recipe']))}")
    if noted.get("seed") != identity["seed"]:
        found.append(f"seed {noted.get('seed')}, and this run has seed {identity['seed']}")
    if noted.get("data") != identity["data"]:
        found.append("other data: rows or labels of a train or dev file have changed")
    if noted.get("teachers") != identity.get("teachers"):
        found.append(
            f"another teacher than {names.get('teachers') or 'none'} (before: {before.get('teachers') or 'none'})"
        )
    if noted.get("processes", 1) != identity["processes"]:
        found.append(f"{noted.get('processes', 1)} processes, and this run has {identity['processes']}")
    return found


def _first_change(before: str, now: str) -> str:
    """Return the first line in which two recipes differ, in words."""
    pairs = itertools.zip_longest(before.splitlines(), now.splitlines(), fillvalue="")
    for number, (old, new) in enumerate(pairs, start=1):
        if old != new:
            return f" (line {number} was `{old.strip()}`, and is `{new.strip()}`)"
    return ""


def _same_run(file: Path, identity: Mapping[str, Any], names: Mapping[str, str], *, started: bool) -> None:
    """Refuse to go on with a run of another recipe or seed; note this one's."""
    if started:
        noted = run_notes(file.parent)
        if differences := _differences(noted, identity, names):
            raise UsageError(
                f"the checkpoints in {file.parent} were made with {'; '.join(differences)}: give what they were made with, name "
                "another output, or delete that folder"
            )
        return
    notes = {**identity, "names": dict(names), "machine": machine(torch.get_num_threads())}
    write_durably(file, (json.dumps(notes) + "\n").encode())


def _figures_at(history: Sequence[Mapping[str, Any]], step: int) -> dict[str, float | None]:
    """Return the dev figures that were taken at a step."""
    for entry in reversed(history):
        if entry.get("step") == step and "eval_mean" in entry:
            own = {k.removeprefix("eval_"): v for k, v in entry.items() if k.startswith("eval_")}
            found = {k: v for k, v in own.items() if not k.startswith("train_")}
            return dict(sorted(found.items(), key=lambda item: (item[0] == "mean", item[0])))  # a resumed log is sorted
    return {}


class _Log(TrainerCallback):
    """Writes each line of the log into `log.jsonl`."""

    def __init__(self, run: Path) -> None:
        self._file = run / "log.jsonl"

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **options: Any) -> None:  # noqa: ARG002
        if not state.is_world_process_zero:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": state.global_step, **(logs or {})}) + "\n")


class _AtEnd(TrainerCallback):
    """Writes a line of the log, and takes the dev figures, after the last step, too."""

    def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:  # noqa: ARG002
        if state.global_step >= state.max_steps:
            control.should_log = True
            control.should_evaluate = control.should_evaluate or args.eval_strategy != "no"


def _trim_log(file: Path, step: int) -> None:
    """Leave in the log what was before a step: what came after it is done again."""
    if file.is_file():
        lines = [line for line in file.read_text("utf-8").splitlines() if step and json.loads(line)["step"] <= step]
        file.write_text("".join(line + "\n" for line in lines), "utf-8")


@contextlib.contextmanager
def computing_threads(threads: int) -> Iterator[None]:
    """Compute with this many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
