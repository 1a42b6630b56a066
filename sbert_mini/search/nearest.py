"""The nearest rows of one segment: exact over its stored vectors, or proposed by FAISS and then rescored.

A FAISS index proposes some multiple of k rows, and these are scored again with the stored float32 vectors: so every score is the
cosine of what is stored, whatever the FAISS file says. Where a filter leaves few rows, they are scanned.
"""

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.errors import CorruptIndexError
from sbert_mini.files import system
from sbert_mini.search.faiss_file import FaissFile, OpenedFaiss
from sbert_mini.search.faiss_index import search_parameters
from sbert_mini.search.faiss_threads import faiss_with
from sbert_mini.search.kinds import EXACT, EXACT_ROWS, faiss_reason, kind_of, proposals_for
from sbert_mini.search.scoring import rescored, rows_rescored, scanned
from sbert_mini.search.segment import Segment, segment_folder
from sbert_mini.search.store import Store
from sbert_mini.shapes import AnyArray, FloatArray, IntArray

SCANNED_SHARE, SCANNED_ROWS = 0.02, 10_000
"""Where a filter leaves so few rows, they are scanned: FAISS finds too few of them."""

log = logging.getLogger("sbert_mini")

_opening = threading.RLock()
"""Held while a FAISS file is opened or made: two threads of one process would write the same temporary file."""


def _renew_lock() -> None:
    global _opening  # noqa: PLW0603
    _opening = threading.RLock()


system.after_fork(_renew_lock)


