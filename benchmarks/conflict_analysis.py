"""What the runs of `benchmarks.conflict` say: heights above the trade-off curve, paired tests, the cost of a step, a picture.

A run is a dict with `arm`, `share` (of similarity in the tasks' weights), `rate`, `seed`, `dev` and `test` (`similarity` and
`retrieval`, both times 100), `step_s` (processor seconds of a step) and `conflict` (share of steps in which the gradients'
cosine is negative, or None).
"""

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sbert_mini.evaluation import figures
from sbert_mini.evaluation.table import Json, Table

FIGURES = ("similarity", "retrieval")
CURVES = ("sum", "sum-normalized")
EVEN = 0.5
"""The share of similarity at which both tasks weigh 1."""
LEVEL = 0.05
MIN_CONFLICT = 0.2
"""Below this share of conflicting steps under the sum the experiment has not tested what it is for."""


def chosen_rates(runs: Iterable[Mapping[str, Any]], rates: Sequence[float], seed: int) -> dict[str, float]:
    """Return the rate of each arm whose runs of all rates are there: the one with the best mean of the two dev figures."""
    by_arm: dict[str, dict[float, float]] = {}
    for run in runs:
        if run["seed"] == seed and run["share"] == EVEN and run["rate"] in rates:
            by_arm.setdefault(run["arm"], {})[run["rate"]] = statistics.fmean(run["dev"][name] for name in FIGURES)
    return {arm: max(found, key=found.__getitem__) for arm, found in by_arm.items() if len(found) == len(rates)}


def height(point: Sequence[float], curve: Sequence[Sequence[float]]) -> float:
    """Return how far a point lies above a curve: by how much both figures could fall until some point of the curve has both.

    Negative below the curve: by how much both would have to rise. The curve is the line through its points in their order.

    Args:
        point: similarity and retrieval.
        curve: at least one point.
    """
    p, points = np.asarray(point, dtype=np.float64), np.asarray(curve, dtype=np.float64)
    parts = np.linspace(0, 1, 1001)[:, None]
    segments = [a + parts * (b - a) for a, b in itertools.pairwise(points)] or [points]
    return float((p - np.concatenate(segments)).max(axis=1).min())


