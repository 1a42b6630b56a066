"""SQL conditions in Milvus's language, and the values that they compare with."""

import pytest

from sbert_mini.errors import UsageError
from sbert_mini.scale.conditions import keys, to_milvus

COLUMNS = {"year": "integer", "lang": "text", "odd name": "text", "ok": "boolean"}


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("year >= 2020", '(exists keys["year"] and keys["year"] >= 2020)'),
        ("2020 < year", '(exists keys["year"] and keys["year"] > 2020)'),
        ("YEAR = 2020", '(exists keys["year"] and keys["year"] == 2020)'),
        ("not year < -1.5", '(exists keys["year"] and keys["year"] >= -1.5)'),
        (
            "lang in ('x', 'y')",
            '((exists keys["lang"] and keys["lang"] == "x") or (exists keys["lang"] and keys["lang"] == "y"))',
        ),
        ("id <> 'a'", 'id != "a"'),
        ("\"odd name\" is null", 'not exists keys["odd name"]'),
        ("lang is not null", 'exists keys["lang"]'),
        ("not ok", '(exists keys["ok"] and keys["ok"] == false)'),
        ("ok = true", '(exists keys["ok"] and keys["ok"] == true)'),
        ("not (id = 'a' and ok)", '(id != "a" or (exists keys["ok"] and keys["ok"] == false))'),
        ("lang not like 'e%'", '(exists keys["lang"] and not (keys["lang"] like "e%"))'),
    ],
)  # fmt: skip
def test_conditions_are_written_out(sql, expected):
    assert to_milvus(sql, COLUMNS) == expected


@pytest.mark.parametrize(
    "sql", ["", "year", "year >", "lang like 'e_'", "year + 1 > 2", "1 = 1; drop table x", "year in (select 1)"]
)
def test_what_milvus_cannot_say_is_refused(sql):
    with pytest.raises(UsageError, match="cannot be evaluated"):
        to_milvus(sql, COLUMNS)


def test_values_are_kept_in_the_types_of_their_columns():
    types = {"year": "integer", "code": "text", "price": "number", "ok": "boolean", "tags": "text", "none": None}
    row = {"year": "2021", "code": "007", "price": "1.5", "ok": True, "tags": [1], "none": None, "id": "x"}
    found = keys(row, types)
    assert found == {"year": 2021, "code": "007", "price": 1.5, "ok": True, "tags": "[1]"}
    assert type(found["ok"]) is bool
