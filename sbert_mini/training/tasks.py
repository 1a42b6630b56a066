"""A task: its structure, its loss, its head, its examples, and how its dev figure is taken.

| loss | structures | label | head |
| --- | --- | --- | --- |
| `cross-entropy` | single, siamese, pair | one of `labels` | classification |
| `regression` | siamese, pair | a score in [low, high] | regression |
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

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers.sentence_transformer import losses as stock
from torch import Tensor, nn
from torch.nn import functional

from sbert_mini.encoder.adapters import ProjectedAttention
from sbert_mini.errors import CorruptModelError, InputError, UsageError
from sbert_mini.files.durable import save_file
from sbert_mini.model.heads import ADAPTER, HeadConfig, read_adapter, read_head
from sbert_mini.model.layout import head_folder
from sbert_mini.shapes import FloatArray
from sbert_mini.training import processes
from sbert_mini.training.checks import check_labels, check_scores
from sbert_mini.training.distill import DistillationLoss
from sbert_mini.training.examples import Examples
from sbert_mini.training.heads import Head
from sbert_mini.training.losses import CosineEmbeddingLoss, FixedMargin, Margin
from sbert_mini.training.task_config import STRUCTURES, TaskConfig


@dataclass(frozen=True)
class Task:
    """A task with its data.

    Attributes:
        config: what it is.
        train: its training examples; without any the task is measured only, which needs a loss without weights.
        dev: its dev examples, or None.
        margin: of the loss `cosine-embedding`; None for a fixed 0.
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
            wanted = STRUCTURES[config.structure]
            if len(examples.texts[0]) != wanted:
                raise UsageError(
                    f"task {config.name!r}: the structure {config.structure} has {wanted} texts a row; the {name} rows have "
                    f"{len(examples.texts[0])}"
                )
            if config.needs_label and examples.labels is None:
                raise UsageError(
                    f"task {config.name!r}: the loss {config.loss} needs labels, and the {name} rows have none"
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
        found = [
            held.kept([label >= least for label in held.labels or ()], f"label below {least:g}")
            if held is not None
            else None
            for held in (self.train, self.dev)
        ]
        train, dev = found
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
        place = {label: number for number, label in enumerate(self.labels)}
        return torch.tensor([place[label] for label in examples.labels], dtype=torch.long)


def _label_order(label: str) -> tuple[int, float, str]:
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label


class Objective(nn.Module):
    """A task's loss and head: sentence vectors and labels -> a number to make small.

    Args:
        task: the task.
        model: the sentence-transformers model; the stock losses ask it for its similarity.
    """

    def __init__(self, task: Task, model: Any) -> None:
        super().__init__()
        self.config = config = task.config
        dimension = int(model.get_embedding_dimension() or 0)
        head = task.head_config(dimension)
        self.head = Head(head) if head is not None else None
        self.adapter: ProjectedAttention | None = None
        if config.adapter_size:
            bert = model[0].model.config
            layers, heads = bert.num_hidden_layers, config.adapter_heads
            self.adapter = ProjectedAttention(bert.hidden_size, layers, config.adapter_size, heads)
        self._adjustment: Tensor | None
        self.register_buffer("_adjustment", task.logit_adjustment(), persistent=False)
        self.margin = task.margin or FixedMargin() if config.spec.margin else None
        if too_long := [d for d in config.dimensions if d > dimension]:
            raise UsageError(
                f"task {config.name!r}: dimensions must be at most the model's {dimension}; found {too_long[0]}"
            )
        taught = None if task.teacher_vectors is None else task.teacher_vectors.shape[1]
        if taught is not None and taught != dimension and config.vector_weight:
            raise UsageError(
                f"task {config.name!r}: the teacher's vectors have {taught} components, the model's {dimension}: set "
                "vector_weight = 0, to compare similarities alone"
            )
        holder: list[Any] = [
            _loss(config, model, self.margin)
        ]  # in a list, so that the model is not a part of this module
        self._loss = holder

    @property
    def stock_features(self) -> bool:
        """Whether the loss runs the model itself, a column at a time (GradCache)."""
        return self.config.spec.cached

    def forward(self, vectors: Sequence[Tensor], targets: Tensor | None) -> Tensor:
        """Return the loss of a batch.

        Args:
            vectors: the sentence vectors, a tensor a column; for the structure `pair` one tensor.
            targets: as `Task.targets` gives them.

        Shapes: each of vectors (batch, dim); targets (batch,); the result ().
        """
        if self.loss_of_outputs:
            return self.loss_of(self.outputs(vectors), targets)
        loss = self._loss[0]
        if isinstance(loss, CosineEmbeddingLoss):
            loss.train(self.training)
        whole: Tensor = loss.compute_loss_from_embeddings(list(vectors), targets)
        if not self.config.dimensions:
            return whole
        nested = [
            loss.compute_loss_from_embeddings([v[:, :d] for v in vectors], targets) for d in self.config.dimensions
        ]
        return torch.stack([whole, *nested]).mean()

    @property
    def loss_of_outputs(self) -> bool:
        """Whether the loss is a function of the outputs."""
        return self.config.spec.of_outputs

    def outputs(self, vectors: Sequence[Tensor]) -> Tensor:
        """Return logits, scores in [0, 1], or cosines: what the task says of a batch.

        Shapes: each of vectors (batch, dim); the result (batch, classes) for a classification, else (batch,).
        """
        assert self.head is not None  # noqa: S101
        found: Tensor = self.head(*vectors)
        return torch.sigmoid(found[:, 0]) if self.config.head_kind == "regression" else found

    def loss_of(self, outputs: Tensor, targets: Tensor | None) -> Tensor:
        """Return the loss, where it is a function of the outputs.

        With `label_shares` π' the cross-entropy is that of `outputs + log π - log π'`, π being the shares in the training data:
        what is learnt are the outputs for data in which the labels have the shares π'.

        Shapes: as `outputs`; targets (batch,); the result ().

        Source: Menon et al. 2021 (arXiv 2007.07314), equation 10, there for equal shares; Saerens et al. 2002, equation 2.4.
        """
        assert targets is not None  # noqa: S101
        if self.config.head_kind == "classification":
            return functional.cross_entropy(
                outputs + self._adjustment if self._adjustment is not None else outputs, targets
            )
        return functional.mse_loss(outputs, targets.to(outputs.dtype))

    def save(self, path: Path) -> None:
        """Write the head and the adapter, if there are some, into the model directory `path`."""
        if self.head is not None:
            self.head.save(path)
        if self.adapter is not None:
            file = head_folder(path, self.config.name) / ADAPTER
            save_file({k: t.detach().cpu().contiguous() for k, t in self.adapter.state_dict().items()}, file)

    def load(self, path: Path) -> None:
        """Take up the head and the adapter that `save` wrote.

        Raises:
            ModelNotFoundError: the model has no such head.
            CorruptModelError: a file is damaged, or of another shape.
        """
        if self.head is None or not self.config.has_weights:
            return
        held, weights = read_head(path, self.config.name)
        if held.shapes() != self.head.config.shapes():
            raise CorruptModelError(f"{path}: the head {self.config.name!r} is not of the task's shape")
        self.head.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
        if self.adapter is not None:
            state = read_adapter(path, held)
            self.adapter.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in state.items()})

    def cached(self, features: Sequence[dict[str, Tensor]]) -> Tensor:
        """Return the loss of a batch that runs the model by itself, in pieces (Gao et al. 2021, arXiv 2101.06983)."""
        result: Tensor = self._loss[0](list(features), None)
        return result


def _loss(config: TaskConfig, model: nn.Module, margin: Margin | None) -> Any:
    makers: dict[str, Any] = {
        "cosine-embedding": lambda: CosineEmbeddingLoss(margin or FixedMargin()),
        "cosine-mse": lambda: stock.CosineSimilarityLoss(model),
        "cosent": lambda: stock.CoSENTLoss(model, scale=config.scale),
        "angle": lambda: stock.AnglELoss(model, scale=config.scale),
        "multiple-negatives-ranking": lambda: stock.MultipleNegativesRankingLoss(model, scale=config.scale),
        "cached-multiple-negatives-ranking": lambda: stock.CachedMultipleNegativesRankingLoss(
            model,
            scale=config.scale,
            mini_batch_size=config.mini_batch_size,
            gather_across_devices=processes.count() > 1,
        ),
        "triplet": lambda: stock.TripletLoss(
            model, distance_metric=stock.TripletDistanceMetric.COSINE, triplet_margin=config.triplet_margin
        ),
        "distillation": lambda: DistillationLoss(config.vector_weight, config.similarity_weight),
    }
    return makers[config.loss]() if config.loss in makers else None
