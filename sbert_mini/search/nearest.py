"""The nearest rows of one segment: exact over its stored vectors, or by a FAISS file made from them and then rescored.

**Kinds.** A segment of up to `EXACT_ROWS` rows is searched exactly and needs no FAISS file. Above, a FAISS index proposes some
multiple of k rows, and these are scored again with the stored float32 vectors: so every score is the cosine of what is stored,
whatever the FAISS file says. Its kind is the one that the index names, by default one that goes by the number of rows
(`automatic`). FAISS's distance is L2: of vectors of length 1 it has the order of the cosine, and PCA leaves it nearly as it is.

**The FAISS file is a cache.** It is written once a segment, with checksums of its own, and may be deleted at any time. Where its
inverted lists can be memory-mapped, they are: what stands before them is checked when it is opened, the lists by `damage` alone,
and what they propose by rescoring. An opened FAISS index is never added to (an `add` to a mapped one aborts the process): this
class has no method that would.
"""

import logging
import math
import os
import re
import threading
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.errors import CorruptIndexError, UsageError
from sbert_mini.files.durable import read_sealed_json, remove_all_dead_parts, write_durably, write_sealed_json
from sbert_mini.search.checksums import CheckedFile, file_checksums, read_checked_npy, write_checked_npy
from sbert_mini.search.faiss_threads import faiss_with
from sbert_mini.search.segment import VECTOR_BLOCK_BYTES, Segment
from sbert_mini.shapes import AnyArray, FloatArray, IntArray

AUTOMATIC, EXACT = "auto", "exact"
EXACT_ROWS, LARGE_ROWS = 50_000, 10_000_000
"""Up to so many rows: exactly; through inverted lists of 1-bit vectors; above, lists that are found by HNSW themselves."""
TARGET_RECALL, TUNING_QUERIES, TUNING_K = 0.985, 200, 10
SCANNED_SHARE, SCANNED_ROWS = 0.02, 10_000
"""Where a filter leaves so few rows, they are scanned: FAISS finds too few of them."""
TRAINING_ROWS_A_LIST = 40

log = logging.getLogger("sbert_mini")


_faiss = faiss_with
_opening = threading.RLock()
"""Held while a FAISS file is opened or made: two threads of one process would write the same temporary file."""


def _renew_lock() -> None:
    global _opening  # noqa: PLW0603
    _opening = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


def automatic(rows: int) -> str:
    """Return the kind for a segment of so many rows: `exact`, or a FAISS factory string."""
    if rows <= EXACT_ROWS:
        return EXACT
    if rows <= LARGE_ROWS:
        return f"IVF{lists_for(rows)},RaBitQ"
    return f"IVF{lists_for(rows)}_HNSW32,RaBitQ"


def lists_for(rows: int) -> int:
    """Return the number of inverted lists for so many rows: 2 √rows, as a power of two, the nearest."""
    return 1 << round(math.log2(2 * math.sqrt(rows)))


def kind_of(kind: str, rows: int, pca: int | None = None) -> str:
    """Return what a segment of so many rows is searched by: `exact`, or a FAISS factory string.

    Args:
        kind: `auto`, `exact`, or a factory string, in which `IVF,` stands for a fitting number of lists.
        rows: of the segment. FAISS needs some rows to train a kind on: fewer are searched exactly.
        pca: components that FAISS sees, or None.
    """
    chosen = automatic(rows) if kind == AUTOMATIC else kind
    if pca is not None and chosen == EXACT and kind == AUTOMATIC:
        chosen = "SQ8"
    if chosen == EXACT or rows <= LEAST_TRAINED:
        return EXACT
    chosen = re.sub(r"\bIVF(?=[,_])", f"IVF{lists_for(rows)}", chosen)
    lists = re.search(r"\bIVF(\d+)", chosen)
    if lists and int(lists[1]) * TRAINING_ROWS_A_LIST > rows:
        return EXACT
    return chosen if pca is None else f"PCA{pca},{chosen}"


LEAST_TRAINED = 1000
_COMPARED_ROWS = 4096


