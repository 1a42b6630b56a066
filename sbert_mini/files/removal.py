"""Removing what this package wrote: files that are known by their names. What else lies beside them stays."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def remove_known(folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Remove the files of a folder that have a name of ours, and the folder where nothing else is left in it.

    A link is removed, and not what it leads to. What cannot be removed stays.

    Args:
        folder: the folder; where it is a symbolic link, or absent, nothing is done.
        is_ours: whether a file's name is one that this package gives.
    """
    if folder.is_symlink():
        return
    with suppress(OSError):
        with os.scandir(folder) as entries:
            files = [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]
        for name in filter(is_ours, files):
            with suppress(OSError):
                (folder / name).unlink()
        folder.rmdir()