class SegmentSearch:
    """Searches one segment.

    Args:
        segment: the segment.
        folder: the index directory's `faiss/`.
        dimension: components of a vector.
        kind: `kinds.kind_of` this segment.
        threads: for FAISS.
        trains_any: see `FaissFile`.
        present: the rows that the generation holds, (rows,) bool; None for all. No others are asked for.

    Attributes:
        kind: the kind of index; `exact` if the segment has too few different vectors for FAISS, or no FAISS file and may not
            make one.

    Raises:
        CorruptIndexError: a stored block that is read does not match its checksum.
    """

    def __init__(
        self,
        segment: Segment,
        folder: Path,
        dimension: int,
        kind: str,
        threads: int,
        *,
        trains_any: bool = True,
        present: AnyArray | None = None,
    ) -> None:
        self.segment = segment
        self.kind = self._named = kind
        self._dimension = dimension
        self._threads = threads
        self._file = FaissFile(segment, folder, dimension, kind, threads, trains_any=trains_any)
        self._present = present
        self._opened: OpenedFaiss | None = None
        self._process = os.getpid()

    def nearest(
        self, queries: FloatArray, k: int, allowed: AnyArray | None = None, *, exact: bool = False
    ) -> tuple[FloatArray, IntArray]:
        """Return the cosines and positions of the rows nearest to each query, nearest first: `min(k, allowed rows)` of them.

        A row of several passages has the cosine of the nearest one.

        Args:
            queries: of length 1.
            k: the most rows a query.
            allowed: which rows count, (rows,) bool; None for all.
            exact: search all rows, whatever the kind.

        Shapes:
            queries: (queries, dim); each result: (queries, min(k, allowed rows)).
        """
        k = min(k, self.segment.rows if allowed is None else int(np.count_nonzero(allowed)))
        if k == 0:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        passages = self.segment.passages
        if passages is None:
            return self._nearest_vectors(queries, k, allowed, exact=exact)
        vectors = None if allowed is None else passages.vectors_of(allowed)
        nearest = partial(self._nearest_vectors, allowed=vectors, exact=exact)
        scores, positions = passages.nearest_rows(nearest, queries, k)
        if exact or self.kind == EXACT:
            return scores, positions
        return rows_rescored(self.segment, queries, positions)  # FAISS may have missed the best passage of a row

    def _nearest_vectors(
        self, queries: FloatArray, k: int, allowed: AnyArray | None, *, exact: bool
    ) -> tuple[FloatArray, IntArray]:
        """Return the cosines and positions of the vectors nearest to each query, as `nearest` does for rows.

        Shapes:
            queries: (queries, dim); allowed: (vectors,) bool; each result: (queries, min(k, allowed vectors)).
        """
        vectors = self.segment.vectors if allowed is None else int(np.count_nonzero(allowed))
        k = min(k, vectors)
        few = allowed is not None and vectors <= max(SCANNED_SHARE * self.segment.vectors, SCANNED_ROWS)
        opened = None if exact or few else self._open()
        if opened is None:
            return self._scan(queries, k, allowed)
        proposals = proposals_for(self.kind, k)
        try:
            proposed = self._proposed(opened, queries, proposals, allowed)
        except CorruptIndexError as error:
            opened = self._rebuilt(opened, error)
            proposed = None if opened is None else self._proposed(opened, queries, proposals, allowed)
        if opened is None or proposed is None:
            return self._scan(queries, k, allowed)
        scores, positions = opened.groups.expanded(
            *rescored(self.segment, queries, proposed, k, self._threads), k, allowed
        )
        short = np.flatnonzero(positions[:, -1] < 0)
        if len(short):  # a filter left FAISS with too few
            scores[short], positions[short] = self._scan(queries[short], k, allowed)
        return scores, positions

    def _proposed(
        self, opened: OpenedFaiss, queries: FloatArray, proposals: int, allowed: AnyArray | None
    ) -> IntArray | None:
        """Return the first vectors of the groups that FAISS finds, (queries, at most proposals), filled up with -1.

        None where this kind cannot leave out rows.

        Raises:
            CorruptIndexError: the file is damaged, or names rows that there are not.
        """
        faiss = faiss_with(self._threads)
        index, firsts = opened.index, opened.groups.firsts
        if opened.lists is not None:
            try:
                opened.lists.check(queries)
            except (AssertionError, RuntimeError) as error:  # FAISS's: its parts have other sizes
                raise CorruptIndexError(
                    f"{self._file.path} cannot be searched by FAISS: {faiss_reason(error)}"
                ) from error
        groups = None if allowed is None else opened.groups.any_of(allowed)
        proposals = min(proposals, int(index.ntotal) if groups is None else int(np.count_nonzero(groups)))
        selector = None if groups is None else faiss.IDSelectorBitmap(np.packbits(groups, bitorder="little"))
        try:
            _, numbers = index.search(queries, proposals, params=search_parameters(index, selector, proposals))
        except RuntimeError:
            return None
        if numbers.max(initial=-1) >= len(firsts):
            raise CorruptIndexError(f"{self._file.path} names a row that its segment does not have")
        if groups is not None:
            numbers[(numbers >= 0) & ~groups[numbers]] = -1
        return np.where(numbers < 0, -1, firsts[numbers])

    def _scan(self, queries: FloatArray, k: int, allowed: AnyArray | None) -> tuple[FloatArray, IntArray]:
        return scanned(self._blocks(allowed), queries, k, self._threads)

    def _blocks(self, allowed: AnyArray | None) -> Iterator[tuple[IntArray, FloatArray]]:
        """Yield the allowed vectors with their positions, in blocks."""
        if self._is_streamed:
            positions = None if allowed is None else np.flatnonzero(allowed)
            yield from self.segment.vector_blocks(self._dimension, positions, self._threads)
            return
        positions, vectors = self._held
        counted = None if allowed is None else allowed[positions]
        if counted is None or counted.all():
            yield positions, vectors
        else:
            yield positions[counted], vectors[counted]

    @property
    def _is_streamed(self) -> bool:
        """Whether exact search reads the vectors each time: memory need not hold those of a segment that FAISS is to search."""
        return self.kind != EXACT or (self._named != EXACT and self.segment.vectors > EXACT_ROWS)

    @cached_property
    def _held(self) -> tuple[IntArray, FloatArray]:
        """The positions and vectors of the rows that are present, of a segment that is searched exactly.

        Without the others, so that a search need not copy those that count.
        """
        positions = np.arange(self.segment.vectors)
        if self._present is not None:
            passages = self.segment.passages
            positions = np.flatnonzero(self._present if passages is None else passages.vectors_of(self._present))
        vectors = np.empty((len(positions), self._dimension), np.float32)
        first = 0
        for block, of_block in self.segment.vector_blocks(self._dimension, None, self._threads):
            last = int(np.searchsorted(positions, block[-1], side="right"))
            vectors[first:last] = of_block[positions[first:last] - block[0]]
            first = last
        return positions, vectors

    def prepare(self) -> None:
        """Read what a search needs, making the FAISS file where there is none."""
        if self._open() is None and not self._is_streamed:
            _ = self._held

    def damage(self) -> str | None:
        """Return what is wrong with the FAISS file, every byte of it, or None; a file that is not there is not wrong."""
        return self._file.damage()

    def _rebuilt(self, damaged: OpenedFaiss, damage: CorruptIndexError) -> OpenedFaiss | None:
        """Return the FAISS index in place of a damaged one; another thread may have made it already."""
        with _opening:
            if self._opened is damaged:
                self._opened = self._file.rebuild(damage)
                if self._opened is None:
                    self.kind = EXACT
            return self._opened

    def _open(self) -> OpenedFaiss | None:
        """Return the FAISS index; None for a segment that is searched exactly.

        A mapped one has threads that a fork does not copy: a child opens it again.
        """
        with _opening:
            if self._opened is not None and self._process != os.getpid() and self._opened.lists is not None:
                self._opened.index.this.disown()  # its destructor would wait for those threads
                self._opened = None
            if self._opened is None and self.kind != EXACT:
                self._opened, self._process = self._file.open(), os.getpid()
                if self._opened is None:
                    self.kind = EXACT
            return self._opened


def segment_searches(store: Store, threads: int) -> list[SegmentSearch]:
    """Return what searches each segment of a generation, by the kind that fits its number of vectors.

    A FAISS file that is missing is made only where that is fast.
    """
    kind = store.kind
    return [
        SegmentSearch(
            *(segment, store.folder / "faiss", store.model.dimension),
            *(kind_of(kind.factory, segment.vectors, kind.pca), threads),
            trains_any=False,
            present=store.present_rows(segment),
        )
        for segment in store.segments
    ]


def build(path: Path, entry: Mapping[str, Any], dimension: int, factory: str, pca: int | None, threads: int) -> None:
    """Make a segment's FAISS file and search it once, before a generation names the segment.

    Args:
        path: the index directory.
        entry: the segment's entry in the manifest to be.
        dimension: components of a vector.
        factory: `auto`, `exact` or a FAISS factory string.
        pca: components that FAISS indexes, or None for all.
        threads: for FAISS.

    Raises:
        UsageError: FAISS cannot make or search this kind; nothing is written then.
    """
    kind = kind_of(factory, int(entry.get("vectors", entry["rows"])), pca)
    if kind == EXACT:
        return
    segment = Segment(segment_folder(path, entry), entry)
    try:
        SegmentSearch(segment, path / "faiss", dimension, kind, threads).prepare()
    finally:
        segment.close()
