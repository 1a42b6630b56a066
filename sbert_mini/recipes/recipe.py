"""A recipe: a TOML file that says everything of a training run. Read and checked before anything is loaded.

Its tables are `[data]`, `[model]`, `[lora]`, `[train]`, `[optimizer]`, `[regularization]`, `[average]`, `[evaluation]`, one
`[[task]]` a task, and where training goes in phases one `[[phase]]` each; their keys are the fields of the classes below. Paths
are relative to `data.folder`, else to the recipe's own folder (of a built-in recipe: the working directory); `$NAME` in a path
is an environment variable.
"""

import difflib
import logging
import math
import os
import re
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from sbert_mini.errors import UsageError
from sbert_mini.evaluation.sets import KNOWN
from sbert_mini.files.paths import expanded
from sbert_mini.model.registry import BUILTIN, DEFAULT_MODEL
from sbert_mini.training.config import OPTIMIZERS, AveragePart, LoraPart, RegularizationPart, key
from sbert_mini.training.schedule import SCHEDULES
from sbert_mini.training.task_config import COLUMNS, LORA_TARGETS, LOSSES, METRICS, STRUCTURES, TWO_SIDED, TaskConfig

log = logging.getLogger("sbert_mini")
T = TypeVar("T")
_NAMES = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
_LISTS_OF = {str: "a list of strings", float: "a list of numbers", int: "a list of whole numbers"}
SURGERY = ("pcgrad", "pcgrad-normalized", "gradvac", "sum", "sum-normalized", "mean", "none")


@dataclass(frozen=True)
class DataPart:
    """`[data]`.

    Attributes:
        folder: where the tasks' files lie; by default the recipe's own folder.
        evaluation: a folder of STS sets. Training pairs that also occur in one of them are counted, in the log and in the model's
            card.
        drop_evaluation: whether such pairs are left out: true for those of all sets, or a list of sets.
    """

    folder: str | None = key(None)
    evaluation: str | None = key(None)
    drop_evaluation: bool | list[str] = key(False)


@dataclass(frozen=True)
class ModelPart:
    """`[model]`.

    Attributes:
        start: the model that training starts from: a directory, a built-in name or a hub id.
        output: the directory that the trained model is written to.
        encoder: `trained`; or `frozen`, to train heads alone.
        layers: which of the starting model's layers are kept, in order, counted from 0; by default all.
        max_seq_length: the longest input in tokens; by default the starting model's.
        dropout: the probability of dropout in the encoder, 0 to 0.95; by default the starting model's.
    """

    output: str = key()
    start: str = key(DEFAULT_MODEL)
    encoder: str = key("trained", choices=("trained", "frozen"))
    layers: list[int] = key([])
    max_seq_length: int | None = key(None, low=4)
    dropout: float | None = key(None, low=0, high=0.95)


@dataclass(frozen=True)
class TrainPart:
    """`[train]`.

    Attributes:
        steps: optimizer steps; or give epochs, or phases.
        epochs: passes over the data, fractions included; an epoch holds as many examples as all tasks together have.
        batch_size: examples in a batch, all tasks together.
        gradient_accumulation: batches in an optimizer step; their gradients are averaged.
        schedule: how a batch is divided among the tasks.
        floor: the fewest examples of a task in a batch.
        surgery: how the tasks' gradients are combined; `none` adds them up without measuring conflicts.
        length_batches: whether examples of similar length share a batch.
        precision: the precision of the steps and of the evaluations between them; `bf16` (mixed) is for GPUs, and for
            processors with AVX512-BF16 or AMX, which are faster with it.
        max_grad_norm: gradients are scaled to at most this length; 0 for never.
        log_every: steps between two lines in the log.
        save_every: steps between two checkpoints where no task has a dev file, by default 250; else each evaluation makes one.
        keep_checkpoints: how many checkpoints are kept while training, in addition to the best one.
        report_to: `tensorboard`, or other trackers that sentence-transformers knows.
        seed: the random seed of the whole run, 0 or more.
    """

    steps: int | None = key(None, low=1)
    epochs: float | None = key(None, low=1e-3)
    batch_size: int = key(48, low=1)
    gradient_accumulation: int = key(1, low=1)
    schedule: str = key("round-robin", choices=SCHEDULES)
    floor: int = key(4, low=1)
    surgery: str = key("pcgrad", choices=SURGERY)
    length_batches: bool = key(True)
    precision: str = key("fp32", choices=("fp32", "bf16"))
    max_grad_norm: float = key(1.0, low=0)
    log_every: int = key(20, low=1)
    save_every: int | None = key(None, low=1)
    keep_checkpoints: int = key(1, low=1)
    report_to: list[str] = key([])
    seed: int = key(0, low=0)


