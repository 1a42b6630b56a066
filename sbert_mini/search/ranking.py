"""The rows that count of a generation's segments -> each query's hits: by meaning, by words or by both."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice, takewhile
from typing import TypeAlias

import numpy as np

from sbert_mini.cosine import as_cosines
from sbert_mini.search.analyzer import query_terms
from sbert_mini.search.fusion import DEFAULT_BY, HYBRID_DEPTH, RankedRow, SearchBy, fused
from sbert_mini.search.nearest import SegmentSearch
from sbert_mini.search.queries import Hit, Request
from sbert_mini.search.segment import Segment
from sbert_mini.search.word_index import WordIndex
from sbert_mini.shapes import AnyArray, FloatArray, IntArray
from sbert_mini.text.words import is_silent

SCORED_ROWS = 5000
"""Where a filter leaves so few rows, they are all scored by their words."""
DEEPEST = 20_000
"""The best rows by words of which the allowed ones are taken; where they are too few, all allowed rows are scored."""
SPARE = 1.25
Ranking: TypeAlias = list[tuple[int, float]]
"""Rows with what ranks them, best first."""


def nearest_rows(
    searches: Sequence[SegmentSearch],
    vectors: FloatArray,
    k: int,
    allowed: Sequence[AnyArray | None],
    *,
    exact: bool,
) -> tuple[FloatArray, IntArray]:
    """Return the cosines and row numbers of the closest allowed rows of all segments, closest first.

    Shapes:
        vectors: (queries, dim); allowed: for each segment (rows,) or None; each result: (queries, min(k, allowed rows)).
    """
    scores_of, rows_of = [], []
    for search, mask in zip(searches, allowed, strict=True):
        scores, positions = search.nearest(vectors, k, mask, exact=exact)
        scores_of.append(scores)
        rows_of.append(search.segment.row_ids[positions])
    every, rows = as_cosines(np.concatenate(scores_of, axis=1)), np.concatenate(rows_of, axis=1)
    order = np.argsort(-every, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(every, order, 1), np.take_along_axis(rows, order, 1)


def rows_by_meaning(
    searches: Sequence[SegmentSearch],
    vectors: FloatArray,
    depth: int,
    allowed: Sequence[AnyArray | None],
    *,
    exact: bool,
) -> list[Ranking]:
    """Return for each query the numbers and cosines of the closest allowed rows, closest first.

    Shapes:
        vectors: (queries, dim); allowed: for each segment (rows,) or None.
    """
    cosines, rows = nearest_rows(searches, vectors, depth, allowed, exact=exact)
    return [list(zip(*of_query, strict=True)) for of_query in zip(rows.tolist(), cosines.tolist(), strict=True)]


def rows_by_words(
    words: WordIndex, segments: Sequence[Segment], query: str, depth: int, allowed: Sequence[AnyArray | None]
) -> Ranking:
    """Return the numbers and BM25 scores of the allowed rows that share words with a query, best first, ties by row number.

    Args:
        words: of the segments' rows.
        segments: the segments.
        query: any text.
        depth: the most rows.
        allowed: for each segment which of its rows count, (rows,) bool; None for all.
    """
    terms = query_terms(query)
    counts = [
        segment.rows if mask is None else int(np.count_nonzero(mask))
        for segment, mask in zip(segments, allowed, strict=True)
    ]
    count, rows = sum(counts), sum(segment.rows for segment in segments)
    if not terms or not count:
        return []
    depth = min(depth, count)  # tantivy takes memory for as many hits as it is asked for
    deepest = min(max(DEEPEST, depth), rows)
    limit = min(math.ceil(SPARE * depth * rows / count), deepest)
    while count > min(SCORED_ROWS, rows // 2):
        scores, numbers = words.best(terms, limit)
        counted = _are_allowed(numbers, segments, allowed)
        ranked = _ranked(scores[counted], numbers[counted])
        enough = len(ranked) >= depth
        tied = enough and ranked[depth - 1][1] <= _rounded(scores[-1:])[0]  # rows of this score may be left
        if len(numbers) < limit or (enough and (not tied or limit == deepest)):
            return ranked[:depth]
        if limit == deepest:
            break
        limit = min(8 * limit, deepest)
    among = [s.row_ids if mask is None else s.row_ids[mask] for s, mask in zip(segments, allowed, strict=True)]
    return _ranked(*words.best(terms, deepest, np.concatenate(among)))[:depth]


def _are_allowed(rows: IntArray, segments: Sequence[Segment], allowed: Sequence[AnyArray | None]) -> AnyArray:
    """Return which of some rows, each of which is in a segment, count, (rows,) bool."""
    counted = np.zeros(len(rows), bool)
    for segment, mask in zip(segments, allowed, strict=True):
        positions, here = segment.positions_of_rows(rows)
        counted[here] = True if mask is None else mask[positions[here]]
    return counted


def _rounded(scores: FloatArray) -> AnyArray:
    """Return BM25 scores as they are compared: equal rows differ in the last bits, as tantivy adds up in any order."""
    return np.asarray(np.round(scores.astype(np.float64), 4))


def _ranked(scores: FloatArray, rows: IntArray) -> Ranking:
    rounded = _rounded(scores)
    order = np.lexsort((rows, -rounded))
    return list(zip(rows[order].tolist(), rounded[order].tolist(), strict=True))


def bm25_scores(words: WordIndex, segments: Sequence[Segment], query: str, rows: Iterable[int]) -> dict[int, float]:
    """Return the BM25 scores of those of some rows that share words with a query, by the rows' numbers."""
    numbers = np.array(sorted(rows), dtype=np.int64)
    among: list[AnyArray | None] = []
    for segment in segments:
        positions, here = segment.positions_of_rows(numbers)
        mask = np.zeros(segment.rows, dtype=bool)
        mask[positions[here]] = True
        among.append(mask)
    return dict(rows_by_words(words, segments, query, len(numbers), among))


