"""`sbmini mine`: a table that `sbmini train` reads, in each format, and what is refused."""

import csv
import json

import pytest
from conftest import one_error, run_here
from pyarrow import parquet

from sbert_mini.recipes.table_columns import read_table_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory, passage_sentences):
    folder = tmp_path_factory.mktemp("mine")
    rows = list(zip(passage_sentences[:40], passage_sentences[40:80], strict=True))
    with (folder / "pairs.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("query", "positive"), *rows])
    with (folder / "labelled.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("a", "b", "label"), *((*row, i % 4 // 3) for i, row in enumerate(rows))])
    (folder / "texts.txt").write_text("\n".join(passage_sentences[80:200]))
    (folder / "semi.csv").write_text("query;positive\na cat;cats\n")
    (folder / "triplets.csv").write_text("anchor,positive,negative\na,b,c\nd,e,f\n")
    return folder


def mine(folder, *arguments):
    return run_here(folder, "mine", *arguments, "-m", "sbert-mini-fast", "--threads", "1")


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_the_output_is_a_table_to_train_from(folder, suffix):
    done = mine(folder, "pairs.csv", "--corpus", "texts.txt", "-o", f"t.{suffix}", "--num-negatives", 2, "--no-margin")
    assert done.returncode == 0, done.stderr
    assert "40 pairs of 40 queries, mined from 160 texts" in done.stderr
    found = read_table_rows(folder / f"t.{suffix}")
    assert (found.kind, found.text_columns) == ("triplets", ("query", "positive", "negative"))
    assert len(found.texts) == 80


def test_other_layouts(folder):
    done = mine(folder, "labelled.csv", "-o", "n.jsonl", "--output-format", "n-tuple", "--output-scores", "--no-margin")
    assert done.returncode == 0, done.stderr
    assert "30 rows with the label 0 are no pairs" in done.stderr
    row = json.loads((folder / "n.jsonl").read_text().splitlines()[0])
    assert list(row)[:5] == ["a", "b", "negative_1", "negative_2", "negative_3"]
    assert row["negative_1_score"] >= row["negative_3_score"]
    assert read_table_rows(folder / "n.jsonl").kind == "triplets"
    assert (
        mine(folder, "pairs.csv", "-o", "l.parquet", "--output-format", "labeled-pair", "--no-margin").returncode == 0
    )
    labels = parquet.read_table(folder / "l.parquet").to_pydict()["label"]
    assert (labels.count(1), labels.count(0)) == (40, 120)
    assert read_table_rows(folder / "l.parquet").kind == "yes-no pairs"


def test_pairs_without_negatives_are_listed(folder):
    arguments = ("--no-margin", "--max-score", 0.3, "--range-max", 4, "--unmined", "u.jsonl")
    done = mine(folder, "pairs.csv", "-o", "few.csv", *arguments)
    assert done.returncode == 0, done.stderr
    listed = [json.loads(line) for line in (folder / "u.jsonl").read_text().splitlines()]
    rows = (folder / "few.csv").read_text().splitlines()
    assert len(rows) - 1 == 3 * 40 - sum(3 - row["negatives"] for row in listed)
    assert ("no negative" in done.stderr) is any(row["negatives"] == 0 for row in listed)
    assert ("fewer than 3 negatives" in done.stderr) is any(row["negatives"] for row in listed)
    assert listed[0]["discarded"]
    one_error(
        mine(folder, "pairs.csv", "-o", "none.csv", "--max-score", "-1", "-q"), 1, "no negative was found for any pair"
    )
    assert not (folder / "none.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["gone.csv", "-o", "x.csv"], 1, "gone.csv"),
        (["pairs.csv", "-o", "x.txt"], 2, "must end in"),
        (["pairs.csv", "-o", "pairs.csv"], 2, "would replace the input"),
        (["pairs.csv", "-o", "-"], 2, "must be a file"),
        (["triplets.csv", "-o", "x.csv"], 2, "holds triplets"),
        (["semi.csv", "-o", "x.csv"], 2, "give --delimiter ';'"),
        (["pairs.csv", "-o", "x.csv", "--anchor-column", "query"], 2, "go together"),
        (["pairs.csv", "-o", "x.csv", "--no-margin", "--relative-margin", "0.1"], 2, "--no-margin goes without"),
        (["pairs.csv", "-o", "x.csv", "--no-margin", "--teacher", "sbert-mini"], 2, "--teacher judges"),
        (["pairs.csv", "-o", "x.csv", "--range-min", "5", "--range-max", "6"], 2, "range_max must be at least"),
        (["pairs.csv", "-o", "x.csv", "--text-column", "text"], 2, "for the texts of a --corpus"),
        (["pairs.csv", "-o", "x.jsonl", "--unmined", "x.jsonl"], 2, "the same file"),
        (["pairs.csv", "-o", "x.csv", "--corpus", "gone.txt"], 1, "gone.txt"),
    ],
)
def test_mistakes_are_one_line(folder, arguments, code, said):
    one_error(mine(folder, *arguments, "-q"), code, said)
    assert not (folder / "x.csv").exists()
