"""A comparison with the starting model, as its JSON holds it -> tables."""

from dataclasses import replace

from sbert_mini.evaluation.gains import FIGURES
from sbert_mini.evaluation.log_keys import MEAN
from sbert_mini.evaluation.table import Json, Table

_ON_SHARE = ("pearson", "spearman")
LEARNED, START, CURVES, CONFUSIONS = "What was learned", "Against the start", "Learning curves", "Confusions"
WRONG, SCORES, INT8 = "The most wrong rows", "Scores and thresholds", "What int8 changes"
SURGERY, COST = "Gradient surgery", "Cost"
SECTIONS = (LEARNED, START, CURVES, CONFUSIONS, WRONG, SCORES, INT8, SURGERY, COST)
"""The parts of the report of a training run, in their order."""


def comparison(result: Json | None) -> list[Table]:
    """Return the tables of `gains.Comparison.to_json()`; none for None."""
    if result is None:
        return []
    tables = [replace(against_start(result), section=START)]
    for task in result["tasks"]:
        tables += [replace(table, section=CONFUSIONS) for table in _by_class(task)]
        tables += [replace(table, section=SCORES) for table in _precision(task)]
        tables += [replace(table, section=WRONG) for table in _most_wrong(task)]
    return tables


def in_words(result: Json | None) -> list[str]:
    """Return what was learned, in sentences: the verdict, each task's figure that counts, the labels that changed most."""
    if result is None:
        return ["No task has dev rows, so nothing can be said of what was learned."]
    sentences = [f"{result['text'][:1].upper()}{result['text'][1:]}."]
    for task in result["tasks"]:
        gain = task["gains"].get(task["metric"])
        if gain is None or gain["trained"] is None or gain["start"] is None:
            sentences.append(f"{task['task']}: its {FIGURES[task['metric']]} is undefined on these dev rows.")
            continue
        between = "" if gain["interval"] is None else " (95 %: {:+.3f} to {:+.3f})".format(*gain["interval"])
        sentences.append(
            f"{task['task']}: {FIGURES[task['metric']]} {gain['trained']:.3f} on {task['rows']:,} dev rows; the start had "
            f"{gain['start']:.3f}{between}."
        )
        sentences += _labels_in_words(task)
    return [*sentences, *(f"Warning: {warning}." for warning in result["warnings"])]


def _labels_in_words(task: Json) -> list[str]:
    classes = task["details"].get("classes")
    if not classes or len(classes["trained"]) < 2:
        return []
    pairs = zip(classes["trained"], classes["start"], strict=True)
    changes = sorted((ours["f1"] - theirs["f1"], ours["label"]) for ours, theirs in pairs)
    weakest = min(classes["trained"], key=lambda entry: entry["f1"])
    (low, fell), (high, rose) = changes[0], changes[-1]
    text = f"Its F1 rose most for the label {rose} ({high:+.3f})" if high > 0 else "Its F1 rose for no label"
    text += f" and fell most for {fell} ({low:+.3f})" if low < 0 else ""
    return [f"{text}; the weakest label is {weakest['label']}, with an F1 of {weakest['f1']:.3f}."]


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


def _most_wrong(task: Json) -> list[Table]:
    """Return the rows that the trained model is most wrong on, with their texts."""
    found = task["details"].get("most_wrong")
    if not found:
        return []
    rows = tuple((" | ".join(e["texts"]), e["right"], e["trained"], e["start"]) for e in found)
    note = (
        "Of the dev rows that are wrong: first where a wrong label is most probable, a score is furthest from its place, or the "
        "positive stands lowest. Look for wrong labels in the data among them."
    )
    header = ("texts", "right", "trained model", "start")
    return [Table(f"{task['task']}: the {len(rows)} most wrong rows", header, rows, (note,), is_text=True)]


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
    return [Table("What int8 changes in the heads", header, rows, (note,), INT8)] if rows else []
