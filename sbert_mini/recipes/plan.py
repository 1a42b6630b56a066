"""A plan: a recipe with its data, read and checked, and ready settings for each phase. `fit` carries it out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from sbert_mini.encoder.module import MiniBertModule, MiniSentenceTransformer, load
from sbert_mini.evaluation.gains import Comparison
from sbert_mini.evaluation.log_keys import EVAL_MEAN
from sbert_mini.files import outputs
from sbert_mini.model import registry
from sbert_mini.model.choices import Graph
from sbert_mini.recipes.data import RecipeData, read_data
from sbert_mini.recipes.recipe import Recipe, TaskPart
from sbert_mini.training.checks import Finding, findings, overlap, overlap_counts, why_unmeasurable
from sbert_mini.training.config import FitterConfig
from sbert_mini.training.examples import Examples
from sbert_mini.training.losses import margin_of
from sbert_mini.training.schedule import Change
from sbert_mini.training.tasks import Task

RUN_SUFFIX, WORSE_SUFFIX = ".run", ".worse"
_SAVE_EVERY = 250
_SCHEDULERS = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


@dataclass(frozen=True)
class Start:
    """The model that training starts from, and what is changed in it.

    Attributes:
        model: its name: a directory, a built-in name or a hub id.
        layers: which of its layers are kept, counted from 0; empty for all.
        max_seq_length: the longest input in tokens; None for the model's.
        dropout: the probability of dropout in the encoder; None for the model's.
        trust_tokenizer: see `sbert_mini.load`.
    """

    model: str | Path
    layers: tuple[int, ...] = ()
    max_seq_length: int | None = None
    dropout: float | None = None
    trust_tokenizer: bool = False

    def load(self, earlier: Path | None = None, *, offline: bool = False) -> MiniSentenceTransformer:
        """Return the model, ready for training.

        Args:
            earlier: the model that an earlier phase wrote, in place of the starting model; its layers are kept already.
            offline: open no socket.
        """
        model = load(earlier or self.model, device=None, offline=offline, trust_tokenizer=self.trust_tokenizer)
        encoder = model[0]
        assert isinstance(encoder, MiniBertModule)  # noqa: S101
        if self.layers and earlier is None:
            encoder.model.keep_layers(self.layers)
        if self.max_seq_length is not None:
            model.max_seq_length = self.max_seq_length
        if self.dropout is not None:
            encoder.model.with_dropout(self.dropout)
        return model


@dataclass(frozen=True)
class Teacher:
    """The model that a task of the loss `distillation` learns from.

    Attributes:
        model: its name: a directory, a built-in name or a hub id.
        graph: what computes its vectors.
        trust_tokenizer: see `Embedder`.
    """

    model: str | Path
    graph: Graph
    trust_tokenizer: bool = False


@dataclass(frozen=True)
class Phase:
    """A phase of a plan: settings that are ready to train with.

    Attributes:
        number: from 1.
        tasks: the tasks that take part.
        waiting: the names of tasks without a head to train, which wait while the encoder is frozen.
        fitter: the fitter's settings.
        steps: optimizer steps.
        arguments: of `SentenceTransformerTrainingArguments`, but for folder, seed and device.
        patience: evaluations without a better mean after which training stops; 0 for never.
        run: the folder of its checkpoints and log.
        output: the model directory that it writes: the plan's, or one in `run` for the next phase.
        is_last: whether it is the plan's last one.
    """

    number: int
    tasks: tuple[Task, ...]
    waiting: tuple[str, ...]
    fitter: FitterConfig
    steps: int
    arguments: Mapping[str, object]
    patience: int
    run: Path
    output: Path
    is_last: bool

    @property
    def with_dev(self) -> bool:
        """Whether a task has dev examples."""
        return any(task.dev is not None for task in self.tasks)

    @property
    def is_done(self) -> bool:
        """Whether an earlier run wrote the model that the next phase starts from."""
        return not self.is_last and outputs.is_made(self.output)


@dataclass(frozen=True)
class Fit:
    """What a training run gave.

    Attributes:
        output: the model directory; the plan's `worse` where the model is worse than the start and is not kept.
        steps: optimizer steps to the weights that are saved: those of the best mean, where there are dev sets and a mean is
            defined; else the last ones.
        figures: their dev figures, by `<task>_<metric>`, and the mean; None for one that is not defined; empty without dev sets.
        history: the batch sizes over time.
        resumed_from: the step that the run went on from; 0 for a fresh one.
        comparison: the model beside the starting model; None without dev sets.
    """

    output: Path
    steps: int
    figures: Mapping[str, float | None]
    history: tuple[Change, ...]
    resumed_from: int
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Plan:
    """A recipe with its data, read and checked; nothing is trained yet.

    Attributes:
        recipe: the recipe, for the card and the record.
        tasks: its tasks, with the rows that are trained on.
        findings: what a person should know of the data.
        overlap: STS set -> task -> training rows that also occur in it.
        start: the model that training starts from.
        teachers: task -> the model that it learns from.
        seed: of everything that is drawn, where none other is given.
        output: the model directory to be written.
        run: the folder of checkpoints and logs beside it.
    """

    recipe: Recipe
    tasks: tuple[Task, ...]
    findings: tuple[Finding, ...]
    overlap: Mapping[str, Mapping[str, int]]
    start: Start
    teachers: Mapping[str, Teacher]
    seed: int
    output: Path
    run: Path

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """Its phases, in order: one, where the recipe has none."""
        *earlier, last = self.recipe.in_phases()
        runs = [self.run / f"phase-{number}" for number in range(1, len(earlier) + 2)] if earlier else [self.run]
        phases = [_phase(recipe, self.tasks, n, runs[n - 1], None) for n, recipe in enumerate(earlier, start=1)]
        return (*phases, _phase(last, self.tasks, len(runs), runs[-1], self.output))

    @property
    def worse(self) -> Path:
        """The directory of a model that is worse than its start, where the recipe does not keep such a model."""
        return self.output.with_name(self.output.name + WORSE_SUFFIX)

    def place_of(self, comparison: Comparison | None) -> Path:
        """Return the directory that a model of this comparison belongs in."""
        refused = self.recipe.evaluation.keep == "not-worse" and comparison is not None
        return self.worse if refused and comparison.verdict == "worse" else self.output  # type: ignore[union-attr]

    def written(self) -> Path | None:
        """Return the directory of the model that a run of this plan has written; None for none."""
        return next((path for path in (self.output, self.worse) if (path / "modules.json").is_file()), None)

    @property
    def steps(self) -> int:
        """Optimizer steps, all phases together."""
        return sum(phase.steps for phase in self.phases)

    def start_directory(self, *, offline: bool = False) -> Path:
        """Return the directory of the starting model."""
        return registry.resolve(self.start.model, offline=offline)


def prepare(recipe: Recipe, *, output: Path | None = None, data: RecipeData | None = None) -> Plan:
    """Return the plan of a recipe: its data read and checked.

    Args:
        recipe: the recipe.
        output: the model directory; None for the recipe's.
        data: what the recipe's files hold, where it has been read.

    Raises:
        UsageError: something in the recipe does not fit its data.
        InputError: a file is missing or cannot be read, or a row of it is invalid.
    """
    data = data or read_data(recipe)
    tasks = tuple(_task(recipe, part, data) for part in recipe.tasks)
    counts = overlap_counts({task.config.name: task.train for task in tasks}, data.evaluation)
    directory = recipe.output(output)
    model = recipe.model
    return Plan(
        recipe=recipe,
        tasks=tasks,
        findings=(
            *_row_findings(tasks),
            *_dev_findings(tasks),
            *_schedule_findings(recipe, tasks),
            *_hidden_models(recipe),
            *_overlap_findings(counts),
        ),
        overlap=counts,
        start=Start(
            recipe.local_model(model.start),
            tuple(model.layers),
            model.max_seq_length,
            model.dropout,
            trust_tokenizer=model.trust_tokenizer,
        ),
        teachers={
            part.name: Teacher(recipe.local_model(part.teacher), part.teacher_graph, part.trust_tokenizer)
            for part in recipe.tasks
            if part.teacher is not None
        },
        seed=recipe.train.seed,
        output=directory,
        run=directory.with_name(directory.name + RUN_SUFFIX),
    )


def _row_findings(tasks: Sequence[Task]) -> list[Finding]:
    return [
        finding
        for task in tasks
        if not task.only_measured
        for finding in findings(task.config.name, task.train, task.dev, task.labels)
    ]


def _dev_findings(tasks: Sequence[Task]) -> list[Finding]:
    """Return which dev sets no model has a figure on."""
    reasons = {}
    for task in tasks:
        config = task.config
        if task.dev is not None:
            scored, ranked = config.graded and config.needs_label, not config.needs_label
            reasons[config.name] = why_unmeasurable(task.dev, scored=scored, ranked=ranked)
    undefined = [
        Finding(name, f"dev: {reason}: its dev figures are undefined, and no mean counts them")
        for name, reason in reasons.items()
        if reason
    ]
    if undefined and all(reasons.values()):
        undefined.append(Finding("", "no dev set can be measured: the weights of the last step will be saved"))
    return undefined


def _schedule_findings(recipe: Recipe, tasks: Sequence[Task]) -> list[Finding]:
    """Return in which phases an annealed schedule has one epoch at most, and so never anneals."""
    found = []
    phases = recipe.in_phases() if recipe.train.schedule == "annealed" else ()
    for number, phase in enumerate(phases, start=1):
        taking_part = _tasks_of(phase, tasks)
        steps, epoch = _steps(phase, taking_part), _steps_per_epoch(phase, taking_part)
        if steps <= epoch:
            where = f"phase {number}: " if len(phases) > 1 else ""
            found.append(
                Finding(
                    "",
                    f"{where}{steps} steps are at most an epoch of {epoch}: the schedule annealed stays proportional",
                )
            )
    return found


def _hidden_models(recipe: Recipe) -> list[Finding]:
    """Return the built-in models whose names are also folders beside the recipe."""
    named = dict.fromkeys([recipe.model.start, *(part.teacher for part in recipe.tasks if part.teacher)])
    return [
        Finding("", f"{name} is the built-in model, and ./{name} in the recipe means the folder of that name beside it")
        for name in named
        if name in registry.BUILTIN and (recipe.folder / name).is_dir()
    ]


def _overlap_findings(counts: Mapping[str, Mapping[str, int]]) -> list[Finding]:
    return [
        Finding(task, f"{count} training rows also occur in {name}; data.drop_evaluation = true leaves such rows out")
        for name, of_tasks in counts.items()
        for task, count in of_tasks.items()
    ]


def _task(recipe: Recipe, part: TaskPart, data: RecipeData) -> Task:
    """Return a task with the rows that it is trained on."""
    margin = None if part.margin is None else margin_of(part.margin)
    train, dev = data.tables[part.name]
    if train is None:
        return Task(part.config, Examples(()), dev, margin)
    if part.drop_overlap and dev is not None:
        train = train.kept([not x for x in overlap(train.texts, dev.texts)], "in the dev set")
    if drop := recipe.data.drop_evaluation:
        rows = [pair for name, pairs in data.evaluation.items() if drop is True or name in drop for pair in pairs]
        train = train.kept([not x for x in overlap(train.texts, rows)], "in an STS set")
    task = Task(part.config, train, dev, margin).trained()
    return replace(task, train=task.train.in_both_orders()) if part.both_orders else task


def _phase(recipe: Recipe, tasks: Sequence[Task], number: int, run: Path, output: Path | None) -> Phase:
    """Return a phase of a plan: `recipe` is the recipe of this phase alone, `output` the plan's, or None before the last one."""
    taking_part = _tasks_of(recipe, tasks)
    names = {task.config.name for task in taking_part if not task.only_measured}
    steps = _steps(recipe, taking_part)
    with_dev = any(task.dev is not None for task in taking_part)
    return Phase(
        number=number,
        tasks=taking_part,
        waiting=tuple(sorted({t.config.name for t in tasks if not t.only_measured} - names)),
        fitter=recipe.fitter(),
        steps=steps,
        arguments=_arguments(recipe, steps, with_dev=with_dev),
        patience=recipe.evaluation.patience if with_dev else 0,
        run=run,
        output=output or run / "model",
        is_last=output is not None,
    )


