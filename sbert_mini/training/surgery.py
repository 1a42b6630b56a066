"""Gradient surgery: per-task gradients of the shared parameters -> one gradient.

Every rule here is a function from the Gram matrix `G[i, j] = gᵢ · gⱼ` of the tasks' gradients to weights `w`, and the step takes
`Σ wᵢ gᵢ`. Projections, norms and cosines need nothing but G: the long vectors are touched twice, once for G and once for the
weighted sum. `GradientBuffer` captures the gradients without copying them.

No rule here promises that the step conflicts with no task: with three tasks or more a sum of projected gradients can still
point against one of them (Yu et al. 2020 prove it for two).
"""

import math
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from sbert_mini.errors import UsageError
from sbert_mini.training.config import SURGERY_RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def normalized_pcgrad_weights(gram: Tensor, orders: Sequence[Sequence[int]]) -> Tensor:
    """Return PCGrad's weights on gradients of one length: `wᵢ = n̄ · PCGrad(cosines)ᵢ / ‖gᵢ‖`, with n̄ the mean length.

    A task with large gradients then weighs no more than the others. Where no gradient is zero and none conflict, the step is
    `n̄ Σ gᵢ / ‖gᵢ‖`.

    Shapes:
        gram: (tasks, tasks); the result: (tasks,), float64.

    Source: algorithm 1 of Yu et al. 2020 (arXiv 2001.06782) on normalised gradients; the rescaling is this project's.
    """
    G = gram.detach().double().cpu()  # noqa: N806
    scale = _to_length_1(G)
    return normalized_sum_weights(gram) * pcgrad_weights(G * scale[:, None] * scale[None], orders)


