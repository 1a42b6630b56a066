"""Tests in a Python without what only POSIX has: the modules cannot be imported, the functions and flags are not there.

    python -m tests.without_posix tests/search/test_journal.py ...

What stands in for Windows here is a system without locks: Windows' own are called by `files.windows`, which runs there alone.
"""

import os
import select
import signal
import sys
import warnings

MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog")
OF_OS = (
    *("fork", "forkpty", "killpg", "register_at_fork", "wait4", "sched_getaffinity"),
    *("pread", "preadv", "pwrite", "pwritev", "mkfifo", "set_blocking", "getpgid", "sysconf"),
    *("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_DIRECTORY", "O_SYNC"),
)
OF_SIGNAL = ("SIGALRM", "SIGHUP", "SIGUSR1", "setitimer", "getitimer", "alarm", "ITIMER_REAL", "pthread_kill")


class _Hide:
    def find_spec(self, name, *_):
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def hide():
    """Take away what only POSIX has, from modules that are imported from now on."""
    import asyncio  # noqa: F401  # the standard library knows its system: it is loaded before
    import multiprocessing.popen_spawn_posix  # noqa: F401
    import shutil  # noqa: F401
    import subprocess  # noqa: F401
    import tempfile  # noqa: F401

    import faiss  # noqa: F401  # libraries have wheels of their own for each system
    import hypothesis.strategies  # noqa: F401
    import numpy  # noqa: F401
    import pytest  # noqa: F401
    import typer  # noqa: F401

    for name in MODULES:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, _Hide())
    for module, names in ((os, OF_OS), (signal, OF_SIGNAL), (select, ("poll", "epoll"))):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    warnings.filterwarnings("ignore", message="only soft file lock is available")


def main():
    """Run pytest so, in this process."""
    hide()
    import pytest

    assert not any(name.partition(".")[0] == "sbert_mini" for name in sys.modules)
    options = ["-q", "-p", "no:cacheprovider", "-o", "addopts="]
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.exit(pytest.main([*options, "-W", "ignore:only soft file lock", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
