"""Which dev rows a report shows as the most wrong ones."""

from types import SimpleNamespace

import numpy as np

from sbert_mini.evaluation.binary import BINS, histogram
from sbert_mini.training.answers import Answers, most_wrong


def task(labels):
    return SimpleNamespace(dev=SimpleNamespace(texts=[(f"a{i}", f"b{i}") for i in range(len(labels))], labels=labels))


def rows(found):
    return [row["texts"][0] for row in found]


def test_wrong_labels_come_by_their_probability():
    ours = Answers(np.array(["x", "y", "x", "x"]), np.array([0.9, 0.6, 0.8, 0.99]))
    start = Answers(np.array(["y", "y", "y", "y"]), np.array([0.5, 0.5, 0.5, 0.5]))
    found = most_wrong(task(["x", "x", "y", "y"]), start, ours)
    assert rows(found) == ["a3", "a2", "a1"]
    assert found[0] == {"texts": ["a3", "b3"], "right": "y", "trained": "x (99%)", "start": "y (50%)"}


def test_two_scores_are_wrong_on_the_side_of_the_other():
    ours = Answers(scores=np.array([-0.5, 0.9, 0.1, 0.5, 0.95, 0.2]))
    found = most_wrong(task([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]), ours, ours)
    assert rows(found) == ["a1", "a5"]  # the lowest score of the label 0 is right, however low it is
    assert found[0]["trained"] == "0.900"


def test_grades_and_ranks():
    ours = Answers(scores=np.array([0.1, 0.9, 0.3, 0.2]))
    assert rows(most_wrong(task([1.0, 2.0, 3.0, 4.0]), ours, ours))[:2] == ["a1", "a3"]
    ranked = Answers(ranks=np.array([1, 7, 2]))
    found = most_wrong(task([None] * 3), ranked, ranked)
    assert [(row["texts"][0], row["trained"]) for row in found] == [("a1", "place 7"), ("a2", "place 2")]


def test_a_histogram_counts_each_label():
    found = histogram(["0", "1", "0", "1"], np.array([0.0, 1.0, 0.5, 1.0]))
    assert len(found["edges"]) == BINS + 1
    assert {label: sum(counts) for label, counts in found["counts"].items()} == {"0": 2, "1": 2}
    assert found["counts"]["1"][-1] == 2
