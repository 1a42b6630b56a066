"""R-Drop: two passes under different dropout masks must say the same."""

from torch import Tensor

from sbert_mini.training.config import RegularizationConfig
from sbert_mini.training.regularizers import Pass


class RDrop:
    """`L = ½ (L₁ + L₂) + α · ½ (KL(P₁‖P₂) + KL(P₂‖P₁))`, passes 1 and 2 differing in their dropout alone.

    For scores and cosines the divergence is the squared difference, and where the loss needs more than the outputs (cosent,
    angle) it is L₁ alone.

    Args:
        weight: α.

    Source: Liang et al. 2021 (arXiv 2106.14448), equations 1 to 4; the halves before the two losses as in the authors' program.
    """

    def __init__(self, weight: float) -> None:
        self.weight = RegularizationConfig(r_drop=weight).r_drop

    def __call__(self, clean: Pass) -> Tensor:
        """Return what is added to L₁, ()."""
        second = clean.run({})
        added = self.weight * clean.divergence(second) * (0.5 if clean.classes else 1.0)
        if clean.loss_of is not None:
            added = added + 0.5 * (clean.loss_of(second) - clean.loss)
        return added
