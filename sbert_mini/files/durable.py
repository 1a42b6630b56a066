"""Crash-safe writing: after a crash a file is the old one or the new one, never a part."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from sbert_mini.errors import SbertMiniError, UsageError
from sbert_mini.files import system
from sbert_mini.files.json_schema import Schema, check, parse
from sbert_mini.files.reading import read_whole

_SEAL_BYTES = 65
_NEW = system.flags("O_RDWR", "O_CREAT", "O_EXCL")
_parts: dict[str, Path] = {}  # what this process writes now, by name


def write_durably(path: Path, data: bytes | memoryview) -> None:
    """Write a file beside its place, flush it to the disk, and rename it into its place.

    Raises:
        OSError: it cannot be written; what stood there before still does, and nothing else is left behind.
    """
    with replacing(path) as part:
        part.write_bytes(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty file beside `path` to write into, flush it to the disk and rename it into its place.

    On an exception it is removed, and what stood at `path` before still does. What processes that died left of the same
    file is removed first (`remove_dead_parts`).

    Raises:
        UsageError: `path` is a device, a pipe or a folder, whose place the file would take.
        OSError: the file cannot be written.
    """
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a regular file: name another one")
    remove_dead_parts(path)
    part = _part_name(path)
    with ExitStack() as closing:
        with _named_as(path):
            handle = os.open(part, _NEW, 0o666)
        closing.callback(_parts.pop, part.name, None)
        closing.callback(os.close, handle)
        try:
            _try_lock(handle)
            yield part
            os.fsync(handle)
            if system.KEEPS_OPEN_FILES:
                closing.close()
            system.replace(part, path)
        except BaseException:
            if system.KEEPS_OPEN_FILES:
                closing.close()
            part.unlink(missing_ok=True)
            raise
    flush_directory(path.parent)


def _closed(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)


