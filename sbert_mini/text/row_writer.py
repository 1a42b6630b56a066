"""Rows of known columns -> a file, row by row: JSON lines, CSV, TSV and Parquet."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sbert_mini.files.durable import replacing
from sbert_mini.text.rows import RowFormat, cell, check_row, need_pyarrow, table_line

_BLOCK_ROWS = 10_000


class RowWriter:
    """Writes rows of the same columns. Memory holds some thousand rows.

    Args:
        stream: takes the bytes.
        kind: the format.
        columns: name -> type: `str`, `float` or `int`.

    Raises:
        MissingExtraError: the format is Parquet, and pyarrow is not installed.
    """

    def __init__(self, stream: IO[bytes], kind: RowFormat, columns: Mapping[str, type]) -> None:
        self._stream, self._kind, self._columns = stream, kind, dict(columns)
        self._pending: list[Sequence[Any]] = []
        self._parquet: Any = None
        self.rows = 0
        if kind == "parquet":
            need_pyarrow()
            import pyarrow as arrow
            from pyarrow import parquet

            types = {str: arrow.string(), float: arrow.float64(), int: arrow.int64()}
            self._schema = arrow.schema([(name, types[kind]) for name, kind in self._columns.items()])
            self._parquet = parquet.ParquetWriter(stream, self._schema)
        elif kind != "jsonl":
            stream.write(table_line(list(self._columns), kind).encode())

    def write(self, *values: Any) -> None:
        """Write a row, a value a column.

        Raises:
            InputError: the format cannot hold it.
        """
        self.rows += 1
        if self._parquet is not None:
            self._pending.append(values)
            if len(self._pending) == _BLOCK_ROWS:
                self._flush()
            return
        row = dict(zip(self._columns, values, strict=True))
        if self._kind == "jsonl":
            line = json.dumps(row, ensure_ascii=False) + "\n"
        else:
            check_row(row, self._kind, f"row {self.rows} of the output")
            line = table_line([cell(value) for value in values], self._kind)  # type: ignore[arg-type]
        self._stream.write(line.encode("utf-8", "surrogatepass"))

    def close(self) -> None:
        """Write what is left; the stream stays open."""
        if self._parquet is not None:
            self._flush()
            self._parquet.close()

    def _flush(self) -> None:
        import pyarrow as arrow

        if self._pending:
            columns = zip(*self._pending, strict=True)
            arrays = [arrow.array(column, kind) for column, kind in zip(columns, self._schema.types, strict=True)]
            self._parquet.write_table(arrow.Table.from_arrays(arrays, schema=self._schema))
            self._pending.clear()


@contextmanager
def writing_rows(path: Path, kind: RowFormat, columns: Mapping[str, type]) -> Iterator[RowWriter]:
    """Yield a writer of a file, which takes its place once all rows are written."""
    with replacing(path) as part, part.open("wb") as stream:
        writer = RowWriter(stream, kind, columns)
        yield writer
        writer.close()