def _tasks_of(recipe: Recipe, tasks: Sequence[Task]) -> tuple[Task, ...]:
    """Return the tasks of a phase: while the encoder is frozen, those without a head to train are only measured."""
    if recipe.model.encoder == "trained":
        return tuple(tasks)
    return tuple(
        task
        if task.config.has_weights or task.only_measured
        else Task(task.config, Examples(()), task.dev, task.margin)
        for task in tasks
        if task.config.has_weights or task.dev is not None
    )


def _steps(recipe: Recipe, tasks: Sequence[Task]) -> int:
    train = recipe.train
    if train.steps is not None:
        return train.steps
    return math.ceil(_steps_per_epoch(recipe, tasks) * (train.epochs or 0))


def _steps_per_epoch(recipe: Recipe, tasks: Sequence[Task]) -> int:
    examples = sum(len(task.train) for task in tasks)
    return math.ceil(math.ceil(examples / recipe.train.batch_size) / recipe.train.gradient_accumulation)


def _arguments(recipe: Recipe, steps: int, *, with_dev: bool) -> dict[str, object]:
    """Return sentence-transformers' training arguments of a phase, but for folder, seed and device."""
    train, optimizer = recipe.train, recipe.optimizer
    parts = train.epochs if train.epochs is not None and train.epochs > 1 else 10
    every = recipe.evaluation.every or max(math.ceil(steps / parts), 1)
    return {
        "max_steps": steps,
        "gradient_accumulation_steps": train.gradient_accumulation,
        "learning_rate": optimizer.learning_rate,
        "weight_decay": optimizer.weight_decay,
        "adam_beta1": optimizer.beta1,
        "adam_beta2": optimizer.beta2,
        "adam_epsilon": optimizer.epsilon,
        "warmup_steps": math.ceil(optimizer.warmup * steps),
        "lr_scheduler_type": _SCHEDULERS[optimizer.decay],
        "max_grad_norm": train.max_grad_norm,
        "bf16": train.precision == "bf16",
        "logging_steps": train.log_every,
        "eval_strategy": "steps" if with_dev else "no",
        "eval_steps": every,
        "save_steps": every if with_dev else train.save_every or _SAVE_EVERY,
        "save_total_limit": train.keep_checkpoints + 1,
        "load_best_model_at_end": with_dev,
        "metric_for_best_model": EVAL_MEAN if with_dev else None,
        "greater_is_better": True if with_dev else None,
        "report_to": train.report_to or "none",
    }
