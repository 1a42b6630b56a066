"""Files of texts -> records: plain text, CSV, TSV and JSON lines, gzipped or not, read line by line.

Nothing is repaired or passed over in silence. Blank lines of plain text are not texts: they are counted. Everything else
that cannot be read stops with the file and line.
"""

import csv
import gzip
import hashlib
import io
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias, get_args

from sbert_mini.errors import InputError, UsageError

Format: TypeAlias = Literal["txt", "csv", "tsv", "jsonl"]
FORMATS: tuple[str, ...] = get_args(Format)
_SUFFIXES: dict[str, Format] = {
    ".txt": "txt",
    ".text": "txt",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Record:
    """One text with what stood beside it.

    Attributes:
        text: the text, not blank.
        id: the value of the id column as a string, or None where there is no such column.
        columns: the other columns, by name.
        line: the line of the file on which the record starts, from 1.
    """

    text: str
    id: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    line: int = 0

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
    raise UsageError(f"{path} has no suffix that tells its format; name it: {', '.join(FORMATS)}")


def read_records(
    path: str | Path,
    *,
    format: str | None = None,
    text_column: str | None = None,
    id_column: str | None = None,
    counts: ReadCounts | None = None,
) -> Iterator[Record]:
    """Yield the records of a file, in order.

    Plain text: one text a line. CSV and TSV: a header line, then rows (CSV quoting in CSV, none in TSV). JSON lines: one
    object a line.

    Args:
        path: the file, or `-` for standard input.
        format: `txt`, `csv`, `tsv` or `jsonl`; None to tell by the suffix.
        text_column: the column that holds the text; None for `text`.
        id_column: the column that holds the id; None for `id` where there is one.
        counts: filled in, if given.

    Raises:
        UsageError: the format is unknown, or plain text is asked for a column.
        InputError: the file or a line cannot be read; the text says which line.
    """
    kind = format_of(path, format)
    if kind == "txt" and (text_column or id_column):
        raise UsageError(f"{path} is plain text, which has no columns: text and id columns are for csv, tsv and jsonl")
    counts = counts if counts is not None else ReadCounts()
    name = "standard input" if str(path) == STANDARD_INPUT else str(path)
    with _open(path) as stream:
        lines = _lines(stream, name)
        reader = {
            "txt": _plain(lines, counts),
            "csv": _table(lines, name, text_column, id_column, ","),
            "tsv": _table(lines, name, text_column, id_column, "\t"),
            "jsonl": _json_lines(lines, name, text_column, id_column),
        }[kind]
        for record in reader:
            if not record.text.strip():
                raise InputError(f"{name}, line {record.line}: the text is empty")
            counts.records += 1
            yield record


def _open(path: str | Path) -> BinaryIO:
    if str(path) == STANDARD_INPUT:
        return io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False))
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a directory; name a file")
    try:
        return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror or error}") from error


def _lines(stream: BinaryIO, name: str) -> Iterator[str]:
    number = 0
    try:
        for number, line in enumerate(stream, start=1):
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}, line {number}: not UTF-8 (byte 0x{error.object[error.start]:02x} at position {error.start + 1})"
        ) from error
    except (OSError, EOFError) as error:
        raise InputError(f"{name} cannot be read after line {number}: {error}") from error


def _plain(lines: Iterator[str], counts: ReadCounts) -> Iterator[Record]:
    for number, line in enumerate(lines, start=1):
        text = line.rstrip("\r\n")
        if text.strip():
            yield Record(text=text, line=number)
        else:
            counts.blank += 1


def _table(
    lines: Iterator[str], name: str, text_column: str | None, id_column: str | None, delimiter: str
) -> Iterator[Record]:
    csv.field_size_limit(sys.maxsize)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise InputError(f"{name} is empty: its first line must name the columns")
        repeated = {column for column in header if header.count(column) > 1}
        if repeated:
            raise InputError(f"{name}, line 1: the column {min(repeated)!r} stands twice")
        text_column, id_column = _columns(header, text_column, id_column, f"{name}, line 1")
        start = reader.line_num + 1
        for row in reader:
            line, start = start, reader.line_num + 1
            if not row:
                raise InputError(f"{name}, line {line}: the row is empty, and the header names {len(header)} columns")
            if len(row) != len(header):
                raise InputError(
                    f"{name}, line {line}: {len(row)} columns, and the header names {len(header)} ({', '.join(header)})"
                )
            yield _record(dict(zip(header, row, strict=True)), text_column, id_column, line)
    except csv.Error as error:
        raise InputError(f"{name}, line {reader.line_num}: {error}") from error


def _json_lines(lines: Iterator[str], name: str, text_column: str | None, id_column: str | None) -> Iterator[Record]:
    for number, line in enumerate(lines, start=1):
        where = f"{name}, line {number}"
        if not line.strip():
            raise InputError(f"{where}: the line is blank, and must hold a JSON object")
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise InputError(f"{where}: a JSON object is required, and this is a {type(row).__name__}")
        text, identity = _columns(list(row), text_column, id_column, where)
        if not isinstance(row[text], str):
            raise InputError(f"{where}: {text!r} must be a string, and is a {type(row[text]).__name__}")
        yield _record(row, text, identity, number)


def _columns(names: list[str], text_column: str | None, id_column: str | None, where: str) -> tuple[str, str | None]:
    text = text_column or "text"
    for column in (text, id_column):
        if column is not None and column not in names:
            option = "text" if column == text else "id"
            raise InputError(f"{where}: no column {column!r} for the {option}; there are: {', '.join(names) or 'none'}")
    return text, id_column or ("id" if "id" in names and text != "id" else None)


def _record(row: dict[str, Any], text_column: str, id_column: str | None, line: int) -> Record:
    identity = str(row[id_column]) if id_column is not None else None
    columns = {name: value for name, value in row.items() if name not in (text_column, id_column)}
    return Record(text=row[text_column], id=identity, columns=columns, line=line)
