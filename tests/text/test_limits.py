"""How much of an input is in memory: a line, a row, a window."""

import gzip
import io
import tracemalloc

import pytest

from sbert_mini.text import counting
from sbert_mini.text.counting import count_rows
from sbert_mini.text.limits import WINDOW_BYTES, limited_lines, window_of


@pytest.mark.parametrize("limit", [1, 3, 4, 5, 100])
def test_a_line_is_whole_or_cut_and_the_next_one_begins_after_it(limit):
    lines = [b"abc\n", b"\n", b"abcdefghij\n", b"ab\r\n", b"abcd"]
    read = list(limited_lines(io.BytesIO(b"".join(lines)), limit))
    for (line, is_whole), expected in zip(read, lines, strict=True):
        assert is_whole == (len(expected) <= limit + 1 if expected.endswith(b"\n") else len(expected) <= limit)
        assert line == expected if is_whole else line == expected[: limit + 1]


def test_a_window_ends_with_its_rows_or_its_bytes():
    rows = ["a" * 1000, "b" * 5000, "c", "d", "e"]
    assert window_of(iter(rows), 2) == rows[:2]
    assert window_of(iter(rows), 9) == rows
    assert window_of(iter(rows), 9, 6000) == rows[:2]
    assert window_of(iter(rows), 9, 1) == rows[:1]
    assert window_of(iter(zip(rows, rows, strict=True)), 9, 2000) == [(rows[0], rows[0])]
    source = iter(rows)
    assert [window_of(source, 4), window_of(source, 4), window_of(source, 4)] == [rows[:4], rows[4:], []]
    assert len(window_of(iter(["\u4e2d" * (1 << 20)] * 50), 50)) == WINDOW_BYTES // (2 << 20)


@pytest.mark.parametrize(("name", "rows"), [("a.txt", 3), ("a.jsonl", 3), ("a.tsv", 2), ("a.csv", None)])
def test_rows_are_counted_in_bounded_memory(tmp_path, name, rows, monkeypatch):
    monkeypatch.setattr(counting, "MAX_ROW_BYTES", 1 << 20)
    with gzip.open(tmp_path / f"{name}.gz", "wb", 1) as stream:
        stream.write(b"first\n")
        for _ in range(50):
            stream.write(b"x" * (1 << 20))
        stream.write(b"\nlast\n")
    tracemalloc.start()
    try:
        assert count_rows(tmp_path / f"{name}.gz") == rows
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_a_quotation_mark_that_is_never_closed_is_not_followed_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "MAX_ROW_BYTES", 1000)
    (tmp_path / "a.csv").write_text('text\n"' + "a\n" * 1000)
    assert count_rows(tmp_path / "a.csv") is None
    (tmp_path / "b.csv").write_text("text\n" + '"a\nb"\n' * 1000)
    assert count_rows(tmp_path / "b.csv") == 1000
    (tmp_path / "c.csv").write_text("")
    assert count_rows(tmp_path / "c.csv") == 0
