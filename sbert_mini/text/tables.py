"""Lines of CSV or TSV -> rows under the names of a header."""

import csv
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from sbert_mini.errors import InputError, UsageError
from sbert_mini.text.limits import most_lines
from sbert_mini.text.lines import SHOWN_CHARACTERS, Line, UnreadableError

_SHOWN_COLUMNS = 20


class TableRow(NamedTuple):
    """A row: the line that it starts on, its values, or what is wrong with it, and what can be shown of it then.

    `lines` names the lines of a row that takes several, for an error; else it is "".
    """

    line: int
    values: dict[str, Any] | None
    problem: str
    content: str
    lines: str = ""


class _Feed:
    """Feeds lines to the CSV reader, and can put the lines of a row back.

    Attributes:
        taken: the lines of the row that is being read.
        max_row_bytes: the most bytes of a row of several lines.
    """

    def __init__(self, lines: Iterator[Line], max_row_bytes: int) -> None:
        self.taken: list[Line] = []
        self._lines = lines
        self._again: deque[Line] = deque()
        self.max_row_bytes = max_row_bytes
        self._bytes = 0

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.taken.append(line)
        if len(self.taken) > 1:  # the row goes on within quotation marks
            self._bytes += len((self.taken[0].text if not self._bytes else "").encode("utf-8", "surrogatepass"))
            self._bytes += len(line.text.encode("utf-8", "surrogatepass"))
            if self._bytes > self.max_row_bytes or len(self.taken) > most_lines(self.max_row_bytes):
                raise UnreadableError
        return line.text

    def begin(self) -> None:
        """Begin a row."""
        self.taken.clear()
        self._bytes = 0

    def put_back(self, first: int) -> None:
        """Put all lines of the row back, except the first `first` ones."""
        self._again.extendleft(reversed(self.taken[first:]))
        del self.taken[first:]


def read_table(
    lines: Iterator[Line],
    name: str,
    max_row_bytes: int,
    delimiter: Literal[",", "\t"],
    missing: Callable[[Sequence[str]], str],
    stated: str | None = None,
) -> Iterator[TableRow]:
    """Yield the rows after the header. After a quotation mark that is never closed reading goes on at the next line.

    Args:
        lines: of the file.
        name: of the file, for errors.
        max_row_bytes: the most bytes of a row of several lines.
        delimiter: a comma, with quotation marks, or a tab, without. A file of the first kind whose header holds tabs and no comma
            is separated by tabs.
        missing: says what is wrong with a header's columns, or "".
        stated: another delimiter, with quotation marks, in place of these; None for none.

    Raises:
        InputError: there is no header, or it cannot be read or lacks a column.
    """
    feed = _Feed(lines, max_row_bytes)
    reader = _reader(feed, delimiter) if stated is None else _quoted(feed, stated)
    header = _header(feed, reader, name, missing)
    while True:
        feed.begin()
        row: list[str] = []
        broken = ""
        try:
            row = next(reader)
        except StopIteration:
            return
        except (csv.Error, UnreadableError) as error:
            broken = _why_broken(error, feed.taken, max_row_bytes)
        line, problem = _problem_of(feed.taken, broken)
        content = _content_of(feed.taken)
        if broken:
            feed.put_back(1)
            yield TableRow(line, None, problem, feed.taken[0].content or feed.taken[0].text)
            continue
        if not problem and len(row) != len(header):
            counted = f"{len(row):,} columns" if row else "the row is empty"
            problem = f"{counted}, and the header names {len(header):,} ({listed(header)})"
        several = len(feed.taken) > 1
        span = f"; the row takes the lines {feed.taken[0].number} to {feed.taken[-1].number}" if several else ""
        yield TableRow(line, None if problem else dict(zip(header, row, strict=True)), problem, content, span)


def check_delimiter(delimiter: str | None) -> None:
    """Refuse a delimiter that no table can have.

    Raises:
        UsageError: it is not one ASCII character, or a quotation mark or a line break.
    """
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n\0' or not delimiter.isascii()):
        raise UsageError(
            f"the delimiter must be one ASCII character, such as ';'; found {delimiter!r}", "the delimiter"
        )


def delimiter_hint(names: Sequence[str]) -> str:
    """Return what to do about a header that another delimiter divides than was looked for; "" where it looks right."""
    found = next((sign for sign in ";|" if len(names) == 1 and sign in names[0]), None)
    return "" if found is None else f"; if {found!r} divides the columns, give --delimiter {found!r}"


def _reader(feed: _Feed, delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(sys.maxsize)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    if delimiter == "," and (first := next(feed, None)) is not None:
        delimiter = "\t" if "\t" in first and "," not in first else ","
        feed.put_back(0)
    return csv.reader(feed, delimiter=delimiter, quoting=quoting, strict=True)


def _quoted(feed: _Feed, delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(sys.maxsize)
    return csv.reader(feed, delimiter=delimiter, strict=True)


def _header(feed: _Feed, reader: Iterator[list[str]], name: str, missing: Callable[[Sequence[str]], str]) -> list[str]:
    """Return the names of the columns.

    Raises:
        InputError: the header is missing, cannot be read, repeats a name or lacks a column.
    """
    feed.begin()
    header: list[str] = []
    broken = ""
    try:
        header = next(reader)
    except StopIteration:
        raise InputError(f"{name} is empty: its first line must name the columns") from None
    except (csv.Error, UnreadableError) as error:
        broken = _why_broken(error, feed.taken, feed.max_row_bytes)
    line, problem = _problem_of(feed.taken, broken)
    repeated = [column for column, count in Counter(header).items() if count > 1]
    if not problem and repeated:
        problem = f"the column {min(repeated)!r} stands twice"
    if problem := problem or missing(header):
        raise InputError(f"{name}, line {line}: {problem}")
    return header


def _problem_of(taken: Sequence[Line], broken: str) -> tuple[int, str]:
    """Return what is wrong with the lines of a row, and on which line: that of a line that cannot be read, else `broken`."""
    if not (broken and len(taken) > 1):
        for part in taken:
            if part.problem:
                return part.number, part.problem
    return taken[0].number, broken


def _content_of(taken: Sequence[Line]) -> str:
    return "".join(part.content or part.text for part in taken[:SHOWN_CHARACTERS])


def _why_broken(error: Exception, taken: Sequence[Line], max_row_bytes: int) -> str:
    """Return why the CSV reader could not read a row."""
    message = str(error)
    if isinstance(error, UnreadableError):
        most = most_lines(max_row_bytes)
        return (
            f"the row is longer than {most:,} lines, or {max_row_bytes:,} bytes, the limit of --max-row-bytes "
            "(max_row_bytes); is a quotation mark not closed?"
        )
    if "unexpected end" in message:
        end = f"the end of the file, line {taken[-1].number}"
        return f"a quotation mark is opened in this row, and not closed before {end}"
    if "expected after" in message:
        where = f" on line {taken[-1].number}" if len(taken) > 1 else ""
        return f'a quotation mark{where} ends a field, and more follows: within a field it must be doubled ("")'
    if "new-line character" in message:
        return "a carriage return stands within the row, and not in quotation marks"
    return message


def listed(names: Sequence[str]) -> str:
    """Return names for a message: the first ones, and how many more there are."""
    shown = [name if len(name) <= 100 else name[:100] + "..." for name in names[:_SHOWN_COLUMNS]]
    more = [f"and {len(names) - _SHOWN_COLUMNS:,} more"] * (len(names) > _SHOWN_COLUMNS)
    return ", ".join([*shown, *more]) or "none"
