"""What a task is, without its data: the table of losses, and every rule of a task. No torch.

A loss is a row of `LOSSES`. `TaskConfig` refuses invalid tasks; the reader of recipes adds file and line to its error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sbert_mini.errors import UsageError
from sbert_mini.evaluation.log_keys import TRAIN
from sbert_mini.files.names import TASK
from sbert_mini.training.fields import check, key

STRUCTURES = {"single": 1, "siamese": 2, "triplet": 3, "pair": 2, "pair+siamese": 2}
"""Structure -> texts a row."""
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "single": ("text",),
    "siamese": ("sentence1", "sentence2"),
    "triplet": ("anchor", "positive", "negative"),
    "pair": ("sentence1", "sentence2"),
    "pair+siamese": ("sentence1", "sentence2"),
}
"""Structure -> the usual names of its columns of text."""
TWO_SIDED = ("siamese", "pair", "pair+siamese")
"""Structures whose rows can be read the other way round."""
LORA_TARGETS = ("query", "key", "value", "dense")
"""The encoder's matrices that LoRA can update, by the last part of their names."""
METRICS = ("accuracy", "macro_f1", "pearson", "spearman", "average_precision")


@dataclass(frozen=True)
class LossSpec:
    """What is known of a loss: a row of `LOSSES`.

    Attributes:
        structures: those that it is for.
        labels: what a row's label is: one of some classes, a score, or nothing (`none`: a score is read where there is one);
            or `teacher`: vectors of another model take the place of labels.
        metrics: the dev figures of its tasks, the main one first; empty where there are none.
        head: the kind of head that is saved with the model, or None.
        margin: whether it takes a margin that may move.
        nested: whether it can also be taken of the vectors' beginnings (`dimensions`).
        ranking: whether the other rows of a batch are negatives.
        cached: whether it runs the model by itself, in pieces (GradCache).
        unmeasured: structures under which it has no dev figure.
    """

    structures: tuple[str, ...]
    labels: Literal["classes", "scores", "none", "teacher"]
    metrics: tuple[str, ...]
    head: Literal["classification", "regression", "similarity"] | None = None
    margin: bool = False
    nested: bool = False
    ranking: bool = False
    cached: bool = False
    unmeasured: tuple[str, ...] = ()

    @property
    def needs_label(self) -> bool:
        """Whether every row needs a label."""
        return self.labels in ("classes", "scores")

    @property
    def graded(self) -> bool:
        """Whether labels, where there are some, are scores."""
        return self.labels != "classes"

    @property
    def taught(self) -> bool:
        """Whether it learns from a teacher's vectors."""
        return self.labels == "teacher"

    @property
    def of_outputs(self) -> bool:
        """Whether the loss is a function of a head's outputs, which has weights to train."""
        return self.head in ("classification", "regression")


_OF_SCORES = ("pearson", "spearman", "average_precision")
_RANKED = ("siamese", "triplet", "single")
LOSSES: Mapping[str, LossSpec] = {
    "cross-entropy": LossSpec(("single", *TWO_SIDED), "classes", ("accuracy", "macro_f1"), "classification"),
    "regression": LossSpec(TWO_SIDED, "scores", _OF_SCORES, "regression"),
    "cosine-embedding": LossSpec(("siamese",), "scores", _OF_SCORES, "similarity", margin=True),
    "cosine-mse": LossSpec(("siamese",), "scores", _OF_SCORES, "similarity", nested=True),
    "cosent": LossSpec(("siamese",), "scores", _OF_SCORES, "similarity", nested=True),
    "angle": LossSpec(("siamese",), "scores", _OF_SCORES, "similarity", nested=True),
    "multiple-negatives-ranking": LossSpec(
        _RANKED, "none", ("accuracy",), nested=True, ranking=True, unmeasured=("single",)
    ),
    "cached-multiple-negatives-ranking": LossSpec(
        _RANKED, "none", ("accuracy",), ranking=True, cached=True, unmeasured=("single",)
    ),
    "triplet": LossSpec(("triplet",), "none", ("accuracy",), nested=True),
    "distillation": LossSpec(("single",), "teacher", (), nested=True),
}
"""Loss -> what is known of it; `objective` has its class."""


