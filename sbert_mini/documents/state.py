"""Which files of a folder an index holds, and what a sync has to do: read from the rows' own columns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sbert_mini.documents import reader
from sbert_mini.documents.selection import Folder, FolderFile, Selection, settled_text, unreadable_above
from sbert_mini.search.column_reader import Columns
from sbert_mini.search.segment import Segment
from sbert_mini.search.store import Store
from sbert_mini.shapes import AnyArray


@dataclass(slots=True)
class StoredFile:
    """A file as an index holds it.

    Attributes:
        sha256: of its bytes.
        bytes: its size.
        modified: when it was changed (`selection.modified_text`).
        rows: the numbers of its rows.
    """

    sha256: str
    bytes: int
    modified: str
    rows: list[int]


def stored_files(store: Store, folder: Folder) -> dict[str, StoredFile]:
    """Return the files of a folder that an index holds, by their paths below the folder.

    A row counts where a sync of this folder made it: its columns say so, and its id begins with the folder's name and the path.

    Raises:
        CorruptIndexError: a block of a column does not match its checksum.
    """
    files: dict[str, StoredFile] = {}
    for segment in store.segments:
        for path, row, values in _rows_of(store, segment, folder):
            file = files.get(path)
            if file is None:
                file = files[path] = StoredFile(*values, [])
            file.rows.append(row)
    return files


def held_as(store: Store, files: Sequence[FolderFile]) -> tuple[str, int] | None:
    """Return the folder whose rows hold the most of some files, by path and size, and how many; None where none holds half.

    Args:
        store: the index.
        files: of a folder of which the index holds nothing.

    Raises:
        CorruptIndexError: a block of a column does not match its checksum.
    """
    known = {(file.path, file.bytes) for file in files}
    held: dict[str, set[tuple[Any, Any]]] = {}
    for segment in store.segments:
        columns, present = store.columns_of(segment), store.present_rows(segment)
        positions = np.arange(segment.rows) if present is None else np.flatnonzero(present)
        taken = (
            _taken(columns, name, segment.rows, positions) for name in (reader.SYNCED_FROM, reader.PATH, reader.BYTES)
        )
        for folder, *file in zip(*taken, strict=True):
            if isinstance(folder, str) and tuple(file) in known:
                held.setdefault(folder, set()).add((file[0], file[1]))
    name = max(held, key=lambda folder: len(held[folder]), default="")
    return (name, len(held[name])) if name and 2 * len(held[name]) > len(files) else None


def _rows_of(store: Store, segment: Segment, folder: Folder) -> list[tuple[str, int, tuple[str, int, str]]]:
    """Return path, number, and sha256, size and time of each row of a folder in a segment."""
    columns = store.columns_of(segment)
    origin = columns.column(reader.SYNCED_FROM)
    if origin is None or origin.type != "text":
        return []
    names = origin.values(0, segment.rows)
    mask = names.valid & (names.values == folder.name)
    present = store.present_rows(segment)
    positions = np.flatnonzero(mask if present is None else mask & present)
    if not len(positions):
        return []
    ids, paths, hashes, times = (
        _taken(columns, name, segment.rows, positions) for name in ("id", reader.PATH, reader.SHA256, reader.MODIFIED)
    )
    sizes = _taken(columns, reader.BYTES, segment.rows, positions)
    rows = []
    for i, position in enumerate(positions.tolist()):
        path, begin = paths[i], folder.id_of(str(paths[i]))
        identity = ids[i]
        if isinstance(path, str) and isinstance(identity, str) and (identity == begin or _is_row(identity, begin)):
            size = int(sizes[i]) if sizes[i] is not None else -1
            rows.append((path, int(segment.row_ids[position]), (str(hashes[i]), size, str(times[i]))))
    return rows


def _is_row(identity: str, begin: str) -> bool:
    return identity.startswith((f"{begin}:", f"{begin}#"))


def _taken(columns: Columns, name: str, rows: int, positions: AnyArray) -> list[Any]:
    """Return a column's values at some positions; None for NULL."""
    column = columns.column(name)
    if column is None:
        return [None] * len(positions)
    stored = column.values(0, rows)
    valid = stored.valid[positions].tolist()
    return [value if ok else None for value, ok in zip(stored.values[positions].tolist(), valid, strict=True)]


@dataclass
class FolderPlan:
    """What a sync has to do for a folder.

    Attributes:
        folder: the folder.
        selection: its documents.
        stored: the files that the index holds.
        new: files that it does not hold.
        changed: files whose content is another.
        vanished: paths of files that are no documents any more.
        unchanged: files that stay as they are.
        failed: files that cannot be read, by their paths -> why; their rows stay.
    """

    folder: Folder
    selection: Selection
    stored: Mapping[str, StoredFile]
    new: list[FolderFile] = field(default_factory=list)
    changed: list[FolderFile] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)
    unchanged: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def stored_rows(self) -> int:
        """Rows of the folder in the index."""
        return sum(len(file.rows) for file in self.stored.values())

    @property
    def vanished_rows(self) -> int:
        """Rows of files that are no documents any more."""
        return sum(len(self.stored[path].rows) for path in self.vanished)


def plan_folder(
    folder: Folder,
    selection: Selection,
    stored: Mapping[str, StoredFile],
    *,
    compare_contents: bool = False,
    hash_of: Callable[[Folder, FolderFile], str] = reader.hash_of,
) -> FolderPlan:
    """Return what a sync has to do for a folder.

    A file of the same size and time of modification is unchanged; the contents of other files are compared by their sha256.

    Args:
        folder: the folder.
        selection: its documents.
        stored: what the index holds of it.
        compare_contents: compare all contents, whatever the times say.
        hash_of: returns the sha256 of a file.
    """
    plan = FolderPlan(folder, selection, stored)
    plan.failed.update(selection.unreadable)
    for file in selection.files:
        known = stored.get(file.path)
        if known is None:
            plan.new.append(file)
        elif not compare_contents and known.bytes == file.bytes and known.modified == settled_text(file):
            plan.unchanged += 1
        else:
            try:
                same = known.bytes == file.bytes and known.sha256 == hash_of(folder, file)
            except OSError as error:
                plan.failed[file.path] = reader.failure_of(error)
                continue
            if same:
                plan.unchanged += 1
            else:
                plan.changed.append(file)
    documents = {file.path for file in selection.files}
    plan.vanished = sorted(path for path in stored if path not in documents and not unreadable_above(path, selection))
    return plan
