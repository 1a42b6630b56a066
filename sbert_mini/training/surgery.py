"""Gradient surgery: per-task gradients of the shared parameters -> one gradient.

Every rule here is a function from the Gram matrix `G[i, j] = gᵢ · gⱼ` of the tasks' gradients to weights `w`, and the step takes
`Σ wᵢ gᵢ`. Projections, norms and cosines need nothing but G: the long vectors are touched twice, once for G and once for the
weighted sum. `GradientBuffer` captures the gradients without copying them.

No rule here promises that the step conflicts with no task: with three tasks or more a sum of projected gradients can still
point against one of them (Yu et al. 2020 prove it for two).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from sbert_mini.errors import UsageError
from sbert_mini.training.fields import near_miss
from sbert_mini.training.jacobian_descent import JacobianDescent
from sbert_mini.training.surgery_rules import PREFIX, SURGERY_RULES, check_surgery

Rule: TypeAlias = Callable[[Tensor], Tensor]
"""Gram matrix (tasks, tasks) -> weights (tasks,). TorchJD's weightings are such functions."""


def projection_orders(tasks: int, seed: int, step: int) -> list[list[int]]:
    """Return for each task the order in which its gradient meets the others', drawn from (seed, step) alone.

    So a resumed run, and every process of several, projects in the same order.
    """
    rng = np.random.default_rng([seed, step])
    return [rng.permutation(tasks).tolist() for _ in range(tasks)]


def pcgrad_weights(gram: Tensor, orders: Sequence[Sequence[int]]) -> Tensor:
    """Return the weights of PCGrad: `Σᵢ gᵢᴾᶜ = Σⱼ wⱼ gⱼ`.

    For each i, starting from `gᵢᴾᶜ = gᵢ` and for j in `orders[i]`, j ≠ i: where `gᵢᴾᶜ · gⱼ < 0`,
    `gᵢᴾᶜ ← gᵢᴾᶜ - (gᵢᴾᶜ · gⱼ / ‖gⱼ‖²) gⱼ`. A task whose gradient is zero is passed over.

    Args:
        gram: the Gram matrix; any floating dtype, computed in float64.
        orders: for each task, the tasks in the order of projection; its own number is passed over.

    Shapes:
        gram: (tasks, tasks); the result: (tasks,), float64.

    Source: Yu et al. 2020 (arXiv 2001.06782), algorithm 1. Several published programs also project on j = i, or average where the
    paper adds; both give other results.
    """
    G = gram.detach().double().cpu()  # noqa: N806
    total = torch.zeros(len(G), dtype=torch.float64)
    for i, order in enumerate(orders):
        coefficients = torch.zeros(len(G), dtype=torch.float64)
        coefficients[i] = 1
        for j in order:
            if j == i or G[j, j] <= 0:
                continue
            inner = coefficients @ G[j]
            if inner < 0:
                coefficients[j] -= inner / G[j, j]
        total += coefficients
    return total


def normalized_pcgrad_weights(
    gram: Tensor, orders: Sequence[Sequence[int]], task_weights: Sequence[float] | None = None
) -> Tensor:
    """Return PCGrad's weights on gradients of given lengths: `wᵢ = sᵢ · PCGrad(G′)ᵢ` with `G′ᵢⱼ = sᵢ sⱼ Gᵢⱼ`.

    sᵢ are the weights of `normalized_sum_weights`. So a task with large gradients weighs no more than the others, and a task's
    weight multiplies its projected gradient of length 1.

    Shapes:
        gram: (tasks, tasks); the result: (tasks,), float64.

    Source: algorithm 1 of Yu et al. 2020 (arXiv 2001.06782) on normalised gradients; the rescaling is this project's.
    """
    scale = normalized_sum_weights(gram, task_weights)
    G = gram.detach().double().cpu()  # noqa: N806
    return scale * pcgrad_weights(G * scale[:, None] * scale[None], orders)


def normalized_sum_weights(gram: Tensor, task_weights: Sequence[float] | None = None) -> Tensor:
    """Return the weights of a sum of gradients of given lengths, without any projection: `wᵢ = cᵢ n̄ / ‖gᵢ‖`.

    cᵢ is the task's weight, which is in gᵢ already: without the factor the division by ‖gᵢ‖ would take it out again. n̄ is the
    mean length of `gᵢ / cᵢ` over the tasks with cᵢ > 0. A zero gradient has the weight 0.

    Args:
        gram: the Gram matrix of the gradients of the weighted losses.
        task_weights: cᵢ, at least 0; None for 1 each.

    Shapes:
        gram: (tasks, tasks); the result: (tasks,), float64.

    Source: this project's; the baseline for `normalized_pcgrad_weights`.
    """
    G = gram.detach().double().cpu()  # noqa: N806
    c = torch.ones(len(G), dtype=torch.float64) if task_weights is None else torch.tensor(task_weights).double()
    counted = c > 0
    if not bool(counted.any()):
        return torch.zeros_like(c)
    lengths = G.diagonal().clamp_min(0).sqrt()
    return c * (lengths[counted] / c[counted]).mean() * _to_length_1(G)


def _to_length_1(G: Tensor) -> Tensor:  # noqa: N803
    """Return 1 / ‖gᵢ‖ for each task, 0 where the gradient is zero. Shapes: (tasks, tasks) -> (tasks,)."""
    norms = G.diagonal().clamp_min(0).sqrt()
    return torch.where(norms > 0, 1 / norms, torch.zeros_like(norms))


