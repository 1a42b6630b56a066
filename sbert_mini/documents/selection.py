"""Which files of a folder are documents: neither hidden, ignored, binary by name, nor outside of the folder."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sbert_mini.documents.formats import is_binary_name
from sbert_mini.documents.ignoring import Globs, IgnoreRules
from sbert_mini.errors import InputError, UsageError

MOST_FOLDERS_DEEP = 64
"""Folders inside each other that are read."""
CURRENT_FOLDER = "."
_SETTLED_S = 2.0
"""A file that was changed less than so long before it was read may change again within the same tick of the clock."""


@dataclass(frozen=True)
class Folder:
    """A folder whose files are rows of an index.

    Attributes:
        path: where it lies.
        name: what its rows are known by: the path as it was given, or another name.
    """

    path: Path
    name: str

    @property
    def prefix(self) -> str:
        """What the ids of its rows begin with."""
        return "" if self.name == CURRENT_FOLDER else "/" if self.name == "/" else f"{self.name}/"

    def id_of(self, path: str) -> str:
        """Return the id of the row of a file, whose path is below the folder."""
        return self.prefix + path


@dataclass(frozen=True, slots=True)
class FolderFile:
    """A file as it was found.

    Attributes:
        path: below the folder, with /.
        bytes: its size.
        modified_ns: when it was last changed, in nanoseconds since 1970.
    """

    path: str
    bytes: int
    modified_ns: int


@dataclass
class Selection:
    """The documents of a folder, and what is none.

    Attributes:
        files: the documents, sorted by path.
        hidden: files and folders whose name begins with a dot.
        ignored: files and folders that an ignore file or `--exclude` names, and files that `--include` does not.
        binary: files without text.
        links: links that lead out of the folder, to a folder, or nowhere.
        unreadable: folders, ending in /, and files that cannot be read -> why.
    """

    files: list[FolderFile] = field(default_factory=list)
    hidden: int = 0
    ignored: int = 0
    binary: int = 0
    links: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)


def folders_of(paths: Sequence[str | Path], name: str | None = None) -> list[Folder]:
    """Return the folders that are given by paths.

    Args:
        paths: of the folders.
        name: what the rows of the one folder are known by; None for its path as given.

    Raises:
        InputError: a folder is missing, no folder, or cannot be read.
        UsageError: there is none, one contains another, or the name is none or of several.
    """
    if not paths:
        raise UsageError("no folder is named")
    if name is not None and len(paths) != 1:
        raise UsageError(f"--as names one folder, and {len(paths)} are given: sync each by itself")
    if name is not None and (not name.strip() or os.path.normpath(name) != name or "\0" in name):
        raise UsageError(f"--as takes a name such as notes or team/notes; found {name!r}")
    folders = [Folder(Path(path), os.path.normpath(path) if name is None else name) for path in paths]
    real: list[Path] = []
    for folder in folders:
        try:
            with os.scandir(folder.path):
                real.append(folder.path.resolve(strict=True))
        except (OSError, ValueError, RuntimeError) as error:
            why = getattr(error, "strerror", None) or error
            raise InputError(f"the folder {folder.path} cannot be read: {why}; nothing was changed") from error
    for i, one in enumerate(real):
        for j, other in enumerate(real):
            if i != j and (one == other or other in one.parents):
                raise UsageError(f"the folder {folders[i].path} lies in {folders[j].path}: name the outer one alone")
    return folders


def select(folder: Folder, include: Globs, exclude: Globs, left_out: Sequence[Path] = ()) -> Selection:
    """Return the documents of a folder.

    Args:
        folder: the folder.
        include: if there are patterns, only files that match one are documents.
        exclude: files and folders that match one are none.
        left_out: files and folders that are none, as resolved paths: the index itself.

    Raises:
        InputError: the folder cannot be read any more.
    """
    walk = _Walk(folder.path, include, exclude, left_out)
    walk.read(folder.path, "", IgnoreRules(), 0)
    if "" in walk.selection.unreadable:
        why = walk.selection.unreadable[""]
        raise InputError(f"the folder {folder.path} cannot be read: {why}; nothing was changed")
    walk.selection.files.sort(key=lambda file: file.path)
    return walk.selection


class _Walk:
    """Reads a folder and those in it.

    Args:
        root: the folder.
        include: see `select`.
        exclude: see `select`.
        left_out: see `select`.
    """

    def __init__(self, root: Path, include: Globs, exclude: Globs, left_out: Sequence[Path]) -> None:
        self.selection = Selection()
        self._root = root.resolve()
        self._include, self._exclude = include, exclude
        self._left_out = frozenset(map(str, left_out))

    def read(self, folder: Path, path: str, rules: IgnoreRules, depth: int) -> None:
        """Note the files of a folder, whose path below the root ends in / or is "", and of those in it."""
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            self.selection.unreadable[path] = error.strerror or str(error)
            return
        names = {entry.name for entry in entries}
        if {"CURRENT", "generations", "segments"} <= names:  # an index
            self.selection.ignored += 1
            return
        rules = rules.below(folder, path, names)
        for entry in entries:
            below = path + entry.name
            if entry.name.startswith("."):
                self.selection.hidden += 1
            elif entry.is_dir(follow_symlinks=False):
                self._read_inner(Path(entry.path), f"{below}/", rules, depth + 1)
            else:
                self._note(entry, below, rules)

    def _read_inner(self, folder: Path, path: str, rules: IgnoreRules, depth: int) -> None:
        if rules.ignores(path) or self._exclude.match(path) or self._is_left_out(folder):
            self.selection.ignored += 1
        elif depth > MOST_FOLDERS_DEEP:
            self.selection.unreadable[path] = f"it lies more than {MOST_FOLDERS_DEEP} folders deep"
        else:
            self.read(folder, path, rules, depth)

    def _note(self, entry: "os.DirEntry[str]", path: str, rules: IgnoreRules) -> None:
        is_link = entry.is_symlink()
        if is_link and not self._leads_inside(Path(entry.path)):
            self.selection.links += 1
            return
        if rules.ignores(path) or self._exclude.match(path) or (self._include and not self._include.match(path)):
            self.selection.ignored += 1
            return
        try:
            status = entry.stat()
        except OSError as error:
            self.selection.unreadable[path] = error.strerror or str(error)
            return
        if not stat.S_ISREG(status.st_mode) or is_binary_name(path):
            self.selection.binary += 1
        elif not self._is_left_out(Path(entry.path)):
            self.selection.files.append(FolderFile(path, status.st_size, status.st_mtime_ns))

    def _leads_inside(self, link: Path) -> bool:
        """Return whether a link leads to a file in the root."""
        try:
            target = link.resolve(strict=True)
        except (OSError, RuntimeError):
            return False
        return target.is_relative_to(self._root) and target.is_file()

    def _is_left_out(self, path: Path) -> bool:
        return bool(self._left_out) and str(path.resolve()) in self._left_out


def modified_text(modified_ns: int, read_s: float) -> str:
    """Return a time of modification as a row keeps it: ISO 8601 in UTC, with nanoseconds.

    A file that was modified less than 2 s before it was read has no fraction of a second, so it never equals the same time of a
    later sync: its content is compared then.

    Args:
        modified_ns: nanoseconds since 1970.
        read_s: when it was read, in seconds since 1970.
    """
    seconds, fraction = divmod(modified_ns, 10**9)
    try:
        moment = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return ""
    return f"{moment}Z" if read_s - modified_ns / 1e9 < _SETTLED_S else f"{moment}.{fraction:09d}Z"


def settled_text(file: FolderFile) -> str:
    """Return what a row keeps as the file's time of modification if the file has not changed since."""
    return modified_text(file.modified_ns, float("inf"))


def unreadable_above(path: str, selection: Selection) -> bool:
    """Return whether a file, or a folder above it, could not be read."""
    return path in selection.unreadable or any(f"{folder}/" in selection.unreadable for folder in _folders_above(path))


def _folders_above(path: str) -> Iterator[str]:
    at = path.rfind("/")
    while at > 0:
        yield path[:at]
        at = path.rfind("/", 0, at)
