"""Predictions beside gold answers -> figures and tables. Without torch, scipy and scikit-learn."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sbert_mini.evaluation import gains
from sbert_mini.evaluation.binary import by_class
from sbert_mini.evaluation.table import Table


def label_figures(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str], abstain: str) -> dict[str, Any]:
    """Return the figures of predicted labels.

    Args:
        gold: the right label of each row.
        predicted: the predicted one, or `abstain`.
        labels: all labels.
        abstain: what stands for no answer; those rows are counted, and left out of the figures.

    Returns:
        `rows`, `answered`, `accuracy`, `macro_f1` (None without an answer), `classes`, and `counts`: a row a gold label, a column
        a predicted one, the last column `abstain`.
    """
    truth, named = np.asarray(gold, object), np.asarray(predicted, object)
    answered = named != abstain
    hits = truth[answered] == named[answered]
    classes = by_class(truth[answered].tolist(), named[answered].tolist(), labels)
    there = [entry["f1"] for entry in classes if entry["support"] or (named == entry["label"]).any()]
    counts = [[int(((truth == g) & (named == p)).sum()) for p in (*labels, abstain)] for g in labels]
    return {
        "rows": len(truth),
        "answered": int(answered.sum()),
        "accuracy": float(np.mean(hits)) if len(hits) else None,
        "macro_f1": float(np.mean(there)) if there else None,
        "classes": classes,
        "counts": counts,
    }


def label_tables(figures: dict[str, Any], labels: Sequence[str], abstain: str) -> list[Table]:
    """Return the confusions and the figures by class of `label_figures`."""
    skipped = figures["answered"] < figures["rows"]
    columns = [*labels, *([abstain] if skipped else [])]
    rows = tuple(
        (f"gold {label}", *(f"{n:,}" for n in counts[: len(columns)]))
        for label, counts in zip(labels, figures["counts"], strict=True)
    )
    value = "undefined" if figures["accuracy"] is None else f"{figures['accuracy']:.4f}"
    answered = (
        f"; {figures['answered']:,} of {figures['rows']:,} rows are answered, and these alone count" if skipped else ""
    )
    f1 = "" if figures["macro_f1"] is None else f", macro F1 {figures['macro_f1']:.4f}"
    by_label = tuple(
        (entry["label"], *(f"{entry[key]:.4f}" for key in ("precision", "recall", "f1")), f"{entry['support']:,}")
        for entry in figures["classes"]
    )
    return [
        Table(
            "Confusions",
            ("rows", *(f"predicted {label}" for label in columns)),
            rows,
            (f"Accuracy {value}{f1}{answered}.",),
        ),
        Table("By class", ("label", "precision", "recall", "F1", "support"), by_label),
    ]


def score_table(gold: Sequence[float], predicted: Sequence[float]) -> Table:
    """Return the correlations of predicted scores with gold ones."""
    truth, scores, once = np.asarray(gold, np.float64), np.asarray(predicted, np.float64), np.ones((1, len(gold)))
    rows = []
    for name, figure in (("Pearson", gains.pearson), ("Spearman", gains.spearman)):
        value = float(figure(truth, scores)(once)[0])
        rows.append((name, "undefined" if np.isnan(value) else f"{value:.4f}"))
    return Table(f"{len(gold):,} predicted scores beside the gold ones", ("figure", "value"), tuple(rows))
