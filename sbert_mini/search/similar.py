"""The rows closest to a row of the index."""

from dataclasses import replace
from typing import Unpack

from sbert_mini.errors import InputError
from sbert_mini.search.index import SearchIndex
from sbert_mini.search.queries import Hit, SearchOptions
from sbert_mini.shapes import FloatArray


def similar_rows(
    index: SearchIndex, identity: str, k: int, **options: Unpack[SearchOptions]
) -> tuple[list[Hit], FloatArray]:
    """Return the rows closest to a row in meaning, without itself, and its vector.

    Args:
        index: the index.
        identity: the row's id.
        k: the most rows.
        options: as `SearchIndex.search` takes them.

    Shapes:
        the vector: (dim,).

    Raises:
        InputError: there is no row with this id.
        UsageError: an option does not fit.
    """
    vector = index.vector(identity)
    if vector is None:
        raise InputError(f"the id {identity!r} is not in the index {index.path}")
    (found,) = index.search(vector[None], k + 1, **options)
    others = [hit for hit in found if hit.id != identity][:k]
    return [replace(hit, rank_by_meaning=rank) for rank, hit in enumerate(others, start=1)], vector
