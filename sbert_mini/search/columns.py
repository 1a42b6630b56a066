"""The columns of an index's rows: the type of each, and writing a segment's values (`search.column_reader` reads them).

**Types.** A type belongs to a column of the index: `integer` (64 bits), `number` (float64), `boolean` or `text`. It is inferred
from the whole first input that has a value in the column: the narrowest type from which every value reads back unchanged. So the
CSV values 7 and 12 are integers, while 007, 1.10, 123e456 and numbers of 20 digits are text, and stay different from 7, 1.1 and
their like. A string of a typed source (JSON, Parquet, Python) is text whatever it spells. Mixed values are text; lists and
objects are their JSON text. null, a column that a row does not have, and an empty cell of a CSV column that is not text are NULL.
A type may also be declared; then a value needs only be readable as that type (`10.50` as a number).

Later rows must fit: a value that does not is an error. A text column takes everything.

**Files.** `columns.bin` holds arrays, one after the other, and `columns.json` says where they lie:

    {"rows": int, "columns": [{"name", "type", "row_id": bool, "count": int,
      "positions": [start, bytes] | null,          uint32: the rows that have a value; null where all have one
      "values": [start, bytes],                    int64, float64, uint8; or text: UTF-8, one text after the other
      "offsets": [start, bytes] | null,            text: int64, where each text starts, and the end of the last
      "codes": [start, bytes] | null,              text of few different values: uint16, places in the sorted list of these
      "hashes": [start, bytes] | null,             text of many different values: uint32, the CRC-32 of each text's UTF-8
      "narrow": [start, bytes] | null}]}           integers of at most 32 bits: the same in 8, 16 or 32, for filters

The size of both follows the number of values, not rows times columns. `id` is the row's id. Indexes of before 2026-11-29 have no
`hashes`: there a text is looked for by its length and its bytes. Nor have they `narrow`: their first filter checks more bytes.
"""

import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, get_args

import numpy as np

from sbert_mini.errors import CorruptIndexError, InputError, UsageError
from sbert_mini.files.durable import flush, json_bytes, write_durably
from sbert_mini.shapes import AnyArray, IntArray

ColumnType: TypeAlias = Literal["integer", "number", "boolean", "text"]
COLUMN_TYPES: tuple[str, ...] = get_args(ColumnType)
ID = "id"
DATA, DESCRIPTION = "columns.bin", "columns.json"
MAX_DICTIONARY = 1 << 16
"""Different texts of a column up to which its rows hold codes."""
_EXACT_IN_FLOAT = 1 << 53
VALUES_IN_MEMORY = 200_000
_ALIGNMENT = 8
_TEXT = frozenset({"text"})
_TRUTH, _NUMBER, _LARGE_INTEGER = (_TEXT | {type} for type in ("boolean", "number", "integer"))
_INTEGER = _NUMBER | _LARGE_INTEGER
_ANY = frozenset(COLUMN_TYPES)
STORED_TYPES: dict[str, str] = {"integer": "<i8", "number": "<f8", "boolean": "|u1"}
NARROW_TYPES: dict[int, str] = {1: "|i1", 2: "<i2", 4: "<i4"}
"""Bytes of an integer -> its type in `narrow`."""


# --- types -----------------------------------------------------------------------------------------------------------


def possible_types(value: Any, *, typed: bool) -> frozenset[str]:
    """Return the types from which a value reads back unchanged; `text` is always one of them.

    Args:
        value: as JSON has it: None, bool, int, float, str, list or dict.
        typed: whether the source has types; if not, a string may spell another type (`Record.typed`).
    """
    if isinstance(value, str):
        if typed:
            return _TEXT
        return _spelled(value) if value else _ANY
    if value is None:
        return _ANY
    if isinstance(value, bool):
        return _TRUTH
    if isinstance(value, int):
        return _whole(value)
    return _NUMBER if isinstance(value, float) and math.isfinite(value) else _TEXT


def _whole(value: int) -> frozenset[str]:
    """Return the types that hold an integer."""
    if abs(value) <= _EXACT_IN_FLOAT:
        return _INTEGER
    return _LARGE_INTEGER if -(2**63) <= value < 2**63 else _TEXT


