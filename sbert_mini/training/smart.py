"""SMART: outputs that change little under small changes of the input (`Smart`) and of the weights (`Bregman`).

Source: Jiang et al. 2020 (arXiv 1911.03437).
"""

import torch
from torch import Tensor

from sbert_mini.errors import UsageError
from sbert_mini.training.config import RegularizationConfig
from sbert_mini.training.regularizers import Pass


class Smart:
    """Smoothness-inducing adversarial regularization: `λ · max over ‖δ‖_∞ ≤ ε of l(f(x + δ), f(x))`.

    x is the embeddings' output. δ starts as `N(0, σ²)` and takes K steps `δ ← clip(δ + η g / ‖g‖_∞, -ε, ε)` uphill, with g the
    divergence's gradient, scaled for each text by itself. Dropout stays on in all passes, as in the authors' program: with a
    small ε much of the divergence is then the dropout's.

    Args:
        weight: λ.
        radius: ε.
        step_size: η.
        steps: K.
        noise: σ.

    Source: Jiang et al. 2020 (arXiv 1911.03437), equation 2 and algorithm 1; the defaults are the paper's settings.
    """

    def __init__(
        self,
        weight: float,
        radius: float = RegularizationConfig.smart_radius,
        step_size: float = RegularizationConfig.smart_step_size,
        steps: int = RegularizationConfig.smart_steps,
        noise: float = RegularizationConfig.smart_noise,
    ) -> None:
        RegularizationConfig(
            smart=weight, smart_radius=radius, smart_step_size=step_size, smart_steps=steps, smart_noise=noise
        )  # checks the ranges
        self.weight, self.radius, self.step_size, self.steps, self.noise = weight, radius, step_size, steps, noise

    def __call__(self, clean: Pass) -> Tensor:
        """Return what is added to the loss, ()."""
        return self.weight * clean.divergence(clean.run({"perturbation": self.perturbation(clean)}))

    def perturbation(self, clean: Pass) -> Tensor:
        """Return δ, (texts, seq, hidden)."""
        fixed = clean.outputs.detach()
        delta = torch.randn(clean.embedded, dtype=fixed.dtype, device=fixed.device) * self.noise
        for _ in range(self.steps):
            delta.requires_grad_()
            (gradient,) = torch.autograd.grad(clean.divergence(clean.run({"perturbation": delta}), fixed), delta)
            largest = gradient.abs().amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)
            delta = (delta.detach() + self.step_size * gradient / largest).clamp(-self.radius, self.radius)
        return delta


class Bregman:
    """Bregman proximal point optimization, with momentum: `μ · l(f(x; θ), f(x; θ̃))`, θ̃ a moving average of the weights.

    Args:
        weight: μ.

    `MultiTaskTrainer` keeps θ̃ (`averaging.WeightAverage`) and hands its outputs over as `Pass.teacher`.

    Source: Jiang et al. 2020 (arXiv 1911.03437), section 3.2.
    """

    def __init__(self, weight: float) -> None:
        self.weight = RegularizationConfig(bregman=weight).bregman

    def __call__(self, clean: Pass) -> Tensor:
        """Return what is added to the loss, ()."""
        if clean.teacher is None:
            raise UsageError("the Bregman divergence needs the outputs under a moving average of the weights")
        with torch.no_grad():
            before = clean.teacher()
        return self.weight * clean.divergence(before)
