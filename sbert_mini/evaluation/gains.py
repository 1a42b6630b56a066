"""A trained model beside the model that its training started from, on the same rows: figures, intervals, and a verdict.

Every figure is a function of weights of the rows, so that one draw of the bootstrap is a row of counts. All figures of a task, of
both models, get the same draws; so do tasks with equally many rows, which may be the same rows.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from sbert_mini.evaluation.significance import Interval, interval, two_sided_p
from sbert_mini.shapes import AnyArray

Figure: TypeAlias = Callable[[AnyArray], AnyArray]
"""Weights (draws, rows) -> a figure a draw, (draws,); NaN where it is not defined."""
Verdict: TypeAlias = Literal["better", "undecided", "worse", "undefined"]
RESAMPLES = 2000
_CHUNK = 2_000_000
_POWER = 1.96 + 0.84
"""Standard errors that a difference must have to be shown by 95 % intervals in 80 % of all samples."""
_MOST_ROWS = 1_000_000
_ROUNDING = 1e-5
"""A difference as small as this comes from rounding: equal weights may give vectors that differ in their last bits."""
FIGURES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "average_precision": "average precision",
    "calibration_error": "calibration error",
    "recall_at_5": "recall@5",
    "recall_at_10": "recall@10",
    "mrr": "MRR",
}
"""Figure -> how it is called."""


@dataclass(frozen=True)
class Gain:
    """One figure of two models.

    Attributes:
        start: of the starting model; None where it is not defined.
        trained: of the trained model.
        difference: `trained - start`.
        interval: the 95 % interval of the difference, by the paired bootstrap over rows.
        error: the standard deviation of the difference over the draws.
        p: two-sided p value (`significance.two_sided_p`).
    """

    start: float | None
    trained: float | None
    difference: float | None
    interval: Interval | None
    error: float | None
    p: float | None

    @property
    def verdict(self) -> Verdict:
        """What the interval says of the difference."""
        if self.difference is None or self.interval is None:
            return "undefined"
        low, high = self.interval
        return "better" if low > _ROUNDING else "worse" if high < -_ROUNDING else "undecided"


@dataclass(frozen=True)
class TaskGain:
    """A task's figures of two models.

    Attributes:
        task: its name.
        metric: the figure that counts.
        rows: dev rows.
        start_is: how the starting model answers the task, in words.
        gains: figure -> its gain.
        details: what has no intervals: `most_wrong`, `classes`, `precision_at_recall` and `histograms` (`training.answers`).
    """

    task: str
    metric: str
    rows: int
    start_is: str
    gains: Mapping[str, Gain]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """A trained model beside its start.

    Attributes:
        start: the starting model's name.
        tasks: each task's figures.
        mean: of the tasks' main figures, a correlation r counted as (r + 1) / 2; of one task its main figure as it is.
        verdict: what the mean's interval says.
        text: the verdict in words.
        warnings: tasks that are significantly worse, in words.
    """

    start: str
    tasks: tuple[TaskGain, ...]
    mean: Gain
    verdict: Verdict
    text: str
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)


def share_correct(hits: AnyArray) -> Figure:
    """Return the weighted mean of values of rows as a figure; rows with NaN are left out. Shapes: hits (rows,)."""
    hits = np.asarray(hits, np.float64)
    known = np.isfinite(hits).astype(np.float64)
    values = np.nan_to_num(hits)

    def figure(weights: AnyArray) -> AnyArray:
        count = weights @ known
        return np.divide(weights @ values, count, out=np.full(len(weights), np.nan), where=count > 0)

    return figure


def macro_f1(gold: AnyArray, predicted: AnyArray) -> Figure:
    """Return the mean F1 over the labels that a draw holds, as scikit-learn computes it. Shapes: each (rows,)."""
    labels = np.unique(np.concatenate([gold, predicted]))
    there, named = ((side[:, None] == labels[None, :]).astype(np.float64) for side in (gold, predicted))
    right = there * named

    def figure(weights: AnyArray) -> AnyArray:
        both = weights @ named + weights @ there  # (draws, labels)
        f1 = np.divide(2 * (weights @ right), both, out=np.zeros_like(both), where=both > 0)
        return np.asarray(f1.sum(axis=1) / (both > 0).sum(axis=1))

    return figure


def average_precision(gold: AnyArray, scores: AnyArray) -> Figure:
    """Return the average precision of scores for rows that are 1 among rows that are 0, as scikit-learn computes it.

    Shapes: each (rows,).
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # equal scores are one threshold
    positive = np.asarray(gold, np.float64)[order]

    def figure(weights: AnyArray) -> AnyArray:
        drawn = weights[:, order]
        right = np.cumsum(drawn * positive, axis=1)[:, ends]
        named = np.cumsum(drawn, axis=1)[:, ends]
        precision = np.divide(right, named, out=np.zeros_like(right), where=named > 0)
        all_right = right[:, -1]
        sums = (np.diff(right, axis=1, prepend=0.0) * precision).sum(axis=1)
        return np.divide(sums, all_right, out=np.full(len(weights), np.nan), where=all_right > 0)

    return figure


