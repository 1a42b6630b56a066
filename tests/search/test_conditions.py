"""SQL conditions: what they select, worked by hand, and which mistakes are named."""

import inspect
import re
import sys
from pathlib import Path

import pytest

from sbert_mini import Embedder, IndexWriter
from sbert_mini.errors import UsageError
from sbert_mini.search.conditions import FUNCTIONS, parse
from sbert_mini.text.records import Record

ROWS = [
    {"n": 1, "x": 2.5, "name": "Ann_1", "tags": ["a", "b"], "note": None},
    {"n": -3, "x": -2.5, "name": "bob%", "tags": [], "note": "7"},
    {"n": 10, "x": 0.25, "name": "Cid", "tags": ["c"], "note": "no"},
]


@pytest.fixture(scope="module")
def index(tmp_path_factory, default_embedder):
    records = [Record("the cat", str(i), row) for i, row in enumerate(ROWS)]
    return IndexWriter(tmp_path_factory.mktemp("conditions") / "index", default_embedder).create(records)


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("-n > 0", [1]),
        ("-x = 2.5", [1]),
        ("round(x) = 3", [0]),  # half away from zero
        ("round(x) = -3", [1]),
        ("round(n, -1) = 10", [2]),
        ("round(n, 2) = n", [0, 1, 2]),
        ("round(x, null) is null", [0, 1, 2]),
        ("name like 'Ann!_%' escape '!'", [0]),
        ("name like '%!%' escape '!'", [1]),
        ("name ilike 'cId'", [2]),
        ("substr(name, 2, -1) = 'A'", [0]),
        ("substr(name, 1, null) is null", [0, 1, 2]),
        ("n < 9223372036854775808", [0, 1, 2]),
        ("n > 9223372036854775808", []),
        ("null > 9223372036854775808", []),
        ("cast(null as integer) is null", [0, 1, 2]),
        ("cast(n as text) = '10'", [2]),
        ("cast(x as integer) = 2", [0]),  # half to even
        ("cast('2.0' as integer) = 2", [0, 1, 2]),
        ("cast('true' as boolean)", [0, 1, 2]),
        ("cast(n = 1 as text) = 'true'", [0]),
        ("cast(n as boolean)", [0, 1, 2]),
        ("try_cast(note as integer) = 7", [1]),
        ("try_cast(name as boolean) is null", [0, 1, 2]),
        ("try_cast('1_000' as integer) is null", [0, 1, 2]),
        ("try_cast('inf' as number) is null", [0, 1, 2]),
        ("try_cast('1e30' as integer) is null", [0, 1, 2]),
        ("json_extract(tags, '$[0]') = 'a'", [0]),
        ("json_extract(tags, '$[5]') is null", [0, 1, 2]),
        ("json_extract('[null]', '$[0]') is null", [0, 1, 2]),
        ("n in (x, 10)", [2]),
        ("name in (upper('cid'), lower('BOB%'))", [1]),
        ("(n = 1) is true", [0]),
        ("(n = 1) is not true", [1, 2]),
        ("tags -> 0 = 'a'", [0]),
        ("json_extract('{\"a\": 1}', 'a') = '1'", [0, 1, 2]),
    ],
)
def test_what_a_condition_gives(index, condition, rows):
    assert index.matching(condition).tolist() == rows


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (3, "must be a string; found int"),
        ("(" * 300 + "n = 1" + ")" * 300, "nested too deeply"),
        ("not " * 400 + "n = 1", "nested too deeply"),
        ("n between symmetric 3 and 1", "between symmetric is not known"),
        ("name like 'a' escape 'xy'", "escape takes one character in single quotes"),
        ("round(x, 16) = 1", "round takes from -15 to 15 digits; found 16"),
        ("lower() = 'a'", r"lower"),
        ("lower(name, name) = 'a'", r"lower"),
        ("name like 'a!b' escape '!'", "must stand before %, _ or itself"),
        ("cast(name as integer) = 1", "Ann_1"),
        ("+".join(["1"] * 300) + " = 300", "nested too deeply"),
        ("name glob 'a' escape '!'", "'glob' is not known here"),
        ("substr(name, 1, 2, 3) = 'a'", "substr takes 2 to 3 arguments; found 4"),
        ("trim(name, 'a') = 'b'", r"trim takes 1 argument; found 2"),
        ("ceil() = 1", r"ceil takes 1 argument; found 0"),
        ("instr(name) = 1", "instr takes 2 arguments; found 1"),
        ("json_extract(tags, '$.a', '$.b') = 'x'", "json_extract takes 2 arguments; found 3"),
        ("json_extract(tags, name) = 'x'", "json_extract takes values, not columns"),
        ("coalesce() = 1", "coalesce takes at least 1 argument; found 0"),
        ("n = 1e", "'1e' is not a number"),
        ("n + 1 = 'a'", r"compares a value of type integer with a text 'a', which cannot be compared\."),
        (
            "lower(name) = n",
            "a value of type text with n, which is integer, .*: compare it with a number, without quotes",
        ),
        ("true = 1", "compares true or false with the integer 1"),
        ("n in (1, 2, 3, 'a', 'b')", "compares n, which is integer, with a text 'a', which"),
        ("n + 9223372036854775808 > 0", "9223372036854775808 is beyond 64 bits"),
        ("n * 4611686018427387904 > 0", r"a row gives an integer beyond 64 bits \(\*\)"),
        ("x * 1e308 > 0", r"a row gives a number that is too large \(\*\)"),
        ("json_extract(tags, '$[*]') = 'b'", r"the path '\$\[\*\]' must be made of \.name and \[number\]"),
    ],
)
def test_which_mistakes_are_named(index, condition, text):
    with pytest.raises(UsageError, match=text) as error:
        index.matching(condition)
    assert "\n" not in str(error.value)


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
        ("cast(year as date) = 1", "can be cast to integer, number, boolean, text; compare a date as a text"),
        ("cast(year as blob) = 1", "can be cast to integer, number, boolean, text"),
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


def test_a_condition_deep_in_other_calls_is_refused():
    """The stack has room for the parser, which needs little of it here, and not for as many calls as the tree is deep."""
    condition = "+".join(["1"] * 190) + " = 190"

    def parsed_below(frames):
        return parsed_below(frames - 1) if frames else parse(condition, {})

    assert parsed_below(0).type == "boolean"
    with pytest.raises(UsageError, match="nested too deeply"):
        parsed_below(sys.getrecursionlimit() - len(inspect.stack(0)) - 250)


def test_a_column_that_a_segment_lacks_is_null_there(tmp_path, converted_model):
    writer = IndexWriter(tmp_path / "index", Embedder(converted_model()))
    writer.create([{"text": "the cat", "name": "a"}])
    index = writer.add([{"text": "a dog"}])
    assert index.matching("name = 'a'").tolist() == [0]
    assert index.matching("name is null").tolist() == [1]
    assert index.matching("name in ('a', 'b') or 'c' = name").tolist() == [0]


def test_the_documents_list_the_functions():
    text = (Path(__file__).parents[2] / "docs" / "search.md").read_text("utf-8")
    listed = text.split("The functions are ")[1].split(".")[0]
    assert re.findall("`(.*?)`", listed) == list(FUNCTIONS)
