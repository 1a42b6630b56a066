"""What is added to a task's loss by a rule that runs the model again: `smart.Smart`, `smart.Bregman`, `r_drop.RDrop`.

Rules compare a task's *outputs* in two passes (`Objective.outputs`): logits, predicted scores, or cosines.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor
from torch.nn import functional

Run = Callable[[Mapping[str, Any]], Tensor]
"""Further features of the encoder -> the task's outputs in another forward pass."""


@dataclass(frozen=True)
class Pass:
    """A task's forward pass, and the means for further ones.

    Attributes:
        outputs: logits (batch, classes), or scores or cosines (batch,).
        loss: the task's loss in this pass, ().
        loss_of: outputs of another pass -> its loss; None for a loss that needs more than the outputs.
        embedded: the shape of the embeddings' output, (texts, seq, hidden).
        run: see `Run`.
        classes: whether the outputs are logits.
        teacher: outputs of the same batch under a moving average of the weights.
    """

    outputs: Tensor
    loss: Tensor
    loss_of: Callable[[Tensor], Tensor] | None
    embedded: tuple[int, int, int]
    run: Run
    classes: bool
    teacher: Callable[[], Tensor] | None = None

    def divergence(self, other: Tensor, outputs: Tensor | None = None) -> Tensor:
        """Return how far two passes' outputs are apart, the mean over the batch, ().

        Between logits the symmetric Kullback-Leibler divergence `KL(P‖Q) + KL(Q‖P)` (Jiang et al. 2020, arXiv 1911.03437,
        section 3.1), else the squared difference.

        Args:
            other: the outputs of the other pass.
            outputs: of the one; None for this pass'.
        """
        first = self.outputs if outputs is None else outputs
        if not self.classes:
            return functional.mse_loss(first, other)
        p, q = first.log_softmax(dim=-1), other.log_softmax(dim=-1)
        return ((p.exp() - q.exp()) * (p - q)).sum(dim=-1).mean()


class Regularizer(Protocol):
    """A rule that adds to a task's loss."""

    def __call__(self, clean: Pass) -> Tensor:
        """Return what is added to the loss, ()."""
        ...
