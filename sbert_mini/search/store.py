"""The index directory: its generations, which of them is the present one, and the write lock.

    INDEX/
      CURRENT                     which generation is the present one, and its manifest's checksum
      LOCK                        locked by the process that writes
      CREATING                    exists while the index is created
      generations/000001.json     a generation's manifest: model, dimension, segments; never changed once written
      generations/000002.npy      int64, ascending: deleted and replaced rows of its segments, if there are any
      segments/000001/            rows added together; never changed once written
        vectors.npy               float32 (vectors, dim), unit length: the truth that the FAISS file is made from
        passages.npy              int64 (vectors, 3): each vector's row, and its passage in the row's text (`search.passages`);
                                  only where a row has several vectors
        row_ids.npy               int64 (rows,), ascending; a number is never given to a second row
        rows.jsonl                a line a row: {"id", "text", "columns"}
        row_offsets.npy           int64 (rows + 1,), where each line of rows.jsonl starts
        id_index.npy              uint64 (rows, 2), ascending: a digest of each row's id, and the row's position
        columns.bin, .json        the rows' columns, for filters (`search.columns`)
        checksums.json            each file's size and the sha256 of each of its blocks of 1 MiB (of vectors.npy: of 32 KiB)
      faiss/000001.faiss, .json   a cache of the segment (`search.faiss_file`), with checksums of its own; it may be deleted
      faiss/000001.repeats.npy    int64 (repeats, 2): vectors that equal an earlier one, and that one, if there are any
      words/000001/               a cache of the generation (`search.word_files`): its rows' words, for BM25; it may be deleted

A writer makes a new segment and a new manifest beside the old ones, flushes them to the disk, and then replaces `CURRENT` in
one step. So a reader sees one generation or the next, keeps the files that it opened, and a writer that dies leaves the
generation before it whole. Checksums chain: `CURRENT` ends with its own, and names the manifest's, the manifest each
`checksums.json`'s, and that each block's; a part of a file is checked by reading its blocks alone.

A writer takes small segments at the end into the new one (`search.merging`), and compaction writes all rows that are left into
one new segment. A segment that the present generation does not name is removed by
the next writer that finds nobody reading it: a reader holds a shared lock (flock) on the `checksums.json` of each of its
segments, and on the `record.json` of its words, which ends with its process.

A file of a newer `format_version` is refused, an unknown key is ignored. Version 4 has passages. An index without them is still
written as version 3, which earlier releases read.
"""

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from sbert_mini.errors import CorruptIndexError, IndexLockedError, IndexNotFoundError, UsageError
from sbert_mini.files.durable import (
    json_bytes,
    read_sealed_json,
    remove_all_dead_parts,
    write_durably,
    write_sealed_json,
)
from sbert_mini.files.json_files import MANIFEST, POINTER, VERSION
from sbert_mini.files.json_schema import MANY, check
from sbert_mini.files.names import MANIFEST as MANIFEST_NAME
from sbert_mini.files.names import SEGMENT, path_in
from sbert_mini.runtime.choices import LongTexts
from sbert_mini.search.checksums import read_checked_json, read_checked_npy, write_checked_npy
from sbert_mini.search.column_reader import Columns, columns_from
from sbert_mini.search.columns import Schema
from sbert_mini.search.kinds import SearchKind, check_factory
from sbert_mini.search.segment import (
    CHECKSUMS,
    Segment,
    SegmentVanishedError,
    is_unfinished,
    remove_cache,
    remove_segment,
    remove_unread,
    segment_folder,
)
from sbert_mini.search.word_files import remove_unread_words
from sbert_mini.shapes import AnyArray, IntArray
from sbert_mini.version import __version__

FORMAT = "sbert-mini index"
FORMAT_VERSION, WITHOUT_PASSAGES = 4, 3
FOLDERS = ("generations", "segments", "faiss", "words")
_ATTEMPTS = 20
log = logging.getLogger("sbert_mini")
GENERATION_FILE = re.compile(r"[0-9]{6,18}\.(?:json|npy)")


@dataclass(frozen=True)
class LongTextRule:
    """What happens to texts that are longer than a vector covers.

    Attributes:
        truncation: `runtime.choices.LongTexts`.
        tokens: for `passages`, the most word pieces of one, without special tokens and prompt.
        overlap: for `passages`, the word pieces that each repeats of the one before.
    """

    truncation: LongTexts = "warn"
    tokens: int | None = None
    overlap: int | None = None


