"""Rows of an index -> a generation without them."""

from collections.abc import Iterable

import numpy as np

from sbert_mini.errors import InputError, UsageError
from sbert_mini.search.columns import Schema
from sbert_mini.search.generation import matching_rows
from sbert_mini.search.merging import Generation, publish_change
from sbert_mini.search.store import Store
from sbert_mini.shapes import IntArray


def rows_to_delete(
    store: Store, identities: Iterable[str], filter: str | None, timeout_s: float | None, threads: int
) -> IntArray:
    """Return the numbers of the rows that are to be deleted, ascending.

    Args:
        store: the generation. The caller holds the write lock.
        identities: the ids of the rows.
        filter: an SQL condition on the rows' columns: the rows that meet it are deleted too.
        timeout_s: seconds after which the filter is given up; None for no limit.
        threads: for the filter.

    Raises:
        InputError: an id is not in the index, or these are all rows.
        UsageError: neither ids nor a filter were given, or the filter cannot be evaluated.
    """
    numbers: set[int] = set()
    for identity in identities:
        row = store.find(identity)
        if row is None:
            raise InputError(f"the id {identity!r} is not in the index; nothing was deleted")
        numbers.add(row)
    if not numbers and filter is None:
        raise UsageError("no id was given, and no filter")
    if filter is not None:
        numbers.update(matching_rows(store, filter, timeout_s, threads).tolist())
    if len(numbers) == store.rows:
        raise InputError(f"these are all {store.rows} rows of the index; remove the directory {store.path} instead")
    return np.array(sorted(numbers), dtype=np.int64)


def publish_without(old: Store, rows: IntArray, threads: int) -> None:
    """Publish a generation without some rows. Their bytes stay in the segments until these are merged or compacted.

    Args:
        old: the generation before. The caller holds the write lock.
        rows: the numbers of the rows, (rows,).
        threads: for the index of words.
    """
    new = Generation(old.path, old, old.model, old.kind, old.long_texts, Schema(old.columns), threads)
    publish_change(new, (), rows.tolist())