def pearson(gold: AnyArray, predicted: AnyArray) -> Figure:
    """Return Pearson's correlation as a figure. Shapes: each (rows,)."""
    x, y = np.asarray(predicted, np.float64)[None, :], np.asarray(gold, np.float64)[None, :]
    return lambda weights: _correlation(weights, x, y)


def spearman(gold: AnyArray, predicted: AnyArray) -> Figure:
    """Return Spearman's correlation, ranks taken anew in each draw. Shapes: each (rows,)."""
    return lambda weights: _correlation(weights, _ranks(weights, predicted), _ranks(weights, gold))


def _ranks(weights: AnyArray, values: AnyArray) -> AnyArray:
    """Return the average ranks of values that occur as often as the weights say. Shapes: (draws, rows)."""
    distinct, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(len(distinct)))
    counts = np.add.reduceat(weights[:, order], starts, axis=1)  # (draws, distinct values)
    return np.asarray((np.cumsum(counts, axis=1) - (counts - 1) / 2)[:, group])


def _correlation(weights: AnyArray, x: AnyArray, y: AnyArray) -> AnyArray:
    total = weights.sum(axis=1, keepdims=True)
    x = x - (weights * x).sum(axis=1, keepdims=True) / total
    y = y - (weights * y).sum(axis=1, keepdims=True) / total
    spread = [(weights * z * z).sum(axis=1) for z in (x, y)]
    scale = np.sqrt(spread[0] * spread[1])
    varied = (spread[0] > 1e-12 * total[:, 0]) & (spread[1] > 1e-12 * total[:, 0])
    return np.divide((weights * x * y).sum(axis=1), scale, out=np.full(len(scale), np.nan), where=varied)


def calibration_error(hits: AnyArray, confidence: AnyArray, bins: int = 10) -> Figure:
    """Return the expected calibration error: how far the share that is right lies from the confidence, over bins of confidence.

    Shapes: hits, confidence (rows,). Source: Guo et al. 2017 (arXiv 1706.04599), equation 3.
    """
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.zeros((len(hits), bins))
    gaps[np.arange(len(hits)), number] = np.asarray(hits, np.float64) - confidence
    return lambda weights: np.asarray(np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1))


