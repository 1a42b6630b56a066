"""How the command ends: a reader that leaves, an output that is closed, signals."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import one_error

SBMINI = str(Path(sys.executable).with_name("sbmini"))


@pytest.mark.parametrize("command", [["encode", "-q", "-i", "t.txt"], ["recipes", "show", "paraphrase"]])
def test_a_reader_that_leaves_ends_the_command_quietly(command, tmp_path):
    (tmp_path / "t.txt").write_text("a cat sleeps\n" * 100)
    with subprocess.Popen([SBMINI, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_data_for_a_closed_output_is_an_error_and_files_alone_are_fine(sbmini, tmp_path):
    def closed(*args):
        script = 'exec "$0" "$@" >&-'
        return subprocess.run(
            ["sh", "-c", script, SBMINI, *args], capture_output=True, text=True, cwd=tmp_path, timeout=600
        )

    one_error(closed("encode", "a cat"), 1, "standard output is closed")
    assert closed("encode", "a cat", "-o", "v.npy").returncode == 0
    assert (tmp_path / "v.npy").stat().st_size == 128 + 4 * 384


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_cleans_up(number, code, tmp_path):
    """The command is in the middle of its input when the first row is through: it waits for the next of a pipe."""
    with subprocess.Popen(
        [SBMINI, "dedup", "-o", "out.txt", "--duplicates", "other.jsonl"],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
    ) as process:  # fmt: skip
        while len(list(tmp_path.iterdir())) < 2:
            assert process.poll() is None
        process.send_signal(number)
        assert process.stderr.read() == b"sbmini: interrupted; nothing of this run was kept\n"
        assert process.wait(60) == code
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_that_a_destructor_swallows_is_raised_again(tmp_path):
    """Python drops an exception that a signal raises inside `__del__`, and code may turn it into another one."""
    script = """
import signal, time
from sbert_mini.cli import signals
class Swallows:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0)
signals.raise_interrupts()
assert not signals.came()
try:
    Swallows()
    print("swallowed", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(2)  # cleaning up is not interrupted
    print(signals.came(), signals.exit_code())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("swallowed\nTrue 143\n", "")
