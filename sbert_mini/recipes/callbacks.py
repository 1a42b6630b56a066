"""Progress of a run: its log, a bar on a terminal's stderr, a line for each evaluation."""

import json
import logging
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from sbert_mini.evaluation.log_keys import figures_in
from sbert_mini.evaluation.tables import figure_text
from sbert_mini.progress import ProgressBar

log = logging.getLogger("sbert_mini")


class ProgressCallback(TrainerCallback):
    """Draws a bar over the steps, with the loss, where wanted; tells the dev figures in a line an evaluation.

    Args:
        bar: whether to draw the bar.
    """

    def __init__(self, *, bar: bool) -> None:
        self._draws_bar = bar
        self._bar: ProgressBar | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **options: Any) -> None:  # noqa: ARG002
        """Start the bar where the run starts or goes on."""
        if not self._draws_bar:
            return
        self._bar = ProgressBar("training", state.max_steps, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:  # noqa: ARG002
        """Move the bar."""
        if self._bar is not None:
            self._bar.move_to(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **options: Any) -> None:  # noqa: ARG002
        """Show the loss."""
        if self._bar is not None and logs and "loss" in logs:
            self._bar.describe(f"loss {logs['loss']:.3f}")

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **options: Any) -> None:  # noqa: ARG002
        """Tell the figures."""
        shown = ", ".join(
            f"{name.replace('_', ' ')} {figure_text(value)}" for name, value in figures_in(metrics or {}).items()
        )
        log.info("step %d of %d: %s", state.global_step, state.max_steps, shown)

    def on_train_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:  # noqa: ARG002
        """Take the bar away."""
        self.close()

    def close(self) -> None:
        """Take the bar away, if it is there."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class LogCallback(TrainerCallback):
    """Writes each line of the log into a file, as JSON.

    Args:
        file: the file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **options: Any) -> None:  # noqa: ARG002
        """Write the line."""
        if not state.is_world_process_zero:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": state.global_step, **(logs or {})}) + "\n")


class LastStepCallback(TrainerCallback):
    """Writes a line of the log, and takes the dev figures, after the last step, too."""

    def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:  # noqa: ARG002
        """Ask for both at the last step."""
        if state.global_step >= state.max_steps:
            control.should_log = True
            control.should_evaluate = control.should_evaluate or args.eval_strategy != "no"