def draws(rows: int, resamples: int, seed: int) -> Iterator[AnyArray]:
    """Yield weights of the bootstrap by blocks, (draws, rows): how often each row is drawn."""
    rng = np.random.default_rng(seed)
    step = max(_CHUNK // rows, 1)
    for start in range(0, resamples, step):
        yield rng.multinomial(rows, np.full(rows, 1 / rows), min(step, resamples - start)).astype(np.float64)


def measure(
    figures: Mapping[str, tuple[Figure, Figure]], rows: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[dict[str, Gain], dict[str, AnyArray]]:
    """Return the gain of each figure, and its differences over the draws, (resamples,).

    Args:
        figures: figure -> that of the starting model and that of the trained one.
        rows: that the figures are taken on, at least 1.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    whole = np.ones((1, rows))
    drawn: dict[str, list[AnyArray]] = {name: [] for name in figures}
    for weights in draws(rows, resamples, seed):
        for name, (start, trained) in figures.items():
            drawn[name].append(trained(weights) - start(weights))
    differences = {name: np.concatenate(parts) for name, parts in drawn.items()}
    points = {name: [float(figure(whole)[0]) for figure in both] for name, both in figures.items()}
    return {name: gain_of(start, trained, differences[name]) for name, (start, trained) in points.items()}, differences


def gain_of(start: float, trained: float, differences: AnyArray) -> Gain:
    """Return a gain; NaN is a figure that is not defined. Shapes: differences (draws,)."""
    known = [None if math.isnan(value) else value for value in (start, trained)]
    finite = differences[np.isfinite(differences)]
    bounds = interval(differences) if None not in known else None
    if bounds is None:
        return Gain(known[0], known[1], None, None, None, None)
    return Gain(start, trained, trained - start, bounds, float(np.std(finite)), two_sided_p(finite))


def compare(
    start: str, measured: Sequence[tuple[TaskGain, AnyArray]], as_share: Callable[[str, float], float]
) -> Comparison:
    """Return the comparison of all tasks.

    Args:
        start: the starting model's name.
        measured: each task's gains, and the differences of its main figure over the draws, (draws,).
        as_share: metric, figure -> the figure on the scale [0, 1].
    """
    defined = [(t, d) for t, d in measured if t.metric in t.gains and t.gains[t.metric].verdict != "undefined"]
    tasks = tuple(task for task, _ in measured)
    if not defined:
        nothing = Gain(None, None, None, None, None, None)
        return Comparison(
            start, tasks, nothing, "undefined", "no figure is defined that both models could be compared by"
        )
    if len(defined) == 1:
        mean, what = defined[0][0].gains[defined[0][0].metric], f"points of {FIGURES[defined[0][0].metric]}"
    else:
        scales = [as_share(t.metric, 1.0) - as_share(t.metric, 0.0) for t, _ in defined]
        both = [
            [as_share(t.metric, getattr(t.gains[t.metric], which) or 0.0) for t, _ in defined]
            for which in ("start", "trained")
        ]
        differences = np.mean([s * d for s, (_, d) in zip(scales, defined, strict=True)], axis=0)
        mean = gain_of(float(np.mean(both[0])), float(np.mean(both[1])), differences)
        what = f"points of the mean of {len(defined)} tasks"
    rows = sum(task.rows for task, _ in defined)
    warnings = tuple(
        f"the task {t.task} is worse than the start by {_range(t.gains[t.metric].interval)} points of {FIGURES[t.metric]} (95 %)"
        for t, _ in defined
        if t.gains[t.metric].verdict == "worse"
    )
    return Comparison(
        start, tasks, mean, mean.verdict, in_words(mean, rows, what), warnings if len(defined) > 1 else ()
    )


def in_words(gain: Gain, rows: int, what: str) -> str:
    """Return what a gain says, in words.

    Args:
        gain: the gain.
        rows: that it was measured on.
        what: what its points are, such as `points of accuracy`.
    """
    verdict = gain.verdict
    if verdict == "undefined":
        return "no figure is defined that both models could be compared by"
    if verdict != "undecided":
        return f"{verdict} than the start by {_range(gain.interval)} {what} (95 %)"
    assert gain.difference is not None and gain.error is not None  # noqa: S101, PT018
    text = f"no difference that {rows:,} rows can show ({100 * gain.difference:+.1f} {what}"
    needed = rows_needed(gain.difference, gain.error, rows)
    return f"{text}; about {needed:,} rows could)" if needed else f"{text})"


def rows_needed(difference: float, error: float, rows: int) -> int | None:
    """Return how many rows show a difference as large as this one, at 95 % with a power of 80 %; None for over a million.

    Args:
        difference: as measured.
        error: its standard error.
        rows: that it was measured on.
    """
    if abs(difference) <= _ROUNDING or abs(difference) * math.sqrt(_MOST_ROWS) <= _POWER * error * math.sqrt(rows):
        return None
    needed = max(rows * (_POWER * error / abs(difference)) ** 2, rows + 1)
    digits = 10 ** max(math.floor(math.log10(needed)) - 1, 0)
    return math.ceil(needed / digits) * digits


def _range(bounds: Interval | None) -> str:
    assert bounds is not None  # noqa: S101
    low, high = sorted(abs(100 * bound) for bound in bounds)
    return f"{low:.1f} to {high:.1f}"
