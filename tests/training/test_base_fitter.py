"""What surrounds the steps: evaluations that there are none of, an optimizer that is there already."""

import pytest
import torch
from sentence_transformers import SentenceTransformer
from small_tasks import sentences, small_model, trainer_on

from sbert_mini.errors import UsageError
from sbert_mini.training.config import FitterConfig
from sbert_mini.training.examples import Examples
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task
from sbert_mini.training.trainer import MultiTaskTrainer


def task(loss="cosent", count=8, **options):
    rows = tuple(zip(sentences(count, 1), sentences(count, 2), strict=True))
    return Task(
        TaskConfig("t", "siamese", loss, **options), Examples(rows, tuple(i / (count - 1) for i in range(count)))
    )


def test_without_dev_examples_there_is_nothing_to_evaluate(tmp_path):
    with pytest.raises(UsageError, match="no task has dev examples"):
        trainer_on(tmp_path, [task()]).evaluate()


def test_the_optimizer_is_made_once(tmp_path):
    trainer = trainer_on(tmp_path, [task()])
    assert trainer.create_optimizer() is trainer.create_optimizer()
    own = torch.optim.SGD(trainer.model.parameters(), lr=0.1)
    trainer.optimizer = own
    assert trainer.create_optimizer() is own


def test_a_model_of_which_nothing_is_trained_is_refused(tmp_path):
    trainer = trainer_on(tmp_path, [task()])
    trainer.model.requires_grad_(False)
    with pytest.raises(UsageError, match="nothing is trained: the encoder is frozen, and no task has a head"):
        trainer.create_optimizer()


def test_a_model_of_another_library_is_refused(tmp_path):
    small_model(tmp_path / "start")
    model = SentenceTransformer(str(tmp_path / "start"), device="cpu")
    with pytest.raises(UsageError, match=r"must be MiniBert: load it with sbert_mini\.load"):
        MultiTaskTrainer(model, None, [task()], FitterConfig(batch_size=8))


def test_epochs_in_place_of_steps_tell_the_schedule_how_many_there_are(tmp_path):
    """100 and 300 examples in steps of 40: 10 steps an epoch; with `annealed` the exponent falls from 1 to 0.2."""
    many = [Task(TaskConfig(name, "siamese", "cosent"), task(count=n).train) for name, n in (("a", 100), ("b", 300))]
    config = FitterConfig(batch_size=40, schedule="annealed")
    schedule = trainer_on(tmp_path, many, config, max_steps=-1, num_train_epochs=3).schedule
    assert (schedule.epochs, schedule.sizes_at(0)) == (3, (10, 30))
    schedule.start_epoch(2, 20)
    share = 100**0.2 / (100**0.2 + 300**0.2)  # 0.445
    assert schedule.sizes_at(20) == (round(40 * share), 40 - round(40 * share)) == (18, 22)
