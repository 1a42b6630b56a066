"""The FAISS file of a segment: made from its stored vectors, read or mapped, and checked.

The file is a cache. It is written once a segment, with checksums of its own, and may be deleted at any time. Where its inverted
lists can be memory-mapped, they are: what stands before them is checked when it is opened, the lists by `FaissFile.damage` alone,
and what they propose by rescoring. FAISS's distance is L2: of vectors of length 1 it has the order of the cosine, and PCA leaves
it nearly as it is.
"""

import logging
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.errors import CorruptIndexError, UsageError
from sbert_mini.files.durable import read_sealed_json, remove_all_dead_parts, write_durably, write_sealed_json
from sbert_mini.files.json_files import FAISS_RECORD
from sbert_mini.files.json_schema import Object, check
from sbert_mini.search.checksums import CheckedFile, file_checksums, read_checked_npy, write_checked_npy
from sbert_mini.search.faiss_index import (
    MappedLists,
    check_header,
    check_sizes,
    inverted_lists,
    limited_memory,
    lists_start,
    search_parameters,
    set_probes,
    training_rows,
)
from sbert_mini.search.faiss_threads import faiss_with
from sbert_mini.search.kinds import EXACT, faiss_reason, is_fast_to_train, kind_of, proposals_for
from sbert_mini.search.repeats import Groups, repeated_rows
from sbert_mini.search.scoring import rescored, scanned
from sbert_mini.search.segment import VECTOR_BLOCK_BYTES, Segment, cache_files
from sbert_mini.shapes import FloatArray, IntArray

TARGET_RECALL, TUNING_QUERIES, TUNING_K = 0.985, 200, 10
_NOTED_SINCE = {"probes", "lists_start", "repeats"}
"""Keys of a record that earlier versions did not write."""

log = logging.getLogger("sbert_mini")


@dataclass(frozen=True)
class OpenedFaiss:
    """A FAISS index, opened for search alone.

    Attributes:
        index: FAISS's. It is never added to: an `add` to a mapped one aborts the process.
        groups: which rows its numbers stand for.
        lists: its inverted lists, where they are memory-mapped, else None.
    """

    index: Any
    groups: Groups
    lists: MappedLists | None


_GREATEST = 1e15
"""Components of vectors that FAISS is given are below it: squares of greater ones may overflow."""


