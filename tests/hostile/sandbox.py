"""A case in a forked child that may not leave its folder: no write outside, no socket, no program, bounded time and memory.

Python's own acts are seen by an audit hook, before they happen. What C does is seen afterwards: `outside/` beside the case's
folder must be as it was, and the child has a network namespace of its own where the kernel lets it.
"""

import contextlib
import ctypes
import faulthandler
import hashlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT_S = 20
LIMIT_BYTES = 1 << 30
"""Of memory that a case takes beyond what its parent has."""
LIMIT_FILE = 1 << 28
"""Bytes of a file that a case writes, its output included."""
BAD = ("crash", "hang", "memory", "traceback", "escape")
_CLONE_NEWNET = 0x40000000
_NETWORK = {"socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}
_CODE = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pickle.find_class", "ctypes.dlopen"}
_CHANGES = {
    "os.remove": 1,
    "os.rename": 2,
    "os.mkdir": 1,
    "os.rmdir": 1,
    "os.symlink": 2,
    "os.link": 2,
    "os.truncate": 1,
    "os.chmod": 1,
    "os.chown": 1,
    "os.utime": 1,
}
"""Audit events that change a path -> how many of their arguments are paths."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_DEVICES = ("/dev/null", "/dev/shm", "/dev/tty")  # noqa: S108
OUTSIDE = {
    "keys.kdbx": b"keys",
    "thesis.txt": b"thesis",
    "000001.json": b"{}",
    "x.faiss": b"faiss",
    "model.onnx": b"onnx",
}


class Escaped(BaseException):
    """Something that a file of a stranger must never lead to."""


def _guard(folder: Path, say: Callable[[str], None]) -> Callable[[str, tuple[Any, ...]], None]:
    """Return an audit hook that ends the process at a write outside of the folder, a connection or a program."""
    root = os.path.realpath(folder)

    def inside(path: Any) -> bool:
        if isinstance(path, int) or path is None:
            return True
        real = os.path.realpath(os.fsdecode(path))
        return real == root or real.startswith((root + os.sep, *_DEVICES))

    def stop(what: str) -> None:
        say(f"escape {what}")
        os._exit(0)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            writes = bool(flags & _WRITING) if isinstance(flags, int) else any(c in str(mode) for c in "wax+")
            if writes and not inside(path):
                stop(f"writes {path!r}")
        elif event in _CHANGES:
            directory = [a for a in args[_CHANGES[event] :] if isinstance(a, int) and a > 2]
            if event in ("os.remove", "os.rmdir") and directory:  # shutil.rmtree: relative to a folder that is open
                args = (Path(f"/proc/self/fd/{directory[0]}").readlink() / os.fsdecode(args[0]),)
            if event in ("os.symlink", "os.link"):
                args = (args[1],)
            for path in args[: _CHANGES[event]]:
                if not inside(Path(os.fsdecode(path)).parent if not isinstance(path, int) else path):
                    stop(f"{event} {path!r}")
        elif event in _NETWORK or event in _CODE:
            if event == "ctypes.dlopen" and str(args[0]).startswith(str(Path(__file__).parents[2])):
                return
            if event == "ctypes.dlopen" and not str(args[0]).startswith(root):
                return  # a library of the system or of a package
            stop(f"{event} {args!r:.200}")

    return hook


def place(folder: Path) -> Path:
    """Make a case's folder, with files beside it that must stay as they are; return the folder to put hostile files into."""
    outside = folder / "outside"
    outside.mkdir(parents=True)
    for name, data in OUTSIDE.items():
        (outside / name).write_bytes(data)
    inside = folder / "inside"
    inside.mkdir()
    return inside


def _digest(folder: Path) -> str:
    parts = [
        f"{file.relative_to(folder)} {file.stat().st_mtime_ns}" for file in sorted((folder / "outside").rglob("*"))
    ]
    parts += [hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted((folder / "outside").iterdir()) if f.is_file()]
    return "\n".join([*parts, *sorted(path.name for path in folder.iterdir())])


def resident() -> int:
    """Return the bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def attempt(use: Callable[[Path], str], folder: Path) -> str:
    """Run a case of `place` in a child and return what came of it: a word of `use`, or one of `BAD`, and details.

    Args:
        use: gets the inner folder; returns "read ..." or "refused ...", or raises what its user would see as a traceback.
        folder: the case's.
    """
    from sbert_mini.errors import SbertMiniError

    before, output = _digest(folder), folder.parent / f"{folder.name}.out"
    child = os.fork()
    if child == 0:
        stream = os.open(output, os.O_CREAT | os.O_WRONLY)
        os.dup2(stream, 1)
        os.dup2(stream, 2)

        def say(text: str) -> None:
            os.write(stream, f"\noutcome {text}".encode("utf-8", "replace"))

        faulthandler.disable()  # a signal is an outcome, not a report on stderr
        signal.alarm(LIMIT_S)
        with contextlib.suppress(OSError):
            ctypes.CDLL(None).unshare(_CLONE_NEWNET)
        room = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE") + 6 * LIMIT_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_FILE, LIMIT_FILE))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
        inside = folder / "inside"
        os.environ |= {"SBMINI_CACHE_DIR": "/dev/null/none", "TMPDIR": str(inside), "HOME": str(inside)}
        tempfile.tempdir = str(inside)
        sys.addaudithook(_guard(inside, say))
        try:
            say(use(inside))
        except SbertMiniError as error:
            say(f"refused {type(error).__name__} {error!s:.300}")
        except MemoryError as error:
            say(f"memory {error!r:.200}")
        except BaseException as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [f for f in frames if "/sbert_mini/" in f.filename] or frames
            say(f"traceback {Path(ours[-1].filename).name}:{ours[-1].lineno} {error!r:.300}")
        os._exit(0)
    _, status, usage = os.wait4(child, 0)
    with output.open("rb") as stream:
        stream.seek(max(0, output.stat().st_size - 10_000))
        said = stream.read()
    output.unlink()
    outcome = said.rpartition(b"\noutcome ")[2].decode("utf-8", "replace")
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        return f"hang {LIMIT_S} s"
    if status:
        return f"crash {os.waitstatus_to_exitcode(status)} {said[-2000:].decode('utf-8', 'replace')}"
    if _digest(folder) != before:
        return "escape a file outside was changed"
    if usage.ru_maxrss * 1024 > resident() + LIMIT_BYTES:
        return f"memory {usage.ru_maxrss / 1024:.0f} MB"
    return outcome


def remove(folder: Path) -> None:
    """Remove a case's folder."""
    shutil.rmtree(folder, ignore_errors=True)
