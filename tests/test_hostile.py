"""The sandbox of `make hostile` notices what a hostile file may not do."""

import ctypes
import os
import pickle
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from sbert_mini.errors import UsageError
from tests.hostile import sandbox


class Program:
    def __reduce__(self):
        return os.system, ("true",)


def _write_by_c(inside: Path) -> str:
    libc = ctypes.CDLL(None)
    libc.close(libc.creat(os.fsencode(inside.parent / "outside" / "thesis.txt"), 0o600))
    return "read"


def _refuse(_):
    raise UsageError("no")


def _hang(_):
    time.sleep(60)
    return "read"


ACTS = {
    "read": lambda inside: f"read {(inside / 'a').write_text('x')}",
    "read tree": lambda inside: f"read {shutil.rmtree(shutil.copytree(inside, inside / 'b'))}",
    "refused": _refuse,
    "traceback": lambda _: str(1 / 0),
    "crash": lambda _: f"read {os.kill(os.getpid(), signal.SIGSEGV)}",
    "hang": _hang,
    "memory": lambda _: f"read {len(bytes([1]) * (3 << 29))}",
    "escape writes": lambda inside: f"read {(inside / '../outside/thesis.txt').write_text('x')}",
    "escape os.remove": lambda inside: f"read {(inside / '../outside/thesis.txt').unlink()}",
    "escape os.rename": lambda inside: f"read {(inside / '../outside/thesis.txt').rename(inside / 'x')}",
    "escape a file": _write_by_c,
    "escape socket": lambda _: f"read {socket.create_connection(('127.0.0.1', 9))}",
    "escape subprocess": lambda _: f"read {subprocess.run(['true'], check=True)}",
    "escape pickle": lambda _: f"read {pickle.loads(pickle.dumps(Program()))}",  # noqa: S301
}


@pytest.mark.parametrize("outcome", ACTS)
def test_what_a_case_does_is_noticed(outcome, tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "LIMIT_S", 1 if outcome == "hang" else 20)
    sandbox.place(tmp_path / "case")
    found = sandbox.attempt(ACTS[outcome], tmp_path / "case")
    assert found.startswith(outcome.split()[0]), found
    assert outcome.split()[-1] in found or outcome == "read tree"
