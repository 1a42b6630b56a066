"""A generation's segments -> the rows that a filter allows, and each query's hits, by meaning or also by words."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

import numpy as np

from sbert_mini.cosine import as_cosines
from sbert_mini.errors import CorruptIndexError
from sbert_mini.search.analyzer import query_terms
from sbert_mini.search.column_reader import Columns
from sbert_mini.search.columns import ID
from sbert_mini.search.conditions import columns_in, parse, refusal
from sbert_mini.search.filters import Deadline, matching
from sbert_mini.search.nearest import SegmentSearch
from sbert_mini.search.queries import HYBRID_DEPTH, Hit, Request, fused
from sbert_mini.search.segment import Segment
from sbert_mini.search.text_functions import FilterValueError
from sbert_mini.search.word_index import WordIndex
from sbert_mini.shapes import AnyArray, FloatArray, IntArray
from sbert_mini.text.words import is_silent

SCORED_ROWS = 5000
"""Where a filter leaves so few rows, they are all scored by their words."""
DEEPEST = 20_000
"""The best rows by words of which the allowed ones are taken; where they are too few, all allowed rows are scored."""
SPARE = 1.25


def allowed_rows(
    columns_of: Sequence[Columns],
    present: Sequence[AnyArray | None],
    filter: str,
    columns: Mapping[str, str | None],
    timeout_s: float | None,
    threads: int = 1,
) -> list[AnyArray]:
    """Return for each segment which of its rows meet an SQL condition, (rows,) bool.

    Args:
        columns_of: each segment's.
        present: for each segment, which of its rows there are, (rows,) bool; None for all.
        filter: the condition.
        columns: the index's columns with their types.
        timeout_s: seconds after which it is given up; None for no limit.
        threads: for checking the columns' bytes, the first time.

    Raises:
        UsageError: it cannot be evaluated.
        CorruptIndexError: a column has another type in a segment.
    """
    condition = parse(filter, columns)
    for name in columns_in(condition):
        expected = "text" if name == ID else columns.get(name)
        for values in columns_of:
            column = values.column(name, threads)
            if column is not None and column.type != expected:
                raise CorruptIndexError(
                    f"the index is damaged: the column {name!r} is {expected} by its manifest, and {column.type} in a segment"
                )
    deadline = Deadline(timeout_s)
    masks: list[AnyArray] = []
    for values, mask in zip(columns_of, present, strict=True):
        try:
            matched = matching(condition, values, deadline, threads)
        except FilterValueError as error:
            raise refusal(filter, str(error), columns) from error
        masks.append(matched if mask is None else matched & mask)
    return masks


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


def stored_hit(segment: Segment, position: int, score: float, query: FloatArray) -> Hit:
    """Return the hit of a row at a position of a segment, with its passage that is nearest to a query, (dim,)."""
    row = segment.row(position)
    start, end = 0, len(row.text)
    if segment.passages is not None:
        _, start, end = segment.nearest_passage(position, row.text, query)
    return Hit(row.id, score, row.text, row.columns, start, end)


def rows_by_words(
    words: WordIndex, segments: Sequence[Segment], query: str, depth: int, allowed: Sequence[AnyArray | None]
) -> list[tuple[int, float]]:
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


def _ranked(scores: FloatArray, rows: IntArray) -> list[tuple[int, float]]:
    rounded = _rounded(scores)
    order = np.lexsort((rows, -rounded))
    return list(zip(rows[order].tolist(), rounded[order].tolist(), strict=True))


def hits_by_meaning(
    request: Request,
    nearest: Callable[[FloatArray, int], tuple[FloatArray, IntArray]],
    hit_of: Callable[[int, float, FloatArray], Hit],
) -> list[list[Hit]]:
    """Return each query's hits by their cosines.

    It looks deeper where rows of which nothing is read, or ties of unknown words, take places.

    Args:
        request: what the search asks for.
        nearest: some vectors, and how many rows a query -> `nearest_rows`.
        hit_of: a row's number, its score and the query's vector -> the hit.
    """
    hits: list[list[Hit]] = [[] for _ in range(len(request.vectors))]
    waiting, depth = [i for i in range(len(hits)) if not request.is_silent(i)], request.k
    while waiting:
        scores, rows = nearest(request.vectors[waiting], depth)
        again = []
        for i, query_scores, query_rows in zip(waiting, scores.tolist(), rows.tolist(), strict=True):
            ranked = [
                hit_of(row, score, request.vectors[i])
                for row, score in zip(query_rows, query_scores, strict=True)
                if request.accepts(score)
            ]
            hits[i] = [hit for hit in ranked if not is_silent(hit.text)]
            tied = bool(request.unknown(i)) and bool(hits[i]) and hits[i][-1].score == 1
            if len(ranked) == depth and (len(hits[i]) < request.k or tied):
                again.append(i)
            else:
                hits[i] = request.equals_first(i, hits[i])[: request.k]
        waiting, depth = again, 4 * depth
    return hits


def hybrid_hits(
    request: Request,
    nearest: Callable[[FloatArray, int], tuple[FloatArray, IntArray]],
    by_words: Callable[[str, int], list[tuple[int, float]]],
    hit_of: Callable[[int, float, FloatArray], Hit],
) -> list[list[Hit]]:
    """Return each query's hits by their reciprocal ranks, by meaning and by words, added up.

    Args:
        request: what the search asks for.
        nearest: some vectors, and how many rows a query -> `nearest_rows`.
        by_words: a text, and how many rows -> `rows_by_words`.
        hit_of: a row's number, its score and the query's vector -> the hit.
    """
    depth = max(request.k, HYBRID_DEPTH)
    _, rows = nearest(request.vectors, depth)
    hits = []
    for i, (text, near) in enumerate(zip(request.texts, rows.tolist(), strict=True)):
        ranked = fused([] if request.is_silent(i) else near, [row for row, _ in by_words(text, depth)])
        readable = (hit for row, score in ranked if not is_silent((hit := hit_of(row, score, request.vectors[i])).text))
        hits.append(list(islice(readable, request.k)))
    return hits
