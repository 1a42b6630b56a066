"""Files of texts -> records: plain text, CSV, TSV, JSON lines (each gzipped or not) and Parquet, read piece by piece.

Nothing is repaired or passed over in silence. Blank lines of plain text are not texts: they are counted. Any other row that
cannot be read stops with its file and line, or, where the caller takes rejects, is handed over as one. Memory is bounded by
`max_row_bytes`, whatever the file holds.
"""

import csv
import glob
import gzip
import hashlib
import io
import json
import math
import os
import re
import sys
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, NoReturn, TypeAlias, get_args

from sbert_mini.errors import InputError, UsageError
from sbert_mini.files.paths import expanded
from sbert_mini.text.parquet import read_rows

Format: TypeAlias = Literal["txt", "csv", "tsv", "jsonl", "parquet"]
FORMATS: tuple[str, ...] = get_args(Format)
_SUFFIXES: dict[str, Format] = {
    ".txt": "txt",
    ".text": "txt",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
STANDARD_INPUT = "-"
MAX_ROW_BYTES = 64 * 2**20
"""The most bytes of a line, or of a row of several lines, that are read where no other number is given."""
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_BYTE_ORDER_MARK = "\ufeff"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_SHOWN_CHARACTERS = 1000
_SHOWN_COLUMNS = 20
_MAX_NESTING = 100
_MAX_DIGITS = 308
_MAX_WHOLE_FLOAT = 2**53
_SKIPPED_BYTES = 1 << 20


@dataclass(frozen=True)
class Record:
    """One text with what stood beside it.

    Attributes:
        text: the text, not blank.
        id: the value of the id column as a string, or None where there is no such column.
        columns: the other columns, by name; where the text was joined from several columns, those too.
        line: the line of the file on which the record starts, from 1.
        typed: whether the columns' values have the types of their source (JSON, Parquet, Python); False where all are text
            (CSV, TSV), so that an index infers a column's type from its values.
        file: the file that it was read from, or "" where there is none.
        row: the whole row as it was read, or None where there are no columns.
        id_value: the id as it was read, of the type that its source has.
    """

    text: str
    id: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    line: int = 0
    typed: bool = True
    file: str = field(default="", compare=False)
    row: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    id_value: Any = field(default=None, compare=False, repr=False)

    @property
    def place(self) -> str:
        """Where the record stands, for messages: `a.csv, line 3`."""
        unit = "row" if self.file.endswith(".parquet") else "line"
        return f"{self.file}, {unit} {self.line}" if self.file else f"{unit} {self.line}"

    def content_id(self) -> str:
        """Return an id made of the record's text and columns: 20 hexadecimal digits of a blake2b digest."""
        content = json.dumps([self.text, dict(self.columns)], sort_keys=True, ensure_ascii=False)
        return hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()


@dataclass
class ReadCounts:
    """What reading met, filled in as it goes.

    Attributes:
        records: records read.
        blank: blank lines of plain text, passed over.
    """

    records: int = 0
    blank: int = 0


@dataclass(frozen=True)
class Reject:
    """A row that could not be read.

    Attributes:
        line: the line of the file on which it starts, from 1 (for Parquet the row).
        error: why.
        content: what stands there, as far as it can be shown; at most 1,000 characters.
        file: the file.
    """

    line: int
    error: str
    content: str
    file: str = ""


@dataclass(frozen=True)
class _Source:
    """The file that is read, and what becomes of a row that cannot be."""

    name: str
    unit: str
    max_row_bytes: int
    on_reject: Callable[[Reject], None] | None

    def reject(self, line: int, error: str, content: str = "") -> None:
        """Hand the row over as a reject, or raise."""
        if self.on_reject is None:
            self.fail(line, error)
        self.on_reject(Reject(line, error, content[:_SHOWN_CHARACTERS], self.name))

    def fail(self, line: int, error: str) -> NoReturn:
        """Raise for what makes the whole file unreadable."""
        raise InputError(f"{self.name}, {self.unit} {line}: {error}")

    def too_long(self, what: str) -> str:
        return f"the {what} is longer than {self.max_row_bytes:,} bytes, the limit of --max-row-bytes (max_row_bytes)"


@dataclass(frozen=True)
class _Columns:
    """Which columns hold the text and the id."""

    texts: tuple[str, ...]
    separator: str
    id: str | None

    @classmethod
    def named(cls, text: str | Sequence[str] | None, separator: str, identity: str | None) -> "_Columns":
        texts = (text,) if isinstance(text, str) else tuple(text or ("text",))
        repeated = [name for name, count in Counter(texts).items() if count > 1]
        if repeated:
            raise UsageError(f"the text column {repeated[0]!r} is named twice")
        return cls(texts, separator, identity)

    def missing(self, names: Iterable[str]) -> str:
        """Return what is wrong with columns of these names, or ""."""
        held = names if isinstance(names, dict) else dict.fromkeys(names)
        for option, columns in (("text", self.texts), ("id", (self.id,) if self.id is not None else ())):
            for column in columns:
                if column not in held:
                    return f"no column {column!r} for the {option}; there are: {_listed(list(held))}"
        return ""

    def record(self, row: dict[str, Any], line: int, file: str, *, typed: bool = True) -> Record:
        """Return a row's record.

        Raises:
            _UnreadableError: the text or the id is not what it must be.
        """
        for name in self.texts:
            value = row[name]
            if not isinstance(value, str) and not (value is None and len(self.texts) > 1):
                raise _UnreadableError(f"{name!r} must be a string, and is a {type(value).__name__}")
        name_of_id = self.id
        if name_of_id is None:
            name_of_id = next((name for name in ("id", "_id") if name in row and name not in self.texts), None)
        identity = None if name_of_id is None else _identity(row[name_of_id])
        dropped: set[str | None]
        if len(self.texts) == 1:
            text = row[self.texts[0]]
            dropped = {self.texts[0], name_of_id}
        else:
            text = self.separator.join(row[name] for name in self.texts if row[name] is not None and row[name].strip())
            dropped = {name_of_id} - set(self.texts)
        if not text.strip():
            raise _UnreadableError("the text is empty")
        columns = {name: value for name, value in row.items() if name not in dropped}
        id_value = None if name_of_id is None else row[name_of_id]
        return Record(text, identity, columns, line, typed, file, row, id_value)


class _UnreadableError(Exception):
    """A row that cannot be read; the text says why."""


def files_at(place: str | Path) -> list[Path]:
    """Return the files that a path stands for, sorted: itself, those of a folder that can be read, or those of a pattern.

    Raises:
        InputError: there is none.
    """
    path = expanded(place)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [file for file in path.rglob("*") if file.is_file() and _is_readable(file)]
    else:
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207  # patterns may be absolute
    if not found:
        raise InputError(f"{place} is no file, holds none of a known kind, and matches none")
    return sorted(found)


def _is_readable(file: Path) -> bool:
    try:
        format_of(file)
    except UsageError:
        return False
    return True


def format_of(path: str | Path, named: str | None = None) -> Format:
    """Return the format of a file: the one named, else by its suffix (before `.gz`); standard input is plain text.

    Raises:
        UsageError: the name or the suffix is unknown.
    """
    if named is not None:
        if named not in FORMATS:
            raise UsageError(f"the format must be one of {', '.join(FORMATS)}; found {named!r}")
        return named  # type: ignore[return-value]
    if str(path) == STANDARD_INPUT:
        return "txt"
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    if suffixes and suffixes[-1] in _SUFFIXES:
        return _SUFFIXES[suffixes[-1]]
    raise UsageError(
        f"{path} has no suffix that tells its format ({', '.join(_SUFFIXES)}; each but the last also with .gz): name the format "
        f"with --input-format (format), one of {', '.join(FORMATS)}"
    )


def inputs(paths: str | Path | Sequence[str | Path], format: str | None = None) -> list[tuple[Path, Format]]:
    """Return the files of an input with their formats, each of which can be opened, as far as that is known beforehand.

    Args:
        paths: a file or several, in order; `-` for standard input.
        format: that of all of them; None to tell each by its suffix.

    Raises:
        UsageError: none is named, one is named twice or a directory, or a format is unknown.
        InputError: one is absent.
    """
    places = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    if not places:
        raise UsageError("no input file is named")
    taken: dict[tuple[int, int], Path] = {}
    files: list[tuple[Path, Format]] = []
    for path in places:
        try:
            status = os.fstat(_standard_input()) if str(path) == STANDARD_INPUT else path.stat()
        except UsageError:
            raise
        except OSError as error:
            raise InputError(f"{path} cannot be opened: {error.strerror or error}") from error
        except ValueError as error:  # a NUL character in the name
            raise InputError(f"{str(path)!r} cannot be opened: {error}") from error
        if path.is_dir() and str(path) != STANDARD_INPUT:
            raise UsageError(
                f"{path} is a directory, and directories are not read: name its files, each with --input (-i)"
            )
        other = taken.setdefault((status.st_dev, status.st_ino), path)
        if other is not path:
            names = f"{path} is named twice" if str(other) == str(path) else f"{other} and {path} are one file"
            raise UsageError(f"{names}: an input reads each file once")
        files.append((path, format_of(path, format)))
    return files


def read_records(
    paths: str | Path | Sequence[str | Path],
    *,
    format: str | None = None,
    text_column: str | Sequence[str] | None = None,
    text_separator: str = " ",
    id_column: str | None = None,
    max_row_bytes: int = MAX_ROW_BYTES,
    counts: ReadCounts | None = None,
    on_reject: Callable[[Reject], None] | None = None,
) -> Iterator[Record]:
    """Yield the records of a file, or of several one after the other, in order.

    Plain text: one text a line. CSV and TSV: a header line, then rows (CSV quoting in CSV, none in TSV; a CSV whose header
    holds tabs and no comma is separated by tabs). JSON lines: one object a line. Parquet: a table.

    Text is UTF-8. A byte order mark is left out where a file, or a line of plain text or JSON, begins with one. After a
    quotation mark that is never closed reading is taken up again at the next line.

    Args:
        paths: the file or the files, or `-` for standard input. Each is read by its own suffix, or all by `format`.
        format: `txt`, `csv`, `tsv`, `jsonl` or `parquet`; None to tell by the suffix.
        text_column: the column that holds the text; None for `text`. Of several the texts are joined; what is empty or null is
            left out of that, and the columns stay among the record's columns.
        text_separator: stands between joined texts.
        id_column: the column that holds the id; None for `id`, or else `_id`, where there is one.
        max_row_bytes: the most bytes of a line, or of a row of several lines; a longer one is not read.
        counts: filled in, if given.
        on_reject: takes each row that cannot be read; None for an error at the first. A file that cannot be read at all
            (absent, damaged, without the text column) is an error in any case.

    Raises:
        UsageError: a format is unknown, a file is named twice, or plain text is asked for a column.
        InputError: a file or a row cannot be read; the text says which line.
        MissingExtraError: a file is Parquet, and pyarrow is not installed.
    """
    files = inputs(paths, format)
    plain = next((path for path, kind in files if kind == "txt"), None)
    if plain is not None and (text_column or id_column):
        raise UsageError(
            f"{'standard input' if str(plain) == STANDARD_INPUT else plain} is plain text, which has no columns: text and id "
            "columns are for tables and JSON lines"
        )
    if max_row_bytes < 1:
        raise UsageError(f"max_row_bytes must be at least 1; found {max_row_bytes}")
    max_row_bytes = min(max_row_bytes, sys.maxsize - 1)
    columns = _Columns.named(text_column, text_separator, id_column)
    counts = counts if counts is not None else ReadCounts()
    return _records(files, columns, max_row_bytes, counts, on_reject)


def _records(
    files: Sequence[tuple[Path, Format]],
    columns: _Columns,
    max_row_bytes: int,
    counts: ReadCounts,
    on_reject: Callable[[Reject], None] | None,
) -> Iterator[Record]:
    for path, kind in files:
        name = "standard input" if str(path) == STANDARD_INPUT else str(path)
        source = _Source(name, "row" if kind == "parquet" else "line", max_row_bytes, on_reject)
        rows = (
            _parquet(path, source, columns) if kind == "parquet" else _text_records(path, kind, source, columns, counts)
        )
        for record in rows:
            counts.records += 1
            yield record


def _text_records(path: Path, kind: Format, source: _Source, columns: _Columns, counts: ReadCounts) -> Iterator[Record]:
    with _open(path) as stream:
        lines = _lines(stream, source, by_itself=kind in ("txt", "jsonl"))
        if kind == "txt":
            yield from _plain(lines, source, counts)
        elif kind == "jsonl":
            yield from _json_lines(lines, source, columns)
        else:
            yield from _table(lines, source, columns, "," if kind == "csv" else "\t")


def _standard_input() -> int:
    """Return the number of the standard input.

    Raises:
        UsageError: it is closed.
    """
    try:
        return sys.stdin.fileno()
    except (AttributeError, ValueError):
        raise UsageError("standard input is closed: name a file with --input (-i), or pipe the rows in") from None


def _open(path: Path) -> BinaryIO:
    if str(path) == STANDARD_INPUT:
        return io.BufferedReader(io.FileIO(_standard_input(), closefd=False))
    try:
        if path.suffix.lower() == ".gz":
            return io.BufferedReader(gzip.open(path, "rb"))
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror or error}") from error


