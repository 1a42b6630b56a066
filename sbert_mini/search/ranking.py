"""A generation's segments -> the rows that a filter allows, and each query's hits, by meaning or also by words."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

import numpy as np

from sbert_mini.cosine import as_cosines
from sbert_mini.search.conditions import parse, refusal
from sbert_mini.search.filters import Deadline, FilterValueError, matching
from sbert_mini.search.nearest import SegmentSearch
from sbert_mini.search.queries import HYBRID_DEPTH, Hit, Request, fused
from sbert_mini.search.segment import Segment
from sbert_mini.search.words import weights
from sbert_mini.shapes import AnyArray, FloatArray, IntArray
from sbert_mini.text.words import is_silent


def allowed_rows(
    segments: Sequence[Segment],
    present: Sequence[AnyArray | None],
    filter: str,
    columns: Mapping[str, str | None],
    timeout_s: float | None,
) -> list[AnyArray | None]:
    """Return for each segment which of its rows meet an SQL condition, (rows,) bool.

    Args:
        segments: the segments.
        present: for each, which of its rows there are, (rows,) bool; None for all.
        filter: the condition.
        columns: the index's columns with their types.
        timeout_s: seconds after which it is given up; None for no limit.

    Raises:
        UsageError: it cannot be evaluated.
    """
    columns_of = [segment.columns for segment in segments]
    condition = parse(filter, columns)
    deadline = Deadline(timeout_s)
    masks: list[AnyArray | None] = []
    for values, mask in zip(columns_of, present, strict=True):
        try:
            matched = matching(condition, values, deadline)
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


def rows_by_words(segments: Sequence[Segment], query: str, depth: int, allowed: Sequence[AnyArray | None]) -> list[int]:
    """Return the numbers of the allowed rows that share words with a query, best first."""
    words = weights(query, [segment.words for segment in segments])
    ranked: list[tuple[float, int]] = []
    for segment, mask in zip(segments, allowed, strict=True):
        for position, score in segment.words.ranked(words, depth, mask):
            ranked.append((-score, int(segment.row_ids[position])))
    return [row for _, row in sorted(ranked)[:depth]]


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
    by_words: Callable[[str, int], list[int]],
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
        ranked = fused([] if request.is_silent(i) else near, by_words(text, depth))
        readable = (hit for row, score in ranked if not is_silent((hit := hit_of(row, score, request.vectors[i])).text))
        hits.append(list(islice(readable, request.k)))
    return hits
