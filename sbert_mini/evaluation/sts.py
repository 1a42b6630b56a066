"""Semantic textual similarity: how well cosines order pairs, with intervals, and whether two models differ.

**How a set of several subsets becomes one figure** (`pooling`): `all` joins the pairs of all subsets and takes one
correlation, as MTEB and SimCSE do; `mean` takes a subset's correlation each and averages them; `wmean` weighs them by pairs.
The three give different figures (Gao et al. 2021, arXiv 2104.08821, appendix B): compare only what was pooled alike.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from sbert_mini.cosine import TOLERANCE, as_cosines
from sbert_mini.errors import InputError, UsageError
from sbert_mini.evaluation.choices import POOLINGS, Pooling
from sbert_mini.evaluation.contestants import Contestant
from sbert_mini.evaluation.measure import silent
from sbert_mini.evaluation.sets import SEVEN, PairSet
from sbert_mini.evaluation.significance import Interval, interval, two_sided_p
from sbert_mini.shapes import AnyArray

_CHUNK = 2_000_000
"""Resampled values that are ranked together."""


@dataclass(frozen=True)
class SetScore:
    """How one model did on one set. Correlations are x 100, in [-100, 100].

    Attributes:
        set: the set's name.
        n: pairs.
        spearman: Spearman's rank correlation of cosine and gold score; None where it is not defined (all cosines or all gold
            scores are equal, or fewer than two pairs).
        pearson: Pearson's correlation of the same.
        spearman_interval: bootstrap 95 % interval of it, over pairs.
        pearson_interval: the same for Pearson's.
        pooling: how subsets became one figure.
        subsets: of each subset, its pairs, Spearman and Pearson; empty where the set has none.
        trained_on: why the model counts as trained on the set, in its card's words; empty where it does not. Such a set is
            left out of the model's mean.
        undefined: why the correlations are not defined; empty where they are. Such a set is left out of the model's mean.
        left_out: subsets that cannot be measured (all gold scores are equal, or one pair), and are left out of a `pooling` by
            subset.
    """

    set: str
    n: int
    spearman: float | None
    pearson: float | None
    spearman_interval: Interval | None
    pearson_interval: Interval | None
    pooling: str = "all"
    subsets: Mapping[str, Mapping[str, float | int | None]] = field(default_factory=dict)
    trained_on: str = ""
    undefined: str = ""
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelScore:
    """How one model did on all sets.

    Attributes:
        model: its name.
        runtime: what ran it: `int8`, `fp32`, `torch` or `sentence-transformers`.
        sets: its figures, a set each.
        mean: of the Spearman correlations (x 100) of `mean_of`; None where none is defined.
        mean_interval: bootstrap 95 % interval of the mean.
        mean_of: the sets that the mean is over: those of the seven usual tasks that are there (where none is, every set
            measured), without those that the model was trained on.
        is_mean_of_seven: whether those are all seven usual tasks.
        truncated: sentences longer than the model reads, which were cut.
    """

    model: str
    runtime: str
    sets: tuple[SetScore, ...]
    mean: float | None
    mean_interval: Interval | None
    mean_of: tuple[str, ...]
    is_mean_of_seven: bool
    truncated: int = 0


@dataclass(frozen=True)
class Difference:
    """Model a against model b on the same pairs: paired bootstrap over pairs.

    Attributes:
        set: the set, or `mean` for the mean over the sets that count for both models.
        difference: Spearman x 100 of a minus that of b.
        interval: bootstrap 95 % interval of it; None where no draw is defined.
        p: two-sided; not corrected for comparing several models on several sets; None where the interval is.
    """

    set: str
    difference: float
    interval: Interval | None
    p: float | None


@dataclass(frozen=True)
class Comparison:
    """Two models side by side: `a` and `b` are their names with their runtimes."""

    a: str
    b: str
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class StsResult:
    """What `sbmini bench sts` measures.

    Attributes:
        models: each model's figures.
        comparisons: each pair of models.
        absent: the sets that were asked for and are not there.
        unscored: pairs without a gold score that were left out, of each set that has any.
        resamples: of the bootstrap.
        similarities: model label -> set -> the cosines, for scatter plots; not part of the JSON.
        gold: set -> the gold scores; not part of the JSON.
    """

    models: tuple[ModelScore, ...]
    comparisons: tuple[Comparison, ...]
    absent: tuple[str, ...]
    unscored: Mapping[str, int]
    resamples: int
    similarities: Mapping[str, Mapping[str, AnyArray]] = field(default_factory=dict, repr=False)
    gold: Mapping[str, AnyArray] = field(default_factory=dict, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON holds it, without the cosines."""
        return asdict(replace(self, similarities={}, gold={}), dict_factory=_without_arrays)


