"""Training and dev rows share no text; what cannot be split is refused."""

from collections import Counter

import numpy as np
import pytest

from sbert_mini.errors import InputError
from sbert_mini.recipes.split import row_notes, split_rows


def test_no_text_stands_on_both_sides_and_a_fifth_is_held_back():
    rng = np.random.default_rng(0)
    texts = [(f"a{rng.integers(120)}", f"B {rng.integers(900)}") for _ in range(200)]
    split = split_rows(texts, None)
    sides = [
        {text for row, dev in zip(texts, split.dev, strict=True) if dev is side for text in row}
        for side in (True, False)
    ]
    assert not sides[0] & sides[1]
    assert 25 <= sum(split.dev) <= 41
    assert split.shared == 0
    assert split_rows(texts, None) == split
    assert split_rows(texts, None, seed=1) != split


def test_equal_texts_are_equal_whatever_their_case():
    texts = [(f"Text {i // 2}!" if i % 2 else f"text {i // 2}",) for i in range(60)]
    dev = split_rows(texts, ["x", "y"] * 30).dev
    assert all(dev[i] == dev[i + 1] for i in range(0, 60, 2))


def test_each_label_has_its_share_of_the_dev_rows():
    labels = ["often"] * 160 + ["rare"] * 40
    split = split_rows([(f"t{i}",) for i in range(200)], labels)
    assert Counter(label for label, dev in zip(labels, split.dev, strict=True) if dev) == {"often": 32, "rare": 8}


def test_rows_that_hang_together_are_split_by_their_first_text():
    texts = [(f"question {i // 2}", f"answer {i % 3}") for i in range(90)]
    split = split_rows(texts, None)
    assert split.shared == 3
    sides = [{row[0] for row, dev in zip(texts, split.dev, strict=True) if dev is side} for side in (True, False)]
    assert not sides[0] & sides[1]


def test_too_few_rows_or_texts_are_refused():
    with pytest.raises(InputError, match="at least 20 rows are needed, so that some can be held back"):
        split_rows([(f"t{i}",) for i in range(19)], None)
    with pytest.raises(InputError, match="nearly all rows share one text"):
        split_rows([("same", f"t{i}") for i in range(30)], None)


def test_notes_count_repeated_rows_contradictions_and_classes():
    texts = [("a", "b"), ("B", "a"), ("c", "d"), ("e", "f")]
    assert row_notes(texts, [0.0, 1.0, 1.0, 1.0]) == [
        "1 of 4 rows repeat an earlier row's texts",
        "1 pair stands with contradicting labels",
        "labels: 0 1 (25.0%), 1 3 (75.0%)",
    ]
    assert row_notes(texts[2:], None) == []
    assert row_notes(texts[2:], ["x", "x"])[-1] == "every row has the label x: there is nothing to learn from it"
