"""The bootstrap: intervals of means, and whether two methods that are measured on the same queries differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np

from sbert_mini.shapes import AnyArray

Interval: TypeAlias = tuple[float, float]
_CHUNK = 4_000_000
"""Counts that are drawn together."""


@dataclass(frozen=True)
class Comparison:
    """Two methods on the same queries.

    Attributes:
        first, second: the methods.
        difference: the mean of `first` minus that of `second`.
        interval: the bootstrap 95 % interval of the difference.
        p: two-sided p value of the paired bootstrap (`two_sided_p`).
    """

    first: str
    second: str
    difference: float
    interval: Interval
    p: float


def interval(values: AnyArray) -> Interval | None:
    """Return the 2.5 and 97.5 percentiles of resampled figures; None where fewer than half of the draws are defined."""
    values = values[np.isfinite(values)] if np.isfinite(values).mean() >= 0.5 else values[:0]
    return (float(np.percentile(values, 2.5)), float(np.percentile(values, 97.5))) if len(values) else None


def two_sided_p(differences: AnyArray) -> float:
    """Return `min(1, 2 · min(P(d ≤ 0), P(d ≥ 0)))` over resampled differences, each count with 1 added.

    Source: Efron and Tibshirani 1993, section 15.4 (achieved significance level); the added 1: Davison and Hinkley 1997, 4.2.
    """
    n = len(differences)
    tails = (np.sum(differences <= 0) + 1) / (n + 1), (np.sum(differences >= 0) + 1) / (n + 1)
    return float(min(1.0, 2 * min(tails)))


def resampled_means(values: AnyArray, resamples: int, seed: int) -> AnyArray:
    """Return the means of rows of values over queries that are drawn with replacement, the same draws for each row.

    The draws depend on the seed and the number of queries alone.

    Shapes:
        values: (rows, queries); the result: (rows, resamples).

    Source: Efron and Tibshirani 1993, chapter 6.
    """
    queries = values.shape[1]
    rng = np.random.default_rng(seed)
    step = max(_CHUNK // queries, 1)
    means = [
        values @ rng.multinomial(queries, np.full(queries, 1 / queries), min(step, resamples - start)).T / queries
        for start in range(0, resamples, step)
    ]
    return np.concatenate(means, axis=1)


def compare(
    values_of: Mapping[str, Sequence[float]], *, resamples: int, seed: int
) -> tuple[dict[str, Interval], list[Comparison]]:
    """Return the interval of each method's mean, and a comparison of each two methods.

    Args:
        values_of: method -> its figure of each query, in one order of queries for all methods.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    values = np.array([list(of_queries) for of_queries in values_of.values()], dtype=np.float64)
    pairs = list(combinations(range(len(values)), 2))
    differences = [values[i] - values[j] for i, j in pairs]  # subtracted first: of equal methods each is exactly 0
    resampled = resampled_means(np.stack([*values, *differences]), resamples, seed)
    bounds = [_bounds(row) for row in resampled]
    names = list(values_of)
    comparisons = [
        Comparison(
            names[i],
            names[j],
            float(differences[pair].mean()),
            bounds[len(names) + pair],
            two_sided_p(resampled[len(names) + pair]),
        )
        for pair, (i, j) in enumerate(pairs)
    ]
    return dict(zip(names, bounds, strict=False)), comparisons


def _bounds(resampled: AnyArray) -> Interval:
    bounds = interval(resampled)
    assert bounds is not None  # noqa: S101  # means are always defined
    return bounds