def _without_arrays(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in items if key not in ("similarities", "gold")}


def spearman(x: AnyArray, y: AnyArray) -> float | None:
    """Return Spearman's rank correlation, ties ranked by their average; None where it is not defined.

    Shapes: x, y: (pairs,). Source: Spearman 1904; `scipy.stats.spearmanr`.
    """
    from scipy.stats import rankdata

    return pearson(rankdata(x), rankdata(y))


def pearson(x: AnyArray, y: AnyArray) -> float | None:
    """Return Pearson's correlation; None where it is not defined: fewer than two pairs, or one side constant.

    Shapes: x, y: (pairs,). Source: `scipy.stats.pearsonr`.
    """
    from scipy.stats import pearsonr

    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise UsageError(f"two arrays of one shape (pairs,) are needed; found {x.shape} and {y.shape}")
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(pearsonr(x, y).statistic)


def cosines(first: AnyArray, second: AnyArray) -> AnyArray:
    """Return the cosine of each pair of rows; 0 where a vector is 0. Shapes: both (pairs, dim); the result (pairs,)."""
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    dots = np.sum(first.astype(np.float64) * second, axis=1)
    return as_cosines(np.asarray(np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0), np.float64))


def without_rounding(values: AnyArray) -> AnyArray:
    """Return predictions as float64; all equal where they differ by `cosine.TOLERANCE` at most, so that they have no order.

    Shapes: values (pairs,); the result (pairs,).
    """
    values = np.asarray(values, np.float64)
    return np.full_like(values, values[0]) if len(values) and np.ptp(values) <= TOLERANCE else values


def unmeasurable(gold: AnyArray, subsets: Sequence[str], by: Pooling) -> tuple[str, ...]:
    """Return the subsets that no model has a correlation on: one pair, or equal gold scores. None where subsets are joined.

    Shapes: gold: (pairs,).
    """
    if by == "all":
        return ()
    labels = np.asarray(subsets)
    return tuple(name for name in sorted(set(subsets)) if np.ptp(gold[labels == name]) == 0)


def _why_undefined(x: AnyArray, y: AnyArray, subsets: Sequence[str], by: Pooling) -> str:
    """Return why there is no correlation of the cosines x and the gold scores y; empty where there is one."""
    labels = np.asarray(subsets)
    for group, _ in groups_of(subsets, by):
        named = f" of {labels[group[0]]}" if by != "all" and labels[group[0]] else ""
        if len(group) < 2:
            return f"one pair{named} has no order"
        if np.ptp(y[group]) == 0:
            return f"all gold scores{named} are {y[group[0]]:g}"
        if np.ptp(x[group]) == 0:
            return f"the model gives all pairs{named} the same cosine"
    return ""


def groups_of(subsets: Sequence[str], pooling: Pooling) -> list[tuple[AnyArray, float]]:
    """Return the groups of pairs that are correlated by themselves, as (positions, weight); weights sum to 1."""
    if pooling not in POOLINGS:
        raise UsageError(f"pooling must be one of {', '.join(POOLINGS)}; found {pooling!r}")
    labels = np.asarray(subsets)
    if pooling == "all":
        return [(np.arange(len(labels)), 1.0)]
    names = sorted(set(subsets))
    positions = [np.flatnonzero(labels == name) for name in names]
    weights = [len(p) / len(labels) if pooling == "wmean" else 1 / len(names) for p in positions]
    return list(zip(positions, weights, strict=True))


def pooled(
    correlation: Callable[[AnyArray, AnyArray], float | None],
    x: AnyArray,
    y: AnyArray,
    subsets: Sequence[str],
    by: Pooling,
) -> float | None:
    """Return the groups' correlations, averaged by their weights; None where one of them is not defined."""
    correlations = [(correlation(x[group], y[group]), weight) for group, weight in groups_of(subsets, by)]
    if any(value is None for value, _ in correlations):
        return None
    return sum(value * weight for value, weight in correlations if value is not None)


