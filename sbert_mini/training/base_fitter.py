"""What surrounds a fitter's steps: log, evaluation, averages of the weights, checkpoints that are whole and hold no pickle."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformerTrainer
from torch import nn
from transformers import TrainerCallback

from sbert_mini.errors import UsageError
from sbert_mini.evaluation.log_keys import EVAL_MEAN
from sbert_mini.training import averaging, checkpoints, processes
from sbert_mini.training.averaging import WeightAverage
from sbert_mini.training.config import FitterConfig
from sbert_mini.training.gradients import scale_norm
from sbert_mini.training.lora import Lora
from sbert_mini.training.objective import Objective
from sbert_mini.training.stopping import best_standing, standing_of
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.telemetry import Telemetry

BREGMAN_FILE = "bregman.safetensors"


class AfterStep(TrainerCallback):
    """Takes the new weights into a trainer's averages after each optimizer step."""

    def __init__(self, trainer: "BaseFitter") -> None:
        self._trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:  # noqa: ARG002
        """Update the averages."""
        self._trainer.after_step()


class BaseFitter(SentenceTransformerTrainer, ABC):
    """sentence-transformers' trainer, without the step: log, evaluation, averages of the weights, checkpoints, the best weights.

    A checkpoint is written beside its place and renamed into it. A run that is killed and resumed ends in the same weights as
    one that is not. A subclass sets the attributes before it calls `super().__init__`.

    Attributes:
        fitter: the fitter's settings.
        objectives: the tasks' losses and heads, by name.
        measured_tasks: all tasks, for the standing of an evaluation.
        lora: low-rank updates of the encoder, or None.
        averages: averages of the weights, by the file that holds them in a checkpoint.
        telemetry: the figures of steps, for the log.
    """

    fitter: FitterConfig
    objectives: Mapping[str, Objective]
    measured_tasks: list[TaskConfig]
    lora: Lora | None
    averages: dict[str, WeightAverage]
    telemetry: Telemetry

    @abstractmethod
    def fitter_state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps beside weights and optimizer, as JSON holds it."""

    @abstractmethod
    def load_fitter_state(self, state: Mapping[str, Any]) -> None:
        """Restore from `fitter_state()`."""

    @abstractmethod
    def after_evaluation(self, figures: Mapping[str, float | None]) -> None:
        """Act on the dev figures of an evaluation while training."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Do nothing: the card is written by `recipes.card`, from the recipe and the figures."""

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """Add the means since the last log of each task's loss, gradient norm, weight and the gradients' cosines, and log.

        What is not a finite number is logged as None, which JSON has as null.
        """
        if "loss" in logs:
            logs = {**logs, **self.telemetry.take()}
        finite = {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in logs.items()}
        super().log(finite, start_time)

    def clip_gradients(self, limit: float | None = None) -> float:
        """Scale all gradients, the heads' included, to a common norm of at most `limit`; return the norm before.

        Args:
            limit: None for `max_grad_norm`, of which 0 is no limit.
        """
        limit = (self.args.max_grad_norm or math.inf) if limit is None else limit
        modules = (self.model, *self.objectives.values())
        return scale_norm((p for module in modules for p in module.parameters()), limit)

    def _clip_grad_norm(self, model: nn.Module) -> float:  # noqa: ARG002
        return self.clip_gradients()

    def _get_grad_norm(self, model: nn.Module, grad_norm: float | None = None) -> float:  # noqa: ARG002
        return self.clip_gradients(math.inf) if grad_norm is None else grad_norm

    # --- evaluation ---

    def evaluate(
        self,
        eval_dataset: Any = None,  # noqa: ARG002
        ignore_keys: list[str] | None = None,  # noqa: ARG002
        metric_key_prefix: str = "eval",
    ) -> dict[str, Any]:
        """Return the dev figures of all tasks and their mean, and log them.

        A figure that is not defined is None.

        Raises:
            UsageError: no task has dev examples.
        """
        if self.evaluator is None:
            raise UsageError("no task has dev examples")
        average = self._measured_average()
        with self.telemetry.clock_stopped(), nullcontext() if average is None else average.in_place():
            figures = self.evaluator(self.model)
        metrics: dict[str, Any] = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        if self.is_in_train:
            self.after_evaluation(figures)
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _determine_best_metric(self, metrics: dict[str, Any], trial: Any) -> bool:  # noqa: ARG002
        """Return whether an evaluation is the best until now, and note it: the one with the greatest `evaluator.standing`."""
        now = standing_of(metrics, self.measured_tasks)
        if self.args.metric_for_best_model is None or now is None:
            return False
        best = best_standing(self.state, self.measured_tasks) if self.state.best_global_step is not None else None
        if best is not None and now <= best:
            return False
        self.state.best_metric, self.state.best_global_step = metrics[EVAL_MEAN], self.state.global_step
        return True

    # --- averages ---

    def modules_by_name(self) -> dict[str, nn.Module]:
        """Return what is trained: the encoder and the tasks' heads."""
        return {"model": self.model, **{f"task_{name}": o for name, o in self.objectives.items()}}

    def start_averages(self) -> None:
        """Begin the averages that the settings ask for, from the weights of now."""
        average, settings = self.fitter.average, self.fitter.regularization
        if average.kind != "none":
            self.averages[averaging.FILE] = WeightAverage(self.modules_by_name(), average.kind, average.decay)
        if settings.bregman:
            momentum = settings.bregman_momentum
            self.averages[BREGMAN_FILE] = WeightAverage(self.modules_by_name(), "ema", momentum, warm=False)

    def after_step(self) -> None:
        """Take the new weights into the moving averages; called after each optimizer step."""
        for average in self.averages.values():
            if average.rule == "ema":
                average.update()

    def _measured_average(self) -> WeightAverage | None:
        """Return the average that an evaluation measures in place of the weights, brought up to date; None for the weights."""
        average = self.averages.get(averaging.FILE) if self.is_in_train else None
        if average is None:
            return None
        start = math.ceil(self.fitter.average.start * self.state.max_steps)
        if average.rule == "checkpoints" and self.state.global_step >= start:
            average.update()
        return average if average.count else None

    def _use_average(self) -> None:
        average = self.averages.get(averaging.FILE)
        if average is not None and average.count:
            average.copy_to_weights()

    # --- checkpoints ---

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ARG002
        path = Path(output_dir or self.args.output_dir)
        self.model.save(str(path), create_model_card=False)
        if self.lora is not None:
            self.lora.save(path)
        for objective in self.objectives.values():
            if objective.is_trained:
                objective.save(path)

    def _save_parts(self, part: str) -> None:
        self._save(part)
        for name, average in self.averages.items():
            average.save(Path(part) / name)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:  # noqa: ARG002
        """Write `checkpoint-<step>` whole, and rename it into its place."""
        folder, callbacks = Path(self.args.output_dir), [*self.callback_handler.callbacks, self.control]
        with self.telemetry.clock_stopped():
            self.store_flos()
            checkpoints.write_checkpoint(
                folder, self.state, self._save_parts, self.optimizer, self.lr_scheduler, self.fitter_state(), callbacks
            )
            checkpoints.remove_old_checkpoints(folder, self.state.best_global_step, self.args.save_total_limit)

    def _load_from_checkpoint(self, checkpoint_path: str, model: nn.Module | None = None) -> None:  # noqa: ARG002
        if self.lora is not None:
            self.lora.load(Path(checkpoint_path))
        else:
            super()._load_from_checkpoint(checkpoint_path)
        self.load_heads(Path(checkpoint_path))
        for name, average in self.averages.items():
            average.load(Path(checkpoint_path) / name)
        self.load_fitter_state(checkpoints.read_state(Path(checkpoint_path))["fitter"])

    def load_heads(self, path: Path) -> None:
        """Load the heads and adapters of a model directory that was trained on the same tasks."""
        for objective in self.objectives.values():
            if objective.is_trained:
                objective.load(path)

    def restore(self, checkpoint: Path) -> None:
        """Load the weights of a checkpoint that are to be used: the averages, where there are some."""
        if self.fitter.average.kind != "none" and averaging.FILE not in self.averages:
            self.averages[averaging.FILE] = WeightAverage(self.modules_by_name(), self.fitter.average.kind)
        self._load_from_checkpoint(str(checkpoint))
        self._use_average()

    def _load_best_model(self) -> None:
        assert self.state.best_model_checkpoint is not None  # noqa: S101
        self.restore(Path(self.state.best_model_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_optimizer_and_scheduler(Path(checkpoint), self.optimizer, self.lr_scheduler)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_random_state(Path(checkpoint), processes.number())

    def _finalize_training(self, *args: Any, **options: Any) -> Any:
        done = super()._finalize_training(*args, **options)
        if not (self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None):
            self._use_average()
        return done
