"""`sbmini index info`, `merge`, `migrate`, and how `create` goes on or replaces: what a person reads."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SBMINI = str(Path(sys.executable).with_name("sbmini"))


@pytest.fixture
def here(sbmini_here, tmp_path):
    (tmp_path / "a.csv").write_text("id,text,year,note\n1,bread rises,2001,\n2,water falls,2002,a\x1b[31m\n")
    (tmp_path / "b.csv").write_text("id,text,year\n2,water boils,2003\n3,birds sing,2004\n")
    for name in ("a", "b"):
        done = sbmini_here("index", "create", f"{name}.index", "-i", f"{name}.csv", "-m", "sbert-mini-fast")
        assert done.stderr == f"sbmini: 2 rows -> {name}.index\n"
    return sbmini_here


def lines_of(text):
    return {line[:16].strip() or f"+{i}": line[16:] for i, line in enumerate(text.splitlines())}


def test_info_is_in_words(here):
    here("index", "update", "a.index", "-i", "b.csv")
    text = here("index", "info", "a.index").stdout
    lines = lines_of(text)
    assert "None" not in text
    assert "['" not in text
    assert lines["rows"] == "3 rows"
    assert lines["columns"] == "year (integer, such as 2001, 2003)"
    assert "note (text)" in text
    assert lines["size"].endswith(" KB")
    assert lines["model"] == "sbert-mini-fast (int8, 384 components)"
    assert lines["searched by"] == "auto: exact"
    assert lines["segments"] == "1 segment"
    assert lines["generation"].startswith("2, of 2")
    about = json.loads(here("index", "info", "a.index", "--json").stdout)
    assert (about["rows"], about["columns"], about["pca"]) == (3, {"year": "integer", "note": "text"}, None)
    assert isinstance(about["bytes"], int)
    text = here("models", "info", "sbert-mini-fast").stdout
    assert "None" not in text
    assert "{" not in text
    assert lines_of(text)["vectors"] == "384 components, of length 1"


def test_indexes_are_merged(here):
    done = here("index", "merge", "all.index", "a.index", "b.index")
    assert done.returncode == 1
    assert done.stderr.startswith("sbmini: error: the id '2' is in several of the indexes; ")
    assert done.stderr.count("\n") == 1
    done = here("index", "merge", "all.index", "a.index", "b.index", "--on-conflict", "last")
    assert done.stderr == (
        "sbmini: 1 row was left out: another index has one with the same id\nsbmini: 3 rows -> all.index\n"
    )
    assert json.loads(here("index", "get", "all.index", "2").stdout)["text"] == "water boils"
    assert here("index", "merge", "new.index", "a.index").returncode == 2


def test_an_index_is_migrated(here):
    done = here("index", "migrate", "a.index", "-m", "sbert-mini")
    assert done.stderr == "sbmini: 2 rows of a.index encoded with sbert-mini\n"
    assert json.loads(here("index", "info", "a.index", "--json").stdout)["model_name"] == "sbert-mini"
    done = here("index", "migrate", "a.index", "-m", "sbert-mini")
    assert done.stderr == "sbmini: a.index was made with this model and prompt already\n"
    assert here("index", "migrate", "nothing.index", "-m", "sbert-mini").returncode == 1


def test_an_index_is_replaced(here, tmp_path):
    done = here("index", "create", "a.index", "-i", "b.csv")
    assert (done.returncode, "--overwrite" in done.stderr) == (1, True)
    done = here("index", "create", "a.index", "-i", "b.csv", "--overwrite")
    assert done.stderr == "sbmini: 2 rows -> a.index\n"
    assert here("index", "list", "a.index").stdout == "2\n3\n"


def test_ctrl_c_keeps_what_was_encoded(here, tmp_path):
    texts = [f"water {i}" for i in range(100_000)]
    (tmp_path / "many.txt").write_text("\n".join(texts))
    line = ["index", "create", "many.index", "-i", "many.txt", "-m", "sbert-mini-fast", "--threads", "1"]
    child = subprocess.Popen([SBMINI, *line], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    kept = tmp_path / "many.index.partial" / "passages.bin"
    while not (kept.exists() and kept.stat().st_size > 10_000):
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    error = child.communicate()[1]
    assert child.returncode == 130
    assert "no index was made; many.index.partial keeps what was encoded, and the same command with --resume" in error
    assert not (tmp_path / "many.index").exists()
    (tmp_path / "many.txt").write_text("\n".join(texts[:2100]))
    done = here(*line)
    assert (done.returncode, "go on with --resume, or delete that folder" in done.stderr) == (2, True)
    done = here(*line, "--resume")
    assert "passages had been encoded by an earlier command" in done.stderr
    assert done.stderr.endswith("sbmini: 2100 rows -> many.index\n")
    assert not kept.parent.exists()
