"""Scores are cosines: each row finds itself at 1, whatever stores it."""

import numpy as np
import pytest

from sbert_mini import IndexWriter
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
        assert [(hit.id, hit.score) for hit in hits] == [(str(i), 1.0)]
    scores, _ = index.nearest(vectors[:64], 20)
    assert scores.max() == 1
    assert scores.min() >= -1