def bootstrap(
    gold: AnyArray, predictions: AnyArray, subsets: Sequence[str], by: Pooling, resamples: int, seed: int
) -> tuple[AnyArray, AnyArray]:
    """Return Spearman's and Pearson's correlation of each model on resampled pairs: `(spearman, pearson)`.

    Pairs are drawn with replacement within each group of `groups_of`; all models get the same draws. NaN where a draw is
    constant. Ranks are taken anew in each draw.

    Shapes:
        gold: (pairs,); predictions: (models, pairs); each result: (models, resamples).

    Source: Efron and Tibshirani 1993, chapter 6 (percentile interval: section 13.3).
    """
    from scipy.stats import rankdata

    rng = np.random.default_rng(seed)
    totals = np.zeros((2, len(predictions), resamples))
    for group, weight in groups_of(subsets, by):
        step = max(_CHUNK // max(len(group), 1), 1)
        for start in range(0, resamples, step):
            drawn = group[rng.integers(0, len(group), (min(step, resamples - start), len(group)))]
            stop = start + len(drawn)
            y = gold[drawn]  # (draws, pairs)
            y_ranks = rankdata(y, axis=1)
            for model, prediction in enumerate(predictions):
                x = prediction[drawn]
                totals[0, model, start:stop] += weight * _rows_correlation(rankdata(x, axis=1), y_ranks)
                totals[1, model, start:stop] += weight * _rows_correlation(x, y)
    return totals[0], totals[1]


def _rows_correlation(x: AnyArray, y: AnyArray) -> AnyArray:
    varied = (np.ptp(x, axis=1) > 0) & (np.ptp(y, axis=1) > 0)  # the mean of equal numbers may round to another one
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    scale = np.sqrt(np.sum(x * x, axis=1) * np.sum(y * y, axis=1))
    varied = (scale > 0) & varied
    return np.divide(np.sum(x * y, axis=1), scale, out=np.full(len(x), np.nan), where=varied)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _interval_percent(values: AnyArray) -> Interval | None:
    bounds = interval(values)
    return None if bounds is None else (100 * bounds[0], 100 * bounds[1])


def score(
    contestants: Sequence[Contestant],
    sets: Sequence[PairSet],
    *,
    pooling: Pooling = "all",
    resamples: int = 1000,
    seed: int = 0,
    absent: Sequence[str] = (),
    on_progress: Callable[[str], None] = silent,
) -> StsResult:
    """Return how well each model's cosines follow the gold scores of each set.

    Every model encodes the same sentences, each distinct one once.

    Args:
        contestants: the models.
        sets: the sets.
        pooling: how subsets become one figure; see the module.
        resamples: of the bootstrap; at least 100.
        seed: of the bootstrap.
        absent: sets that were asked for and are not there, for the record.
        on_progress: told what is being done.

    Raises:
        UsageError: there is no model or no set, two have one name, or there are too few resamples.
        InputError: a model gave vectors that are not finite.
    """
    if not contestants or not sets:
        raise UsageError("at least one model and one set are needed")
    if resamples < 100:
        raise UsageError(f"at least 100 resamples are needed for an interval; found {resamples}")
    for kind, names in (("model", [c.label for c in contestants]), ("set", [s.name for s in sets])):
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"the {kind} {repeated[0]} is there twice")
    similarities, truncated = _similarities(contestants, sets, on_progress)
    drawn: dict[str, AnyArray] = {}  # set -> Spearman, (models, resamples)
    scores: list[list[SetScore]] = []  # a list a set, of a score a model
    for number, pairs in enumerate(sets):
        on_progress(f"{pairs.name}: {resamples:,} bootstrap resamples")
        predictions = np.stack([similarities[contestant.label][pairs.name] for contestant in contestants])
        of_models, drawn[pairs.name] = _set_scores(pairs, contestants, predictions, pooling, resamples, seed + number)
        scores.append(of_models)
    labels = list(similarities)
    models = tuple(
        _model_score(c, of_sets, {name: d[row] for name, d in drawn.items()}, truncated[c.label])
        for row, (c, of_sets) in enumerate(zip(contestants, zip(*scores, strict=True), strict=True))
    )
    return StsResult(
        models=models,
        comparisons=tuple(
            _comparison(labels, models, i, j, drawn) for i in range(len(models)) for j in range(i + 1, len(models))
        ),
        absent=tuple(absent),
        unscored={s.name: s.unscored for s in sets if s.unscored},
        resamples=resamples,
        similarities=similarities,
        gold={pairs.name: np.asarray(pairs.scores, np.float64) for pairs in sets},
    )


