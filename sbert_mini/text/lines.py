"""Bytes -> lines of text, each checked by itself, with bounded memory."""

import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from sbert_mini.errors import InputError
from sbert_mini.text.limits import limited_lines

SHOWN_CHARACTERS = 1000
"""The most characters of a row that an error or a reject shows."""
_BYTE_ORDER_MARK = "\ufeff"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class UnreadableError(Exception):
    """A row that cannot be read; the text says why."""


class Line(NamedTuple):
    """A line: its number from 1, its text with its end, what is wrong with it or "", and what can be shown of it then."""

    number: int
    text: str
    problem: str = ""
    content: str = ""


def read_lines(stream: BinaryIO, name: str, max_row_bytes: int, *, by_itself: bool) -> Iterator[Line]:
    """Yield the lines; the text of one that is too long is a mere line end.

    Args:
        stream: of bytes.
        name: of the file, for errors.
        max_row_bytes: the most bytes of a line.
        by_itself: whether a line means the same wherever it stands, so that a byte order mark may precede it.

    Raises:
        InputError: the file is UTF-16, or cannot be read.
    """
    number = 0
    try:
        for line, is_whole in limited_lines(stream, max_row_bytes):
            number += 1
            if number == 1 and line.startswith(_UTF16_MARKS):
                raise InputError(
                    f"{name}, line 1: the file is UTF-16, and text must be UTF-8: convert it with 'iconv -f UTF-16 -t UTF-8'"
                )
            if not is_whole:
                problem = (
                    f"the line is longer than {max_row_bytes:,} bytes, the limit of --max-row-bytes (max_row_bytes)"
                )
                yield Line(number, "\n", problem, line[: 4 * SHOWN_CHARACTERS].decode("utf-8", "replace"))
                continue
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                text = line.decode("utf-8", "backslashreplace")
                problem = f"not UTF-8 (byte 0x{line[error.start]:02x} at position {error.start + 1})"
                yield Line(number, text, problem, text)
                continue
            if b"\0" in line:
                problem = f"a NUL byte (0x00) at position {line.index(0) + 1}, and text has none: is the file UTF-16?"
                yield Line(number, text, problem, text)
                continue
            if text.startswith(_BYTE_ORDER_MARK):
                if number > 1 and not by_itself:
                    problem = (
                        "the line begins with a byte order mark: was the file joined from several? Name each with -i"
                    )
                    yield Line(number, text, problem, text)
                    continue
                text = text.lstrip(_BYTE_ORDER_MARK)
                if not text:
                    continue
            yield Line(number, text)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{name} cannot be read after line {number}: {error}") from error
