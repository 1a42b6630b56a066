"""A recipe: a TOML file that says everything of a training run. `reader` reads it.

Its tables are `[data]`, `[model]`, `[lora]`, `[train]`, `[optimizer]`, `[regularization]`, `[average]`, `[evaluation]`, one
`[[task]]` a task, and where training goes in phases one `[[phase]]` each; their keys are the fields of the classes below. The
tasks' files are relative to `data.folder`; without it, and for every other path, to the recipe's own folder (of a built-in
recipe: the working directory). `$NAME` in a path is an environment variable.
"""

import difflib
import logging
import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

from sbert_mini.errors import UsageError
from sbert_mini.files import outputs
from sbert_mini.files.paths import expanded
from sbert_mini.model.choices import Graph
from sbert_mini.model.registry import BUILTIN, DEFAULT_MODEL
from sbert_mini.training.config import (
    ENCODERS,
    AverageConfig,
    FitterConfig,
    LoraConfig,
    RegularizationConfig,
)
from sbert_mini.training.fields import check, key, same
from sbert_mini.training.surgery_rules import SURGERY_RULES, check_surgery
from sbert_mini.training.task_config import COLUMNS, STRUCTURES, TWO_SIDED, MarginConfig, TaskConfig

log = logging.getLogger("sbert_mini")
DECAYS = ("linear", "cosine", "constant")


@dataclass(frozen=True)
class DataPart:
    """`[data]`.

    Attributes:
        folder: the folder of the tasks' files; by default the recipe's own folder.
        evaluation: a folder of STS sets. Training pairs that also occur in one of them are counted, in the log and in the model's
            card.
        drop_evaluation: whether these pairs are left out: `true` for all sets, or a list of sets.
    """

    folder: str | None = key(None)
    evaluation: str | None = key(None)
    drop_evaluation: bool | list[str] = key(False)

    def __post_init__(self) -> None:
        check(self, "data")


@dataclass(frozen=True)
class ModelPart:
    """`[model]`.

    Attributes:
        start: the model that training starts from: a directory, a built-in name or a hub id.
        output: the directory that the trained model is written to.
        encoder: `trained`; or `frozen`, to train heads alone.
        layers: which of the starting model's layers are kept, in order, counted from 0; by default all.
        max_seq_length: the longest input in tokens; by default the starting model's.
        dropout: the probability of dropout in the encoder while it is trained, 0 to 0.95, whatever the starting model's was;
            R-Drop and unsupervised SimCSE need one above 0.
        trust_tokenizer: use a tokenizer.json that is not BERT's, of a source that you trust; its rules can hang or stop the run.
    """

    output: str = key()
    start: str = key(DEFAULT_MODEL)
    encoder: str = same(FitterConfig, "encoder")
    layers: list[int] = key([])
    max_seq_length: int | None = key(None, low=4)
    dropout: float = key(0.1, low=0, high=0.95)
    trust_tokenizer: bool = key(False)

    def __post_init__(self) -> None:
        check(self, "model")


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
        surgery: how the tasks' gradients are combined; `none` adds them up without measuring conflicts. Rules with `torchjd:`
            are TorchJD's, of the extra `torchjd`; for `torchjd:PCD` the first `[[task]]` is the primary one.
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
    batch_size: int = same(FitterConfig, "batch_size")
    gradient_accumulation: int = key(1, low=1)
    schedule: str = same(FitterConfig, "schedule")
    floor: int = same(FitterConfig, "floor")
    surgery: str = key("pcgrad", choices=(*SURGERY_RULES, "none"))
    length_batches: bool = same(FitterConfig, "length_batches")
    precision: str = key("fp32", choices=("fp32", "bf16"))
    max_grad_norm: float = key(1.0, low=0)
    log_every: int = key(20, low=1)
    save_every: int | None = key(None, low=1)
    keep_checkpoints: int = key(1, low=1)
    report_to: list[str] = key([])
    seed: int = key(0, low=0)

    def __post_init__(self) -> None:
        check_surgery(self.surgery, "train.surgery")
        check(self, "train")


