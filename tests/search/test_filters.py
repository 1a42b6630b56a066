"""Filters: random SQL conditions against DuckDB, and values worked by hand."""

import random
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typed_rows import KINDS, SQL, WORDS, columns_of, rows_of

from sbert_mini.errors import UsageError
from sbert_mini.search import filters
from sbert_mini.search.columns import Schema
from sbert_mini.search.conditions import parse
from sbert_mini.search.deadline import Deadline
from sbert_mini.search.filters import matching
from sbert_mini.search.text_functions import FilterValueError, json_value, like

duckdb = pytest.importorskip("duckdb")


class Grammar:
    """Random conditions whose types fit."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def pick(self, *choices: str) -> str:
        return self.rng.choice(choices)

    def condition(self, depth: int) -> str:
        kind = self.rng.randrange(13 if depth else 9)
        if kind == 0:
            return f"{self.integer(1)} {self.sign()} {self.number(1)}"
        if kind == 1:
            return f"{self.text(1)} {self.sign()} {self.text(1)}"
        if kind == 2:
            return f"{self.number(1)} {self.sign()} {self.number(1)}"
        if kind == 3:
            return self.pick(
                "b", "c", "b = c", "b <> true", "c is true", "b is not false", "b is distinct from c", "b < c", "null"
            )
        if kind == 4:
            return f"{self.pick('t', 'u', 's', 'upper(t)')} {self.pick('like', 'not like', 'ilike')} '{self.pattern()}'"
        if kind == 5:
            return f"{self.pick('i', 'j', 'n', 't', 'u', 's', 'b', 'sparse', 'gone')} {self.pick('is null', 'is not null')}"
        if kind == 6:
            values = [
                self.pick("1", "2", "-3", "1e10", "0.5", "null", str(2**53 + 1))
                for _ in range(self.rng.choice([1, 3, 12]))
            ]
            return f"{self.pick('i', 'j', 'n', 'sparse')} {self.pick('in', 'not in')} ({', '.join(values)})"
        if kind == 7:
            values = [self.literal() if self.rng.random() < 0.9 else "null" for _ in range(self.rng.choice([1, 3, 12]))]
            return f"{self.pick('t', 'u', 's')} {self.pick('in', 'not in')} ({', '.join(values)})"
        if kind == 8:
            between = f"{self.pick('between', 'not between')}"
            if self.rng.random() < 0.5:
                return f"{self.number(1)} {between} {self.number(1)} and {self.number(1)}"
            return f"{self.text(1)} {between} {self.text(1)} and {self.text(1)}"
        if kind == 9:
            return f"not ({self.condition(depth - 1)})"
        if kind == 10:
            return f"({self.condition(depth - 1)}) {self.pick('is true', 'is not true', 'is null')}"
        joined = f" {self.pick('and', 'or')} ".join(self.condition(depth - 1) for _ in range(self.rng.randint(2, 3)))
        return f"({joined})" if self.rng.random() < 0.5 else joined

    def sign(self) -> str:
        return self.pick("=", "<>", "<", "<=", ">", ">=", "==", "!=", "is distinct from", "is not distinct from")

    def integer(self, depth: int) -> str:
        kind = self.rng.randrange(9 if depth else 3)
        if kind < 2:
            return self.pick("i", "sparse", "j")
        if kind == 2:
            return self.pick("0", "1", "-2", "5", "9007199254740993", "100000000000000000000")
        if kind == 3:
            return f"({self.small()} {self.pick('+', '-', '*', '%')} {self.small()})"
        if kind == 4:
            return f"length({self.text(0)})"
        if kind == 5:
            return f"instr({self.text(0)}, {self.text(0)})"
        if kind == 6:
            return f"abs({self.small()})"
        if kind == 7:
            return f"cast({self.pick('m', 'b', 'i')} as bigint)"
        return f"coalesce({self.small()}, {self.small()})"

    def small(self) -> str:
        return self.pick("i", "sparse", "1", "3", "-2", "null")

    def number(self, depth: int) -> str:
        kind = self.rng.randrange(8 if depth else 3)
        if kind < 2:
            return self.pick("n", "m", "i")
        if kind == 2:
            return self.pick("0.5", "-1.5", "2", "1e10", "3.14", "0")
        if kind == 3:
            return (
                f"({self.pick('n', 'm', 'i')} {self.pick('+', '-', '*', '/')} {self.pick('m', 'i', '2', '0.5', '0')})"
            )
        if kind == 4:
            return f"{self.pick('ceil', 'floor', 'abs', 'round')}({self.pick('n', 'm')})"
        if kind == 5:
            return f"nullif({self.pick('n', 'm')}, {self.pick('0.5', 'm', 'n')})"
        if kind == 6:
            return f"try_cast(t as {self.pick('double')})"
        return f"cast({self.pick('i', 'j')} as double)"

    def literal(self) -> str:
        return "'" + self.rng.choice([*WORDS, "en", "key 3é"]).replace("'", "''") + "'"

    def text(self, depth: int) -> str:
        kind = self.rng.randrange(9 if depth else 3)
        if kind < 2:
            return self.pick("t", "u", "s")
        if kind == 2:
            return self.literal()
        if kind == 3:
            return f"{self.pick('lower', 'upper', 'trim', 'ltrim', 'rtrim')}({self.text(0)})"
        if kind == 4:
            return f"substr({self.text(0)}, {self.pick('1', '2', '-1', '0', '-3')}{self.pick('', ', 1', ', 2', ', 0')})"
        if kind == 5:
            return f"({self.text(0)} || {self.text(0)})"
        if kind == 6:
            return f"coalesce({self.text(0)}, {self.text(0)})"
        if kind == 7:
            return f"cast({self.pick('i', 'b', 'j')} as varchar)"
        return f"nullif({self.text(0)}, {self.text(0)})"

    def pattern(self) -> str:
        return "".join(
            self.rng.choice(["a", "b", "%", "_", "é", "e", "k", "Z", "%%"]) for _ in range(self.rng.randint(0, 4))
        )


def compared(folder: Path, seed: int, count: int) -> None:
    rows = rows_of(seed, 97)
    schema = Schema()
    columns = columns_of(folder, rows, schema)
    types = {entry["name"]: entry["type"] for entry in schema.described()}
    assert types == KINDS
    database = duckdb.connect()
    database.execute("SET ieee_floating_point_ops = false")
    database.execute(f"CREATE TABLE r ({', '.join(f'{name} {SQL[kind]}' for name, kind in KINDS.items())}, p INTEGER)")
    database.executemany(
        f"INSERT INTO r VALUES ({', '.join('?' * (len(KINDS) + 1))})",
        [[*(row[name] for name in KINDS), number] for number, row in enumerate(rows)],
    )
    grammar = Grammar(seed)
    both = 0
    for number in range(count):
        condition = grammar.condition(number % 4)
        try:
            sql = re.sub(r"\((\S+) ([/%]) (\S+)\)", r"(\1 \2 nullif(\3, 0))", condition.replace("==", "="))
            oracle = {p for (p,) in database.execute(f"SELECT p FROM r WHERE ({sql})").fetchall()}
        except duckdb.Error:
            oracle = None  # an overflow
        try:
            found = set(np.flatnonzero(matching(parse(condition, types), columns, Deadline(None))).tolist())
        except (UsageError, FilterValueError):
            found = None
        both += oracle is not None
        assert oracle in (None, found), condition
    assert both > 0.98 * count


def test_conditions_mean_what_duckdb_says(tmp_path: Path) -> None:
    compared(tmp_path, 1, 1500)


def test_threads_find_the_rows_that_one_thread_finds(tmp_path, monkeypatch):
    """Blocks of 7 rows, most of them evaluated by three threads."""
    monkeypatch.setattr(filters, "BLOCK_ROWS", 7)
    schema, grammar = Schema(), Grammar(3)
    columns = columns_of(tmp_path, rows_of(3, 293), schema)
    types = {entry["name"]: entry["type"] for entry in schema.described()}
    for number in range(300):
        condition = grammar.condition(number % 4)
        results = []
        for threads in (1, 3):
            try:
                results.append(matching(parse(condition, types), columns, Deadline(None), threads).tolist())
            except (UsageError, FilterValueError) as error:
                results.append(str(error))
        assert results[0] == results[1], condition
    with pytest.raises(UsageError, match="longer than 0 seconds"):
        matching(parse("i = 1", types), columns, Deadline(0), 3)


@pytest.mark.long
def test_ten_thousand_conditions_mean_what_duckdb_says(tmp_path: Path) -> None:
    for seed in range(2, 12):
        folder = tmp_path / str(seed)
        folder.mkdir()
        compared(folder, seed, 1000)


def test_odd_names_are_columns_like_others(tmp_path):
    rows = [
        {"true": 1, "_Position": 5, "a.b": "x", 'say "hi"': 2},
        {"true": 0, "_Position": 6, "a.b": "y", 'say "hi"': 3},
    ]
    schema = Schema()
    columns = columns_of(tmp_path, rows, schema)
    types = {entry["name"]: entry["type"] for entry in schema.described()}
    for condition in (
        '"true" = 1',
        "_Position = 5",
        "_position < 6",
        "\"a.b\" = 'x'",
        "[a.b] = 'x'",
        '"say ""hi""" = 2',
        "id = 'id 0'",
    ):
        assert np.flatnonzero(matching(parse(condition, types), columns, Deadline(None))).tolist() == [0], condition


