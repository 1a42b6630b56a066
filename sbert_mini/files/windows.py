"""Windows' own functions, by `ctypes`: locks, processes, memory, pipes. `files.system` imports it there alone."""

import ctypes
import sys
from typing import Any

_EXCLUSIVE, _AT_ONCE = 2, 1
_FAR = 1 << 30
"""Where the locked byte lies, in units of 4 GiB: beyond every file, so that a lock keeps nobody from reading."""
_LOCKED_BY_OTHERS, _NO_SUCH_PROCESS = 33, 87
_MAY_ASK, _RUNS = 0x1000, 259


class _Overlapped(ctypes.Structure):
    _fields_ = (
        ("internal", ctypes.c_void_p),
        ("internal_high", ctypes.c_void_p),
        ("offset", ctypes.c_uint32),
        ("offset_high", ctypes.c_uint32),
        ("event", ctypes.c_void_p),
    )


class _Memory(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint32),
        ("page_faults", ctypes.c_uint32),
        ("peak_working_set", ctypes.c_size_t),
        ("others", ctypes.c_size_t * 7),
    )


def _kernel() -> Any:
    if sys.platform != "win32":
        raise OSError("this is not Windows")
    return ctypes.WinDLL("kernel32", use_last_error=True)


def _file(handle: int) -> Any:
    if sys.platform != "win32":
        raise OSError("this is not Windows")
    import msvcrt

    return ctypes.c_void_p(msvcrt.get_osfhandle(handle))


def lock(handle: int, *, shared: bool, wait: bool) -> bool:
    """Lock an open file until it is closed; see `files.system.lock`."""
    kernel, place = _kernel(), _Overlapped(offset_high=_FAR)
    how = (0 if shared else _EXCLUSIVE) | (0 if wait else _AT_ONCE)
    if kernel.LockFileEx(_file(handle), how, 0, 1, 0, ctypes.byref(place)):
        return True
    error = ctypes.get_last_error()  # type: ignore[attr-defined,unused-ignore]
    if error == _LOCKED_BY_OTHERS:
        return False
    raise OSError(f"the file cannot be locked (error {error} of Windows)")


def is_running(process: int) -> bool:
    """Return whether a process of this number runs, or whether that cannot be known."""
    kernel = _kernel()
    kernel.OpenProcess.restype = ctypes.c_void_p
    opened = kernel.OpenProcess(_MAY_ASK, False, process)
    if not opened:
        return bool(ctypes.get_last_error() != _NO_SUCH_PROCESS)  # type: ignore[attr-defined,unused-ignore]
    code = ctypes.c_uint32()
    known = kernel.GetExitCodeProcess(ctypes.c_void_p(opened), ctypes.byref(code))
    kernel.CloseHandle(ctypes.c_void_p(opened))
    return not known or code.value == _RUNS


def peak_memory_bytes() -> int:
    """Return the most memory that this process has held; 0 where Windows does not tell."""
    kernel, memory = _kernel(), _Memory()
    memory.size = ctypes.sizeof(memory)
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    told = kernel.K32GetProcessMemoryInfo(
        ctypes.c_void_p(kernel.GetCurrentProcess()), ctypes.byref(memory), memory.size
    )
    return int(memory.peak_working_set) if told else 0


def has_bytes(descriptor: int) -> bool:
    """Return whether a pipe has bytes, or has ended; True for what is no pipe, such as a console."""
    kernel, count = _kernel(), ctypes.c_uint32()
    if kernel.PeekNamedPipe(_file(descriptor), None, 0, None, ctypes.byref(count), None):
        return count.value > 0
    return True
