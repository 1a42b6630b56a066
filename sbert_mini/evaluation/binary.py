"""Scores of rows that are 0 or 1: thresholds chosen on other rows, precision at a recall, histograms, figures by class."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sbert_mini.shapes import AnyArray

FOLDS = 5
RECALLS = (0.5, 0.7, 0.8, 0.9, 0.95)
BINS = 24
"""Ranges of a histogram of scores."""


def folds(gold: AnyArray, seed: int = 0) -> AnyArray:
    """Return the fold of each row, 0 to `FOLDS` - 1; every class is shared among the folds. Shapes: gold, result (rows,)."""
    rng, fold = np.random.default_rng(seed), np.zeros(len(gold), np.int64)
    begun = 0
    for value in np.unique(gold):
        rows = rng.permutation(np.flatnonzero(gold == value))
        fold[rows] = (begun + np.arange(len(rows))) % FOLDS
        begun += len(rows)
    return fold


def best_threshold(gold: AnyArray, scores: AnyArray, metric: str = "accuracy") -> float:
    """Return the threshold at and above which rows count as 1 that gives the best accuracy, or the best macro F1.

    Args:
        gold: 0 or 1.
        scores: the scores.
        metric: `accuracy` or `macro_f1`.

    Shapes: each (rows,).
    """
    order = np.argsort(-scores, kind="stable")
    ordered, positive = scores[order], np.asarray(gold, np.float64)[order]
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    named = np.concatenate([[0], ends + 1])  # how many rows count as 1
    right = np.concatenate([[0.0], np.cumsum(positive)[ends]])
    total, all_rows = positive.sum(), len(ordered)
    missed = all_rows - total - (named - right)  # 0, and counted as 0
    if metric == "macro_f1":
        value = right / np.maximum(named + total, 1) + missed / np.maximum(2 * all_rows - named - total, 1)
    else:
        value = right + missed
    count = int(named[np.argmax(value)])
    if count == 0:
        return float(np.nextafter(ordered[0], np.inf))
    return float((ordered[count - 1] + ordered[count]) / 2 if count < all_rows else ordered[-1])


def cross_fitted(gold: AnyArray, scores: AnyArray, metric: str = "accuracy") -> AnyArray:
    """Return 0 or 1 for each row, by the best threshold of the rows in other folds. Shapes: each (rows,)."""
    fold, named = folds(gold), np.zeros(len(gold), np.int64)
    for number in range(FOLDS):
        here = fold == number
        if here.any() and not here.all():
            named[here] = scores[here] >= best_threshold(gold[~here], scores[~here], metric)
    return named


def precision_at_recall(gold: AnyArray, scores: AnyArray) -> list[dict[str, float]]:
    """Return, for some recalls, the highest threshold that reaches it, and the precision there. Shapes: each (rows,)."""
    order = np.argsort(-scores, kind="stable")
    ordered, right = scores[order], np.cumsum(np.asarray(gold, np.float64)[order])
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    found = []
    for recall in RECALLS if right[-1] else ():
        end = ends[np.searchsorted(right[ends], recall * right[-1] - 1e-9)]
        found.append({"recall": recall, "threshold": float(ordered[end]), "precision": float(right[end] / (end + 1))})
    return found


def histogram(labels: Sequence[str], scores: AnyArray) -> dict[str, Any]:
    """Return how many rows of each label have which scores.

    Args:
        labels: of each row.
        scores: (rows,).

    Returns:
        `edges` of `BINS` equal ranges from the lowest score to the highest, and `counts`: label -> rows in each range.
    """
    low, high = float(scores.min()), float(scores.max())
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    truth = np.asarray(labels)
    counts = {label: np.histogram(scores[truth == label], edges)[0].tolist() for label in sorted(set(labels))}
    return {"edges": [round(float(edge), 6) for edge in edges], "counts": counts}


def by_class(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return each label's precision, recall, F1 and support (rows that have it), as scikit-learn computes them."""
    truth, named = np.asarray(gold), np.asarray(predicted)
    found = []
    for label in labels:
        right = int(((truth == label) & (named == label)).sum())
        there, said = int((truth == label).sum()), int((named == label).sum())
        found.append(
            {
                "label": label,
                "precision": right / said if said else 0.0,
                "recall": right / there if there else 0.0,
                "f1": 2 * right / (said + there) if said + there else 0.0,
                "support": there,
            }
        )
    return found
