"""Conditions that few people write: what they give, by hand, and which mistakes are named."""

import pytest

from sbert_mini import IndexWriter
from sbert_mini.errors import UsageError
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
    ],
)
def test_which_mistakes_are_named(index, condition, text):
    with pytest.raises(UsageError, match=text) as error:
        index.matching(condition)
    assert "\n" not in str(error.value)
