"""A task's loss and head in torch. `task_config.LOSSES` has a row for each loss, `_loss` its class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.sentence_transformer import losses as stock
from torch import Tensor, nn
from torch.nn import functional

from sbert_mini.encoder.adapters import ProjectedAttention
from sbert_mini.errors import CorruptModelError, UsageError
from sbert_mini.files.durable import save_file
from sbert_mini.model.heads import ADAPTER, read_adapter, read_head
from sbert_mini.model.layout import head_folder
from sbert_mini.training import processes
from sbert_mini.training.distill import DistillationLoss
from sbert_mini.training.heads import Head
from sbert_mini.training.losses import CosineEmbeddingLoss, FixedMargin, Margin
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task


class Objective(nn.Module):
    """A task's loss and head: sentence vectors and labels -> a number to make small.

    Args:
        task: the task.
        model: the sentence-transformers model; the stock losses ask it for its similarity.
    """

    def __init__(self, task: Task, model: Any) -> None:
        super().__init__()
        self.config = config = task.config
        self.is_trained = not task.only_measured
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

    def forward(self, vectors: Sequence[Tensor], targets: Tensor | None) -> Tensor:
        """Return the loss of a batch.

        Args:
            vectors: the sentence vectors, a tensor a column; for the structure `pair` one tensor, for
                `pair+siamese` that of the pair before them.
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
        outputs: Tensor = self.head(*vectors)
        return torch.sigmoid(outputs[:, 0]) if self.config.head_kind == "regression" else outputs

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
        """Load the head and the adapter that `save` wrote.

        Raises:
            ModelNotFoundError: the model has no such head.
            CorruptModelError: a file is damaged, or of another shape.
        """
        if self.head is None or not self.config.has_weights:
            return
        config, weights = read_head(path, self.config.name)
        if config.shapes() != self.head.config.shapes():
            raise CorruptModelError(f"{path}: the head {self.config.name!r} is not of the task's shape")
        self.head.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
        if self.adapter is not None:
            state = read_adapter(path, config)
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
