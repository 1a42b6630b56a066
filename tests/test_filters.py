"""Filters: SQL conditions over typed columns, held against DuckDB, and what is refused."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbert_mini.errors import CorruptIndexError, InputError, UsageError
from sbert_mini.search.checksums import CheckedFile, file_checksums
from sbert_mini.search.columns import DATA, DESCRIPTION, Columns, ColumnsWriter, Schema, converted, possible_types
from sbert_mini.search.conditions import parse
from sbert_mini.search.filters import Deadline, FilterValueError, like, matching

duckdb = pytest.importorskip("duckdb")

WORDS = [
    "",
    "a",
    "b",
    "ab",
    "Ab",
    "AB",
    "a%b",
    "a_b",
    "é",
    "日本",
    "zebra",
    "z",
    " a ",
    "007",
    "7",
    "-1.5",
    "true",
    "x'y",
]
KINDS = {
    **dict.fromkeys("ij", "integer"), **dict.fromkeys("nm", "number"), **dict.fromkeys("tus", "text"),
    **dict.fromkeys("bc", "boolean"), "sparse": "integer", "gone": None,
}  # fmt: skip
SQL = {"integer": "BIGINT", "number": "DOUBLE", "text": "VARCHAR", "boolean": "BOOLEAN", None: "INTEGER"}


def rows_of(seed: int, count: int) -> list[dict[str, object]]:
    rng = random.Random(seed)

    def nullable(value: object, share: float = 0.2) -> object:
        return None if rng.random() < share else value

    return [
        {
            "i": nullable(rng.randint(-5, 5)), "j": nullable(rng.choice([0, 1, 2**40, -(2**62), 2**53 + 1])),
            "n": nullable(rng.choice([-1.5, 0.0, 0.5, 2.0, 1e10, 3.25])), "m": nullable(round(rng.uniform(-3, 3), 2)),
            "t": nullable(rng.choice(WORDS)), "u": nullable(rng.choice(["en", "de", "fr"])), "s": nullable(f"key {row}é", 0.1),
            "b": nullable(rng.random() < 0.5), "c": nullable(rng.random() < 0.9), "sparse": nullable(rng.randint(0, 3), 0.95),
            "gone": None,
        }
        for row in range(count)
    ]  # fmt: skip


def columns_of(folder: Path, rows: list[dict[str, object]], schema: Schema, **options: int) -> Columns:
    with ColumnsWriter(folder, schema, **options) as writer:
        for number, row in enumerate(rows):
            schema.take(row, typed=True)
            writer.write(f"id {number}", row)
    file = CheckedFile(folder / DATA, file_checksums(folder / DATA))
    return Columns(json.loads((folder / DESCRIPTION).read_text()), file, len(rows))


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


@pytest.mark.long
def test_ten_thousand_conditions_mean_what_duckdb_says(tmp_path: Path) -> None:
    for seed in range(2, 12):
        folder = tmp_path / str(seed)
        folder.mkdir()
        compared(folder, seed, 1000)


# --- types ---


@pytest.mark.parametrize(
    ("values", "type"),
    [
        (["7", "12", "-3"], "integer"),
        (["7", ""], "integer"),
        (["7", "007"], "text"),
        (["501", "00501"], "text"),
        (["1.5", "2", "-0.25"], "number"),
        (["1.1", "1.10"], "text"),
        (["123e456", "1"], "text"),
        (["1e3", "1000"], "text"),
        (["12345678901234567890", "1"], "text"),
        (["9007199254740993"], "integer"),
        (["9007199254740993", "0.5"], "text"),  # float64 does not hold it
        (["true", "false", ""], "boolean"),
        (["True", "False"], "text"),
        (["true", "1"], "text"),
        (["+5"], "text"),
        ([" 5"], "text"),
        (["1_000"], "text"),
        (["٣"], "text"),
        (["nan"], "text"),
        (["inf", "1.0"], "text"),
        (["-0"], "text"),
        (["", ""], None),
    ],
)
def test_a_csv_column_has_the_type_from_which_its_values_read_back(values, type):
    schema = Schema()
    for value in values:
        schema.take({"x": value}, typed=False)
    schema.finish()
    assert schema.type_of("x") == type


@pytest.mark.parametrize(
    ("values", "type"),
    [
        ([1, 2, None], "integer"),
        ([1, 2.5], "number"),
        ([1.0], "number"),
        ([float("inf")], "text"),
        ([2**63 - 1, -(2**63)], "integer"),
        ([2**63], "text"),
        ([2**53 + 1, 0.5], "text"),
        ([True, False], "boolean"),
        ([True, 1], "text"),
        (["7"], "text"),
        (["7", 7], "text"),
        ([[1, 2], {"a": 1}], "text"),
        ([None], None),
    ],
)
def test_a_typed_column_keeps_the_types_of_its_source(values, type):
    schema = Schema()
    for value in values:
        schema.take({"x": value}, typed=True)
    schema.finish()
    assert schema.type_of("x") == type


@given(
    st.one_of(
        st.integers(),
        st.floats(allow_nan=False),
        st.text(),
        st.booleans(),
        st.from_regex(r"[-+0-9.eE]{1,24}", fullmatch=True),
    )
)
def test_what_a_type_holds_reads_back_unchanged(value):
    for typed in (True, False):
        for type in possible_types(value, typed=typed) - {"text"}:
            held = converted(value, type)
            if held is None:
                assert value == ""
            elif isinstance(value, str):
                assert value == (
                    str(held).lower()
                    if type == "boolean"
                    else repr(held)
                    if "." in value or "e" in value
                    else str(int(held))
                )
            else:
                assert held == value


def test_later_rows_must_fit(tmp_path):
    schema = Schema(
        [{"name": "year", "type": "integer", "declared": False}, {"name": "new", "type": None, "declared": False}]
    )
    schema.take({"year": 2020, "new": None}, typed=True)
    schema.take({"year": "2021"}, typed=False)
    for value, typed in (
        ("02021", False),
        ("2021", True),
        (20.5, True),
        (True, True),
        ([1], True),
        ("x", False),
        (2**63, True),
    ):
        with pytest.raises(InputError, match="'year' is, by the rows before, integer"):
            schema.take({"other": 1, "year": value}, typed=typed)
    assert "other" not in [entry["name"] for entry in schema.described()]  # nothing of a row that is refused
    schema.take({"new": 0.5}, typed=True)
    schema.finish()
    assert schema.type_of("new") == "number"


def test_a_declared_type_reads_what_spells_it():
    schema = Schema(declared={"price": "number", "active": "boolean", "n": "integer"})
    schema.take({"price": "10.50", "active": "True", "n": "007"}, typed=False)
    for columns in ({"price": "dear"}, {"active": "yes"}, {"n": "1.5"}, {"n": "1_0"}, {"price": "1e999"}):
        with pytest.raises(InputError, match="was declared"):
            schema.take(columns, typed=False)
    schema.finish()
    assert [schema.type_of(name) for name in ("price", "active", "n")] == ["number", "boolean", "integer"]
    with pytest.raises(UsageError, match="must be one of integer, number, boolean, text; found 'date'"):
        Schema(declared={"x": "date"})
    with pytest.raises(UsageError, match="'x' is text in this index, not number"):
        Schema([{"name": "x", "type": "text", "declared": False}], {"x": "number"})
    unseen = Schema(declared={"absent": "number"})
    unseen.take({"x": 1}, typed=True)
    with pytest.raises(InputError, match="no row has the column 'absent'"):
        unseen.finish()


# --- what is stored ---


def test_values_come_back_as_they_were_written_in_every_encoding(tmp_path):
    rows = rows_of(3, 211)
    columns = columns_of(tmp_path, rows, Schema(), values_in_memory=50)  # many chunks
    for name, kind in KINDS.items():
        column = columns.column(name)
        if kind is None:
            assert column is None
            continue
        assert column.type == kind
        assert column.has_dictionary == (name in ("t", "u"))
        for first, last in ((0, 211), (17, 101), (210, 211)):
            found = column.values(first, last)
            expected = [row[name] for row in rows[first:last]]
            assert [
                v if ok else None for v, ok in zip(found.values.tolist(), found.valid.tolist(), strict=True)
            ] == expected
    ids = columns.column("id").values(0, 211)
    assert ids.values.tolist() == [f"id {number}" for number in range(211)]


def test_storage_follows_the_values_not_rows_times_columns(tmp_path):
    rows = [{f"c{number}": number} for number in range(2000)]  # 4 million cells, 2,000 values
    columns = columns_of(tmp_path, rows, Schema())
    assert (tmp_path / DATA).stat().st_size < 200_000
    assert np.flatnonzero(matching(parse("c7 = 7", {"c7": "integer"}), columns, Deadline(None))).tolist() == [7]


def test_a_column_file_that_names_places_outside_of_itself_is_refused(tmp_path):
    columns_of(tmp_path, [{"t": "a"}, {"t": "a"}, {"t": "b"}, {"t": "b"}], Schema())
    data = bytearray((tmp_path / DATA).read_bytes())
    description = json.loads((tmp_path / DESCRIPTION).read_text())
    entry = next(e for e in description["columns"] if e["name"] == "t")
    data[entry["codes"][0]] = 7
    (tmp_path / DATA).write_bytes(data)
    held = Columns(description, CheckedFile(tmp_path / DATA, file_checksums(tmp_path / DATA)), 4)
    with pytest.raises(CorruptIndexError, match="does not hold 4 values of the column 't'"):
        held.column("t")


# --- what is refused ---

COLUMNS = {
    "year": "integer",
    "lang": "text",
    "ok": "boolean",
    "price": "number",
    "Twice": "text",
    "twice": "text",
    "none": None,
}


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ('"yaer" >= 2020', r"no such column: yaer \(did you mean year\?\)"),
        ("[yaer] >= 2020", "no such column: yaer"),
        ("`yaer` < 1 and lang = 'en'", "no such column: yaer"),
        ("yaer is null", "no such column: yaer"),
        ('lang = "en"', "no such column: en .*single quotes"),
        ("year = '2020'", "compares year, which is integer, with a text '2020'"),
        ("lang > 3", r"compares lang, which is text, with the integer 3.*cast\(lang as integer\)"),
        ("ok = 1", "compares ok, which is boolean"),
        ("year in (1, 'x')", "cannot be compared"),
        ("year between 1 and 'x'", "cannot be compared"),
        ("year like '2%'", "'year' must be text here, and is integer"),
        ("year", "must be a condition"),
        ("1", "must be a condition"),
        ("'x'", "must be a condition"),
        ("not year", "'year' must be boolean"),
        ("lang and ok", "'lang' must be boolean"),
        ("", "not one SQL condition"),
        ("year >", "not one SQL condition"),
        ("year = 1; DROP TABLE rows", "not one SQL condition"),
        ("0) UNION SELECT -1 FROM rows WHERE (1", "not one SQL condition"),
        ("1); DELETE FROM rows; --", "not one SQL condition"),
        ("year = 1 ORDER BY 1", "not one SQL condition"),
        ("(SELECT 1) = 1", "is not known here"),
        ("exists (select 1)", "is not known here"),
        ("year in (select 1)", "list of values"),
        ("length(randomblob(900000000)) > 0", "is not known here"),
        ("load_extension('x')", "is not known here"),
        ("fts3_tokenizer('simple') is null", "is not known here"),
        ("max(year) = 1", "is not known here"),
        ("rows.year = 1", "names a table"),
        ("tWICE = 'x'", "fits the columns Twice and twice"),
        ("year = ?", "is not known here"),
        ("year = 1e999", "too large"),
        ("lang like lang", "like takes a text"),
        ("substr(lang, year) = 'x'", "takes values, not columns"),
        ("cast(year as date) = 1", "can be cast to integer, number, boolean, text"),
        ("(" * 5000 + "ok" + ")" * 5000, "nested too deeply"),
        ("lang = '" + "x" * 2**20 + "'", "has 1048585 characters"),
    ],
)
def test_what_is_not_one_condition_on_these_columns_is_refused(condition, why):
    with pytest.raises(UsageError, match=why) as error:
        parse(condition, COLUMNS)
    listed = (
        "Columns: id (text), year (integer), lang (text), ok (boolean), price (number), Twice (text), twice (text), "
    )
    listed += "none (no value yet)"
    assert str(error.value).endswith(listed)
    assert "_position" not in str(error.value)
    assert len(str(error.value)) < 1200


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


def test_like_takes_no_exponential_time():
    assert not like("%a" * 40 + "b", None, case_sensitive=True)("a" * 20_000)