def check_kind(kind: str, dimension: int, pca: int | None = None) -> None:
    """Raise where a kind is not one that FAISS can make.

    Raises:
        UsageError: FAISS does not know it.
    """
    if pca is not None and not 1 <= pca < dimension:
        raise UsageError(f"--pca must be at least 1 and below the {dimension} components of a vector; found {pca}")
    named = kind_of(kind, LARGE_ROWS, pca)
    if named == EXACT:
        return
    if not named.isascii():
        raise UsageError(f"the kind must be auto, exact, or a FAISS factory string, which is ASCII; found {named!r}")
    faiss = _faiss()
    try:
        faiss.index_factory(dimension, named, faiss.METRIC_L2)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"the kind must be auto, exact, or a FAISS factory string such as SQ8, HNSW32_SQ8 or IVF,SQ8; FAISS does not know "
            f"{named!r}: {_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    """Return what FAISS says is wrong, without the place in its source."""
    found = re.search(r"\.(?:cpp|h):\d+: (.*)", str(error), re.DOTALL)
    return " ".join((found[1] if found else str(error)).split())[:200]


def multiple_for(kind: str) -> int:
    """Return how many rows a FAISS index of this kind proposes for each that is wanted."""
    coarse = ("RaBitQ", "PQ", "LSH", "SQ4", "SQ6", "PCA", "RQ", "LSQ")
    return 20 if any(word in kind for word in coarse) and "Refine" not in kind and "RFlat" not in kind else 3


class SegmentSearch:
    """Searches one segment.

    Args:
        segment: the segment.
        folder: the index directory's `faiss/`.
        dimension: components of a vector.
        kind: `kind_of` this segment.
        threads: for FAISS.

    Raises:
        CorruptIndexError: a stored block that is read does not match its checksum.
    """

    def __init__(self, segment: Segment, folder: Path, dimension: int, kind: str, threads: int) -> None:
        self.segment = segment
        self.kind = kind
        self._dimension = dimension
        self._threads = threads
        self._file = folder / f"{segment.name}.faiss"
        self._record = folder / f"{segment.name}.json"
        self._repeats_file = folder / f"{segment.name}.repeats.npy"
        self._groups = _Groups(np.empty((0, 2), np.int64), segment.rows)
        self._index: Any = None
        self._process = os.getpid()
        self._mapped = False

    # --- search ---

    def nearest(
        self, queries: FloatArray, k: int, allowed: AnyArray | None = None, *, exact: bool = False
    ) -> tuple[FloatArray, IntArray]:
        """Return the cosines and positions of the rows nearest to each query, nearest first: `min(k, allowed rows)` of them.

        Args:
            queries: of length 1.
            k: the most rows a query.
            allowed: which rows count, (rows,) bool; None for all.
            exact: look at every row, whatever the kind.

        Shapes:
            queries: (queries, dim); each result: (queries, min(k, allowed rows)).
        """
        rows = self.segment.rows if allowed is None else int(np.count_nonzero(allowed))
        k = min(k, rows)
        if k == 0:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        few = allowed is not None and rows <= max(SCANNED_SHARE * self.segment.rows, SCANNED_ROWS)
        if exact or few or self.kind == EXACT:
            return self._scan(queries, k, allowed)
        proposed = self._proposed(queries, multiple_for(self.kind) * k + 10, allowed)
        if proposed is None:
            return self._scan(queries, k, allowed)
        scores, positions = self._groups.expanded(*self._rescored(queries, proposed, k), k, allowed)
        short = np.flatnonzero(positions[:, -1] < 0)
        if len(short):  # a filter left FAISS with too few
            scores[short], positions[short] = self._scan(queries[short], k, allowed)
        return scores, positions

    def _proposed(self, queries: FloatArray, wanted: int, allowed: AnyArray | None) -> IntArray | None:
        """Return the first rows of the groups that FAISS finds, (queries, at most wanted), filled up with -1.

        None where this kind cannot leave out rows, or there is no FAISS index.
        """
        faiss = _faiss(self._threads)
        index = self.faiss
        if index is None:
            return None
        groups = None if allowed is None else self._groups.any_of(allowed)
        wanted = min(wanted, int(index.ntotal) if groups is None else int(np.count_nonzero(groups)))
        selector = None if groups is None else faiss.IDSelectorBitmap(np.packbits(groups, bitorder="little"))
        try:
            _, found = index.search(queries, wanted, params=_parameters(index, selector, wanted))
        except RuntimeError:
            if allowed is None:
                raise
            return None
        if found.max(initial=-1) >= len(self._groups.firsts):
            raise CorruptIndexError(
                f"{self._file} names a row that its segment does not have: delete it, and it is made anew"
            )
        if groups is not None:
            found[(found >= 0) & ~groups[found]] = -1
        return np.where(found < 0, -1, self._groups.firsts[found])

    def _rescored(self, queries: FloatArray, proposed: IntArray, k: int) -> tuple[FloatArray, IntArray]:
        unique, inverse = np.unique(proposed, return_inverse=True)
        vectors = np.zeros((len(unique), self._dimension), np.float32)
        there = unique >= 0
        vectors[there] = self.segment.vectors_at(unique[there], self._dimension)
        scores = np.empty(proposed.shape, np.float32)
        for query, places, row in zip(queries, inverse.reshape(proposed.shape), scores, strict=True):
            row[:] = vectors[places] @ query
        scores[proposed < 0] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(proposed, order, 1)

    def _scan(self, queries: FloatArray, k: int, allowed: AnyArray | None) -> tuple[FloatArray, IntArray]:
        faiss = _faiss(self._threads)
        best = np.empty((len(queries), 0), np.float32)
        found = np.empty((len(queries), 0), np.int64)
        for positions, vectors in self._blocks(allowed):
            scores, at = faiss.knn(queries, vectors, min(k, len(vectors)), metric=faiss.METRIC_INNER_PRODUCT)
            best = np.concatenate([best, scores], axis=1)
            found = np.concatenate([found, positions[at]], axis=1)
            order = np.argsort(-best, axis=1, kind="stable")[:, :k]
            best, found = np.take_along_axis(best, order, 1), np.take_along_axis(found, order, 1)
        return best, found

    def _blocks(self, allowed: AnyArray | None) -> Iterator[tuple[IntArray, FloatArray]]:
        """Yield the allowed rows' positions and vectors, in blocks."""
        positions = None if allowed is None else np.flatnonzero(allowed)
        if self.kind != EXACT:
            yield from self.segment.vector_blocks(self._dimension, positions)
        elif positions is None:
            yield np.arange(self.segment.rows), self._vectors
        else:
            yield positions, self._vectors[positions]

    @cached_property
    def _vectors(self) -> FloatArray:
        """All vectors of a segment that is searched exactly."""
        return np.concatenate([block for _, block in self.segment.vector_blocks(self._dimension)])

    # --- the FAISS file ---

    def prepare(self) -> None:
        """Read what a search needs, making the FAISS file where there is none."""
        _ = self._vectors if self.kind == EXACT else self.faiss

    @property
    def faiss(self) -> Any:
        """The FAISS index, for search alone; None where the segment has too few different vectors for one.

        A mapped one has threads that a fork does not copy: a child opens it again.
        """
        with _opening:
            if self._index is not None and self._process != os.getpid() and self._mapped:
                self._index.this.disown()  # its destructor would wait for those threads
                self._index = None
            if self._index is None and self.kind != EXACT:
                self._index, self._process = self._opened(), os.getpid()
            return self._index

    def _opened(self) -> Any:
        try:
            return self._read()
        except FileNotFoundError:
            return self._build()
        except CorruptIndexError as error:
            log.warning("making the FAISS file anew from the stored vectors: %s", error)
            return self._build()

    def damage(self) -> str | None:
        """Return what is wrong with the FAISS file, every byte of it, or None; a file that is not there is not wrong."""
        if not self._record.exists():
            return None
        try:
            record = read_sealed_json(self._record, CorruptIndexError)
            if record["segment_sha256"] != self.segment.checksum:
                return f"{self._record} belongs to other vectors"
            for path, checksums in ((self._file, record["file"]), (self._repeats_file, record.get("repeats"))):
                if checksums is not None:
                    with CheckedFile(path, checksums) as file:
                        file.check(0, file.size)
        except CorruptIndexError as error:
            return str(error)
        return None

    def _read(self) -> Any:
        faiss = _faiss()
        if not self._record.exists():
            raise FileNotFoundError(self._record)
        record = read_sealed_json(self._record, CorruptIndexError)
        if record["segment_sha256"] != self.segment.checksum:
            raise CorruptIndexError(f"{self._record} belongs to other vectors")
        if record["factory"] != self.kind or "repeats" not in record:  # another kind, or an earlier version
            raise FileNotFoundError(self._record)
        repeats = np.empty((0, 2), np.int64)
        if record["repeats"] is not None:
            repeats = read_checked_npy(self._repeats_file, record["repeats"])
        self._groups = _Groups(repeats, self.segment.rows)
        mapped = record["lists_start"]
        self._mapped = mapped is not None
        with CheckedFile(self._file, record["file"]) as file:
            try:
                if mapped is None:
                    index = faiss.deserialize_index(np.frombuffer(file.read_all(), dtype=np.uint8))
                else:
                    file.read(0, mapped)
                    index = faiss.read_index(str(self._file), faiss.IO_FLAG_MMAP)
            except RuntimeError as error:
                raise CorruptIndexError(f"{self._file} cannot be read by this FAISS: {error}") from error
        if index.ntotal != len(self._groups.firsts) or index.d != self._dimension:
            raise CorruptIndexError(
                f"{self._record}: {index.ntotal} rows of {index.d}, not {len(self._groups.firsts)} of its segment"
            )
        _set_probes(index, record["probes"])
        return index

    def _build(self) -> Any:
        faiss = _faiss(self._threads)
        self._mapped = False
        repeats = self._repeats()
        self._groups = _Groups(repeats, self.segment.rows)
        firsts = self._groups.firsts
        if len(repeats) and kind_of(self.kind, len(firsts)) == EXACT:
            self.kind = EXACT
            return None
        try:
            index = faiss.index_factory(self._dimension, self.kind, faiss.METRIC_L2)
            if not index.is_trained:
                index.train(self._sample(_training_rows(index, len(firsts))))
            for _, block in self.segment.vector_blocks(self._dimension, firsts if len(repeats) else None):
                index.add(block)
            probes = self._tune(index)
            index.search(self._sample(1), 1, params=_parameters(index, None, 1))
            faiss.deserialize_index(faiss.serialize_index(index))
        except (RuntimeError, AssertionError) as error:
            raise UsageError(
                f"FAISS cannot make and search an index of the kind {self.kind!r} of {self.segment.rows} rows: choose another "
                f"--kind (auto, exact, SQ8, HNSW32_SQ8): {_reason(error)}"
            ) from error
        try:
            self._file.parent.mkdir(exist_ok=True)
            remove_all_dead_parts(self._file.parent)
            data = faiss.serialize_index(index)
            write_durably(self._file, memoryview(data))
            repeats_checksums = write_checked_npy(self._repeats_file, repeats.astype("<i8")) if len(repeats) else None
            record = {
                "segment_sha256": self.segment.checksum,
                "factory": self.kind,
                "faiss": faiss.__version__,
                "probes": probes,
                "lists_start": _lists_start(index, len(data)),
                "file": file_checksums(self._file, VECTOR_BLOCK_BYTES),
                "repeats": repeats_checksums,
            }
            write_sealed_json(self._record, record)
        except OSError as error:  # a read-only index is searched all the same
            log.warning("the FAISS file %s was not kept: %s", self._file, error)
            return index
        del index, data
        return self._read()  # mapped, where that is possible

    def _sample(self, rows: int) -> FloatArray:
        """Return the vectors of some rows, drawn among those that FAISS is given."""
        rng = np.random.default_rng(0)
        firsts = self._groups.firsts
        return self.segment.vectors_at(
            firsts[np.sort(rng.choice(len(firsts), min(rows, len(firsts)), replace=False))], self._dimension
        )

    def _repeats(self) -> IntArray:
        """Return the rows whose vector an earlier row has, with the first row that has it: (repeats, 2), ascending.

        Rows are found by a hash of 64 bits of their vectors, and compared byte by byte.
        """
        weights = np.random.default_rng(0).integers(0, 2**63, self._dimension, np.uint64) * 2 + 1
        hashes = np.concatenate(
            [
                (block.view(np.uint32).astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64)
                for _, block in self.segment.vector_blocks(self._dimension)
            ]
        )
        order = np.argsort(hashes, kind="stable")
        same = np.concatenate([[False], hashes[order][1:] == hashes[order][:-1]])
        starts = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
        pairs = np.stack([order[same], order[starts[same]]], axis=1)
        pairs = pairs[np.argsort(pairs[:, 0])]
        kept = []
        for first in range(0, len(pairs), _COMPARED_ROWS):
            some = pairs[first : first + _COMPARED_ROWS]
            unique, places = np.unique(some[:, 1], return_inverse=True)
            here = self.segment.vectors_at(some[:, 0], self._dimension)
            kept.append(some[(here == self.segment.vectors_at(unique, self._dimension)[places]).all(axis=1)])
        return np.concatenate([np.empty((0, 2), np.int64), *kept])

    def _tune(self, index: Any) -> int | None:
        """Return the fewest lists to look into with which `TUNING_K` neighbours of some rows are found to `TARGET_RECALL`."""
        inverted = _inverted(index)
        if inverted is None:
            return None
        queries = self._sample(TUNING_QUERIES)
        given = np.zeros(self.segment.rows, dtype=bool)
        given[self._groups.firsts] = True
        _, truth = self._scan(queries, TUNING_K + 1, given)
        wanted = multiple_for(self.kind) * TUNING_K + 10
        probes = 8
        while True:
            probes = min(probes, int(inverted.nlist))
            _set_probes(index, probes)
            _, proposed = index.search(queries, wanted, params=_parameters(index, None, wanted))
            proposed = np.where(proposed < 0, -1, self._groups.firsts[proposed])
            _, found = self._rescored(queries, proposed, TUNING_K + 1)
            pairs = zip(found.tolist(), truth.tolist(), strict=True)
            # A row finds itself with any number of lists: it does not count.
            recall = np.mean([(len(set(f) & set(t)) - 1) / TUNING_K for f, t in pairs])
            if recall >= TARGET_RECALL or probes == inverted.nlist:
                return probes
            probes = math.ceil(probes * 1.5)


