"""The nearest rows of every kind of index, with and without a filter, against brute force in NumPy."""

import numpy as np
import pytest
from indexes import ROWS, make, unit

from sbert_mini import Embedder, IndexWriter, SearchIndex
from sbert_mini.text.records import Record

NEAR, FAR = 4_003, 12_007
"""Rows around the queries, and rows on the other side of the sphere: more than are scanned without asking FAISS."""


def test_rows_that_faiss_does_not_reach_are_found_by_looking_at_all(tmp_path, make_model):
    """The neighbours that FAISS visits lie near the query; the filter leaves the rows on the other side alone."""
    rng = np.random.default_rng(5)
    side = rng.standard_normal(28)
    vectors = rng.standard_normal((NEAR + FAR, 28)) + np.where(np.arange(NEAR + FAR) < NEAR, 9, -9)[:, None] * side
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    records = [Record("the cat", str(i), {"far": i >= NEAR}) for i in range(NEAR + FAR)]
    writer = IndexWriter(tmp_path / "index", Embedder(make_model()))
    index = writer.create(records, vectors=vectors, kind="HNSW16_SQ8")
    queries = vectors[:11]
    scores, rows = index.nearest(queries, 13, filter="far = true")
    exact = queries @ vectors[NEAR:].T
    truth = np.argsort(-exact, axis=1, kind="stable")[:, :13]
    np.testing.assert_array_equal(rows, truth + NEAR)
    np.testing.assert_allclose(scores, np.take_along_axis(exact, truth, 1), atol=1e-5)


KINDS = [
    "exact",
    "SQ8",
    "SQfp16",
    "IVF32,SQ8",
    "IVF32,Flat",
    "HNSW16_SQ8",
    "RaBitQ",
    "RaBitQ,Refine(SQ8)",
    "IVF32,RaBitQ",
]


@pytest.mark.parametrize("pca", [None, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_finds_what_brute_force_finds(
    tmp_path, converted_model, numbered_records, clustered_vectors, rng, kind, pca
):
    index = make(tmp_path / "index", converted_model, numbered_records, clustered_vectors, kind=kind, pca=pca)
    named = "exact" if kind == "exact" else kind if pca is None else f"PCA20,{kind}"
    assert index.segment_kinds == [named]
    queries = unit(clustered_vectors[:37] + 0.02 * rng.standard_normal((37, 28)))
    exact = queries @ clustered_vectors.T
    truth = np.argsort(-exact, axis=1)[:, :11]
    scores, rows = index.nearest(queries, 11)
    np.testing.assert_allclose(
        scores, np.take_along_axis(exact, rows, 1), atol=1e-5
    )  # rescored: the cosines, whatever the kind
    assert np.mean([len(set(a) & set(b)) / 11 for a, b in zip(rows, truth, strict=True)]) >= (0.9 if pca else 0.97)
    _, rows = index.nearest(queries, 11, exact=True)
    np.testing.assert_array_equal(rows, truth)
    again = SearchIndex(tmp_path / "index")
    np.testing.assert_array_equal(again.nearest(queries, 11)[1], index.nearest(queries, 11)[1])
    assert again.verify() == []
    faiss = sorted(file.name for file in (tmp_path / "index" / "faiss").glob("*"))
    assert faiss == ([] if kind == "exact" else ["000001.faiss", "000001.json"])


@pytest.mark.parametrize("kind", KINDS)
def test_with_a_filter_k_rows_come_back_where_k_exist(
    tmp_path, converted_model, numbered_records, clustered_vectors, kind, monkeypatch
):
    monkeypatch.setattr("sbert_mini.search.nearest.SCANNED_ROWS", 20)  # so that FAISS is asked at this size too
    index = make(tmp_path / "index", converted_model, numbered_records, clustered_vectors, kind=kind)
    IndexWriter(tmp_path / "index").delete([str(i) for i in range(0, ROWS, 5)])
    index = SearchIndex(tmp_path / "index")
    queries = clustered_vectors[:13]
    exact = queries @ clustered_vectors.T
    for condition, keep in (
        ("n >= 0", lambda i: True),
        ("lang = 'en' and n < 2000", lambda i: i % 3 == 0 and i < 2000),
        ("n % 50 = 1", lambda i: i % 50 == 1),
        ("n in (1, 2, 3, 4)", lambda i: i in (1, 2, 3, 4)),
        ("n < 0", lambda i: False),
    ):
        allowed = np.array([keep(i) and i % 5 != 0 for i in range(ROWS)])
        _, rows = index.nearest(queries, 17, filter=condition)
        assert rows.shape == (13, min(17, allowed.sum())), condition
        assert allowed[rows].all()
        truth = np.argsort(-np.where(allowed, exact, -9), axis=1)[:, : rows.shape[1]]
        overlap = [len(set(a) & set(b)) for a, b in zip(rows, truth, strict=True)]
        assert sum(overlap) >= 0.95 * truth.size, condition
        assert all(len(set(row)) == len(row) for row in rows.tolist())


@pytest.mark.parametrize("kind", ["PQ7x4fs", "PQ14x4fs"])
def test_a_kind_that_cannot_leave_out_rows_is_scanned(
    tmp_path, converted_model, numbered_records, clustered_vectors, kind, monkeypatch
):
    monkeypatch.setattr("sbert_mini.search.nearest.SCANNED_ROWS", 20)  # so that FAISS is asked
    x = clustered_vectors[:1100]
    index = make(tmp_path / "index", converted_model, numbered_records[:1100], x, kind=kind)
    assert index.segment_kinds == [kind]
    scores, rows = index.nearest(x[:7], 5, filter="even")
    truth = np.argsort(-(x[:7] @ x[::2].T), axis=1)[:, :5] * 2
    np.testing.assert_array_equal(rows, truth)
    np.testing.assert_allclose(scores, np.take_along_axis(x[:7] @ x.T, truth, 1), atol=1e-5)
