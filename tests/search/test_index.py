"""Searching an index: its hits are those of brute force in NumPy."""

import numpy as np

from sbert_mini import SearchIndex


def test_hits_are_those_of_brute_force(collection_index, embedder, passages, rng):
    index = SearchIndex(collection_index)
    assert len(index) == 240
    vectors = embedder.encode([row["text"] for row in passages])
    queries = ["why does dough rise?", "keeping time on a railway", "how do bats see", "a contract nobody signed"]
    exact = embedder.encode(queries) @ vectors.T
    for query, scores, hits in zip(queries, exact, index.search(queries, 7, by="meaning"), strict=True):
        best = np.argsort(-scores)[:7]
        assert [hit.id for hit in hits] == [passages[i]["id"] for i in best]
        np.testing.assert_allclose([hit.score for hit in hits], scores[best], atol=1e-3)
        assert hits[0].text == passages[best[0]]["text"]
        assert hits[0].columns == {key: passages[best[0]][key] for key in ("topic", "title", "level")}
        assert [h.id for h in index.search(query, 7, by="meaning")] == [h.id for h in hits]
    random = rng.standard_normal((5, 384)).astype(np.float32)
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    scores, rows = index.nearest(random, 11)
    np.testing.assert_array_equal(rows, np.argsort(-(random @ vectors.T), axis=1)[:, :11])


def test_each_text_finds_itself(collection_index, passages):
    index = SearchIndex(collection_index)
    for row, hits in zip(passages, index.search([row["text"] for row in passages], 1), strict=True):
        assert hits[0].id == row["id"]
        assert hits[0].cosine >= 0.9999
