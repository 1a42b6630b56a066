"""The rows of an open generation: all of them, one by its id or number, those that a filter allows; and what of it is damaged."""

from collections.abc import Iterator, Sequence

import numpy as np

from sbert_mini.errors import CorruptIndexError
from sbert_mini.search.columns import ID, shown_columns
from sbert_mini.search.conditions import columns_in, parse, refusal
from sbert_mini.search.deadline import Deadline
from sbert_mini.search.filters import matching
from sbert_mini.search.fusion import RankedRow
from sbert_mini.search.nearest import SegmentSearch
from sbert_mini.search.queries import Hit
from sbert_mini.search.segment import StoredRow
from sbert_mini.search.store import Store
from sbert_mini.search.text_functions import FilterValueError
from sbert_mini.search.word_index import WordIndex
from sbert_mini.shapes import AnyArray, FloatArray, IntArray


def allowed_rows(store: Store, filter: str | None, timeout_s: float | None, threads: int = 1) -> list[AnyArray | None]:
    """Return for each segment which of its rows count, (rows,) bool; None for all, which a filter never returns.

    Args:
        store: the generation.
        filter: an SQL condition on the rows' columns; None for all rows that the generation holds.
        timeout_s: seconds after which the filter is given up; None for no limit.
        threads: for checking the columns' bytes, the first time.

    Raises:
        UsageError: the filter cannot be evaluated.
        CorruptIndexError: a column has another type in a segment.
    """
    present = [store.present_rows(segment) for segment in store.segments]
    if filter is None:
        return present
    types = types_of(store)
    condition = parse(filter, types)
    columns_of = [store.columns_of(segment) for segment in store.segments]
    for name in columns_in(condition):
        expected = "text" if name == ID else types.get(name)
        for columns in columns_of:
            column = columns.column(name, threads)
            if column is not None and column.type != expected:
                raise CorruptIndexError(
                    f"the index is damaged: the column {name!r} is {expected} by its manifest, and {column.type} in a segment"
                )
    deadline = Deadline(timeout_s)
    allowed: list[AnyArray | None] = []
    for columns, mask in zip(columns_of, present, strict=True):
        try:
            matched = matching(condition, columns, deadline, threads)
        except FilterValueError as error:
            raise refusal(filter, str(error), types) from error
        allowed.append(matched if mask is None else matched & mask)
    return allowed


def matching_rows(store: Store, filter: str, timeout_s: float | None, threads: int = 1) -> IntArray:
    """Return the numbers of the rows that meet an SQL condition, ascending; the arguments are those of `allowed_rows`."""
    masks = zip(store.segments, allowed_rows(store, filter, timeout_s, threads), strict=True)
    return np.concatenate([segment.row_ids[np.flatnonzero(mask)] for segment, mask in masks if mask is not None])


def types_of(store: Store) -> dict[str, str | None]:
    """Return the type of each column, by its name; None for one without any value yet."""
    return {entry["name"]: entry["type"] for entry in store.columns}


def shown_row(store: Store, row: StoredRow) -> StoredRow:
    """Return a row with its columns as they are shown (`shown_columns`)."""
    return StoredRow(row.id, row.text, shown_columns(row.columns, types_of(store)))


def stored_rows(store: Store) -> Iterator[StoredRow]:
    """Yield every row, in the order of their numbers."""
    for segment in store.segments:
        for position in range(segment.rows):
            if not store.is_deleted(int(segment.row_ids[position])):
                yield segment.row(position)


def row_ids(store: Store, filter: str | None, timeout_s: float | None) -> Iterator[str]:
    """Yield the ids of the rows that meet an SQL condition, or of all, in the order of their numbers.

    Args:
        store: the generation.
        filter: the condition; None for all rows.
        timeout_s: seconds after which the filter is given up; None for no limit.
    """
    for segment, mask in zip(store.segments, allowed_rows(store, filter, timeout_s), strict=True):
        for position in range(segment.rows) if mask is None else np.flatnonzero(mask).tolist():
            yield segment.row(position).id


def row_blocks(store: Store) -> Iterator[tuple[list[StoredRow], FloatArray]]:
    """Yield every row with its vector, (some, dim), in the order of their numbers, some thousand at a time.

    The vector of a row with several passages is their mean (`Passages.averaged`).
    """
    for segment in store.segments:
        blocks = segment.row_blocks(store.model.dimension, store.present_rows(segment))
        for block, vector_positions, vectors in blocks:
            averaged = vectors if segment.passages is None else segment.passages.averaged(vectors, vector_positions)
            yield [segment.row(position) for position in block.tolist()], averaged


def row_of(store: Store, identity: str) -> StoredRow | None:
    """Return the row with this id, or None where there is none."""
    row = store.find(identity)
    if row is None:
        return None
    segment, position = store.locate(row)
    return segment.row(position)


def vector_of(store: Store, identity: str) -> FloatArray | None:
    """Return the vector of the row with this id, (dim,), the mean of its passages; None where there is no such row."""
    row = store.find(identity)
    if row is None:
        return None
    segment, position = store.locate(row)
    positions = np.array([position]) if segment.passages is None else segment.passages.of_row(position)
    vectors = segment.vectors_at(positions, store.model.dimension)
    return vectors[0] if segment.passages is None else segment.passages.averaged(vectors, positions)[0]


def stored_hit(store: Store, ranked: RankedRow, query: FloatArray) -> Hit:
    """Return the hit of a row of a ranking, with its passage that is nearest to a query, (dim,)."""
    segment, position = store.locate(ranked.row)
    row = segment.row(position)
    start, end = 0, len(row.text)
    if segment.passages is not None:
        _, start, end = segment.nearest_passage(position, row.text, query)
    scores = {name: value for name, value in vars(ranked).items() if name not in ("row", "score")}
    return Hit(row.id, ranked.score, row.text, shown_columns(row.columns, types_of(store)), start, end, **scores)


def damage_of(store: Store, searches: Sequence[SegmentSearch], words: WordIndex) -> list[str]:
    """Return a line for each damaged file of the segments and their caches; none for sound."""
    damage: list[str | None] = [line for segment in store.segments for line in segment.damage()]
    damage += [search.damage() for search in searches]
    return [line for line in [*damage, words.damage()] if line is not None]