@dataclass(frozen=True)
class OptimizerPart:
    """`[optimizer]`.

    Attributes:
        name: `adamw` and `adam` are this project's, with rows of the word table alone and torch's fused kernel for the
            arithmetic; `torch-adamw` is torch's fused one.
        learning_rate: the encoder's highest learning rate, 0 or more.
        head_learning_rate: the task heads' highest learning rate, 0 or more.
        weight_decay: the decay of weights, 0 or more; biases and LayerNorm have none.
        beta1: the decay rate of the average of gradients (first moment), 0 to 0.99999.
        beta2: the decay rate of the average of squared gradients (second moment), 0 to 0.9999999.
        epsilon: a small number added to the root of the second moment, 0 or more, against division by zero.
        warmup: the share of the steps during which the rate rises, 0 to 1.
        decay: the curve of the learning rate after the warmup.
        layer_decay: each layer learns at this share of the next one's rate; 1 for one rate.
        unfreeze_every: steps after which one more layer is trained, from the last one down; 0 for all from the start.
    """

    name: str = same(FitterConfig, "optimizer")
    learning_rate: float = key(5e-5, low=0)
    head_learning_rate: float = key(1e-3, low=0)
    weight_decay: float = key(0.01, low=0)
    beta1: float = key(0.9, low=0, high=0.99999)
    beta2: float = key(0.999, low=0, high=0.9999999)
    epsilon: float = key(1e-8, low=0)
    warmup: float = key(0.1, low=0, high=1)
    decay: str = key("linear", choices=DECAYS)
    layer_decay: float = same(FitterConfig, "layer_decay")
    unfreeze_every: int = same(FitterConfig, "unfreeze_every")

    def __post_init__(self) -> None:
        check(self, "optimizer")


@dataclass(frozen=True)
class PhasePart:
    """`[[phase]]`: what differs in a phase from `[model]`, `[train]` and `[optimizer]`; phases follow each other.

    Attributes:
        encoder: whether the encoder is `trained` or `frozen` in this phase.
        steps: optimizer steps; or give epochs.
        epochs: passes over the data in this phase.
        learning_rate: the encoder's highest learning rate in this phase.
        head_learning_rate: the task heads' highest learning rate in this phase.
        warmup: the share of the phase's steps during which the learning rate rises, 0 to 1.
        decay: the curve of the learning rate after the warmup.
    """

    encoder: str | None = key(None, choices=ENCODERS)
    steps: int | None = key(None, low=1)
    epochs: float | None = key(None, low=1e-3)
    learning_rate: float | None = key(None, low=0)
    head_learning_rate: float | None = key(None, low=0)
    warmup: float | None = key(None, low=0, high=1)
    decay: str | None = key(None, choices=DECAYS)

    def __post_init__(self) -> None:
        check(self, "phase")


@dataclass(frozen=True)
class EvaluationPart:
    """`[evaluation]`.

    Attributes:
        every: steps between two evaluations on the dev sets; by default an epoch where epochs are given, else a tenth of the
            steps.
        patience: evaluations without a better mean after which training stops; 0 for never.
        train_rows: how many training rows of each task are measured beside the dev rows; 0 for none.
        keep: whether the model is written to `model.output` `always`; or with `not-worse` only where it is not significantly
            worse than the starting model on the dev rows. A worse one is written to OUTPUT.worse, with exit code 4.
    """

    every: int | None = key(None, low=1)
    patience: int = key(0, low=0)
    train_rows: int = same(FitterConfig, "train_rows")
    keep: str = key("always", choices=("always", "not-worse"))

    def __post_init__(self) -> None:
        check(self, "evaluation")


