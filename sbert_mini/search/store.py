"""The index directory: what is stored, how it is switched, and how every byte is checked.

    INDEX/
      CURRENT                     which generation is the present one, and its manifest's checksum
      LOCK                        held by the one process that writes
      CREATING                    there while the index is made for the first time
      generations/000001.json     a generation's manifest: model, dimension, segments; never changed once written
      generations/000002.npy      int64, ascending: the rows of its segments that a generation holds no more, if there are any
      segments/000001/            rows added together; never changed once written
        vectors.npy               float32 (rows, dim), unit length: the truth that the FAISS file is made from
        row_ids.npy               int64 (rows,), ascending; a number is never given to a second row
        rows.jsonl                a line a row: {"id", "text", "columns"}
        row_offsets.npy           int64 (rows + 1,), where each line of rows.jsonl starts
        id_index.npy              uint64 (rows, 2), ascending: a digest of each row's id, and the row's position
        columns.bin, .json        the rows' columns, for filters (`search.columns`)
        words.sqlite              the rows' words, for BM25 (`search.words`)
        checksums.json            each file's size and the sha256 of each of its blocks of 1 MiB (of vectors.npy: of 32 KiB)
      faiss/000001.faiss, .json   a cache made from the segment (`search.nearest`), with checksums of its own; it may be deleted
      faiss/000001.repeats.npy    int64 (repeats, 2): rows whose vector an earlier row has, and that row, if there are any

A writer makes a new segment and a new manifest beside the old ones, flushes them to the disk, and then replaces `CURRENT` in
one step. So a reader sees one generation or the next, keeps the files that it opened, and a writer that dies leaves the
generation before it whole. Checksums chain: `CURRENT` ends with its own, and names the manifest's, the manifest each
`checksums.json`'s, and that each block's; a part of a file is checked by reading its blocks alone.

Compaction writes the rows that are left into one new segment. A segment that the present generation does not name is removed by
the next writer that finds nobody reading it: a reader holds a shared lock (flock) on the `checksums.json` of each of its
segments, which ends with its process.

A file of a newer `format_version` is refused, an unknown key is ignored.
"""

import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from sbert_mini.errors import (
    CorruptIndexError,
    CorruptModelError,
    IndexExistsError,
    IndexLockedError,
    IndexNotFoundError,
    UsageError,
)
from sbert_mini.files.durable import (
    flush,
    flush_directory,
    json_bytes,
    read_sealed_json,
    remove_all_dead_parts,
    write_durably,
    write_sealed_json,
)
from sbert_mini.runtime.npy import NpyWriter
from sbert_mini.search.columns import DATA, DESCRIPTION, Columns, ColumnsWriter, Schema
from sbert_mini.search.words import Words, WordsWriter
from sbert_mini.shapes import AnyArray, FloatArray, IntArray
from sbert_mini.version import __version__

FORMAT = "sbert-mini index"
FORMAT_VERSION = 3
BLOCK_BYTES = 1 << 20
VECTOR_BLOCK_BYTES = 1 << 15
_BLOCK_ROWS = 4096
VECTORS, ROW_IDS, ROWS, OFFSETS, ID_INDEX, WORDS, CHECKSUMS = (
    "vectors.npy",
    "row_ids.npy",
    "rows.jsonl",
    "row_offsets.npy",
    "id_index.npy",
    "words.sqlite",
    "checksums.json",
)
_FOLDERS = ("generations", "segments", "faiss")
_CREATING = "CREATING"
_ATTEMPTS = 20
_NAME = re.compile(r"[0-9]{6,}")
_GENERATION = re.compile(r"generations/[0-9]{6,}\.json")


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


@dataclass(frozen=True)
class ModelIdentity:
    """The model that an index was made with.

    Attributes:
        name: as the user named it; a directory as an absolute path.
        fingerprint: `Embedder.fingerprint`.
        graph: `int8` or `fp32`.
        dimension: components of a vector.
        prompt: the text put before each row's text, or an empty string.
    """

    name: str
    fingerprint: str
    graph: str
    dimension: int
    prompt: str = ""


@dataclass(frozen=True)
class SearchKind:
    """By what an index's rows are searched; segments may be of other sizes, and are searched each by what fits it.

    Attributes:
        factory: `auto`, `exact` or a FAISS factory string (`search.nearest.kind_of`).
        pca: components that FAISS sees, or None for all.
    """

    factory: str = "auto"
    pca: int | None = None


