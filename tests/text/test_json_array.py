"""Arrays of JSON, CSV with other delimiters, and patterns of files, against Python's own readers."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbert_mini.errors import InputError, UsageError
from sbert_mini.text import json_array
from sbert_mini.text.json_array import read_array
from sbert_mini.text.records import read_records

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a\\"[]{},é \n', max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
ROWS = st.lists(st.dictionaries(st.text(alphabet='ab"{', max_size=3), VALUES, max_size=3), max_size=5)


@given(ROWS, st.sampled_from([None, 1, 3]), st.booleans(), st.integers(1, 7))
def test_elements_are_those_of_the_json_module(rows, indent, ascii, block):
    data = json.dumps(rows, indent=indent, ensure_ascii=ascii).encode()
    before = json_array._BLOCK_BYTES
    json_array._BLOCK_BYTES = block
    try:
        lines = list(read_array(io.BytesIO(b" \n" + data + b"\n"), "x", 1 << 20))
    finally:
        json_array._BLOCK_BYTES = before
    assert [json.loads(line.text) for line in lines] == rows
    text = "\n" + data.decode()
    for line in lines:
        assert text.split("\n")[line.number - 1].lstrip().startswith(("{", "[{"))


@given(st.text(alphabet='[]{},"\\ a\n', max_size=12))
def test_what_is_no_array_is_an_error(text):
    try:
        expected = json.loads(text)
    except ValueError:
        expected = None
    try:
        lines = [json.loads(line.text) for line in read_array(io.BytesIO(text.encode()), "x", 99)]
    except ValueError:  # InputError, or an element that is not JSON
        assert not isinstance(expected, list)
    else:
        assert lines == expected


def test_records_of_an_array(tmp_path):
    file = tmp_path / "rows.json"
    file.write_text('[\n {"id": 1, "text": "one", "n": [1]},\n {"id": 2},\n {"text": "%s"}\n]' % ("x" * 99))
    rejects = []
    (record,) = read_records(file, on_reject=rejects.append, max_row_bytes=60)
    assert (record.id, record.text, record.columns, record.line, record.typed) == ("1", "one", {"n": [1]}, 2, True)
    assert [(reject.line, reject.error[:22]) for reject in rejects] == [
        (3, "no column 'text' for t"),
        (4, "the row is longer than"),
    ]
    file.write_bytes(b'[{"text": "\xff"}]')
    with pytest.raises(InputError, match="line 1: not UTF-8"):
        list(read_records(file))
    for text, error in (
        ("", "the file is empty"),
        ('{"text": "x"}', "must be an array"),
        ("[{}", "not closed"),
        ("[] x", "more follows"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=error):
            list(read_records(file))


@pytest.mark.parametrize("delimiter", [";", "|", "\t", " "])
def test_other_delimiters(tmp_path, delimiter):
    file = tmp_path / "rows.csv"
    file.write_text(f'id{delimiter}text\n1{delimiter}"a{delimiter}b ""c"""\n')
    (record,) = read_records(file, delimiter=delimiter)
    assert (record.id, record.text) == ("1", f'a{delimiter}b "c"')


@pytest.mark.parametrize("delimiter", ["", ";;", '"', "\n", "é"])
def test_delimiters_that_are_none(tmp_path, delimiter):
    (tmp_path / "rows.csv").write_text("text\na\n")
    with pytest.raises(UsageError, match="the delimiter must be one ASCII character"):
        read_records(tmp_path / "rows.csv", delimiter=delimiter)


def test_a_pattern_stands_for_the_files_that_match(tmp_path):
    for name in ("b.txt", "a.txt", "c[1].txt", "sub/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [r.text for r in read_records(tmp_path / "*.txt")] == ["a.txt", "b.txt", "c[1].txt"]
    assert [r.text for r in read_records([tmp_path / "c[1].txt", tmp_path / "**" / "d.txt"])] == [
        "c[1].txt",
        "sub/d.txt",
    ]
    with pytest.raises(InputError, match=r"x\*\.txt cannot be opened"):
        read_records(tmp_path / "x*.txt")
    with pytest.raises(UsageError, match="named twice"):
        read_records([tmp_path / "*.txt", tmp_path / "a.txt"])
    with pytest.raises(UsageError, match="index sync INDEX"):
        read_records(tmp_path)


def test_the_command_reads_them(tmp_path, sbmini_here):
    (tmp_path / "a.csv").write_text("id;text\n1;one\n")
    (tmp_path / "b.csv").write_text("id;text\n2;two\n")
    done = sbmini_here("index", "create", "x.index", "-i", "*.csv", "--delimiter", ";")
    assert done.stderr == "sbmini: 2 rows -> x.index\n"
    done = sbmini_here("index", "update", "x.index", "-i", "*.csv", "--delimiter", ";")
    assert "0 added, 0 changed, 2 unchanged" in done.stderr
    done = sbmini_here("encode", "a", "--delimiter", ";")
    assert done.returncode == 2
    assert "--delimiter: for the rows of an --input" in done.stderr