def t_test(values: Sequence[float]) -> dict[str, float | None]:
    """Return the mean of paired differences, its 95 % interval and the two-sided p value of Student's t test against 0."""
    from scipy import stats

    mean = statistics.fmean(values)
    if len(values) < 2:
        return {"mean": mean, "low": None, "high": None, "p": None}
    error = statistics.stdev(values) / len(values) ** 0.5
    reach = float(stats.t.ppf(0.975, len(values) - 1)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, len(values) - 1)) if error else float(mean == 0)
    return {"mean": mean, "low": mean - reach, "high": mean + reach, "p": p}


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p values adjusted for their number, by Holm 1979."""
    adjusted, worst = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = worst
    return adjusted


def analysed(runs: Sequence[Mapping[str, Any]], rates: Sequence[float], search_seed: int) -> dict[str, Any]:
    """Return for each arm its figures, its height above the sums' curves and its cost; runs of other rates are left out.

    Args:
        runs: all runs that are done.
        rates: those that were tried.
        search_seed: the seed that they were tried with.
    """
    rate_of = chosen_rates(runs, rates, search_seed)
    kept = {(run["arm"], run["share"], run["seed"]): run for run in runs if rate_of.get(str(run["arm"])) == run["rate"]}
    curves = {
        name: {share: _points(kept, name, share) for share in sorted({s for arm, s, _ in kept if arm == name})}
        for name in CURVES
    }
    even = {arm: _points(kept, arm, EVEN) for arm in rate_of}
    arms: dict[str, Any] = {}
    for arm, points in even.items():
        seeds = sorted(points)
        entry: dict[str, Any] = {"rate": rate_of[arm], "seeds": seeds}
        for number, name in enumerate(FIGURES):
            entry[name] = t_test([points[seed][number] for seed in seeds])
            shared = [seed for seed in seeds if seed in even.get("sum", {})]
            if arm != "sum" and shared:
                entry[f"{name}_to_sum"] = t_test([points[s][number] - even["sum"][s][number] for s in shared])
        heights = (
            [] if arm in CURVES else [h for seed in seeds if (h := _height(points[seed], curves, seed)) is not None]
        )
        if heights:
            entry["height"] = t_test(heights)
        entry["step_to_sum"] = _cost(kept, arm, seeds)
        conflicts = [c for s in seeds if (c := kept[arm, EVEN, s]["conflict"]) is not None]
        entry["conflict"] = statistics.fmean(conflicts) if conflicts else None
        arms[arm] = entry
    adjusted = holm(
        {arm: entry["height"]["p"] for arm, entry in arms.items() if entry.get("height", {}).get("p") is not None}
    )
    for arm, p in adjusted.items():
        arms[arm] |= {"p": p, "verdict": _verdict(arms[arm]["height"]["mean"], p)}
    shown = {name: {str(share): _mean(points) for share, points in curve.items()} for name, curve in curves.items()}
    conflict = arms.get("sum", {}).get("conflict")
    return {
        "arms": arms,
        "curves": shown,
        "conflict": conflict,
        "tested": conflict is not None and conflict >= MIN_CONFLICT,
    }


def _points(kept: Mapping[tuple[str, float, int], Any], arm: str, share: float) -> dict[int, tuple[float, ...]]:
    """Return the test figures of an arm by seed."""
    return {
        seed: tuple(run["test"][name] for name in FIGURES)
        for (name_, share_, seed), run in kept.items()
        if (name_, share_) == (arm, share)
    }


def _height(point: Sequence[float], curves: Mapping[str, Mapping[float, Any]], seed: int) -> float | None:
    """Return the height above the higher of the two curves of a seed; None until each curve has two points."""
    of_seed = [[points[seed] for points in curve.values() if seed in points] for curve in curves.values()]
    return min(height(point, curve) for curve in of_seed) if min(map(len, of_seed)) > 1 else None


def _cost(kept: Mapping[tuple[str, float, int], Any], arm: str, seeds: Iterable[int]) -> float | None:
    """Return the median over the seeds of the processor seconds of a step, in those of the sum."""
    pairs = [(kept[arm, EVEN, s]["step_s"], kept["sum", EVEN, s]["step_s"]) for s in seeds if ("sum", EVEN, s) in kept]
    return statistics.median(a / b for a, b in pairs) if pairs else None


def _mean(points: Mapping[int, Sequence[float]]) -> list[float]:
    return [statistics.fmean(values) for values in zip(*points.values(), strict=True)]


def _verdict(mean: float, p: float) -> str:
    if p >= LEVEL:
        return "no difference that these seeds can show"
    return "above the curve: it helps" if mean > 0 else "below the curve: it hurts"


def tables(result: Json) -> list[Table]:
    """Return the table of the arms and that of the sums' curves."""
    header = (
        "arm",
        "rate",
        "seeds",
        "similarity",
        "retrieval",
        "above the curve",
        "p (Holm)",
        "step to the sum",
        "conflict",
        "",
    )
    rows = tuple(
        (
            arm,
            f"{entry['rate']:.0e}".replace("e-0", "e-"),
            str(len(entry["seeds"])),
            *(_shown(entry[name]) for name in FIGURES),
            _shown(entry["height"], signed=True) if "height" in entry else "",
            f"{entry['p']:.3f}" if "p" in entry else "",
            f"{entry['step_to_sum']:.2f}" if entry["step_to_sum"] is not None else "",
            f"{entry['conflict']:.0%}" if entry["conflict"] is not None else "",
            entry.get("verdict", ""),
        )
        for arm, entry in result["arms"].items()
    )
    curve_rows = tuple(
        (name, share, *(f"{value:.2f}" for value in point))
        for name, curve in result["curves"].items()
        for share, point in curve.items()
    )
    note = "" if result["tested"] else "The tasks conflicted in too few steps: the question is not answered."
    return [
        Table("Rules of surgery where tasks conflict", header, rows, (note,) if note else ()),
        Table("The trade-off of the two sums", ("sum", "share of similarity", *FIGURES), curve_rows),
    ]


def _shown(entry: Mapping[str, float | None], *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    interval = f" [{entry['low']:{sign}.2f}, {entry['high']:{sign}.2f}]" if entry["low"] is not None else ""
    return f"{entry['mean']:{sign}.2f}{interval}"


def picture(result: Json) -> bytes:
    """Return the two sums' curves, similarity to the right and retrieval upwards, and a point with its intervals for each arm."""
    figure, axes = figures.new_figure(7.5, 5.5)
    axis = axes[0][0]
    for color, (name, curve) in zip(figures.COLORS, result["curves"].items(), strict=False):
        if curve:
            axis.plot(*zip(*curve.values(), strict=True), marker="o", color=color, label=f"{name}, five weights")
    others = [(arm, entry) for arm, entry in result["arms"].items() if arm not in CURVES]
    for number, (arm, entry) in enumerate(others):
        x, y = (entry[name] for name in FIGURES)
        reach = [[[e["mean"] - e["low"]], [e["high"] - e["mean"]]] if e["low"] is not None else None for e in (x, y)]
        color = figures.COLORS[(number + len(CURVES)) % len(figures.COLORS)]
        axis.errorbar(
            x["mean"],
            y["mean"],
            xerr=reach[0],
            yerr=reach[1],
            fmt="sD^vP*"[number % 6],
            color=color,
            label=arm,
            elinewidth=0.6,
        )
    axis.set_xlabel("similarity: Spearman x 100, STS-B test")
    axis.set_ylabel("retrieval: MRR@10 x 100, held-out titles")
    axis.legend(fontsize=7.5)
    return figures.png(figure)