# --- checksums -------------------------------------------------------------------------------------------------------


def file_checksums(path: Path, block_bytes: int = BLOCK_BYTES) -> dict[str, Any]:
    """Return `{"bytes", "block_bytes", "sha256": [one a block]}` of a file."""
    blocks = []
    with path.open("rb") as stream:
        while block := stream.read(block_bytes):
            blocks.append(hashlib.sha256(block).hexdigest())
        return {"bytes": stream.tell(), "block_bytes": block_bytes, "sha256": blocks}


class CheckedFile:
    """A file of which any part can be read, each block that it touches being checked the first time.

    Args:
        path: the file.
        checksums: as `file_checksums` made them.

    Raises:
        CorruptIndexError: the file is missing or its size is another.
    """

    def __init__(self, path: Path, checksums: Mapping[str, Any]) -> None:
        self.path = path
        self.size = int(checksums["bytes"])
        self._block = int(checksums["block_bytes"])
        self._digests: list[str] = checksums["sha256"]
        self._checked: set[int] = set()
        try:
            self._handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise CorruptIndexError(f"{path} cannot be opened: {error.strerror or error}") from error
        self._closing = weakref.finalize(self, os.close, self._handle)
        found = os.fstat(self._handle).st_size
        if found != self.size:
            self.close()
            raise CorruptIndexError(f"{path} must hold {self.size} bytes, and holds {found}")

    def __enter__(self) -> "CheckedFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; it closes by itself when nobody holds it any more."""
        self._closing()

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` up to, without, `stop`.

        Raises:
            CorruptIndexError: a block that they lie in does not match its checksum.
        """
        first, last = start // self._block, max(stop - 1, start) // self._block
        if all(block in self._checked for block in range(first, last + 1)):
            return self._read(start, stop)
        data = self._read(first * self._block, min((last + 1) * self._block, self.size))
        for block in range(first, last + 1):
            part = data[(block - first) * self._block : (block - first + 1) * self._block]
            if part and hashlib.sha256(part).hexdigest() != self._digests[block]:
                raise CorruptIndexError(
                    f"{self.path}: block {block} of {self._block} bytes does not match its checksum"
                )
            self._checked.add(block)
        return data[start - first * self._block : stop - first * self._block]

    def _read(self, start: int, stop: int) -> bytes:
        parts = []
        while start < stop:
            part = os.pread(self._handle, stop - start, start)  # the system gives 2 GiB at a time at the most
            if not part:
                raise CorruptIndexError(f"{self.path} ends at byte {start}, and must hold {self.size}")
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def check(self, start: int, stop: int) -> None:
        """Check the blocks that some bytes lie in.

        Raises:
            CorruptIndexError: one does not match its checksum.
        """
        for block in range(start // self._block, -(-stop // self._block)):
            if block not in self._checked:
                self.read(block * self._block, min((block + 1) * self._block, self.size))

    def blocks(self, start: int = 0) -> Iterator[bytes]:
        """Yield the file from byte `start` to its end, in blocks, each checked."""
        while start < self.size:
            stop = min((start // self._block + 1) * self._block, self.size)
            yield self.read(start, stop)
            start = stop

    def read_all(self) -> bytes:
        """Return the whole file, checked."""
        return self.read(0, self.size) if self.size else b""


def read_checked_json(path: Path, sha256: str) -> dict[str, Any]:
    """Return a JSON object whose bytes must have this checksum.

    Raises:
        CorruptIndexError: they do not, or the file is missing.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorruptIndexError(f"{path} cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CorruptIndexError(f"{path} does not match its checksum")
    return dict(json.loads(data))


# --- writing ---------------------------------------------------------------------------------------------------------


def _npy_bytes(array: AnyArray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


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
    """

    def __init__(self, folder: Path, name: str, dimension: int, schema: Schema, first_row: int = 0) -> None:
        self._final = folder / name
        self._folder = folder / f".{name}.part"
        self._next_row = first_row
        self._row_ids: list[IntArray] = []
        self._dimension = dimension
        self._schema = schema
        self._offsets = [0]
        self._digests: list[int] = []
        self.checksum = ""

    def __enter__(self) -> "SegmentWriter":
        for left in (self._folder, self._final):  # what a writer that died left: no manifest names it
            shutil.rmtree(left, ignore_errors=True)
        remove_cache(self._final.parent.parent, self._final.name)
        self._folder.mkdir(parents=True)
        with ExitStack() as parts:
            self._vectors = parts.enter_context(NpyWriter(self._folder / VECTORS, self._dimension))
            self._columns = parts.enter_context(ColumnsWriter(self._folder, self._schema))
            self._words = parts.enter_context(WordsWriter(self._folder / WORDS))
            self._rows = parts.enter_context((self._folder / ROWS).open("wb"))
            self._parts = parts.pop_all()
        return self

    @property
    def rows(self) -> int:
        """Rows written so far."""
        return len(self._offsets) - 1

    def write(self, rows: Iterable[StoredRow], vectors: FloatArray, row_ids: IntArray | None = None) -> None:
        """Append rows with their vectors.

        Args:
            rows: the rows.
            vectors: of length 1.
            row_ids: the rows' numbers, ascending and above all before; None for the next ones.

        Shapes:
            vectors: (rows, dim); row_ids: (rows,).

        Raises:
            CorruptModelError: a vector holds NaN or infinity.
        """
        if not np.isfinite(vectors).all():
            raise CorruptModelError("the model gave a vector that holds NaN or infinity, which is not stored")
        self._vectors.write(vectors)
        if row_ids is None:
            row_ids = np.arange(self._next_row, self._next_row + len(vectors), dtype=np.int64)
        if len(row_ids):
            self._row_ids.append(row_ids)
            self._next_row = int(row_ids[-1]) + 1
        for row in rows:
            entry = {"id": row.id, "text": row.text, "columns": dict(row.columns)}
            line = (json.dumps(entry, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")
            self._rows.write(line)
            self._columns.write(row.id, row.columns)
            self._words.write(row.text)
            self._digests.append(id_digest(row.id))
            self._offsets.append(self._offsets[-1] + len(line))

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
            shutil.rmtree(self._folder, ignore_errors=True)

    def _complete(self) -> None:
        digests = np.array(self._digests, dtype="<u8")
        order = np.argsort(digests, kind="stable")
        arrays: dict[str, AnyArray] = {
            ROW_IDS: np.concatenate(self._row_ids).astype("<i8"),
            OFFSETS: np.array(self._offsets, dtype="<i8"),
            ID_INDEX: np.stack([digests[order], order.astype("<u8")], axis=1),
        }
        for name, array in arrays.items():
            write_durably(self._folder / name, _npy_bytes(array))
        with (self._folder / WORDS).open("rb+") as stream:
            flush(stream)
        files = (ROWS, WORDS, DATA, DESCRIPTION, *arrays)
        checksums = {name: file_checksums(self._folder / name) for name in files}
        checksums[VECTORS] = file_checksums(self._folder / VECTORS, VECTOR_BLOCK_BYTES)
        data = json_bytes({"files": checksums, "rows": self.rows})
        write_durably(self._folder / CHECKSUMS, data)
        self.checksum = hashlib.sha256(data).hexdigest()
        self._folder.rename(self._final)
        flush_directory(self._final.parent)


# --- reading ---------------------------------------------------------------------------------------------------------


def _npy_array(file: CheckedFile) -> AnyArray:
    array: AnyArray = np.load(io.BytesIO(file.read_all()), allow_pickle=False)
    return array


class Segment:
    """A segment, opened for reading.

    Args:
        path: its folder.
        entry: its entry in the manifest.

    Raises:
        CorruptIndexError: a file that is read whole does not match its checksum, or is missing.
    """

    def __init__(self, path: Path, entry: Mapping[str, Any]) -> None:
        self.name: str = entry["name"]
        self.checksum: str = entry["checksums_sha256"]
        self.rows = int(entry["rows"])
        self._path = path
        self._lock = _shared_lock(path / CHECKSUMS)
        self._closing = weakref.finalize(self, os.close, self._lock)
        self.files: dict[str, dict[str, Any]] = read_checked_json(path / CHECKSUMS, self.checksum)["files"]
        self.row_ids = self._array(ROW_IDS)
        self._offsets = self._array(OFFSETS)
        self._lines = CheckedFile(path / ROWS, self.files[ROWS])
        self._vectors = CheckedFile(path / VECTORS, self.files[VECTORS])

    def close(self) -> None:
        """Close its files, and let them be removed once no generation names them."""
        self._lines.close()
        self._vectors.close()
        if "words" in self.__dict__:
            self.words.close()
        if "columns" in self.__dict__:
            self._column_data.close()
        self._closing()

    def _array(self, name: str) -> AnyArray:
        with CheckedFile(self._path / name, self.files[name]) as file:
            return _npy_array(file)

    @cached_property
    def _id_index(self) -> AnyArray:
        return self._array(ID_INDEX)

    @property
    def is_current(self) -> bool:
        """Whether it has the files that this version writes: those for filters and words."""
        return {WORDS, DATA, DESCRIPTION} <= set(self.files)

    def _require_current(self) -> None:
        if not self.is_current:
            raise UsageError(
                f"{self._path} was written by an earlier version, without what filters and --hybrid read; "
                f"'sbmini index compact {self._path.parent.parent}' writes it anew"
            )

    @cached_property
    def words(self) -> Words:
        """The words, of which every byte is checked when they are opened.

        Raises:
            UsageError: the segment was written by a version that did not keep them so.
        """
        self._require_current()
        with CheckedFile(self._path / WORDS, self.files[WORDS]) as file:
            file.check(0, file.size)
        return Words(self._path / WORDS, self.rows)

    @cached_property
    def columns(self) -> Columns:
        """The columns, each checked when it is first read.

        Raises:
            UsageError: the segment was written by a version that did not keep them so.
        """
        self._require_current()
        with CheckedFile(self._path / DESCRIPTION, self.files[DESCRIPTION]) as file:
            description = json.loads(file.read_all())
        return Columns(description, self._column_data, self.rows)

    @cached_property
    def _column_data(self) -> CheckedFile:
        return CheckedFile(self._path / DATA, self.files[DATA])

    def positions_of(self, identity: str) -> list[int]:
        """Return the positions of the rows with this id, the earliest first."""
        digest = np.uint64(id_digest(identity))
        start = int(np.searchsorted(self._id_index[:, 0], digest, "left"))
        stop = int(np.searchsorted(self._id_index[:, 0], digest, "right"))
        found = (int(position) for position in self._id_index[start:stop, 1])
        return [position for position in found if self.row(position).id == identity]

    def row(self, position: int) -> StoredRow:
        """Return the row at a position of the segment.

        Raises:
            CorruptIndexError: its block does not match its checksum.
        """
        start, stop = int(self._offsets[position]), int(self._offsets[position + 1])
        entry = json.loads(self._lines.read(start, stop).decode("utf-8", "surrogatepass"))
        return StoredRow(entry["id"], entry["text"], entry["columns"])

    def vectors_at(self, positions: IntArray, dimension: int) -> FloatArray:
        """Return the vectors at some positions, ascending; every block that is read is checked. Shapes: (positions, dim)."""
        found = np.empty((len(positions), dimension), np.float32)
        row_bytes = 4 * dimension
        start = self._vectors.size - self.rows * row_bytes
        breaks = np.flatnonzero(np.diff(positions) != 1) + 1
        for first, last in zip([0, *breaks.tolist()], [*breaks.tolist(), len(positions)], strict=True):
            if first < last:
                at = start + int(positions[first]) * row_bytes
                data = self._vectors.read(at, at + (last - first) * row_bytes)
                found[first:last] = np.frombuffer(data, "<f4").reshape(-1, dimension)
        return found

    def vector_blocks(self, dimension: int, positions: IntArray | None = None) -> Iterator[tuple[IntArray, FloatArray]]:
        """Yield positions, (some,), and their vectors, (some, dim), in order and in blocks; None for all positions."""
        count = self.rows if positions is None else len(positions)
        for first in range(0, count, _BLOCK_ROWS):
            last = min(first + _BLOCK_ROWS, count)
            chosen = np.arange(first, last) if positions is None else positions[first:last]
            yield chosen, self.vectors_at(chosen, dimension)

    def damage(self) -> Iterator[str]:
        """Check every block of every file and yield a line for each file that does not match."""
        for name, checksums in self.files.items():
            try:
                with CheckedFile(self._path / name, checksums) as file:
                    for _ in file.blocks():
                        pass
            except CorruptIndexError as error:
                yield str(error)


class _VanishedError(CorruptIndexError):
    """A segment was removed between reading what names it and opening it."""


def _shared_lock(file: Path) -> int:
    """Open a file and hold a shared lock on it; return its descriptor, whose closing ends the lock."""
    try:
        handle = os.open(file, os.O_RDONLY)
    except OSError as error:
        raise _VanishedError(f"{file} cannot be opened: {error.strerror or error}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        if os.fstat(handle).st_nlink == 0:
            raise _VanishedError(f"{file} was removed")
    except BaseException:
        os.close(handle)
        raise
    return handle


def _free(file: Path) -> bool:
    """Return whether nobody holds a lock on a file, and remove the file if so: who comes later finds it gone."""
    try:
        handle = os.open(file, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _check_pointer(path: Path, manifest: str) -> None:
    if not _GENERATION.fullmatch(manifest):
        raise CorruptIndexError(f"{path / 'CURRENT'} is damaged: it names the manifest {manifest!r}")


def _check_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Raise `CorruptIndexError` where a manifest leads out of its index directory."""
    for entry in manifest["segments"]:
        if not _NAME.fullmatch(str(entry["name"])):
            raise CorruptIndexError(
                f"{path} is damaged: a segment's name must be six digits or more, and one is {entry['name']!r}"
            )
    for part in (*_FOLDERS, *(f"segments/{entry['name']}" for entry in manifest["segments"])):
        if (path / part).is_symlink():
            raise CorruptIndexError(
                f"{path / part} is a symbolic link, which is not followed; the index directory itself may be one"
            )


def remove_cache(path: Path, segment: str) -> None:
    """Remove what was made for FAISS from a segment of the index directory `path`."""
    for ending in (".faiss", ".json", ".repeats.npy"):
        (path / "faiss" / f"{segment}{ending}").unlink(missing_ok=True)


class Store:
    """An index directory at one generation.

    Args:
        path: the directory.

    Raises:
        IndexNotFoundError: there is no index.
        CorruptIndexError: what is read whole does not match its checksum.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.folder = self.path.resolve()  # what is opened later does not depend on the working directory
        current = self.path / "CURRENT"
        for attempt in range(_ATTEMPTS):
            self.check_there(self.path)
            pointer = read_sealed_json(current, CorruptIndexError)
            try:
                self._open(pointer)
                return
            except CorruptIndexError:
                # A writer may have gone on to the next generation, and removed this one, in between.
                if attempt == _ATTEMPTS - 1 or read_sealed_json(current, CorruptIndexError) == pointer:
                    raise

    def _open(self, pointer: Mapping[str, Any]) -> None:
        version, manifest, sha256 = int(pointer["format_version"]), str(pointer["manifest"]), str(pointer["sha256"])
        if version > FORMAT_VERSION:
            raise CorruptIndexError(
                f"{self.path / 'CURRENT'} is of format version {version}, and this sbert-mini ({__version__}) reads up to "
                f"{FORMAT_VERSION}: update it"
            )
        _check_pointer(self.path, manifest)
        self._read(read_checked_json(self.path / manifest, sha256), None)

    def _read(self, manifest: dict[str, Any], deleted: IntArray | None) -> None:
        _check_manifest(self.folder, manifest)
        self.manifest = manifest
        self.generation = int(self.manifest["generation"])
        known = {f.name for f in fields(ModelIdentity)}
        self.model = ModelIdentity(**{key: value for key, value in self.manifest["model"].items() if key in known})
        self.rows = int(self.manifest["rows"])
        self.kind = SearchKind(**self.manifest.get("kind", {}))
        self.deleted = self._deleted_rows() if deleted is None else deleted
        self._held: dict[str, AnyArray | None] = {}
        self.segments: list[Segment] = []
        for entry in self.manifest["segments"]:
            self.segments.append(Segment(self.folder / "segments" / entry["name"], entry))

    @classmethod
    def at(cls, path: Path, manifest: dict[str, Any], deleted: IntArray) -> "Store":
        """Return the generation of a manifest, which need not be the present one.

        Raises:
            CorruptIndexError: a segment of it was removed: nobody had it open any more.
        """
        store = cls.__new__(cls)
        store.path = store.folder = path
        try:
            store._read(manifest, deleted)
        except _VanishedError as error:
            raise CorruptIndexError(
                f"{path} does not hold generation {manifest['generation']} any more, which was pickled or copied: open the "
                f"present one with SearchIndex({str(path)!r})"
            ) from error
        return store

    @cached_property
    def columns(self) -> list[dict[str, Any]]:
        """The columns of the index with their types, as `search.columns.Schema.described` gives them.

        An index of an earlier version does not name them: they are inferred from its rows.
        """
        described: list[dict[str, Any]] | None = self.manifest.get("columns")
        if described is None:
            schema = Schema()
            for segment in self.segments:
                for position in range(segment.rows):
                    schema.take(segment.row(position).columns, typed=False)
            schema.finish()
            described = schema.described()
        return described

    def close(self) -> None:
        """Close the segments' files."""
        for segment in self.segments:
            segment.close()

    def _deleted_rows(self) -> IntArray:
        entry = self.manifest["deleted"]
        if entry is None:
            return np.empty(0, dtype=np.int64)
        with CheckedFile(self.path / "generations" / f"{self.generation:06d}.npy", entry) as file:
            return _npy_array(file)

    def is_deleted(self, row_id: int) -> bool:
        """Return whether the generation holds the row no more."""
        position = int(np.searchsorted(self.deleted, row_id))
        return position < len(self.deleted) and int(self.deleted[position]) == row_id

    def held(self, segment: Segment) -> AnyArray | None:
        """Return which of a segment's rows the generation holds, (rows,) bool; None for all."""
        if segment.name not in self._held:
            places = np.searchsorted(segment.row_ids, self.deleted)
            inside = places < segment.rows
            gone = places[inside][segment.row_ids[places[inside]] == self.deleted[inside]]
            held = None
            if len(gone):
                held = np.ones(segment.rows, dtype=bool)
                held[gone] = False
            self._held[segment.name] = held
        return self._held[segment.name]

    def find(self, identity: str) -> int | None:
        """Return the number of the row with this id, or None where the generation holds none."""
        for segment in reversed(self.segments):
            for position in segment.positions_of(identity):
                row = int(segment.row_ids[position])
                if not self.is_deleted(row):
                    return row
        return None

    @staticmethod
    def check_there(path: Path) -> None:
        """Make sure that a directory holds an index.

        Raises:
            IndexNotFoundError: it does not.
        """
        if not (path / "CURRENT").is_file():
            if path.exists() and not path.is_dir():
                raise IndexNotFoundError(
                    f"{path} is a file, and no index: make one of it with 'sbmini index create DIRECTORY --input {path}', and "
                    "name that directory"
                )
            if path.is_dir() and any(entry.name != "LOCK" for entry in path.iterdir()):
                raise IndexNotFoundError(
                    f"{path} holds no index but other files: name an index, or make one in an empty or absent directory with "
                    "'sbmini index create DIRECTORY --input FILE'"
                )
            what = "holds no index" if path.is_dir() else "does not exist"
            raise IndexNotFoundError(f"{path} {what}: make one with 'sbmini index create {path} --input FILE'")

    @staticmethod
    @contextmanager
    def writing(path: Path) -> Iterator[None]:
        """Hold the index directory's write lock.

        Raises:
            IndexLockedError: another process holds it.
        """
        path.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(path / "LOCK", timeout=0):
                yield
        except Timeout as error:
            raise IndexLockedError(f"{path} is being written by another process; try again when it is done") from error

    @staticmethod
    def check_free(path: Path) -> None:
        """Make sure that a new index can be made in the directory: it is absent, empty, or holds what a creation left.

        Raises:
            IndexExistsError: it holds an index, or something else. Nothing is touched.
        """
        if not path.is_dir():
            if path.exists():
                raise IndexExistsError(f"{path} is a file; name a directory for the new index")
            return
        if (path / "CURRENT").exists():
            raise IndexExistsError(f"{path} holds an index already: choose another directory, or remove that one")
        left = {"LOCK"} | ({_CREATING, *_FOLDERS} if (path / _CREATING).exists() else set())
        foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in left)
        if foreign:
            raise IndexExistsError(f"{path} must be empty or absent for a new index, and holds {foreign[0]}")

    @staticmethod
    @contextmanager
    def creating(path: Path) -> Iterator[None]:
        """Hold the write lock of a directory in which a new index is made; on an exception nothing of it stays.

        A marker tells what a creation that died left from anything else, and only then is it removed.

        Raises:
            IndexExistsError: see `check_free`.
            IndexLockedError: another process is writing there.
        """
        Store.check_free(path)
        existed = path.is_dir()
        with Store.writing(path):
            Store.check_free(path)
            (path / _CREATING).touch()
            try:
                for folder in _FOLDERS:
                    shutil.rmtree(path / folder, ignore_errors=True)
                    (path / folder).mkdir()
                yield
            except BaseException:
                for folder in _FOLDERS:
                    shutil.rmtree(path / folder, ignore_errors=True)
                (path / _CREATING).unlink(missing_ok=True)
                (path / "LOCK").unlink(missing_ok=True)
                if not existed:
                    with suppress(OSError):
                        path.rmdir()
                raise
            (path / _CREATING).unlink(missing_ok=True)

    @staticmethod
    def publish(
        path: Path,
        generation: int,
        model: ModelIdentity,
        segments: Sequence[Mapping[str, Any]],
        next_row: int,
        deleted: IntArray | None = None,
        kind: "SearchKind | None" = None,
        *,
        columns: Sequence[Mapping[str, Any]],
    ) -> None:
        """Write a generation's manifest and make it the present one.

        Args:
            path: the index directory.
            generation: its number, one more than the present one's.
            model: the model of all its vectors.
            segments: `{"name", "rows", "checksums_sha256"}` of each, in the order of their rows.
            next_row: the number that the next new row will have.
            deleted: the rows of the segments that the generation does not hold.
            kind: by what the rows are searched; None for the usual.
            columns: `Schema.described` of all its rows.
        """
        entry, lost = None, 0 if deleted is None else len(deleted)
        if deleted is not None and lost:
            file = path / "generations" / f"{generation:06d}.npy"
            write_durably(file, _npy_bytes(np.sort(deleted).astype("<i8")))
            entry = file_checksums(file)
        manifest = json_bytes(
            {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "generation": generation,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "sbert_mini": __version__,
                "model": vars(model),
                "metric": "cosine",
                "kind": vars(kind or SearchKind()),
                "rows": sum(segment["rows"] for segment in segments) - lost,
                "deleted": entry,
                "next_row": next_row,
                "columns": columns,
                "segments": segments,
            }
        )
        name = f"generations/{generation:06d}.json"
        write_durably(path / name, manifest)
        pointer = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "manifest": name,
            "sha256": hashlib.sha256(manifest).hexdigest(),
        }
        write_sealed_json(path / "CURRENT", pointer)

    @staticmethod
    def sweep(path: Path) -> None:
        """Remove what the present generation does not name and nobody reads. The caller holds the write lock.

        What cannot be removed now is left to the next writer.
        """
        manifest = Store._present_manifest(path)
        present = f"{manifest['generation']:06d}"
        named = {entry["name"] for entry in manifest["segments"]}
        for file in (*(path / "generations").iterdir(), *path.glob(".*.part")):
            if file.stem != present:
                file.unlink(missing_ok=True)
        for folder in (path / "segments").iterdir():
            if folder.name not in named and not folder.is_symlink() and _free(folder / CHECKSUMS):
                remove_cache(path, folder.name)
                shutil.rmtree(folder, ignore_errors=True)
        remove_all_dead_parts(path / "faiss")

    @staticmethod
    def _present_manifest(path: Path) -> dict[str, Any]:
        pointer = read_sealed_json(path / "CURRENT", CorruptIndexError)
        _check_pointer(path, str(pointer["manifest"]))
        manifest = read_checked_json(path / pointer["manifest"], pointer["sha256"])
        _check_manifest(path, manifest)
        return manifest

    def locate(self, row_id: int) -> tuple[Segment, int]:
        """Return the segment and the position in it of a row number.

        Raises:
            CorruptIndexError: there is no such row.
        """
        for segment in self.segments:
            position = int(np.searchsorted(segment.row_ids, row_id))
            if position < segment.rows and segment.row_ids[position] == row_id:
                return segment, position
        raise CorruptIndexError(f"{self.path} has no row {row_id}, which its FAISS file names")