@contextmanager
def _named_as(path: Path) -> Iterator[None]:
    """Let an error name the path that a user knows, and not that of a temporary file beside it.

    Raises:
        OSError: the one of the block, with the path; where its folder is missing, with the folder.
    """
    try:
        yield
    except OSError as error:
        named = path if path.parent.is_dir() else path.parent
        raise OSError(error.errno, error.strerror, str(named)) from error


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` for what is needed meanwhile; it is removed in the end.

    What processes that died left of such folders is removed first (`remove_dead_parts`).
    """
    remove_dead_parts(path)
    folder = _part_name(path)
    with _named_as(path):
        folder.mkdir()
    handle = system.open_folder(folder)
    try:
        _try_lock(handle)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _closed(handle)
        _parts.pop(folder.name, None)


def save_file(tensors: Mapping[str, Any], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write torch tensors as `safetensors.torch.save_file` does, in a file of the usual mode (`give_usual_mode`)."""
    from safetensors import torch as safetensors

    safetensors.save_file(dict(tensors), path, None if metadata is None else dict(metadata))
    give_usual_mode(path)


def give_usual_mode(path: Path) -> None:
    """Give a file the mode that any new file gets in its folder: what the umask leaves of read and write for all.

    safetensors writes files that their owner alone can read.
    """
    probe = _part_name(path)
    try:
        handle = os.open(probe, _NEW, 0o666)
        try:
            path.chmod(os.fstat(handle).st_mode & 0o777)
        finally:
            os.close(handle)
            probe.unlink()
    finally:
        _parts.pop(probe.name, None)


def remove_dead_parts(path: Path) -> None:
    """Remove the temporary files and folders of one target, `.NAME.PID.TOKEN.part` beside it, whose process is dead.

    A part stays while a process of its number runs here, or while somebody holds its lock, such as a process of another
    machine or container that shares the folder. What cannot be removed is left to the next one who writes the target.
    """
    _sweep(path.parent, re.escape(path.name))


def remove_all_dead_parts(folder: Path) -> None:
    """Remove what `remove_dead_parts` would for any target in a folder that holds our own files alone."""
    _sweep(folder, ".+")


def remove_own_parts() -> None:
    """Remove every temporary file and folder that this process still writes, because it ends now.

    An exception that a signal raises can arrive just before the `try` that would remove a new file.
    """
    for name, part in list(_parts.items()):
        if f".{os.getpid()}." not in name:  # of the process that forked this one
            continue
        with suppress(OSError):
            if part.is_dir() and not part.is_symlink():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)
        _parts.pop(name, None)


def is_part(name: str, target: str) -> bool:
    """Return whether a file's name is that of a temporary file of `target`, the name of a file beside it."""
    return _part_pattern(re.escape(target)).fullmatch(name) is not None


def is_any_part(name: str) -> bool:
    """Return whether a file's name is that of a temporary file or folder of any target."""
    return _part_pattern(".+").fullmatch(name) is not None


def _part_pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"\.{name}\.([1-9][0-9]{{0,8}})(?:\.[0-9a-f]{{8}})?\.part")


def _sweep(folder: Path, name: str) -> None:
    pattern = _part_pattern(name)
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = pattern.fullmatch(entry.name)
            if match is None or not _is_dead(int(match[1]), entry.name) or not _is_unlocked(entry):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                Path(entry.path).unlink(missing_ok=True)


def _part_name(path: Path) -> Path:
    path = path if path.name else path.resolve()  # "." and ".."
    if not path.name:
        raise UsageError(f"{path} is the root of the file system, beside which nothing is written")
    part = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
    _parts[part.name] = part.absolute()
    return part


def _is_dead(process: int, part: str) -> bool:
    if process == os.getpid():  # in a container every process may have the number of the one before
        return part not in _parts
    return not system.is_running(process)


def _is_unlocked(entry: os.DirEntry[str]) -> bool:
    """Return whether nobody holds the lock of a part; False where that cannot be known."""
    folder = entry.is_dir(follow_symlinks=False)
    if not folder and not entry.is_file(follow_symlinks=False):
        return False
    try:
        handle = system.open_folder(entry.path) if folder else os.open(entry.path, system.flags("O_RDWR"))
    except OSError:
        return False
    try:
        return handle is None or _try_lock(handle)
    finally:
        _closed(handle)


def _try_lock(handle: int | None) -> bool:
    """Take the lock of an open file, and return whether that was possible; closing the file gives it back."""
    try:
        return handle is not None and system.lock(handle)
    except OSError:  # this file system has no locks
        return False


def flush(stream: IO[Any]) -> None:
    """Flush an open file to the disk."""
    stream.flush()
    os.fsync(stream.fileno())


def flush_directory(path: Path) -> None:
    """Flush a directory's entries to the disk, where the system opens directories."""
    handle = system.open_folder(path)
    if handle is None:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """Return a JSON object as readable UTF-8, its keys sorted."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode(
        errors="backslashreplace"  # half characters of paths that are not UTF-8, as JSON writes them
    )


def write_sealed_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object durably, followed by a line that holds the sha256 of what stands before it."""
    body = json_bytes(value)
    write_durably(path, body + hashlib.sha256(body).hexdigest().encode() + b"\n")


def read_sealed_json(path: Path, schema: Schema, damaged: type[SbertMiniError]) -> dict[str, Any]:
    """Return the JSON object that `write_sealed_json` wrote.

    Args:
        path: the file.
        schema: what it must hold: the checksum tells damage, and says nothing of who wrote the file.
        damaged: the exception to raise where the checksum or the schema does not match, or the file cannot be read.
    """
    try:
        data = read_whole(path)
    except OSError as error:
        raise damaged(f"{path} cannot be read: {error.strerror or error}") from error
    body, seal = data[:-_SEAL_BYTES], data[-_SEAL_BYTES:]
    if seal != hashlib.sha256(body).hexdigest().encode() + b"\n":
        raise damaged(f"{path} is damaged: it does not match the checksum in its last line")
    return dict(check(parse(body, path, damaged), schema, path, damaged))
