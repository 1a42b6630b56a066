"""A comparison with the starting model, as its JSON holds it -> tables."""

from sbert_mini.evaluation.gains import FIGURES
from sbert_mini.evaluation.log_keys import MEAN
from sbert_mini.evaluation.table import Json, Table

_ON_SHARE = ("pearson", "spearman")


def comparison(result: Json | None) -> list[Table]:
    """Return the tables of `gains.Comparison.to_json()`; none for None."""
    if result is None:
        return []
    tables = [against_start(result)]
    for task in result["tasks"]:
        tables += _by_class(task)
        tables += _precision(task)
    return tables


def against_start(result: Json) -> Table:
    """Return the figures of both models, their differences, and the verdict in words."""
    rows = tuple(
        (
            task["task"],
            FIGURES[name] + (" *" if name == task["metric"] else ""),
            _text(gain["start"]),
            _text(gain["trained"]),
            f"{gain['difference']:+.4f}" if gain["difference"] is not None else "undefined",
            "" if gain["interval"] is None else "{:+.4f} to {:+.4f}".format(*gain["interval"]),
        )
        for task in result["tasks"]
        for name, gain in task["gains"].items()
    )
    answers = "; ".join(f"{task['task']}: {task['start_is']}" for task in result["tasks"])
    notes = [
        f"The start is {result['start']}, on the same dev rows ({answers}). * is the figure that counts. Intervals: 95 %, paired "
        "bootstrap over rows."
    ]
    if any("calibration_error" in task["gains"] for task in result["tasks"]):
        notes.append("A lower calibration error is better.")
    header = ("task", "figure", "start", "trained", "difference", "95 % interval")
    return Table("Against the start", header, rows, (*notes, *result["warnings"], result["text"]))


def start_figures(result: Json | None) -> dict[str, float | None]:
    """Return the start's figures under the keys of an evaluation: `<task>_<figure>` and the mean; empty for None."""
    if result is None:
        return {}
    figures = {
        f"{task['task']}_{name}": gain["start"] for task in result["tasks"] for name, gain in task["gains"].items()
    }
    main = [(task["metric"], figures.get(f"{task['task']}_{task['metric']}")) for task in result["tasks"]]
    shares = [(value + 1) / 2 if metric in _ON_SHARE else value for metric, value in main if value is not None]
    return {**figures, MEAN: sum(shares) / len(shares) if shares else None}


def _text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _by_class(task: Json) -> list[Table]:
    classes = task["details"].get("classes")
    if classes is None:
        return []
    rows = tuple(
        (
            ours["label"],
            *(f"{ours[key]:.4f}" for key in ("precision", "recall", "f1")),
            f"{ours['support']:,}",
            f"{theirs['f1']:.4f}",
        )
        for ours, theirs in zip(classes["trained"], classes["start"], strict=True)
    )
    header = ("label", "precision", "recall", "F1", "support", "F1 of the start")
    return [
        Table(f"{task['task']} by class", header, rows, ("Of the dev rows; the support is the rows with the label.",))
    ]


def _precision(task: Json) -> list[Table]:
    found = task["details"].get("precision_at_recall")
    if not found:
        return []
    rows = tuple(
        (
            f"{ours['recall']:.2f}",
            *(f"{entry[key]:.4f}" for entry in (theirs, ours) for key in ("precision", "threshold")),
        )
        for ours, theirs in zip(found["trained"], found["start"], strict=True)
    )
    header = ("recall", "precision, start", "threshold, start", "precision, trained", "threshold, trained")
    note = "The precision where a threshold lets through at least this share of the positive rows."
    return [Table(f"{task['task']}: precision at a recall", header, rows, (note,))]


def by_graph(predictions: Json) -> list[Table]:
    """Return what int8 changes in the dev figures of each head; none without heads."""
    rows = tuple(
        (
            task,
            FIGURES[name],
            _text(values["fp32"]),
            _text(values["int8"]),
            f"{values['int8'] - values['fp32']:+.4f}" if None not in values.values() else "undefined",
        )
        for task, entry in predictions.items()
        for name, values in entry.get("int8", {}).items()
    )
    header = ("head", "figure", "float32", "int8", "difference")
    note = "Of the dev rows. sbmini predict computes int8 by default."
    return [Table("What int8 changes in the heads", header, rows, (note,))] if rows else []