class FaissFile:
    """The FAISS file of a segment, and what is noted of it.

    Args:
        segment: the segment.
        folder: the index directory's `faiss/`.
        dimension: components of a vector.
        kind: a FAISS factory string (`kinds.kind_of` this segment).
        threads: for FAISS.
        trains_any: make an index of any kind. False for readers, since a stranger's index can name a kind that takes hours: they
            make those that are fast to train (`kinds.is_fast_to_train`).
    """

    def __init__(
        self, segment: Segment, folder: Path, dimension: int, kind: str, threads: int, *, trains_any: bool = True
    ) -> None:
        self.path, self._record, self._repeats = cache_files(folder, segment.name)
        self._segment = segment
        self._dimension = dimension
        self._kind = kind
        self._threads = threads
        self._trains_any = trains_any

    def open(self) -> OpenedFaiss | None:
        """Return the FAISS index, made anew where there is no sound file of this kind.

        None where the segment has too few different vectors for one, or where it may not be made (`trains_any`).

        Raises:
            UsageError: FAISS cannot make or search this kind.
        """
        try:
            return self._read()
        except FileNotFoundError:
            return self._made_if_allowed()
        except CorruptIndexError as error:
            return self.rebuild(error)

    def rebuild(self, damage: CorruptIndexError) -> OpenedFaiss | None:
        """Return the FAISS index in place of a damaged one, made anew from the stored vectors; None as in `open`."""
        if self._may_train:
            log.warning("making the FAISS file anew from the stored vectors: %s", damage)
        else:
            log.warning("the FAISS file is not used: %s", damage)
        return self._made_if_allowed()

    @property
    def _may_train(self) -> bool:
        return self._trains_any or is_fast_to_train(self._kind, self._segment.vectors, self._dimension)

    def _made_if_allowed(self) -> OpenedFaiss | None:
        if self._may_train:
            return self._build()
        _warn_of_training(str(self.path.parent.parent), self._kind)
        return None

    def damage(self) -> str | None:
        """Return what is wrong with the file, every byte of it, or None.

        A file that is not there, or that an earlier version made, is not used, and so not wrong.
        """
        try:
            record = self._read_record()
            for path, checksums in ((self.path, record["file"]), (self._repeats, record.get("repeats"))):
                if checksums is not None:
                    with CheckedFile(path, checksums) as file:
                        file.check(0, file.size)
        except FileNotFoundError:
            return None
        except CorruptIndexError as error:
            return str(error)
        return None

    def _read_record(self) -> dict[str, Any]:
        """Return what is noted of the file.

        Raises:
            FileNotFoundError: nothing, or an earlier version noted less.
            CorruptIndexError: it is damaged, or belongs to another segment.
        """
        if not self._record.exists():
            raise FileNotFoundError(self._record)
        record = read_sealed_json(self._record, Object({}), CorruptIndexError)
        if not record.keys() >= _NOTED_SINCE:
            raise FileNotFoundError(self._record)
        check(record, FAISS_RECORD, self._record, CorruptIndexError)
        if record["segment_sha256"] != self._segment.checksum:
            raise CorruptIndexError(f"{self._record} belongs to other vectors")
        return record

    def _read(self) -> OpenedFaiss:
        faiss = faiss_with()
        record = self._read_record()
        if record["factory"] != self._kind:
            raise FileNotFoundError(self._record)
        repeats = np.empty((0, 2), np.int64)
        if record["repeats"] is not None:
            repeats = read_checked_npy(self._repeats, record["repeats"], "<i8", (None, 2))
        groups = Groups(repeats, self._segment.vectors)
        start = record["lists_start"]
        file = CheckedFile(self.path, record["file"])
        check_header(file, self._dimension, len(groups.firsts), start)
        try:
            with limited_memory(file.size):
                if start is None:
                    index = faiss.deserialize_index(np.frombuffer(file.read_all(), dtype=np.uint8))
                else:
                    file.read(0, start)
                    index = faiss.read_index(str(self.path), faiss.IO_FLAG_MMAP)
        except RuntimeError as error:
            raise CorruptIndexError(f"{self.path} cannot be read by this FAISS: {error}") from error
        check_sizes(index, self._dimension, len(groups.firsts), self.path)
        set_probes(index, record["probes"])
        if start is not None and lists_start(index, file.size) != start:
            raise CorruptIndexError(f"{self._record}: lists_start is not where the lists of {self.path} start")
        return OpenedFaiss(index, groups, None if start is None else MappedLists(index, file, start))

    def _build(self) -> OpenedFaiss | None:
        repeats = repeated_rows(self._segment, self._dimension)
        groups = Groups(repeats, self._segment.vectors)
        if len(repeats) and kind_of(self._kind, len(groups.firsts)) == EXACT:
            return None
        index, probes = self._made(groups.firsts)
        try:
            self._write(index, probes, repeats)
        except OSError as error:  # a read-only index is searched all the same
            log.warning("the FAISS file %s was not kept: %s", self.path, error)
            return OpenedFaiss(index, groups, None)
        del index
        return self._read()  # mapped, where that is possible

    def _made(self, rows: IntArray) -> tuple[Any, int | None]:
        """Return a FAISS index of some rows, and how many of its inverted lists it looks into."""
        faiss = faiss_with(self._threads)
        try:
            index = faiss.index_factory(self._dimension, self._kind, faiss.METRIC_L2)
            if not index.is_trained:
                index.train(self._of_moderate_length(self._sample(rows, training_rows(index, len(rows)))))
            every = len(rows) == self._segment.vectors
            for _, block in self._segment.vector_blocks(self._dimension, None if every else rows):
                index.add(self._of_moderate_length(block))
            probes = self._tune(index, rows)
            index.search(self._sample(rows, 1), 1, params=search_parameters(index, None, 1))
            faiss.deserialize_index(faiss.serialize_index(index))
        except (RuntimeError, AssertionError) as error:
            raise UsageError(
                f"FAISS cannot make and search an index of the kind {self._kind!r} of {self._segment.vectors} vectors: choose "
                f"another --kind (auto, exact, SQ8, HNSW32_SQ8): {faiss_reason(error)}"
            ) from error
        return index, probes

    def _write(self, index: Any, probes: int | None, repeats: IntArray) -> None:
        faiss = faiss_with()
        self.path.parent.mkdir(exist_ok=True)
        remove_all_dead_parts(self.path.parent)
        data = faiss.serialize_index(index)
        write_durably(self.path, memoryview(data))
        record = {
            "segment_sha256": self._segment.checksum,
            "factory": self._kind,
            "faiss": faiss.__version__,
            "probes": probes,
            "lists_start": lists_start(index, len(data)),
            "file": file_checksums(self.path, VECTOR_BLOCK_BYTES),
            "repeats": write_checked_npy(self._repeats, repeats.astype("<i8")) if len(repeats) else None,
        }
        write_sealed_json(self._record, record)

    def _of_moderate_length(self, vectors: FloatArray) -> FloatArray:
        """Return the vectors; FAISS ends the process where squares of components overflow while it trains."""
        if not (np.abs(vectors) < _GREATEST).all():  # NaN included
            raise CorruptIndexError(
                f"the index is damaged: in {self._segment.name} a component of a vector is not below {_GREATEST:g}"
            )
        return vectors

    def _sample(self, rows: IntArray, count: int) -> FloatArray:
        """Return the vectors of some rows, drawn among those that FAISS is given."""
        rng = np.random.default_rng(0)
        drawn = rows[np.sort(rng.choice(len(rows), min(count, len(rows)), replace=False))]
        return self._segment.vectors_at(drawn, self._dimension)

    def _tune(self, index: Any, rows: IntArray) -> int | None:
        """Return the fewest lists to look into with which `TUNING_K` neighbours of some rows are found to `TARGET_RECALL`."""
        inverted = inverted_lists(index)
        if inverted is None:
            return None
        queries = self._sample(rows, TUNING_QUERIES)
        blocks = self._segment.vector_blocks(self._dimension, rows)
        _, truth = scanned(blocks, queries, TUNING_K + 1, self._threads)
        proposals = proposals_for(self._kind, TUNING_K)
        probes = 8
        while True:
            probes = min(probes, int(inverted.nlist))
            set_probes(index, probes)
            _, proposed = index.search(queries, proposals, params=search_parameters(index, None, proposals))
            proposed = np.where(proposed < 0, -1, rows[proposed])
            _, nearest = rescored(self._segment, queries, proposed, TUNING_K + 1)
            pairs = zip(nearest.tolist(), truth.tolist(), strict=True)
            # A row finds itself with any number of lists: it does not count.
            recall = np.mean([(len(set(n) & set(t)) - 1) / TUNING_K for n, t in pairs])
            if recall >= TARGET_RECALL or probes == inverted.nlist:
                return probes
            probes = math.ceil(probes * 1.5)


@cache
def _warn_of_training(index: str, kind: str) -> None:
    """Say once of an index that its rows are searched exactly."""
    log.warning(
        "%s has no sound FAISS file of its kind %s, which may take long to make: its rows are searched exactly. If you trust the "
        "index, 'sbmini index compact %s' makes the file, and 'sbmini index verify %s' says what is damaged",
        *(index, kind, index, index),
    )