@dataclass(frozen=True)
class OptimizerPart:
    """`[optimizer]`.

    Attributes:
        name: `adamw` and `adam` are this project's; `torch-adamw` is torch's fused one.
        learning_rate: the encoder's highest learning rate, 0 or more.
        head_learning_rate: the task heads' highest learning rate, 0 or more.
        weight_decay: the decay of weights, 0 or more; biases and LayerNorm have none.
        beta1: the decay rate of the average of gradients (first moment), 0 to 0.99999.
        beta2: the decay rate of the average of squared gradients (second moment), 0 to 0.9999999.
        epsilon: a small number added to the root of the second moment, 0 or more, against division by zero.
        warmup: the share of the steps during which the rate rises.
        decay: the curve of the learning rate after the warmup.
        layer_decay: each layer learns at this share of the next one's rate; 1 for one rate.
        unfreeze_every: steps after which one more layer is trained, from the last one down; 0 for all from the start.
    """

    name: str = key("adamw", choices=OPTIMIZERS)
    learning_rate: float = key(5e-5, low=0)
    head_learning_rate: float = key(1e-3, low=0)
    weight_decay: float = key(0.01, low=0)
    beta1: float = key(0.9, low=0, high=0.99999)
    beta2: float = key(0.999, low=0, high=0.9999999)
    epsilon: float = key(1e-8, low=0)
    warmup: float = key(0.1, low=0)
    decay: str = key("linear", choices=("linear", "cosine", "constant"))
    layer_decay: float = key(1.0, low=0.01, high=1)
    unfreeze_every: int = key(0, low=0)


@dataclass(frozen=True)
class PhasePart:
    """`[[phase]]`: what differs in a phase from `[model]`, `[train]` and `[optimizer]`; phases follow each other.

    Attributes:
        encoder: whether the encoder is `trained` or `frozen` in this phase.
        steps: optimizer steps; or give epochs.
        epochs: passes over the data in this phase.
        learning_rate: the encoder's highest learning rate in this phase.
        head_learning_rate: the task heads' highest learning rate in this phase.
        warmup: the share of the phase's steps during which the learning rate rises.
        decay: the curve of the learning rate after the warmup.
    """

    encoder: str | None = key(None, choices=("trained", "frozen"))
    steps: int | None = key(None, low=1)
    epochs: float | None = key(None, low=1e-3)
    learning_rate: float | None = key(None, low=0)
    head_learning_rate: float | None = key(None, low=0)
    warmup: float | None = key(None, low=0)
    decay: str | None = key(None, choices=("linear", "cosine", "constant"))


@dataclass(frozen=True)
class EvaluationPart:
    """`[evaluation]`.

    Attributes:
        every: steps between two evaluations on the dev sets; by default an epoch where epochs are given, else a tenth of the
            steps.
        patience: evaluations without a better mean after which training stops; 0 for never.
        train_rows: how many training rows of each task are measured beside the dev rows; 0 for none.
    """

    every: int | None = key(None, low=1)
    patience: int = key(0, low=0)
    train_rows: int = key(0, low=0)