def _spelled(text: str) -> frozenset[str]:
    """Return the types from which a text reads back unchanged."""
    if text in ("true", "false"):
        return _TRUTH
    if len(text) > 32 or not text.isascii() or not text[-1].isdigit():
        return _TEXT
    try:
        if str(int(text)) == text:
            return _whole(int(text))
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return _TEXT
    return _NUMBER if math.isfinite(number) and repr(number) == text else _TEXT


def converted(value: Any, type: str) -> Any:
    """Return a value as a column of this type holds it, or None for NULL.

    Raises:
        ValueError: it cannot be read as one.
    """
    if value is None or (value == "" and type != "text"):
        return None
    if type == "text":
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if type == "boolean":
        return _boolean(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"not {type}")
    if isinstance(value, str) and "_" in value:
        raise ValueError(f"not {type}")
    number = float(value) if type == "number" else _integer(value)
    in_range = math.isfinite(number) if type == "number" else -(2**63) <= number < 2**63
    if not in_range:
        raise ValueError("out of range")
    return number


def shown_columns(columns: Mapping[str, Any], types: Mapping[str, str | None]) -> dict[str, Any]:
    """Return a row's columns as they are shown to who reads the index; stored they are as the source had them.

    CSV has no types: its 2019 is a text. Where the column is integer, number or boolean, such a text is shown as that value if
    the value is spelled so ("2019", but not "007" or "10.50", which a declared type allows), and an empty cell as None.

    Args:
        columns: of the row.
        types: column -> its type; None for a column without any value yet.
    """
    return {name: _shown_value(value, types.get(name)) for name, value in columns.items()}


def _shown_value(value: Any, type: str | None) -> Any:
    if not isinstance(value, str) or type in (None, "text"):
        return value
    if not value:
        return None
    if type not in _spelled(value):
        return value
    if type == "boolean":
        return value == "true"
    return float(value) if set(value) & set(".e") else int(value)


def _boolean(value: Any) -> bool:
    spelled = str(value).lower()
    if spelled not in ("true", "false", "1", "0"):
        raise ValueError("not boolean")
    return spelled in ("true", "1")


def _integer(value: int | float | str) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise ValueError("not integer")
    return int(value)


@dataclass
class _Column:
    """What is known of a column's type.

    Attributes:
        type: its type; None as long as no value was stored.
        declared: whether a user named the type.
        possible: while the type is inferred, what the values so far allow.
    """

    type: str | None = None
    declared: bool = False
    possible: frozenset[str] | None = None


class Schema:
    """The columns of an index with their types, while rows are written.

    Args:
        known: of the rows that are stored already, as `described` gave it.
        declared: types that the user names for columns, by name.

    Raises:
        UsageError: a declared type is unknown, or another than the column has.
    """

    def __init__(self, known: Iterable[Mapping[str, Any]] = (), declared: Mapping[str, str] | None = None) -> None:
        self._columns = {entry["name"]: _Column(entry["type"], bool(entry["declared"])) for entry in known}
        self._unseen = set(declared or {})
        for name, type_ in (declared or {}).items():
            if type_ not in COLUMN_TYPES:
                raise UsageError(f"the type of the column {name!r} must be one of {_listed()}; found {type_!r}")
            if name == ID:
                raise UsageError("the column id is the row's id, which is text; it takes no type")
            column = self._columns.setdefault(name, _Column())
            if column.type not in (None, type_):
                raise UsageError(f"the column {name!r} is {column.type} in this index, not {type_}")
            column.type, column.declared = type_, True

    def take(self, columns: Mapping[str, Any], *, typed: bool) -> None:
        """Note a row's values.

        Raises:
            InputError: a value does not fit its column; nothing is noted then.
        """
        inferred: list[tuple[_Column, frozenset[str]]] = []
        new: dict[str, _Column] = {}
        for name, value in columns.items():
            column = self._columns.get(name)
            if column is None:
                column = new[name] = _Column()
            if column.type is not None:
                self._check(name, column, value, typed=typed)
            elif column.possible != _TEXT:
                inferred.append((column, possible_types(value, typed=typed)))
        self._columns.update(new)
        for column, possible in inferred:
            if possible != _ANY:  # not NULL
                column.possible = possible if column.possible is None else column.possible & possible
        if self._unseen:
            self._unseen.difference_update(columns)

    def _check(self, name: str, column: _Column, value: Any, *, typed: bool) -> None:
        if column.type == "text":
            return
        fits = True
        try:
            if column.declared:
                converted(value, str(column.type))
            else:
                fits = column.type in possible_types(value, typed=typed)
        except ValueError:
            fits = False
        if not fits:
            how = "was declared" if column.declared else "is, by the rows before,"
            raise InputError(f"the column {name!r} {how} {column.type}, and {_shortened(value)} does not fit")

    def finish(self) -> None:
        """Fix the types that were inferred: once all rows are noted.

        Raises:
            InputError: a type was declared for a column that no row has.
        """
        if self._unseen:
            raise InputError(f"no row has the column {min(self._unseen)!r}, for which a type was given")
        for column in self._columns.values():
            if column.type is None and column.possible is not None:
                column.type = next(type for type in COLUMN_TYPES if type in column.possible)

    def type_of(self, name: str) -> str | None:
        """Return a column's type; None where it has no value yet.

        Raises:
            CorruptIndexError: there is no such column, so a row names one that the index's manifest does not.
        """
        if name not in self._columns:
            raise CorruptIndexError(f"the index is damaged: a row has the column {name!r}, and its manifest does not")
        return self._columns[name].type

    def described(self) -> list[dict[str, Any]]:
        """Return `{"name", "type", "declared"}` of each, as a manifest keeps it; a column without a value has the type None."""
        return [{"name": name} | {"type": c.type, "declared": c.declared} for name, c in self._columns.items()]


