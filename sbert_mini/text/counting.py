"""The number of rows of a file, for a progress bar: fast, in bounded memory, and without errors about its content."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sbert_mini.text.limits import MAX_ROW_BYTES, limited_lines
from sbert_mini.text.records import STANDARD_INPUT, format_of, open_file

_FIRST_BYTES = 1 << 20
"""So much of a line tells whether it is blank."""


class _TooLongError(Exception):
    """A row is longer than any that would be read."""


def count_rows(path: str | Path, format: str | None = None) -> int | None:
    """Return the number of a file's rows; None where it cannot be known before it is read (a pipe, a damaged file).

    Args:
        path: the file, or `-` for standard input.
        format: see `records.read_records`.
    """
    file = Path(path)
    if str(path) == STANDARD_INPUT or not file.is_file():
        return None
    try:
        kind = format_of(path, format)
        if kind == "json":
            return None
        if kind == "parquet":
            from pyarrow import parquet

            return int(parquet.read_metadata(file).num_rows)
        with open_file(file) as stream:
            if kind == "csv":
                return _table_rows(stream)
            rows = sum(bool(line.decode("utf-8", "replace").strip()) for line, _ in limited_lines(stream, _FIRST_BYTES))
            return max(rows - 1, 0) if kind == "tsv" else rows
    except Exception:  # reading the rows will say what is wrong
        return None


class _RowLines(Iterator[str]):
    """Lines for the CSV reader, which raise where one row takes too many bytes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._lines = limited_lines(stream, MAX_ROW_BYTES)
        self._bytes = 0
        self._again: list[str] = []

    def first(self) -> str:
        """Return the first line, which comes again."""
        self._again = [next(self, "")]
        return self._again[0]

    def begin(self) -> None:
        """Begin a row."""
        self._bytes = 0

    def __next__(self) -> str:
        if self._again:
            return self._again.pop()
        line, is_whole = next(self._lines)
        self._bytes += len(line)
        if not is_whole or self._bytes > MAX_ROW_BYTES:
            raise _TooLongError
        return line.decode("utf-8", "replace")


def _table_rows(stream: BinaryIO) -> int:
    csv.field_size_limit(sys.maxsize)
    lines = _RowLines(stream)
    first = lines.first()
    delimiter = "\t" if "\t" in first and "," not in first else ","
    rows = 0
    for row in csv.reader(lines, delimiter=delimiter):
        rows += bool(row)
        lines.begin()
    return max(rows - 1, 0)
