"""A segment's columns on the disk (`search.columns` writes them), memory-mapped and checked part by part."""

import itertools
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

from sbert_mini.errors import CorruptIndexError
from sbert_mini.files import system
from sbert_mini.search.checksums import CheckedFile, file_checksums
from sbert_mini.search.columns import DATA, DESCRIPTION, NARROW_TYPES, STORED_TYPES, ColumnsWriter, Schema, hashes_of
from sbert_mini.shapes import AnyArray, IntArray

_FEW_TEXTS = 8
_FEW_CANDIDATES = 256


class Checked(Protocol):
    """A file whose parts can be checked (`checksums.CheckedFile`)."""

    path: Path
    size: int

    @property
    def mapped(self) -> AnyArray:
        """The file, memory-mapped: uint8, (bytes,)."""

    def check(self, start: int, stop: int, threads: int = 1) -> None:
        """Check the blocks that these bytes lie in."""


@dataclass(frozen=True)
class Values:
    """Some consecutive rows' values of a column, or of what is computed from columns.

    Attributes:
        type: a `ColumnType`, or `null` where every value is NULL.
        values: int64, float64, bool, or str as objects; anything where `valid` is False.
        valid: which values are not NULL.

    Shapes:
        values, valid: (rows,).
    """

    type: str
    values: AnyArray
    valid: AnyArray


@lru_cache(maxsize=4)
def all_valid(rows: int) -> AnyArray:
    """Return `Values.valid` of rows without a NULL, (rows,): always the same array, which is how it is recognized."""
    valid = np.ones(rows, dtype=bool)
    valid.flags.writeable = False
    return valid


