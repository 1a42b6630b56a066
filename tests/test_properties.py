"""Whatever a file holds: the command answers with an exit code and at most a few lines, and never with a traceback."""

import csv
import io
import json
import shutil

import pytest
from conftest import run_here
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sbert_mini import Embedder, SearchIndex
from sbert_mini.text.words import is_silent

cells = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["", " ", "[SEP]", "a" * 300, "the cat", '"', ",", "\t", "\x00", "\r", "\u2028", "é", "\ufeff"]),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | cells,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(cells, inner, max_size=3),
    max_leaves=5,
)
rows = st.dictionaries(st.sampled_from(["text", "id", "n"]) | cells, values, max_size=4)


def as_csv(table, delimiter=","):
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, escapechar="\\").writerows(table)
    return stream.getvalue().encode("utf-8", "surrogatepass")


def damaged(draw, data):
    """Return the bytes as they are, cut short, or with one changed."""
    how = draw(st.sampled_from(["whole", "whole", "cut", "changed"]))
    if not data or how == "whole":
        return data
    place = draw(st.integers(0, len(data) - 1))
    return data[:place] if how == "cut" else data[:place] + bytes([draw(st.integers(0, 255))]) + data[place + 1 :]


@st.composite
def files(draw):
    """Return (suffix, content) of a file that somebody might feed to the command."""
    suffix = draw(st.sampled_from(["txt", "csv", "tsv", "jsonl", "parquet", "txt.gz"]))
    kind = draw(st.sampled_from(["bytes", "lines", "table", "json"]))
    if kind == "bytes":
        return suffix, draw(st.binary(max_size=200))
    if kind == "lines":
        data = "\n".join(draw(st.lists(cells, max_size=8))).encode("utf-8", "surrogatepass")
    elif kind == "table":
        header = draw(st.sampled_from([["text"], ["id", "text"], ["text", "n", "id"], ["a", "b"], []]))
        data = as_csv(
            [header, *draw(st.lists(st.lists(cells, max_size=4), max_size=6))], "\t" if suffix == "tsv" else ","
        )
    else:
        data = "\n".join(json.dumps(row) for row in draw(st.lists(rows, max_size=6))).encode()
    return suffix, damaged(draw, data)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    from conftest import tiny_model

    folder = tmp_path_factory.mktemp("any")
    Embedder(tiny_model(folder, hidden_size=12, num_attention_heads=3, intermediate_size=8, num_hidden_layers=1))
    return folder


def answer(*arguments):
    """Return the exit code of a command, what it printed, and its errors without its notes."""
    done = run_here(".", *arguments)
    lines = done.stderr.splitlines(keepends=True)
    errors = [line for line in lines if line.startswith("sbmini: error: ") or not line.startswith("sbmini: ")]
    return done.returncode, done.stdout, "".join(errors)


def check(place, made, query):
    suffix, content = made
    file, index, vectors = place / f"input.{suffix}", place / "index", place / "vectors.npy"
    file.write_bytes(content)
    shutil.rmtree(index, ignore_errors=True)
    for arguments, done in (
        (("encode", "-i", file, "-o", vectors, "-m", place), vectors),
        (("index", "create", index, "-i", file, "-m", place), index),
        (("index", "create", index, "-i", file, "-m", place, "--on-error", "skip"), index),
    ):
        if done is index:
            shutil.rmtree(index, ignore_errors=True)
        vectors.unlink(missing_ok=True)
        code, out, errors = answer(*arguments)
        assert out == ""
        assert code in (0, 1, 2, 4)
        if code in (1, 2):
            assert errors.startswith("sbmini: error: ")
            assert errors.count("\n") == 1
            assert not done.exists()
        else:
            assert done.exists()
    if index.exists():
        assert SearchIndex(index).verify() == []
        code, out, errors = answer("search", index, query, "--json", "--by", "meaning")
        assert (code, errors) == (0, "") if query.strip() else code == 2
        if code == 0:
            silent = is_silent(query) or all(is_silent(row.text) for row in SearchIndex(index).rows())
            assert bool(json.loads(out)["results"][0]["hits"]) != silent


checked = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


# 80 seeded files; ten thousand others run with `make check-long`
@settings(max_examples=80, derandomize=True, **checked)
@given(made=files(), query=st.text(max_size=40).filter(lambda text: not text.startswith("-")))
def test_any_file_is_answered(place, made, query):
    check(place, made, query)


@pytest.mark.long
@settings(max_examples=10_000, **checked)
@given(made=files(), query=st.text(max_size=40).filter(lambda text: not text.startswith("-")))
def test_any_file_is_answered_at_length(place, made, query):
    check(place, made, query)
