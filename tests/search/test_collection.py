"""A collection against a dict; DataFrames against the rows that they show."""

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbert_mini import Collection, IndexWriter, SearchIndex
from sbert_mini.errors import IndexNotFoundError, InputError

CHANGE = st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["one", "two", "three", None]), min_size=1)


@settings(max_examples=15)
@given(st.lists(CHANGE, max_size=4))
def test_a_collection_is_a_dict_that_can_be_searched(tmp_path_factory, default_embedder, changes):
    collection = Collection(tmp_path_factory.mktemp("x") / "index", default_embedder)
    collection.upsert([{"id": "kept", "text": "always"}])
    held = {"kept": "always"}
    for change in changes:
        new = {name: text for name, text in change.items() if text is not None}
        if new:
            counts = collection.upsert({"id": name, "text": text} for name, text in new.items())
            assert counts.unchanged == sum(held.get(name) == text for name, text in new.items())
            assert counts.rows == len(new) - counts.unchanged
        held |= new
        gone = [name for name, text in change.items() if text is None and name in held]
        if gone:
            assert collection.delete(gone) == len(gone)
        held = {name: text for name, text in held.items() if name not in gone}
        assert len(collection) == len(held)
        rows = collection.get(list("abcd"))
        assert [None if row is None else row.text for row in rows] == [held.get(name) for name in "abcd"]
        assert {hit.id for hit in collection.query("one", 10)} == set(held)


def test_before_the_first_row_and_other_writers(tmp_path, default_embedder):
    collection = Collection(tmp_path / "index", default_embedder)
    assert (len(collection), collection.get("a")) == (0, [None])
    with pytest.raises(IndexNotFoundError):
        collection.query("x")
    with pytest.raises(InputError, match="no text"):
        collection.upsert([])
    collection.upsert(["a text without an id"])
    IndexWriter(tmp_path / "index", default_embedder).add([{"id": "b", "text": "of another process"}])
    assert collection.query("another process", 1)[0].id == "b"


@pytest.mark.parametrize("kind", ["pandas", "arrow"])
def test_data_frames(tmp_path, default_embedder, kind):
    frame = pd.DataFrame(
        {
            "id": [7, 8],
            "text": ["a cat", "a dog"],
            "price": [1.5, float("nan")],
            "day": pd.to_datetime(["2026-01-02", None]),
        }
    )
    rows = frame if kind == "pandas" else pa.Table.from_pandas(frame)
    IndexWriter(tmp_path / "index", default_embedder).create(rows)
    index = SearchIndex(tmp_path / "index")
    assert index.get("7").columns == {"price": 1.5, "day": "2026-01-02T00:00:00"}
    assert index.get("8").columns["price"] is None
    assert [hit.id for hit in index.search("dog", filter="price is null")] == ["8"]


def test_an_update_with_other_passages_encodes_equal_rows_again(tmp_path, default_embedder):
    rows = [{"id": "a", "text": "some words " * 30}, {"id": "b", "text": "other words"}]
    IndexWriter(tmp_path / "index", default_embedder).create(rows)
    same = IndexWriter(tmp_path / "index", default_embedder)
    same.update(rows)
    assert (same.counts.unchanged, same.counts.rows, SearchIndex(tmp_path / "index").generation) == (2, 0, 1)
    other = IndexWriter(tmp_path / "index", default_embedder, passage_tokens=20)
    other.update(rows)
    assert (other.counts.unchanged, other.counts.rows) == (0, 2)