class Texts:
    """Texts to look for in a column.

    Attributes:
        encoded: their UTF-8.
        hashes: of these, ascending.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.encoded = frozenset(text.encode("utf-8", "surrogatepass") for text in texts)
        self.hashes = np.unique(hashes_of(self.encoded))


class _Array:
    """An array in a file, memory-mapped.

    Args:
        file: the file.
        extent: where it starts, and its size in bytes; None for an empty array.
        dtype: of its items.

    Attributes:
        items: the array. Its bytes are not checked.

    Raises:
        CorruptIndexError: it does not lie in the file.
    """

    def __init__(self, file: Checked, extent: list[int] | None, dtype: str) -> None:
        self._file = file
        self._start, self._bytes = extent or (0, 0)
        if self._start + self._bytes > file.size:
            raise CorruptIndexError(f"{file.path} holds {file.size} bytes, and not {self._bytes} from {self._start} on")
        self.items: AnyArray = np.empty(0, dtype)
        if count := self._bytes // self.items.itemsize:
            stop = self._start + count * self.items.itemsize
            self.items = file.mapped[self._start : stop].view(dtype)

    def checked(self, threads: int = 1) -> AnyArray:
        """Return the array after all of its bytes were checked.

        Raises:
            CorruptIndexError: a block does not match its checksum.
        """
        if self._bytes:
            self._file.check(self._start, self._start + self._bytes, threads)
        return self.items

    def checked_part(self, low: int, high: int) -> AnyArray:
        """Return the items from `low` up to, without, `high`, after they were checked."""
        if low < high:
            size = self.items.itemsize
            self._file.check(self._start + low * size, self._start + high * size)
        return self.items[low:high]


class Column:
    """A column of a segment.

    Of many different texts only those are read, and checked, whose hash is one that is looked for.

    Args:
        entry: the column in `columns.json`.
        file: `columns.bin`.
        rows: of the segment.
        threads: for checking its bytes.

    Attributes:
        type: its `ColumnType`.
        has_dictionary: whether it is text of few different values, of which it has a list.
    """

    def __init__(self, entry: Mapping[str, Any], file: Checked, rows: int, threads: int = 1) -> None:
        self.type: str = entry["type"]
        self.has_dictionary = entry["codes"] is not None
        self._name: str = entry["name"]
        self._rows = rows
        self._path = file.path
        self._threads = threads
        self._offsets = _Array(file, entry["offsets"], "<i8")
        self._data = self._stored_values(entry, file)
        self._hashes = None if entry.get("hashes") is None else _Array(file, entry["hashes"], "<u4")
        positions, codes = (
            _Array(file, entry[name], dtype) for name, dtype in (("positions", "<u4"), ("codes", "<u2"))
        )
        self._positions = None if entry["positions"] is None else positions.checked(threads)
        self._codes = codes.checked(threads)
        self._count = rows if self._positions is None else len(self._positions)
        stored = self._data.items
        if self.type == "text":
            stored = self._codes if self.has_dictionary else self._offsets.items[:-1]
        elif entry["codes"] is not None or entry["offsets"] is not None:
            raise self._damaged()
        else:
            self._data.checked(threads)
        hashes = stored if self._hashes is None else self._hashes.items
        if not int(entry["count"]) == self._count == len(stored) == len(hashes) or not self._has_sound_positions():
            raise self._damaged()
        self._texts_are_checked = False
        if self.has_dictionary:
            self._check_texts()

    def _stored_values(self, entry: Mapping[str, Any], file: Checked) -> _Array:
        """Return the array of the values: of integers that fit fewer bits the smaller one, as all its bytes are checked."""
        extent = entry.get("narrow") if self.type == "integer" else None
        if extent is None:
            return _Array(file, entry["values"], STORED_TYPES.get(self.type, "|u1"))
        count = int(entry["count"])
        width = extent[1] // count if count else 0
        if width not in NARROW_TYPES:
            raise CorruptIndexError(f"{file.path} does not hold {count} values of the column {self._name!r}")
        return _Array(file, extent, NARROW_TYPES[width])

    def _damaged(self) -> CorruptIndexError:
        return CorruptIndexError(f"{self._path} does not hold {self._count} values of the column {self._name!r}")

    def _has_sound_positions(self) -> bool:
        positions = self._positions
        if positions is None or not len(positions):
            return True
        return bool(np.all(positions[1:] > positions[:-1])) and int(positions[-1]) < self._rows

    def _check_texts(self) -> None:
        """Check all texts.

        Raises:
            CorruptIndexError: an offset or a code is outside of what it is a place in.
        """
        if self._texts_are_checked:
            return
        offsets, data = self._offsets.checked(self._threads), self._data.checked(self._threads)
        sound = len(offsets) > 0 and int(offsets[0]) == 0 and int(offsets[-1]) == len(data)
        if not sound or np.any(offsets[1:] < offsets[:-1]):
            raise self._damaged()
        if len(self._codes) and int(self._codes.max()) >= len(offsets) - 1:
            raise self._damaged()
        self._texts_are_checked = True

    @cached_property
    def dictionary(self) -> AnyArray:
        """The column's different texts, sorted by code point, where it has such a list."""
        return self._texts(0, len(self._offsets.items) - 1)

    def codes(self, first: int, last: int) -> tuple[AnyArray, AnyArray]:
        """Return the places in `dictionary` of the rows from `first` up to, without, `last`, and which of them are valid."""
        return self._dense(first, last, self._codes, np.uint16)

    def equal_to(self, first: int, last: int, texts: Texts) -> tuple[AnyArray, AnyArray]:
        """Return which rows of a text column without a dictionary are one of some texts, and which are valid."""
        low, high = self._span(first, last)
        if self._hashes is None:
            lengths = np.unique([len(text) for text in texts.encoded])
            self._check_texts()
            candidates = np.flatnonzero(_among(np.diff(self._offsets.items[low : high + 1]), lengths)) + low
        else:
            hashes = self._hashes.checked(self._threads)[low:high]
            candidates = np.flatnonzero(_among(hashes, texts.hashes)) + low
        same = np.zeros(high - low, dtype=bool)
        same[candidates[self._are(candidates, texts)] - low] = True
        return self._spread(first, last, same, bool)

    def _are(self, candidates: IntArray, texts: Texts) -> AnyArray:
        """Return which of some stored texts are one of those that are looked for, (candidates,) bool."""
        if len(candidates) <= _FEW_CANDIDATES and self._hashes is not None:
            for candidate in candidates.tolist():
                start, stop = self._offsets.checked_part(candidate, candidate + 2).tolist()
                if not 0 <= start <= stop <= len(self._data.items):
                    raise self._damaged()
                self._data.checked_part(start, stop)
        else:
            self._check_texts()
        starts, stops = self._offsets.items[candidates], self._offsets.items[candidates + 1]
        if len(texts.encoded) <= _FEW_TEXTS:
            equal = np.zeros(len(candidates), dtype=bool)
            for text in texts.encoded:
                equal |= _spelled(self._data.items, starts, stops, text)
            return equal
        pairs = zip(starts.tolist(), stops.tolist(), strict=True)
        return np.array([self._data.items[start:stop].tobytes() in texts.encoded for start, stop in pairs], dtype=bool)

    def made_of(self, first: int, last: int, pieces: Sequence[str]) -> tuple[AnyArray, AnyArray]:
        """Return which rows of a text column without a dictionary are some pieces with any text between, and which are valid.

        Args:
            first: the first row.
            last: the row after the last one.
            pieces: the beginning, perhaps one in the middle, and the end; each may be empty. Their UTF-8 is compared.
        """
        self._check_texts()
        low, high = self._span(first, last)
        starts, stops, data = self._offsets.items[low:high], self._offsets.items[low + 1 : high + 1], self._data.items
        begin, *middle, end = (piece.encode("utf-8", "surrogatepass") for piece in pieces)
        fitting = stops - starts >= sum(map(len, (begin, *middle, end)))
        for begins, piece in ((starts, begin), (stops - len(end), end)):
            if piece:
                fitting = _spelled(data, begins, begins + np.where(fitting, len(piece), -1), piece)
        if middle and middle[0] and high > low:
            block = data[starts[0] : stops[-1]].tobytes()
            borders = (self._offsets.items[low : high + 1] - starts[0]).tolist()
            having = np.zeros(high - low, dtype=bool)
            having[list(_having(block, borders, middle[0], len(begin), len(end)))] = True
            fitting &= having
        return self._spread(first, last, fitting, bool)

    def values(self, first: int, last: int) -> Values:
        """Return the values of the rows from `first` up to, without, `last`."""
        if self.type == "text":
            if self.has_dictionary:
                codes, valid = self.codes(first, last)
                texts = self.dictionary[codes] if len(self.dictionary) else np.full(len(codes), "", object)
                return Values("text", texts, valid)
            low, high = self._span(first, last)
            return Values("text", *self._spread(first, last, self._texts(low, high), object))
        dtype = {"integer": np.int64, "number": np.float64, "boolean": bool}[self.type]
        return Values(self.type, *self._dense(first, last, self._data.items, dtype))

    def _span(self, first: int, last: int) -> tuple[int, int]:
        """Return the places of the rows' values among those that are stored."""
        if self._positions is None:
            return first, last
        low, high = np.searchsorted(self._positions, [first, last])
        return int(low), int(high)

    def _dense(self, first: int, last: int, stored: AnyArray, dtype: Any) -> tuple[AnyArray, AnyArray]:
        low, high = self._span(first, last)
        return self._spread(first, last, stored[low:high].astype(dtype, copy=False), dtype)

    def _spread(self, first: int, last: int, stored: AnyArray, dtype: Any) -> tuple[AnyArray, AnyArray]:
        """Return values and validity by row, from the values that are stored for these rows."""
        if self._positions is None:
            return stored, all_valid(last - first)
        low, high = self._span(first, last)
        rows = self._positions[low:high].astype(np.int64) - first
        values = np.full(last - first, "", object) if dtype is object else np.zeros(last - first, dtype)
        valid = np.zeros(last - first, dtype=bool)
        values[rows], valid[rows] = stored, True
        return values, valid

    def _texts(self, low: int, high: int) -> AnyArray:
        self._check_texts()
        starts = self._offsets.items[low : high + 1].tolist()
        base = starts[0]
        data = self._data.items[base : starts[-1]].tobytes()
        texts = np.empty(high - low, dtype=object)
        try:
            texts[:] = [
                data[start - base : stop - base].decode("utf-8", "surrogatepass")
                for start, stop in itertools.pairwise(starts)
            ]
        except UnicodeDecodeError as error:
            raise CorruptIndexError(f"{self._path} holds a text that is not UTF-8") from error
        return texts