def greatest_bm25(words: WordIndex, query: str) -> float:
    """Return what no row's BM25 score of a query can exceed."""
    return words.greatest_bm25(query_terms(query))


def stored_cosines(
    segments: Sequence[Segment], vector: FloatArray, rows: Iterable[int], threads: int = 1
) -> dict[int, float]:
    """Return the cosines of some rows and a query, by the rows' numbers: of a row's nearest passage.

    `threads` check the vectors' blocks, the first time.

    Shapes:
        vector: (dim,).
    """
    numbers = np.array(sorted(rows), dtype=np.int64)
    cosines: dict[int, float] = {}
    for segment in segments:
        positions, here = segment.positions_of_rows(numbers)
        if not here.any():
            continue
        vectors, firsts = positions[here], np.arange(np.count_nonzero(here))
        if segment.passages is not None:
            vectors = np.concatenate([segment.passages.of_row(position) for position in vectors.tolist()])
            firsts = np.flatnonzero(np.diff(segment.passages.rows[vectors], prepend=-1))
        best = np.maximum.reduceat(segment.vectors_at(vectors, len(vector), threads) @ vector, firsts)
        cosines.update(zip(numbers[here].tolist(), as_cosines(best).tolist(), strict=True))
    return cosines


def default_by(words: WordIndex) -> SearchBy:
    """Return what ranks rows where a search does not say it: by meaning alone if the words of many rows must be made first."""
    return "meaning" if words.take_long() else DEFAULT_BY


def hits_of(
    request: Request,
    searches: Sequence[SegmentSearch],
    words: WordIndex,
    allowed: Sequence[AnyArray | None],
    hit_of: Callable[[RankedRow, FloatArray], Hit],
    *,
    exact: bool,
    threads: int,
) -> list[list[Hit]]:
    """Return each query's hits among the allowed rows of all segments, ranked by what the request asks for."""
    segments = [search.segment for search in searches]
    if request.by == "meaning":
        nearest = partial(nearest_rows, searches, allowed=allowed, exact=exact)
        return hits_by_meaning(request, nearest, hit_of)
    by_words = partial(rows_by_words, words, segments, allowed=allowed)
    cosines_of = partial(stored_cosines, segments, threads=threads)
    if request.by == "words":
        return hits_by_words(request, by_words, cosines_of, hit_of)
    bm25_of = partial(bm25_scores, words, segments)

    def rankings(depth: int) -> Iterator[tuple[Ranking, Ranking]]:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(threads) as pool:  # tantivy and FAISS compute at the same time, without Python's lock
            worded = [pool.submit(by_words, text, depth) for text in request.texts]
            try:
                near = rows_by_meaning(searches, request.vectors, depth, allowed, exact=exact)
                yield from ((of_query, of_words.result()) for of_query, of_words in zip(near, worded, strict=True))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)  # after an error or Ctrl-C nobody takes the rest

    return hybrid_hits(request, rankings, cosines_of, bm25_of, partial(greatest_bm25, words), hit_of)


