"""CosineEmbeddingLoss, with a margin that may move. The other losses are sentence-transformers' own (`objective`)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sbert_mini.errors import UsageError
from sbert_mini.training.task_config import MarginConfig


class Margin(ABC):
    """A margin that may move during training. `value` is the one in force."""

    value: float

    def advance(self, progress: float) -> None:  # noqa: B027
        """Move with the share of the training that is done, in [0, 1]. Called before each optimizer step."""

    def observe(self, negatives: Tensor) -> None:  # noqa: B027
        """Observe the cosines of the batch's dissimilar pairs before the step. Shapes: negatives (pairs,)."""

    def end_epoch(self) -> None:  # noqa: B027
        """Move at the end of an epoch."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return what must be kept for a run to go on exactly, as JSON holds it."""

    @abstractmethod
    def load_state(self, state: dict[str, Any]) -> None:
        """Restore from `state()`."""


class FixedMargin(Margin):
    """A margin that stays where it is.

    Args:
        value: in [-1, 1].
    """

    def __init__(self, value: float = MarginConfig.value) -> None:
        self.value = MarginConfig("fixed", value=float(value)).value

    def state(self) -> dict[str, Any]:
        """Return nothing: there is no state."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Do nothing: there is no state."""


class ScheduledMargin(Margin):
    """A margin that moves from one value to another with the training: `m(p) = start + (end - start) s(p)`.

    With p the share of the training that is done, `s(p) = p` (linear) or `s(p) = (1 - cos πp) / 2` (cosine). A margin that starts
    high and falls asks for more and more distance between dissimilar pairs: a curriculum from easy to hard.

    Args:
        start: at the beginning, in [-1, 1].
        end: at the end, in [-1, 1].
        shape: `linear` or `cosine`.

    Source: this project's; the idea of training from easy to hard is Bengio et al. 2009, "Curriculum learning".
    """

    def __init__(self, start: float, end: float, shape: str = MarginConfig.shape) -> None:
        config = MarginConfig("scheduled", start=float(start), end=float(end), shape=shape)
        self.start, self.end, self.shape = config.start, config.end, config.shape
        self.value = self.start

    def advance(self, progress: float) -> None:
        """Move the margin to where it belongs at `progress`."""
        p = min(max(progress, 0.0), 1.0)
        share = p if self.shape == "linear" else (1 - math.cos(math.pi * p)) / 2
        self.value = self.start + (self.end - self.start) * share

    def state(self) -> dict[str, Any]:
        """Return the margin in force."""
        return {"value": self.value}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the margin."""
        self.value = float(state["value"])


class HardNegativeMargin(Margin):
    """A margin that follows the hard negatives: `m ← (1 - β) m + β q`, with q a quantile of the dissimilar pairs' cosines.

    A dissimilar pair costs something only where its cosine is above the margin. With the quantile 0.75, about the hardest
    quarter of them does, however far the model has come: the margin falls as the model pushes dissimilar pairs apart, and
    rises where a new kind of hard negative turns up.

    Args:
        value: the margin at the beginning, in [-1, 1].
        quantile: in [0, 1]; 0.75 leaves the hardest quarter above the margin.
        rate: β, in (0, 1].
        low: the margin's lowest value.
        high: its highest value.
        every: `batch` to move after each batch, or `epoch` to move after each epoch, by the quantile of all its pairs.

    Source: this project's; hard negatives by a quantile of the batch as in Hermans et al. 2017 (arXiv 1703.07737), section 2.
    """

    def __init__(
        self,
        value: float = MarginConfig.value,
        quantile: float = MarginConfig.quantile,
        rate: float = MarginConfig.rate,
        low: float = MarginConfig.low,
        high: float = MarginConfig.high,
        every: str = MarginConfig.every,
    ) -> None:
        config = MarginConfig(
            "hard-negatives", float(value), quantile=quantile, rate=rate, low=float(low), high=float(high), every=every
        )
        self.low, self.high, self.every = config.low, config.high, config.every
        self.value, self.quantile, self.rate = config.value, config.quantile, config.rate
        self._seen: list[float] = []

    def observe(self, negatives: Tensor) -> None:
        """Move the margin, or keep the cosines for the epoch's end."""
        if not len(negatives):
            return
        if self.every == "epoch":
            self._seen.extend(negatives.detach().float().tolist())
        else:
            self._move(negatives.detach())

    def end_epoch(self) -> None:
        """Move the margin by all cosines of the epoch, where it moves by epochs."""
        if self._seen:
            self._move(torch.tensor(self._seen))
            self._seen = []

    def _move(self, negatives: Tensor) -> None:
        hard = float(torch.quantile(negatives.float().cpu(), self.quantile))
        moved = (1 - self.rate) * self.value + self.rate * hard
        self.value = min(max(moved, self.low), self.high)

    def state(self) -> dict[str, Any]:
        """Return the margin in force and the cosines of the epoch so far."""
        return {"value": self.value, "seen": list(self._seen)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the margin and the cosines."""
        self.value, self._seen = float(state["value"]), [float(x) for x in state["seen"]]


def margin_of(config: MarginConfig) -> Margin:
    """Return a margin that moves as `config` says."""
    if config.rule == "fixed":
        return FixedMargin(config.value)
    if config.rule == "scheduled":
        return ScheduledMargin(config.start, config.end, config.shape)
    return HardNegativeMargin(config.value, config.quantile, config.rate, config.low, config.high, config.every)


class CosineEmbeddingLoss(nn.Module):
    """Pull similar pairs together, push dissimilar ones apart until their cosine is below a margin.

    `loss = mean(t (1 - cos(u, v)) + (1 - t) max(0, cos(u, v) - m))`, with t = 1 for a similar pair and 0 for a dissimilar one:
    equal to `torch.nn.CosineEmbeddingLoss`, whose targets are 1 and -1. A graded pair (an STS score, say) has t in between: its
    score's place between the least and the greatest one, so that both terms count for it in that proportion.

    Args:
        margin: m; a number for one that does not move.

    Source: De La Cruz, Musa and Ndotu, "Enhancing miniBERT by Leveraging CosineEmbeddingLoss Fine-Tuning and Multi-Task Learning
    with Gradient Surgery"; `torch.nn.CosineEmbeddingLoss`. Differs from them: the moving margin, and graded pairs.
    """

    def __init__(self, margin: Margin | float = MarginConfig.value) -> None:
        super().__init__()
        self.margin = margin if isinstance(margin, Margin) else FixedMargin(margin)

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Return the loss of a batch.

        Args:
            embeddings: u and v.
            labels: t of each pair, in [0, 1].

        Shapes: u and v (batch, dim); labels (batch,); the result ().

        Raises:
            UsageError: there are not two columns of vectors, or a label is outside [0, 1].
        """
        if len(embeddings) != 2:
            raise UsageError(f"CosineEmbeddingLoss compares two texts; found {len(embeddings)} columns of vectors")
        u, v = embeddings
        t = labels.to(u.dtype).view(-1)
        if bool(((t < 0) | (t > 1)).any()):
            raise UsageError("the labels of CosineEmbeddingLoss must be in [0, 1]")
        cosine = functional.cosine_similarity(u, v, dim=-1)
        loss = (t * (1 - cosine) + (1 - t) * (cosine - self.margin.value).clamp_min(0)).mean()
        if self.training:
            self.margin.observe(cosine.detach()[t < 0.5])
        return loss
