"""The folder of an index of words: tantivy's files, which never change, and a record with their checksums.

    INDEX/words/000002/record.json     which rows it holds, tantivy's list of segments, the files' sizes and sha256; sealed
    INDEX/words/000002/HEX.idx, ...    tantivy's files

A generation's folder holds hard links to those files of the folder before that did not change, and new files. It is a cache: it
may be deleted at any time. tantivy's own lists (`meta.json`, `.managed.json`) are not kept. A file of a stranger could name other
files there, which tantivy's writer would delete; `meta.json` is written from the record when the index is opened.
"""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.errors import CorruptIndexError
from sbert_mini.files import system
from sbert_mini.files.durable import flush_directory, is_any_part, read_sealed_json, scratch_folder, write_sealed_json
from sbert_mini.files.json_files import WORDS_RECORD, WORDS_VERSION
from sbert_mini.files.json_schema import check
from sbert_mini.files.names import SEGMENT, WORDS_FILE, path_in
from sbert_mini.files.reading import open_stream
from sbert_mini.files.removal import remove_known
from sbert_mini.search.analyzer import ANALYZER_NAME, ANALYZER_VERSION
from sbert_mini.search.segment import Segment, remove_unread
from sbert_mini.shapes import IntArray

FOLDER, RECORD = "words", "record.json"
ROW, TEXT = "row", "text"
RECORD_FORMAT = 1
_META = "meta.json"
_OF_TANTIVY = (".managed.json", ".tantivy-writer.lock", ".tantivy-meta.lock")
_KINDS = ("fast", "fieldnorm", "idx", "pos", "store", "term")
_SCHEMA = [
    {
        "name": ROW,
        "type": "i64",
        "options": {"indexed": True, "fieldnorms": False, "fast": True, "stored": False},
    },
    {
        "name": TEXT,
        "type": "text",
        "options": {
            "indexing": {"record": "freq", "fieldnorms": True, "tokenizer": ANALYZER_NAME},
            "stored": False,
            "fast": False,
        },
    },
]
_SETTINGS = {"docstore_compression": "none", "docstore_blocksize": 16384}
_CHECKED_AT_MOST = 10_000
_checked: dict[tuple[int, ...], str] = {}
"""Files whose sha256 this process computed: `file_state` -> sha256."""

Record = Mapping[str, Any]


def content_digest(segments: Iterable[Segment], deleted: IntArray) -> str:
    """Return what tells the rows of a generation from those of any other.

    Args:
        segments: its segments.
        deleted: the numbers of their rows that it does not hold.
    """
    entries = json.dumps([[segment.name, segment.rows, segment.checksum] for segment in segments])
    return hashlib.sha256(entries.encode() + np.unique(deleted).astype("<i8").tobytes()).hexdigest()


def folder_of(path: Path, generation: int) -> Path:
    """Return the folder of a generation's words in the index directory `path`."""
    return path / FOLDER / f"{generation:06d}"


def index_format() -> str:
    """Return the format of the files that this tantivy writes."""
    import tantivy

    version: str = tantivy.__version__  # type: ignore[attr-defined]  # it is in the module of Rust alone
    return version.rpartition(", ")[2]


def file_state(path: Path | str) -> tuple[int, ...]:
    """Return what changes when a file is replaced, or written into.

    Raises:
        OSError: it is not there.
        CorruptIndexError: it is not a regular file.
    """
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise CorruptIndexError(f"{path} is not a regular file")
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def read_record(folder: Path, content: str) -> Record | None:
    """Return the record of a folder, or None where there is none that this version can use.

    Args:
        folder: the folder.
        content: the `content_digest` that it must have.

    Raises:
        CorruptIndexError: it is damaged, or belongs to other rows.
    """
    file = folder / RECORD
    if folder.is_symlink() or file.is_symlink():
        raise CorruptIndexError(f"{folder} or its record is a symbolic link, which is not followed")
    if not file.exists():
        return None
    record = read_sealed_json(file, WORDS_VERSION, CorruptIndexError)
    if (record["format"], record["analyzer"], record["tantivy"]) != (RECORD_FORMAT, ANALYZER_VERSION, index_format()):
        return None
    check(record, WORDS_RECORD, file, CorruptIndexError)
    if set(record["files"]) != set(_file_names(record["segments"])):
        raise CorruptIndexError(f"{file} does not list the files of its segments")
    if record["content"] != content:
        raise CorruptIndexError(f"{folder} belongs to other rows")
    return record


