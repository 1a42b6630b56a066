"""Making an index directory: which directory may become one, and removing what a creation that died left there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sbert_mini.errors import IndexExistsError
from sbert_mini.files.durable import is_any_part, is_part, remove_all_dead_parts
from sbert_mini.files.names import SEGMENT
from sbert_mini.search.segment import is_cache_file, is_segment_file, is_unfinished
from sbert_mini.search.store import FOLDERS, GENERATION_FILE, refuse_links, write_lock
from sbert_mini.search.word_files import is_words_file

_CREATING = "CREATING"


def _check_free(path: Path) -> None:
    """Make sure that a new index can be made in the directory: it is absent, empty, or holds what a creation left.

    Raises:
        IndexExistsError: it holds an index, or something else. Nothing is touched.
    """
    if not path.is_dir():
        if path.exists():
            raise IndexExistsError(f"{path} is a file; name a directory for the new index")
        return
    if (path / "CURRENT").exists():
        raise IndexExistsError(
            f"{path} holds an index already: choose another directory, or replace it by 'sbmini index create --overwrite' or by "
            "create(..., overwrite=True)"
        )
    creating = (path / _CREATING).exists()
    left = {"LOCK", _CREATING, *FOLDERS} if creating else {"LOCK"}
    foreign = sorted(
        entry.name
        for entry in path.iterdir()
        if entry.name not in left and not (creating and is_part(entry.name, "CURRENT"))  # killed before its renaming
    )
    if creating:
        refuse_links(*(path / name for name in FOLDERS))
        foreign += sorted(str(file.relative_to(path)) for file in _stored_files(path) if not _is_ours(file, path))
    if foreign:
        raise IndexExistsError(f"{path} must be empty or absent for a new index, and holds {foreign[0]}")


def _stored_files(path: Path) -> Iterator[Path]:
    """Yield every file in the folders of an index directory; links to folders are not followed."""
    for name in FOLDERS:
        for folder, _, files in os.walk(path / name):
            yield from (Path(folder, file) for file in files)


def _is_ours(file: Path, path: Path) -> bool:
    """Return whether a file in the folders of an index directory has a place and a name that this package gives."""
    folder, *names = file.relative_to(path).parts
    if any(is_any_part(name) for name in names):
        return True
    if len(names) == 1:
        return (folder == "generations" and GENERATION_FILE.fullmatch(names[0]) is not None) or (
            folder == "faiss" and is_cache_file(names[0])
        )
    is_segment = SEGMENT.allows(names[0]) or is_unfinished(file.parent)
    return len(names) == 2 and (
        (folder == "segments" and is_segment and is_segment_file(names[1]))
        or (folder == "words" and SEGMENT.allows(names[0]) and is_words_file(names[1]))
    )


def _remove_created(path: Path) -> None:
    """Remove what a creation that died left in the folders of an index: files with names of ours, and empty folders."""
    for file in _stored_files(path):
        if _is_ours(file, path):
            file.unlink(missing_ok=True)
    for name in FOLDERS:
        remove_all_dead_parts(path / name)
        for folder, _, _ in os.walk(path / name, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()


@contextmanager
def creating_index(path: Path) -> Iterator[None]:
    """Hold the write lock of a directory in which a new index is made; on an exception nothing of it stays.

    A marker tells what a creation that died left from anything else, and only then is it removed.

    Raises:
        IndexExistsError: see `_check_free`.
        IndexLockedError: another process is writing there.
    """
    _check_free(path)
    existed = path.is_dir()
    with write_lock(path):
        _check_free(path)
        (path / _CREATING).touch()
        try:
            _remove_created(path)
            for folder in FOLDERS:
                (path / folder).mkdir(exist_ok=True)
            yield
        except BaseException:
            _remove_created(path)
            (path / _CREATING).unlink(missing_ok=True)
            (path / "LOCK").unlink(missing_ok=True)
            if not existed:
                with suppress(OSError):
                    path.rmdir()
            raise
        (path / _CREATING).unlink(missing_ok=True)
