"""The files of one segment: rows that were added together, with their vectors. They never change once they are written.

`search.store` describes each file. A reader holds a shared lock on a segment's `checksums.json` as long as it is open.
"""

import hashlib
import json
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from sbert_mini.cosine import as_cosines
from sbert_mini.errors import CorruptIndexError, CorruptModelError
from sbert_mini.files import system
from sbert_mini.files.durable import flush, flush_directory, is_any_part, json_bytes, write_durably
from sbert_mini.files.json_files import COLUMNS, ROW, SEGMENT_CHECKSUMS
from sbert_mini.files.json_schema import MANY, check, parse
from sbert_mini.files.names import SEGMENT, SEGMENT_FILE, path_in
from sbert_mini.files.reading import open_regular
from sbert_mini.files.removal import remove_known
from sbert_mini.runtime.npy import NpyWriter
from sbert_mini.search.checksums import (
    CheckedFile,
    file_checksums,
    read_checked_json,
    read_checked_npy,
    write_checked_npy,
)
from sbert_mini.search.column_reader import Columns
from sbert_mini.search.columns import DATA, DESCRIPTION, ColumnsWriter, Schema
from sbert_mini.search.passages import Passages
from sbert_mini.shapes import AnyArray, FloatArray, IntArray

VECTOR_BLOCK_BYTES = 1 << 15
_SCATTERED, _MANY = 8, 1000
"""So many runs of positions, or more, are checked together, and each vector is read by itself; with `_MANY`, they are taken from
the memory-mapped file. This is a little faster, but each place makes 64 KiB of the file count as the process's memory."""
_PART = ".part"
_BLOCK_ROWS = 4096
VECTORS, PASSAGES, ROW_IDS, ROWS, OFFSETS, ID_INDEX, CHECKSUMS = (
    "vectors.npy",
    "passages.npy",
    "row_ids.npy",
    "rows.jsonl",
    "row_offsets.npy",
    "id_index.npy",
    "checksums.json",
)
_EARLIER_WORDS = "words.sqlite"  # of versions that kept a segment's words beside it: checked, and not read
_CACHE_SUFFIXES = (".faiss", ".json", ".repeats.npy")
_OTHERS = (CHECKSUMS, "columns.sqlite", "columns.spool")  # the second of format 2, the third while it is written

_FILES = (VECTORS, PASSAGES, ROW_IDS, ROWS, OFFSETS, ID_INDEX, _EARLIER_WORDS, DATA, DESCRIPTION)


@dataclass(frozen=True)
class StoredRow:
    """A row as it is stored.

    Attributes:
        id: the string that the user knows it by; unique in the index.
        text: its text.
        columns: its other columns.
    """

    id: str
    text: str
    columns: Mapping[str, Any]


def id_digest(identity: str) -> int:
    """Return the number under which a row's id stands in `id_index.npy`: 64 bits of its blake2b digest."""
    digest = hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


