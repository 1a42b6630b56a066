"""Dynamic batch allocation: how much each task lacks, from its dev figure or its loss. `schedule` makes shares of it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sbert_mini.training.task_config import TaskConfig


class Lacks:
    """How far each task is from done, between two evaluations (or epochs, without dev rows).

    By a task's dev figure m, clipped to [0, 1], where it has one: `1 - m`. Else by its mean loss against its first one:
    `min(mean / first, 1)`.

    Args:
        tasks: the tasks that are trained.
    """

    def __init__(self, tasks: Sequence[TaskConfig]) -> None:
        self._tasks = tasks
        self._first: dict[str, float] = {}
        self._recent: dict[str, list[float]] = {task.name: [] for task in tasks}

    def note_loss(self, task: str, loss: float) -> None:
        """Note a task's loss in a batch."""
        self._recent[task].append(loss)

    def take(self, figures: Mapping[str, float | None]) -> dict[str, float]:
        """Return what each task lacks, in [0, 1], and begin anew with the losses.

        Args:
            figures: dev figures by `<task>_<metric>`; None for one that is not defined.
        """
        lacks = {}
        for task in self._tasks:
            losses = self._recent[task.name]
            figure = figures.get(f"{task.name}_{task.main_metric}")
            if figure is not None:
                lacks[task.name] = 1 - min(max(figure, 0.0), 1.0)
            else:
                mean = math.fsum(losses) / max(len(losses), 1)
                first = self._first.setdefault(task.name, mean)
                lacks[task.name] = min(mean / first, 1.0) if first > 0 else 0.0
            self._recent[task.name] = []
        return lacks

    def state(self) -> dict[str, Any]:
        """Return what must be kept for a run to go on exactly, as JSON holds it."""
        return {"first_losses": self._first, "recent": self._recent}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore from `state()`."""
        self._first, self._recent = state["first_losses"], state["recent"]
