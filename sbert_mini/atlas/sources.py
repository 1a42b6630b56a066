"""What a map is drawn of: an index, a file of vectors, or files of texts -> vectors, ids, texts and columns."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.cosine import unit_rows
from sbert_mini.errors import InputError
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.runtime.npy import read_vectors
from sbert_mini.search.index import SearchIndex
from sbert_mini.shapes import FloatArray
from sbert_mini.text.records import Record


@dataclass(frozen=True)
class Collection:
    """Rows with their vectors.

    Attributes:
        vectors: of length 1, (rows, dim).
        ids: of the rows.
        texts: of the rows.
        columns: the other columns of each row.
    """

    vectors: FloatArray
    ids: Sequence[str]
    texts: Sequence[str]
    columns: Sequence[Mapping[str, Any]]


def of_index(path: Path) -> Collection:
    """Return the rows of an index. Raises what `SearchIndex` raises."""
    index = SearchIndex(path)
    vectors = np.empty((len(index), index.model.dimension), np.float32)
    ids: list[str] = []
    texts: list[str] = []
    columns: list[Mapping[str, Any]] = []
    for rows, block in index.row_blocks():
        vectors[len(ids) : len(ids) + len(block)] = unit_rows(block)
        ids += [row.id for row in rows]
        texts += [row.text for row in rows]
        columns += [row.columns for row in rows]
    return Collection(vectors, ids, texts, columns)


def of_vectors(path: Path, records: Iterable[Record] | None) -> Collection:
    """Return the rows of a .npy file; without records they have their numbers, from 1, as ids and no text.

    Raises:
        InputError: the file cannot be read, or there are more or fewer records than vectors.
    """
    stored = read_vectors(path)
    if not len(stored):
        raise InputError(f"{path} holds no row")
    vectors = np.asarray(stored, np.float32)
    if not np.isfinite(vectors).all():
        raise InputError(f"{path} must hold finite numbers, and one is NaN or infinity")
    if records is None:
        return Collection(
            unit_rows(vectors), [str(row + 1) for row in range(len(vectors))], [""] * len(vectors), [{}] * len(vectors)
        )
    ids, texts, columns = _parts(list(records))
    if len(ids) != len(vectors):
        raise InputError(
            f"{path} holds {len(vectors)} vectors, and there are {len(ids)} texts: each vector needs its text"
        )
    return Collection(unit_rows(vectors), ids, texts, columns)


def of_texts(records: Iterable[Record], embedder: Embedder, *, show_progress_bar: bool = False) -> Collection:
    """Return records with the vectors of their texts.

    Raises:
        InputError: there is none.
    """
    ids, texts, columns = _parts(list(records))
    if not ids:
        raise InputError("the input holds no text")
    return Collection(embedder.encode(texts, show_progress_bar=show_progress_bar), ids, texts, columns)


def _parts(records: Sequence[Record]) -> tuple[list[str], list[str], list[Mapping[str, Any]]]:
    ids = [str(row + 1) if record.id is None else record.id for row, record in enumerate(records)]
    return ids, [record.text for record in records], [record.columns for record in records]
