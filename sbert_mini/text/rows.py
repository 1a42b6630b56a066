"""Rows -> files: JSON lines, CSV, TSV and Parquet, each as its suffix says.

A row keeps the columns, their names and their order with which it was read, and values keep their types:

| value | JSON lines, Parquet | CSV, TSV |
| --- | --- | --- |
| text, of any source | the same characters | the same characters |
| number, true or false | itself | its digits; `true`, `false` |
| null, or a column that the row lacks | null (JSON lines: no such key) | empty |
| list or object | itself in JSON lines; JSON text in Parquet | JSON text |

In Parquet a column has one type: whole numbers (also where every value of a CSV reads back unchanged as one, so that "7" is a
number and "007" is not), numbers, true/false, or text, where what is no text is written as JSON.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

from sbert_mini.errors import InputError, MissingExtraError, UsageError
from sbert_mini.text.records import Record

RowFormat: TypeAlias = Literal["jsonl", "csv", "tsv", "parquet"]
ROW_SUFFIXES: Mapping[str, RowFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")
_INT64 = range(-(2**63), 2**63)
_EXACT_IN_FLOAT = range(-(2**53), 2**53 + 1)


def read_row(record: Record) -> dict[str, Any]:
    """Return a record's row as it was read; of one that was not read from a file, its id, its text and its columns."""
    if record.row is not None:
        return dict(record.row)
    row = {"text": record.text} if record.id is None else {"id": record.id, "text": record.text}
    for name, value in record.columns.items():
        row.setdefault(name, value)
    return row


def column_of(row: Mapping[str, Any], name: str, place: str) -> Any:
    """Return the value of a column.

    Args:
        row: by column, as `read_row` returns it.
        name: the column.
        place: where the row stands (`Record.place`), for the message.

    Raises:
        InputError: there is no such column.
    """
    if name not in row:
        raise InputError(f"{place}: there is no column {name!r}; the columns are {', '.join(row)}")
    return row[name]


def text_of(row: Mapping[str, Any], name: str, place: str) -> str:
    """Return the text of a column; the arguments are those of `column_of`.

    Raises:
        InputError: there is no such column, or it holds no text.
    """
    value = column_of(row, name, place)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{place}: {name!r} must be a text, and is {value!r}")
    return value


def score_of(value: Any, place: str) -> float:
    """Return a score: a finite number, or a text that is one.

    Raises:
        InputError: it is something else.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{place}: the score must be a finite number, and is {value!r}")
    return number


def named_row(record: Record) -> dict[str, Any]:
    """Return a record's row as it was read, with its id as `id` and its text as `text` too, where no column has that name."""
    row = read_row(record)
    if record.id is not None:
        row.setdefault("id", record.id if record.id_value is None else record.id_value)
    row.setdefault("text", record.text)
    return row


def need_pyarrow() -> None:
    """Raise `MissingExtraError` where Parquet cannot be written."""
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("writing Parquet", "pyarrow", "parquet") from error


def cell(value: Any) -> str:
    """Return a value as a field of CSV or TSV shows it."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def check_row(row: Mapping[str, Any], kind: str, place: str) -> None:
    """Raise an error if a format cannot hold a row.

    Raises:
        InputError: it is TSV, and a name or a value holds a tab or a line break, for which TSV has no sign.
    """
    if kind != "tsv":
        return
    for name, value in row.items():
        if any(sign in text for text in (name, cell(value)) for sign in "\t\n\r"):
            raise InputError(
                f"{place}: {name!r} holds a tab or a line break, for which TSV has no sign: write a .csv file"
            )


def table_line(fields: Sequence[str], kind: Literal["csv", "tsv"]) -> str:
    """Return a line of CSV, or of TSV, whose fields are written as they are (`check_row`)."""
    if kind == "tsv":
        return "\t".join(fields) + "\n"
    if len(fields) == 1 and not fields[0]:
        return '""\n'  # a blank line would be no row
    return ",".join(_quoted(text) for text in fields) + "\n"


def _quoted(text: str) -> str:
    if any(sign in text for sign in ',"\r\n\ufeff'):
        return '"' + text.replace('"', '""') + '"'
    return text


_CONVERSIONS: Mapping[str, Callable[[Any], Any]] = {"int64": int, "float64": float, "bool": bool, "string": cell}


class Columns:
    """The columns of some rows, in the order in which they appear, and what each holds."""

    def __init__(self) -> None:
        self._kinds: dict[str, set[str]] = {}

    def add(self, row: Mapping[str, Any], *, typed: bool) -> None:
        """Add a row; `typed` says whether its values have the types of their source (`Record.typed`)."""
        for name, value in row.items():
            self._kinds.setdefault(name, set()).add(_kind(value, typed))

    @property
    def names(self) -> list[str]:
        """Their names."""
        return list(self._kinds)

    def type_of(self, name: str) -> Literal["int64", "float64", "bool", "string"]:
        """Return the one type that holds every value of a column."""
        kinds = self._kinds[name] - {"null"}
        if kinds and kinds <= {"whole", "whole text", "large", "large text"}:
            return "int64"
        if kinds and kinds <= {"number", "whole"}:
            return "float64"
        return "bool" if kinds == {"bool"} else "string"

    def arrays(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the rows' columns as Arrow arrays."""
        import pyarrow as arrow

        arrays = {}
        for name in self._kinds:
            kind = self.type_of(name)
            convert = _CONVERSIONS[kind]
            values = [row.get(name) for row in rows]
            converted = [None if value is None else convert(value) for value in values]
            arrays[name] = arrow.array(converted, getattr(arrow, {"bool": "bool_"}.get(kind, kind))())
        return arrays


def _kind(value: Any, typed: bool) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        if value in _EXACT_IN_FLOAT:
            return "whole"
        return "large" if value in _INT64 else "text"
    if isinstance(value, float):
        return "number"
    if not typed and isinstance(value, str) and _WHOLE.fullmatch(value) and int(value) in _INT64:
        return "large text" if int(value) not in _EXACT_IN_FLOAT else "whole text"
    return "text"


def write_table(
    stream: IO[bytes], kind: Literal["csv", "tsv", "parquet"], rows: Sequence[tuple[dict[str, Any], bool]]
) -> None:
    """Write rows, each with its `Record.typed`, as a table.

    Raises:
        MissingExtraError: Parquet is to be written, and pyarrow is not installed.
    """
    columns = Columns()
    for row, typed in rows:
        columns.add(row, typed=typed)
    if kind != "parquet":
        for fields in (columns.names, *([cell(row.get(name)) for name in columns.names] for row, _ in rows)):
            stream.write(table_line(fields, kind).encode())
        return
    need_pyarrow()
    import pyarrow as arrow
    from pyarrow import parquet

    parquet.write_table(arrow.table(columns.arrays([row for row, _ in rows])), stream)


def unknown_format(path: Path, suffixes: Iterable[str]) -> UsageError:
    """Return the error for an output whose suffix names no format."""
    *most, last = suffixes
    return UsageError(f"the output must end in {', '.join(most)} or {last}; found {str(path)!r}")
