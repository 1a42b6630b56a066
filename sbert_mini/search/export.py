"""An index's rows -> a file that other programs read: JSON lines or Parquet, with or without their vectors."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.errors import InputError, UsageError
from sbert_mini.files.durable import replacing
from sbert_mini.search.columns import converted
from sbert_mini.search.index import SearchIndex
from sbert_mini.search.segment import StoredRow
from sbert_mini.shapes import FloatArray
from sbert_mini.text.rows import need_pyarrow

ID, TEXT, VECTOR = "id", "text", "embedding"
_ARROW_TYPES = {"integer": "int64", "number": "float64", "boolean": "bool_", "text": "string"}


def row_of(row: StoredRow, vector: FloatArray | None = None) -> dict[str, Any]:
    """Return a row as one object: id, text, its columns, and its vector. Shapes: vector: (dim,)."""
    entry = {ID: row.id, TEXT: row.text, **{name: v for name, v in row.columns.items() if name not in (ID, TEXT)}}
    return entry if vector is None else {**entry, VECTOR: [float(str(value)) for value in vector]}


def export(index: SearchIndex, path: Path, *, with_vectors: bool) -> int:
    """Write all rows into a file, in one step, and return how many there are.

    The vector of a row with several passages is their mean. A column of Parquet has the type of the index's column; a value that
    is no text in a column of text is JSON.

    Args:
        index: opened.
        path: a `.jsonl` or `.parquet` file.
        with_vectors: whether the file has a column `embedding`.

    Raises:
        UsageError: the suffix is another one, or the vectors would take the place of a column.
        InputError: a text is not Unicode, and the file is Parquet. An earlier file stays.
        MissingExtraError: it is Parquet, and pyarrow is not installed.
    """
    kind = path.suffix.lower()
    if kind not in (".jsonl", ".ndjson", ".parquet"):
        raise UsageError(f"an export is a .jsonl or .parquet file; found {path}")
    if with_vectors and VECTOR in index.columns:
        raise UsageError(f"the rows have a column {VECTOR!r}, the name of the vectors: export them without vectors")
    if kind == ".parquet":
        need_pyarrow()
    with replacing(path) as part:
        if kind == ".parquet":
            return _write_parquet(index, part, with_vectors=with_vectors)
        count = 0
        with part.open("w", encoding="utf-8") as stream:
            for row, vector in _rows(index):
                stream.write(_line(row_of(row, vector if with_vectors else None)) + "\n")
                count += 1
        return count


def _line(row: Mapping[str, Any]) -> str:
    """Return a row as JSON; half of a surrogate pair, which UTF-8 does not have, is escaped."""
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(row)
    return line


def _rows(index: SearchIndex) -> Iterator[tuple[StoredRow, FloatArray]]:
    for block, vectors in index.row_blocks():
        yield from zip(block, vectors, strict=True)


def _write_parquet(index: SearchIndex, path: Path, *, with_vectors: bool) -> int:
    import pyarrow as arrow
    from pyarrow import parquet

    types = {name: type or "text" for name, type in index.columns.items() if name not in (ID, TEXT)}
    fields = {ID: "text", TEXT: "text", **types}
    schema = arrow.schema([(name, getattr(arrow, _ARROW_TYPES[type])()) for name, type in fields.items()])
    if with_vectors:
        schema = schema.append(arrow.field(VECTOR, arrow.list_(arrow.float32(), index.model.dimension)))
    count = 0
    with path.open("wb") as stream, parquet.ParquetWriter(stream, schema) as writer:
        for block, vectors in index.row_blocks():
            rows = [row_of(row) for row in block]
            arrays = [
                arrow.array([_cell(row, name, type) for row in rows], schema.field(name).type)
                for name, type in fields.items()
            ]
            if with_vectors:
                flat = arrow.array(np.ascontiguousarray(vectors).reshape(-1))
                arrays.append(arrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1]))
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))
            count += len(block)
    return count


def _cell(row: Mapping[str, Any], name: str, type: str) -> Any:
    """Return a value as the column's type has it; None where it has none.

    Raises:
        InputError: Parquet cannot hold it.
    """
    try:
        value = converted(row.get(name), type)
    except ValueError:
        return None
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"the row {row[ID]!r} has half of a surrogate pair in {name!r}, which Parquet cannot hold: export JSON lines"
            ) from None
    return value
