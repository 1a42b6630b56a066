"""What a FAISS index holds, whatever its kind: its inverted lists, where they start in its file, and a search's parameters."""

from typing import Any

import numpy as np

from sbert_mini.errors import CorruptIndexError
from sbert_mini.search.checksums import CheckedFile
from sbert_mini.search.faiss_threads import faiss_with
from sbert_mini.search.kinds import TRAINING_ROWS_A_LIST
from sbert_mini.shapes import FloatArray, IntArray


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
