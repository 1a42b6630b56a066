"""Pictures of result records, as PNG. matplotlib, without a display."""

import io
import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sbert_mini.errors import MissingExtraError
from sbert_mini.evaluation.log_keys import CONFLICT, COSINE, DEPTH, EXAMPLES, LOSS, MEAN, TRAIN, WEIGHT, by_depth
from sbert_mini.evaluation.tables import pair_name
from sbert_mini.shapes import AnyArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Json = Mapping[str, Any]
COLORS = ("#3b6ea5", "#c8553d", "#5a8f5a", "#8a6bb0", "#b8860b", "#4d4d4d")
_STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 9,
    "axes.titlesize": 10,
    "legend.frameon": False,
}


def require() -> None:
    """Raise `MissingExtraError` where matplotlib is not installed."""
    new_figure(1, 1)


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, heights: Sequence[float] | None = None
) -> tuple["Figure", Any]:
    """Return a figure of a size in inches, and its axes: an array of rows and columns, `heights` the rows' shares."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of its own cache where HOME cannot be written
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("drawing figures", "matplotlib", "bench") from error
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False, height_ratios=heights)
    return figure, axes


def png(figure: "Figure") -> bytes:
    """Return a figure as PNG."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):  # names come from outside: they are no formulas
        text.set_parse_math(False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()


def scatter(title: str, gold: AnyArray, similarities: Mapping[str, AnyArray]) -> bytes:
    """Return predicted against gold scores of one set: a panel a model. Shapes: gold and each similarity (pairs,)."""
    figure, axes = new_figure(3.6 * len(similarities) + 0.4, 3.4, 1, len(similarities))
    for axis, (label, values), color in zip(axes[0], similarities.items(), _cycle(len(similarities)), strict=True):
        axis.scatter(gold, values, s=5, alpha=0.3, color=color, linewidths=0)
        axis.set_title(f"{title}: {label}", fontsize=7.5)
        axis.set(xlabel="gold score", ylabel="cosine", ylim=(min(-0.2, values.min()), 1.05))
    return png(figure)


def sts_bars(result: Json) -> bytes:
    """Return Spearman's correlation by set and model, with the bootstrap intervals."""
    models = result["models"]
    names = [s["set"] for s in models[0]["sets"]]
    figure, axes = new_figure(max(5.0, 0.9 * len(names) + 2), 3.4)
    axis, width = axes[0][0], 0.8 / len(models)
    lowest, absent = 100.0, []
    for number, (model, color) in enumerate(zip(models, _cycle(len(models)), strict=True)):
        positions = [i + (number - (len(models) - 1) / 2) * width for i in range(len(names))]
        defined = [(p, s) for p, s in zip(positions, model["sets"], strict=True) if s["spearman"] is not None]
        absent += [p for p, s in zip(positions, model["sets"], strict=True) if s["spearman"] is None]
        positions, values = [p for p, _ in defined], [s["spearman"] for _, s in defined]
        spans = [s["spearman_interval"] or (v, v) for (_, s), v in zip(defined, values, strict=True)]
        errors = [
            [max(v - low, 0) for v, (low, _) in zip(values, spans, strict=True)],
            [max(high - v, 0) for v, (_, high) in zip(values, spans, strict=True)],
        ]
        label = f"{model['model']} ({model['runtime']})"
        axis.bar(positions, values, width * 0.92, yerr=errors, color=color, label=label, error_kw={"linewidth": 0.8})
        lowest = min([lowest, *(low for low, _ in spans)])
    axis.set_xticks(range(len(names)), names)
    axis.set(ylabel="Spearman x 100", ylim=(max(min(lowest - 5, 60), -100), 100))
    axis.set_xlim(-0.6, len(names) - 0.4)
    for position in absent:
        axis.text(
            position, 0.02, "undefined", transform=axis.get_xaxis_transform(), rotation=90, ha="center", fontsize=7
        )
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    return png(figure)


def throughput(result: Json) -> bytes:
    """Return texts a second by batch size and by length, a line a model."""
    figure, axes = new_figure(9, 3.4, 1, 2)
    for axis, key, name in ((axes[0][0], "by_batch_size", "texts a batch"), (axes[0][1], "by_length", "tokens a text")):
        for (label, measured), color in zip(result[key].items(), _cycle(len(result[key])), strict=True):
            sizes = sorted(int(size) for size in measured)
            rates = [measured[str(size)]["texts_per_s"] for size in sizes]
            axis.plot(sizes, [r["median"] for r in rates], marker="o", markersize=4, color=color, label=label)
            axis.fill_between(sizes, [r["low"] for r in rates], [r["high"] for r in rates], color=color, alpha=0.15)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.set(xlabel=name, ylabel="texts/s")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return png(figure)


def recall_and_rate(result: Json) -> bytes:
    """Return recall against queries a second, a point a kind of index."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure, axes = new_figure(6, 3.8)
    axis = axes[0][0]
    for (name, kind), color in zip(result["kinds"].items(), _cycle(len(result["kinds"])), strict=True):
        axis.scatter([kind["queries_per_s"]["median"]], [kind["recall"]], color=color, label=name, s=40)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    lowest = min(kind["recall"] for kind in result["kinds"].values())
    axis.set(xlabel="queries/s, in a batch", ylabel=f"recall@{result['k']}", ylim=(min(0.9, lowest - 0.02), 1.01))
    figure.legend(loc="outside lower center", ncols=2)
    return png(figure)


def growth(result: Json) -> bytes:
    """Return how the cost of finding the most similar pair grows with the number of sentences."""
    figure, axes = new_figure(6, 4.4)
    axis = axes[0][0]
    sizes = [size["n"] for size in result["sizes"]]
    ours = [size["encode_s"] + size["search_s"] for size in result["sizes"]]
    colors = _cycle(len(result["cross_encoders"]) + 1)
    axis.plot(sizes, ours, marker="o", color=colors[0], label=f"{result['model']} ({result['runtime']}) + FAISS")
    for (name, measured), color in zip(result["cross_encoders"].items(), colors[1:], strict=True):
        cost = [n * (n - 1) / 2 / measured["pairs_per_s"]["median"] for n in sizes]
        axis.plot(sizes, cost, marker="s", linestyle="--", color=color, label=f"{name}, extrapolated")
    for seconds, word in ((1, "1 s"), (60, "1 min"), (3600, "1 h"), (86400, "1 day"), (86400 * 365, "1 year")):
        axis.axhline(seconds, color="#999999", linewidth=0.6)
        axis.annotate(
            word, (1.0, seconds), xycoords=("axes fraction", "data"), fontsize=7, color="#666666", va="center"
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set(xlabel="sentences", ylabel="seconds")
    figure.legend(loc="outside lower center", ncols=1)
    return png(figure)


def training(result: Json) -> dict[str, bytes]:
    """Return the pictures of a training run: file name -> PNG. What its log does not hold is not drawn."""
    pictures = {}
    if any(phase["evaluations"] for phase in result["phases"]):
        pictures["training-figures.png"] = _evaluations(result)
    for name, rows in _CURVES.items():
        if any(_keys(phase["curves"], start) for phase in result["phases"] for start in rows):
            pictures[f"training-{name}.png"] = _over_steps(result, rows)
    if any(phase["gradients"] and phase["curves"] for phase in result["phases"]):
        pictures["training-layers.png"] = _by_layer(result)
    for name, predictions in result["predictions"].items():
        if "counts" in predictions:
            pictures[f"confusion-{name}.png"] = _confusion(name, predictions)
        elif name not in with_histograms(result):
            pictures[f"scores-{name}.png"] = _scores(name, predictions)
    for name, histograms in with_histograms(result).items():
        pictures[f"histogram-{name}.png"] = _histograms(name, histograms)
    return pictures


def with_histograms(result: Json) -> dict[str, Json]:
    """Return the histograms of scores by label, of each task that has two labels or scores."""
    tasks = (result.get("start_comparison") or {}).get("tasks", ())
    return {task["task"]: found for task in tasks if (found := task["details"].get("histograms"))}


_RATE = "examples_per_second"
_CURVES = {
    "losses": {LOSS: "loss", EXAMPLES: "examples of a batch"},
    "surgery": {CONFLICT: "share of steps in conflict", COSINE: "cosine of gradients", WEIGHT: "weight"},
    "resources": {_RATE: "examples/s", "peak_mb": "peak memory, MB"},
}
"""The pictures of curves over the steps: how a kind of key begins, and what it is."""


def _evaluations(result: Json) -> bytes:
    """Return the figures of each task over the steps of all phases: dev solid, training dashed."""
    scored = [task for task in result["tasks"] if task["metric"]]
    columns = len(scored) + 1
    figure, axes = new_figure(3.3 * columns, 3.2, 1, columns)
    names = [(f"{task['name']}_{task['metric']}", f"{task['name']}: {task['metric']}") for task in scored]
    colors = _cycle(len(result["phases"]))
    for axis, (key, title) in zip(axes[0], [*names, (MEAN, "mean")], strict=True):
        for prefix, style in (("", "-"), (TRAIN, "--")):
            start = 0
            for number, phase in enumerate(result["phases"]):
                points = [
                    (start + e["step"], e["figures"][prefix + key])
                    for e in phase["evaluations"]
                    if e["figures"].get(prefix + key) is not None
                ]
                if points:
                    label = f"phase {phase['number']}, {'training' if prefix else 'dev'}"
                    axis.plot(
                        *zip(*points, strict=True), style, marker="o", markersize=3, color=colors[number], label=label
                    )
                start += phase["steps"]
        axis.set_title(title)
        axis.set_xlabel("step, all phases")
        axis.tick_params(labelsize=7.5)
    drawn: dict[str, Any] = {}
    for axis in axes[0]:
        drawn |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(list(drawn.values()), list(drawn), loc="outside lower center", ncols=4)
    return png(figure)


def _over_steps(result: Json, rows: Mapping[str, str]) -> bytes:
    """Return curves over the steps: a row a kind of key, a column a phase; a phase without any is left out."""
    phases = [phase for phase in result["phases"] if any(_keys(phase["curves"], start) for start in rows)]
    figure, axes = new_figure(5.2 * len(phases) + 0.6, 2.2 * len(rows) + 0.5, len(rows), len(phases))
    for row, (start, name) in zip(axes, rows.items(), strict=True):
        for axis, phase in zip(row, phases, strict=True):
            curves = phase["curves"]
            for key, color in zip(_keys(curves, start), _cycle(len(_keys(curves, start))), strict=True):
                points = [(x, y) for x, y in zip(curves["step"], curves[key], strict=True) if y is not None]
                label = pair_name(key.removeprefix(start))
                axis.plot(*zip(*points, strict=True), linewidth=1, color=color, label=label)
            if start in (CONFLICT, COSINE):
                axis.axhline(0.5 if start == CONFLICT else 0, color="#999999", linewidth=0.6)
            axis.set_ylabel(name)
            axis.set_title(f"phase {phase['number']}: encoder {phase['encoder']}")
            if len(_keys(curves, start)) > 1:
                axis.legend(fontsize=7, loc="best")
    for axis in axes[-1]:
        axis.set_xlabel("step")
    return png(figure)


def _keys(curves: Json, start: str) -> list[str]:
    """Return the curves of a kind: not those by depth, and of `examples_` not the rate."""
    keys = [key for key in curves if key.startswith(start) and (key != _RATE or start == _RATE)]
    return [key for key in keys if not ("/" in key and DEPTH in key)]


def _by_layer(result: Json) -> bytes:
    """Return the cosine of each pair's gradients by depth, a row a phase: its mean, and over the steps."""
    phases = [phase for phase in result["phases"] if phase["gradients"]]
    columns = max(len(phase["gradients"]) for phase in phases) + 1
    figure, axes = new_figure(4.0 * columns, 3.0 * len(phases), len(phases), columns)
    for row, phase in zip(axes, phases, strict=True):
        curves, gradients = phase["curves"], phase["gradients"]
        for (pair, means), color in zip(gradients.items(), _cycle(len(gradients)), strict=True):
            depths = [int(depth) for depth in means["depths"]]
            row[0].plot(means["depths"].values(), depths, marker="o", markersize=4, color=color, label=pair_name(pair))
        row[0].axvline(0, color="#999999", linewidth=0.6)
        row[0].set(xlabel="mean cosine", ylabel="depth (0: embeddings)", title=f"phase {phase['number']}")
        row[0].legend(fontsize=7)
        for axis, (pair, means) in zip(row[1:], gradients.items(), strict=False):
            depths = [int(depth) for depth in means["depths"]]
            keys = [by_depth(pair, depth) for depth in depths]
            grid = [[math.nan if value is None else value for value in curves[key]] for key in keys]
            limit = max((abs(value) for line in grid for value in line if value == value), default=0.0) or 1.0  # noqa: PLR0124
            extent = (0, phase["steps"], depths[0] - 0.5, depths[-1] + 0.5)
            drawn = axis.imshow(
                grid,
                aspect="auto",
                origin="lower",
                cmap="RdBu",
                vmin=-limit,
                vmax=limit,
                extent=extent,
                interpolation="nearest",
            )
            axis.grid(visible=False)
            axis.set(xlabel="step", title=pair_name(pair))
            figure.colorbar(drawn, ax=axis, label="cosine")
    return png(figure)


def _confusion(name: str, predictions: Json) -> bytes:
    """Return a confusion matrix: each row's shares as colour, the counts as numbers."""
    counts, labels = predictions["counts"], predictions["labels"]
    size = max(3.2, 0.75 * len(labels) + 1.4)
    figure, axes = new_figure(size + 0.6, size)
    axis = axes[0][0]
    shares = [[n / max(sum(row), 1) for n in row] for row in counts]
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.grid(visible=False)
    for i, row in enumerate(counts):
        for j, count in enumerate(row):
            color = "white" if shares[i][j] > 0.55 else "black"
            text = f"{count:,}\n{100 * shares[i][j]:.0f} %"
            axis.text(j, i, text, ha="center", va="center", color=color, fontsize=7.5)
    axis.set_xticks(range(len(labels)), labels)
    axis.set_yticks(range(len(labels)), labels)
    axis.set(xlabel="predicted", ylabel="gold", title=f"{name}, dev: accuracy {predictions['accuracy']:.4f}")
    return png(figure)


def _histograms(name: str, histograms: Json) -> bytes:
    """Return how many dev rows of each label have which scores: a panel a model."""
    figure, axes = new_figure(7.4, 3.0, 1, len(histograms))
    for axis, (model, found) in zip(axes[0], histograms.items(), strict=True):
        edges = found["edges"]
        for (label, counts), color in zip(found["counts"].items(), _cycle(len(found["counts"])), strict=True):
            axis.stairs(counts, edges, fill=True, alpha=0.45, color=color, label=f"label {label}")
            axis.stairs(counts, edges, color=color, linewidth=0.8)
        axis.set(xlabel="score", ylabel="dev rows", title=f"{name}: {'start' if model == 'start' else 'trained model'}")
        axis.legend(fontsize=7.5)
    return png(figure)


def _scores(name: str, predictions: Json) -> bytes:
    """Return predicted against gold scores."""
    figure, axes = new_figure(4.0, 3.4)
    axes[0][0].scatter(predictions["gold"], predictions["predicted"], s=5, alpha=0.3, color=COLORS[0], linewidths=0)
    axes[0][0].set(xlabel="gold score", ylabel="predicted (a cosine, or a score)", title=f"{name}, dev")
    return png(figure)


def _cycle(count: int) -> Sequence[str]:
    return [COLORS[i % len(COLORS)] for i in range(count)]