class _Line(NamedTuple):
    """A line: its number from 1, its text with its end, what is wrong with it or "", and what can be shown of it then."""

    number: int
    text: str
    problem: str = ""
    content: str = ""


def _lines(stream: BinaryIO, source: _Source, *, by_itself: bool) -> Iterator[_Line]:
    """Yield the lines; the text of one that is too long is a mere line end.

    Args:
        stream: of bytes.
        source: the file.
        by_itself: whether a line means the same wherever it stands, so that a byte order mark may precede it.
    """
    number, limit = 0, source.max_row_bytes
    try:
        while line := stream.readline(limit + 1):
            number += 1
            if number == 1 and line.startswith(_UTF16_MARKS):
                source.fail(1, "the file is UTF-16, and text must be UTF-8: convert it with 'iconv -f UTF-16 -t UTF-8'")
            if len(line) > limit and not line.endswith(b"\n"):
                yield _Line(
                    number, "\n", source.too_long("line"), line[: 4 * _SHOWN_CHARACTERS].decode("utf-8", "replace")
                )
                while line and not line.endswith(b"\n"):
                    line = stream.readline(_SKIPPED_BYTES)
                continue
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                text = line.decode("utf-8", "backslashreplace")
                problem = f"not UTF-8 (byte 0x{line[error.start]:02x} at position {error.start + 1})"
                yield _Line(number, text, problem, text)
                continue
            if b"\0" in line:
                problem = f"a NUL byte (0x00) at position {line.index(0) + 1}, and text has none: is the file UTF-16?"
                yield _Line(number, text, problem, text)
                continue
            if text.startswith(_BYTE_ORDER_MARK):
                if number > 1 and not by_itself:
                    problem = (
                        "the line begins with a byte order mark: was the file joined from several? Name each with -i"
                    )
                    yield _Line(number, text, problem, text)
                    continue
                text = text.lstrip(_BYTE_ORDER_MARK)
                if not text:
                    continue
            yield _Line(number, text)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{source.name} cannot be read after line {number}: {error}") from error