def paths_of(folder: Path, record: Record) -> dict[str, Path]:
    """Return the paths of tantivy's files in a folder, by name."""
    return {name: _path(folder, name) for name in sorted(record["files"])}


def _path(folder: Path, name: str) -> Path:
    return path_in(folder, name, WORDS_FILE, folder / RECORD, CorruptIndexError)


def check_files(folder: Path, record: Record, *, again: bool = False) -> dict[str, tuple[int, ...]]:
    """Check the size and the sha256 of each file, and return their names and states.

    Args:
        folder: the folder.
        record: its record.
        again: read files too that this process has checked, and nobody has written into since.

    Raises:
        CorruptIndexError: a file does not match, or is missing.
    """
    states: dict[str, tuple[int, ...]] = {}
    unread: list[tuple[Path, str]] = []
    for name, path in paths_of(folder, record).items():
        states[name] = _checked_size(path, record["files"][name]["bytes"])
        sha256 = record["files"][name]["sha256"]
        if again or _checked.get(states[name]) != sha256:
            unread.append((path, sha256))
    if not unread:
        return states
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=2) as pool:
        digests = list(pool.map(_sha256, (path for path, _ in unread)))
    for (path, expected), digest in zip(unread, digests, strict=True):
        if digest != expected:
            raise CorruptIndexError(f"{path} does not match its checksum")
        _remember(states[path.name], digest)
    return states


def _checked_size(path: Path, size: int) -> tuple[int, ...]:
    """Return the state of a file.

    Raises:
        CorruptIndexError: it is missing, or has another size.
    """
    try:
        state = file_state(path)
    except OSError as error:
        raise CorruptIndexError(f"{path} cannot be opened: {error.strerror or error}") from error
    if state[2] != size:
        raise CorruptIndexError(f"{path} must hold {size} bytes, and holds {state[2]}")
    return state


def damage_of(folder: Path, content: str) -> str | None:
    """Return what is wrong with a folder, every byte of it, or None; one that is not there is not wrong."""
    try:
        record = read_record(folder, content)
        if record is not None:
            check_files(folder, record, again=True)
    except CorruptIndexError as error:
        return str(error)
    return None


@contextmanager
def opened_folder(folder: Path, record: Record) -> Iterator[Path]:
    """Yield a folder that `word_writer.open_index` can open: tantivy writes there.

    It holds links to the files, and is beside them, or where nothing can be written there, among the temporary files.
    """
    from tempfile import TemporaryDirectory

    with ExitStack() as stack:
        try:
            scratch = stack.enter_context(scratch_folder(folder))
        except OSError:
            temporary = TemporaryDirectory(prefix="sbmini-words-", ignore_cleanup_errors=system.KEEPS_OPEN_FILES)
            scratch = Path(stack.enter_context(temporary))
        for name, path in paths_of(folder, record).items():
            system.link(path.absolute(), _path(scratch, name))
        yield scratch


def write_meta(folder: Path, record: Record) -> None:
    """Write tantivy's list of segments into a folder that only this process knows."""
    segments = [
        {"segment_id": s["segment_id"], "max_doc": s["max_doc"], "deletes": s["deletes"]} for s in record["segments"]
    ]
    meta = {
        "index_settings": _SETTINGS,
        "segments": segments,
        "schema": _SCHEMA,
        "opstamp": record["opstamp"],
    }
    (folder / _META).write_text(json.dumps(meta))


