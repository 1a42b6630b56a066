"""Gradients of several tasks on shared parameters: captured one by one, combined by weights, scaled to a norm."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sbert_mini.errors import UsageError


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
        grams: dict[int, Tensor] = {}
        start = 0
        for parameter, group in zip(self.dense, groups, strict=True):
            part = self._flat[:, start : start + parameter.numel()]
            start += parameter.numel()
            grams[group] = grams.get(group, 0) + part @ part.T
        return dict(sorted(grams.items()))

    def _touched(self, number: int) -> tuple[Tensor, Tensor]:
        """Return a table's gradients on the rows that any task touched, (tasks, touched, width), and the rows' numbers."""
        sparse = [rows[number] for rows in self._rows]
        gradients = [g.coalesce() if g is not None else None for g in sparse]
        table = self.tables[number]
        indices = [g.indices()[0] for g in gradients if g is not None]
        union = torch.unique(torch.cat(indices)) if indices else torch.empty(0, dtype=torch.long, device=table.device)
        compact = torch.zeros(self.tasks, len(union), table.shape[1], dtype=self._flat.dtype, device=table.device)
        for task, gradient in enumerate(gradients):
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


def scale_norm(parameters: Iterable[nn.Parameter], limit: float) -> float:
    """Scale the gradients of all parameters to a common norm of at most `limit`; return the norm before."""
    values = []
    for parameter in parameters:
        if parameter.grad is not None:
            if parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()
                values.append(parameter.grad.values())
            else:
                values.append(parameter.grad)
    norm = float(torch.linalg.vector_norm(torch.stack([n.float() for n in torch._foreach_norm(values)])))
    if norm > limit:
        torch._foreach_mul_(values, limit / norm)
    return norm
