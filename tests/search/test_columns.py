"""Typed columns: the types that values imply, and how they are stored."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typed_rows import KINDS, columns_of, rows_of

from sbert_mini.errors import CorruptIndexError, InputError, UsageError
from sbert_mini.search.checksums import CheckedFile, file_checksums
from sbert_mini.search.column_reader import Columns
from sbert_mini.search.columns import DATA, DESCRIPTION, ColumnsWriter, Schema, converted, possible_types, shown_columns
from sbert_mini.search.conditions import parse
from sbert_mini.search.deadline import Deadline
from sbert_mini.search.filters import matching


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


def test_a_text_of_csv_is_shown_as_the_value_that_it_spells_exactly():
    types = {"i": "integer", "n": "number", "b": "boolean", "t": "text", "new": None}
    for row, shown in (
        ({"i": "2019", "n": "1.5", "b": "true", "t": "2019"}, {"i": 2019, "n": 1.5, "b": True, "t": "2019"}),
        ({"i": "-7", "n": "-2", "b": "false", "new": "5"}, {"i": -7, "n": -2, "b": False, "new": "5"}),
        ({"i": "", "n": "", "b": "", "t": "", "new": ""}, {"i": None, "n": None, "b": None, "t": "", "new": ""}),
        ({"i": "007", "n": "10.50", "b": "1"}, {"i": "007", "n": "10.50", "b": "1"}),
        ({"i": 3, "n": None, "t": [1], "other": "4"}, {"i": 3, "n": None, "t": [1], "other": "4"}),
    ):
        assert repr(shown_columns(row, types)) == repr(shown)


@given(
    st.sampled_from(["integer", "number", "boolean"]),
    st.from_regex(r"-?[0-9]{1,4}(\.[0-9]{1,3})?(e[0-9]{2})?", fullmatch=True),
)
def test_what_is_shown_has_the_text_that_is_stored(type, text):
    (value,) = shown_columns({"c": text}, {"c": type}).values()
    assert str(value) == text


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
    for value in (1.5, True, [1], 2**63):
        with pytest.raises(
            InputError, match=rf"the column 'n' was declared integer, and {re.escape(json.dumps(value))} does"
        ):
            schema.take({"n": value}, typed=True)
    schema.take({"n": 2.0, "price": 3}, typed=True)
    schema.finish()
    assert [schema.type_of(name) for name in ("price", "active", "n")] == ["number", "boolean", "integer"]
    with pytest.raises(UsageError, match="must be one of integer, number, boolean, text; found 'date'"):
        Schema(declared={"x": "date"})
    with pytest.raises(UsageError, match="the column id is the row's id, which is text; it takes no type"):
        Schema(declared={"id": "text"})
    with pytest.raises(UsageError, match="'x' is text in this index, not number"):
        Schema([{"name": "x", "type": "text", "declared": False}], {"x": "number"})
    unseen = Schema(declared={"absent": "number"})
    unseen.take({"x": 1}, typed=True)
    with pytest.raises(InputError, match="no row has the column 'absent'"):
        unseen.finish()


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


@pytest.mark.parametrize(
    ("name", "array", "at", "byte"),
    [
        ("t", "codes", 0, 7),  # a place behind the list of texts
        ("n", "positions", 0, 2),  # the rows 2 and 1
        ("n", "positions", 4, 9),  # a row behind the last one
        ("s", "offsets", 0, 1),  # texts that do not begin at the start
        ("s", "offsets", 32, 9),  # nor end at the end
        ("s", "offsets", 8, 200),  # an end before its start
    ],
)
def test_a_column_file_that_names_places_outside_of_itself_is_refused(tmp_path, name, array, at, byte):
    rows = [{"t": "ab"[i // 2], "s": f"key {i}"} | ({"n": i} if i in (0, 1) else {}) for i in range(4)]
    columns_of(tmp_path, rows, Schema())
    data = bytearray((tmp_path / DATA).read_bytes())
    description = json.loads((tmp_path / DESCRIPTION).read_text())
    entry = next(e for e in description["columns"] if e["name"] == name)
    data[entry[array][0] + at] = byte
    (tmp_path / DATA).write_bytes(data)
    columns = Columns(description, CheckedFile(tmp_path / DATA, file_checksums(tmp_path / DATA)), 4)
    with pytest.raises(
        CorruptIndexError, match=f"does not hold {2 if name == 'n' else 4} values of the column '{name}'"
    ):
        columns.column(name).values(0, 4)


def test_columns_of_another_number_of_rows_are_refused(tmp_path):
    columns_of(tmp_path, [{"t": "a"}] * 4, Schema())
    file = CheckedFile(tmp_path / DATA, file_checksums(tmp_path / DATA))
    with pytest.raises(CorruptIndexError, match=r"columns\.bin holds the columns of 4 rows, not 5"):
        Columns(json.loads((tmp_path / DESCRIPTION).read_text()), file, 5)


@pytest.mark.parametrize(("texts", "listed"), [(65_536, True), (65_537, False)])
def test_a_column_of_more_texts_than_codes_holds_its_texts(tmp_path, texts, listed):
    schema = Schema()
    with ColumnsWriter(tmp_path, schema) as writer:
        for number in range(2 * texts):
            schema.take(row := {"t": str(number // 2)}, typed=True)
            writer.write("", row)
    file = CheckedFile(tmp_path / DATA, file_checksums(tmp_path / DATA))
    column = Columns(json.loads((tmp_path / DESCRIPTION).read_text()), file, 2 * texts).column("t")
    assert column.has_dictionary == listed
    last = column.values(2 * texts - 3, 2 * texts).values.tolist()
    assert last == [str(texts - 2), str(texts - 1), str(texts - 1)]


def test_empty_cells_alone_give_a_column_without_a_type(tmp_path):
    schema = Schema()
    with ColumnsWriter(tmp_path, schema) as writer:
        for row in ({"x": "", "y": "1"}, {"x": "", "y": ""}):
            schema.take(row, typed=False)
            writer.write("", row)
    columns = Columns(
        json.loads((tmp_path / DESCRIPTION).read_text()),
        CheckedFile(tmp_path / DATA, file_checksums(tmp_path / DATA)),
        2,
    )
    assert columns.column("x") is None
    assert columns.column("y").values(0, 2).valid.tolist() == [True, False]


def test_a_filter_on_id_reads_the_rows_ids_whatever_their_columns(tmp_path):
    columns = columns_of(tmp_path, [{"id": "id 1"}, {"id": "id 0"}], Schema())
    assert columns.column("id").values(0, 2).values.tolist() == ["id 0", "id 1"]


def test_a_row_with_a_column_that_the_manifest_lacks_is_damage():
    with pytest.raises(CorruptIndexError, match="the column 'other'"):
        Schema().type_of("other")
