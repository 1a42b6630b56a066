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
}
"""Loss -> the structures that it is for."""
RANKING = ("multiple-negatives-ranking", "cached-multiple-negatives-ranking")
SIMILARITY = ("cosine-embedding", "cosine-mse", "cosent", "angle")
LORA_TARGETS = ("query", "key", "value", "dense")
"""The encoder's matrices that LoRA can update, by the last part of their names."""
METRICS = ("accuracy", "macro_f1", "pearson", "spearman")


def metrics_of(loss: str) -> tuple[str, ...]:
    """Return the dev figures that a task of this loss has, the main one first."""
    if loss == "cross-entropy":
        return ("accuracy", "macro_f1")
    return ("accuracy",) if loss in (*RANKING, "triplet") else ("pearson", "spearman")


def are_shares(values: Sequence[float]) -> bool:
    """Return whether numbers are above 0 and, to a thousandth, 1 together."""
    return all(value > 0 for value in values) and abs(sum(values) - 1) <= 1e-3