@dataclass(frozen=True)
class TaskPart:
    """`[[task]]`: what the task is (`config`), and where its data come from.

    Attributes:
        config: what the task is; its fields are keys of the table, too.
        train: a file, or several; without it the task is only measured on its dev file.
        dev: a file, or several; without it the task has no dev figure.
        text: the column of text, or the columns.
        label: the column of labels or scores.
        teacher: with the loss `distillation`: the model whose vectors are learned: a directory, a built-in name or a
            hub id.
        teacher_graph: what computes the teacher's vectors; int8 is faster.
        trust_tokenizer: use the teacher's tokenizer.json though it is not BERT's, of a source that you trust.
        limit: the highest number of training rows.
        dev_limit: the highest number of dev rows.
        drop_overlap: whether training rows that also occur in the dev set are left out.
        both_orders: whether training pairs are also read the other way round: twice as many rows, for labels that do not depend
            on the order.
        margin: the table `[task.margin]` of the loss `cosine-embedding`; without it the margin is fixed, at its default value.

    Raises:
        UsageError: a value breaks a rule; `parameter` names it.
    """

    config: TaskConfig
    train: str | list[str] | None = key(None)
    dev: str | list[str] | None = key(None)
    text: str | list[str] | None = key(None)
    label: str | None = key(None)
    teacher: str | None = key(None)
    teacher_graph: Graph = key("fp32", choices=get_args(Graph))
    trust_tokenizer: bool = key(False)
    limit: int | None = key(None, low=1)
    dev_limit: int | None = key(None, low=1)
    drop_overlap: bool = key(False)
    both_orders: bool = key(False)
    margin: MarginConfig | None = key(None)

    def __post_init__(self) -> None:
        check(self, "task")
        config = self.config
        if self.train is not None and not self.files("train") and not self.files("dev"):
            raise UsageError("task.train names no file", "train")
        config.check_data(train=bool(self.files("train")), dev=bool(self.files("dev")))
        if self.margin is not None:
            config.check_margin()
        texts = STRUCTURES[config.structure]
        if len(self.text_columns()) != texts:
            raise UsageError(
                f"task.text: the structure {config.structure} has {texts} columns of text; found {len(self.text_columns())}",
                "text",
            )
        if self.both_orders and config.structure not in TWO_SIDED:
            raise UsageError(f"task.both_orders is for pairs: {' and '.join(TWO_SIDED)}", "both_orders")
        if config.spec.taught is not (self.teacher is not None):
            raise UsageError("task.teacher is for the loss distillation, which needs one to learn from", "teacher")
        if self.trust_tokenizer and self.teacher is None:
            raise UsageError(
                "task.trust_tokenizer is for a teacher's; model.trust_tokenizer for the starting model's",
                "trust_tokenizer",
            )
        if config.metric is not None and not self.dev:
            raise UsageError("task.metric needs task.dev", "metric")

    @property
    def name(self) -> str:
        """The task's name."""
        return self.config.name

    def text_columns(self) -> list[str]:
        """Return the columns of text: those named, else the structure's usual ones."""
        named = [self.text] if isinstance(self.text, str) else self.text
        return named or list(COLUMNS[self.config.structure])

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
    regularization: RegularizationConfig
    average: AverageConfig
    evaluation: EvaluationPart
    lora: LoraConfig | None
    phases: tuple[PhasePart, ...]
    tasks: tuple[TaskPart, ...]

    def with_surgery(self, rule: str) -> "Recipe":
        """Return the recipe with another rule of surgery; its text says so in a comment below it.

        Raises:
            UsageError: the rule is unknown, or cannot be used.
        """
        text = f"{self.text.rstrip()}\n# train.surgery was replaced by {rule}\n"
        return replace(self, train=replace(self.train, surgery=rule), text=text)

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

    def output(self, other: Path | None = None) -> Path:
        """Return the model directory to write: `other` where it is given, else the recipe's.

        Raises:
            UsageError: it has no name, or names an environment variable that is not set.
        """
        return outputs.with_name(other or self.resolve(self.model.output, in_data=False))

    def local_model(self, name: str) -> str | Path:
        """Return the name of a model; a directory beside the recipe wins over a hub id, and a built-in name over both."""
        local = self.resolve(name, in_data=False)
        return local if name not in BUILTIN and local.is_dir() else name

    def _expanded(self, name: str) -> Path:
        text = os.path.expandvars(name)
        if missing := re.search(r"\$\{?(\w+)", text):
            name = missing[1]
            raise UsageError(
                f"{self.path} names the environment variable {name}, which is not set: set {name}", f"set {name}"
            )
        return expanded(text)

    def to_json(self) -> dict[str, Any]:
        """Return its tables as JSON holds them."""
        parts = {name: asdict(getattr(self, name)) for name in TABLES}
        lora = {"lora": asdict(self.lora)} if self.lora else {}
        phases = {"phase": [asdict(phase) for phase in self.phases]} if self.phases else {}
        tasks = [asdict(task) for task in self.tasks]
        return {**parts, **lora, **phases, "task": [{**task.pop("config"), **task} for task in tasks]}

    def fitter(self) -> FitterConfig:
        """Return the fitter's settings of a recipe of one phase.

        Raises:
            UsageError: they contradict each other; `parameter` names the setting.
        """
        return FitterConfig(
            batch_size=self.train.batch_size,
            schedule=self.train.schedule,
            floor=self.train.floor,
            surgery=None if self.train.surgery == "none" else self.train.surgery,
            encoder=self.model.encoder,
            head_learning_rate=self.optimizer.head_learning_rate,
            optimizer=self.optimizer.name,
            length_batches=self.train.length_batches,
            layer_decay=self.optimizer.layer_decay,
            unfreeze_every=self.optimizer.unfreeze_every,
            regularization=self.regularization,
            average=self.average,
            lora=self.lora,
            train_rows=self.evaluation.train_rows,
        )

    def in_phases(self) -> tuple["Recipe", ...]:
        """Return a recipe a phase, each without phases; of a recipe without phases itself alone."""
        return tuple(self._phase(part) for part in self.phases) or (self,)

    def _phase(self, part: PhasePart) -> "Recipe":
        changes = {name: value for name, value in asdict(part).items() if value is not None}
        encoder = changes.pop("encoder", self.model.encoder)
        train = replace(self.train, steps=changes.pop("steps", None), epochs=changes.pop("epochs", None))
        optimizer = replace(self.optimizer, **changes)
        if encoder == "frozen":  # what is for the encoder waits until it is trained
            optimizer = replace(optimizer, unfreeze_every=0)
            off = {"regularization": RegularizationConfig(), "lora": None}
        else:
            off = {}
        model = replace(self.model, encoder=encoder)
        return replace(self, model=model, train=train, optimizer=optimizer, phases=(), **off)  # type: ignore[arg-type]


