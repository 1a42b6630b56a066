"""Which network structures, losses and dev figures there are, and which of them go together. No torch."""

from collections.abc import Sequence

STRUCTURES = {"single": 1, "siamese": 2, "triplet": 3, "pair": 2}
"""Structure -> texts a row."""
LOSSES: dict[str, tuple[str, ...]] = {
    "cross-entropy": ("single", "siamese", "pair"),
    "regression": ("siamese", "pair"),
    "cosine-embedding": ("siamese",),
    "cosine-mse": ("siamese",),
    "cosent": ("siamese",),
    "angle": ("siamese",),
    "multiple-negatives-ranking": ("siamese", "triplet", "single"),
    "cached-multiple-negatives-ranking": ("siamese", "triplet", "single"),
    "triplet": ("triplet",),
    "distillation": ("single",),
}
"""Loss -> the structures that it is for."""
RANKING = ("multiple-negatives-ranking", "cached-multiple-negatives-ranking")
SIMILARITY = ("cosine-embedding", "cosine-mse", "cosent", "angle")
NESTED = ("multiple-negatives-ranking", "triplet", "cosine-mse", "cosent", "angle", "distillation")
"""Losses that can also be taken of the vectors' beginnings (`dimensions`)."""
LORA_TARGETS = ("query", "key", "value", "dense")
"""The encoder's matrices that LoRA can update, by the last part of their names."""
METRICS = ("accuracy", "macro_f1", "pearson", "spearman")


def metrics_of(loss: str) -> tuple[str, ...]:
    """Return the dev figures that a task of this loss has, the main one first."""
    if loss == "cross-entropy":
        return ("accuracy", "macro_f1")
    if loss == "distillation":
        return ()
    return ("accuracy",) if loss in (*RANKING, "triplet") else ("pearson", "spearman")


def is_graded(loss: str) -> bool:
    """Return whether the labels of a task of this loss are scores."""
    return loss != "cross-entropy"


def needs_label(loss: str) -> bool:
    """Return whether a task of this loss needs a label a row."""
    return loss not in (*RANKING, "triplet", "distillation")


def has_dev_figure(structure: str, loss: str) -> bool:
    """Return whether a dev figure can be taken: single texts under a ranking loss have none, nor has distillation."""
    return bool(metrics_of(loss)) and not (structure == "single" and loss in RANKING)


def are_shares(values: Sequence[float]) -> bool:
    """Return whether numbers are above 0 and, to a thousandth, 1 together."""
    return all(value > 0 for value in values) and abs(sum(values) - 1) <= 1e-3
