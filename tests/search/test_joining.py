"""Several indexes become one: rows, vectors and columns are kept, ids stay unique, and what does not fit is refused."""

import numpy as np
import pytest

from sbert_mini import Embedder, IndexWriter, SearchIndex, merge_indexes
from sbert_mini.errors import IndexExistsError, InputError, ModelMismatchError, UsageError
from sbert_mini.search.joining import JoinCounts
from sbert_mini.text.records import Record


@pytest.fixture
def model(converted_model):
    return Embedder(converted_model(), threads=1)


@pytest.fixture
def parts(tmp_path, model):
    """Two indexes: one with deleted rows, one with passages and another column; the id `b` stands in both."""
    one = IndexWriter(tmp_path / "one", model)
    one.create([Record("the cat", "a", {"n": 1}), Record("a dog", "b", {"n": 2}), Record("a tree", "c", {"n": 3})])
    IndexWriter(tmp_path / "one").delete(["c"])
    two = IndexWriter(tmp_path / "two", model, passage_tokens=4, overlap=0)
    two.create(
        [Record("the dog. a cat. the tree. a dog.", "long", {"m": "x"}), Record("a cat and a dog", "b", {"n": 9})]
    )
    return tmp_path / "one", tmp_path / "two"


@pytest.mark.parametrize(("which", "text"), [("first", "a dog"), ("last", "a cat and a dog")])
def test_rows_vectors_and_columns_are_kept(tmp_path, parts, which, text):
    counts = JoinCounts()
    index = merge_indexes(tmp_path / "all", parts, on_conflict=which, counts=counts, threads=1)
    one, two = map(SearchIndex, parts)
    assert (counts.rows, counts.left_out, len(index), index.segments, index.deleted_rows) == (3, 1, 3, 1, 0)
    assert {row.id for row in index.rows()} == {"a", "b", "long"}
    assert index.get("b").text == text
    assert index.columns == {"n": "integer", "m": "text"}
    for source, identity in ((one, "a"), (two, "long"), ({"first": one, "last": two}[which], "b")):
        assert index.get(identity) == source.get(identity)
        np.testing.assert_allclose(index.vector(identity), source.vector(identity), atol=1e-6)
    assert index.vectors > 3
    assert index.matching("m = 'x'").tolist() == [int(index._store.find("long"))]
    assert index.search("tree", 1, by="words")[0].id == "long"
    assert index.verify() == []
    grown = IndexWriter(tmp_path / "all", index.embedder()).add([Record("new", "new")])
    assert int(grown._store.find("new")) == 3


def test_an_id_in_several_indexes_is_an_error(tmp_path, parts):
    with pytest.raises(InputError, match=r"^the id 'b' is in several of the indexes; .*--on-conflict first"):
        merge_indexes(tmp_path / "all", parts)
    with pytest.raises(InputError, match="2 ids, such as 'a', 'b', are in several"):
        merge_indexes(tmp_path / "all", [parts[0], parts[0]])
    assert not (tmp_path / "all").exists()


def test_what_does_not_fit_is_refused(tmp_path, parts, model):
    IndexWriter(tmp_path / "text", model).create([Record("the cat", "t", {"n": "many"})])
    with pytest.raises(InputError, match=r"the column 'n' is integer in .*one and text in .*text: "):
        merge_indexes(tmp_path / "all", [parts[0], tmp_path / "text"])
    IndexWriter(tmp_path / "prompt", model).create([Record("the cat", "t")], prompt="the ")
    with pytest.raises(ModelMismatchError, match="different prompts, '' and 'the ', and cannot be merged"):
        merge_indexes(tmp_path / "all", [parts[0], tmp_path / "prompt"])
    IndexWriter(tmp_path / "other", Embedder("sbert-mini-fast", threads=1)).create([Record("the cat", "t")])
    with pytest.raises(ModelMismatchError, match=r"one and .*other were made with different models"):
        merge_indexes(tmp_path / "all", [parts[0], tmp_path / "other"])
    with pytest.raises(UsageError, match="two indexes or more"):
        merge_indexes(tmp_path / "all", parts[:1])
    with pytest.raises(UsageError, match="on_conflict must be error, first, last"):
        merge_indexes(tmp_path / "all", parts, on_conflict="both")
    with pytest.raises(UsageError, match="lies in one of the indexes to merge"):
        merge_indexes(parts[0] / "all", parts)
    assert not (tmp_path / "all").exists()
    assert not (parts[0] / "all").exists()
    with pytest.raises(IndexExistsError):
        merge_indexes(parts[0], [parts[1], parts[0]])