@dataclass(frozen=True)
class MarginPart:
    """`[task.margin]`, for the loss `cosine-embedding`; see `losses`.

    Attributes:
        rule: how the margin moves: `fixed` keeps it, `scheduled` moves it over the steps, `hard-negatives` follows the
            cosines of dissimilar pairs.
        value: the margin of `fixed`, or the first margin of `hard-negatives`: a cosine, -1 to 1.
        start: with `scheduled`: the margin at the first step, a cosine, -1 to 1.
        end: with `scheduled`: the margin at the last step, a cosine, -1 to 1.
        shape: with `scheduled`: the curve of the margin from `start` to `end`.
        quantile: with `hard-negatives`: the margin moves towards this quantile of the dissimilar pairs' cosines, 0 to
            1; 0.75 leaves the hardest quarter above it.
        rate: with `hard-negatives`: the share of the distance to the quantile that the margin moves each time, above 0
            and at most 1.
        low: with `hard-negatives`: the margin's lowest value, a cosine, -1 to 1.
        high: with `hard-negatives`: the margin's highest value, a cosine, -1 to 1.
        every: with `hard-negatives`: when the margin moves: after each `batch`, or after each `epoch` by the quantile
            of all its pairs.
    """

    rule: str = key("fixed", choices=("fixed", "scheduled", "hard-negatives"))
    value: float = key(0.5, low=-1, high=1)
    start: float = key(0.7, low=-1, high=1)
    end: float = key(0.2, low=-1, high=1)
    shape: str = key("linear", choices=("linear", "cosine"))
    quantile: float = key(0.75, low=0, high=1)
    rate: float = key(0.05, low=1e-6, high=1)
    low: float = key(0.0, low=-1, high=1)
    high: float = key(0.9, low=-1, high=1)
    every: str = key("batch", choices=("batch", "epoch"))


@dataclass(frozen=True)
class TaskPart:
    """`[[task]]`; what structures and losses there are is said in `tasks`.

    Attributes:
        name: the task's name: letters, digits, - and _.
        structure: what an example is: a `single` text, a `siamese` pair, a `triplet`, or a `pair` in one input.
        loss: the loss that the task minimises.
        train: a file, or several; without it the task is only measured on its dev file.
        dev: a file, or several; without it the task has no dev figure.
        text: the column of text, or the columns.
        label: the column of labels or scores.
        labels: the labels in order; by default those of the training data.
        label_shares: each label's share where the model will be used, in that order, if it differs from the training data's:
            the logits are adjusted while training.
        low: the lowest score that occurs in the data's scale.
        high: the highest score that occurs in the data's scale.
        positive: a ranking loss trains on rows with at least this score.
        hidden: components of the head's hidden layer; 0 for none.
        head_dropout: the probability of dropout in the head, 0 to 0.95.
        weight: a factor of the loss, 0 or more.
        metric: the dev figure that counts for the best model.
        scale: the factor of the cosines in ranking losses, `cosent` and `angle`, 0 or more; a higher factor sharpens
            the loss.
        triplet_margin: with the loss `triplet`: the margin between the positive and the negative, 0 or more.
        mini_batch_size: with the loss `cached-multiple-negatives-ranking`: examples computed at once; more needs more
            memory.
        dimensions: lengths of the vectors' beginnings that the loss is also taken of, so that vectors can be cut (Matryoshka).
        teacher: with the loss `distillation`: the model whose vectors are learned: a directory, a built-in name or a
            hub id.
        teacher_graph: what computes the teacher's vectors; int8 is faster.
        vector_weight: with `distillation`: the weight of the loss between each vector and the teacher's, 0 or more; 0
            for a teacher of another dimension.
        similarity_weight: with `distillation`: the weight of the loss between the similarities within a batch and the
            teacher's, 0 or more.
        limit: the highest number of training rows.
        dev_limit: the highest number of dev rows.
        drop_overlap: whether training rows that also occur in the dev set are left out.
        both_orders: whether training pairs are also read the other way round: twice as many rows, for labels that do not depend
            on the order.
        adapter_size: components of projected attention layers of the task's own; 0 for none.
        adapter_heads: attention heads in these layers, 1 or more.
        margin: the table `[task.margin]` of the loss `cosine-embedding`.
    """

    name: str = key()
    structure: str = key(choices=tuple(STRUCTURES))
    loss: str = key(choices=tuple(LOSSES))
    train: str | list[str] | None = key(None)
    dev: str | list[str] | None = key(None)
    text: str | list[str] | None = key(None)
    label: str | None = key(None)
    labels: list[str] = key([])
    label_shares: list[float] = key([])
    low: float = key(0.0)
    high: float = key(1.0)
    positive: float | None = key(None)
    hidden: int = key(0)
    head_dropout: float = key(0.1)
    weight: float = key(1.0)
    metric: str | None = key(None, choices=METRICS)
    scale: float = key(20.0)
    triplet_margin: float = key(0.3)
    mini_batch_size: int = key(32)
    dimensions: list[int] = key([])
    teacher: str | None = key(None)
    teacher_graph: str = key("fp32", choices=("fp32", "int8"))
    vector_weight: float = key(1.0)
    similarity_weight: float = key(1.0)
    limit: int | None = key(None, low=1)
    dev_limit: int | None = key(None, low=1)
    drop_overlap: bool = key(False)
    both_orders: bool = key(False)
    adapter_size: int = key(0)
    adapter_heads: int = key(4)
    margin: MarginPart | None = key(None)

    def text_columns(self) -> list[str]:
        """Return the columns of text: those named, else the structure's usual ones."""
        named = [self.text] if isinstance(self.text, str) else self.text
        return named or list(COLUMNS[self.structure])

    def config(self) -> TaskConfig:
        """Return what the task is, without its data.

        Raises:
            UsageError: it cannot be meant; the error names the key.
        """
        values: dict[str, Any] = {key.name: getattr(self, key.name) for key in fields(TaskConfig)}
        values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return TaskConfig(**values)

    def files(self, which: str) -> list[str]:
        """Return the files of `train` or `dev`."""
        value = getattr(self, which)
        return [value] if isinstance(value, str) else list(value or [])


