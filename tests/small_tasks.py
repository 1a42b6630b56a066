"""Small models, tasks and trainers: a few rows of known words."""

import numpy as np
import torch
from conftest import tiny_model
from sentence_transformers import SentenceTransformerTrainingArguments

from sbert_mini.encoder.module import load
from sbert_mini.training.config import FitterConfig
from sbert_mini.training.examples import Examples
from sbert_mini.training.losses import HardNegativeMargin
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task
from sbert_mini.training.trainer import MultiTaskTrainer

WORDS = ["the", "cat", "dog", "runs", "sleeps", "red", "blue", "house", "tree", "bread", "dough", "rises"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def sentences(count, seed):
    """Return some sentences of known words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(2, 9))) for _ in range(count)]


def small_model(folder, seed=2):
    """Return a model without dropout, ready to train, from a directory that is written where it is absent."""
    if not folder.exists():
        folder.mkdir(parents=True)
        tiny_model(folder, seed=seed, **SIZES, **NO_DROPOUT)
    return load(folder, device="cpu")


def trainer_on(folder, tasks, config=None, *, callbacks=(), **options):
    """Return a trainer of some tasks on a small model; the same arguments give the same weights."""
    settings = {
        "output_dir": str(folder / "run"), "max_steps": 4, "learning_rate": 1e-3, "logging_steps": 1, "save_strategy": "no",
        "report_to": "none", "disable_tqdm": True, "use_cpu": True, "seed": 3, **options,
    }  # fmt: skip
    model = small_model(folder / "start")
    torch.manual_seed(0)  # the heads
    args = SentenceTransformerTrainingArguments(**settings)
    return MultiTaskTrainer(model, args, tasks, config or FitterConfig(batch_size=8), callbacks=list(callbacks))


def one_step(trainer, batch=None):
    """Back-propagate one batch, as the trainer's loop does; return the loss."""
    loader = trainer.get_train_dataloader()
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1
    trainer.accelerator.gradient_state._set_sync_gradients(True)
    return trainer.training_step(trainer.model, batch or next(iter(loader)))


def tasks(count=40, dev=12, joined="pair", **margin):
    single = Examples(tuple((s,) for s in sentences(count, 1)), tuple(str(i % 3) for i in range(count)))
    pairs = tuple(zip(sentences(count, 2), sentences(count, 3), strict=True))
    more = tuple(zip(sentences(dev, 4), sentences(dev, 5), strict=True))
    grades, dev_grades = (tuple(float(i % 6) for i in range(n)) for n in (count, dev))
    return [
        Task(
            TaskConfig("mood", "single", "cross-entropy", head_dropout=0.0),
            single,
            Examples(tuple((s,) for s in sentences(dev, 6)), tuple(str(i % 3) for i in range(dev))),
        ),
        Task(
            TaskConfig("same", joined, "cross-entropy", head_dropout=0.0),
            Examples(pairs, tuple(str(i % 2) for i in range(count))),
        ),
        Task(
            TaskConfig("sts", "siamese", "cosine-embedding", high=5.0),
            Examples(pairs, grades),
            Examples(more, dev_grades),
            HardNegativeMargin(**margin) if margin else None,
        ),
    ]


def arguments(folder, **options):
    settings = {
        "output_dir": str(folder), "max_steps": 6, "learning_rate": 1e-3, "logging_steps": 1, "save_strategy": "no",
        "report_to": "none", "disable_tqdm": True, "use_cpu": True, "seed": 3, **options,
    }  # fmt: skip
    return SentenceTransformerTrainingArguments(**settings)


def model_of(make_model, *, dropout=0.0, seed=2):
    path = make_model(seed=seed, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    return load(path, device="cpu")


def weights_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
