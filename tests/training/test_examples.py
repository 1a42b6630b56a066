"""Rows of training data from files."""

import re

import pytest

from sbert_mini.errors import InputError, UsageError
from sbert_mini.training.checks import findings
from sbert_mini.training.examples import Examples, TokenizedTexts, read_examples


def test_examples_are_read_with_the_line_of_what_is_wrong(tmp_path):
    (tmp_path / "a.csv").write_text('x,y,grade\n"a, b",c,1.5\nd,e,2\n')
    held = read_examples([tmp_path / "a.csv"] * 2, ["x", "y"], "grade", graded=True)
    assert held.texts == (("a, b", "c"), ("d", "e")) * 2
    assert held.labels == (1.5, 2.0) * 2
    assert read_examples([tmp_path / "a.csv"], ["x"], "grade").labels == ("1.5", "2")
    (tmp_path / "course.csv").write_text("\tid\tsentence\tsentiment\n0\tk\t a film , she said\t3\n")
    held = read_examples([tmp_path / "course.csv"], ["sentence"], "sentiment")
    assert (held.texts, held.labels) == (((" a film , she said",),), ("3",))
    for content, match in (
        ("x,y,grade\na,b,c\n", "a.csv, line 2: the score must be a finite number, and is 'c'"),
        ("x,y,grade\na,,1\n", "a.csv, line 2: 'y' must be a text"),
        ("x,z,grade\na,b,1\n", "there is no column 'y'; the columns are x, z, grade"),
        ("x,y,grade\n", "there is no row"),
    ):
        (tmp_path / "a.csv").write_text(content)
        with pytest.raises(InputError, match=re.escape(match)):
            read_examples([tmp_path / "a.csv"], ["x", "y"], "grade", graded=True)


def test_tokenized_texts_are_the_tokenizers(minilm):
    from sbert_mini.model.layout import read_layout
    from sbert_mini.text.tokenizer import open_tokenizer

    tokenizer = open_tokenizer(read_layout(minilm))
    inputs = ["a cat", ("one text", "and another one"), "word " * 400]
    held = TokenizedTexts(inputs, tokenizer)
    assert held.truncated == 1
    for number, tokens in enumerate(tokenizer.encode(inputs)):
        assert held[number].ids.tolist() == tokens.ids
        assert held[number].type_ids.tolist() == tokens.type_ids
        assert held.lengths[number] == len(tokens.ids)


@pytest.mark.parametrize(
    ("texts", "labels", "text"),
    [
        ((("a",), ("b",), ("c",)), ("x", "y"), "a label a row is needed; found 2 for 3 rows"),
        ((("a", "b"), ("c",)), None, "every row must have the same number of texts"),
    ],
)
def test_rows_and_labels_that_do_not_fit(texts, labels, text):
    with pytest.raises(UsageError, match=text):
        Examples(texts, labels)


@pytest.mark.parametrize("content", ["text,label\na,x\nb,\n", "text,label\na,x\nb, \n"])
def test_an_empty_label_is_named_with_its_line(tmp_path, content):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=r"a\.csv, line 3: the label is empty"):
        read_examples([tmp_path / "a.csv"], ["text"], "label")


def test_null_is_no_label(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": null}\n')
    with pytest.raises(InputError, match=r"a\.jsonl, line 1: the label is empty"):
        read_examples([tmp_path / "a.jsonl"], ["text"], "label")


@pytest.mark.parametrize(("count", "rare"), [(40, True), (39, False)])
def test_labels_below_a_twentieth_of_an_equal_share_are_named(count, rare):
    """One row of 41 is fewer than 0.05 · 41 / 2 = 1.025; one of 40 is not fewer than 1."""
    rows = Examples(tuple((f"text {i}",) for i in range(count + 1)), ("a",) * count + ("b",))
    found = [finding.text for finding in findings("t", rows, None, ("a", "b"))]
    assert ("very few rows are labelled b" in found) is rare