class _Groups:
    """Rows of equal vectors. FAISS is given the first row of each group: HNSW loses rows where many are the same.

    Args:
        repeats: rows, ascending, each with the first row of its group, (repeats, 2).
        rows: of the segment.

    Attributes:
        firsts: the groups' first rows, ascending: FAISS's numbers -> rows.

    Raises:
        CorruptIndexError: the repeats are not rows after the first ones of their groups.
    """

    def __init__(self, repeats: IntArray, rows: int) -> None:
        is_first = np.ones(rows, dtype=bool)
        if len(repeats):
            later, first = repeats[:, 0], repeats[:, 1]
            if repeats.shape[1] != 2 or first.min() < 0 or later.max() >= rows or (later <= first).any():
                raise CorruptIndexError("what tells equal vectors apart is of another segment")
            is_first[later] = False
            if not is_first[first].all():
                raise CorruptIndexError("what tells equal vectors apart is of another segment")
        self.firsts: IntArray = np.flatnonzero(is_first)
        by_first = np.argsort(repeats[:, 1], kind="stable")
        self._first, self._later = repeats[by_first, 1], repeats[by_first, 0]

    def any_of(self, allowed: AnyArray) -> AnyArray:
        """Return which groups have a row that is allowed, (groups,) bool."""
        found = allowed[self.firsts].copy()
        rows = allowed[self._later]
        found[np.searchsorted(self.firsts, self._first[rows])] = True
        return found

    def expanded(
        self, scores: FloatArray, firsts: IntArray, k: int, allowed: AnyArray | None
    ) -> tuple[FloatArray, IntArray]:
        """Return the first k allowed rows of some groups, with their groups' scores; -1 where there are fewer.

        Shapes:
            scores, firsts: (queries, groups), best first; each result: (queries, k).
        """
        if not len(self._first) and firsts.shape[1] == k:
            return scores, firsts
        every = np.full((len(firsts), k), -np.inf, np.float32)
        rows = np.full((len(firsts), k), -1, np.int64)
        for query in range(len(firsts)):
            at = 0
            for score, first in zip(scores[query], firsts[query], strict=True):
                if first < 0 or at == k:
                    break
                low, high = np.searchsorted(self._first, [first, first + 1])
                group = np.concatenate([[first], self._later[low:high]])
                group = group[allowed[group]] if allowed is not None else group
                stop = min(at + len(group), k)
                every[query, at:stop], rows[query, at:stop] = score, group[: stop - at]
                at = stop
        return every, rows


