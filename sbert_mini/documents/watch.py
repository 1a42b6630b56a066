"""Sync folders again after each change of their files."""

import time
from collections.abc import Iterator
from pathlib import Path

from sbert_mini.documents.sync import FolderSync, SyncCounts
from sbert_mini.errors import IndexLockedError, MissingExtraError
from sbert_mini.search.journal import journal_folder

_QUIET_MS = 30
"""A change is taken once so long nothing else changed."""
_LONGEST_MS = 300
"""Or after so long."""
_FIRST_MS = 200
"""How long the first changes are waited for before the folders are read."""
_LOCKED_S = 0.2


def watch(syncing: FolderSync) -> Iterator[SyncCounts]:
    """Yield the counts of a sync once the folders are watched, and after each change in them, until the process is interrupted.

    Args:
        syncing: the folders and their index.

    Raises:
        MissingExtraError: watchfiles is not installed.
        InputError: a folder is gone, or more than half of its rows would be removed.
    """
    try:
        from watchfiles import watch as changes_in
    except ModuleNotFoundError as error:
        raise MissingExtraError("--watch", "watchfiles", "documents") from error

    own = tuple(str(path.resolve()) for path in (syncing.path, journal_folder(syncing.path)))

    def is_document(_: object, path: str) -> bool:
        return not any(path == folder or path.startswith(f"{folder}/") for folder in own) and not _is_hidden(path)

    roots = [folder.path.resolve() for folder in syncing.folders]

    def _is_hidden(path: str) -> bool:
        return any(
            part.startswith(".") and part not in (".gitignore", ".sbminiignore")
            for root in roots
            if Path(path).is_relative_to(root)
            for part in Path(path).relative_to(root).parts
        )

    watched = changes_in(
        *roots,
        watch_filter=is_document,
        debounce=_LONGEST_MS,
        step=_QUIET_MS,
        rust_timeout=_FIRST_MS,
        yield_on_timeout=True,
    )
    for number, changes in enumerate(watched):
        if number and not changes:
            continue  # the first sync is for what changed before the folders were watched
        while True:
            try:
                counts = syncing.run()
            except IndexLockedError:  # another command writes to the index for a moment
                time.sleep(_LOCKED_S)
            else:
                break
        yield counts
