"""A recipe, carried out: data read and checked, model loaded, trained, saved. What `sbmini train` does."""

import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainingArguments
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerState, set_seed

from sbert_mini import models
from sbert_mini.encoder.checkpoint import weight_files
from sbert_mini.encoder.module import MiniBertModule, MiniSentenceTransformer, load
from sbert_mini.errors import InputError, SbertMiniError, UsageError
from sbert_mini.evaluation.sets import KNOWN, find_set
from sbert_mini.layout import read_layout
from sbert_mini.runtime.conversion import file_sha256
from sbert_mini.training import losses
from sbert_mini.training.card import write_card
from sbert_mini.training.checks import Finding, findings, overlap, overlap_counts
from sbert_mini.training.examples import Examples, read_examples
from sbert_mini.training.recipe import MarginPart, Recipe, TaskPart
from sbert_mini.training.schedule import Change
from sbert_mini.training.tasks import Task, TaskConfig
from sbert_mini.training.trainer import PART, FitterConfig, MultiTaskTrainer

log = logging.getLogger("sbert_mini")
RUN_SUFFIX = ".run"
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
        steps: optimizer steps to the weights that are saved (those of the best mean, where there are dev sets).
        figures: their dev figures, by `<task>_<metric>`, and the mean; empty without dev sets.
        history: the batch sizes over time.
        resumed_from: the step that the run went on from; 0 for a fresh one.
    """

    output: Path
    steps: int
    figures: Mapping[str, float]
    history: tuple[Change, ...]
    resumed_from: int


def prepare(recipe: Recipe, *, output: Path | None = None) -> Plan:
    """Return the plan of a recipe: its data read and checked.

    Args:
        recipe: the recipe.
        output: the model directory; None for the recipe's.

    Raises:
        UsageError: something in the recipe does not fit its data.
        InputError: a file is missing or cannot be read, or a row of it cannot be meant.
    """
    evaluation = _evaluation_sets(recipe)
    tasks = []
    found: list[Finding] = []
    for part in recipe.tasks:
        task = _task(recipe, part, evaluation)
        found += findings(part.name, task.train, task.dev, task.labels)
        tasks.append(task)
    counted = overlap_counts({task.config.name: task.train for task in tasks}, evaluation)
    for name, counts in counted.items():
        for task_name, count in counts.items():
            text = f"{count} training rows stand in {name}; data.drop_evaluation = true leaves such rows out"
            found.append(Finding(task_name, text))
    place = output or recipe.resolve(recipe.model.output, in_data=False)
    return Plan(recipe, tuple(tasks), tuple(found), counted, place, place.with_name(place.name + RUN_SUFFIX))


def _evaluation_sets(recipe: Recipe) -> dict[str, list[tuple[str, str]]]:
    """Return the pairs of the STS sets in the folder that the recipe names: set -> pairs."""
    if recipe.data.evaluation is None:
        return {}
    folder = recipe.resolve(recipe.data.evaluation, in_data=False)
    held = {name: find_set(folder, name) for name in KNOWN}
    if not any(held.values()):
        raise InputError(f"data.evaluation: {folder} holds none of {', '.join(KNOWN)}")
    return {name: list(zip(s.first, s.second, strict=True)) for name, s in held.items() if s is not None}


def _task(recipe: Recipe, part: TaskPart, evaluation: Mapping[str, Iterable[tuple[str, str]]]) -> Task:
    config = TaskConfig(
        name=part.name,
        structure=part.structure,
        loss=part.loss,
        labels=tuple(part.labels),
        low=part.low,
        high=part.high,
        positive=part.positive,
        hidden=part.hidden,
        head_dropout=part.head_dropout,
        weight=part.weight,
        metric=part.metric,
        scale=part.scale,
        triplet_margin=part.triplet_margin,
        mini_batch_size=part.mini_batch_size,
    )
    if recipe.model.encoder == "frozen" and not config.has_weights:
        raise UsageError(f"task {part.name!r}: the encoder is frozen, and the loss {part.loss} has no head to train")
    label = part.label or ("label" if config.needs_label else None)

    def read(which: str, limit: int | None) -> Examples | None:
        paths = [recipe.resolve(name) for name in part.files(which)]
        if not paths:
            return None
        held = read_examples(paths, part.text_columns(), label, graded=config.graded)
        return held.kept([i < limit for i in range(len(held))], "over the limit") if limit is not None else held

    train, dev = read("train", part.limit), read("dev", part.dev_limit)
    assert train is not None  # noqa: S101
    if part.drop_overlap and dev is not None:
        train = train.kept([not x for x in overlap(train.texts, dev.texts)], "in the dev set")
    if drop := recipe.data.drop_evaluation:
        rows = [pair for name, pairs in evaluation.items() if drop is True or name in drop for pair in pairs]
        train = train.kept([not x for x in overlap(train.texts, rows)], "in an STS set")
    return Task(config, train, dev, _margin(part.margin)).trained()


def _margin(part: MarginPart | None) -> losses.Margin | None:
    if part is None:
        return None
    if part.rule == "fixed":
        return losses.FixedMargin(part.value)
    if part.rule == "scheduled":
        return losses.ScheduledMargin(part.start, part.end, part.shape)
    return losses.HardNegativeMargin(part.value, part.quantile, part.rate, part.low, part.high, part.every)


def load_start(recipe: Recipe, *, offline: bool = False) -> MiniSentenceTransformer:
    """Return the model that training starts from, with the recipe's length and dropout."""
    model = load(start_name(recipe), device=None, offline=offline)
    if recipe.model.max_seq_length is not None:
        model.max_seq_length = recipe.model.max_seq_length
    if recipe.model.dropout is not None:
        encoder = model[0]
        assert isinstance(encoder, MiniBertModule)  # noqa: S101
        encoder.model.with_dropout(recipe.model.dropout)
    return model


