"""Places of passages, against the bytes and lines of the files."""

from pathlib import Path

import pytest
from documents.made import text_pdf
from hypothesis import given
from hypothesis import strategies as st

from sbert_mini.documents.places import Place, place_in_row
from sbert_mini.documents.reader import DocumentReader
from sbert_mini.documents.selection import Folder, FolderFile


def row_of(folder: Path, name: str, data: bytes, encoding=None):
    (folder / name).write_bytes(data)
    with DocumentReader(encoding) as reader:
        (record,) = reader.read(Folder(folder, "notes"), FolderFile(name, len(data), 0)).records
    return record


@pytest.mark.parametrize(
    ("encoding", "stated"),
    [("utf-8", None), ("utf-8-sig", None), ("utf-16", None), ("utf-32", None), ("cp1252", "cp1252")],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@given(st.data())
def test_bytes_and_lines_are_those_of_the_file(tmp_path_factory, encoding, stated, end, data):
    alphabet = "ab \nä" if encoding == "cp1252" else "ab \nä日😀"
    text = "ä" + data.draw(st.text(alphabet, max_size=60)).replace("\n", end) + "b"
    raw = text.encode(encoding)
    record = row_of(tmp_path_factory.mktemp("f"), "a.txt", raw, stated)
    assert record.text == text
    start = data.draw(st.integers(0, len(text) - 1))
    stop = data.draw(st.integers(start + 1, len(text)))
    place = place_in_row(record.text, record.columns, start, stop)
    shown = text[start:stop].rstrip()
    taken = raw[place.first_byte : place.end_byte]
    plain = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(encoding, encoding)
    assert taken.decode(plain) == shown
    lines = text.split("\n")
    assert shown == "" or shown.split("\n")[0] in lines[place.first_line - 1]
    assert place.last_line - place.first_line == shown.count("\n")


def test_headings_of_a_place(tmp_path):
    record = row_of(tmp_path, "a.md", b"# A\n\n## B\n\ntext\n")
    start = record.text.index("text")
    assert place_in_row(record.text, record.columns, start, start + 4) == Place("a.md", ("A", "B"), 5, 5, 11, 15)


def test_html_has_lines_and_pdf_pages(tmp_path):
    record = row_of(tmp_path, "a.html", b"<h1>A</h1>\n\n<p>one</p>\n<p>two\nlines</p>\n")
    start = record.text.index("one")
    assert place_in_row(record.text, record.columns, start, start + 3) == Place("a.html", ("A",), 3, 3)
    assert place_in_row(record.text, record.columns, 0, len(record.text)) == Place("a.html", ("A",), 1, 4)
    record = row_of(tmp_path, "a.pdf", text_pdf(["first page", "second page"]))
    start = record.text.index("second")
    assert place_in_row(record.text, record.columns, start, len(record.text)) == Place("a.pdf", page=2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9), lambda inner: st.lists(inner, max_size=3)
)


@given(
    st.dictionaries(
        st.sampled_from(["synced_from", "file_path", "file_format", "file_encoding", "file_line", "file_places"]),
        JSON
        | st.sampled_from(["html", "pdf", "code", "utf-16", "hex", "a.py"])
        | st.dictionaries(st.just("page"), JSON),
    ),
    st.text(max_size=20),
)
def test_columns_that_anybody_wrote_give_a_place_or_none(columns, text):
    place = place_in_row(text, columns, 0, len(text))
    assert place is None or place.path == columns["file_path"]
