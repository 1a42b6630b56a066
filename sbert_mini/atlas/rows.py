"""What is grouped: the rows of an index, of a file of texts, or of a file of vectors, with vectors of length 1 in memory."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sbert_mini.atlas.clusters import compact
from sbert_mini.atlas.labels import CHARACTERS
from sbert_mini.errors import InputError
from sbert_mini.runtime.choices import Truncation
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.runtime.npy import read_vectors
from sbert_mini.search.index import SearchIndex
from sbert_mini.shapes import AnyArray
from sbert_mini.text.records import Record

_BLOCK_ROWS = 8192


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows with their vectors.

    Attributes:
        vectors: of length 1 (`clusters.compact`), (rows, dim).
        ids: of the rows; their numbers from 1 where they have none.
        texts: the first 2,000 characters of each; None for rows that are vectors alone.
        fingerprint: of the model that made the vectors (`Embedder.fingerprint`); None where that is not known.
        prompt: put before each text; "" where that is not known.
    """

    vectors: AnyArray
    ids: Sequence[str]
    texts: Sequence[str] | None
    fingerprint: str | None = None
    prompt: str = ""


def rows_of_index(path: Path) -> Rows:
    """Return the rows of an index; the vector of a row with several passages is their mean.

    Raises:
        SearchIndexError: there is no index, or it is damaged.
        InputError: it has no rows.
    """
    index = SearchIndex(path)
    ids: list[str] = []
    texts: list[str] = []

    def blocks() -> Iterator[AnyArray]:
        for rows, vectors in index.row_blocks():
            ids.extend(row.id for row in rows)
            texts.extend(row.text[:CHARACTERS] for row in rows)
            yield vectors

    vectors = compact(blocks(), _some(len(index), path), index.model.dimension)
    return Rows(vectors, ids, texts, index.model.fingerprint, index.model.prompt)


def rows_of_vectors(path: Path) -> Rows:
    """Return the rows of a .npy file of vectors.

    Raises:
        InputError: it cannot be read, holds something else, NaN or infinity, or no rows.
    """
    rows, dimension = read_vectors(path).shape
    starts = range(
        0, _some(rows, path), _BLOCK_ROWS
    )  # mapped anew for each block: pages that were read would stay in memory
    blocks = (np.array(read_vectors(path)[start : start + _BLOCK_ROWS], np.float32) for start in starts)
    return Rows(compact(blocks, rows, dimension), [str(i + 1) for i in range(rows)], None)


def rows_of_records(
    records: Iterable[Record],
    embedder: Embedder,
    *,
    truncation: Truncation = "warn",
    batch_size: int = 32,
    show_progress_bar: bool = False,
) -> Rows:
    """Return rows with the vectors of their texts, by the prompt that the model has for documents.

    Raises:
        InputError: there is none.
        TextTooLongError: a text is too long, and `truncation` is `error`.
    """
    read = list(records)
    prompt = embedder.document_prompt()
    blocks = embedder.encode_stream(
        [record.text for record in read],
        truncation=truncation,
        batch_size=batch_size,
        show_progress_bar=show_progress_bar,
        prompt=prompt,
    )
    vectors = compact(blocks, _some(len(read), "the input"), embedder.dimension)
    ids = [str(i) if record.id is None else record.id for i, record in enumerate(read, start=1)]
    return Rows(vectors, ids, [record.text[:CHARACTERS] for record in read], embedder.fingerprint, prompt)


def _some(rows: int, source: object) -> int:
    if not rows:
        raise InputError(f"{source} holds no rows")
    return rows
