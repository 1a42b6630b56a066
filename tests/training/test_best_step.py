"""Of several evaluations the best one's weights are kept, wherever it stood."""

import pytest
import torch
from small_tasks import sentences, trainer_on
from transformers import TrainerCallback

from sbert_mini.training.examples import Examples
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task


class Weights(TrainerCallback):
    """Keeps the encoder's weights of each evaluation."""

    def __init__(self):
        self.at = {}

    def on_evaluate(self, args, state, control, model=None, **kwargs):
        self.at[state.global_step] = {name: p.detach().clone() for name, p in model.named_parameters()}


def graded(count, seed):
    first, second = sentences(count, seed), sentences(count, seed + 1)
    scores = torch.linspace(0, 1, count)[torch.randperm(count, generator=torch.Generator().manual_seed(seed))]
    return Examples(tuple(zip(first, second, strict=True)), tuple(scores.tolist()))


def trained(folder, rate):
    task = Task(TaskConfig("sts", "siamese", "cosent"), graded(24, 1), graded(16, 5))
    weights = Weights()
    trainer = trainer_on(
        folder, [task], callbacks=[weights], max_steps=6, learning_rate=rate, eval_strategy="steps", eval_steps=1,
        save_strategy="steps", save_steps=1, load_best_model_at_end=True, metric_for_best_model="eval_mean",
    )  # fmt: skip
    trainer.train()
    figures = {line["step"]: line["eval_mean"] for line in trainer.state.log_history if "eval_mean" in line}
    return trainer, weights.at, figures


@pytest.mark.parametrize("rate", [1e-4, 3e-3, 1e-2])
def test_the_weights_of_the_best_evaluation_are_the_ones_at_the_end(tmp_path, rate):
    trainer, weights, figures = trained(tmp_path, rate)
    assert list(figures) == [1, 2, 3, 4, 5, 6]
    best = max(figures, key=figures.get)  # of two alike the earlier one
    assert trainer.state.best_global_step == best
    assert trainer.state.best_metric == figures[best]
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(parameter.detach(), weights[best][name], rtol=0, atol=0)


def test_a_best_evaluation_may_stand_before_the_last_one(tmp_path):
    """The test above says nothing where each evaluation is better than the one before."""
    bests = {trained(tmp_path / str(rate), rate)[0].state.best_global_step for rate in (1e-4, 3e-3, 1e-2)}
    assert bests - {6}
    assert len(bests) > 1
