"""What may stand in a JSON file: a schema for each kind of value, and reading a file that must fit one.

    CONFIG = Object({"rows": Required(Integer(0, MANY)), "name": Text()})
    data = read_json(path, CONFIG, CorruptIndexError)     # or CorruptIndexError: "FILE: rows must be ..., found ..."

Files of models and indexes may come from anybody. So every value that is used later has a type and a range here, and what does
not fit is one line of error that names the file and the key. Keys that a schema does not name are ignored.
"""

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sbert_mini.errors import SbertMiniError

MANY = 1 << 53
"""The greatest whole number: every JSON reader keeps it exactly, and 64 bits hold it."""
_SHOWN = 60
_HALVES = re.compile("[\ud800-\udfff]")


class Schema(Protocol):
    """What a value must be."""

    @property
    def name(self) -> str:
        """What is required, as a noun phrase."""
        ...

    def fault(self, value: Any) -> tuple[str, str, Any] | None:
        """Return None where the value fits; else which part of it does not (`.key[0]`), what that must be, and what it is."""
        ...


@dataclass(frozen=True)
class Integer:
    """A whole number in a range; a bool is none."""

    least: int = 0
    greatest: int = MANY

    @property
    def name(self) -> str:
        """See `Schema`."""
        return f"a whole number from {self.least} to {self.greatest}"

    def fault(self, value: Any) -> tuple[str, str, Any] | None:
        """See `Schema`."""
        fits = isinstance(value, int) and not isinstance(value, bool) and self.least <= value <= self.greatest
        return None if fits else ("", self.name, value)


@dataclass(frozen=True)
class Number:
    """A finite number in a range; a bool is none."""

    least: float = -1e308
    greatest: float = 1e308

    @property
    def name(self) -> str:
        """See `Schema`."""
        if (self.least, self.greatest) == (-1e308, 1e308):
            return "a finite number"
        return f"a number from {self.least:g} to {self.greatest:g}"

    def fault(self, value: Any) -> tuple[str, str, Any] | None:
        """See `Schema`."""
        fits = isinstance(value, int | float) and not isinstance(value, bool) and self.least <= value <= self.greatest
        return None if fits else ("", self.name, value)


@dataclass(frozen=True)
class Flag:
    """True or false."""

    name: str = "true or false"

    def fault(self, value: Any) -> tuple[str, str, Any] | None:
        """See `Schema`."""
        return None if isinstance(value, bool) else ("", self.name, value)


@dataclass(frozen=True)
class Text:
    """A string of whole characters: half of a surrogate pair is none.

    Attributes:
        pattern: a regular expression that all of it must match.
        name: what is required, for people.
        halves: take half of a surrogate pair too, for texts that are only stored and shown.
    """

    pattern: str | None = None
    name: str = "a text"
    halves: bool = False

    def fault(self, value: Any) -> tuple[str, str, Any] | None:
        """See `Schema`."""
        fits = isinstance(value, str) and (self.halves or value.isascii() or not _HALVES.search(value))
        fits = fits and (self.pattern is None or re.fullmatch(self.pattern, value) is not None)
        return None if fits else ("", self.name, value)


@dataclass(frozen=True)
class PathText:
    """A string that a file may be called; bytes that are not UTF-8 are written as Python's `surrogateescape` does."""

    name: str = "a path"

    def fault(self, value: Any) -> tuple[str, str, Any] | None:
        """See `Schema`."""
        try:
            fits = isinstance(value, str) and b"\0" not in os.fsencode(value)
        except UnicodeEncodeError:
            fits = False
        return None if fits else ("", self.name, value)


@dataclass(frozen=True)
class OneOf:
    """One of some texts or numbers."""

    values: tuple[str | int, ...]

    @property
    def name(self) -> str:
        """See `Schema`."""
        return ("one of " if len(self.values) > 1 else "") + ", ".join(str(value) for value in self.values)

    def fault(self, value: Any) -> tuple[str, str, Any] | None:
        """See `Schema`."""
        fits = any(type(value) is type(known) and value == known for known in self.values)
        return None if fits else ("", self.name, value)


@dataclass(frozen=True)
class Anything:
    """Any value of JSON: it is not interpreted."""

    name: str = "any value"

    def fault(self, value: Any) -> tuple[str, str, Any] | None:  # noqa: ARG002
        """See `Schema`."""
        return None