TABLES: dict[str, type] = {
    "data": DataPart,
    "model": ModelPart,
    "train": TrainPart,
    "optimizer": OptimizerPart,
    "regularization": RegularizationConfig,
    "average": AverageConfig,
    "evaluation": EvaluationPart,
}
"""Tables that every recipe has, with their defaults where it does not name them."""


def built_in() -> dict[str, Path]:
    """Return the recipes that travel with the package, by name."""
    folder = Path(__file__).parent.parent / "examples" / "recipes"
    return {file.stem: file for file in sorted(folder.glob("*.toml"))}


def find_recipe(name: str) -> Path:
    """Return the file of a recipe: a built-in name wins over a path, and `./name` is a path.

    Raises:
        UsageError: it is neither.
    """
    shipped = built_in().get(name)
    path = Path(name).expanduser()
    if shipped is None and not path.is_file():
        what = "is a folder" if path.is_dir() else "is no file"
        folder = path.parent
        files = [str(file) for file in folder.glob("*.toml")] if folder.is_dir() else []
        close = difflib.get_close_matches(name, [*built_in(), *files], n=1)
        near = f" (did you mean {close[0]}?)" if close else ""
        raise UsageError(
            f"there is no recipe {name!r}: it {what}, and not one of the built-in {', '.join(built_in())}{near}"
        )
    if shipped is not None and path.exists():
        log.warning("%s is the built-in recipe; ./%s means what lies here under that name", name, name)
    return path if shipped is None else shipped
