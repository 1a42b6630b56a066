"""The first row of a table, whatever its columns are called."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sbert_mini.errors import InputError, UsageError
from sbert_mini.text.json_array import read_array
from sbert_mini.text.json_lines import json_object
from sbert_mini.text.limits import MAX_ROW_BYTES
from sbert_mini.text.lines import UnreadableError, read_lines
from sbert_mini.text.parquet import read_rows
from sbert_mini.text.records import format_of, open_file
from sbert_mini.text.tables import check_delimiter, read_table


def first_row(path: Path, delimiter: str | None = None, format: str | None = None) -> dict[str, Any]:
    """Return the first row of a file of CSV, TSV, JSON lines, JSON or Parquet, by column.

    Args:
        path: the file.
        delimiter, format: as `records.read_records` takes them.

    Raises:
        UsageError: the file is plain text, or its suffix is unknown.
        InputError: it cannot be read, or has no row.
        MissingExtraError: it is Parquet, and pyarrow is not installed.
    """
    kind = format_of(path, format)
    check_delimiter(delimiter)
    if delimiter is not None and kind not in ("csv", "tsv"):
        raise UsageError(f"the delimiter is for CSV and TSV, and {path} is neither", "the delimiter")
    if kind == "txt":
        raise UsageError(
            f"{path} is plain text, which has no columns: a table is needed (csv, tsv, jsonl, json, parquet)"
        )
    for line, row, problem in _rows(path, kind, delimiter):
        if row is None:
            raise InputError(f"{path}, {'row' if kind == 'parquet' else 'line'} {line}: {problem}")
        return row
    raise InputError(f"{path}: there is no row")


def _rows(path: Path, kind: str, delimiter: str | None) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    if kind == "parquet":
        yield from read_rows(path, MAX_ROW_BYTES, lambda names, types: None)  # noqa: ARG005
        return
    with open_file(path) as stream:
        if kind in ("csv", "tsv"):
            lines = read_lines(stream, str(path), MAX_ROW_BYTES, by_itself=False)
            for line, values, problem, *_ in read_table(
                lines, str(path), MAX_ROW_BYTES, "," if kind == "csv" else "\t", lambda _: "", delimiter
            ):
                yield line, values, problem
            return
        whole = kind == "json"
        for line, text, problem, _ in (
            read_array(stream, str(path), MAX_ROW_BYTES)
            if whole
            else read_lines(stream, str(path), MAX_ROW_BYTES, by_itself=True)
        ):
            try:
                yield line, None if problem else json_object(text), problem
            except UnreadableError as error:
                yield line, None, str(error)
