"""Scores are cosines: each row finds itself at 1, whatever stores it."""

import numpy as np
import pytest

from sbert_mini import IndexWriter
from sbert_mini.search.columns import Schema
from sbert_mini.search.scoring import rescored
from sbert_mini.search.segment import Segment, SegmentWriter, StoredRow
from sbert_mini.text.records import Record


@pytest.mark.parametrize("options", [{}, {"kind": "SQ8"}, {"kind": "SQ8", "pca": 64}, {"kind": "HNSW16"}])
@pytest.mark.parametrize("given_as", [None, np.float16, np.float64])
def test_each_row_finds_itself_at_one_whatever_stores_it(
    default_embedder, passage_sentences, tmp_path, options, given_as
):
    # Enough rows for FAISS: 300 sentences with four numbers each, whose vectors are drawn where they are given.
    texts = [f"{text} {i}" for text in passage_sentences[:275] for i in range(4)]
    vectors = np.random.default_rng(5).normal(size=(len(texts), 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    some = range(0, len(texts), 50)
    vectors[list(some)] = default_embedder.encode([texts[i] for i in some])
    records = (Record(text, id=str(i)) for i, text in enumerate(texts))
    index = IndexWriter(tmp_path / "x", default_embedder).create(
        records, vectors=vectors.astype(given_as or np.float32), **options
    )
    for i, hits in zip(some, index.search([texts[i] for i in some], 2, min_score=1), strict=True):
        assert [(hit.id, hit.cosine) for hit in hits] == [(str(i), 1.0)]
    scores, _ = index.nearest(vectors[:64], 20)
    assert scores.max() == 1
    assert scores.min() >= -1


def test_rescoring_what_was_proposed_by_hand(tmp_path):
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    schema = Schema()
    with SegmentWriter(tmp_path, "000001", 2, schema) as writer:
        writer.write([StoredRow(str(i), "a cat", {}) for i in range(3)], vectors)
    entry = {"name": "000001", "rows": 3, "checksums_sha256": writer.checksum}
    segment = Segment(tmp_path / "000001", entry)
    scores, rows = rescored(segment, vectors[:2], np.array([[2, -1, 1], [-1, -1, -1]]), 3)
    assert rows.tolist() == [[1, 2, -1], [-1, -1, -1]]
    np.testing.assert_allclose(scores, [[0.6, 0, -np.inf], [-np.inf] * 3], atol=1e-7)
    assert segment.vectors_at(np.array([], np.int64), 2).shape == (0, 2)
    rows = rescored(segment, vectors[:1], np.array([[-1]]), 1)[1]
    assert rows.tolist() == [[-1]]