def _having(data: bytes, borders: Sequence[int], piece: bytes, before: int, after: int) -> Iterator[int]:
    """Yield which of some texts, one after the other in `data`, have a piece between their first and last bytes.

    Args:
        data: the texts.
        borders: where each begins, and the end of the last.
        piece: what they must have.
        before: so many bytes at the beginning of a text do not count.
        after: nor so many at its end.
    """
    at = data.find(piece)
    while at >= 0:
        text = bisect_right(borders, at) - 1
        if borders[text] + before <= at and at + len(piece) <= borders[text + 1] - after:
            yield text
            at = data.find(piece, borders[text + 1])
        else:
            at = data.find(piece, at + 1)


def _among(values: AnyArray, sought: AnyArray) -> AnyArray:
    """Return which values are among some others, which ascend and are not none, (values,) bool."""
    if len(sought) > _FEW_TEXTS:
        nearest = np.minimum(np.searchsorted(sought, values), len(sought) - 1)
        return np.asarray(sought[nearest] == values)
    among = values == sought[0]
    for one in sought[1:]:
        among |= values == one
    return among


def _spelled(data: AnyArray, starts: IntArray, stops: IntArray, text: bytes) -> AnyArray:
    """Return which spans of some bytes are a text, (spans,) bool."""
    equal = np.zeros(len(starts), dtype=bool)
    spans = np.flatnonzero(stops - starts == len(text))
    for offset in reversed(range(len(text))):  # from the end: texts of one column often begin alike
        if not len(spans):
            break
        spans = spans[data[starts[spans] + offset] == text[offset]]
    equal[spans] = True
    return equal


