"""What a FAISS index holds, whatever its kind: its inverted lists, where they start in its file, and a search's parameters."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.errors import CorruptIndexError
from sbert_mini.search.checksums import CheckedFile
from sbert_mini.search.faiss_threads import faiss_with
from sbert_mini.search.kinds import TRAINING_ROWS_A_LIST
from sbert_mini.shapes import FloatArray, IntArray

_HEADER = struct.Struct("<4siq")
_LEAST_LIMIT, _A_ROW, _A_COMPONENT = 256 << 20, 16 << 10, 16
"""A file of so many bytes, and so many more a row and a component of a row, is larger than any kind needs."""


@contextmanager
def limited_memory(size: int) -> Iterator[None]:
    """Let FAISS take no more memory for a part of an index that it reads than `size` bytes: its file has no more."""
    faiss = faiss_with()
    if not hasattr(faiss, "get_deserialization_vector_byte_limit"):  # an earlier FAISS
        yield
        return
    before = faiss.get_deserialization_vector_byte_limit()
    faiss.set_deserialization_vector_byte_limit(max(size, 1 << 20))
    try:
        yield
    finally:
        faiss.set_deserialization_vector_byte_limit(before)


def check_header(file: CheckedFile, dimension: int, rows: int, lists_start: int | None) -> None:
    """Compare what a FAISS file says of itself, and its size, with its segment, before FAISS reads it.

    Args:
        file: the file.
        dimension: components of a vector of the segment.
        rows: vectors that are indexed.
        lists_start: where its inverted lists start, if they are mapped.

    Raises:
        CorruptIndexError: they differ.
    """
    if lists_start is None and file.size > _LEAST_LIMIT + rows * (_A_ROW + _A_COMPONENT * dimension):
        raise CorruptIndexError(f"{file.path} has {file.size} bytes, more than {rows} rows of {dimension} take")
    if file.size < _HEADER.size:
        raise CorruptIndexError(f"{file.path} has {file.size} bytes, which is too few")
    _, d, total = _HEADER.unpack(file.read(0, _HEADER.size))
    if (d, total) != (dimension, rows):
        raise CorruptIndexError(f"{file.path}: {total} rows of {d}, not {rows} of {dimension} as its segment")


def check_sizes(index: Any, dimension: int, rows: int, path: Path) -> None:
    """Compare the sizes of a FAISS index that was read, and of the parts that a search goes through, with its segment.

    Raises:
        CorruptIndexError: they differ.
    """
    faiss = faiss_with()
    if index is None:
        raise CorruptIndexError(f"{path} lacks a part of its index")
    if (index.d, index.ntotal) != (dimension, rows):
        raise CorruptIndexError(f"{path}: {index.ntotal} rows of {index.d}, not {rows} of {dimension} as its segment")
    base = faiss.downcast_index(index)
    if isinstance(base, faiss.IndexPreTransform):
        for position in range(base.chain.size()):
            step = base.chain.at(position)
            if step.d_in != dimension:
                raise CorruptIndexError(f"{path}: a transform takes {step.d_in} components, and gets {dimension}")
            dimension = step.d_out
        check_sizes(base.index, dimension, rows, path)
    elif isinstance(base, faiss.IndexRefine):
        check_sizes(base.base_index, dimension, rows, path)
        check_sizes(base.refine_index, dimension, rows, path)
    elif isinstance(base, faiss.IndexHNSW):
        check_sizes(base.storage, dimension, rows, path)
    elif isinstance(base, faiss.IndexIVF):
        check_sizes(base.quantizer, dimension, base.nlist, path)


def inverted_lists(index: Any) -> Any | None:
    """Return the inverted-list index in a FAISS index, or None."""
    faiss = faiss_with()
    base = faiss.downcast_index(index)
    while isinstance(base, (faiss.IndexPreTransform, faiss.IndexRefine)):
        base = faiss.downcast_index(base.index if isinstance(base, faiss.IndexPreTransform) else base.base_index)
    return base if isinstance(base, faiss.IndexIVF) else None


def set_probes(index: Any, probes: int | None) -> None:
    """Let a FAISS index look into so many of its inverted lists, if it has any."""
    inverted = inverted_lists(index)
    if inverted is not None and probes is not None:
        inverted.nprobe = probes


def training_rows(index: Any, rows: int) -> int:
    """Return on how many of some rows a FAISS index is trained."""
    inverted = inverted_lists(index)
    return min(rows, 100_000 if inverted is None else max(TRAINING_ROWS_A_LIST * inverted.nlist, 10_000))


def lists_start(index: Any, size: int) -> int | None:
    """Return where in its file an index's inverted lists start, where they can be mapped; None where they cannot."""
    faiss = faiss_with()
    base = faiss.downcast_index(index)
    if isinstance(base, faiss.IndexPreTransform):
        base = faiss.downcast_index(base.index)
    if type(base) not in (faiss.IndexIVFFlat, faiss.IndexIVFScalarQuantizer, faiss.IndexIVFRaBitQ):
        return None
    lists = base.invlists
    entries = sum(lists.list_size(i) for i in range(lists.nlist))
    return int(size - entries * (lists.code_size + 8))


