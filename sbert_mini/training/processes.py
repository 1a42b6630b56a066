"""Several processes that train one model: what they exchange (torchrun; gloo on CPUs, nccl on GPUs).

Each process encodes its part of every task's sub-batch; the sentence vectors are gathered with their gradients, so that each
loss is that of the whole sub-batch, negatives of all processes included. Then each task's gradient is averaged over the
processes, and only then are gradients projected: every process takes the same step.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def count() -> int:
    """Return how many processes train together; 1 where there is no process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def number() -> int:
    """Return this process' number, from 0."""
    return dist.get_rank() if count() > 1 else 0


class _Gather(torch.autograd.Function):
    """All processes' rows; its backward adds up what each process' loss says of this one's rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x) for _ in range(count())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous()
        dist.all_reduce(total)
        start = number() * ctx.rows
        return total[start : start + ctx.rows]


def gather(x: Tensor) -> Tensor:
    """Return the rows of all processes, in their order, differentiable. All must hold as many rows.

    With every process taking the same loss of all rows, the mean over the processes of their gradients is the gradient of that
    loss.

    Shapes: x (rows, ...); the result (processes * rows, ...).
    """
    if count() == 1:
        return x
    gathered: Tensor = _Gather.apply(x)  # type: ignore[no-untyped-call]
    return gathered


def average(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its mean over the processes."""
    if count() == 1:
        return
    for tensor in tensors:
        dist.all_reduce(tensor)
        tensor.div_(count())


def add(tensor: Tensor) -> None:
    """Replace a tensor by its sum over the processes."""
    if count() > 1:
        dist.all_reduce(tensor)


def agree(modules: Iterable[nn.Module]) -> None:
    """Give every process the weights of the first one."""
    if count() == 1:
        return
    with torch.no_grad():
        for parameter in (p for module in modules for p in module.parameters()):
            dist.broadcast(parameter, 0)


def everyone(value: Any) -> list[Any]:
    """Return every process' value, in their order."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value)
    return values


def leave() -> None:
    """Take the process group down: a process that ends while its group's threads still run may be aborted."""
    if count() > 1:
        dist.destroy_process_group()


def wait() -> None:
    """Wait until every process has come here."""
    if count() > 1:
        dist.barrier()
