"""What differs between systems: locks, reading at a place, files that are in use, processes, signals, memory.

Every other module of the package is written for all systems and asks here. A system that is neither POSIX's nor Windows has no
locks: readers read there, and nothing that a reader may use is ever removed.
"""

import contextlib
import errno
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

try:
    import fcntl
except ImportError:
    _fcntl: ModuleType | None = None
else:
    _fcntl = fcntl
try:
    import resource
except ImportError:
    _resource: ModuleType | None = None
else:
    _resource = resource
try:
    from select import POLLERR, POLLHUP, POLLIN, poll
except ImportError:
    _HAS_POLL = False
else:
    _HAS_POLL = True

WINDOWS = os.name == "nt"
_HAS_PREAD = hasattr(os, "pread") and hasattr(os, "preadv")
CAN_LIMIT_MEMORY = _resource is not None
"""Whether `limit_process` limits the memory of a process."""
KEEPS_OPEN_FILES = WINDOWS
"""Whether a file that somebody has open can be neither replaced nor removed."""
ENDING_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that end a program by the will of its user."""
file_position: contextlib.AbstractContextManager[Any] = contextlib.nullcontext() if _HAS_PREAD else threading.RLock()
"""Held while the position of an open file matters: where files cannot be read at a place, threads take turns."""
_LATEST_S, _PAUSE_S = 1.0, 0.01
"""How long a file that is in use is waited for."""


def flags(*names: str) -> int:
    """Return flags of `os.open` by their names, those that this system has; never a text's line ends."""
    return sum(getattr(os, name, 0) for name in (*names, "O_BINARY"))


def read_at(handle: int, size: int, start: int) -> bytes:
    """Return up to `size` bytes of an open file from byte `start` on; none at its end."""
    if _HAS_PREAD:
        return os.pread(handle, size, start)
    with file_position:
        os.lseek(handle, start, os.SEEK_SET)
        return os.read(handle, size)


def read_into(handle: int, buffer: memoryview, start: int) -> int:
    """Fill a buffer from byte `start` of an open file on, as far as the system gives; return how many bytes."""
    if _HAS_PREAD:
        return os.preadv(handle, [buffer], start)
    data = read_at(handle, len(buffer), start)
    buffer[: len(data)] = data
    return len(data)


def write_at(handle: int, data: bytes, start: int) -> None:
    """Write bytes into an open file from byte `start` on."""
    if hasattr(os, "pwrite"):
        os.pwrite(handle, data, start)
        return
    with file_position:
        os.lseek(handle, start, os.SEEK_SET)
        os.write(handle, data)


def lock(handle: int, *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file until it is closed, and return whether that was possible; False where others hold a lock against it.

    Args:
        handle: of the file.
        shared: others may hold a shared lock, too.
        wait: wait until nobody holds a lock against it.

    Raises:
        OSError: the file system has no locks.
    """
    if _fcntl is not None:
        kind = _fcntl.LOCK_SH if shared else _fcntl.LOCK_EX
        try:
            _fcntl.flock(handle, kind if wait else kind | _fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
    if WINDOWS:
        from sbert_mini.files import windows

        return windows.lock(handle, shared=shared, wait=wait)
    return shared


def replace(source: Path, target: Path) -> None:
    """Put a file into the place of another, in one step; on Windows, once nobody has that one open, or after a second not.

    Raises:
        OSError: it is not possible; both files are as they were.
    """
    until = time.monotonic() + _LATEST_S
    while True:
        try:
            source.replace(target)
        except PermissionError as error:
            if not KEEPS_OPEN_FILES:
                raise
            if time.monotonic() > until:
                text = "another program, or an open index, uses the file: close it and try again"
                raise OSError(errno.EACCES, text, str(target)) from error
            time.sleep(_PAUSE_S)
        else:
            return


def link(source: Path, target: Path) -> None:
    """Let a new name lead to a file, for a while: by a symbolic link, or where there is none by a hard one, or by a copy.

    Raises:
        OSError: the target cannot be written.
    """
    try:
        target.symlink_to(source)
    except OSError:  # Windows asks for a right
        if not WINDOWS:
            raise
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)


def open_folder(path: str | Path) -> int | None:
    """Return the descriptor of a folder, opened to flush or to lock it; None where the system opens no folders."""
    try:
        return os.open(path, os.O_RDONLY)
    except PermissionError:
        if WINDOWS and os.path.isdir(path):  # noqa: PTH112
            return None
        raise


def is_running(process: int) -> bool:
    """Return whether a process of this number runs here, or whether that cannot be known."""
    if WINDOWS:
        from sbert_mini.files import windows

        return windows.is_running(process)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def end_group(process: int) -> None:
    """End a process that leads a session, and what it has started; on Windows the process alone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process, signal.SIGKILL)
        else:
            os.kill(process, signal.SIGTERM)


def after_fork(function: Callable[[], object]) -> None:
    """Call a function in every child process that is forked from now on."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


def peak_memory_bytes() -> int:
    """Return the most memory that this process has held, in bytes; 0 where the system does not tell."""
    if _resource is not None:
        peak = int(_resource.getrusage(_resource.RUSAGE_SELF).ru_maxrss)
        return peak if sys.platform == "darwin" else peak * 1024
    if WINDOWS:
        from sbert_mini.files import windows

        return windows.peak_memory_bytes()
    return 0


def limit_process(memory_bytes: int) -> None:
    """Let this process hold so much memory at the most, and write no files, where the system can do that."""
    if _resource is None:
        return
    limits = ((_resource.RLIMIT_AS, memory_bytes), (_resource.RLIMIT_FSIZE, 0), (_resource.RLIMIT_CORE, 0))
    for limit, value in limits:
        try:
            _resource.setrlimit(limit, (value, value))
        except ValueError:
            if sys.platform != "darwin":  # which does not limit the address space
                raise


def repeat(handler: Callable[[int, FrameType | None], None], pause_s: float) -> None:
    """Call a handler in the main thread every so many seconds, by a signal, where there is one for that."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, pause_s, pause_s)


def stop_repeating() -> None:
    """End what `repeat` has begun."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)


class Waiting:
    """Tells whether an open pipe, socket or terminal can be read without waiting.

    Args:
        descriptor: of the open file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        if _HAS_POLL:
            self._poll = poll()
            self._poll.register(descriptor, POLLIN)

    def ready(self, patience_s: float | None = None) -> bool:
        """Return whether bytes, or the end, come within so many seconds; None waits for them."""
        if _HAS_POLL:
            return bool(self._poll.poll(None if patience_s is None else max(patience_s, 0) * 1000))
        from sbert_mini.files import windows

        until = None if patience_s is None else time.monotonic() + patience_s
        while not windows.has_bytes(self._descriptor):
            if until is not None and time.monotonic() >= until:
                return False
            time.sleep(_PAUSE_S)
        return True


def reader_left(descriptor: int) -> bool:
    """Return whether what is written to is a pipe or socket that nobody reads any more; True where that is not told."""
    if not _HAS_POLL:
        return True
    waiting = poll()
    waiting.register(descriptor, 0)
    return any(events & (POLLERR | POLLHUP) for _, events in waiting.poll(0))