def total_steps(plan: Plan) -> int:
    """Return the optimizer steps of a plan."""
    train = plan.recipe.train
    if train.steps is not None:
        return train.steps
    examples = sum(len(task.train) for task in plan.tasks)
    batches = math.ceil(examples / train.batch_size)
    return math.ceil(math.ceil(batches / train.gradient_accumulation) * (train.epochs or 0))


def memory_estimate(model: MiniSentenceTransformer, plan: Plan) -> int:
    """Return roughly how many bytes a training run holds beside Python and its libraries.

    Weights, the tasks' gradients, two moments, and for the longest batch the states that back-propagation needs (about 34 bytes
    of 16 bits a token, layer and hidden component; Korthikanti et al. 2022, arXiv 2205.05198, equation 1, without attention).
    """
    encoder = model[0]
    assert isinstance(encoder, MiniBertModule)  # noqa: S101
    config = encoder.model.config
    weights = sum(p.numel() for p in model.parameters())
    table = encoder.model.embeddings.word_embeddings.weight.numel()
    trained = 0 if plan.recipe.model.encoder == "frozen" else weights
    surgery = len(plan.tasks) + 1 if plan.recipe.train.surgery != "none" and len(plan.tasks) > 1 else 1
    gradients = surgery * max(trained - table, 0)
    texts = max(2 if t.config.structure in ("siamese", "triplet") else 1 for t in plan.tasks)
    tokens = plan.recipe.train.batch_size * texts * min(model.max_seq_length or 128, 64)
    states = 0 if not trained else 34 * tokens * config.hidden_size * config.num_hidden_layers
    return 4 * (weights + gradients + 2 * trained) + 2 * states