@dataclass(frozen=True)
class ModelIdentity:
    """The model that an index was made with.

    Attributes:
        name: as the user named it; a directory as an absolute path.
        fingerprint: `Embedder.fingerprint`.
        graph: `int8` or `fp32`.
        dimension: components of a vector.
        prompt: the text put before each row's text, or an empty string.
        space: `Embedder.space` where it is another model's fingerprint; else an empty string.
    """

    name: str
    fingerprint: str
    graph: str
    dimension: int
    prompt: str = ""
    space: str = ""


def _manifest_path(path: Path, pointer: Mapping[str, Any]) -> Path:
    """Return the path of the manifest that `CURRENT` names."""
    return path_in(path, pointer["manifest"], MANIFEST_NAME, path / "CURRENT", CorruptIndexError)


def _check_version(file: Path, data: Mapping[str, Any]) -> None:
    """Raise `CorruptIndexError` where a file is of a later version of the format than this one reads."""
    version = data["format_version"]
    if version > FORMAT_VERSION:
        raise CorruptIndexError(
            f"{file} is of format version {version}, and this sbert-mini ({__version__}) reads up to {FORMAT_VERSION}: update it"
        )


def read_manifest(path: Path, pointer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest that `CURRENT` points to.

    Raises:
        CorruptIndexError: it does not match its checksum, is of a newer version, or is not a manifest.
    """
    file = _manifest_path(path, pointer)
    manifest = read_checked_json(file, pointer["sha256"], VERSION)
    _check_version(file, manifest)
    check(manifest, MANIFEST, file, CorruptIndexError)
    names = [entry["name"] for entry in manifest["segments"]]
    rows = sum(entry["rows"] for entry in manifest["segments"])
    if len(set(names)) != len(names) or manifest["rows"] > rows or rows > MANY:
        raise CorruptIndexError(f"{file} is damaged: it does not name {manifest['rows']} rows in different segments")
    return manifest


def _check_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Raise `CorruptIndexError` where a manifest leads out of its index directory, or names what is still to be written."""
    folders = [segment_folder(path, entry) for entry in manifest["segments"]]
    for folder in folders:
        if int(folder.name) > manifest["generation"]:
            raise CorruptIndexError(
                f"{path} is damaged: the generation {manifest['generation']} names the segment {folder.name}, of a later one"
            )
    refuse_links(*(path / name for name in FOLDERS), *folders)


def refuse_links(*paths: Path) -> None:
    """Raise `CorruptIndexError` where a path is a symbolic link."""
    for path in paths:
        if path.is_symlink():
            raise CorruptIndexError(
                f"{path} is a symbolic link, which is not followed; the index directory itself may be one"
            )


def describe(path: Path) -> str | None:
    """Return the rows, the model and the dimension of the index in a directory, or None where none can be read."""
    try:
        manifest = _present_manifest(path)
        model = manifest["model"]
        return f"rows={manifest['rows']}, model={model['name']!r}, dimension={model['dimension']}"
    except (CorruptIndexError, OSError, KeyError):
        return None


def stored_bytes(path: Path) -> int:
    """Return the size of all files of an index directory; what hard links share counts once."""
    files = [file.stat() for file in path.rglob("*") if file.is_file()]
    return sum({(file.st_dev, file.st_ino): file.st_size for file in files}.values())


def _known(values: Mapping[str, Any], record: type) -> dict[str, Any]:
    """Return the values that a dataclass has fields for."""
    names = {f.name for f in fields(record)}
    return {key: value for key, value in values.items() if key in names}


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
        attempt = 0
        while True:
            require_index(self.path)
            pointer = read_sealed_json(current, VERSION, CorruptIndexError)
            try:
                self._open(pointer)
                return
            except CorruptIndexError:
                # A writer may have gone on to the next generation, and removed this one, in between.
                if attempt == _ATTEMPTS - 1 or read_sealed_json(current, VERSION, CorruptIndexError) == pointer:
                    raise
                attempt += 1

    def __repr__(self) -> str:
        return (
            f"Store({str(self.path)!r}, rows={self.rows}, model={self.model.name!r}, dimension={self.model.dimension}, "
            f"generation={self.generation})"
        )

    def _open(self, pointer: Mapping[str, Any]) -> None:
        _check_version(self.path / "CURRENT", pointer)
        check(pointer, POINTER, self.path / "CURRENT", CorruptIndexError)
        self._read(read_manifest(self.path, pointer), None)

    def _read(self, manifest: dict[str, Any], deleted: IntArray | None) -> None:
        _check_manifest(self.folder, manifest)
        self.manifest = manifest
        self.generation = int(self.manifest["generation"])
        self.model = ModelIdentity(**_known(self.manifest["model"], ModelIdentity))
        self.rows = int(self.manifest["rows"])
        self.long_texts = LongTextRule(**_known(self.manifest.get("long_texts") or {}, LongTextRule))
        self.kind = SearchKind(**_known(self.manifest.get("kind", {}), SearchKind))
        try:
            check_factory(self.kind.factory, self.model.dimension, self.kind.pca)
        except UsageError as error:
            raise CorruptIndexError(f"{self.path} is damaged: {error}") from error
        self.deleted = self._deleted_rows() if deleted is None else deleted
        self._present_rows: dict[str, AnyArray | None] = {}
        self._made_columns: dict[str, Columns] = {}
        self.segments: list[Segment] = []
        for entry in self.manifest["segments"]:
            self.segments.append(Segment(segment_folder(self.folder, entry), entry))
        last = -1
        for segment in self.segments:
            if int(segment.row_ids[0]) <= last:
                raise CorruptIndexError(f"{self.path} is damaged: two of its segments have rows of one number")
            last = int(segment.row_ids[-1])
        if last >= self.manifest["next_row"]:
            raise CorruptIndexError(
                f"{self.path} is damaged: the number of its next row is not above those of its rows"
            )

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
        except SegmentVanishedError as error:
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

    def columns_of(self, segment: Segment) -> Columns:
        """Return a segment's columns; where an earlier version wrote it without them, they are made from its rows, once.

        Raises:
            CorruptIndexError: a block that is read does not match its checksum.
        """
        if segment.has_columns:
            return segment.columns
        if segment.name not in self._made_columns:
            if not self._made_columns:
                log.warning(
                    "%s is of an earlier format: filters read all its rows, once a process; 'sbmini index compact %s' makes "
                    "them fast",
                    *(self.path, self.path),
                )
            rows = (segment.row(position) for position in range(segment.rows))
            self._made_columns[segment.name] = columns_from(
                ((row.id, row.columns) for row in rows), Schema(self.columns), segment.rows
            )
        return self._made_columns[segment.name]

    @property
    def format_version(self) -> int:
        """The lowest version of the format of its files; compaction brings all to the present one."""
        return min([int(self.manifest["format_version"]), *(segment.format_version for segment in self.segments)])

    @property
    def made_by(self) -> str:
        """The version of sbert-mini that wrote the generation."""
        return str(self.manifest.get("sbert_mini", "unknown"))

    def close(self) -> None:
        """Close the segments' files."""
        for segment in self.segments:
            segment.close()

    def _deleted_rows(self) -> IntArray:
        entry = self.manifest["deleted"]
        if entry is None:
            return np.empty(0, dtype=np.int64)
        file = self.path / "generations" / f"{self.generation:06d}.npy"
        deleted = read_checked_npy(file, entry, "<i8", (None,))
        if (np.diff(deleted) < 0).any():
            raise CorruptIndexError(f"{file} does not hold ascending row numbers")
        return deleted

    def is_deleted(self, row_id: int) -> bool:
        """Return whether the row was deleted or replaced."""
        position = int(np.searchsorted(self.deleted, row_id))
        return position < len(self.deleted) and int(self.deleted[position]) == row_id

    def present_rows(self, segment: Segment) -> AnyArray | None:
        """Return which of a segment's rows the generation holds, (rows,) bool; None for all."""
        if segment.name not in self._present_rows:
            positions = np.searchsorted(segment.row_ids, self.deleted)
            inside = positions < segment.rows
            gone = positions[inside][segment.row_ids[positions[inside]] == self.deleted[inside]]
            mask = None
            if len(gone):
                mask = np.ones(segment.rows, dtype=bool)
                mask[gone] = False
            self._present_rows[segment.name] = mask
        return self._present_rows[segment.name]

    def find(self, identity: str) -> int | None:
        """Return the number of the row with this id, or None where the generation holds none.

        Raises:
            CorruptIndexError: it holds several.
        """
        numbers = (
            int(segment.row_ids[position]) for segment in self.segments for position in segment.positions_of(identity)
        )
        rows = [row for row in numbers if not self.is_deleted(row)]
        if len(rows) > 1:
            raise CorruptIndexError(f"{self.path} is damaged: {len(rows)} rows have the id {identity!r}")
        return rows[0] if rows else None

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


def require_index(path: Path) -> None:
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
        if (path / "CREATING").is_file():
            raise IndexNotFoundError(
                f"{path} holds no index yet: its creation goes on, or was interrupted; if so, 'sbmini index create {path} "
                "--resume' with the same input makes it"
            )
        if path.is_dir() and any(entry.name != "LOCK" for entry in path.iterdir()):
            raise IndexNotFoundError(
                f"{path} holds no index but other files: name an index, or make one in an empty or absent directory with "
                "'sbmini index create DIRECTORY --input FILE' or 'sbmini index sync DIRECTORY FOLDER'"
            )
        what = "holds no index" if path.is_dir() else "does not exist"
        raise IndexNotFoundError(
            f"{path} {what}: make one of rows with 'sbmini index create {path} --input FILE', or of a folder of documents with "
            f"'sbmini index sync {path} FOLDER'"
        )


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Hold the index directory's write lock.

    Raises:
        IndexLockedError: another process holds it.
        CorruptIndexError: the lock file is a symbolic link.
    """
    path.mkdir(parents=True, exist_ok=True)
    refuse_links(path / "LOCK")  # some versions of filelock empty what it leads to
    try:
        with FileLock(path / "LOCK", timeout=0):
            yield
    except Timeout as error:
        raise IndexLockedError(f"{path} is being written by another process; try again when it is done") from error


def publish(
    path: Path,
    generation: int,
    model: ModelIdentity,
    segments: Sequence[Mapping[str, Any]],
    next_row: int,
    deleted: IntArray | None = None,
    kind: SearchKind | None = None,
    *,
    columns: Sequence[Mapping[str, Any]],
    long_texts: LongTextRule | None = None,
) -> None:
    """Write a generation's manifest and make it the present one.

    Args:
        path: the index directory.
        generation: its number, one more than the present one's.
        model: the model of all its vectors.
        segments: `SegmentWriter.entry` of each, in the order of their rows.
        next_row: the number that the next new row will have.
        deleted: the rows of the segments that the generation does not hold.
        kind: the kind of FAISS index; None for the default.
        columns: `Schema.described` of all its rows.
        long_texts: what happens to long texts that are added; None for the default of `LongTextRule`.
    """
    entry, lost = None, 0 if deleted is None else len(deleted)
    if deleted is not None and lost:
        entry = write_checked_npy(path / "generations" / f"{generation:06d}.npy", np.sort(deleted).astype("<i8"))
    version = FORMAT_VERSION if any("vectors" in segment for segment in segments) else WITHOUT_PASSAGES
    name = f"generations/{generation:06d}.json"
    content = {
        "format": FORMAT,
        "format_version": version,
        "generation": generation,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "sbert_mini": __version__,
        "model": {key: value for key, value in vars(model).items() if value or key != "space"},
        "metric": "cosine",
        "kind": vars(kind or SearchKind()),
        "long_texts": vars(long_texts or LongTextRule()),
        "rows": sum(segment["rows"] for segment in segments) - lost,
        "deleted": entry,
        "next_row": next_row,
        "columns": columns,
        "segments": segments,
    }
    manifest = json_bytes(check(content, MANIFEST, path / name, CorruptIndexError))
    write_durably(path / name, manifest)
    pointer = {
        "format": FORMAT,
        "format_version": version,
        "manifest": name,
        "sha256": hashlib.sha256(manifest).hexdigest(),
    }
    write_sealed_json(path / "CURRENT", pointer)


def sweep(path: Path) -> None:
    """Remove what the present generation does not name and nobody reads. The caller holds the write lock.

    Only what this package writes, known by its name, is removed; symbolic links stay, and so does what they lead to.

    What cannot be removed now is left to the next writer.
    """
    manifest = _present_manifest(path)
    present = f"{manifest['generation']:06d}"
    named = {entry["name"] for entry in manifest["segments"]}
    for file in (path / "generations").iterdir():
        if GENERATION_FILE.fullmatch(file.name) and file.stem != present and not file.is_dir():
            file.unlink(missing_ok=True)
    for folder in (path / "segments").iterdir():
        if folder.is_symlink() or folder.name in named:
            continue
        if is_unfinished(folder):
            remove_segment(folder)
        elif SEGMENT.allows(folder.name) and remove_unread(folder / CHECKSUMS):
            remove_cache(path, folder.name)
            remove_segment(folder)
    remove_unread_words(path, manifest["generation"])
    for folder in (path, *(path / name for name in FOLDERS)):
        remove_all_dead_parts(folder)


def _present_manifest(path: Path) -> dict[str, Any]:
    pointer = read_sealed_json(path / "CURRENT", POINTER, CorruptIndexError)
    manifest = read_manifest(path, pointer)
    _check_manifest(path, manifest)
    return manifest
