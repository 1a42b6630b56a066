"""Files of texts -> records: plain text, CSV, TSV, JSON lines (each gzipped or not) and Parquet, read piece by piece.

Nothing is repaired or skipped silently. Blank lines of plain text are not texts: they are counted. Any other row that cannot
be read is an error with its file and line, or, where the caller takes rejects, a `Reject`. Memory is bounded by
`max_row_bytes`, whatever the file holds.
"""

import glob
import gzip
import hashlib
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn, TypeAlias, cast, get_args

from sbert_mini.errors import InputError, UsageError
from sbert_mini.files.paths import expanded, matching
from sbert_mini.text.arrivals import Arrivals
from sbert_mini.text.json_array import read_array
from sbert_mini.text.json_lines import json_object
from sbert_mini.text.limits import MAX_ROW_BYTES
from sbert_mini.text.lines import SHOWN_CHARACTERS, Line, UnreadableError, read_lines
from sbert_mini.text.parquet import read_rows
from sbert_mini.text.tables import check_delimiter, delimiter_hint, listed, read_table

Format: TypeAlias = Literal["txt", "csv", "tsv", "jsonl", "json", "parquet"]
FORMATS: tuple[str, ...] = get_args(Format)
_SUFFIXES: dict[str, Format] = {
    ".txt": "txt",
    ".text": "txt",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
}
STANDARD_INPUT = "-"
_MAX_WHOLE_FLOAT = 2**53


@dataclass(frozen=True)
class Record:
    """One text with the rest of its row.

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
    """Counts of what was read, filled in while reading.

    Attributes:
        records: records read.
        blank: blank lines of plain text, passed over.
        titled: rows in BEIR's layout whose title and text were joined.
    """

    records: int = 0
    blank: int = 0
    titled: int = 0


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
        """Pass the row on as a reject, or raise."""
        if self.on_reject is None:
            self.fail(line, error)
        self.on_reject(Reject(line, error, content[:SHOWN_CHARACTERS], self.name))

    def fail(self, line: int, error: str) -> NoReturn:
        """Raise an error that makes the whole file unreadable."""
        raise InputError(f"{self.name}, {self.unit} {line}: {error}")


@dataclass(frozen=True)
class _Columns:
    """Which columns hold the text and the id.

    Attributes:
        texts: the columns whose texts are joined.
        separator: stands between them.
        id: the column of the id; None for `id`, or else `_id`.
        detects_beir: whether a row in BEIR's layout has its title before its text.
    """

    texts: tuple[str, ...]
    separator: str
    id: str | None
    detects_beir: bool

    @classmethod
    def named(cls, text: str | Sequence[str] | None, separator: str, identity: str | None) -> "_Columns":
        texts = (text,) if isinstance(text, str) else tuple(text or ("text",))
        repeated = [name for name, count in Counter(texts).items() if count > 1]
        if repeated:
            raise UsageError(f"the text column {repeated[0]!r} is named twice")
        return cls(texts, separator, identity, not text and identity in (None, "_id"))

    def is_titled(self, row: Mapping[str, Any] | None) -> bool:
        """Return whether a row is one of BEIR's corpus, with `_id`, `text` and a title that is joined with it."""
        if not self.detects_beir or row is None or not ("_id" in row and "text" in row) or "id" in row:
            return False
        title = row.get("title")
        return isinstance(title, str) and not title.isspace() and title != ""

    def missing(self, names: Iterable[str]) -> str:
        """Return what is wrong with columns of these names, or ""."""
        present = names if isinstance(names, dict) else dict.fromkeys(names)
        for option, columns in (("text", self.texts), ("id", (self.id,) if self.id is not None else ())):
            for column in columns:
                if column not in present:
                    there = list(present)
                    return f"no column {column!r} for the {option}; there are: {listed(there)}{delimiter_hint(there)}"
        return ""

    def record(self, row: dict[str, Any], line: int, file: str, *, typed: bool = True) -> Record:
        """Return a row's record.

        Raises:
            UnreadableError: the text or the id is not what it must be.
        """
        texts = ("title", "text") if self.is_titled(row) else self.texts
        for name in texts:
            value = row[name]
            if not isinstance(value, str) and not (value is None and len(texts) > 1):
                raise UnreadableError(f"{name!r} must be a string; found {type(value).__name__}")
        name_of_id = self.id
        if name_of_id is None:
            name_of_id = next((name for name in ("id", "_id") if name in row and name not in texts), None)
        identity = None if name_of_id is None else _identity(row[name_of_id])
        dropped: set[str | None]
        if len(texts) == 1:
            text = row[texts[0]]
            dropped = {texts[0], name_of_id}
        else:
            text = self.separator.join(row[name] for name in texts if row[name] is not None and row[name].strip())
            dropped = {name_of_id} - set(texts)
        if not text.strip():
            raise UnreadableError("the text is empty")
        columns = {name: value for name, value in row.items() if name not in dropped}
        id_value = None if name_of_id is None else row[name_of_id]
        return Record(text, identity, columns, line, typed, file, row, id_value)