def arguments(plan: Plan, *, seed: int | None = None) -> SentenceTransformerTrainingArguments:
    """Return sentence-transformers' training arguments for a plan."""
    recipe = plan.recipe
    train, optimizer = recipe.train, recipe.optimizer
    steps = total_steps(plan)
    with_dev = any(task.dev is not None for task in plan.tasks)
    every = recipe.evaluation.every or max(math.ceil(steps / 10), 1)
    save = every if with_dev else train.save_every or 250
    return SentenceTransformerTrainingArguments(
        output_dir=str(plan.run),
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
        use_cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()),
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

    Checkpoints and the log lie in `<output>.run/` while it trains; the checkpoints are deleted when the model is written.

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
    if plan.output.exists() and (not plan.output.is_dir() or any(plan.output.iterdir())):
        raise UsageError(f"{plan.output} exists already: name another output, or delete it")
    checkpoint = newest_checkpoint(plan.run)
    if checkpoint is not None and not resume:
        raise UsageError(
            f"{plan.run} holds {checkpoint.name} of an earlier run: go on with it by --resume, or delete the folder"
        )
    seed = recipe.train.seed if seed is None else seed
    start = models.resolve(start_name(recipe), offline=offline)
    identity = {"recipe": recipe.text, "seed": seed, "data": _digest(plan.tasks), "start": _start_digest(start)}
    _same_run(plan.run / "run.json", identity, started=checkpoint is not None)
    set_seed(seed)
    on_progress(f"loading {recipe.model.start}")
    model = load_start(recipe, offline=offline)
    fitter = FitterConfig(
        batch_size=recipe.train.batch_size,
        schedule=recipe.train.schedule,
        floor=recipe.train.floor,
        surgery=None if recipe.train.surgery == "none" else recipe.train.surgery,
        encoder=recipe.model.encoder,
        head_learning_rate=recipe.optimizer.head_learning_rate,
        optimizer=recipe.optimizer.name,
        length_batches=recipe.train.length_batches,
    )
    with_dev = any(task.dev is not None for task in plan.tasks)
    stopping = [EarlyStoppingCallback(recipe.evaluation.patience)] if recipe.evaluation.patience and with_dev else []
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(plan.run / "tensorboard"))
    _trim_log(plan.run / "log.jsonl", int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0)
    try:
        trainer = MultiTaskTrainer(
            model,
            arguments(plan, seed=seed),
            plan.tasks,
            fitter,
            callbacks=[_Log(plan.run), _EvaluateAtEnd(), *stopping, *callbacks],
        )
    except (ValueError, RuntimeError) as error:
        if isinstance(error, SbertMiniError):
            raise
        raise UsageError(f"{recipe.path}: sentence-transformers refuses these settings: {error}") from error
    if checkpoint is None or not _is_over(checkpoint):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    else:  # killed between its last checkpoint and the model's writing
        trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        last = checkpoint.with_name(f"checkpoint-{trainer.state.best_global_step}")
        trainer._load_from_checkpoint(str(last if last.is_dir() else checkpoint))
    best = trainer.state.best_global_step if with_dev and trainer.state.best_global_step else trainer.state.global_step
    figures = _figures_at(trainer.state.log_history, best)
    part = plan.output.with_name(plan.output.name + PART)
    shutil.rmtree(part, ignore_errors=True)
    trainer.save_model(str(part))
    history = tuple(trainer.schedule.history)
    write_card(
        part,
        plan.output.name,
        recipe,
        start,
        trainer.tasks,
        figures,
        plan.overlap,
        history,
        best,
        seed,
        torch.get_num_threads(),
    )
    with contextlib.suppress(OSError):
        plan.output.rmdir()  # an empty folder of that name may stand there
    part.rename(plan.output)
    for stale in plan.run.glob("checkpoint-*"):
        shutil.rmtree(stale, ignore_errors=True)
    resumed = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    return Fit(plan.output, best, figures, history, resumed)


def start_name(recipe: Recipe) -> str | Path:
    """Return the name of the starting model; a directory beside the recipe wins over a hub id."""
    local = recipe.resolve(recipe.model.start, in_data=False)
    return local if recipe.model.start not in models.BUILTIN and local.is_dir() else recipe.model.start


def newest_checkpoint(run: Path) -> Path | None:
    """Return the newest whole checkpoint in a run's folder, or None."""
    held = [p for p in run.glob("checkpoint-*") if p.is_dir() and p.name.rpartition("-")[2].isdecimal()]
    return max(held, key=lambda p: int(p.name.rpartition("-")[2]), default=None)


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


def _same_run(file: Path, identity: Mapping[str, Any], *, started: bool) -> None:
    """Refuse to go on with a run of another recipe or seed; note this one's."""
    if started:
        try:
            before = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError):
            before = None
        if before != identity:
            raise UsageError(
                f"the checkpoints in {file.parent} are of another recipe or seed, other data or another starting model: delete "
                "the folder, or give what they were made with"
            )
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(identity) + "\n", "utf-8")


def _figures_at(history: Sequence[Mapping[str, Any]], step: int) -> dict[str, float]:
    """Return the dev figures that were taken at a step."""
    for entry in reversed(history):
        if entry.get("step") == step and "eval_mean" in entry:
            found = {k.removeprefix("eval_"): v for k, v in entry.items() if k.startswith("eval_")}
            return dict(sorted(found.items(), key=lambda item: (item[0] == "mean", item[0])))  # a resumed log is sorted
    return {}


class _Log(TrainerCallback):
    """Writes each line of the log into `log.jsonl`."""

    def __init__(self, run: Path) -> None:
        self._file = run / "log.jsonl"

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **options: Any) -> None:  # noqa: ARG002
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": state.global_step, **(logs or {})}) + "\n")


class _EvaluateAtEnd(TrainerCallback):
    """Takes the dev figures after the last step, too."""

    def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:  # noqa: ARG002
        if state.global_step >= state.max_steps and args.eval_strategy != "no":
            control.should_evaluate = True


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
