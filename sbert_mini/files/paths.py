"""Paths as people write them."""

import os
from pathlib import Path

from sbert_mini.errors import UsageError


def expanded(path: str | Path) -> Path:
    """Return a path whose `~` or `~user` is replaced by the home directory.

    A file or folder whose own name begins with `~` is itself.

    Raises:
        UsageError: there is no such home directory: `HOME` is not set and the user is unknown, or there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        if os.path.lexists(path):
            return Path(path)
        raise UsageError(
            f"{path}: there is no home directory for {Path(path).parts[0]!r} on this machine; write the path in full"
        ) from None


def matching(path: str | Path) -> list[Path]:
    """Return the files that a path stands for: itself, or, if there is none of this name, those that match it as a pattern.

    Files are sorted. What matches nothing stands for itself.
    """
    pattern = str(path)
    if not any(character in pattern for character in "*?[") or os.path.lexists(path):
        return [Path(path)]
    from glob import glob

    return sorted(Path(name) for name in glob(pattern, recursive=True)) or [Path(path)]  # noqa: PTH207  # may be absolute


def is_utf8(path: str | Path) -> bool:
    """Return whether a path is UTF-8; libraries that keep names as UTF-8 cannot open others by name."""
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError:
        return False
    return True
