"""Adam and AdamW, written out as a `torch.optim.Optimizer`.

`mₜ = β₁ mₜ₋₁ + (1-β₁) gₜ`, `vₜ = β₂ vₜ₋₁ + (1-β₂) gₜ²`, `θₜ = θₜ₋₁ - α (mₜ / (1-β₁ᵗ)) / (√(vₜ / (1-β₂ᵗ)) + ε)`; AdamW first does
`θₜ₋₁ ← (1 - αλ) θₜ₋₁`, Adam adds `λ θₜ₋₁` to the gradient.

Large tensors are worked on in blocks that stay in the processor's cache, so that each number is read from memory once a step.
`fused=True` leaves the arithmetic of a step to torch's fused kernel; what is written out here is its reference.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw

from sbert_mini.errors import UsageError

_BLOCK = 1 << 17
"""Numbers of a block on a CPU: four arrays of it fit the cache of one core."""


class AdamW(torch.optim.Optimizer):
    """AdamW (decoupled weight decay), or Adam with `decoupled=False`.

    A parameter whose gradient is a sparse tensor (an embedding table looked up with `sparse=True`) is treated as if the
    gradient were dense, at the cost of the rows that any batch has ever touched: the moments of all other rows are zero, so
    that only their decay changes them, and that is applied at every step.

    Args:
        params: parameters or groups of them.
        lr: the learning rate α, at least 0.
        betas: β₁ and β₂, each in [0, 1).
        eps: ε, at least 0.
        weight_decay: λ, at least 0.
        decoupled: AdamW's decay; False for Adam's.
        fused: compute with torch's fused kernel, on the rows of tables too. Equal to the formulas here up to rounding.

    Raises:
        UsageError: a value is outside its range.

    Source: Kingma and Ba 2014 (arXiv 1412.6980), algorithm 1; Loshchilov and Hutter 2017 (arXiv 1711.05101), algorithm 2.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        decoupled: bool = True,
        fused: bool = False,
    ) -> None:
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            if not value >= 0:
                raise UsageError(f"{name} must be at least 0; found {value}")
        for beta in betas:
            if not 0 <= beta < 1:
                raise UsageError(f"betas must be in [0, 1); found {betas}")
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "decoupled": decoupled}
        super().__init__(params, defaults)
        self._fused = fused

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step with the gradients in `.grad`; parameters without one are left alone. Returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            together: list[tuple[Tensor, Tensor, dict[str, Any]]] = []
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                state["step"] = state.get("step", 0) + 1
                if gradient.is_sparse:
                    self._sparse_step(parameter, gradient.coalesce(), group, state)
                elif self._fused and _is_plain(parameter, gradient):
                    together.append((parameter, gradient, _with_moments(parameter, state)))
                else:
                    self._dense_step(parameter, gradient, group, state)
            if together:
                parameters, gradients, states = zip(*together, strict=True)
                _update_fused(parameters, gradients, states, group)
        return loss

    def _dense_step(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        _with_moments(parameter, state)
        if not parameter.is_contiguous():
            _update(parameter, gradient, state["exp_avg"], state["exp_avg_sq"], group, state["step"])
            return
        p, g, m, v = (t.view(-1) for t in (parameter, gradient.contiguous(), state["exp_avg"], state["exp_avg_sq"]))
        block = _BLOCK if parameter.device.type == "cpu" else parameter.numel()
        for start in range(0, parameter.numel(), max(block, 1)):
            part = slice(start, start + block)
            _update(p[part], g[part], m[part], v[part], group, state["step"])

    def _sparse_step(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        """The dense step on the rows that have ever been touched, whose moments lie side by side in `state`."""
        if parameter.dim() != 2:
            raise UsageError(f"sparse gradients are for tables of two dimensions; found {tuple(parameter.shape)}")
        decay, touched = group["weight_decay"], gradient.indices()[0]
        if decay and not group["decoupled"]:
            raise UsageError("Adam's decay makes the gradient of every row dense: use AdamW, or weight_decay=0")
        if decay:
            parameter.mul_(1 - group["lr"] * decay)
        if "rows" not in state:
            width = parameter.shape[1]
            state["rows"] = torch.empty(0, dtype=torch.long, device=parameter.device)  # (active,), sorted
            state["exp_avg"], state["exp_avg_sq"] = (parameter.new_zeros(0, width) for _ in range(2))
        rows = torch.unique(torch.cat([state["rows"], touched]))
        if len(rows) > len(state["rows"]):
            positions = torch.searchsorted(rows, state["rows"])
            for name in ("exp_avg", "exp_avg_sq"):
                grown = parameter.new_zeros(len(rows), parameter.shape[1])
                grown[positions] = state[name]
                state[name] = grown
            state["rows"] = rows
        values = parameter.new_zeros(len(rows), parameter.shape[1])
        values[torch.searchsorted(rows, touched)] = gradient.values().to(values.dtype)
        active = parameter[rows]
        without_decay = {**group, "weight_decay": 0.0}  # every row has had its decay
        if self._fused:
            _update_fused([active], [values], [state], without_decay)
        else:
            _update(active, values, state["exp_avg"], state["exp_avg_sq"], without_decay, state["step"])
        parameter[rows] = active

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore from `state_dict()`."""
        super().load_state_dict(state_dict)
        for (
            state
        ) in self.state.values():  # torch casts a state's tensors to the parameter's dtype; row numbers are whole
            if "rows" in state:
                state["rows"] = state["rows"].long()


def _with_moments(parameter: Tensor, state: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter's state, with moments of zero where it has none."""
    if "exp_avg" not in state:
        state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
        state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
    return state


def _is_plain(parameter: Tensor, gradient: Tensor) -> bool:
    """Return whether torch's fused kernel takes a parameter with its gradient as they are."""
    return parameter.is_contiguous() and gradient.is_contiguous() and gradient.dtype == parameter.dtype


def _update_fused(
    parameters: Sequence[Tensor], gradients: Sequence[Tensor], states: Sequence[dict[str, Any]], group: dict[str, Any]
) -> None:
    """One step of several tensors by torch's fused kernel; `step` of the states counts this one already."""
    steps = torch.tensor([float(state["step"] - 1) for state in states], device=parameters[0].device)  # torch adds 1
    step = adamw if group["decoupled"] else adam
    step(
        list(parameters),
        list(gradients),
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],
        list(steps.unbind()),
        fused=True,
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )


def _update(p: Tensor, g: Tensor, m: Tensor, v: Tensor, group: dict[str, Any], step: int) -> None:
    """One step on a block. The division by `1-β₂ᵗ` under the root is moved to ε and α, which saves a pass."""
    lr, (beta1, beta2), decay = group["lr"], group["betas"], group["weight_decay"]
    g = g.to(p.dtype)
    if decay and group["decoupled"]:
        p.mul_(1 - lr * decay)
    elif decay:
        g = g.add(p, alpha=decay)
    m.lerp_(g, 1 - beta1)
    v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
    root = (1 - beta2**step) ** 0.5
    p.addcdiv_(m, v.sqrt().add_(group["eps"] * root), value=-lr * root / (1 - beta1**step))
