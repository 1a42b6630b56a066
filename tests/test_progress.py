"""Progress on a terminal: what the bar shows, and that no line of the screen holds a note and a bar."""

import gzip
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sbert_mini.text.counting import count_rows

SBMINI = str(Path(sys.executable).with_name("sbmini"))


def screen(command, folder):
    """Return what a terminal of 100 columns shows when the command is over, and all states of its lines before."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        command, stderr=theirs, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=folder, env=env
    ) as run:
        os.close(theirs)
        written = b""
        try:
            while block := os.read(ours, 65536):
                written += block
        except OSError:  # the other end is closed
            pass
        os.close(ours)
        assert run.wait(60) == 0, written
    lines, row, seen = [""], 0, []
    for part in re.split("(\x1b\\[[0-9;?]*[A-Za-z]|\r|\n)", written.decode()):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif re.fullmatch("\x1b\\[[0-9]*A", part):
            row -= int(part[2:-1] or 1)
        elif part == "\r" or part.startswith("\x1b"):
            continue
        else:
            lines[row] += part
            seen.append(lines[row])
    return lines, seen


def is_bar(line):
    return "━" in line or "encoding" in line


@pytest.mark.parametrize(
    "args", [["encode", "-o", "v.npy"], ["index", "create", "x.index"], ["dedup", "-o", "kept.txt"]]
)
def test_the_bar_shows_total_and_share_and_shares_no_line_with_a_note(args, tmp_path):
    rows = [f"row {i} {'word ' * 600}" if i == 7 else f"row {i}" for i in range(137)]
    (tmp_path / "t.txt").write_text("\n\n".join(rows))
    lines, seen = screen([SBMINI, *args, "-i", "t.txt"], tmp_path)
    last = next(line for line in reversed(lines) if is_bar(line))
    assert "137/137 100%" in last
    assert "/s" in last
    assert "0:00:00 left" in last
    note = "sbmini: 1 long row was split" if args[0] == "index" else "sbmini: 1 of 137 texts"
    assert any(note in line for line in lines)
    assert not [line for line in seen if is_bar(line) and "sbmini:" in line]


def test_a_resumed_run_counts_from_where_it_was(tmp_path, make_model):
    from sbert_mini import Embedder
    from sbert_mini.runtime.job import EncodeJob, EncodeSettings
    from sbert_mini.text.records import read_records

    model = make_model()
    (tmp_path / "t.txt").write_text("".join(f"row {i}\n" for i in range(6200)))

    def broken():
        yield from read_records(tmp_path / "t.txt")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EncodeJob(tmp_path / "v.npy", Embedder(model), EncodeSettings()).run(broken())
    _, seen = screen([SBMINI, "encode", "-m", str(model), "-i", "t.txt", "-o", "v.npy", "--resume"], tmp_path)
    bars = [line for line in seen if is_bar(line)]
    assert any("2,048/6,200 33%" in line for line in bars), bars
    assert any("6,200/6,200 100%" in line for line in bars)
    assert not any(re.search(r" 0/6,200", line) for line in bars)


def test_rows_are_counted_as_they_are_read(tmp_path):
    files = {
        "a.txt": "one\n\ntwo\n \nthree",
        "a.jsonl": '{"text": "a"}\n{"text": "b"}\n',
        "a.csv": 'text,n\n"two\nlines, one row",1\nb,2\n',
        "a.tsv": 'text\tn\n"a\t1\nb\t2\n',
        "tabs.csv": 'text\tn\n"two\nlines"\t1\nb\t2\n',
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert [count_rows(tmp_path / name) for name in files] == [3, 2, 2, 2, 2]
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one\ntwo\n"))
    assert count_rows(tmp_path / "a.txt.gz") == 2
    (tmp_path / "broken.txt.gz").write_bytes(b"no gzip")
    os.mkfifo(tmp_path / "pipe.txt")
    for unknown in (tmp_path / "broken.txt.gz", tmp_path / "pipe.txt", tmp_path / "absent.txt", "-"):
        assert count_rows(unknown) is None
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.table({"text": ["a", "b", "c"]}), tmp_path / "a.parquet")
    assert count_rows(tmp_path / "a.parquet") == 3
