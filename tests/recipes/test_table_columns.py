"""Which columns of a table are texts, labels, or nothing; and what is refused."""

import csv
import json

import pytest
from small_tasks import sentences

from sbert_mini.errors import InputError, UsageError
from sbert_mini.recipes.table_columns import read_table_rows


def table(folder, names, rows, name="t.csv"):
    with (folder / name).open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        writer.writerows(rows)
    return folder / name


A, B, C = (sentences(40, seed) for seed in (1, 2, 3))


@pytest.mark.parametrize(
    ("names", "columns", "kind", "texts", "label", "ignored"),
    [
        (["id", "question1", "question2", "is_duplicate"], [range(40), A, B, [0, 1] * 20], "yes-no pairs", 2, 3, 0),
        (["sentence1", "sentence2", "score"], [A, B, [i % 6 for i in range(40)]], "graded pairs", 2, 2, None),
        (["a", "b", "rated"], [A, B, [i / 40 for i in range(40)]], "graded pairs", 2, 2, None),
        (["premise", "hypothesis", "label"], [A, B, ["yes", "no", "maybe", "no"] * 10], "labelled pairs", 2, 2, None),
        (["question", "answer"], [A, B], "matching pairs", 2, None, None),
        (["answer", "question"], [A, B], "matching pairs", (1, 0), None, None),
        (["anchor", "positive", "negative"], [A, B, C], "triplets", 3, None, None),
        (["one", "two", "three"], [A, B, C], "triplets", 3, None, None),
        (["label", "sentence"], [[0, 1, 2, 3] * 10, A], "labelled texts", (1,), 0, None),
        (["text", "topic"], [A, ["x", "y"] * 20], "labelled texts", 1, 1, None),
    ],
)
def test_columns_are_told_by_names_and_values(tmp_path, names, columns, kind, texts, label, ignored):
    found = read_table_rows(table(tmp_path, names, zip(*columns, strict=True)))
    assert found.kind == kind
    order = texts if isinstance(texts, tuple) else None
    if order is None:
        start = 1 if names[0] == "id" else 0
        order = range(start, start + texts)
    expected = tuple(names[i] for i in order)
    assert found.text_columns == expected
    assert found.texts[0] == tuple(columns[i][0] for i in order)
    assert found.label_column == (None if label is None else names[label])
    assert found.ignored == (() if ignored is None else (names[ignored],))
    assert found.describe().startswith(f"40 rows of {kind}: ")


def test_each_negative_is_a_row(tmp_path):
    rows = [
        {"query": "q", "positive": "p", "negatives": ["n1", "n2"]},
        {"query": "r", "positive": "s", "negatives": []},
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_table_rows(tmp_path / "t.jsonl").texts == (("q", "p", "n1"), ("q", "p", "n2"))
    file = table(
        tmp_path, ["query", "positive", "negative_1", "negative_2"], [("q", "p", "x", "y"), ("r", "s", "z", "w")]
    )
    found = read_table_rows(file)
    assert found.texts == (("q", "p", "x"), ("q", "p", "y"), ("r", "s", "z"), ("r", "s", "w"))
    assert found.text_columns == ("query", "positive", "negative")


def test_named_columns_win(tmp_path):
    file = table(tmp_path, ["a", "b", "c", "n"], zip(A, B, C, [0, 1] * 20, strict=True))
    found = read_table_rows(file, ["c", "a"], "n")
    assert (found.text_columns, found.label_column, found.kind) == (("c", "a"), "n", "yes-no pairs")
    with pytest.raises(UsageError, match="has no column 'd'; it has a, b, c, n"):
        read_table_rows(file, ["d"])


def test_what_cannot_be_told_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"cannot be told apart: texts text, label none"):
        read_table_rows(table(tmp_path, ["text"], [(a,) for a in A]))
    with pytest.raises(UsageError, match="has 40 values in 40 rows"):
        read_table_rows(table(tmp_path, ["text", "label"], zip(A, range(40), strict=True)))
    with pytest.raises(InputError, match=r"t\.csv, line 3: the label 'label' is empty"):
        read_table_rows(table(tmp_path, ["text", "label"], [("a b", "x"), ("c d", ""), ("e f", "x"), ("g", "y")]))
    with pytest.raises(InputError, match=r"t\.csv, line 3: 'b' must be a text"):
        read_table_rows(table(tmp_path, ["a", "b"], [("one two", "x y"), ("three", "")]), ["a", "b"])
    graded = zip(A, B, ["nan", *(i % 5 for i in range(39))], strict=True)
    with pytest.raises(
        InputError, match=r"t\.csv, line 2: 'nan' in the column 'score' is no number, and 39 of its 40 values"
    ):
        read_table_rows(table(tmp_path, ["sentence1", "sentence2", "score"], graded))
    (tmp_path / "t.txt").write_text("one\n")
    with pytest.raises(UsageError, match="is plain text, which has no columns"):
        read_table_rows(tmp_path / "t.txt")


def test_a_table_divided_by_semicolons(tmp_path):
    rows = [f"{a};{b};{i % 2}" for i, (a, b) in enumerate(zip(A, B, strict=True))]
    (tmp_path / "t.csv").write_text("\n".join(["text1;text2;label", *rows]) + "\n")
    with pytest.raises(UsageError, match="if ';' divides the columns, give --delimiter ';'"):
        read_table_rows(tmp_path / "t.csv")
    with pytest.raises(UsageError, match=r"has no column .text1..*--delimiter .;."):
        read_table_rows(tmp_path / "t.csv", ["text1", "text2"])
    found = read_table_rows(tmp_path / "t.csv", delimiter=";")
    assert (found.kind, found.text_columns, found.label_column) == ("yes-no pairs", ("text1", "text2"), "label")
    with pytest.raises(UsageError, match="one ASCII character"):
        read_table_rows(tmp_path / "t.csv", delimiter=";;")
    (tmp_path / "t.jsonl").write_text('{"a": "b"}\n')
    with pytest.raises(UsageError, match="for CSV and TSV"):
        read_table_rows(tmp_path / "t.jsonl", delimiter=";")
