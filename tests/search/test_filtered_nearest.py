"""A filter and a FAISS file: where FAISS finds too few of the rows that the filter leaves, they are searched exactly."""

import numpy as np

from sbert_mini import Embedder, IndexWriter
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