@dataclass(frozen=True)
class Recipe:
    """A recipe, checked.

    Attributes:
        path: the file.
        folder: what its paths are relative to.
        text: its content, for the model's card.
        data, model, train, optimizer, regularization, average, evaluation: its tables.
        lora: its table `[lora]`, or None.
        phases: its phases; empty for a single one with the settings of the tables.
        tasks: its tasks.
    """

    path: Path
    folder: Path
    text: str
    data: DataPart
    model: ModelPart
    train: TrainPart
    optimizer: OptimizerPart
    regularization: RegularizationPart
    average: AveragePart
    evaluation: EvaluationPart
    lora: LoraPart | None
    phases: tuple[PhasePart, ...]
    tasks: tuple[TaskPart, ...]

    def resolve(self, name: str, *, in_data: bool = True) -> Path:
        """Return a path of the recipe: absolute, `$NAME` replaced.

        Args:
            name: the path as the recipe has it.
            in_data: whether it is relative to `data.folder`, where one is named, rather than to the recipe's folder.

        Raises:
            UsageError: an environment variable that it names is not set.
        """
        base = self.folder
        if in_data and self.data.folder:
            base = base / self._expanded(self.data.folder)
        return base / self._expanded(name)

    def local_model(self, name: str) -> str | Path:
        """Return the name of a model; a directory beside the recipe wins over a hub id, and a built-in name over both."""
        local = self.resolve(name, in_data=False)
        return local if name not in BUILTIN and local.is_dir() else name

    def _expanded(self, name: str) -> Path:
        text = os.path.expandvars(name)
        if missing := re.search(r"\$\{?(\w+)", text):
            raise UsageError(
                f"{self.path} names the environment variable {missing[1]}, which is not set: set it, or name the folder with "
                "--data"
            )
        return expanded(text)

    def to_json(self) -> dict[str, Any]:
        """Return its tables as JSON holds them."""
        parts = {name: asdict(getattr(self, name)) for name in _TABLES}
        lora = {"lora": asdict(self.lora)} if self.lora else {}
        phases = {"phase": [asdict(phase) for phase in self.phases]} if self.phases else {}
        return {**parts, **lora, **phases, "task": [asdict(task) for task in self.tasks]}

    def in_phases(self) -> tuple["Recipe", ...]:
        """Return a recipe a phase, each without phases; of a recipe without phases itself alone."""
        return tuple(self._phase(part) for part in self.phases) or (self,)

    def _phase(self, part: PhasePart) -> "Recipe":
        own = {name: value for name, value in asdict(part).items() if value is not None}
        encoder = own.pop("encoder", self.model.encoder)
        train = replace(self.train, steps=own.pop("steps", None), epochs=own.pop("epochs", None))
        optimizer = replace(self.optimizer, **own)
        if encoder == "frozen":  # what is for the encoder waits until it is trained
            optimizer = replace(optimizer, unfreeze_every=0)
            off = {"regularization": RegularizationPart(), "lora": None}
        else:
            off = {}
        model = replace(self.model, encoder=encoder)
        return replace(self, model=model, train=train, optimizer=optimizer, phases=(), **off)  # type: ignore[arg-type]


