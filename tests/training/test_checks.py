"""What is odd in training data."""

import pytest

from sbert_mini.training import checks
from sbert_mini.training.examples import Examples, read_examples


def test_overlap_is_unordered_and_normalised():
    dev = [("A cat, asleep.", "The dog"), ("x", "y")]
    rows = [("the DOG!", "a cat asleep"), ("a cat asleep", "a dog"), ("x", "z")]
    assert checks.overlap(rows, dev) == [True, False, False]
    assert checks.normalized("Is C# hard?") != checks.normalized("is c++ hard")
    assert checks.normalized("👍") != checks.normalized("👎")
    assert checks.normalized("कि") != checks.normalized("की")
    assert checks.normalized("  Café—au lait ") == "café au lait"
    assert checks.overlap([("X", "q", "Y"), ("q", "x", "y")], dev) == [True, False]  # anchor with either of the others
    counted = checks.overlap_counts({"t": Examples(tuple(rows))}, {"sts12": dev, "sts13": [("p", "q")]})
    assert counted == {"sts12": {"t": 1}}


def test_findings_say_what_is_odd():
    train = Examples((("a [SEP] b",), ("good",), ("Good!",), ("bad",)), ("1", "1", "0", "1"))
    said = [f.text for f in checks.findings("t", train, Examples((("BAD",),), ("1",)), ["0", "1", "2"])]
    assert said == [
        "1 texts hold [SEP], [CLS] or the like; they are read as text and never as the special token",
        "1 of 4 rows repeat an earlier row's texts",
        "1 texts stand with different labels",
        "labels: 0 25.0%, 1 75.0%, 2 0.0%",
        "no row is labelled 2",
        "dev: every row is labelled 1: a model that always says so has an accuracy of 1",
        "1 train rows also occur in the dev set; drop_overlap = true leaves them out",
    ]


def test_leakage_of_the_real_data_is_what_their_readme_counts(data):
    held = read_examples([data / "nli_train.tsv.gz"], ["premise", "hypothesis"], None)
    from sbert_mini.evaluation.sets import find_set

    sick = find_set(data, "sickr")
    rows = list(zip(sick.first, sick.second, strict=True))
    (count,) = checks.overlap_counts({"nli": held}, {"sickr": rows})["sickr"].values()
    assert count == pytest.approx(4420, abs=30)
