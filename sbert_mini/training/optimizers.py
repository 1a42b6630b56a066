"""The optimizer of a training run: parameter groups, and which optimizer steps them."""

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainingArguments
from torch import nn

from sbert_mini.encoder.bert import MiniBert
from sbert_mini.errors import UsageError
from sbert_mini.training import processes
from sbert_mini.training.adamw import AdamW
from sbert_mini.training.config import FitterConfig
from sbert_mini.training.rates import parameter_groups


def make_optimizer(
    config: FitterConfig,
    args: SentenceTransformerTrainingArguments,
    model: nn.Module,
    heads: Iterable[nn.Module],
    encoder: MiniBert,
) -> torch.optim.Optimizer:
    """Return the optimizer of the parameters that are trained: the model's and the heads', each with and without decay.

    Biases and LayerNorm have no decay. Word embeddings get sparse gradients where the optimizer can step single rows.

    Args:
        config: the fitter's settings.
        args: learning rate, decays and epsilon.
        model: the encoder, with pooling.
        heads: the tasks' objectives.
        encoder: the encoder of `model`.

    Raises:
        UsageError: nothing is trained.
    """
    head_rate = args.learning_rate if config.head_learning_rate is None else config.head_learning_rate
    modules = [(model, args.learning_rate, config.layer_decay), *((head, head_rate, 1.0) for head in heads)]
    groups: list[dict[str, Any]] = []
    for module, rate, decay in modules:
        named = [(key, p) for key, p in module.named_parameters() if p.requires_grad]
        groups += parameter_groups(named, rate, decay, args.weight_decay, encoder.config.num_hidden_layers)
    if not groups:
        raise UsageError("nothing is trained: the encoder is frozen, and no task has a head with weights")
    betas, epsilon = (args.adam_beta1, args.adam_beta2), args.adam_epsilon
    if config.optimizer == "torch-adamw":
        return torch.optim.AdamW(groups, lr=args.learning_rate, fused=True, betas=betas, eps=epsilon)
    decoupled = config.optimizer == "adamw"
    words = encoder.embeddings.word_embeddings
    words.sparse = (
        words.weight.requires_grad
        and processes.count() == 1  # rows that each process touched for itself would have to be exchanged
        and (decoupled or not args.weight_decay)
    )
    return AdamW(groups, lr=args.learning_rate, decoupled=decoupled, betas=betas, eps=epsilon, fused=True)