def _plain(lines: Iterator[_Line], source: _Source, counts: ReadCounts) -> Iterator[Record]:
    for number, line, problem, content in lines:
        if problem:
            source.reject(number, problem, content)
            continue
        text = line.rstrip("\r\n")
        if text.strip():
            yield Record(text, None, {}, number, True, source.name)
        else:
            counts.blank += 1


class _Feed:
    """Lines for the CSV reader, those of one row after the other; lines of a row can be put back.

    Attributes:
        taken: the lines of the row that is being read.
    """

    def __init__(self, lines: Iterator[_Line], max_row_bytes: int) -> None:
        self.taken: list[_Line] = []
        self._lines = lines
        self._again: deque[_Line] = deque()
        self._max_row_bytes = max_row_bytes
        self._bytes = 0

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.taken.append(line)
        if len(self.taken) > 1:  # the row goes on within quotation marks
            self._bytes += len((self.taken[0].text if not self._bytes else "").encode("utf-8", "surrogatepass"))
            self._bytes += len(line.text.encode("utf-8", "surrogatepass"))
            if self._bytes > self._max_row_bytes or len(self.taken) > _max_lines(self._max_row_bytes):
                raise _UnreadableError
        return line.text

    def begin(self) -> None:
        """Begin a row."""
        self.taken.clear()
        self._bytes = 0

    def put_back(self, kept: int) -> None:
        """Let all lines but the first `kept` be read again."""
        self._again.extendleft(reversed(self.taken[kept:]))
        del self.taken[kept:]