def _similarities(
    contestants: Sequence[Contestant], sets: Sequence[PairSet], on_progress: Callable[[str], None]
) -> tuple[dict[str, dict[str, AnyArray]], dict[str, int]]:
    """Return the cosines of each model, by its label, on each set, and how many sentences it cuts."""
    texts = list(dict.fromkeys(text for pairs in sets for text in (*pairs.first, *pairs.second)))
    row_of = {text: row for row, text in enumerate(texts)}
    similarities: dict[str, dict[str, AnyArray]] = {}
    truncated: dict[str, int] = {}
    for contestant in contestants:
        on_progress(f"{contestant.label}: encoding {len(texts):,} sentences")
        vectors = contestant.encode(texts)
        if not np.isfinite(vectors).all():
            raise InputError(f"{contestant.label} gave a vector that holds NaN or infinity")
        truncated[contestant.label] = contestant.truncated(texts)
        similarities[contestant.label] = {
            pairs.name: without_rounding(
                cosines(vectors[[row_of[t] for t in pairs.first]], vectors[[row_of[t] for t in pairs.second]])
            )
            for pairs in sets
        }
        del vectors
    return similarities, truncated


def _set_scores(
    pairs: PairSet,
    contestants: Sequence[Contestant],
    predictions: AnyArray,
    pooling: Pooling,
    resamples: int,
    seed: int,
) -> tuple[list[SetScore], AnyArray]:
    """Return each model's score on one set, and its resampled Spearman correlations.

    Shapes: predictions: (models, pairs); the second result: (models, resamples).
    """
    gold = np.asarray(pairs.scores, np.float64)
    left_out = unmeasurable(gold, pairs.subsets, pooling)
    counted = np.flatnonzero(~np.isin(pairs.subsets, left_out))
    if not len(counted):  # nothing can be measured: the set is undefined
        left_out, counted = (), np.arange(len(pairs))
    subsets = [pairs.subsets[i] for i in counted]
    spearmans, pearsons = bootstrap(gold[counted], predictions[:, counted], subsets, pooling, resamples, seed)
    labels = np.asarray(pairs.subsets)
    parts = {name: np.flatnonzero(labels == name) for name in sorted(set(pairs.subsets) - {""})}
    scores = []
    for row, contestant in enumerate(contestants):
        x, y = predictions[row], gold
        scores.append(
            SetScore(
                set=pairs.name,
                n=len(pairs),
                spearman=_percent(pooled(spearman, x[counted], y[counted], subsets, pooling)),
                pearson=_percent(pooled(pearson, x[counted], y[counted], subsets, pooling)),
                spearman_interval=_interval_percent(spearmans[row]),
                pearson_interval=_interval_percent(pearsons[row]),
                pooling=pooling,
                subsets={
                    name: {
                        "n": len(part),
                        "spearman": _percent(spearman(x[part], y[part])),
                        "pearson": _percent(pearson(x[part], y[part])),
                    }
                    for name, part in parts.items()
                },
                trained_on=contestant.trained_on.get(pairs.name, ""),
                undefined=_why_undefined(x[counted], y[counted], subsets, pooling),
                left_out=left_out,
            )
        )
    return scores, spearmans


def _model_score(
    contestant: Contestant, sets: tuple[SetScore, ...], drawn: Mapping[str, AnyArray], truncated: int
) -> ModelScore:
    usual = [s for s in sets if s.set in SEVEN] or list(sets)
    counted = [s for s in usual if not s.trained_on and s.spearman is not None]
    names = tuple(s.set for s in counted)
    values = [s.spearman for s in counted if s.spearman is not None]
    return ModelScore(
        model=contestant.name,
        runtime=contestant.runtime,
        sets=sets,
        mean=math.fsum(values) / len(values) if values else None,
        mean_interval=_interval_percent(np.mean([drawn[name] for name in names], axis=0)) if names else None,
        mean_of=names,
        is_mean_of_seven=set(names) == set(SEVEN),
        truncated=truncated,
    )


def _comparison(
    labels: Sequence[str], models: Sequence[ModelScore], i: int, j: int, drawn: Mapping[str, AnyArray]
) -> Comparison:
    a, b = models[i], models[j]
    differences = []
    for x, y in zip(a.sets, b.sets, strict=True):
        if x.spearman is not None and y.spearman is not None:
            differences.append(_difference(x.set, x.spearman - y.spearman, drawn[x.set][i] - drawn[x.set][j]))
    shared = [name for name in a.mean_of if name in b.mean_of]
    if shared:
        first, second = ({s.set: s.spearman for s in m.sets if s.spearman is not None} for m in (a, b))
        values = [first[name] - second[name] for name in shared]
        resampled = np.mean([drawn[name][i] - drawn[name][j] for name in shared], axis=0)
        differences.append(_difference("mean", math.fsum(values) / len(values), resampled))
    return Comparison(labels[i], labels[j], tuple(differences))


def _difference(name: str, difference: float, resampled: AnyArray) -> Difference:
    bounds = _interval_percent(resampled)
    p = None if bounds is None else two_sided_p(resampled[np.isfinite(resampled)])
    return Difference(name, difference, bounds, p)