_TABLES: dict[str, type] = {
    "data": DataPart,
    "model": ModelPart,
    "train": TrainPart,
    "optimizer": OptimizerPart,
    "regularization": RegularizationPart,
    "average": AveragePart,
    "evaluation": EvaluationPart,
}
_LISTS: dict[str, type] = {"task": TaskPart, "phase": PhasePart}


def built_in() -> dict[str, Path]:
    """Return the recipes that travel with the package, by name."""
    folder = Path(__file__).parent.parent / "examples" / "recipes"
    return {file.stem: file for file in sorted(folder.glob("*.toml"))}


def find_recipe(name: str) -> Path:
    """Return the file of a recipe: a built-in name wins over a path, and `./name` is a path.

    Raises:
        UsageError: it is neither.
    """
    own = built_in().get(name)
    path = Path(name).expanduser()
    if own is None and not path.is_file():
        what = "is a folder" if path.is_dir() else "is no file"
        raise UsageError(f"there is no recipe {name!r}: it {what}, and not one of the built-in {', '.join(built_in())}")
    if own is not None and path.exists():
        log.warning("%s is the built-in recipe; ./%s means what lies here under that name", name, name)
    return path if own is None else own


def read_recipe(path: Path) -> Recipe:
    """Return a recipe, checked as far as it can be without its data.

    Raises:
        UsageError: the file cannot be read, or a key is unknown, missing, or of the wrong kind; the text names key and line.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the recipe {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the recipe {path} is not TOML: {error}") from error
    reader = _Reader(path, text)
    known = [*_TABLES, "lora", *_LISTS]
    for name, value in parsed.items():
        if name not in known:
            raise reader.error([name], f"there is no table or key {name!r}{_near(name, known)}")
        if name not in _LISTS and not isinstance(value, dict):
            raise reader.error([name], f"[{name}] must be a table")
        if name in _LISTS and not (isinstance(value, list) and all(isinstance(entry, dict) for entry in value)):
            raise reader.error([name], f"[[{name}]] is written with two brackets")
    tasks = parsed.get("task", [])
    if not tasks:
        raise reader.error(["task"], "at least one [[task]] is needed (with two brackets)")
    parts: dict[str, Any] = {name: reader.table(kind, parsed.get(name, {}), [name]) for name, kind in _TABLES.items()}
    recipe = Recipe(
        path=path.resolve(),
        folder=Path.cwd() if path in built_in().values() else path.resolve().parent,
        text=text,
        tasks=tuple(reader.table(TaskPart, task, ["task", number]) for number, task in enumerate(tasks)),
        phases=tuple(
            reader.table(PhasePart, phase, ["phase", number]) for number, phase in enumerate(parsed.get("phase", []))
        ),
        lora=reader.table(LoraPart, parsed["lora"], ["lora"]) if "lora" in parsed else None,
        **parts,
    )
    if recipe.phases:
        if recipe.train.steps is not None or recipe.train.epochs is not None:
            raise reader.error(["train"], "train.steps and train.epochs are the phases' own, where there are phases")
    elif (recipe.train.steps is None) == (recipe.train.epochs is None):
        raise reader.error(["train"], "train.steps or train.epochs is needed, one of the two")
    for number, phase in enumerate(recipe.phases):
        if (phase.steps is None) == (phase.epochs is None):
            raise reader.error(["phase", number], "phase.steps or phase.epochs is needed, one of the two")
    _check_encoder(recipe, reader)
    _check_tasks(recipe, reader)
    return recipe


def _check_encoder(recipe: Recipe, reader: "_Reader") -> None:
    trained = any(part.model.encoder == "trained" for part in recipe.in_phases())
    if not trained and (recipe.lora or recipe.regularization.active or recipe.optimizer.unfreeze_every):
        table = "lora" if recipe.lora else "regularization" if recipe.regularization.active else "optimizer"
        raise reader.error(
            [table], f"[{table}] asks for an encoder that is trained, and it is frozen: model.encoder or a phase"
        )
    if recipe.lora and recipe.optimizer.unfreeze_every:
        raise reader.error(
            ["optimizer", "unfreeze_every"],
            "optimizer.unfreeze_every: with [lora] the encoder's own weights stay frozen",
        )
    if recipe.lora and sum(part.model.encoder == "trained" for part in recipe.in_phases()) > 1:
        raise reader.error(
            ["lora"],
            "[lora]: one phase at most may train the encoder: its updates are kept beside the weights that it began with",
        )
    if recipe.lora and (unknown := [name for name in recipe.lora.targets if name not in LORA_TARGETS]):
        raise reader.error(
            ["lora", "targets"], f"lora.targets: there is no {unknown[0]!r}{_near(unknown[0], LORA_TARGETS)}"
        )
    names = [task.name for task in recipe.tasks]
    if unknown := [name for name in recipe.regularization.tasks if name not in names]:
        raise reader.error(
            ["regularization", "tasks"],
            f"regularization.tasks: there is no task {unknown[0]!r}{_near(unknown[0], names)}",
        )
    if recipe.average.kind == "checkpoints" and not any(task.dev for task in recipe.tasks):
        raise reader.error(
            ["average", "kind"], "average.kind: checkpoints are averaged at evaluations: a dev file is needed"
        )


def _check_tasks(recipe: Recipe, reader: "_Reader") -> None:
    drop = recipe.data.drop_evaluation
    if drop and recipe.data.evaluation is None:
        raise reader.error(
            ["data", "drop_evaluation"], "data.drop_evaluation needs data.evaluation, the folder of the sets"
        )
    if isinstance(drop, list) and (unknown := [name for name in drop if name not in KNOWN]):
        raise reader.error(
            ["data", "drop_evaluation"],
            f"data.drop_evaluation: there is no set {unknown[0]!r}{_near(unknown[0], KNOWN)}",
        )
    names = [task.name for task in recipe.tasks]
    for number, task in enumerate(recipe.tasks):
        if names.index(task.name) < number:
            raise reader.error(["task", number, "name"], f"task.name: two tasks are called {task.name!r}")
        try:
            config = task.config()
            if task.train is not None and not task.files("train") and not task.files("dev"):
                raise UsageError("task.train names no file", "train")
            config.check_data(train=bool(task.files("train")), dev=bool(task.files("dev")))
            if task.margin is not None:
                config.check_margin()
        except UsageError as error:
            raise reader.error(["task", number, error.parameter or ""], str(error)) from error
        _check_task(task, config, ["task", number], reader)
    if recipe.train.save_every is not None and any(task.dev for task in recipe.tasks):
        raise reader.error(
            ["train", "save_every"],
            "train.save_every is for runs without a dev file: each evaluation (evaluation.every) saves",
        )
    if recipe.evaluation.patience and not any(task.dev for task in recipe.tasks):
        raise reader.error(["evaluation", "patience"], "evaluation.patience needs a task with a dev file")
    trained = [task for task in recipe.tasks if task.files("train")]
    if not trained:
        raise reader.error(["task"], "no task has a train file")
    if recipe.train.floor * len(trained) > recipe.train.batch_size:
        raise reader.error(
            ["train", "batch_size"],
            f"train.batch_size: {recipe.train.batch_size} examples cannot hold train.floor = {recipe.train.floor} of each of "
            f"{len(trained)} tasks",
        )


def _check_task(task: TaskPart, config: TaskConfig, place: list[str | int], reader: "_Reader") -> None:
    """Refuse what only a recipe can say of a task, and cannot mean."""
    wanted = STRUCTURES[task.structure]
    if len(task.text_columns()) != wanted:
        raise reader.error(
            [*place, "text"],
            f"task.text: the structure {task.structure} has {wanted} columns of text; found {len(task.text_columns())}",
        )
    margin = task.margin
    if margin and margin.rule == "hard-negatives" and not margin.low <= margin.value <= margin.high:
        raise reader.error([*place, "margin", "value"], "task.margin.value must be between low and high")
    if task.both_orders and task.structure not in TWO_SIDED:
        raise reader.error([*place, "both_orders"], f"task.both_orders is for pairs: {' and '.join(TWO_SIDED)}")
    if config.spec.taught is not (task.teacher is not None):
        raise reader.error(
            [*place, "teacher"], "task.teacher is for the loss distillation, which needs one to learn from"
        )
    if task.metric is not None and not task.dev:
        raise reader.error([*place, "metric"], "task.metric needs task.dev")


class _Reader:
    """Turns tables into dataclasses, and says where a mistake stands."""

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._lines = path, text.splitlines()

    def error(self, place: Sequence[str | int], text: str) -> UsageError:
        return UsageError(f"{self._path}, line {self._line(place)}: {text}")

    def _line(self, place: Sequence[str | int]) -> int:
        """Return the line of a key or of its table, the last that is found on the way to it."""
        names = [p for p in place if isinstance(p, str)]
        number = next((p for p in place if isinstance(p, int)), 0)
        table: list[str] = []
        lists = {"task", "phase"} & set(names[:1])
        seen, best = -1, 1
        for line, text in enumerate(self._lines, start=1):
            header = re.match(r"\s*\[\[?\s*([\w.-]+)\s*\]\]?", text)
            if header:
                table = header[1].split(".")
                seen += table == names[:1] and bool(lists)
                if table == names[: len(table)] and (table[0] not in lists or seen == number):
                    best = line
                continue
            key = re.match(r"\s*([\w.-]+)\s*=", text)
            if not key or len(names) <= len(table) or (table[0:1] == names[:1] and lists and seen != number):
                continue
            if [*table, *key[1].split(".")][: len(names)] == names:
                return line
        return best

    def table(self, kind: type[T], values: Mapping[str, Any], place: list[str | int]) -> T:
        hints = get_type_hints(kind)
        known: dict[str, Field[Any]] = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
        shown = ".".join(p for p in place if isinstance(p, str))
        for name in values:
            if name not in known:
                raise self.error([*place, name], f"there is no key {shown}.{name}{_near(name, list(known))}")
        found = {}
        for name, spec in known.items():
            if name in values:
                found[name] = self._value(values[name], hints[name], spec, [*place, name], f"{shown}.{name}")
            elif spec.default is MISSING and spec.default_factory is MISSING:
                raise self.error(place, f"{shown}.{name} is missing")
        return kind(**found)

    def _value(self, value: Any, hint: Any, spec: Field[Any], place: list[str | int], shown: str) -> Any:
        options = get_args(hint) if get_origin(hint) in (types.UnionType, Union) else (hint,)
        options = tuple(option for option in options if option is not type(None))
        for option in options:
            if option is MarginPart and isinstance(value, dict):
                return self.table(MarginPart, value, place)
            if get_origin(option) is list and isinstance(value, list):
                (kind,) = get_args(option)
                read = [float(x) if kind is float and type(x) is int else x for x in value]
                if all(type(x) is kind for x in read):
                    return read
            if option is float and isinstance(value, (int, float)) and not isinstance(value, bool):
                value = float(value)
            if option is float and isinstance(value, float) and not math.isfinite(value):
                raise self.error(place, f"{shown} must be finite; found {value}")
            if option in _NAMES and type(value) is option:
                low, high, choices = (spec.metadata[name] for name in ("low", "high", "choices"))
                if low is not None and not value >= low:
                    raise self.error(place, f"{shown} must be at least {low}; found {value}")
                if high is not None and not value <= high:
                    raise self.error(place, f"{shown} must be at most {high}; found {value}")
                if choices and value not in choices:
                    near = _near(str(value), choices)
                    raise self.error(place, f"{shown} must be one of {', '.join(choices)}; found {_toml(value)}{near}")
                return value
        wanted = " or ".join(_NAMES.get(o) or _LISTS_OF.get((*get_args(o), None)[0], "a table") for o in options)
        raise self.error(place, f"{shown} must be {wanted}; found {_toml(value)}")


def _toml(value: Any) -> str:
    """Return a value as a recipe spells it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(part)}" for key, part in value.items()) + "}"
    return repr(value) if isinstance(value, str) else str(value)


def _near(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else f"; known are {', '.join(known)}"