def files_at(pattern: str | Path) -> list[Path]:
    """Return the files that a path stands for, sorted: itself, those of a folder that can be read, or those of a pattern.

    Raises:
        InputError: there is none.
    """
    path = expanded(pattern)
    if path.is_file():
        return [path]
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file() and _is_readable(file)]
    else:
        files = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207  # patterns may be absolute
    if not files:
        raise InputError(f"{pattern} is no file, holds none of a known kind, and matches none")
    return sorted(files)


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
    """Return the files of an input with their formats, after a check that they exist and are no directories.

    Args:
        paths: a file or several, in order; `-` for standard input. A pattern, such as `news/*.csv`, stands for the files that
            match it.
        format: that of all of them; None to tell each by its suffix.

    Raises:
        UsageError: none is named, one is named twice or a directory, or a format is unknown.
        InputError: one is absent.
    """
    patterns = [paths] if isinstance(paths, (str, Path)) else paths
    given_paths = [path for pattern in patterns for path in matching(pattern)]
    if not given_paths:
        raise UsageError("no input file is named")
    path_of: dict[tuple[int, int], Path] = {}
    files: list[tuple[Path, Format]] = []
    for path in given_paths:
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
                f"{path} is a directory, and directories are not read: 'sbmini index sync INDEX {path}' reads the documents of "
                f"a folder, and --input '{path}/*.jsonl' reads its files of rows"
            )
        other = path_of.setdefault((status.st_dev, status.st_ino), path)
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
    delimiter: str | None = None,
    counts: ReadCounts | None = None,
    on_reject: Callable[[Reject], None] | None = None,
    arrivals: Arrivals | None = None,
) -> Iterator[Record]:
    """Yield the records of a file, or of several one after the other, in order.

    Plain text: one text a line. CSV and TSV: a header line, then rows (CSV quoting in CSV, none in TSV; a CSV whose header
    holds tabs and no comma is separated by tabs). JSON lines: one object a line. JSON: an array of objects. Parquet: a table.

    Text is UTF-8. A byte order mark is left out where a file, or a line of plain text or JSON, begins with one. After a
    quotation mark that is never closed reading is taken up again at the next line.

    Args:
        paths: the file or the files, or `-` for standard input. Each is read by its own suffix, or all by `format`.
        format: `txt`, `csv`, `tsv`, `jsonl`, `json` or `parquet`; None to tell by the suffix.
        text_column: the column that holds the text. Of several the texts are joined; what is empty or null is left out of that,
            and the columns stay among the record's columns. None for `text`; or for `title` and `text`, joined, where a row is
            in BEIR's layout: it has `_id`, `title` and `text`, and no `id`.
        text_separator: stands between joined texts.
        id_column: the column that holds the id; None for `id`, or else `_id`, where there is one.
        max_row_bytes: the most bytes of a line, or of a row of several lines; a longer one is not read.
        delimiter: the character between the columns of CSV and TSV, with CSV's quoting; None for a comma or a tab.
        counts: filled in, if given.
        on_reject: takes each row that cannot be read; None for an error at the first. A file that cannot be read at all
            (absent, damaged, without the text column) is an error in any case.
        arrivals: told, if given, of lines that arrive in standard input; not of a JSON array.

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
    check_delimiter(delimiter)
    if delimiter is not None and (other := next((path for path, kind in files if kind not in ("csv", "tsv")), None)):
        raise UsageError(f"the delimiter is for CSV and TSV, and {other} is neither", "the delimiter")
    max_row_bytes = min(max_row_bytes, sys.maxsize - 1)
    columns = _Columns.named(text_column, text_separator, id_column)
    counts = counts if counts is not None else ReadCounts()
    return _records(files, columns, max_row_bytes, counts, on_reject, delimiter, arrivals)


def _records(
    files: Sequence[tuple[Path, Format]],
    columns: _Columns,
    max_row_bytes: int,
    counts: ReadCounts,
    on_reject: Callable[[Reject], None] | None,
    delimiter: str | None,
    arrivals: Arrivals | None,
) -> Iterator[Record]:
    for path, kind in files:
        name = "standard input" if str(path) == STANDARD_INPUT else str(path)
        source = _Source(name, "row" if kind == "parquet" else "line", max_row_bytes, on_reject)
        rows = (
            _parquet(path, source, columns)
            if kind == "parquet"
            else _text_records(path, kind, source, columns, counts, delimiter, arrivals)
        )
        for record in rows:
            counts.records += 1
            counts.titled += columns.is_titled(record.row)
            yield record


def _text_records(
    path: Path,
    kind: Format,
    source: _Source,
    columns: _Columns,
    counts: ReadCounts,
    delimiter: str | None,
    arrivals: Arrivals | None,
) -> Iterator[Record]:
    with open_file(path, None if kind == "json" else arrivals) as stream:
        lines = read_lines(stream, source.name, source.max_row_bytes, by_itself=kind in ("txt", "jsonl"))
        if kind == "txt":
            yield from _plain(lines, source, counts)
        elif kind == "json":
            yield from _json_rows(read_array(stream, source.name, source.max_row_bytes), source, columns)
        elif kind == "jsonl":
            yield from _json_rows(lines, source, columns)
        else:
            yield from _table(lines, source, columns, kind, delimiter)


def _standard_input() -> int:
    """Return the file descriptor of standard input.

    Raises:
        UsageError: it is closed.
    """
    try:
        return sys.stdin.fileno()
    except (AttributeError, ValueError):
        raise UsageError("standard input is closed: name a file with --input (-i), or pipe the rows in") from None


def open_file(path: Path, arrivals: Arrivals | None = None) -> BinaryIO:
    """Return a file's bytes, unpacked where its name ends in `.gz`; `-` is standard input.

    Args:
        path: the file.
        arrivals: told, if given, of lines that arrive in standard input.

    Raises:
        InputError: it cannot be opened.
    """
    if str(path) == STANDARD_INPUT:
        descriptor = _standard_input()
        lines = None if arrivals is None else arrivals.lines(descriptor)
        return io.BufferedReader(io.FileIO(descriptor, closefd=False)) if lines is None else cast(BinaryIO, lines)
    try:
        if path.suffix.lower() == ".gz":
            return io.BufferedReader(gzip.open(path, "rb"))
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror or error}") from error


def _plain(lines: Iterator[Line], source: _Source, counts: ReadCounts) -> Iterator[Record]:
    for number, line, problem, content in lines:
        if problem:
            source.reject(number, problem, content)
            continue
        text = line.rstrip("\r\n")
        if text.strip():
            yield Record(text, None, {}, number, True, source.name)
        else:
            counts.blank += 1


def _table(
    lines: Iterator[Line], source: _Source, columns: _Columns, kind: Format, delimiter: str | None
) -> Iterator[Record]:
    usual: Literal[",", "\t"] = "," if kind == "csv" else "\t"
    rows = read_table(lines, source.name, source.max_row_bytes, usual, columns.missing, delimiter)
    for line, values, problem, content, span in rows:
        try:
            if values is None:
                raise UnreadableError(problem)
            record = columns.record(values, line, source.name, typed=False)
        except UnreadableError as error:
            source.reject(line, f"{error}{span}", content)
        else:
            yield record


def _json_rows(lines: Iterator[Line], source: _Source, columns: _Columns) -> Iterator[Record]:
    for number, line, problem, content in lines:
        try:
            if problem:
                raise UnreadableError(problem)
            row = json_object(line)
            if missing := columns.missing(row):
                raise UnreadableError(missing)
            record = columns.record(row, number, source.name)
        except UnreadableError as error:
            source.reject(number, str(error), content or line)
        else:
            yield record


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
            except UnreadableError as error:
                problem, content = str(error), str({name: row[name] for name in columns.texts})
            else:
                yield record
                continue
        source.reject(number, problem, content)


def _identity(value: Any) -> str | None:
    """Return an id as text, or None where there is none.

    Raises:
        UnreadableError: it is neither text nor a whole number.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < _MAX_WHOLE_FLOAT:
        return str(int(value))  # whole numbers with a gap are stored as floats by pandas
    shown = json.dumps(value, ensure_ascii=False)
    raise UnreadableError(f"the id must be text or a whole number, and is {shown[:SHOWN_CHARACTERS]}")