def test_json_texts_are_looked_into(tmp_path):
    rows = [{"tags": ["x", "y"]}, {"tags": {"a b": [1, {"c": "z"}]}}, {"tags": None}, {"tags": "no JSON ["}]
    columns = columns_of(tmp_path, rows, Schema())
    for condition, expected in (
        ("json_extract(tags, '$[1]') = 'y'", [0]),
        ("json_extract(tags, '$.\"a b\"[1].c') = 'z'", [1]),
        ("cast(json_extract(tags, '$.\"a b\"[0]') as integer) = 1", [1]),
        ("json_extract(tags, '$[9]') is null", [0, 1, 2, 3]),
        ('tags = \'["x", "y"]\'', [0]),
    ):
        found = matching(parse(condition, {"tags": "text"}), columns, Deadline(None))
        assert np.flatnonzero(found).tolist() == expected, condition


def test_a_filter_ends_when_its_time_is_up(tmp_path):
    columns = columns_of(tmp_path, [{"year": 1}], Schema())
    with pytest.raises(UsageError, match="longer than 0 seconds"):
        matching(parse("year = 1", {"year": "integer"}), columns, Deadline(0))


@given(st.text("ab%_\n", max_size=8), st.text("ab%_\nA", max_size=10), st.booleans())
def test_like_is_what_a_regular_expression_gives(pattern, text, case_sensitive):
    expression = "".join({"%": ".*", "_": "."}.get(c, re.escape(c)) for c in pattern)
    flags = re.DOTALL | (0 if case_sensitive else re.IGNORECASE)
    assert like(pattern, None, case_sensitive=case_sensitive)(text) == bool(re.fullmatch(expression, text, flags))


