"""Opening files of models and indexes for reading: regular files only, and of a bounded size where they are read whole.

Links are followed for reading, so a name in a stranger's directory may lead to a device, which never ends, or to a FIFO, on which
an `open` waits for ever. `tests/files/test_reading.py` reads the source: modules that read models and indexes open files with
this one.
"""

import os
import stat
from io import BufferedReader
from pathlib import Path

from sbert_mini.files import system

MOST_BYTES = 1 << 28
"""The largest file that is read whole: far above any vocabulary or list of checksums."""


class NotRegularError(OSError):
    """A path leads to a device, a FIFO, a socket or a folder, where a file is needed."""


def check_regular(path: Path) -> Path:
    """Return a path that leads to a regular file, for a library that opens files by name.

    Raises:
        OSError: it does not exist, or is something else.
    """
    _check(path.stat())
    return path


def open_regular(path: Path) -> int:
    """Return the descriptor of a regular file, opened for reading. It never waits.

    Raises:
        OSError: it cannot be opened, or is something else.
    """
    handle = os.open(path, system.flags("O_RDONLY", "O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY"))
    try:
        _check(os.fstat(handle))
    except BaseException:
        os.close(handle)
        raise
    return handle


def open_stream(path: Path) -> BufferedReader:
    """Return a regular file, opened for reading bytes.

    Raises:
        OSError: it cannot be opened, or is something else.
    """
    return os.fdopen(open_regular(path), "rb")


def read_whole(path: Path, most: int = MOST_BYTES) -> bytes:
    """Return what a regular file holds.

    Args:
        path: the file.
        most: the largest size that is read, in bytes.

    Raises:
        OSError: it cannot be read, is something else, or is larger.
    """
    with open_stream(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        data = stream.read(most + 1) if size <= most else b""
    if size > most or len(data) > most:
        raise OSError(f"it is larger than {most} bytes, the most that is read")
    return data


def _check(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotRegularError("it is not a regular file")