def link_files(folder: Path, record: Record, target: Path) -> None:
    """Put tantivy's files of one folder into another: as hard links, or as copies where there can be no links.

    Raises:
        OSError: the target cannot be written.
        CorruptIndexError: a file is missing, or has another size.
    """
    for name, path in paths_of(folder, record).items():
        _checked_size(path, record["files"][name]["bytes"])
        try:
            os.link(path, _path(target, name), follow_symlinks=False)
        except OSError:
            shutil.copyfile(path, _path(target, name), follow_symlinks=False)


def seal(folder: Path, content: str, rows: int, before: tuple[Path, Record] | None) -> None:
    """Write the record of a folder into which tantivy wrote, and remove what its segments do not need.

    Args:
        folder: the folder, which nobody else knows yet.
        content: its `content_digest`.
        rows: how many rows it holds.
        before: the folder whose files were linked, and its record; their checksums are taken over.

    Raises:
        CorruptIndexError: a file of the folder before that tantivy read whole, to merge it, is damaged.
    """
    meta = json.loads((folder / _META).read_text())
    names = _file_names(meta["segments"])
    known = {} if before is None else before[1]["files"]
    if before is not None:
        merged = {name: known[name] for name in known if name not in names}
        check_files(before[0], {"files": merged})
    for file in folder.iterdir():
        if file.name not in names:
            file.unlink()
    files = {name: known.get(name) or _described(_path(folder, name)) for name in names}
    record = {
        "format": RECORD_FORMAT,
        "analyzer": ANALYZER_VERSION,
        "tantivy": index_format(),
        "content": content,
        "rows": rows,
        "opstamp": meta["opstamp"],
        "segments": meta["segments"],
        "files": files,
    }
    write_sealed_json(folder / RECORD, record)


def publish_folder(made: Path, folder: Path) -> None:
    """Rename a whole folder into its place; what stands there goes into the folder of the new one, which is a temporary one."""
    with suppress(FileNotFoundError):
        folder.rename(made.parent / "replaced")
    made.rename(folder)
    flush_directory(folder.parent)


def remove_unread_words(path: Path, generation: int) -> None:
    """Remove the words of every generation but one that nobody reads; symbolic links stay. The caller holds the write lock.

    Args:
        path: the index directory.
        generation: the present generation's number.
    """
    present = folder_of(path, generation)
    if not present.parent.is_dir():  # an index of an earlier version
        return
    for folder in present.parent.iterdir():
        unnamed = SEGMENT.allows(folder.name) and folder.name != present.name and not folder.is_symlink()
        if unnamed and remove_unread(folder / RECORD):
            remove_words(folder)


def is_words_file(name: str) -> bool:
    """Return whether a file has a name that this package or tantivy gives to files of words."""
    return WORDS_FILE.allows(name) or name in (RECORD, _META, *_OF_TANTIVY) or is_any_part(name)


def remove_words(folder: Path) -> None:
    """Remove a folder of words with its files; where others lie there, these and the folder stay."""
    remove_known(folder, is_words_file)


def _described(path: Path) -> dict[str, Any]:
    state, digest = file_state(path), _sha256(path)
    _remember(state, digest)
    return {"bytes": path.stat().st_size, "sha256": digest}


def _remember(state: tuple[int, ...], digest: str) -> None:
    if len(_checked) >= _CHECKED_AT_MOST:
        _checked.clear()
    _checked[state] = digest


def _sha256(path: Path) -> str:
    try:
        with open_stream(path) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CorruptIndexError(f"{path} cannot be read: {error.strerror or error}") from error


def _file_names(segments: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of the files of tantivy's segments."""
    names = []
    for segment in segments:
        stem = segment["segment_id"].replace("-", "")
        names += [f"{stem}.{kind}" for kind in _KINDS]
        if segment["deletes"] is not None:
            names.append(f"{stem}.{segment['deletes']['opstamp']}.del")
    return names