def test_a_long_text_is_searched_in_parts_beside_a_look_at_the_clock():
    looks = []
    test = like("%b_b%c", None, case_sensitive=True, check=lambda: looks.append(1))
    long = "a" * 300_000
    assert test(f"{long}bxb{long}c")
    assert not test(f"{long}bxb{long}")
    assert len(looks) >= 8
    for start in range(65_530, 65_545):  # over the border of a part
        assert test(f"{'a' * start}bxbc")


def test_a_pattern_has_a_greatest_length():
    assert like("%" * 4096, None, case_sensitive=True)("a")
    with pytest.raises(FilterValueError, match="a pattern of 4097 characters; 4096 are the most"):
        like("%" * 4097, None, case_sensitive=True)


def test_texts_that_a_filter_makes_take_a_bounded_memory(tmp_path):
    """Each of 3,000 rows would hold a megabyte at a time."""
    columns = columns_of(tmp_path, [{"u": f"row {n}"} for n in range(3000)], Schema())
    condition = parse(f"length('{'a' * 1_000_000}' || u) = 1000005", {"u": "text"})
    tracemalloc.start()
    found = matching(condition, columns, Deadline(None))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.flatnonzero(found).tolist() == list(range(10))
    assert peak < 300_000_000
    many = " || ".join(["u"] * 90)
    (tmp_path / "long").mkdir()
    rows = columns_of(tmp_path / "long", [{"u": "a" * 1_000_000}], Schema())
    with pytest.raises(UsageError, match="a text of more than 67,108,864 characters of a row"):
        matching(parse(f"length({many}) > 1", {"u": "text"}), rows, Deadline(None))


def test_like_takes_no_exponential_time():
    assert not like("%a" * 40 + "b", None, case_sensitive=True)("a" * 20_000)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ('{"a": {"b": [1, "x"]}}', "$.a.b[1]", "x"),
        ('{"a": {"b": [1, "x"]}}', "$.a", '{"b":[1,"x"]}'),
        ('{"a": null}', "$.a", None),
        ('{"a": 1}', "$[0]", None),
        ("[1]", "$.a", None),
        ("[1]", "$[1]", None),
        ('"a"', "$[0]", None),
        ("[" * 100_000, "$", None),
    ],
)
def test_what_a_json_text_has_under_a_path(text, path, value):
    assert json_value(text, path) == value


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a", r"the path 'a' must begin with \$"),
        ("$.a[", r"made of \.name and \[number\]"),
        (r'$."\q"', "is no name as JSON spells it"),
        ('$."a\nb"', "is no name as JSON spells it"),
        (f"$[{'1' * 5000}]", r"made of \.name and \[number\]"),
    ],
)
def test_a_path_that_is_none_is_refused(path, message):
    with pytest.raises(FilterValueError, match=message):
        json_value("{}", path)