def columns_from(rows: Iterable[tuple[str, Mapping[str, Any]]], schema: Schema, count: int) -> "Columns":
    """Return the columns of rows that have none on the disk: they are written into a temporary file, which nobody else opens.

    Args:
        rows: the id and the values of each.
        schema: the columns' types; it has noted every value.
        count: the number of rows.
    """
    with TemporaryDirectory(prefix="sbmini-", ignore_cleanup_errors=system.KEEPS_OPEN_FILES) as name:
        folder = Path(name)
        with ColumnsWriter(folder, schema) as writer:
            for identity, values in rows:
                writer.write(identity, values)
        description = json.loads((folder / DESCRIPTION).read_bytes())
        return Columns(description, CheckedFile(folder / DATA, file_checksums(folder / DATA)), count)


class Columns:
    """A segment's columns, opened for reading; a column is read, and checked, when it is first asked for.

    Args:
        description: what `columns.json` holds; the caller has checked it.
        file: `columns.bin`.
        rows: of the segment.

    Raises:
        CorruptIndexError: the description is of other rows.
    """

    def __init__(self, description: Mapping[str, Any], file: Checked, rows: int) -> None:
        self._file = file
        self._entries: dict[str, Mapping[str, Any]] = {entry["name"]: entry for entry in description["columns"]}
        self.rows = rows
        if description["rows"] != rows:
            raise CorruptIndexError(f"{file.path} holds the columns of {description['rows']} rows, not {rows}")
        self._opened: dict[str, Column] = {}

    @property
    def are_hashed(self) -> bool:
        """Whether every column of many different texts has their hashes."""
        texts = (entry for entry in self._entries.values() if entry["type"] == "text" and entry["codes"] is None)
        return all(entry.get("hashes") is not None for entry in texts)

    def column(self, name: str, threads: int = 1) -> Column | None:
        """Return a column, or None where no row of the segment has a value in it.

        Args:
            name: the column's.
            threads: for checking its bytes, when it is first asked for.

        Raises:
            CorruptIndexError: its bytes do not match their checksums.
        """
        if name not in self._opened:
            entry = self._entries.get(name)
            if entry is None:
                return None
            self._opened[name] = Column(entry, self._file, self.rows, threads)
        return self._opened[name]
