"""A task: its structure, its loss, its head, its examples, and how its dev figure is taken.

| loss | structures | label | head |
| --- | --- | --- | --- |
| `cross-entropy` | single, siamese, pair, pair+siamese | one of `labels` | classification |
| `regression` | siamese, pair, pair+siamese | a score in [low, high] | regression |
| `cosine-embedding` | siamese | a score in [low, high]; 0 and 1 for dissimilar and similar | similarity |
| `cosine-mse`, `cosent`, `angle` | siamese | a score in [low, high] | similarity |
| `multiple-negatives-ranking`, cached or not | siamese, triplet | none, or a score: rows below `positive` are left out | |
| the same | single: unsupervised SimCSE, a text's other dropout mask is its positive | none | |
| `triplet` | triplet | none | |
| `distillation` | single | none: a teacher's vectors (`distill`) | |

A triplet's third text is a hard negative of the ranking losses (supervised SimCSE). Scores are scaled to [0, 1] before a loss
sees them. `cosine-embedding` is this project's (`losses`); the ranking, triplet and
other cosine losses are sentence-transformers' own. With `dimensions` a loss of vectors is the mean of the loss of the whole
vectors and of those of their beginnings (Matryoshka; Kusupati et al. 2022, arXiv 2205.13147, equation 1, with equal weights).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sbert_mini.errors import InputError, UsageError
from sbert_mini.model.heads import HeadConfig
from sbert_mini.shapes import FloatArray
from sbert_mini.training.checks import check_labels, check_scores
from sbert_mini.training.examples import Examples
from sbert_mini.training.losses import Margin
from sbert_mini.training.task_config import STRUCTURES, TaskConfig


@dataclass(frozen=True)
class Task:
    """A task with its data.

    Attributes:
        config: what it is.
        train: its training examples; without any the task is measured only, which needs a loss without weights.
        dev: its dev examples, or None.
        margin: of the loss `cosine-embedding`; None for a fixed one at its default value, `MarginConfig.value`.
        teacher_vectors: of the loss `distillation`: (examples, teacher dim), a vector for each training text.

    Raises:
        UsageError: a row has another number of texts than the structure, or labels are missing.
        InputError: a label is not one of the task's, or a score is outside its range.
    """

    config: TaskConfig
    train: Examples
    dev: Examples | None = None
    margin: Margin | None = None
    teacher_vectors: FloatArray | None = None

    def __post_init__(self) -> None:
        config = self.config
        if self.teacher_vectors is not None and (
            not config.spec.taught or len(self.teacher_vectors) != len(self.train)
        ):
            raise UsageError(
                f"task {config.name!r}: a teacher's vectors are for the loss distillation, one a row; found "
                f"{len(self.teacher_vectors)} for {config.loss} and {len(self.train)} rows"
            )
        config.check_data(train=not self.only_measured, dev=self.dev is not None)
        for name, examples in (("train", self.train), ("dev", self.dev)):
            if examples is None or (examples is self.train and self.only_measured):
                continue
            if not len(examples):
                raise InputError(f"task {config.name!r}: no {name} row is left")
            texts = STRUCTURES[config.structure]
            if len(examples.texts[0]) != texts:
                raise UsageError(
                    f"task {config.name!r}: the structure {config.structure} has {texts} texts a row; the {name} rows have "
                    f"{len(examples.texts[0])}"
                )
            if config.needs_label and examples.labels is None:
                raise UsageError(
                    f"task {config.name!r}: the loss {config.loss} needs labels, and the {name} rows have none"
                )
        if config.metric == "average_precision" and self.dev and len(set(self.dev.labels or ())) != 2:
            raise InputError(
                f"task {config.name!r}: average_precision needs dev scores of two values; found {len(set(self.dev.labels or ()))}"
            )
        if config.graded:
            check_scores(config.name, self.train, self.dev, config.low, config.high)
        else:
            if len(self.labels) < 2:
                raise InputError(
                    f"task {config.name!r}: a classification needs at least two labels; found {self.labels}"
                )
            check_labels(config.name, self.train, self.dev, self.labels)
            if config.label_shares and len(config.label_shares) != len(self.labels):
                raise UsageError(
                    f"task {config.name!r}: label_shares has {len(config.label_shares)} shares for {len(self.labels)} labels"
                )
        if self.margin is not None:
            config.check_margin()

    @property
    def only_measured(self) -> bool:
        """Whether it has no training data."""
        return not self.train.texts and not self.train.counts

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels of a classification, in the order of the outputs."""
        if self.config.graded:
            return ()
        return self.config.labels or tuple(sorted(set(self.train.labels or ()), key=_label_order))

    def trained(self) -> "Task":
        """Return the task with the rows only that its loss is for: a ranking loss is trained and scored on positive rows."""
        config = self.config
        if not config.spec.ranking or self.only_measured or self.train.labels is None:
            return self
        least = config.high if config.positive is None else config.positive
        kept_examples = [
            examples.kept([label >= least for label in examples.labels or ()], f"label below {least:g}")
            if examples is not None
            else None
            for examples in (self.train, self.dev)
        ]
        train, dev = kept_examples
        assert train is not None  # noqa: S101
        return Task(config, train, dev, self.margin)

    def head_config(self, dimension: int) -> HeadConfig | None:
        """Return what its head is, for sentence vectors of `dimension` components; None for a loss without one."""
        config = self.config
        if config.head_kind is None:
            return None
        return HeadConfig(
            task=config.name,
            structure=config.structure,
            kind=config.head_kind,
            dimension=dimension,
            labels=self.labels,
            low=config.low,
            high=config.high,
            hidden=config.hidden,
            dropout=config.head_dropout,
            columns=self.train.names,
            adapter_size=config.adapter_size,
            adapter_heads=config.adapter_heads if config.adapter_size else 0,
        )

    def logit_adjustment(self) -> Tensor | None:
        """Return what is added to the logits while training: the logarithms of each label's share in the training data over
        the one of `label_shares`; None where these are not given.

        Shapes: the result (classes,).
        """
        if not self.config.label_shares:
            return None
        targets = self.targets(self.train)
        assert targets is not None  # noqa: S101
        counts = torch.bincount(targets, minlength=len(self.labels))
        return (counts / counts.sum()).clamp_min(1e-9).log() - torch.tensor(self.config.label_shares).log()

    def targets(self, examples: Examples) -> Tensor | None:
        """Return what a loss takes beside the vectors: numbers of classes, scores scaled to [0, 1], or of training examples a
        teacher's vectors; None for none.

        Shapes: the result (examples,); a teacher's vectors (examples, teacher dim).
        """
        if self.teacher_vectors is not None and examples is self.train:
            return torch.from_numpy(np.array(self.teacher_vectors, dtype=np.float32))
        if examples.labels is None:
            return None
        if self.config.graded:
            span = self.config.high - self.config.low
            return torch.tensor([(label - self.config.low) / span for label in examples.labels], dtype=torch.float32)
        numbers = {label: number for number, label in enumerate(self.labels)}
        return torch.tensor([numbers[label] for label in examples.labels], dtype=torch.long)


def _label_order(label: str) -> tuple[int, float, str]:
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label
