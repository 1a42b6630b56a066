"""Thresholds and figures by class against a search over all thresholds, and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_recall_curve, precision_recall_fscore_support

from sbert_mini.evaluation import binary

RNG = np.random.default_rng(5)
YES = RNG.integers(0, 2, 61)
SCORES = np.round(RNG.normal(size=61) + YES, 1)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_no_threshold_is_better_than_the_best(metric):
    def value(threshold):
        named = threshold <= SCORES
        return accuracy_score(YES, named) if metric == "accuracy" else f1_score(YES, named, average="macro")

    every = [*np.unique(SCORES), 99.0]
    assert value(binary.best_threshold(YES, SCORES, metric)) == max(map(value, every))


def test_rows_of_one_kind_are_all_named_so():
    assert binary.best_threshold(np.zeros(4), np.arange(4.0)) > 3
    assert binary.best_threshold(np.ones(4), np.arange(4.0)) <= 0


def test_a_rows_own_label_does_not_choose_its_threshold():
    named = binary.cross_fitted(YES, SCORES)
    row = int(np.argmin(np.abs(SCORES - 0.5)))
    fold = binary.folds(YES)
    same = np.flatnonzero(fold == fold[row])
    threshold = binary.best_threshold(YES[fold != fold[row]], SCORES[fold != fold[row]])
    assert (named[same] == (SCORES[same] >= threshold)).all()


def test_every_fold_has_its_share_of_each_class():
    fold = binary.folds(YES)
    for value in (0, 1):
        counts = np.bincount(fold[value == YES], minlength=binary.FOLDS)
        assert counts.max() - counts.min() <= 1


def test_precision_at_a_recall_is_on_scikit_learns_curve():
    precision, recall, thresholds = precision_recall_curve(YES, SCORES)
    for entry in binary.precision_at_recall(YES, SCORES):
        at = np.flatnonzero(thresholds == entry["threshold"])[0]
        assert precision[at] == pytest.approx(entry["precision"])
        assert recall[at] >= entry["recall"] - 1e-9
        assert at + 1 == len(thresholds) or recall[at + 1] < entry["recall"]
    assert binary.precision_at_recall(np.zeros(3), np.arange(3.0)) == []


def test_figures_by_class_are_scikit_learns():
    gold = np.array(["x", "y", "z"])[RNG.integers(0, 3, 40)]
    named = np.where(RNG.random(40) < 0.5, gold, "y")
    expected = precision_recall_fscore_support(gold, named, labels=["x", "y", "z", "q"], zero_division=0)
    found = binary.by_class(gold, named, ["x", "y", "z", "q"])
    for number, entry in enumerate(found):
        values = [entry[key] for key in ("precision", "recall", "f1", "support")]
        assert values == pytest.approx([column[number] for column in expected])