class SegmentWriter:
    """Writes one segment, block by block; it takes its place in `segments/` when it is whole.

    A context manager: on leaving it by an exception, or without a row, nothing stays behind. The writer holds the lock.

    Args:
        folder: the index directory's `segments/`.
        name: the segment's name.
        dimension: components of a vector.
        schema: the columns' types; it has noted the values of every row that is written.
        first_row: the number of its first row, where `write` is not told the rows' numbers.

    Attributes:
        vectors: vectors written so far.
        checksum: of the segment, once it is whole.
    """

    def __init__(self, folder: Path, name: str, dimension: int, schema: Schema, first_row: int = 0) -> None:
        self._final = folder / name
        self._folder = folder / f".{name}{_PART}"
        self._next_row = first_row
        self._row_ids: list[IntArray] = []
        self._spans: list[IntArray] = []
        self._dimension = dimension
        self._schema = schema
        self._offsets = [0]
        self._digests: list[int] = []
        self.vectors = 0
        self.checksum = ""

    def __enter__(self) -> "SegmentWriter":
        for left in (self._folder, self._final):  # what a writer that died left: no manifest names it
            remove_segment(left)
        remove_cache(self._final.parent.parent, self._final.name)
        self._folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as parts:
            self._vectors = parts.enter_context(NpyWriter(self._folder / VECTORS, self._dimension))
            self._columns = parts.enter_context(ColumnsWriter(self._folder, self._schema))
            self._rows = parts.enter_context((self._folder / ROWS).open("wb"))
            self._parts = parts.pop_all()
        return self

    @property
    def rows(self) -> int:
        """Rows written so far."""
        return len(self._offsets) - 1

    def write(
        self,
        rows: Iterable[StoredRow],
        vectors: FloatArray,
        row_ids: IntArray | None = None,
        spans: IntArray | None = None,
    ) -> None:
        """Append rows with their vectors.

        Args:
            rows: the rows.
            vectors: of length 1, at least one.
            row_ids: the rows' numbers, ascending and above all before; None for the next ones.
            spans: each vector's passage (`search.passages`): the position of its row in the segment, which may be the last one
                written before, start and end. None where each row has one vector, of its whole text.

        Shapes:
            vectors: (vectors, dim); row_ids: (rows,); spans: (vectors, 3).

        Raises:
            CorruptModelError: a vector holds NaN or infinity.
        """
        if not np.isfinite(vectors).all():
            raise CorruptModelError("the model gave a vector that holds NaN or infinity, which is not stored")
        self._vectors.write(vectors)
        self.vectors += len(vectors)
        first, ends = self.rows, []
        for row in rows:
            entry = {"id": row.id, "text": row.text, "columns": dict(row.columns)}
            line = (json.dumps(entry, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")
            self._rows.write(line)
            self._columns.write(row.id, row.columns)
            self._digests.append(id_digest(row.id))
            self._offsets.append(self._offsets[-1] + len(line))
            ends.append(len(row.text))
        if row_ids is None:
            row_ids = np.arange(self._next_row, self._next_row + len(ends), dtype=np.int64)
        if spans is None:
            spans = np.stack([np.arange(first, self.rows), np.zeros(len(ends), np.int64), np.array(ends, np.int64)], 1)
        self._row_ids.append(row_ids)
        self._spans.append(spans)
        self._next_row = int(row_ids[-1]) + 1 if len(row_ids) else self._next_row

    @property
    def entry(self) -> dict[str, Any]:
        """Its entry in the manifest, once it is whole."""
        entry = {"name": self._final.name, "rows": self.rows, "checksums_sha256": self.checksum}
        return {**entry, "vectors": self.vectors} if self.vectors > self.rows else entry

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            try:
                flush(self._rows)
            finally:
                self._parts.__exit__(kind, error, trace)
            if kind is None and self.rows:
                self._complete()
        finally:
            remove_segment(self._folder)

    def _complete(self) -> None:
        digests = np.array(self._digests, dtype="<u8")
        order = np.argsort(digests, kind="stable")
        arrays: dict[str, AnyArray] = {
            ROW_IDS: np.concatenate(self._row_ids).astype("<i8"),
            OFFSETS: np.array(self._offsets, dtype="<i8"),
            ID_INDEX: np.stack([digests[order], order.astype("<u8")], axis=1),
        }
        if self.vectors > self.rows:
            arrays[PASSAGES] = np.concatenate(self._spans).astype("<i8")
        checksums = {name: file_checksums(self._folder / name) for name in (ROWS, DATA, DESCRIPTION)}
        checksums |= {name: write_checked_npy(self._folder / name, array) for name, array in arrays.items()}
        checksums[VECTORS] = file_checksums(self._folder / VECTORS, VECTOR_BLOCK_BYTES)
        data = json_bytes({"files": checksums, "rows": self.rows})
        write_durably(self._folder / CHECKSUMS, data)
        self.checksum = hashlib.sha256(data).hexdigest()
        self._folder.rename(self._final)
        flush_directory(self._final.parent)


class Segment:
    """A segment, opened for reading.

    Args:
        path: its folder.
        entry: its entry in the manifest.

    Attributes:
        rows: how many rows it has.
        vectors: how many vectors: more than rows, where a row has several passages.

    Raises:
        CorruptIndexError: a file that is read whole does not match its checksum, or is missing.
    """

    def __init__(self, path: Path, entry: Mapping[str, Any]) -> None:
        self.name: str = entry["name"]
        self.checksum: str = entry["checksums_sha256"]
        self.rows = int(entry["rows"])
        self.vectors = int(entry.get("vectors", self.rows))
        self._path = path
        self._lock = shared_lock(path / CHECKSUMS)
        self._closing = weakref.finalize(self, os.close, self._lock)
        listed = read_checked_json(path / CHECKSUMS, self.checksum, SEGMENT_CHECKSUMS)["files"]
        self._has_sqlite = "columns.sqlite" in listed  # of format 2
        self.files: dict[str, dict[str, Any]] = {name: listed[name] for name in _FILES if name in listed}
        self.row_ids = self._array(ROW_IDS, "<i8", (self.rows,))
        self._offsets = self._array(OFFSETS, "<i8", (self.rows + 1,), int(self.files[ROWS]["bytes"]))
        self._lines = CheckedFile(path / ROWS, self.files[ROWS])
        self._vectors = CheckedFile(path / VECTORS, self.files[VECTORS])
        fits = self.rows <= self.vectors <= self._vectors.size // 4  # one component takes 4 bytes
        if not fits or (self.vectors > self.rows) != (PASSAGES in self.files):
            fault = f"{self.vectors} vectors of {self.rows} rows do not fit its other files"
            raise CorruptIndexError(f"{path} is damaged: {fault}")
        if (np.diff(self.row_ids) <= 0).any() or (np.diff(self._offsets) < 0).any():
            raise CorruptIndexError(f"{path} is damaged: its rows' numbers or places do not ascend")

    def close(self) -> None:
        """Close its files, and let them be removed once no generation names them."""
        self._lines.close()
        self._vectors.close()
        if "columns" in self.__dict__:
            self._column_data.close()
        self._closing()

    def _array(self, name: str, dtype: str, shape: tuple[int, ...], greatest: int = MANY) -> AnyArray:
        return read_checked_npy(self._path / name, self.files[name], dtype, shape, greatest)

    @cached_property
    def passages(self) -> Passages | None:
        """Which row and part of its text each vector is of; None where each row has one vector, of its whole text.

        Raises:
            CorruptIndexError: the file does not match its checksum, or names rows or passages that cannot be.
        """
        if PASSAGES not in self.files:
            return None
        return Passages(self._array(PASSAGES, "<i8", (self.vectors, 3)), self.rows, self._path / PASSAGES)

    @cached_property
    def _id_index(self) -> AnyArray:
        index = self._array(ID_INDEX, "<u8", (self.rows, 2), (1 << 64) - 1)
        digests, positions = index[:, 0], index[:, 1]
        if int(positions.max(initial=0)) >= self.rows or (np.bincount(positions.astype(np.int64)) != 1).any():
            raise CorruptIndexError(f"{self._path / ID_INDEX} does not name each row of the segment once")
        if (digests[1:] < digests[:-1]).any():
            raise CorruptIndexError(f"{self._path / ID_INDEX} is not in the order of its digests")
        return index

    @property
    def has_columns(self) -> bool:
        """Whether it has its columns, for filters; earlier versions wrote none, or in SQLite."""
        return {DATA, DESCRIPTION} <= set(self.files)

    @property
    def format_version(self) -> int:
        """The first version of the format whose segments have these files."""
        return 3 if self.has_columns else 2 if self._has_sqlite else 1

    @property
    def is_current(self) -> bool:
        """Whether it has all that this version writes: files for filters, and hashes of texts."""
        return self.has_columns and self.columns.are_hashed

    @cached_property
    def columns(self) -> Columns:
        """The columns, each checked when it is first read, where it has them (`has_columns`)."""
        with CheckedFile(self._path / DESCRIPTION, self.files[DESCRIPTION]) as file:
            data = file.read_all()
        path = self._path / DESCRIPTION
        description = check(parse(data, path, CorruptIndexError), COLUMNS, path, CorruptIndexError)
        return Columns(description, self._column_data, self.rows)

    @cached_property
    def _column_data(self) -> CheckedFile:
        return CheckedFile(self._path / DATA, self.files[DATA])

    def positions_of_rows(self, rows: IntArray) -> tuple[IntArray, AnyArray]:
        """Return the positions of some row numbers, and which of the rows are in the segment.

        The position of a row that is not in the segment is any position.

        Shapes:
            rows, each result: (some,).
        """
        first, last = int(self.row_ids[0]), int(self.row_ids[-1])
        if last - first == self.rows - 1:  # no number is missing: nothing is looked up
            inside = (rows >= first) & (rows <= last)
            return np.where(inside, rows - first, 0), inside
        positions = np.minimum(np.searchsorted(self.row_ids, rows), self.rows - 1)
        return positions, self.row_ids[positions] == rows

    def positions_of(self, identity: str) -> list[int]:
        """Return the positions of the rows with this id, the earliest first."""
        digest = np.uint64(id_digest(identity))
        start = int(np.searchsorted(self._id_index[:, 0], digest, "left"))
        stop = int(np.searchsorted(self._id_index[:, 0], digest, "right"))
        candidates = (int(position) for position in self._id_index[start:stop, 1])
        return [position for position in candidates if self.row(position).id == identity]

    def row(self, position: int) -> StoredRow:
        """Return the row at a position of the segment.

        Raises:
            CorruptIndexError: its block does not match its checksum.
        """
        start, stop = int(self._offsets[position]), int(self._offsets[position + 1])
        path = self._path / ROWS
        try:
            line = self._lines.read(start, stop).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise CorruptIndexError(f"{path}: row {position} is not UTF-8") from error
        entry = check(parse(line, path, CorruptIndexError), ROW, path, CorruptIndexError)
        return StoredRow(entry["id"], entry["text"], entry["columns"])

    def texts(self) -> Iterator[str]:
        """Yield the texts of all rows, in order.

        Raises:
            CorruptIndexError: a block does not match its checksum, or a row is damaged.
        """
        count, rest = 0, b""
        for block in self._lines.blocks():
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                try:
                    text = json.loads(line.decode("utf-8", "surrogatepass"))["text"]
                except (ValueError, TypeError, LookupError, RecursionError) as error:
                    raise CorruptIndexError(f"{self._path / ROWS}: row {count} is not a row") from error
                if not isinstance(text, str):
                    raise CorruptIndexError(f"{self._path / ROWS}: the text of row {count} is not a text")
                count += 1
                yield text
        if rest or count != self.rows:
            raise CorruptIndexError(f"{self._path / ROWS} must hold {self.rows} rows, and holds {count}")

    def nearest_passage(self, position: int, text: str, query: FloatArray) -> tuple[float, int, int]:
        """Return a row's cosine to a query, and where the passage of it starts and ends: the row's nearest one.

        Args:
            position: of the row.
            text: of the row.
            query: of length 1.

        Shapes:
            query: (dim,).

        Raises:
            CorruptIndexError: the passage does not lie in the text, or a block does not match its checksum.
        """
        vectors = np.array([position]) if self.passages is None else self.passages.of_row(position)
        cosines = self.vectors_at(vectors, len(query)) @ query
        best = int(np.argmax(cosines))
        start, end = (0, len(text)) if self.passages is None else self.passages.spans[vectors[best], 1:].tolist()
        if end > len(text):
            raise CorruptIndexError(f"{self._path / PASSAGES}: row {position} has {len(text)} characters, and no {end}")
        return float(as_cosines(cosines[best])), start, end

    def vectors_at(self, positions: IntArray, dimension: int, threads: int = 1) -> FloatArray:
        """Return the vectors at some positions, ascending; every block that is read is checked. Shapes: (positions, dim)."""
        vectors = np.empty((len(positions), dimension), np.float32)
        vector_bytes = 4 * dimension
        start = self._vectors.size - self.vectors * vector_bytes
        if start < 0:
            raise CorruptIndexError(
                f"{self._path / VECTORS} is too short for {self.vectors} vectors of {dimension} components"
            )
        breaks = np.flatnonzero(np.diff(positions) != 1) + 1
        if len(breaks) >= _SCATTERED:
            starts = start + positions * vector_bytes
            self._vectors.check_spans(starts, vector_bytes, threads)
            if len(breaks) < _MANY:
                self._vectors.read_checked_spans(starts, vector_bytes, vectors.reshape(-1).view(np.uint8))
                return vectors
            every = self._vectors.mapped[start:].view("<f4").reshape(self.vectors, dimension)
            return np.take(every, positions, axis=0, out=vectors, mode="clip")
        for first, last in zip([0, *breaks.tolist()], [*breaks.tolist(), len(positions)], strict=True):
            if first < last:
                at = start + int(positions[first]) * vector_bytes
                data = self._vectors.read(at, at + (last - first) * vector_bytes)
                vectors[first:last] = np.frombuffer(data, "<f4").reshape(-1, dimension)
        return vectors

    def vector_blocks(
        self, dimension: int, positions: IntArray | None = None, threads: int = 1
    ) -> Iterator[tuple[IntArray, FloatArray]]:
        """Yield positions of vectors, (some,), and the vectors, (some, dim), in order and in blocks; None for all positions.

        `threads` check scattered positions.
        """
        count = self.vectors if positions is None else len(positions)
        for first in range(0, count, _BLOCK_ROWS):
            last = min(first + _BLOCK_ROWS, count)
            block = np.arange(first, last) if positions is None else positions[first:last]
            yield block, self.vectors_at(block, dimension, threads)

    def row_blocks(
        self, dimension: int, rows: AnyArray | None = None
    ) -> Iterator[tuple[IntArray, IntArray, FloatArray]]:
        """Yield positions of some rows, of all their vectors, and the vectors, in order and in blocks of some thousand vectors.

        Args:
            dimension: components of a vector.
            rows: which rows, (rows,) bool; None for all.

        Shapes:
            each block: (some,), (vectors,), (vectors, dim); a row lies in one block with all its vectors.
        """
        rows = np.ones(self.rows, bool) if rows is None else rows
        positions = np.flatnonzero(rows)
        vectors, ends = positions, np.arange(1, len(positions) + 1)
        if self.passages is not None:
            vectors = np.flatnonzero(self.passages.vectors_of(rows))
            ends = np.cumsum(np.diff(self.passages.firsts)[positions])
        cuts = np.flatnonzero(np.diff((ends - 1) // _BLOCK_ROWS)) + 1
        for first, last in zip([0, *cuts.tolist()], [*cuts.tolist(), len(positions)], strict=True):
            if first < last:
                block = vectors[int(ends[first - 1]) if first else 0 : int(ends[last - 1])]
                yield positions[first:last], block, self.vectors_at(block, dimension)

    def damage(self) -> Iterator[str]:
        """Check every block of every file and yield a line for each file that does not match."""
        for name, checksums in self.files.items():
            try:
                path = path_in(self._path, name, SEGMENT_FILE, self._path / CHECKSUMS, CorruptIndexError)
                with CheckedFile(path, checksums) as file:
                    for _ in file.blocks():
                        pass
            except CorruptIndexError as error:
                yield str(error)


def digests_of(segment: Segment) -> tuple[AnyArray, IntArray]:
    """Return the `id_digest`s of a segment's rows, ascending, and the rows' positions: (rows,) uint64 and (rows,)."""
    return segment._id_index[:, 0], segment._id_index[:, 1].astype(np.int64)


class SegmentVanishedError(CorruptIndexError):
    """A segment was removed between reading what names it and opening it."""


def shared_lock(file: Path) -> int:
    """Open a file and hold a shared lock on it; return its descriptor, whose closing ends the lock."""
    try:
        handle = open_regular(file)
    except OSError as error:
        raise SegmentVanishedError(f"{file} cannot be opened: {error.strerror or error}") from error
    try:
        system.lock(handle, shared=True, wait=True)
        if os.fstat(handle).st_nlink == 0:
            raise SegmentVanishedError(f"{file} was removed")
    except BaseException:
        os.close(handle)
        raise
    return handle


def remove_unread(file: Path) -> bool:
    """Remove a file on which no reader holds a `shared_lock`, so that nobody opens its folder; return whether it is gone."""
    try:
        handle = open_regular(file)
    except OSError:
        return True
    try:
        if not system.lock(handle):
            return False
        if not system.KEEPS_OPEN_FILES:
            file.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(handle)
    if system.KEEPS_OPEN_FILES:  # a reader that opens it now keeps it there
        try:
            file.unlink(missing_ok=True)
        except OSError:
            return False
    return True


def is_segment_file(name: str) -> bool:
    """Return whether a file has a name that this package gives to files of a segment."""
    return name in _FILES or name in _OTHERS or is_any_part(name)


def remove_segment(folder: Path) -> None:
    """Remove a segment's folder with the files of the segment; where others lie there, these and the folder stay."""
    remove_known(folder, is_segment_file)


def segment_folder(path: Path, entry: Mapping[str, Any]) -> Path:
    """Return the folder of a segment of the index directory `path`, which its entry in the manifest names.

    Raises:
        CorruptIndexError: it does not have the name of a segment.
    """
    return path_in(path / "segments", entry["name"], SEGMENT, path, CorruptIndexError)


def is_unfinished(folder: Path) -> bool:
    """Return whether a folder in `segments/` has the name of a segment that is being written."""
    name = folder.name.removesuffix(_PART)
    return name != folder.name and name.startswith(".") and SEGMENT.allows(name[1:])


def cache_files(folder: Path, segment: str) -> tuple[Path, Path, Path]:
    """Return the paths of a segment's FAISS file, of its record and of its repeated rows in the folder `faiss/`."""
    faiss, record, repeats = (
        path_in(folder, segment, SEGMENT, folder, CorruptIndexError, suffix) for suffix in _CACHE_SUFFIXES
    )
    return faiss, record, repeats


def is_cache_file(name: str) -> bool:
    """Return whether a file in `faiss/` has a name that this package gives."""
    stem, dot, suffix = name.partition(".")
    return SEGMENT.allows(stem) and f"{dot}{suffix}" in _CACHE_SUFFIXES


def remove_cache(path: Path, segment: str) -> None:
    """Remove what was made for FAISS from a segment of the index directory `path`."""
    for file in cache_files(path / "faiss", segment):
        file.unlink(missing_ok=True)
