"""FAISS kinds that take no search parameters are searched; what cannot be searched is refused before anything changes."""

import numpy as np
import pytest

from sbert_mini import IndexWriter, SearchIndex
from sbert_mini.errors import UsageError
from sbert_mini.text.records import Record

ROWS = 1500


@pytest.fixture(scope="module")
def vectors():
    v = np.random.default_rng(0).normal(size=(2 * ROWS, 384)).astype("f4")
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def records(start, stop):
    return [Record(f"r {i}", id=str(i), columns={"n": i}) for i in range(start, stop)]


def files(path):
    return {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file() and p.name != "LOCK"}


@pytest.mark.parametrize("kind", ["SQ8", "PQ16x4", "PQ32x4fs", "LSH", "NSG16", "PCA64,PQ16x4"])
def test_a_rows_own_vector_finds_it(tmp_path, default_embedder, vectors, kind):
    index = IndexWriter(tmp_path / "i", default_embedder).create(records(0, ROWS), vectors=vectors[:ROWS], kind=kind)
    assert index.segment_kinds == [kind]
    for options in ({}, {"filter": "n < 1000"}):
        assert [hits[0].id for hits in index.search(vectors[:3], 1, **options)] == ["0", "1", "2"]


@pytest.mark.parametrize("kind", ["IDMap,Flat", "IVF16(RCQ2x4),SQ8"])
def test_a_kind_that_cannot_be_searched_changes_nothing(tmp_path, default_embedder, vectors, kind):
    path, writer = tmp_path / "i", IndexWriter(tmp_path / "i", default_embedder)
    with pytest.raises(UsageError, match="FAISS"):
        writer.create(records(0, ROWS), vectors=vectors[:ROWS], kind=kind)
    assert not path.exists()
    writer.create(records(0, ROWS), vectors=vectors[:ROWS], kind="SQ8")
    before = files(path)
    with pytest.raises(UsageError, match="FAISS"):
        IndexWriter(path).compact(kind=kind)
    assert files(path) == before
    index = SearchIndex(path)
    assert (index.generation, index.kind.factory, index.search(vectors[:1], 1)[0][0].id) == (1, "SQ8", "0")


def test_an_addition_that_cannot_be_searched_changes_nothing(tmp_path, default_embedder, vectors):
    path, writer = tmp_path / "i", IndexWriter(tmp_path / "i", default_embedder)
    writer.create(records(0, 10), vectors=vectors[:10], kind="IDMap,Flat")  # so few rows are searched exactly
    before = files(path)
    with pytest.raises(UsageError, match="FAISS"):
        writer.add(records(10, ROWS), vectors=vectors[10:ROWS])
    assert files(path) == before
    assert len(SearchIndex(path)) == 10