def _max_lines(max_row_bytes: int) -> int:
    """Return how many lines a row may take: each costs memory of its own, however short it is."""
    return max(1000, max_row_bytes // 64)


def _table(lines: Iterator[_Line], source: _Source, columns: _Columns, delimiter: str) -> Iterator[Record]:
    csv.field_size_limit(sys.maxsize)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    feed = _Feed(lines, source.max_row_bytes)
    if delimiter == "," and (first := next(feed, None)) is not None:
        delimiter = "\t" if "\t" in first and "," not in first else ","
        feed.put_back(0)
    reader = csv.reader(feed, delimiter=delimiter, quoting=quoting, strict=True)
    header: list[str] | None = None
    while True:
        feed.begin()
        problem, broken, row = "", False, []
        try:
            row = next(reader)
        except StopIteration:
            break
        except (csv.Error, _UnreadableError) as error:
            problem, broken = _why_broken(error, feed.taken, source), True
        line, taken = feed.taken[0].number, len(feed.taken)
        content = "".join(part.content or part.text for part in feed.taken[:_SHOWN_CHARACTERS])
        for part in feed.taken:
            if part.problem and not (broken and taken > 1):
                problem, line = part.problem, part.number
                break
        if header is None:
            if problem:
                source.fail(line, problem)
            header = row
            repeated = [name for name, count in Counter(header).items() if count > 1]
            if repeated:
                source.fail(line, f"the column {min(repeated)!r} stands twice")
            if missing := columns.missing(header):
                source.fail(line, missing)
            continue
        if not problem and len(row) != len(header):
            found = f"{len(row):,} columns" if row else "the row is empty"
            problem = f"{found}, and the header names {len(header):,} ({_listed(header)})"
        if not problem:
            try:
                record = columns.record(dict(zip(header, row, strict=True)), line, source.name, typed=False)
            except _UnreadableError as error:
                problem = str(error)
            else:
                yield record
                continue
        if broken:
            feed.put_back(1)
            content = feed.taken[0].content or feed.taken[0].text
        elif taken > 1:
            problem += f"; the row takes the lines {feed.taken[0].number} to {feed.taken[-1].number}"
        source.reject(line, problem, content)
    if header is None:
        raise InputError(f"{source.name} is empty: its first line must name the columns")


def _why_broken(error: Exception, taken: Sequence[_Line], source: _Source) -> str:
    """Return why the CSV reader could not read a row."""
    said = str(error)
    if isinstance(error, _UnreadableError):
        lines = _max_lines(source.max_row_bytes)
        return (
            f"the row is longer than {lines:,} lines, or {source.max_row_bytes:,} bytes, the limit of --max-row-bytes "
            "(max_row_bytes); is a quotation mark not closed?"
        )
    if "unexpected end" in said:
        end = f"the end of the file, line {taken[-1].number}"
        return f"a quotation mark is opened in this row, and not closed before {end}"
    if "expected after" in said:
        where = f" on line {taken[-1].number}" if len(taken) > 1 else ""
        return f'a quotation mark{where} ends a field, and more follows: within a field it must be doubled ("")'
    if "new-line character" in said:
        return "a carriage return stands within the row, and not in quotation marks"
    return said


def _json_lines(lines: Iterator[_Line], source: _Source, columns: _Columns) -> Iterator[Record]:
    for number, line, problem, content in lines:
        try:
            if problem:
                raise _UnreadableError(problem)
            row = _json_object(line)
            if missing := columns.missing(row):
                raise _UnreadableError(missing)
            record = columns.record(row, number, source.name)
        except _UnreadableError as error:
            source.reject(number, str(error), content or line)
        else:
            yield record


def _json_object(line: str) -> dict[str, Any]:
    """Return the JSON object of a line.

    Raises:
        _UnreadableError: there is none, or it holds what cannot be stored.
    """
    if not line.strip():
        raise _UnreadableError("the line is blank, and must hold a JSON object")
    try:
        row = _DECODER.decode(line)
    except (ValueError, RecursionError) as error:
        raise _UnreadableError(f"not JSON ({error})") from error
    if not isinstance(row, dict):
        raise _UnreadableError(f"a JSON object is required, and this is a {type(row).__name__}")
    if wrong := _wrong_values(row, line):
        raise _UnreadableError(wrong)
    return row


def _wrong_values(row: dict[str, Any], line: str) -> str:
    """Return what JSON allows in a row and cannot be stored, or ""."""
    if any(isinstance(value, (dict, list)) for value in row.values()):
        level: list[Any] = [row]
        for _ in range(_MAX_NESTING):
            level = [
                inner
                for outer in level
                for inner in (outer.values() if isinstance(outer, dict) else outer)
                if isinstance(inner, (dict, list))
            ]
            if not level:
                break
        else:
            return f"values are nested more than {_MAX_NESTING} deep"
    if "\\u" in line and _HALF_CHARACTER.search(json.dumps(row, ensure_ascii=False)):
        return "not valid Unicode: a character is cut in half"
    return ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        repeated = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {repeated!r} stands twice in one object")
    return made


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{_start(digits)} is greater than any number here")
    return value


def _whole(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits ({_start(digits)}) is greater than any number here")
    return int(digits)


def _start(digits: str) -> str:
    return digits if len(digits) <= 20 else digits[:20] + "..."


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole
)


def _parquet(path: Path, source: _Source, columns: _Columns) -> Iterator[Record]:
    if str(path) == STANDARD_INPUT:
        raise UsageError("Parquet cannot be read from standard input: name the file")

    def check(names: Sequence[str], other_types: Mapping[str, str]) -> None:
        if missing := columns.missing(names):
            raise InputError(f"{path}: {missing}")
        if wrong := [name for name in columns.texts if name in other_types]:
            raise InputError(
                f"{path}: the column {wrong[0]!r} must hold strings, and is of the type {other_types[wrong[0]]}"
            )

    for number, row, why in read_rows(path, source.max_row_bytes, check):
        problem, content = why, ""
        if row is not None:
            try:
                record = columns.record(row, number, source.name)
            except _UnreadableError as error:
                problem, content = str(error), str({name: row[name] for name in columns.texts})
            else:
                yield record
                continue
        source.reject(number, problem, content)


def _identity(value: Any) -> str | None:
    """Return an id as text, or None where there is none.

    Raises:
        _UnreadableError: it is neither text nor a whole number.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < _MAX_WHOLE_FLOAT:
        return str(int(value))  # whole numbers with a gap are stored as floats by pandas
    shown = json.dumps(value, ensure_ascii=False)
    raise _UnreadableError(f"the id must be text or a whole number, and is {shown[:_SHOWN_CHARACTERS]}")


def _listed(names: Sequence[str]) -> str:
    """Return names for a message: the first ones, and how many more there are."""
    shown = [name if len(name) <= 100 else name[:100] + "..." for name in names[:_SHOWN_COLUMNS]]
    more = [f"and {len(names) - _SHOWN_COLUMNS:,} more"] * (len(names) > _SHOWN_COLUMNS)
    return ", ".join([*shown, *more]) or "none"
