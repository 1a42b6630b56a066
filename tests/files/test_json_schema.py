"""The schema of a JSON file: what fits, and the one line that says what does not."""

import json

import pytest

from sbert_mini.errors import CorruptModelError
from sbert_mini.files.json_schema import (
    Digest,
    Either,
    Flag,
    Integer,
    ListOf,
    MapOf,
    Null,
    Number,
    Object,
    OneOf,
    PathText,
    Required,
    Text,
    check,
    optional,
    parse,
    read_json,
)

HALF = "\ud800"
OUTER = Object({"rows": Required(Integer(1, 9)), "parts": ListOf(Object({"name": Required(Text())}))})


@pytest.mark.parametrize(
    ("schema", "fitting", "others"),
    [
        (Integer(0, 5), [0, 5], [-1, 6, 1.0, True, "1", None, 10**400, [], {}]),
        (Number(0, 1), [0, 1, 0.5], [-0.1, 1.1, float("nan"), float("inf"), True, "0", 10**400]),
        (Flag(), [True, False], [0, 1, "true", None]),
        (Text(), ["", "é"], [1, None, HALF, ["a"]]),
        (Text("[a-z]+"), ["ab"], ["", "ab\n", "A", 1]),
        (Text(halves=True), [HALF, ""], [1, None]),
        (PathText(), ["a/b", "\udcff", ""], ["a\0", HALF, 1, "ü" * 128]),
        (OneOf(("a", 1)), ["a", 1], ["b", True, 1.0, ["a"]]),
        (ListOf(Integer(), 1), [[1], [1, 2]], [[], [1, "2"], {}, None]),
        (MapOf(Integer()), [{}, {"a": 1}], [{"a": "1"}, [], {HALF: 1}]),
        (optional(Integer()), [None, 3], ["3", False]),
        (Either((Text(), ListOf(Text()))), ["a", ["a"]], [1, [1]]),
        (Null(), [None], [0, False]),
        (OUTER, [{"rows": 1}, {"rows": 2, "parts": [{"name": "a", "new": []}], "new": 1}], [{}, [], {"rows": 0}]),
    ],
)
def test_a_schema_takes_what_fits_alone(schema, fitting, others):
    for value in fitting:
        assert check(value, schema, "file", CorruptModelError) is value
    for value in others:
        with pytest.raises(CorruptModelError, match=r"\Afile.* must be .*; found .*\Z"):
            check(value, schema, "file", CorruptModelError)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"rows": 12}, "f.json: rows must be a whole number from 1 to 9; found 12"),
        ({}, "f.json: rows must be a whole number from 1 to 9; found nothing"),
        (
            {"rows": 1, "parts": [{"name": "a"}, {"name": []}]},
            "f.json: parts[1].name must be a text; found a list of 0",
        ),
        ([], "f.json must be an object; found a list of 0"),
        ({"rows": 10**5000}, "f.json: rows must be a whole number from 1 to 9; found a number of more than 60 digits"),
        ({"rows": "x" * 99}, 'f.json: rows must be a whole number from 1 to 9; found "' + "x" * 58 + "…"),
    ],
)
def test_the_error_names_file_key_range_and_value(value, text):
    with pytest.raises(CorruptModelError) as error:
        check(value, OUTER, "f.json", CorruptModelError)
    assert str(error.value) == text


@pytest.mark.parametrize("data", [b"{", b"\xff", b"[" * 200_000, b"1" * 5000, b"", b"\xef\xbb\xbf{}"])
def test_what_is_no_json_is_an_error_that_names_the_file(tmp_path, data):
    with pytest.raises(CorruptModelError, match=r"f\.json cannot be read as JSON: "):
        parse(data, "f.json", CorruptModelError)


def test_a_file_is_read_and_checked(tmp_path):
    file = tmp_path / "a.json"
    with pytest.raises(CorruptModelError, match=r"a\.json cannot be read: No such file"):
        read_json(file, OUTER, CorruptModelError)
    file.write_text(json.dumps({"rows": 3}))
    assert read_json(file, OUTER, CorruptModelError) == {"rows": 3}


@pytest.mark.parametrize(
    "wrong", [None, 5, "", "0" * 63, "0" * 65, "g" + "0" * 63, "A" * 64, "0" * 63 + "\n", "٠" * 64, ["0" * 64]]
)
@pytest.mark.parametrize("position", [0, 3, 6])
def test_a_wrong_checksum_among_many_is_named(wrong, position):
    digests = [f"{number:064x}" for number in range(7)]
    schema = ListOf(Digest())
    assert schema.fault(digests) is None
    digests[position] = wrong
    where, _, value = schema.fault(digests)
    assert (where, value) == (f"[{position}]", wrong)


def test_no_checksums_are_a_list_of_them():
    assert ListOf(Digest()).fault([]) is None
