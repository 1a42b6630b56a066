"""The figures of steps in the log."""

import numpy as np
import pytest
from small_tasks import arguments, model_of, tasks

from sbert_mini.training.config import FitterConfig
from sbert_mini.training.telemetry import Telemetry
from sbert_mini.training.trainer import MultiTaskTrainer


def test_the_log_tells_of_tasks_gradients_and_margins(make_model, tmp_path):
    model = model_of(make_model)
    args = arguments(tmp_path, max_steps=4, logging_steps=2)
    trainer = MultiTaskTrainer(model, args, tasks(value=0.5), FitterConfig(batch_size=12))
    trainer.train()
    entry = trainer.state.log_history[0]
    for key in ("loss", "grad_norm", "loss_mood", "loss_same", "loss_sts", "cosine_mood/sts", "conflict_same/sts",
                "grad_norm_same", "weight_mood", "examples_sts", "margin_sts"):  # fmt: skip
        assert np.isfinite(entry[key]), key
    assert entry["loss"] == pytest.approx(sum(entry[f"loss_{n}"] for n in ("mood", "same", "sts")), rel=1e-5)
    assert -1 <= entry["cosine_mood/sts"] <= 1
    assert entry["margin_sts"] != trainer.state.log_history[1]["margin_sts"]


def test_the_time_in_the_log_is_that_of_steps_without_evaluations(make_model, tmp_path):
    """By a clock that each step moves by 1 and each evaluation by 100."""
    from transformers import TrainerCallback

    now = [0.0]

    class Step(TrainerCallback):
        def on_step_begin(self, args, state, control, **options):
            now[0] += 1

    args = arguments(tmp_path, max_steps=6, logging_steps=2, eval_strategy="steps", eval_steps=1)
    trainer = MultiTaskTrainer(model_of(make_model), args, tasks(), FitterConfig(batch_size=12), callbacks=[Step()])
    trainer.telemetry = Telemetry([task.config.name for task in trainer.tasks], clock=lambda: now[0])
    measure = trainer.evaluator

    def slowly(model):
        now[0] += 100
        return measure(model)

    trainer.evaluator = slowly
    trainer.train()
    assert now[0] == 6 * 101
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["seconds"] for entry in logged] == [2.0, 2.0, 2.0]
    assert [entry["examples_per_second"] for entry in logged] == [12.0, 12.0, 12.0]