def _listed() -> str:
    return ", ".join(COLUMN_TYPES)


def _shortened(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 60 else shown[:59] + "…"


# --- writing ---------------------------------------------------------------------------------------------------------


class ColumnsWriter:
    """Writes a segment's columns. A context manager; what it left after an exception is the caller's to remove.

    Values are spooled to the disk beside the result and sorted by column at the end: memory holds some of them, and the
    different texts of one column.

    Args:
        folder: the segment's folder.
        schema: the columns' types; `Schema.finish` is called at the end.
        values_in_memory: values after which they are spooled.
    """

    def __init__(self, folder: Path, schema: Schema, values_in_memory: int = VALUES_IN_MEMORY) -> None:
        self._folder = folder
        self._values_in_memory = values_in_memory
        self._schema = schema
        self._rows = 0
        self._pending: dict[tuple[bool, str], tuple[list[int], list[Any]]] = {}
        self._values = 0
        self._chunks: dict[tuple[bool, str], list[tuple[int, int]]] = {}

    def __enter__(self) -> "ColumnsWriter":
        self._spool = (self._folder / "columns.spool").open("wb+")
        return self

    def write(self, identity: str, columns: Mapping[str, Any]) -> None:
        """Append a row, whose values the schema has noted; its position is the count of those before it."""
        self._append((True, ID), identity)
        for name, value in columns.items():
            if name != ID:
                self._append((False, name), value)
        self._rows += 1
        if self._values > self._values_in_memory:
            self._flush()

    def _append(self, key: tuple[bool, str], value: Any) -> None:
        if value is None:
            return
        entry = self._pending.get(key)
        if entry is None:
            entry = self._pending[key] = ([], [])
        entry[0].append(self._rows)
        entry[1].append(value)
        self._values += 1

    def _flush(self) -> None:
        for key, chunk in self._pending.items():
            data = json.dumps(chunk).encode()
            self._chunks.setdefault(key, []).append((self._spool.tell(), len(data)))
            self._spool.write(data)
        self._pending.clear()
        self._values = 0

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
                self._schema.finish()
                self._complete()
        finally:
            self._spool.close()
            (self._folder / "columns.spool").unlink(missing_ok=True)

    def _complete(self) -> None:
        described = []
        with (self._folder / DATA).open("wb") as stream:
            for row_id, name in self._chunks:
                type = "text" if row_id else self._schema.type_of(name)
                if type is None:
                    continue
                described.append(
                    {"name": name, "row_id": row_id, "type": type} | self._column(stream, row_id, name, type)
                )
            flush(stream)
        write_durably(self._folder / DESCRIPTION, json_bytes({"rows": self._rows, "columns": described}))

    def _read(self, row_id: bool, name: str, type: str) -> Iterator[tuple[list[int], list[Any]]]:
        """Yield a column's positions and values, as the type has them, without NULLs, chunk by chunk."""
        for start, size in self._chunks[row_id, name]:
            self._spool.seek(start)
            positions, values = json.loads(self._spool.read(size))
            pairs = [
                (p, v) for p, v in zip(positions, (converted(v, type) for v in values), strict=True) if v is not None
            ]
            yield [p for p, _ in pairs], [v for _, v in pairs]

    def _column(self, stream: IO[bytes], row_id: bool, name: str, type: str) -> dict[str, Any]:
        """Write a column's arrays and return where they lie."""
        positions = np.concatenate(
            [np.array(chunk, dtype="<u4") for chunk, _ in self._read(row_id, name, type)] or [np.empty(0, "<u4")]
        )
        arrays: dict[str, Any] = {"count": len(positions), "positions": None} | dict.fromkeys(
            ("offsets", "codes", "hashes", "narrow")
        )
        if len(positions) < self._rows:
            arrays["positions"] = _appended(stream, [positions.tobytes()])
        values: Iterator[list[Any]] = (values for _, values in self._read(row_id, name, type))
        if type != "text":
            arrays["values"] = _appended(
                stream, (np.array(chunk, dtype=STORED_TYPES[type]).tobytes() for chunk in values)
            )
            if type == "integer":
                arrays["narrow"] = self._narrow(stream, row_id, name)
            return arrays
        different = self._different(row_id, name)
        lengths: list[IntArray] = []
        hashes: list[bytes] = []
        if different is not None and 2 * len(different) <= len(positions):
            code_of = {text: code for code, text in enumerate(different)}
            codes = (np.array([code_of[text] for text in chunk], dtype="<u2").tobytes() for chunk in values)
            arrays["codes"] = _appended(stream, codes)
            values = iter([different])
        arrays["values"] = _appended(stream, _encoded(values, lengths, hashes))
        ends = np.cumsum(np.concatenate([np.zeros(1, np.int64), *lengths]), dtype=np.int64)
        arrays["offsets"] = _appended(stream, [ends.astype("<i8").tobytes()])
        if arrays["codes"] is None:
            arrays["hashes"] = _appended(stream, hashes)
        return arrays

    def _narrow(self, stream: IO[bytes], row_id: bool, name: str) -> list[int] | None:
        """Write a column's integers in fewer bits and return where they lie; None where they need more than 32, or are none."""
        bounds = [(min(chunk), max(chunk)) for _, chunk in self._read(row_id, name, "integer") if chunk]
        if not bounds:
            return None
        low, high = min(low for low, _ in bounds), max(high for _, high in bounds)
        for dtype in NARROW_TYPES.values():
            limits = np.iinfo(dtype)
            if limits.min <= low and high <= limits.max:
                chunks = (chunk for _, chunk in self._read(row_id, name, "integer"))
                return _appended(stream, (np.array(chunk, dtype=dtype).tobytes() for chunk in chunks))
        return None

    def _different(self, row_id: bool, name: str) -> list[str] | None:
        """Return a text column's different values, sorted by code point; None where there are many."""
        different: set[str] = set()
        for _, values in self._read(row_id, name, "text"):
            different.update(values)
            if len(different) > MAX_DICTIONARY:
                return None
        return sorted(different)


def hashes_of(texts: Iterable[bytes]) -> AnyArray:
    """Return the numbers by which texts are looked for: the CRC-32 of their UTF-8. Shapes: (texts,), uint32."""
    return np.fromiter(map(zlib.crc32, texts), "<u4")


def _encoded(chunks: Iterable[list[str]], lengths: list[IntArray], hashes: list[bytes]) -> Iterator[bytes]:
    """Yield the texts' UTF-8, and add their lengths in bytes to `lengths` and their hashes to `hashes`."""
    for chunk in chunks:
        texts = [text.encode("utf-8", "surrogatepass") for text in chunk]
        lengths.append(np.fromiter(map(len, texts), np.int64, len(texts)))
        hashes.append(hashes_of(texts).tobytes())
        yield b"".join(texts)


def _appended(stream: IO[bytes], parts: Iterable[bytes]) -> list[int]:
    """Write an array at the next aligned place; return its start and its size in bytes."""
    stream.write(bytes(-stream.tell() % _ALIGNMENT))
    start = stream.tell()
    for part in parts:
        stream.write(part)
    return [start, stream.tell() - start]