def build(path: Path, entry: Mapping[str, Any], dimension: int, factory: str, pca: int | None, threads: int) -> None:
    """Make a segment's FAISS file and search it once, before a generation names the segment.

    Args:
        path: the index directory.
        entry: the segment's entry in the manifest to be.
        dimension: components of a vector.
        factory: `auto`, `exact` or a FAISS factory string.
        pca: components that FAISS sees, or None.
        threads: for FAISS.

    Raises:
        UsageError: FAISS cannot make or search this kind; nothing is written then.
    """
    kind = kind_of(factory, int(entry["rows"]), pca)
    if kind == EXACT:
        return
    segment = Segment(path / "segments" / entry["name"], entry)
    try:
        SegmentSearch(segment, path / "faiss", dimension, kind, threads).prepare()
    finally:
        segment.close()


def _inverted(index: Any) -> Any | None:
    """Return the inverted-list index in a FAISS index, or None."""
    faiss = _faiss()
    base = faiss.downcast_index(index)
    while isinstance(base, (faiss.IndexPreTransform, faiss.IndexRefine)):
        base = faiss.downcast_index(base.index if isinstance(base, faiss.IndexPreTransform) else base.base_index)
    return base if isinstance(base, faiss.IndexIVF) else None


def _set_probes(index: Any, probes: int | None) -> None:
    inverted = _inverted(index)
    if inverted is not None and probes is not None:
        inverted.nprobe = probes