class GradVac:
    """Gradient Vaccine: gradients are drawn together until their cosines reach a moving target.

    For each i and j ≠ i in random order, with φ the cosine of `gᵢ'` (already altered) and `gⱼ`, and φ̂ the target of the pair:
    where `φ < φ̂`, `gᵢ' ← gᵢ' + ‖gᵢ'‖ (φ̂ √(1-φ²) - φ √(1-φ̂²)) / (‖gⱼ‖ √(1-φ̂²)) gⱼ`. Then `φ̂ ← (1-β) φ̂ + β φ`. With targets of
    0 that never move it is PCGrad.

    Args:
        beta: how fast targets move, in [0, 1].

    Source: Wang et al. 2020 (arXiv 2010.05874), equations 2 and 3, algorithm 1. Differs from it: one target a pair for all
    parameters together, where the paper has one a layer or parameter group.
    """

    def __init__(self, beta: float = 0.01) -> None:
        if not 0 <= beta <= 1:
            raise UsageError(f"beta must be in [0, 1]; found {beta}")
        self.beta = beta
        self.targets: Tensor | None = None

    def __call__(self, gram: Tensor, orders: Sequence[Sequence[int]]) -> Tensor:
        """Return the weights, and move the targets. Shapes: gram (tasks, tasks); the result (tasks,), float64."""
        G = gram.detach().double().cpu()  # noqa: N806
        tasks = len(G)
        if self.targets is None:
            self.targets = torch.zeros(tasks, tasks, dtype=torch.float64)
        norms = G.diagonal().clamp_min(0).sqrt()
        total = torch.zeros(tasks, dtype=torch.float64)
        for i, order in enumerate(orders):
            coefficients = torch.zeros(tasks, dtype=torch.float64)
            coefficients[i] = 1
            for j in order:
                length = math.sqrt(max(float(coefficients @ G @ coefficients), 0.0))
                if j == i or norms[j] <= 0 or length <= 0:
                    continue
                cosine = float(coefficients @ G[j]) / (length * float(norms[j]))
                cosine = min(max(cosine, -1.0), 1.0)
                target = min(max(float(self.targets[i, j]), -1 + 1e-9), 1 - 1e-9)
                if cosine < target:
                    side = math.sqrt(1 - target * target)
                    push = length * (target * math.sqrt(1 - cosine * cosine) - cosine * side)
                    coefficients[j] += push / (float(norms[j]) * side)
                self.targets[i, j] = (1 - self.beta) * self.targets[i, j] + self.beta * cosine
            total += coefficients
        return total


class Surgeon:
    """A rule by its name, with its seed and state.

    Args:
        rule: one of `surgery_rules.SURGERY_RULES`, or a function from a Gram matrix to weights (a TorchJD weighting, say).
        seed: of the projection orders.
        task_weights: the factors of the tasks' losses, which the gradients hold; None for 1 each, but for TorchJD's rules.

    Raises:
        UsageError: the name is unknown, or TorchJD's rule cannot be used here.
        MissingExtraError: the rule is TorchJD's, which is not installed.
    """

    def __init__(self, rule: str | Rule = "pcgrad", seed: int = 0, task_weights: Sequence[float] | None = None) -> None:
        if isinstance(rule, str) and rule not in SURGERY_RULES:
            check_surgery(rule)
            near = near_miss(rule, SURGERY_RULES)
            raise UsageError(f"the surgery must be one of {', '.join(SURGERY_RULES)}; found {rule!r}{near}")
        self.rule = rule
        self.seed = seed
        self.task_weights = task_weights
        self._vaccine = GradVac()
        self._torchjd: JacobianDescent | None = None
        if isinstance(rule, str) and rule.startswith(PREFIX):
            if task_weights is None:
                raise UsageError(f"the surgery {rule} needs the tasks' weights")
            self._torchjd = JacobianDescent(rule, seed, task_weights)

    def weights(self, gram: Tensor, step: int) -> Tensor:
        """Return the weights of the tasks' gradients at an optimizer step.

        Shapes: gram (tasks, tasks); the result (tasks,), float64.

        Raises:
            UsageError: the rule is a function, and gave weights of another shape.
        """
        tasks = len(gram)
        if not isinstance(self.rule, str):
            weights = self.rule(gram).detach().double().cpu()
            if weights.shape != (tasks,):
                raise UsageError(f"the rule must give a weight for each of {tasks} tasks; found {tuple(weights.shape)}")
            return weights
        if self._torchjd is not None:
            return self._torchjd(gram, step)
        if self.rule in ("sum", "mean"):
            return torch.full((tasks,), 1.0 if self.rule == "sum" else 1 / tasks, dtype=torch.float64)
        if self.rule == "sum-normalized":
            return normalized_sum_weights(gram, self.task_weights)
        orders = projection_orders(tasks, self.seed, step)
        if self.rule == "gradvac":
            return self._vaccine(gram, orders)
        if self.rule == "pcgrad-normalized":
            return normalized_pcgrad_weights(gram, orders, self.task_weights)
        return pcgrad_weights(gram, orders)

    def state(self) -> dict[str, Any]:
        """Return what must be kept for a run to go on exactly, as JSON holds it."""
        targets = self._vaccine.targets
        torchjd = {} if self._torchjd is None else {"torchjd": self._torchjd.state()}
        return {"targets": None if targets is None else targets.tolist(), **torchjd}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore from `state()`."""
        targets = state["targets"]
        self._vaccine.targets = None if targets is None else torch.tensor(targets, dtype=torch.float64)
        if self._torchjd is not None:
            self._torchjd.load_state(state["torchjd"])


def cosines(gram: Tensor) -> Tensor:
    """Return the cosines of the gradients; 0 beside a gradient that is zero. Shapes: both (tasks, tasks), float64."""
    G = gram.detach().double().cpu()  # noqa: N806
    scale = _to_length_1(G)
    return (G * scale[:, None] * scale[None]).clamp(-1, 1)
