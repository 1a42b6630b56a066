"""`sbmini cluster`: groups of an index, of texts and of vectors, and later rows in the same groups."""

import json

import numpy as np
import pytest
from conftest import one_error

BREAD = ["Bread stays fresh in a bag", "Bread stays fresh in a cloth bag", "fresh bread stays in a bag of cloth"]
DOGS = [
    "A dog runs on the grass",
    "A brown dog runs on grass",
    "the dog is running on the grass",
    "Two dogs run on the grass",
]
TEXTS = [*BREAD, *DOGS, "The committee adjourned"]


@pytest.fixture
def source(tmp_path):
    lines = [json.dumps({"id": f"r{i}", "text": text}) for i, text in enumerate(TEXTS)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "t.jsonl"


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


def test_texts_are_grouped_named_and_kept_for_later_rows(sbmini_here, source, tmp_path):
    options = ("--min-size", 3, "--threshold", 0.6)
    done = sbmini_here(
        "cluster", source, *options, "--jsonl", "--save", "g.safetensors", "--rows", "rows.jsonl", "--html", "g.html"
    )
    assert done.returncode == 0, done.stderr
    dogs, bread = lines_of(done.stdout)
    assert (dogs["size"], bread["size"]) == (4, 3)
    assert "bread" in bread["words"]
    assert set(dogs["words"]) & {"dog", "runs", "grass"}
    assert {row["text"] for row in dogs["central"] + dogs["outlying"]} == set(DOGS)
    assert "7 in 2 groups, 1 in none" in done.stderr
    rows = lines_of((tmp_path / "rows.jsonl").read_text())
    assert [row["group"] for row in rows] == [2, 2, 2, 1, 1, 1, 1, None]
    assert [row["id"] for row in rows] == [f"r{i}" for i in range(8)]
    assert rows[0]["name"] == bread["name"]
    assert "<h2>1. " in (tmp_path / "g.html").read_text()
    (tmp_path / "new.txt").write_text("Taxes rose\nA dog runs on the green grass\n")
    done = sbmini_here("cluster", "new.txt", "--assign-to", "g.safetensors", "--rows", "-")
    assert [row["group"] for row in lines_of(done.stdout)] == [None, 1]
    assert lines_of(done.stdout)[1]["name"] == dogs["name"]
    table = sbmini_here("cluster", source, *options, "--top", 1)
    assert table.stdout.splitlines()[0].split()[:2] == ["1", "4"]
    assert table.stdout.count("+") == 3
    assert "1 group is not shown" in table.stderr


def test_an_index_and_its_vectors_have_the_groups_of_its_texts(sbmini_here, source, tmp_path, default_embedder):
    options = ("--min-size", 3, "--threshold", 0.6, "--rows", "-")
    expected = [row["group"] for row in lines_of(sbmini_here("cluster", source, *options).stdout)]
    assert sbmini_here("index", "create", "n.index", "-i", source).returncode == 0
    assert lines_of(sbmini_here("cluster", "n.index", *options).stdout)[0]["id"] == "r0"
    assert [row["group"] for row in lines_of(sbmini_here("cluster", "n.index", *options).stdout)] == expected
    np.save(tmp_path / "v.npy", 3 * default_embedder.encode(TEXTS))
    done = sbmini_here("cluster", "v.npy", *options[:4])
    assert done.stdout.splitlines()[0].split() == ["1", "4", "no", "words"]
    assert [row["group"] for row in lines_of(sbmini_here("cluster", "v.npy", *options).stdout)] == expected


def test_mistakes_get_one_line(sbmini_here, source, tmp_path):
    one_error(sbmini_here("cluster", source, "--threshold", 1.5), 2, "--threshold must be above 0")
    one_error(sbmini_here("cluster", source, "--save", "g.json"), 2, "--save", ".safetensors")
    one_error(sbmini_here("cluster", source, "--rows", "g.csv"), 2, "--rows", "JSON lines")
    one_error(sbmini_here("cluster", source, "--assign-to", "g.safetensors", "--min-size", 3), 2, "--min-size")
    one_error(sbmini_here("cluster", source, "--assign-to", source), 1, "t.jsonl")
    one_error(sbmini_here("cluster", "absent.txt"), 1, "absent.txt")
    np.save(tmp_path / "v.npy", np.ones((0, 3), np.float32))
    one_error(sbmini_here("cluster", "v.npy"), 1, "holds no rows")
    one_error(sbmini_here("cluster", "v.npy", "-m", "sbert-mini"), 2, "--model is for a file of texts")
    one_error(sbmini_here("cluster", "v.npy", "--text-column", "x"), 2, "--text-column")
