"""Processes that a benchmark measures end with it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

MEASURE = """
import sys
from sbert_mini.evaluation.measure import process
child = "import os, sys, signal; print(os.getpid(), file=open(sys.argv[1], 'w')); signal.pause()"
process([sys.executable, "-c", child, sys.argv[1]])
"""


def test_what_is_measured_ends_with_the_one_who_measures(tmp_path):
    file = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", MEASURE, file], stderr=subprocess.DEVNULL) as run:
        while not file.exists() or not file.read_text().endswith("\n"):
            assert run.poll() is None
        run.send_signal(signal.SIGINT)
        run.wait(30)
    measured = int(file.read_text())
    for _ in range(1_000_000):
        try:
            state = Path(f"/proc/{measured}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return
        if state.rpartition(")")[2].split()[0] == "Z":  # dead, and not yet taken note of
            return
    pytest.fail("it still runs")
