"""A JSON array of rows -> the text of each, with bounded memory: only the elements' borders are looked for here."""

import codecs
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from sbert_mini.errors import InputError
from sbert_mini.text.lines import SHOWN_CHARACTERS, Line

_BLOCK_BYTES = 1 << 16
_STRUCTURE = re.compile(r'["\\\[\]{},]')
_BLANKS = " \t\r\n"


def read_array(stream: BinaryIO, name: str, max_row_bytes: int) -> Iterator[Line]:
    """Yield the elements of a JSON array, each with the line that it starts on; what is in one is not checked.

    Args:
        stream: of bytes.
        name: of the file, for errors.
        max_row_bytes: the most bytes of an element; the text of a longer one is left out.

    Raises:
        InputError: the file is no array, is not UTF-8, or cannot be read.
    """
    reader = _ArrayReader(name, max_row_bytes)
    try:
        decoder = codecs.getincrementaldecoder("utf-8-sig")()
        while data := stream.read(_BLOCK_BYTES):
            yield from reader.feed(decoder.decode(data))
        yield from reader.feed(decoder.decode(b"", final=True))
    except UnicodeDecodeError as error:
        raise InputError(f"{name}, line {reader.line}: not UTF-8 ({error.reason})") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{name} cannot be read after line {reader.line}: {error}") from error
    reader.close()


class _ArrayReader:
    """Divides the text of an array, which comes in pieces, at the commas between its elements.

    Attributes:
        line: of the text that was read last, from 1.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name, self._most = name, most
        self.line = 1
        self._depth = 0
        self._in_string = self._escaped = self._ended = self._begun = False
        self._pieces: list[str] = []
        self._bytes = 0
        self._first = 0  # the line on which the element starts
        self._elements = 0

    def feed(self, text: str) -> Iterator[Line]:
        """Yield the elements that end in the next piece of the text."""
        start = 0
        if not self._begun:
            blank = len(text) - len(text.lstrip(_BLANKS))
            self.line += text.count("\n", 0, blank)
            if blank == len(text):
                return
            if text[blank] != "[":
                raise InputError(f"{self._name}, line {self.line}: JSON must be an array of objects, [{{...}}, ...]")
            self._begun, self._depth, start = True, 1, blank + 1
        if self._escaped and text:
            self._escaped = False
            self._take(text[start : start + 1])
            start += 1
        position = start
        while match := _STRUCTURE.search(text, position):
            mark, position = match[0], match.end()
            if self._in_string:
                if mark == "\\":
                    self._escaped = position == len(text)
                    position += 1
                elif mark == '"':
                    self._in_string = False
            elif mark == '"':
                self._in_string = True
            elif mark in "[{":
                self._depth += 1
            elif mark in "]}":
                self._depth -= 1
                if self._depth == 0:
                    if mark == "}":
                        raise InputError(f"{self._name}, line {self.line}: the array ends with }}, not with ]")
                    self._take(text[start : match.start()])
                    yield from self._element(is_last=True)
                    start, self._ended = position, True
                    break
            elif mark == "," and self._depth == 1:
                self._take(text[start : match.start()])
                yield from self._element(is_last=False)
                start = position
        rest = text[start:]
        if self._ended:
            if rest.strip(_BLANKS):
                raise InputError(f"{self._name}, line {self.line}: more follows the end of the array")
            return
        self._take(rest)

    def _take(self, text: str) -> None:
        """Append to the element."""
        if self._ended:
            return
        if not self._first:
            blank = len(text) - len(text.lstrip(_BLANKS))
            if blank < len(text):
                self._first = self.line + text.count("\n", 0, blank)
        self.line += text.count("\n")
        self._bytes += len(text.encode("utf-8", "surrogatepass"))
        if self._bytes <= self._most:
            self._pieces.append(text)

    def _element(self, *, is_last: bool) -> Iterator[Line]:
        text = "".join(self._pieces).strip(_BLANKS)
        size, first = self._bytes, self._first or self.line
        self._pieces.clear()
        self._bytes = self._first = 0
        if size > self._most:
            problem = f"the row is longer than {self._most:,} bytes, the limit of --max-row-bytes (max_row_bytes)"
            yield Line(first, "", problem, text[:SHOWN_CHARACTERS])
        elif text:
            yield Line(first, text)
        elif not is_last or self._elements:
            raise InputError(f"{self._name}, line {first}: an element of the array is missing beside a comma")
        self._elements += 1

    def close(self) -> None:
        """Raise `InputError` where the array did not end."""
        if not self._ended:
            what = (
                "the array is not closed" if self._begun else "the file is empty, and JSON must be an array of objects"
            )
            raise InputError(f"{self._name}, line {self.line}: {what}")
