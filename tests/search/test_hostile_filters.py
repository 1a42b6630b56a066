"""Conditions that are made to take time or memory: each is an error, or done at once."""

import json
import signal
import time
import tracemalloc

import numpy as np
import pytest
from typed_rows import columns_of

from sbert_mini.errors import UsageError
from sbert_mini.scale.conditions import to_milvus
from sbert_mini.search import filters
from sbert_mini.search.columns import Schema
from sbert_mini.search.conditions import columns_in, parse
from sbert_mini.search.deadline import Deadline
from sbert_mini.search.filters import matching
from sbert_mini.search.text_functions import FilterValueError

TABLE = filters._Table
COLUMNS = {"n": "integer", "t": "text", "b": "boolean", "Name": "text"}


@pytest.fixture(autouse=True)
def _no_hanging():
    """End a test that takes minutes: each takes less than a second."""
    signal.alarm(400)
    yield
    signal.alarm(0)


@pytest.mark.parametrize(
    "condition",
    [
        "/* " * 300_000,
        "[" * 1_000_000,
        "'" * 999_999,
        '"' * 999_999,
        "`" * 999_999,
        "(" * 1_000_000,
        "n = 1 -- " * 100_000 + "\n/*",
        "trim(",
        "trim(leading",
        "trim(leading from",
        "position(",
        "cast(n as",
        "lower(" * 199 + "t" + ")" * 199 + " = ''",
        "n::" + "a " * 400_000,
        "nam = 1" + " or nam = 1" * 50_000,
    ],
    ids=lambda condition: condition[:20],
)
def test_what_cannot_be_read_is_refused_at_once(condition):
    with pytest.raises(UsageError, match=r"the filter .* cannot be evaluated") as caught:
        parse(condition, COLUMNS)
    assert len(str(caught.value)) < 5000


def test_a_nested_condition_is_not_held_once_for_each_part():
    text = "'" + "a" * 200_000 + "'"
    for _ in range(40):
        text = f"({text}){'||t' * 4}"
    tracemalloc.start()
    try:
        parse(f"{text} = ''", COLUMNS)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_names_in_other_letters_are_looked_for_once():
    columns = {f"c{i}": "boolean" for i in range(1000)} | COLUMNS
    started = time.process_time()
    parse(" or ".join(["B"] * 50_000), columns)
    assert time.process_time() - started < 10  # it took 50 million comparisons


NESTED = {
    "between": lambda depth: "(" * depth + "b" + " between b and b)" * depth,
    "not between": lambda depth: "(" * depth + "b" + " not between false and b)" * depth,
    "in": lambda depth: "(" * depth + "b" + " in (b, b))" * depth,
    "is": lambda depth: "b" + " is true" * depth,
    "distinct": lambda depth: "(" * depth + "b" + " is distinct from b)" * depth,
    "in a dictionary": lambda depth: "(" * depth + "(t = 'x')" + " in (t = 'x', t <> 'y'))" * depth,
    "is in a dictionary": lambda depth: "(t = 'x')" + " is true" * depth,
}


def answer(name, depth, b, t):
    """Return by hand what a nested condition gives for a row."""
    value = t == "x" if "dictionary" in name else b
    for _ in range(depth):
        if name == "between":
            value = value == b
        elif name == "not between":
            value = not (False <= value <= b)
        elif name == "in":
            value = value == b
        elif name == "distinct":
            value = value != b
        elif name == "in a dictionary":
            value = value in (t == "x", t != "y")
    return value


@pytest.fixture(scope="module")
def rows():
    """Rows of a flag and of a text of few values."""
    return [{"b": i % 3 == 0, "t": "xyz"[i % 4 % 3], "n": i} for i in range(30)]


@pytest.fixture(scope="module")
def columns(tmp_path_factory, rows):
    """The rows' columns."""
    return columns_of(tmp_path_factory.mktemp("columns"), rows, Schema())


@pytest.mark.parametrize("name", NESTED)
def test_nested_comparisons_are_evaluated_once(name, columns, rows):
    for depth in (1, 2, 3, 40):
        node = parse(NESTED[name](depth), COLUMNS)
        assert columns_in(node) == {"t" if "dictionary" in name else "b"}
        expected = [answer(name, depth, row["b"], row["t"]) for row in rows]
        assert matching(node, columns, Deadline(None)).tolist() == expected, depth


@pytest.mark.parametrize("name", ["between", "in"])
def test_nested_comparisons_are_not_written_out_for_milvus(name):
    with pytest.raises(UsageError, match="Milvus cannot evaluate it"):
        to_milvus(NESTED[name](60), COLUMNS)
    wide = "(" * 60 + "b is true" + " between false and true)" * 60
    with pytest.raises(UsageError, match="Milvus cannot evaluate it"):
        to_milvus(wide, COLUMNS)


@pytest.mark.parametrize("name", NESTED)
def test_a_condition_at_the_greatest_depth_is_evaluated_or_refused(columns, name):
    try:
        matching(parse(NESTED[name](190), COLUMNS), columns, Deadline(None))
    except (UsageError, FilterValueError) as error:
        why = str(error)
    else:
        why = "nested too deeply"
    assert "nested too deeply" in why


@pytest.mark.parametrize(
    "condition",
    [
        " or ".join(f"n = {i}" for i in range(2000)),
        " and ".join(f"n <> {i}" for i in range(2000)),
        f"coalesce({', '.join(['n + 1'] * 2000)}) = 1",
    ],
    ids=["or", "and", "coalesce"],
)
def test_many_parts_are_evaluated_one_after_the_other(condition, tmp_path):
    columns = columns_of(tmp_path, [{"n": i} for i in range(20_000)], Schema())
    node = parse(condition, COLUMNS)
    matching(parse("n = 1", COLUMNS), columns, Deadline(None))
    tracemalloc.start()
    try:
        matching(node, columns, Deadline(None))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_few_tables_of_dictionaries_are_kept(columns, monkeypatch):
    condition = parse(" or ".join(f"(t = 'x' and n = {i})" for i in range(50)), COLUMNS)
    expected = matching(condition, columns, Deadline(None))
    made = []
    monkeypatch.setattr(filters, "_Table", lambda *args: (made.append(1), TABLE(*args))[1])
    monkeypatch.setattr(filters, "_MOST_TABLES", 100)
    np.testing.assert_array_equal(matching(condition, columns, Deadline(None)), expected)
    assert len(made) == 2


def test_paths_and_casts_look_at_the_clock(tmp_path):
    columns = columns_of(tmp_path, [{"t": json.dumps(["x" * 50_000] * 20)} for _ in range(40)], Schema())
    with pytest.raises(UsageError, match="took longer than 0"):
        matching(parse("json_extract(t, '$[1]') = 'x'", {"t": "text"}), columns, Deadline(0.001))