def hits_by_meaning(
    request: Request,
    nearest: Callable[[FloatArray, int], tuple[FloatArray, IntArray]],
    hit_of: Callable[[RankedRow, FloatArray], Hit],
) -> list[list[Hit]]:
    """Return each query's hits by their cosines.

    It looks deeper where rows of which nothing is read, or ties of unknown words, take places.

    Args:
        request: what the search asks for.
        nearest: some vectors, and how many rows a query -> `nearest_rows`.
        hit_of: a row of the ranking, and the query's vector -> the hit.
    """
    hits: list[list[Hit]] = [[] for _ in range(len(request.vectors))]
    waiting, depth = [i for i in range(len(hits)) if not request.is_silent(i)], request.k
    while waiting:
        cosines, rows = nearest(request.vectors[waiting], depth)
        again = []
        for i, query_cosines, query_rows in zip(waiting, cosines.tolist(), rows.tolist(), strict=True):
            ranked = [
                hit_of(RankedRow(row, cosine, cosine), request.vectors[i])
                for row, cosine in zip(query_rows, query_cosines, strict=True)
                if request.accepts(cosine)
            ]
            hits[i] = [hit for hit in ranked if not is_silent(hit.text)]
            tied = bool(request.unknown(i)) and bool(hits[i]) and hits[i][-1].score == 1
            if len(ranked) == depth and (len(hits[i]) < request.k or tied):
                again.append(i)
            else:
                ordered = request.equals_first(i, hits[i])[: request.k]
                hits[i] = [replace(hit, rank_by_meaning=rank) for rank, hit in enumerate(ordered, start=1)]
        waiting, depth = again, 4 * depth
    return hits


def hits_by_words(
    request: Request,
    by_words: Callable[[str, int], Ranking],
    cosines_of: Callable[[FloatArray, Iterable[int]], dict[int, float]],
    hit_of: Callable[[RankedRow, FloatArray], Hit],
) -> list[list[Hit]]:
    """Return each query's hits by their BM25 scores. It looks deeper where rows fall short of the least cosine.

    Args:
        request: what the search asks for.
        by_words: a text, and how many rows -> `rows_by_words`.
        cosines_of: a query's vector, and rows -> `stored_cosines`.
        hit_of: a row of the ranking, and the query's vector -> the hit.
    """
    hits = []
    for text, vector in zip(request.texts, request.vectors, strict=True):
        depth = request.k
        while True:
            ranked = by_words(text, depth)
            cosines = cosines_of(vector, (row for row, _ in ranked))
            accepted = [
                RankedRow(row, bm25, cosines[row], bm25, rank_by_words=rank)
                for rank, (row, bm25) in enumerate(ranked, start=1)
                if request.accepts(cosines[row])
            ]
            if len(accepted) >= request.k or len(ranked) < depth:
                break
            depth *= 4
        hits.append([hit_of(row, vector) for row in accepted[: request.k]])
    return hits


def hybrid_hits(
    request: Request,
    rankings: Callable[[int], Iterable[tuple[Ranking, Ranking]]],
    cosines_of: Callable[[FloatArray, Iterable[int]], dict[int, float]],
    bm25_of: Callable[[str, Iterable[int]], dict[int, float]],
    greatest_of: Callable[[str], float],
    hit_of: Callable[[RankedRow, FloatArray], Hit],
) -> list[list[Hit]]:
    """Return each query's hits by meaning and by words, fused.

    Args:
        request: what the search asks for.
        rankings: how many rows a query -> for each query its `rows_by_meaning` and `rows_by_words`.
        cosines_of: a query's vector, and rows -> `stored_cosines`.
        bm25_of: a query's text, and rows -> `bm25_scores`.
        greatest_of: a query's text -> `greatest_bm25`.
        hit_of: a row of the ranking, and the query's vector -> the hit.
    """
    hits = []
    for i, (nearest, ranked_by_words) in enumerate(rankings(max(request.k, HYBRID_DEPTH))):
        near = [] if request.is_silent(i) else nearest
        text, vector = request.texts[i], request.vectors[i]
        rows_near, rows_worded = ({row for row, _ in ranking} for ranking in (near, ranked_by_words))
        cosines, bm25 = cosines_of(vector, rows_worded - rows_near), bm25_of(text, rows_near - rows_worded)
        weight = 0.0 if request.is_silent(i) else request.weight
        ranked = fused(near, ranked_by_words, cosines, bm25, greatest_of(text), weight)
        accepted = (hit_of(row, vector) for row in ranked if request.accepts(row.cosine))
        readable = (hit for hit in accepted if not is_silent(hit.text))
        hits.append(request.equals_first(i, _with_equals(readable, request.k))[: request.k])
    return hits


def _with_equals(hits: Iterator[Hit], k: int) -> list[Hit]:
    """Return the first k hits, and those after them that equal the last one in score and have the cosine 1."""
    first = list(islice(hits, k))
    if len(first) == k and first[-1].cosine == 1:
        first += takewhile(lambda hit: (hit.score, hit.cosine) == (first[-1].score, 1), hits)
    return first
