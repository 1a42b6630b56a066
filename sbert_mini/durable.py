"""Writing files so that after a crash they are as they were before, or whole."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from sbert_mini.errors import SbertMiniError

_SEAL_BYTES = 65


def write_durably(path: Path, data: bytes | memoryview) -> None:
    """Write a file beside its place, flush it to the disk, and rename it into its place.

    Raises:
        OSError: it cannot be written; what stood there before still does, and nothing else is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            flush(stream)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_directory(path.parent)


def flush(stream: IO[Any]) -> None:
    """Flush an open file to the disk."""
    stream.flush()
    os.fsync(stream.fileno())


def flush_directory(path: Path) -> None:
    """Flush a directory's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
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


def read_sealed_json(path: Path, damaged: type[SbertMiniError]) -> dict[str, Any]:
    """Return the JSON object that `write_sealed_json` wrote.

    Args:
        path: the file.
        damaged: the exception to raise where the checksum does not match, or the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise damaged(f"{path} cannot be read: {error.strerror or error}") from error
    body, seal = data[:-_SEAL_BYTES], data[-_SEAL_BYTES:]
    if seal != hashlib.sha256(body).hexdigest().encode() + b"\n":
        raise damaged(f"{path} is damaged: it does not match the checksum in its last line")
    return dict(json.loads(body))
