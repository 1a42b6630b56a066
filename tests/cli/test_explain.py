"""`sbmini explain`: the same shares as `Embedder.explain`, in a table, as JSON, and on a page."""

import json
import re

import pytest
from conftest import one_error

A, B = "How do I keep <b>bread</b> fresh?\x1b[31m", "Bread stays fresh in a cloth bag."


def test_a_table_has_the_strongest_pairs_and_all_words(sbmini_here, default_embedder):
    done = sbmini_here("explain", A, B, "--pairs", 3)
    assert done.returncode == 0, done.stderr
    explanation = default_embedder.explain(A, B)
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"cosine {explanation.cosine:.4f}")
    assert lines[1] == "a  " + A.replace("\x1b", "\\x1b")
    first = explanation.pairs(1)[0]
    assert lines[5].split() == [f"{first.share:.4f}", f"{first.share / explanation.cosine:.1%}", "bread", "Bread"]
    assert len(lines) == 4 + 1 + 3 + 2 * 2 + len(explanation.words_a) + len(explanation.words_b)
    assert "\x1b" not in done.stdout


def test_colours_are_asked_for(sbmini_here):
    coloured = sbmini_here("explain", A, B, "--color", "always", "--no-removal").stdout
    assert "\x1b[1;32mBread\x1b[0m" in coloured
    assert re.sub("\x1b\\[[0-9;]*m", "", coloured) == sbmini_here("explain", A, B, "--no-removal").stdout


def test_json_has_shares_that_add_up(sbmini_here, default_embedder):
    document = json.loads(sbmini_here("explain", A, B, "--json").stdout)
    assert abs(sum(map(sum, document["shares"])) - document["cosine"]) < 1e-6
    explanation = default_embedder.explain(A, B)
    assert document["a"]["text"] == A
    assert document["b"]["words"] == [pytest.approx(vars(word)) for word in explanation.words_b]
    assert document["pairs"][0] == {"a": "bread", "b": "Bread", "share": pytest.approx(explanation.pairs(1)[0].share)}


def test_a_page_is_written_and_says_where_it_is(sbmini_here, tmp_path):
    done = sbmini_here("explain", A, B, "--html", "why.html")
    assert "why.html" in done.stderr
    assert "&lt;</span>" in (tmp_path / "why.html").read_text()


def test_mistakes_get_one_line(sbmini_here, tmp_path, converted_model):
    one_error(sbmini_here("explain", A, " "), 2, "empty")
    (tmp_path / "folder").mkdir()
    one_error(sbmini_here("explain", A, B, "--html", "folder"), 2, "regular file")
    cls = converted_model(modules=[{"kind": "Pooling", "embedding_dimension": 28, "pooling_mode": "cls"}])
    one_error(sbmini_here("explain", A, B, "-m", cls), 1, "pooling is a mean", "is cls")
