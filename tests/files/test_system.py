"""What differs between systems stands in one place, and the rest runs without what only POSIX has."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import without_posix

from sbert_mini.files import system

ROOT = Path(__file__).parents[2]
HOME = {"sbert_mini/files/system.py", "sbert_mini/files/windows.py"}
MODULES = {*without_posix.MODULES, "select", "selectors", "msvcrt", "winreg"}
OF_OS = {*without_posix.OF_OS, "kill"} - {"sched_getaffinity"}  # asked for by hasattr, where it is used
OF_SIGNAL = {*without_posix.OF_SIGNAL, "SIGKILL", "SIGSTOP", "sigwait"}


def of_one_system(path):
    """Return what a module uses that not every system has: modules, functions, flags and signals, with their lines."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, a.name) for a in node.names if a.name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = {alias.name for alias in node.names}
            if (node.module or "").partition(".")[0] in MODULES:
                found.append((node.lineno, node.module))
            found += [(node.lineno, name) for name in names if node.module == "os" and name in OF_OS]
            found += [(node.lineno, name) for name in names if node.module == "signal" and name in OF_SIGNAL]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            lacking = {"os": OF_OS, "signal": OF_SIGNAL}.get(node.value.id, ())
            found += [(node.lineno, node.attr)] if node.attr in lacking else []
    return found


def test_only_one_place_knows_systems(tmp_path):
    files = [*sorted((ROOT / "sbert_mini").rglob("*.py")), *sorted((ROOT / "cli").glob("*.py"))]
    found = {str(path.relative_to(ROOT)): of_one_system(path) for path in files}
    assert {name: uses for name, uses in found.items() if uses and name not in HOME} == {}
    assert found["sbert_mini/files/system.py"]
    planted = tmp_path / "planted.py"
    planted.write_text("import os, signal\nfrom select import poll\nos.kill(1, signal.SIGKILL)\nos.fork()\n")
    assert [line for line, _ in sorted(of_one_system(planted))] == [2, 3, 3, 4]


@pytest.mark.parametrize(
    "tests",
    [
        ["tests/search/test_checksums.py", "tests/search/test_journal.py", "tests/search/test_spans.py"],
        [
            "tests/documents/test_converter.py",
            "--deselect",
            "tests/documents/test_converter.py::test_memory_is_limited",
        ],
        [
            "tests/cli/test_demo.py::test_it_answers_four_questions",
            "tests/cli/test_demo.py::test_a_model_that_is_not_there",
        ],
    ],
    ids=["files", "child process", "index and search"],
)
def test_the_rest_runs_without_what_only_posix_has(tests):
    done = subprocess.run(
        [sys.executable, "-m", "tests.without_posix", *tests], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout


def test_nothing_of_posix_is_there():
    """The test before this one says something: where a module asks for one of these, it fails."""
    script = """
from tests.without_posix import hide
hide()
import os, signal, sys
from sbert_mini.files import system
assert not hasattr(os, "pread") and not hasattr(signal, "SIGALRM")
assert (system.CAN_LIMIT_MEMORY, system.peak_memory_bytes()) == (False, 0)
try:
    import fcntl
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "No module named 'fcntl'\n"), done.stderr


def test_a_lock_is_held_until_the_file_is_closed(tmp_path):
    file = tmp_path / "f"
    file.touch()
    first, second, third = (os.open(file, os.O_RDWR) for _ in range(3))
    assert system.lock(first, shared=True, wait=True)
    assert system.lock(second, shared=True)
    assert not system.lock(third)
    os.close(first)
    assert not system.lock(third)
    os.close(second)
    assert system.lock(third)
    os.close(third)


def test_a_place_is_read_and_written_without_the_files_position(tmp_path, monkeypatch):
    file = tmp_path / "f"
    file.write_bytes(bytes(range(100)))
    handle = os.open(file, system.flags("O_RDWR", "O_NOSUCHFLAG"))
    for has_pread in (True, False):
        monkeypatch.setattr(system, "_HAS_PREAD", has_pread)
        buffer = memoryview(bytearray(4))
        assert system.read_at(handle, 3, 50) == bytes([50, 51, 52])
        assert system.read_at(handle, 3, 99) == bytes([99])
        assert (system.read_into(handle, buffer, 98), bytes(buffer[:2])) == (2, bytes([98, 99]))
        if not has_pread:
            monkeypatch.delattr(os, "pwrite")
        system.write_at(handle, b"\xff", 7)
        assert system.read_at(handle, 2, 7) == b"\xff\x08"
    os.close(handle)


def test_a_file_in_use_is_waited_for_and_then_named(tmp_path, monkeypatch):
    source, target = tmp_path / "new", tmp_path / "old"
    source.write_text("new")
    tries = []

    def refuse(self, other):
        tries.append(self)
        raise PermissionError(13, "used by another process", str(self))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError, match="used by another"):
        system.replace(source, target)
    monkeypatch.setattr(system, "KEEPS_OPEN_FILES", True)
    monkeypatch.setattr(system, "_LATEST_S", 0.03)
    with pytest.raises(OSError, match="close it and try again"):
        system.replace(source, target)
    assert len(tries) > 2


def test_processes(tmp_path):
    assert system.is_running(os.getpid())
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    assert not system.is_running(child.pid)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True) as child:
        system.end_group(child.pid)
        assert child.wait(60) != 0
    assert system.peak_memory_bytes() > 1 << 20


def test_a_pipe_tells_whether_it_can_be_read():
    read, write = os.pipe()
    waiting = system.Waiting(read)
    assert not waiting.ready(0)
    os.write(write, b"x")
    assert waiting.ready(0)
    assert not system.reader_left(write)
    os.close(read)
    assert system.reader_left(write)
    os.close(write)
