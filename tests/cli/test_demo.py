"""`sbmini demo`: an index of the texts in the package, and four questions."""

import re
import tempfile
from pathlib import Path

import pytest
from conftest import one_error

from sbert_mini import SearchIndex


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What the command prints with a folder, and the folder."""
    from conftest import run_here

    folder = tmp_path_factory.mktemp("demo")
    return run_here(folder, "demo", "kept.index", "-m", "sbert-mini-fast", "--offline"), folder / "kept.index"


def test_it_answers_four_questions(shown):
    done, _ = shown
    assert (done.returncode, done.stderr) == (0, "")
    questions = re.findall(r'^\$ sbmini search kept\.index "(.+)" -k 2$', done.stdout, re.MULTILINE)
    ranks = re.findall(r"^ ([0-9])  ", done.stdout, re.MULTILINE)
    assert (len(questions), ranks) == (4, ["1", "2"] * 4)
    assert "bread-proofing" in done.stdout.partition(questions[1])[0]


def test_a_folder_that_is_named_keeps_the_index(shown, sbmini_here):
    _, index = shown
    assert len(SearchIndex(index)) == 240
    one_error_of = sbmini_here("demo", index)
    assert one_error_of.returncode == 1
    assert one_error_of.stderr.startswith("sbmini: error: ")


def test_without_one_nothing_is_left(sbmini_here, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    done = sbmini_here("demo", "--offline", "-m", "sbert-mini-fast")
    assert done.returncode == 0, done.stderr
    assert list(Path(tmp_path).glob("sbmini-demo-*")) == []
    assert "sbmini index create my.index" in done.stdout.splitlines()[-1]


def test_a_model_that_is_not_there(sbmini_here):
    one_error(sbmini_here("demo", "-m", "nothing-such"), 1, "no model 'nothing-such'")
