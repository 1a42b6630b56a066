"""The best evaluation of a run until now, and stopping where none is better for long."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import EarlyStoppingCallback

from sbert_mini.evaluation.log_keys import EVAL_MEAN, figures_in
from sbert_mini.training.evaluator import standing
from sbert_mini.training.task_config import TaskConfig


def standing_of(metrics: Mapping[str, Any], tasks: Sequence[TaskConfig]) -> tuple[int, float] | None:
    """Return the standing of an evaluation, from figures whose names begin with `eval_`; see `evaluator.standing`."""
    return standing(figures_in(metrics), tasks)


def best_standing(state: Any, tasks: Sequence[TaskConfig]) -> tuple[int, float] | None:
    """Return the standing of the best evaluation until now, from a `TrainerState`'s log; None where there is none."""
    for line in state.log_history:
        if line.get("step") == state.best_global_step and EVAL_MEAN in line:
            return standing_of(line, tasks)
    return None


class Patience(EarlyStoppingCallback):
    """Stops training after some evaluations without a better mean; those before the first mean that is defined do not count.

    Args:
        evaluations: how many.
        tasks: all tasks.
    """

    def __init__(self, evaluations: int, tasks: Sequence[TaskConfig]) -> None:
        super().__init__(evaluations)
        self._tasks = tasks

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **options: Any) -> None:  # noqa: ARG002
        """Count the evaluation."""
        best, now = best_standing(state, self._tasks), standing_of(metrics, self._tasks)
        if best is None or (now is not None and now > best):
            self.early_stopping_patience_counter = 0
            return
        self.early_stopping_patience_counter += 1
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True