def _training_rows(index: Any, rows: int) -> int:
    inverted = _inverted(index)
    return min(rows, 100_000 if inverted is None else max(TRAINING_ROWS_A_LIST * inverted.nlist, 10_000))


def _lists_start(index: Any, size: int) -> int | None:
    """Return where in its file an index's inverted lists start, where they can be mapped; None where they cannot."""
    faiss = _faiss()
    base = faiss.downcast_index(index)
    if isinstance(base, faiss.IndexPreTransform):
        base = faiss.downcast_index(base.index)
    if type(base) not in (faiss.IndexIVFFlat, faiss.IndexIVFScalarQuantizer, faiss.IndexIVFRaBitQ):
        return None
    lists = base.invlists
    entries = sum(lists.list_size(i) for i in range(lists.nlist))
    return int(size - entries * (lists.code_size + 8))


def _parameters(index: Any, selector: Any, wanted: int) -> Any:
    """Return FAISS's parameters of one search, by the kind of index; None where it has none, as some kinds refuse any."""
    faiss = _faiss()
    base = faiss.downcast_index(index)
    if isinstance(base, faiss.IndexPreTransform):
        inner = _parameters(base.index, selector, wanted)
        return None if inner is None else faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(base, faiss.IndexRefine):
        return faiss.IndexRefineSearchParameters(
            k_factor=8, base_index_params=_parameters(base.base_index, selector, 8 * wanted)
        )
    if isinstance(base, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=selector, nprobe=base.nprobe)
    if isinstance(base, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=selector, efSearch=max(2 * wanted, 64))
    return None if selector is None else faiss.SearchParameters(sel=selector)