def normalized_sum_weights(gram: Tensor) -> Tensor:
    """Return the weights of a sum of gradients of one length, without any projection: `wᵢ = n̄ / ‖gᵢ‖`, with n̄ the mean length.

    A zero gradient has the weight 0.

    Shapes:
        gram: (tasks, tasks); the result: (tasks,), float64.

    Source: this project's; what `normalized_pcgrad_weights` is to be held against.
    """
    G = gram.detach().double().cpu()  # noqa: N806
    return G.diagonal().clamp_min(0).sqrt().mean() * _to_length_1(G)


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
        rule: one of `config.SURGERY_RULES`, or a function from a Gram matrix to weights (a TorchJD weighting, say).
        seed: of the projection orders.

    Raises:
        UsageError: the name is unknown.
    """

    def __init__(self, rule: str | Rule = "pcgrad", seed: int = 0) -> None:
        if isinstance(rule, str) and rule not in SURGERY_RULES:
            raise UsageError(f"the surgery must be one of {', '.join(SURGERY_RULES)}; found {rule!r}")
        self.rule = rule
        self.seed = seed
        self._vaccine = GradVac()

    def weights(self, gram: Tensor, step: int) -> Tensor:
        """Return the weights of the tasks' gradients at an optimizer step.

        Shapes: gram (tasks, tasks); the result (tasks,), float64.

        Raises:
            UsageError: a rule of one's own gave weights of another shape.
        """
        tasks = len(gram)
        if not isinstance(self.rule, str):
            weights = self.rule(gram).detach().double().cpu()
            if weights.shape != (tasks,):
                raise UsageError(f"the rule must give a weight for each of {tasks} tasks; found {tuple(weights.shape)}")
            return weights
        if self.rule in ("sum", "mean"):
            return torch.full((tasks,), 1.0 if self.rule == "sum" else 1 / tasks, dtype=torch.float64)
        if self.rule == "sum-normalized":
            return normalized_sum_weights(gram)
        orders = projection_orders(tasks, self.seed, step)
        if self.rule == "gradvac":
            return self._vaccine(gram, orders)
        return (pcgrad_weights if self.rule == "pcgrad" else normalized_pcgrad_weights)(gram, orders)

    def state(self) -> dict[str, Any]:
        """Return what must be kept for a run to go on exactly, as JSON holds it."""
        targets = self._vaccine.targets
        return {"targets": None if targets is None else targets.tolist()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        targets = state["targets"]
        self._vaccine.targets = None if targets is None else torch.tensor(targets, dtype=torch.float64)


class GradientBuffer:
    """The gradients of several tasks on the same parameters, captured where autograd writes them.

    While a task is back-propagated, each parameter's `.grad` is a view into the task's row of one flat buffer, so that nothing is
    copied, and that several micro-batches add up by themselves. Gradients of embedding tables that are looked up with
    `sparse=True` are kept as the rows that were touched.

    Use:
        with buffer.capture(0): loss_a.backward()
        with buffer.capture(1): loss_b.backward()
        gram = buffer.gram(); buffer.combine(weights)      # .grad of every parameter is now Σ wᵢ gᵢ

    Args:
        parameters: the shared parameters, all on one device.
        tasks: how many tasks.
        tables: those of `parameters` whose gradients are sparse: (rows, width) each.

    Memory: `tasks + 1` times the parameters without `tables`, in float32 (float64 for float64 parameters).
    """

    def __init__(self, parameters: Sequence[nn.Parameter], tasks: int, tables: Sequence[nn.Parameter] = ()) -> None:
        identities = {id(table) for table in tables}
        self.dense = [p for p in parameters if id(p) not in identities]
        self.tables = list(tables)
        self.tasks = tasks
        first = parameters[0]
        dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
        sizes = [p.numel() for p in self.dense]
        self._flat = torch.zeros(tasks, sum(sizes), dtype=dtype, device=first.device)  # (tasks, params)
        self._sum = torch.zeros(sum(sizes), dtype=dtype, device=first.device)
        self._views = [_views(row, self.dense, sizes) for row in self._flat]
        self._sum_views = _views(self._sum, self.dense, sizes)
        self._rows: list[list[Tensor | None]] = [[None] * len(self.tables) for _ in range(tasks)]
        self._captured = False

    @contextmanager
    def capture(self, task: int) -> "Iterator[None]":
        """Send the gradients of what is back-propagated inside to the task's row; they add to what is there.

        Raises:
            UsageError: a parameter of `tables` got a dense gradient.
        """
        if not self._captured:
            self._flat.zero_()
            self._captured = True
        for parameter, view in zip(self.dense, self._views[task], strict=True):
            parameter.grad = view
        for number, table in enumerate(self.tables):
            table.grad = self._rows[task][number]
        try:
            yield
        finally:
            for number, table in enumerate(self.tables):
                if table.grad is not None and not table.grad.is_sparse:
                    raise UsageError("a table's gradient is dense: look it up with nn.Embedding(..., sparse=True)")
                self._rows[task][number] = table.grad
                table.grad = None
            for parameter in self.dense:
                parameter.grad = None

    def gradients(self) -> list[Tensor]:
        """Return each task's gradient, flat, to be changed in place; there must be no tables.

        Shapes: (params,) each.

        Raises:
            UsageError: there are tables, whose gradients are sparse.
        """
        if self.tables:
            raise UsageError("the gradients of tables are sparse, and not among the flat ones")
        return list(self._flat)

    def gram(self) -> Tensor:
        """Return `G[i, j] = gᵢ · gⱼ` over all parameters. Shapes: the result (tasks, tasks)."""
        gram = self._flat.new_zeros(self.tasks, self.tasks)
        for i in range(self.tasks):  # dot by dot: half the time of a matrix product this flat
            for j in range(i + 1):
                gram[i, j] = gram[j, i] = torch.dot(self._flat[i], self._flat[j])
        self._compact = [self._touched(number) for number in range(len(self.tables))]
        for rows, _ in self._compact:
            flat = rows.flatten(1)
            gram += flat @ flat.T
        return gram

    def grams(self, groups: Sequence[int]) -> dict[int, Tensor]:
        """Return a Gram matrix for each group of the dense parameters (without `tables`), in order of the groups.

        Args:
            groups: of each of `dense`, the number of its group.

        Shapes: the results (tasks, tasks).
        """
        found: dict[int, Tensor] = {}
        start = 0
        for parameter, group in zip(self.dense, groups, strict=True):
            part = self._flat[:, start : start + parameter.numel()]
            start += parameter.numel()
            found[group] = found.get(group, 0) + part @ part.T
        return dict(sorted(found.items()))

    def _touched(self, number: int) -> tuple[Tensor, Tensor]:
        """Return a table's gradients on the rows that any task touched, (tasks, touched, width), and the rows' numbers."""
        held = [rows[number] for rows in self._rows]
        found = [g.coalesce() if g is not None else None for g in held]
        table = self.tables[number]
        indices = [g.indices()[0] for g in found if g is not None]
        union = torch.unique(torch.cat(indices)) if indices else torch.empty(0, dtype=torch.long, device=table.device)
        compact = torch.zeros(self.tasks, len(union), table.shape[1], dtype=self._flat.dtype, device=table.device)
        for task, gradient in enumerate(found):
            if gradient is not None:
                compact[task, torch.searchsorted(union, gradient.indices()[0])] = gradient.values().to(compact.dtype)
        return compact, union

    def combine(self, weights: Tensor) -> None:
        """Set every parameter's `.grad` to `Σ wᵢ gᵢ`, a table's as a sparse tensor, and forget the tasks' gradients.

        To be called after `gram`, once. Shapes: weights (tasks,).
        """
        w = weights.to(self._flat)
        torch.mv(self._flat.T, w, out=self._sum)
        for parameter, view in zip(self.dense, self._sum_views, strict=True):
            parameter.grad = view
        for table, (compact, union) in zip(self.tables, self._compact, strict=True):
            values = torch.einsum("t,trw->rw", w, compact).to(table.dtype)
            table.grad = torch.sparse_coo_tensor(
                union[None], values, table.shape, is_coalesced=True, check_invariants=False
            )
        self._rows = [[None] * len(self.tables) for _ in range(self.tasks)]
        self._compact = []
        self._captured = False


def _views(flat: Tensor, parameters: Sequence[nn.Parameter], sizes: Sequence[int]) -> list[Tensor]:
    return [part.view(p.shape) for part, p in zip(torch.split(flat, list(sizes)), parameters, strict=True)]


def cosines(gram: Tensor) -> Tensor:
    """Return the cosines of the gradients; 0 beside a gradient that is zero. Shapes: both (tasks, tasks), float64."""
    G = gram.detach().double().cpu()  # noqa: N806
    scale = _to_length_1(G)
    return (G * scale[:, None] * scale[None]).clamp(-1, 1)
