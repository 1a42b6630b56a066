"""Lines of a pipe: those that have arrived are read without waiting for more, and as the lines of a file."""

import io
import os

import pytest

from sbert_mini.text.arrivals import Arrivals
from sbert_mini.text.limits import limited_lines, window_of


@pytest.fixture
def pipe():
    """A pipe: its lines, watched; a function that writes into it; and one that closes it."""
    read, write = os.pipe()
    arrivals = Arrivals()
    open_ends = [write]

    def close():
        while open_ends:
            os.close(open_ends.pop())

    yield arrivals, arrivals.lines(read), lambda data: os.write(write, data), close
    close()
    os.close(read)


@pytest.mark.parametrize("limit", [1, 4, 100])
def test_lines_are_those_of_a_file(pipe, limit):
    _, lines, write, close = pipe
    data = b"abc\n\nabcdefghij\r\n\xc3\xa4\n" + b"x" * 1000 + b"\nlast"
    write(data)
    close()
    assert list(limited_lines(lines, limit)) == list(limited_lines(io.BytesIO(data), limit))
    assert lines.readline() == b""


def test_bytes_are_those_of_a_file(pipe):
    _, lines, write, close = pipe
    write(b"one\ntwo\nthree")
    close()
    assert (lines.readline(), lines.read(2), lines.read()) == (b"one\n", b"tw", b"o\nthree")


def test_a_row_waits_until_its_line_is_whole_and_blank_lines_are_none(pipe):
    arrivals, lines, write, close = pipe
    assert arrivals.waits()
    write(b"a\n \n\nb")
    assert not arrivals.waits()
    assert lines.readline() == b"a\n"
    assert arrivals.waits()
    write(b"c\n")
    assert not arrivals.waits()
    assert [lines.readline() for _ in range(3)] == [b" \n", b"\n", b"bc\n"]
    assert arrivals.waits()
    close()
    assert not arrivals.waits()
    assert lines.readline() == b""


def test_a_descriptor_that_does_not_wait_is_waited_for(pipe):
    _, lines, write, close = pipe
    os.set_blocking(lines._descriptor, False)
    assert lines.is_there() is False
    write(b"a\n")
    close()
    assert [lines.readline(), lines.readline()] == [b"a\n", b""]


def test_regular_files_never_wait(tmp_path):
    arrivals = Arrivals()
    assert not arrivals.waits()
    with (tmp_path / "a.txt").open("wb+") as file:
        assert arrivals.lines(file.fileno()) is None
    assert not arrivals.waits()


def test_a_window_ends_where_the_next_item_would_be_waited_for():
    source = iter("abcdef")
    pauses = iter([False, True, True, False, False, False])
    windows = [window_of(source, 9, waits=lambda: next(pauses)) for _ in range(4)]
    assert windows == [["a", "b"], ["c"], ["d", "e", "f"], []]