class MappedLists:
    """The memory-mapped inverted lists of a FAISS index, each checked before a search first looks into it.

    Args:
        index: FAISS's.
        file: its file; it is kept open.
        start: where its lists start (`lists_start`).

    Raises:
        CorruptIndexError: the lists do not end with the file.
    """

    def __init__(self, index: Any, file: CheckedFile, start: int) -> None:
        self._index = index
        self._file = file
        lists = inverted_lists(index).invlists  # type: ignore[union-attr]
        entry = lists.code_size + 8
        sizes = np.array([lists.list_size(i) for i in range(lists.nlist)], np.int64)
        self._ends: IntArray = start + np.cumsum(sizes) * entry
        self._starts: IntArray = self._ends - sizes * entry
        self._unchecked = np.ones(len(sizes), bool)
        if not len(sizes) or int(self._ends[-1]) != file.size:
            raise CorruptIndexError(f"{file.path} does not end with its inverted lists")

    def check(self, queries: FloatArray) -> None:
        """Check the lists that a search for these queries looks into. Shapes: queries: (queries, dim).

        Raises:
            CorruptIndexError: a block of one does not match its checksum.
        """
        if not self._unchecked.any():
            return
        faiss = faiss_with()
        base, vectors = faiss.downcast_index(self._index), queries
        if isinstance(base, faiss.IndexPreTransform):
            for position in range(base.chain.size()):
                vectors = faiss.downcast_VectorTransform(base.chain.at(position)).apply(vectors)
            base = faiss.downcast_index(base.index)
        _, probed = base.quantizer.search(vectors, min(base.nprobe, base.nlist))
        probed = np.unique(probed[probed >= 0])
        for number in probed[self._unchecked[probed]].tolist():
            self._file.check(int(self._starts[number]), int(self._ends[number]))
            self._unchecked[number] = False


def search_parameters(index: Any, selector: Any, proposals: int) -> Any:
    """Return FAISS's parameters of one search, by the kind of index; None where it has none, as some kinds refuse any."""
    faiss = faiss_with()
    base = faiss.downcast_index(index)
    if isinstance(base, faiss.IndexPreTransform):
        inner = search_parameters(base.index, selector, proposals)
        return None if inner is None else faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(base, faiss.IndexRefine):
        return faiss.IndexRefineSearchParameters(
            k_factor=8, base_index_params=search_parameters(base.base_index, selector, 8 * proposals)
        )
    if isinstance(base, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=selector, nprobe=base.nprobe)
    if isinstance(base, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=selector, efSearch=max(2 * proposals, 64))
    return None if selector is None else faiss.SearchParameters(sel=selector)
