"""`index delete --filter` asks on a terminal, and nowhere else."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from sbert_mini import SearchIndex

SBMINI = str(Path(sys.executable).with_name("sbmini"))


@pytest.fixture
def index(sbmini, tmp_path):
    rows = [{"id": f"r{i}", "text": f"Notes on bread number {i}.", "year": 2000 + i} for i in range(9)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert sbmini("index", "create", "ix", "-i", "a.jsonl").returncode == 0
    return tmp_path / "ix"


def at_a_terminal(index, answer, *options):
    """Run the deletion of three rows at a pseudo-terminal, and return what it says and its exit code."""
    command = [SBMINI, "index", "delete", "ix", "--filter", "year < 2003", *options]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=index.parent)
    os.close(theirs)
    os.write(ours, answer)
    said = b""
    try:
        while chunk := os.read(ours, 4096):
            said += chunk
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    return said.decode(), process.wait(60)


@pytest.mark.parametrize(("answer", "rows"), [(b"n\n", 9), (b"\n", 9), (b"y\n", 6)])
def test_a_person_is_asked_with_the_number_of_rows(index, answer, rows):
    said, code = at_a_terminal(index, answer)
    assert "delete 3 rows? [y/N]" in said
    assert code == 0
    assert f"{9 - rows} rows deleted" in said
    assert len(SearchIndex(index)) == rows


def test_yes_and_pipes_skip_the_question(index, sbmini_here):
    said, code = at_a_terminal(index, b"", "--yes")
    assert "[y/N]" not in said
    assert code == 0
    assert len(SearchIndex(index)) == 6
    done = sbmini_here("index", "delete", "ix", "--filter", "year = 2005")
    assert (done.returncode, done.stderr) == (0, "sbmini: 1 row deleted from ix\n")
