"""Small models and trainers: one layer of 32 dimensions, a few rows."""

import numpy as np
import torch
from conftest import tiny_model
from sentence_transformers import SentenceTransformerTrainingArguments

from sbert_mini.encoder.module import load
from sbert_mini.training.config import FitterConfig
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