@dataclass(frozen=True)
class Either:
    """What fits any of some schemas. Where none fits, the error names all."""

    schemas: tuple[Schema, ...]

    @property
    def name(self) -> str:
        """See `Schema`."""
        return " or ".join(schema.name for schema in self.schemas)

    def fault(self, value: Any) -> tuple[str, str, Any] | None:
        """See `Schema`."""
        faults = [schema.fault(value) for schema in self.schemas]
        if None in faults:
            return None
        inside = [fault for fault in faults if fault is not None and fault[0]]
        return inside[0] if inside else ("", self.name, value)


@dataclass(frozen=True)
class Null:
    """Null."""

    name: str = "null"

    def fault(self, value: Any) -> tuple[str, str, Any] | None:
        """See `Schema`."""
        return None if value is None else ("", self.name, value)


@dataclass(frozen=True)
class ListOf:
    """A list whose items all fit a schema."""

    items: Schema
    least: int = 0

    @property
    def name(self) -> str:
        """See `Schema`."""
        return f"a list of {self.least} or more" if self.least else "a list"

    def fault(self, value: Any) -> tuple[str, str, Any] | None:
        """See `Schema`."""
        if not isinstance(value, list) or len(value) < self.least:
            return "", self.name, value
        for position, item in enumerate(value):
            fault = self.items.fault(item)
            if fault is not None:
                return f"[{position}]{fault[0]}", *fault[1:]
        return None


@dataclass(frozen=True)
class MapOf:
    """A JSON object of any keys, whose values all fit a schema."""

    values: Schema
    keys: Schema = field(default_factory=Text)
    name: str = "an object"

    def fault(self, value: Any) -> tuple[str, str, Any] | None:
        """See `Schema`."""
        if not isinstance(value, dict):
            return "", self.name, value
        for key, item in value.items():
            fault = self.keys.fault(key)
            if fault is not None:
                return "'s key", *fault[1:]
            fault = self.values.fault(item)
            if fault is not None:
                return f".{key}{fault[0]}", *fault[1:]
        return None


@dataclass(frozen=True)
class Required:
    """A key that must be there."""

    schema: Schema


@dataclass(frozen=True)
class Object:
    """A JSON object: what stands under its known keys. A key that is not `Required` may be absent; others are ignored."""

    keys: Mapping[str, Schema | Required]
    name: str = "an object"

    def fault(self, value: Any) -> tuple[str, str, Any] | None:
        """See `Schema`."""
        if not isinstance(value, dict):
            return "", self.name, value
        for key, entry in self.keys.items():
            schema = entry.schema if isinstance(entry, Required) else entry
            if key in value:
                fault = schema.fault(value[key])
                if fault is not None:
                    return f".{key}{fault[0]}", *fault[1:]
            elif isinstance(entry, Required):
                return f".{key}", schema.name, _ABSENT
        return None


_ABSENT = object()


def optional(schema: Schema) -> Either:
    """Return the schema of a value that may be null."""
    return Either((schema, Null()))


def check(value: Any, schema: Schema, where: object, damaged: type[SbertMiniError]) -> Any:
    """Return a value that fits a schema.

    Args:
        value: from JSON.
        schema: what it must be.
        where: the file, for the error.
        damaged: the exception to raise where it does not fit.
    """
    fault = schema.fault(value)
    if fault is None:
        return value
    part, required, actual = fault
    place = f"{where}: {part.removeprefix('.')}" if part else str(where)
    raise damaged(f"{place} must be {required}; found {_shown(actual)}")


def parse(data: bytes | str, where: object, damaged: type[SbertMiniError]) -> Any:
    """Return the value that JSON in UTF-8 holds, whatever it is.

    Args:
        data: the JSON.
        where: the file, for the error.
        damaged: the exception to raise where it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(data if isinstance(data, str) else data.decode())
    except (ValueError, RecursionError) as error:
        raise damaged(f"{where} cannot be read as JSON: {error}") from error


def read_json(path: Path, schema: Schema, damaged: type[SbertMiniError]) -> Any:
    """Return what a JSON file holds, which fits the schema.

    Args:
        path: the file.
        schema: what it must hold.
        damaged: the exception to raise where it cannot be read, or holds something else.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise damaged(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return check(parse(data, path, damaged), schema, path, damaged)


def _shown(value: Any) -> str:
    """Return a value as JSON on one line, cut where it is long."""
    if value is _ABSENT:
        return "nothing"
    if isinstance(value, list | dict):
        return f"a list of {len(value)}" if isinstance(value, list) else f"an object of {len(value)} keys"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**_SHOWN:
        return "a number of more than 60 digits"
    shown = json.dumps(value)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"
