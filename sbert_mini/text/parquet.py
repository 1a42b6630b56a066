"""The rows of a Parquet file, one by one, in memory that is bounded by what one row may hold."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sbert_mini.errors import InputError, MissingExtraError, SbertMiniError
from sbert_mini.files.paths import is_utf8

_BATCH_ROWS = 1024
_PIECE_BYTES = 16 << 20
"""Rows are turned into Python values in pieces of about this size."""


def read_rows(
    path: Path, max_row_bytes: int, check: Callable[[Sequence[str], Mapping[str, str]], None]
) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    """Yield each row's number from 1, its values as JSON has them, and "", or None and why the row cannot be read.

    Times and decimals are text, NaN (the null of pandas) is null, and bytes are hexadecimal digits.

    Args:
        path: the file.
        max_row_bytes: a row whose texts and bytes are more together cannot be read.
        check: is called, before anything is read, with the names of the columns and with the types of those that hold no text; it
            may raise.

    Raises:
        InputError: the file cannot be read, or two columns have one name.
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise MissingExtraError("reading Parquet", "pyarrow", "parquet") from error
    number = 0
    try:
        with path.open("rb") as stream:
            source: Any = path if is_utf8(path) else stream
            with parquet.ParquetFile(source) as table:
                names = table.schema_arrow.names
                repeated = [name for name, count in Counter(names).items() if count > 1]
                if repeated:
                    raise InputError(f"{path}: two columns are called {min(repeated)!r}; each must have its own name")
                check(
                    names, {field.name: str(field.type) for field in table.schema_arrow if not _may_be_text(field.type)}
                )
                texts = [
                    column.path
                    for column in (table.schema.column(i) for i in range(len(table.schema)))
                    if column.physical_type == "BYTE_ARRAY" and "." not in column.path
                ]
            # Columns of texts stay encoded by their dictionary: a long text that stands in many rows is in memory once.
            with parquet.ParquetFile(source, read_dictionary=texts) as table:
                for batch in table.iter_batches(batch_size=_BATCH_ROWS):
                    for row, problem in _rows(batch, max_row_bytes):
                        number += 1
                        yield number, row, problem
    except SbertMiniError:
        raise
    except (OSError, arrow.ArrowException, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(
            f"{path} cannot be read as Parquet{f' after row {number}' * bool(number)}: {reason}"
        ) from error


def _rows(batch: Any, max_row_bytes: int) -> Iterator[tuple[dict[str, Any] | None, str]]:
    sizes = _row_bytes(batch, max_row_bytes)
    step = max(1, min(batch.num_rows, _PIECE_BYTES // max(1, *sizes, 1)))
    start = 0
    while start < batch.num_rows:
        if sizes[start] > max_row_bytes:
            yield None, f"the row is longer than {max_row_bytes:,} bytes, the limit of --max-row-bytes (max_row_bytes)"
            start += 1
            continue
        end = next(
            (i for i in range(start, min(start + step, batch.num_rows)) if sizes[i] > max_row_bytes), start + step
        )
        yield from _values(batch.slice(start, min(end, batch.num_rows) - start))
        start = min(end, batch.num_rows)


def _row_bytes(batch: Any, max_row_bytes: int) -> list[int]:
    """Return how many bytes the texts of each row take, and its lists and structures where they are many."""
    import pyarrow as arrow
    import pyarrow.compute

    sizes = [0] * batch.num_rows
    for column in batch.columns:
        lengths = None
        kind = column.type
        if arrow.types.is_dictionary(kind) and _is_text(kind.value_type):
            lengths = arrow.compute.binary_length(column.dictionary).take(column.indices)
        elif _is_text(kind):
            lengths = arrow.compute.binary_length(column)
        elif arrow.types.is_nested(kind) and column.nbytes > max_row_bytes:
            lengths = arrow.array([column.slice(i, 1).nbytes for i in range(len(column))])
        if lengths is not None:
            sizes = [size + (length or 0) for size, length in zip(sizes, lengths.to_pylist(), strict=True)]
    return sizes


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)
    )


def _may_be_text(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind)
    )


def _values(part: Any) -> Iterator[tuple[dict[str, Any] | None, str]]:
    """Yield the rows as Python has them; where one of them has no such value, each row by itself."""
    try:
        rows = [_json_value(row) for row in part.to_pylist()]
    except (ValueError, OverflowError, RecursionError):
        if part.num_rows > 1:
            for i in range(part.num_rows):
                yield from _values(part.slice(i, 1))
            return
        yield None, _why_not(part)
        return
    for row in rows:
        yield row, ""


def _why_not(row: Any) -> str:
    """Return which column of a row has no value in Python, and why."""
    for name, column in zip(row.schema.names, row.columns, strict=True):
        try:
            _json_value(column.to_pylist())
        except UnicodeDecodeError as error:
            return f"the column {name!r} is not UTF-8 (byte 0x{error.object[error.start]:02x} at position {error.start + 1})"
        except OverflowError:
            return f"the column {name!r} holds a time outside of the years 1 to 9999"
        except (ValueError, RecursionError) as error:
            return f"the column {name!r} cannot be read: {' '.join(str(error).split())}"
    return "the row cannot be read"


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json_value(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(inner) for inner in value]
    if isinstance(value, float):
        if math.isinf(value):
            raise ValueError("infinity is not a number that JSON has")
        return None if math.isnan(value) else value
    if isinstance(value, bytes):
        return value.hex()
    if value is None or isinstance(value, (str, int)):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
