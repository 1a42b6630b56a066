"""Rows of equal vectors: FAISS is given each vector once, and every row is found."""

import numpy as np
import pytest
from conftest import tiny_model

from sbert_mini import Embedder, IndexWriter, SearchIndex
from sbert_mini.errors import CorruptIndexError
from sbert_mini.search.repeats import Groups
from sbert_mini.text.records import Record

DIM, DISTINCT = 28, 1200


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    return Embedder(tiny_model(path))


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((DISTINCT + 1, DIM)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def with_copies(vectors, copies):
    """Return vectors of which the last one stands so often, mixed among the others."""
    order = np.random.default_rng(1).permutation(DISTINCT + copies)
    return np.concatenate([vectors[:DISTINCT], np.repeat(vectors[DISTINCT:], copies, 0)])[order]


def make(path, embedder, x, kind):
    records = [Record(f"row {i}", str(i), {"n": i % 3}) for i in range(len(x))]
    return IndexWriter(path, embedder).create(records, vectors=x, kind=kind)


@pytest.mark.parametrize("copies", [0, 200, 3000])
@pytest.mark.parametrize("kind", ["HNSW32_SQ8", "IVF16,SQ8", "SQ8"])
def test_a_row_is_found_by_its_own_vector_however_often_another_one_stands(tmp_path, embedder, vectors, kind, copies):
    x = with_copies(vectors, copies)
    index = make(tmp_path / "index", embedder, x, kind)
    assert index.segment_kinds == [kind]
    assert (tmp_path / "index" / "faiss" / "000001.repeats.npy").exists() == (copies > 1)
    queries = x[:: len(x) // 200]
    for opened in (index, SearchIndex(tmp_path / "index")):
        scores, rows = opened.nearest(queries, 10)
        best, _ = opened.nearest(queries, 10, exact=True)
        assert scores[:, 0] == pytest.approx(1, abs=1e-5)
        assert (scores[:, 0] >= best[:, 0] - 1e-6).all()
        assert np.mean(scores >= best[:, -1:] - 1e-6) > 0.97  # recall@10
        assert all(len(set(found)) == 10 for found in rows.tolist())
        for query, found, given in zip(queries, rows, scores, strict=True):
            np.testing.assert_allclose(x[found] @ query, given, atol=1e-5)


@pytest.mark.parametrize("kind", ["HNSW32_SQ8", "IVF16,SQ8"])
def test_filters_and_deletions_leave_out_rows_of_a_group(tmp_path, embedder, vectors, kind, monkeypatch):
    monkeypatch.setattr("sbert_mini.search.nearest.SCANNED_ROWS", 0)  # so that FAISS is asked
    x = with_copies(vectors, 300)
    path = tmp_path / "index"
    index = make(path, embedder, x, kind)
    copies = np.flatnonzero((x == vectors[DISTINCT]).all(axis=1))
    assert len(copies) == 300
    _, rows = index.nearest(vectors[DISTINCT:], 400, filter="n = 1")
    expected = {int(row) for row in copies if row % 3 == 1}
    assert set(rows[0, : len(expected)].tolist()) == expected
    assert all(row % 3 == 1 for row in rows[0].tolist())
    IndexWriter(path).delete([str(row) for row in copies[:150]])
    _, rows = SearchIndex(path).nearest(vectors[DISTINCT:], 150)
    assert sorted(rows[0].tolist()) == copies[150:].tolist()
    compacted = IndexWriter(path).compact()
    assert sorted(compacted.nearest(vectors[DISTINCT:], 150)[1][0].tolist()) == copies[150:].tolist()
    assert compacted.verify() == []


def test_too_few_different_vectors_for_faiss_are_searched_exactly(tmp_path, embedder, vectors):
    x = np.repeat(vectors[:3], 700, 0)
    index = make(tmp_path / "index", embedder, x, "IVF16,SQ8")
    scores, rows = index.nearest(vectors[1:2], 700)
    assert scores[0] == pytest.approx(1, abs=1e-5)
    assert sorted(rows[0].tolist()) == list(range(700, 1400))


def test_a_damaged_file_of_repeats_is_found_and_made_anew(tmp_path, embedder, vectors):
    path = tmp_path / "index"
    x = with_copies(vectors, 200)
    make(path, embedder, x, "SQ8")
    file = path / "faiss" / "000001.repeats.npy"
    data = bytearray(file.read_bytes())
    data[-8] ^= 1
    file.write_bytes(data)
    assert any("000001.repeats.npy" in line for line in SearchIndex(path).verify())
    scores, _ = SearchIndex(path).nearest(x[:50], 1)
    assert scores == pytest.approx(1, abs=1e-5)
    assert SearchIndex(path).verify() == []


@pytest.mark.parametrize(
    "repeats",
    [
        [[0, 1]],  # the first row after the one that repeats it
        [[2, 2]],
        [[5, 0]],  # of 5 rows
        [[1, -1]],
        [[1, 0], [3, 1]],  # a first row that repeats another one
    ],
)
def test_repeats_of_another_segment_are_refused(repeats):
    with pytest.raises(CorruptIndexError, match="repeated vectors belongs to another segment"):
        Groups(np.array(repeats), 5)


def test_groups_by_hand():
    groups = Groups(np.array([[2, 0], [3, 1], [4, 0]]), 6)  # the groups 0 2 4, 1 3, and 5
    assert groups.firsts.tolist() == [0, 1, 5]
    allowed = np.array([False, False, True, False, True, True])
    assert groups.any_of(allowed).tolist() == [True, False, True]
    scores, firsts = np.array([[0.9, 0.8, 0.7]], np.float32), np.array([[1, 0, 5]])
    assert groups.expanded(scores, firsts, 4, None)[1].tolist() == [[1, 3, 0, 2]]
    found, rows = groups.expanded(scores, firsts, 4, allowed)
    assert rows.tolist() == [[2, 4, 5, -1]]
    np.testing.assert_array_equal(found, np.array([[0.8, 0.8, 0.7, -np.inf]], np.float32))
