"""What is exported is what the index holds: read back by pyarrow and the json module."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from sbert_mini import IndexWriter, SearchIndex
from sbert_mini.errors import InputError, UsageError
from sbert_mini.search.export import export
from sbert_mini.text.records import Record, read_records

ROWS = [
    {"id": "a", "text": "a cat", "n": 3, "x": 1.5, "ok": True, "l": [1, 2]},
    {"id": "b", "text": "a dog", "n": None, "note": "some words"},
    {"id": "c", "text": "long words " * 40, "n": -7},
]


@pytest.fixture(scope="module")
def index(tmp_path_factory, default_embedder):
    path = tmp_path_factory.mktemp("x") / "index"
    writer = IndexWriter(path, default_embedder, passage_tokens=20)
    writer.create(ROWS[:2])
    writer.add(ROWS[2:])
    return SearchIndex(path)


def test_parquet_has_the_rows_with_types_and_vectors(index, tmp_path):
    assert export(index, tmp_path / "x.parquet", with_vectors=True) == 3
    table = pq.read_table(tmp_path / "x.parquet")
    assert [str(table.schema.field(name).type) for name in ("n", "x", "ok", "l")] == [
        "int64",
        "double",
        "bool",
        "string",
    ]
    assert table.column("text").to_pylist() == [row["text"] for row in ROWS]
    assert table.column("n").to_pylist() == [3, None, -7]
    assert table.column("l").to_pylist() == ["[1, 2]", None, None]
    (vectors,) = [np.concatenate([block for _, block in index.row_blocks()])]
    assert np.array_equal(np.stack(table.column("embedding").to_numpy()), vectors)
    export(index, tmp_path / "y.parquet", with_vectors=False)
    assert "embedding" not in pq.read_table(tmp_path / "y.parquet").column_names


def test_json_lines_make_the_same_index_again(index, tmp_path, default_embedder):
    export(index, tmp_path / "x.jsonl", with_vectors=False)
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text("utf-8").splitlines()]
    assert lines == ROWS
    export(index, tmp_path / "v.jsonl", with_vectors=True)
    lines = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text("utf-8").splitlines()]
    vectors = np.concatenate([block for _, block in index.row_blocks()])
    assert np.array_equal(np.array([line["embedding"] for line in lines], np.float32), vectors)
    with pytest.raises(UsageError, match=r"\.jsonl or \.parquet"):
        export(index, tmp_path / "x.csv", with_vectors=True)


def test_rows_of_csv_have_typed_values_however_they_are_read(tmp_path, default_embedder):
    """They are stored as they came: an update with the same file changes nothing."""
    records = [
        Record("a cat", "a", {"year": "2019", "code": "007", "x": "0.5", "ok": "true"}, typed=False),
        Record("a dog", "b", {"year": "", "code": "1", "x": "2", "ok": "false"}, typed=False),
    ]
    expected = [
        {"year": 2019, "code": "007", "x": 0.5, "ok": True},
        {"year": None, "code": "1", "x": 2, "ok": False},
    ]
    path = tmp_path / "index"
    writer = IndexWriter(path, default_embedder)
    writer.create(records)
    writer.update(records)
    assert (writer.counts.rows, writer.counts.unchanged) == (0, 2)
    index = SearchIndex(path)
    assert [row.columns for row in index.rows()] == expected
    assert [row.columns for block, _ in index.row_blocks() for row in block] == expected
    assert [index.get(identity).columns for identity in "ab"] == expected
    assert [hit.columns for hit in sorted(index.search("a cat"), key=lambda hit: hit.id)] == expected
    export(index, tmp_path / "x.jsonl", with_vectors=False)
    again = IndexWriter(tmp_path / "again", default_embedder)
    again.create(read_records(tmp_path / "x.jsonl"))
    assert SearchIndex(tmp_path / "again").columns == index.columns


def test_what_a_format_cannot_hold_is_escaped_or_refused(tmp_path, default_embedder):
    rows = [{"id": "a", "text": "a cat", "note": "half \ud800"}, {"id": "b", "text": "a dog", "note": "中"}]
    IndexWriter(tmp_path / "x", default_embedder).create(rows)
    index = SearchIndex(tmp_path / "x")
    export(index, tmp_path / "x.jsonl", with_vectors=False)
    lines = (tmp_path / "x.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows
    assert "中" in lines[1]
    (tmp_path / "x.parquet").write_text("an earlier file")
    with pytest.raises(InputError, match="row 'a' has half of a surrogate pair in 'note'"):
        export(index, tmp_path / "x.parquet", with_vectors=False)
    assert (tmp_path / "x.parquet").read_text() == "an earlier file"


def test_a_column_of_the_vectors_name_is_not_lost(tmp_path, default_embedder):
    IndexWriter(tmp_path / "x", default_embedder).create([{"id": "a", "text": "a cat", "embedding": "mine"}])
    index = SearchIndex(tmp_path / "x")
    for name in ("x.jsonl", "x.parquet"):
        with pytest.raises(UsageError, match="a column 'embedding'"):
            export(index, tmp_path / name, with_vectors=True)
        assert not (tmp_path / name).exists()
        export(index, tmp_path / name, with_vectors=False)
    assert json.loads((tmp_path / "x.jsonl").read_text())["embedding"] == "mine"
    assert pq.read_table(tmp_path / "x.parquet").column("embedding").to_pylist() == ["mine"]


def test_the_commands(index, sbmini_here, tmp_path):
    assert sbmini_here("index", "list", index.path).stdout == "a\nb\nc\n"
    assert sbmini_here("index", "list", index.path, "--filter", "n is not null", "--limit", "1").stdout == "a\n"
    done = sbmini_here("index", "get", index.path, "b", "missing")
    assert json.loads(done.stdout) == ROWS[1]
    assert (done.returncode, done.stderr) == (
        1,
        "sbmini: error: 1 of 2 ids are not in the index; the first is 'missing'\n",
    )
    done = sbmini_here("index", "export", index.path, "-o", "x.parquet")
    assert done.stderr == "sbmini: 3 rows -> x.parquet\n"
    assert pq.read_table(tmp_path / "x.parquet").num_rows == 3


def test_rows_like_a_row(index, sbmini_here):
    done = sbmini_here("search", index.path, "--like", "a", "--jsonl")
    hits = json.loads(done.stdout)["hits"]
    assert {hit["id"] for hit in hits} == {"b", "c"}
    first, second, long = np.concatenate([block for _, block in index.row_blocks()])
    assert np.array_equal(index.vector("c"), long)
    assert hits[0]["cosine"] == pytest.approx(first @ second, abs=1e-6)
    for wrong, code in (("missing", 1), ("a", 2)):
        done = sbmini_here("search", index.path, *(["a query"] if code == 2 else []), "--like", wrong)
        assert done.returncode == code
        assert "--like takes the place" in done.stderr or "'missing' is not in the index" in done.stderr
