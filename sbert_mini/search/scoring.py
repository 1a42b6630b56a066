"""Stored vectors scored: some that were proposed, or all."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from sbert_mini.search.faiss_threads import faiss_with
from sbert_mini.search.segment import Segment
from sbert_mini.shapes import FloatArray, IntArray


def rescored(
    segment: Segment, queries: FloatArray, proposed: IntArray, k: int, threads: int = 1
) -> tuple[FloatArray, IntArray]:
    """Return the cosines and positions of the best of some vectors that were proposed for each query, best first.

    Args:
        segment: holds the vectors.
        queries: of length 1.
        proposed: positions, -1 for none.
        k: the most vectors a query.
        threads: for checking the vectors' blocks, the first time.

    Shapes:
        queries: (queries, dim); proposed: (queries, proposals); each result: (queries, min(k, proposals)).
    """
    dimension = queries.shape[1]
    unique, inverse = np.unique(proposed, return_inverse=True)
    vectors = np.zeros((len(unique), dimension), np.float32)
    present = unique >= 0
    vectors[present] = segment.vectors_at(unique[present], dimension, threads)
    scores = np.empty(proposed.shape, np.float32)
    for query, rows, row_scores in zip(queries, inverse.reshape(proposed.shape), scores, strict=True):
        row_scores[:] = vectors[rows] @ query
    scores[proposed < 0] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(proposed, order, 1)


def rows_rescored(segment: Segment, queries: FloatArray, rows: IntArray) -> tuple[FloatArray, IntArray]:
    """Return the cosines of some rows' nearest passages to each query, and the rows, nearest first.

    Args:
        segment: holds the vectors and the passages.
        queries: of length 1.
        rows: different ones for each query.

    Shapes:
        queries: (queries, dim); rows: (queries, k); each result: (queries, k).
    """
    passages = segment.passages
    assert passages is not None  # noqa: S101
    rows = np.sort(rows, axis=1)
    scores = np.empty(rows.shape, np.float32)
    for query, of_query, row in zip(queries, rows, scores, strict=True):
        positions = [passages.of_row(number) for number in of_query.tolist()]
        starts = np.cumsum([0, *map(len, positions[:-1])])
        cosines = segment.vectors_at(np.concatenate(positions), queries.shape[1]) @ query
        row[:] = np.maximum.reduceat(cosines, starts)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def scanned(
    blocks: Iterable[tuple[IntArray, FloatArray]], queries: FloatArray, k: int, threads: int
) -> tuple[FloatArray, IntArray]:
    """Return the cosines and positions of the vectors nearest to each query, nearest first, of all in some blocks.

    Args:
        blocks: positions and their vectors.
        queries: of length 1.
        k: the most vectors a query.
        threads: for FAISS.

    Shapes:
        blocks: each (some,) and (some, dim); queries: (queries, dim); each result: (queries, min(k, all vectors)).
    """
    best = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for block in blocks:
        best = merged(best, block, queries, k, threads=threads)
    return best


def merged(
    best: tuple[FloatArray, IntArray],
    block: tuple[IntArray, FloatArray],
    queries: FloatArray,
    k: int,
    excluded: Sequence[tuple[int, int]] = (),
    *,
    threads: int = 1,
) -> tuple[FloatArray, IntArray]:
    """Return the cosines and positions of the best of some that were found before and of those in a block, best first.

    Args:
        best: cosines and positions, of each query.
        block: positions and their vectors.
        queries: of length 1.
        k: the most vectors a query.
        excluded: query and place in the block, of vectors that are not for a query.
        threads: for FAISS.

    Shapes:
        best and the result: each (queries, at most k); block: (some,) and (some, dim); queries: (queries, dim).
    """
    faiss = faiss_with(threads)
    positions, vectors = block
    most = max(Counter(query for query, _ in excluded).values(), default=0)
    depth = min(k + most, len(vectors))
    scores, rows = faiss.knn(queries, vectors, depth, metric=faiss.METRIC_INNER_PRODUCT)
    numbers = positions[rows]
    for query, place in excluded:
        out = rows[query] == place
        scores[query, out], numbers[query, out] = -np.inf, -1
    scores, numbers = np.concatenate([best[0], scores], axis=1), np.concatenate([best[1], numbers], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(numbers, order, 1)
