"""TorchJD's rules on our Gram matrices: each with a random state of its own, its state kept as JSON, and tasks' weights."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sbert_mini.errors import MissingExtraError, TrainingError, UsageError
from sbert_mini.training.surgery_rules import PREFIX, TORCHJD

_TYPES = {str(t).removeprefix("torch."): t for t in (torch.float32, torch.float64, torch.int64)}


class JacobianDescent:
    """A rule of TorchJD by its name.

    Args:
        name: `torchjd:` and a key of `surgery_rules.TORCHJD`.
        seed: of the rules that draw numbers; each step draws its own, so that a resumed run and every process draw the same.
        task_weights: the factors of the tasks' losses, which the gradients hold. A task of weight 0 is left out.

    Raises:
        MissingExtraError: TorchJD is not installed.
        UsageError: a solver that the rule needs is not installed, or the rule is not for so few tasks.
    """

    def __init__(self, name: str, seed: int, task_weights: Sequence[float]) -> None:
        self.name, self._seed = name, seed
        self._rule = TORCHJD[name.removeprefix(PREFIX)]
        self._factors = torch.tensor(task_weights, dtype=torch.float64)
        self._kept = self._factors > 0
        self._factors = self._factors[self._kept]
        self._weighting = self._make()
        if len(self._factors) > 1:
            self._try(torch.eye(len(self._factors)))
            self._weighting = self._make()  # without the state of the trial

    def _make(self) -> nn.Module:
        try:
            from torchjd import aggregation
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"the surgery {self.name}", "torchjd", "torchjd") from error
        make: Callable[..., nn.Module] = getattr(aggregation, self.name.removeprefix(PREFIX) + "Weighting")
        try:
            return make(**self._rule.arguments)
        except ImportError as error:  # a solver is absent
            extra = self._rule.extra or "quadprog-projector"
            raise UsageError(
                f"the surgery {self.name} needs a solver that is not installed: pip install 'torchjd[{extra}]'",
                "surgery",
            ) from error

    def _try(self, gram: Tensor) -> None:
        try:
            self._call(gram, 0)
        except ValueError as error:
            raise UsageError(f"surgery: {self.name} is not for {len(gram)} tasks: {error}", "surgery") from error

    def _call(self, gram: Tensor, step: int) -> Tensor:
        if self._rule.weight == "preference":
            self._weighting.pref_vector = (self._factors / len(self._factors)).to(gram.dtype)
        with torch.no_grad(), _drawn_from(self._seed, step):
            weights: Tensor = self._weighting(gram)
        return weights.double()

    def __call__(self, gram: Tensor, step: int) -> Tensor:
        """Return the weights of the gradients of the weighted losses, and move the rule's state.

        Shapes: gram (tasks, tasks); the result (tasks,), float64.

        Raises:
            TrainingError: the rule failed, or gave weights that are not finite.
        """
        weights = torch.zeros(len(self._kept), dtype=torch.float64)
        if not len(self._factors):
            return weights
        G = gram.detach().cpu()[self._kept][:, self._kept]  # noqa: N806  # in its own precision, which the rules look at
        c = self._factors
        if self._rule.weight != "loss":
            G = (G.double() / (c[:, None] * c[None])).to(G.dtype)  # noqa: N806  # of the losses without their factors
        if self._rule.scale_free and float(G.trace()) > 0:
            G = G / G.trace()  # noqa: N806  # TorchJD takes a small matrix for zero
        try:
            found = self._call(G, step)
        except ValueError as error:
            raise TrainingError(f"the surgery {self.name} failed at step {step + 1}: {error}") from error
        if not bool(torch.isfinite(found).all()):
            raise TrainingError(
                f"the surgery {self.name} gave weights that are not finite at step {step + 1}: lower the learning rate"
            )
        weights[self._kept] = found / c if self._rule.weight == "preference" else found
        return weights

    def state(self) -> dict[str, Any]:
        """Return the rule's state between steps, as JSON holds it."""
        return {
            name: {"values": value.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}
            for name, value in self._weighting.named_buffers()
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore from `state()`."""
        self._weighting = self._make()
        if not state:
            return
        floating = [entry["dtype"] for entry in state.values() if entry["dtype"].startswith("float")]
        self._call(torch.eye(len(self._factors), dtype=_TYPES[floating[0]]), 0)  # makes room for the state
        for name, entry in state.items():
            setattr(self._weighting, name, torch.tensor(entry["values"], dtype=_TYPES[entry["dtype"]]))


@contextmanager
def _drawn_from(seed: int, step: int) -> Iterator[None]:
    """Draw torch's random numbers inside from (seed, step) alone, and leave its generator as it was."""
    generator = torch.default_generator
    before = generator.get_state()
    generator.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1))
    try:
        yield
    finally:
        generator.set_state(before)
