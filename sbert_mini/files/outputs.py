"""The folders that training writes: checked before anything slow is done; nothing is removed that was not made here.

A folder that is being written is beside its final path, under a name with `.part`, and holds the file `MARK`. What another
program or a person put there lacks the file, and is refused.
"""

import contextlib
import os
import shutil
from pathlib import Path

from sbert_mini.errors import UsageError

PART = ".part"
MARK = ".made-by-sbmini"


def with_name(output: Path) -> Path:
    """Return a path that ends in a name, so that other folders can be named after it.

    Raises:
        UsageError: it is the root.
    """
    named = output if output.name not in ("", "..") else output.resolve()
    if not named.name:
        raise UsageError(f"the output must be a folder with a name of its own; found {output}")
    return named


def check_new(output: Path) -> None:
    """Refuse an output where something stands already, or that cannot be written. An empty folder is no obstacle.

    Raises:
        UsageError: the text says what is in the way.
    """
    resolved = output.resolve()
    if Path.cwd().is_relative_to(resolved):
        raise UsageError(f"the output {output} is the working directory, or holds it: name another output")
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file: name another output, a folder")
    if output.is_symlink() and not output.exists():
        raise UsageError(f"{output} is a link that leads nowhere: name another output")
    if output.is_dir() and (output / "modules.json").is_file():
        raise UsageError(f"{output} exists already: name another output, or delete it")
    if output.is_dir() and any(output.iterdir()):
        raise UsageError(f"{output} exists already and is not empty: name another output")
    _check_part(output)
    parent = next(folder for folder in resolved.parents if folder.exists())
    if not parent.is_dir():
        raise UsageError(f"{output} cannot be written: {parent} is a file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"{output} cannot be written: the folder {parent} is not writable")


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        UsageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be made: {error.strerror or error}") from error


def is_made(folder: Path) -> bool:
    """Return whether a folder holds the mark."""
    return (folder / MARK).is_file()


def _check_part(final: Path) -> Path:
    part = final.with_name(final.name + PART)
    if part.exists() and not is_made(part):
        raise UsageError(f"{part} is in the way, and was not made by sbmini: move it, or name another output")
    return part


def new_part(final: Path) -> Path:
    """Return a new, marked folder beside `final`; one that an earlier run left unfinished there is removed.

    Raises:
        UsageError: something that was not made here is in the way.
    """
    part = _check_part(final)
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    (part / MARK).touch()
    return part


def finish(part: Path, final: Path, *, keep_mark: bool = False) -> None:
    """Rename a folder that is whole into its place, where at most an empty folder stands.

    Args:
        part: from `new_part`.
        final: its place.
        keep_mark: whether the mark stays, for a folder that is removed later.
    """
    with contextlib.suppress(OSError):
        final.rmdir()
    part.rename(final)
    if not keep_mark:
        (final / MARK).unlink()
