"""Tables and JSON lines in a folder -> rows, whatever their columns are called."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sbert_mini.text.json_lines import json_object
from sbert_mini.text.limits import MAX_ROW_BYTES
from sbert_mini.text.lines import UnreadableError, read_lines
from sbert_mini.text.records import Record, open_file
from sbert_mini.text.tables import read_table

_IDS = ("id", "_id")


def table_records(path: Path, format: str, on_problem: Callable[[int, str], None]) -> Iterator[Record]:
    """Yield the rows of a file of CSV, TSV or JSON lines.

    A row's text is its column `text`. Where it has none, it is all its values, a line each: `name: value`. Its id is the value of
    `id` or `_id`, if that is a text or an integer.

    Args:
        path: the file.
        format: `csv`, `tsv` or `jsonl`.
        on_problem: takes the line and the problem of each row that cannot be read.

    Raises:
        InputError: the file cannot be read.
    """
    with open_file(path) as stream:
        is_typed = format == "jsonl"
        lines = read_lines(stream, str(path), MAX_ROW_BYTES, by_itself=is_typed)
        if is_typed:
            for number, line, problem, _ in lines:
                try:
                    if problem:
                        raise UnreadableError(problem)
                    yield _record(json_object(line), number, is_typed=True)
                except UnreadableError as error:
                    on_problem(number, str(error))
            return
        rows = read_table(lines, str(path), MAX_ROW_BYTES, "," if format == "csv" else "\t", lambda _: "")
        for number, values, problem, _, span in rows:
            try:
                if values is None:
                    raise UnreadableError(problem)
                yield _record(values, number, is_typed=False)
            except UnreadableError as error:
                on_problem(number, f"{error}{span}")


def _record(row: Mapping[str, Any], line: int, *, is_typed: bool) -> Record:
    """Return a row's record.

    Raises:
        UnreadableError: it holds no text.
    """
    identity = next((row[name] for name in _IDS if _is_id(row.get(name))), None)
    columns = {name: value for name, value in row.items() if name not in _IDS}
    text = row.get("text")
    if isinstance(text, str) and text.strip():
        del columns["text"]
    else:
        text = "\n".join(f"{name}: {_spelled(value)}" for name, value in columns.items() if _spelled(value))
    if not text.strip():
        raise UnreadableError("the row holds no text")
    return Record(text, None if identity is None else str(identity), columns, line, is_typed)


def _is_id(value: object) -> bool:
    return (isinstance(value, str) and value.strip() != "") or (isinstance(value, int) and not isinstance(value, bool))


def _spelled(value: object) -> str:
    """Return a value in a text; "" for what a reader would leave out."""
    return "" if value is None or isinstance(value, (list, dict)) else str(value).strip()
