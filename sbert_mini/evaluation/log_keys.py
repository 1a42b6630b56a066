"""The keys of a training log: what writes them, and what reads them, takes them from here. No torch."""

from collections.abc import Mapping, Sequence
from typing import Any

EVAL, TRAIN, MEAN = "eval_", "train_", "mean"
"""Before each figure of an evaluation; after it, before those of training rows; the mean over the tasks."""
EVAL_MEAN = EVAL + MEAN
"""The key that a line of the log has if, and only if, it tells an evaluation."""
LOSS, MARGIN, EXAMPLES = "loss_", "margin_", "examples_"
NORM, WEIGHT, COSINE, CONFLICT, DEPTH = "grad_norm_", "weight_", "cosine_", "conflict_", "_depth_"


def figures_in(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of a line that tells an evaluation, by `<task>_<metric>`, those of training rows included."""
    return {key.removeprefix(EVAL): value for key, value in line.items() if key.startswith(EVAL)}


def dev_figures(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return an evaluation's figures of dev rows, by name, the mean last."""
    names = sorted((name for name in figures if not name.startswith(TRAIN)), key=lambda name: (name == MEAN, name))
    return {name: figures[name] for name in names}


def by_depth(pair: str, depth: int | str) -> str:
    """Return the key of the cosine of two tasks' gradients, `a/b`, in one depth of the encoder."""
    return f"{COSINE}{pair}{DEPTH}{depth}"


def pairs_in(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Return the pairs of tasks whose gradients a log compares, as `a/b`, and the depths of each.

    Args:
        lines: of the log; None for a key is no value.
    """
    keys = sorted({key for line in lines for key, value in line.items() if value is not None})
    pairs = [key.removeprefix(CONFLICT) for key in keys if key.startswith(CONFLICT)]
    starts = {pair: by_depth(pair, "") for pair in pairs}
    return {
        pair: sorted(int(key.removeprefix(start)) for key in keys if key.startswith(start))
        for pair, start in starts.items()
    }
