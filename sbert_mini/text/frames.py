"""DataFrames of pandas and Polars, and tables of Arrow -> rows. None of these packages is imported."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

RowT = TypeVar("RowT")


def rows_of(records: Iterable[RowT]) -> Iterable[RowT]:
    """Return records as they are; of a DataFrame or a table, which yields its columns, a dict a row.

    A missing value is None, a time its ISO 8601 text. The index of a pandas DataFrame is no column: `reset_index()` makes it one.

    Args:
        records: rows in any iterable, or a DataFrame.
    """
    frame: Any = records
    if hasattr(frame, "iter_rows") and hasattr(frame, "columns"):  # Polars
        return _plain(frame.iter_rows(named=True))
    if hasattr(frame, "to_batches") and hasattr(frame, "column_names"):  # Arrow
        return _plain(row for batch in frame.to_batches() for row in batch.to_pylist())
    if hasattr(frame, "itertuples") and hasattr(frame, "columns"):  # pandas
        names = [str(name) for name in frame.columns]
        return _plain(dict(zip(names, row, strict=True)) for row in frame.itertuples(index=False, name=None))
    return records


def _plain(rows: Iterable[dict[str, Any]]) -> Iterator[Any]:
    for row in rows:
        yield {name: _value(value) for name, value in row.items()}


def _value(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, (str, list, dict)) or value is None:
        return value
    if hasattr(value, "tolist"):  # NumPy
        value = value.tolist()
    if type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value):  # noqa: PLR0124
        return None
    return value.isoformat() if hasattr(value, "isoformat") else value