def with_(field: str) -> tuple[str, ...]:
    """Return the losses whose row has this field set."""
    return tuple(name for name, spec in LOSSES.items() if getattr(spec, field))


def are_shares(values: Sequence[float]) -> bool:
    """Return whether numbers are above 0 and, to a thousandth, 1 together."""
    return all(value > 0 for value in values) and abs(sum(values) - 1) <= 1e-3


def _refuse(key: str, text: str) -> None:
    raise UsageError(f"task.{key}{text}", key)


@dataclass(frozen=True)
class MarginConfig:
    """How the margin of the loss `cosine-embedding` moves; see `losses`.

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

    Raises:
        UsageError: a value breaks a rule; `parameter` names it.
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

    def __post_init__(self) -> None:
        check(self, "task.margin")
        if self.rule == "hard-negatives" and not self.low <= self.value <= self.high:
            raise UsageError(
                f"task.margin.value must be between low and high, {self.low} and {self.high}; found {self.value}",
                "value",
            )


@dataclass(frozen=True)
class TaskConfig:
    """What a task is, without its data. Structures are in `STRUCTURES`, losses in `LOSSES`.

    Attributes:
        name: the task's name, and its head's: 1 to 200 letters, digits, - and _.
        structure: what an example is: a `single` text, a `siamese` pair, a `triplet`, a `pair` in one input, or `pair+siamese`: a
            pair in one input, and each of its texts by itself.
        loss: the loss that the task minimises.
        labels: the labels of a classification, in the order of the outputs; by default those of the training data, sorted.
        label_shares: each label's share where the model will be used, in that order, if it differs from the training data's:
            the logits are adjusted while training.
        low: the lowest score that occurs in the data's scale.
        high: the highest score that occurs in the data's scale.
        positive: a ranking loss trains on rows with at least this score; by default `high`.
        hidden: components of the head's hidden layer; 0 for none.
        head_dropout: the probability of dropout before each of the head's layers, 0 to 0.95.
        weight: a factor of the loss, 0 or more.
        metric: the dev figure that counts for the best model; by default accuracy for classes and rankings, pearson for
            scores; `average_precision` is for scores of two values.
        scale: the factor of the cosines in ranking losses, `cosent` and `angle`, 0 or more: 1 / temperature; a higher factor
            sharpens the loss.
        triplet_margin: with the loss `triplet`: the margin between the positive and the negative, on cosine distance, 0 or
            more.
        mini_batch_size: with the loss `cached-multiple-negatives-ranking`: examples computed at once; more needs more
            memory.
        dimensions: the loss is also computed on the first components of the vectors, this many, so that vectors can
            be shortened (Matryoshka).
        vector_weight: with `distillation`: the weight of the loss between each vector and the teacher's, 0 or more; 0
            for a teacher of another dimension.
        similarity_weight: with `distillation`: the weight of the loss between the similarities within a batch and the
            teacher's, 0 or more.
        adapter_size: components of projected attention layers of the task's own (`encoder.adapters`); 0 for none.
        adapter_heads: attention heads in these layers, 1 or more; they divide `adapter_size`.

    Raises:
        UsageError: a value breaks a rule; `parameter` names it.
    """

    name: str
    structure: str = key(choices=tuple(STRUCTURES))
    loss: str = key(choices=tuple(LOSSES))
    labels: tuple[str, ...] = ()
    label_shares: tuple[float, ...] = ()
    low: float = 0.0
    high: float = 1.0
    positive: float | None = None
    hidden: int = key(0, low=0)
    head_dropout: float = key(0.1, low=0, high=0.95)
    weight: float = key(1.0, low=0)
    metric: str | None = key(None, choices=METRICS)
    scale: float = key(20.0, low=0)
    triplet_margin: float = key(0.3, low=0)
    mini_batch_size: int = key(32, low=1)
    dimensions: tuple[int, ...] = ()
    vector_weight: float = key(1.0, low=0)
    similarity_weight: float = key(1.0, low=0)
    adapter_size: int = key(0, low=0)
    adapter_heads: int = key(4, low=1)

    def __post_init__(self) -> None:
        if not TASK.allows(self.name) or self.name.startswith(TRAIN):
            _refuse("name", f" must be {TASK.rule}, and must not begin with {TRAIN}; found {self.name!r}")
        check(self, "task")
        spec = self.spec
        if self.structure not in spec.structures:
            _refuse(
                "loss", f": {self.loss} is for the structures {', '.join(spec.structures)}; found {self.structure!r}"
            )
        if self.metric is not None and self.metric not in spec.metrics:
            _refuse("metric", f": a task of the loss {self.loss} has {', '.join(spec.metrics)}; found {self.metric!r}")
        if repeated := sorted({label for label in self.labels if self.labels.count(label) > 1}):
            _refuse("labels", f": {repeated[0]!r} is named twice")
        if self.adapter_size and (spec.head is None or self.adapter_size % self.adapter_heads):
            _refuse(
                "adapter_size",
                f": it must be a multiple of adapter_heads = {self.adapter_heads}, and the task have a head; found "
                f"{self.adapter_size} for {self.loss}",
            )
        if self.dimensions and (not spec.nested or min(self.dimensions) < 1):
            _refuse(
                "dimensions",
                f" are at least 1, and for the losses {', '.join(with_('nested'))}; found {list(self.dimensions)} for "
                f"{self.loss}",
            )
        if self.label_shares and spec.labels != "classes":
            _refuse("label_shares", f" is for the loss cross-entropy; found {self.loss}")
        if self.label_shares and not are_shares(self.label_shares):
            _refuse("label_shares", f" must be above 0, and 1 together; found {list(self.label_shares)}")
        if not self.low < self.high:
            _refuse("high", f" must be above task.low = {self.low}; found {self.high}")

    def check_data(self, *, train: bool, dev: bool) -> None:
        """Refuse a task that lacks the rows that it needs, or has rows that nothing can be measured on.

        Raises:
            UsageError: the text names what is missing.
        """
        if not train and not dev:
            _refuse("train", " is missing, and there are no dev rows to measure on either")
        if not train and self.has_weights:
            _refuse(
                "train",
                f" is missing: {self.loss} has a head to train; only a task without one can be measured alone",
            )
        if dev and not self.has_dev_figure:
            _refuse(
                "dev",
                f": single texts have no dev figure under {self.loss}; measure by a task that has a dev file alone",
            )

    def check_margin(self) -> None:
        """Refuse a margin where the loss takes none.

        Raises:
            UsageError: it takes none.
        """
        if not self.spec.margin:
            _refuse("margin", f" is for the loss {', '.join(with_('margin'))}; found {self.loss}")

    @property
    def spec(self) -> LossSpec:
        """What is known of its loss."""
        return LOSSES[self.loss]

    @property
    def views(self) -> int:
        """How often each text is encoded in training: twice, under two dropout masks, where it is its own positive."""
        return 2 if self.spec.ranking and STRUCTURES[self.structure] == 1 else 1

    @property
    def has_outputs(self) -> bool:
        """Whether the regularizers can compare two passes of it."""
        return self.head_kind is not None

    @property
    def graded(self) -> bool:
        """Whether labels are scores."""
        return self.spec.graded

    @property
    def needs_label(self) -> bool:
        """Whether the loss needs a label."""
        return self.spec.needs_label

    @property
    def has_dev_figure(self) -> bool:
        """Whether a dev figure can be taken."""
        return bool(self.spec.metrics) and self.structure not in self.spec.unmeasured

    @property
    def main_metric(self) -> str:
        """The dev figure that counts; of a task that can have none, a name that no figure has."""
        return self.metric or (*self.spec.metrics, "none")[0]

    @property
    def has_weights(self) -> bool:
        """Whether its head has weights to train."""
        return self.spec.of_outputs or bool(self.adapter_size)

    @property
    def head_kind(self) -> str | None:
        """The kind of head that is saved with the model, or None."""
        return self.spec.head
