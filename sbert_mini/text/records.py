"""Files of texts -> records: plain text, CSV, TSV, JSON lines (each gzipped or not) and Parquet, read piece by piece.

Nothing is repaired or passed over in silence. Blank lines of plain text are not texts: they are counted. Any other row that
cannot be read stops with its file and line, or, where the caller takes rejects, is handed over as one.
"""

import csv
import glob
import gzip
import hashlib
import io
import itertools
import json
import math
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias, get_args

from sbert_mini.errors import InputError, MissingExtraError, UsageError

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
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Record:
    """One text with what stood beside it.

    Attributes:
        text: the text, not blank.
        id: the value of the id column as a string, or None where there is no such column.
        columns: the other columns, by name.
        line: the line of the file on which the record starts, from 1.
        typed: whether the columns' values have the types of their source (JSON, Parquet, Python); False where all are text
            (CSV, TSV), so that an index infers a column's type from its values.
    """

    text: str
    id: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    line: int = 0
    typed: bool = True

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
    """

    line: int
    error: str
    content: str


@dataclass(frozen=True)
class _Source:
    """The file that is read, and what becomes of a row that cannot be."""

    name: str
    on_reject: Callable[[Reject], None] | None

    def reject(self, line: int, error: str, content: str = "") -> None:
        """Hand the row over as a reject, or raise."""
        if self.on_reject is None:
            unit = "row" if self.name.endswith(".parquet") else "line"
            raise InputError(f"{self.name}, {unit} {line}: {error}")
        self.on_reject(Reject(line, error, content[:1000]))


def files_at(place: str | Path) -> list[Path]:
    """Return the files that a path stands for, sorted: itself, those of a folder that can be read, or those of a pattern.

    Raises:
        InputError: there is none.
    """
    path = Path(place).expanduser()
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
    raise UsageError(f"{path} has no suffix that tells its format; name it: {', '.join(FORMATS)}")


def read_records(
    path: str | Path,
    *,
    format: str | None = None,
    text_column: str | None = None,
    id_column: str | None = None,
    counts: ReadCounts | None = None,
    on_reject: Callable[[Reject], None] | None = None,
) -> Iterator[Record]:
    """Yield the records of a file, in order.

    Plain text: one text a line. CSV and TSV: a header line, then rows (CSV quoting in CSV, none in TSV; a CSV whose header
    holds tabs and no comma is separated by tabs). JSON lines: one
    object a line. Parquet: a table.

    Args:
        path: the file, or `-` for standard input.
        format: `txt`, `csv`, `tsv`, `jsonl` or `parquet`; None to tell by the suffix.
        text_column: the column that holds the text; None for `text`.
        id_column: the column that holds the id; None for `id` where there is one.
        counts: filled in, if given.
        on_reject: takes each row that cannot be read; None for an error at the first. A file that cannot be read at all
            (absent, damaged, without the text column) is an error in any case.

    Raises:
        UsageError: the format is unknown, or plain text is asked for a column.
        InputError: the file or a row cannot be read; the text says which line.
        MissingExtraError: the file is Parquet, and pyarrow is not installed.
    """
    kind = format_of(path, format)
    if kind == "txt" and (text_column or id_column):
        raise UsageError(
            f"{path} is plain text, which has no columns: text and id columns are for tables and JSON lines"
        )
    counts = counts if counts is not None else ReadCounts()
    source = _Source("standard input" if str(path) == STANDARD_INPUT else str(path), on_reject)
    if kind == "parquet":
        records = _parquet(Path(path), source, text_column, id_column)
    else:
        records = _text_records(path, kind, source, text_column, id_column, counts)
    for record in records:
        problem = _problem(record)
        if problem:
            source.reject(record.line, problem, record.text)
            continue
        counts.records += 1
        yield record


def _problem(record: Record) -> str:
    if not record.text.strip():
        return "the text is empty"
    columns = json.dumps(dict(record.columns), ensure_ascii=False) if record.columns else ""
    for value in (record.text, record.id or "", columns):
        if not value.isascii() and _HALF_CHARACTER.search(value):
            return "not valid Unicode: a character is cut in half"
    return ""


def _text_records(
    path: str | Path, kind: Format, source: _Source, text_column: str | None, id_column: str | None, counts: ReadCounts
) -> Iterator[Record]:
    with _open(path) as stream:
        lines = _lines(stream, source)
        if kind == "txt":
            yield from _plain(lines, counts)
        elif kind == "jsonl":
            yield from _json_lines(lines, source, text_column, id_column)
        else:
            yield from _table(lines, source, text_column, id_column, "," if kind == "csv" else "\t")


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


def _lines(stream: BinaryIO, source: _Source) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        for number, line in enumerate(stream, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                found = f"byte 0x{line[error.start]:02x} at position {error.start + 1}"
                source.reject(number, f"not UTF-8 ({found})", line.decode("utf-8", "backslashreplace"))
                continue
            yield number, text
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{source.name} cannot be read after line {number}: {error}") from error


def _plain(lines: Iterator[tuple[int, str]], counts: ReadCounts) -> Iterator[Record]:
    for number, line in lines:
        text = line.rstrip("\r\n")
        if text.strip():
            yield Record(text=text, line=number)
        else:
            counts.blank += 1


def _table(
    lines: Iterator[tuple[int, str]], source: _Source, text_column: str | None, id_column: str | None, delimiter: str
) -> Iterator[Record]:
    csv.field_size_limit(sys.maxsize)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    if delimiter == ",":
        first = next(lines, None)
        if first is not None:
            delimiter = "\t" if "\t" in first[1] and "," not in first[1] else ","
            lines = itertools.chain([first], lines)
    taken: list[tuple[int, str]] = []  # the lines of the row that is being read

    def feed() -> Iterator[str]:
        for number, line in lines:
            taken.append((number, line))
            yield line

    reader = csv.reader(feed(), delimiter=delimiter, quoting=quoting, strict=True)
    header: list[str] | None = None
    text_name, id_name = "", None
    while True:
        taken.clear()
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            if header is None:
                raise InputError(f"{source.name}, line 1: {error}") from error
            line, content = (taken[0][0], "".join(text for _, text in taken)) if taken else (0, "")
            source.reject(line, str(error), content)
            continue
        line = taken[0][0]
        if header is None:
            header = row
            repeated = {column for column in header if header.count(column) > 1}
            if repeated:
                raise InputError(f"{source.name}, line {line}: the column {min(repeated)!r} stands twice")
            text_name, id_name = _columns(header, text_column, id_column, f"{source.name}, line {line}")
        elif len(row) != len(header):
            found = f"{len(row)} columns" if row else "the row is empty"
            message = f"{found}, and the header names {len(header)} ({', '.join(header)})"
            source.reject(line, message, "".join(text for _, text in taken))
        else:
            yield _record(dict(zip(header, row, strict=True)), text_name, id_name, line, typed=False)
    if header is None:
        raise InputError(f"{source.name} is empty: its first line must name the columns")


def _json_lines(
    lines: Iterator[tuple[int, str]], source: _Source, text_column: str | None, id_column: str | None
) -> Iterator[Record]:
    for number, line in lines:
        if not line.strip():
            source.reject(number, "the line is blank, and must hold a JSON object")
            continue
        try:
            row = json.loads(line, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            source.reject(number, f"not JSON ({error})", line)
            continue
        if not isinstance(row, dict):
            source.reject(number, f"a JSON object is required, and this is a {type(row).__name__}", line)
            continue
        try:
            text, identity = _columns(list(row), text_column, id_column, "")
        except InputError as error:
            source.reject(number, str(error).removeprefix(": "), line)
            continue
        if not isinstance(row[text], str):
            source.reject(number, f"{text!r} must be a string, and is a {type(row[text]).__name__}", line)
            continue
        yield _record(row, text, identity, number)


def _parquet(path: Path, source: _Source, text_column: str | None, id_column: str | None) -> Iterator[Record]:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise MissingExtraError("reading Parquet", "pyarrow", "parquet") from error
    if str(path) == STANDARD_INPUT:
        raise UsageError("Parquet cannot be read from standard input: name the file")
    if path.is_dir():
        raise InputError(f"{path} is a directory; name a file")
    try:
        with parquet.ParquetFile(path) as table:
            names = table.schema_arrow.names
            text, identity = _columns(names, text_column, id_column, str(path))
            number = 0
            for batch in table.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    if isinstance(row[text], str):
                        yield _record(_json_value(row), text, identity, number)
                    else:
                        source.reject(number, f"{text!r} must be a string, and is a {type(row[text]).__name__}")
    except (OSError, arrow.ArrowException) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}") from error


def _json_value(value: Any) -> Any:
    """Return a Parquet value as JSON has it: times and decimals as text, NaN as null, bytes as hexadecimal digits."""
    if isinstance(value, dict):
        return {str(key): _json_value(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.hex()
    if value is None or isinstance(value, (str, int)):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _columns(names: list[str], text_column: str | None, id_column: str | None, where: str) -> tuple[str, str | None]:
    text = text_column or "text"
    for option, column in (("text", text), ("id", id_column)):
        if column is not None and column not in names:
            raise InputError(f"{where}: no column {column!r} for the {option}; there are: {', '.join(names) or 'none'}")
    return text, id_column or ("id" if "id" in names and text != "id" else None)


def _record(row: dict[str, Any], text_column: str, id_column: str | None, line: int, *, typed: bool = True) -> Record:
    identity = str(row[id_column]) if id_column is not None and row[id_column] is not None else None
    columns = {name: value for name, value in row.items() if name not in (text_column, id_column)}
    return Record(text=row[text_column], id=identity, columns=columns, line=line, typed=typed)
