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
from pathlib import Path
from typing import Any, TypeAlias

from sbert_mini.errors import SbertMiniError
from sbert_mini.files.reading import MOST_BYTES, read_whole

MANY = 1 << 53
"""The greatest whole number: every JSON reader keeps it exactly, and 64 bits hold it."""
_SHOWN = 60
_HALVES = re.compile("[\ud800-\udfff]")


Fault: TypeAlias = "tuple[str, str, Any] | None"
"""None where a value fits; else which part of it does not (`.key[0]`), what that must be, and what it is."""
_ABSENT = object()


# Plain classes: making dataclasses of them takes 6 ms of each start of the command.
class Schema:
    """What a value must be.

    Attributes:
        name: what is required, as a noun phrase.
    """

    name = "any value"

    def fits(self, value: Any) -> bool:  # noqa: ARG002
        """Return whether a value is what it must be, its parts left aside."""
        return True

    def part_fault(self, value: Any) -> Fault:  # noqa: ARG002
        """Return what is wrong with a part of a value that fits itself."""
        return None

    def fault(self, value: Any) -> Fault:
        """Return what is wrong with a value."""
        return self.part_fault(value) if self.fits(value) else ("", self.name, value)


class Anything(Schema):
    """Any value of JSON: it is not interpreted."""


class Integer(Schema):
    """A whole number in a range; a bool is none."""

    def __init__(self, least: int = 0, greatest: int = MANY) -> None:
        self.least, self.greatest = least, greatest
        self.name = f"a whole number from {least} to {greatest}"

    def fits(self, value: Any) -> bool:
        """See `Schema`."""
        return isinstance(value, int) and not isinstance(value, bool) and self.least <= value <= self.greatest


class Number(Schema):
    """A finite number in a range; a bool is none."""

    def __init__(self, least: float = -1e308, greatest: float = 1e308) -> None:
        self.least, self.greatest = least, greatest
        whole = (least, greatest) == (-1e308, 1e308)
        self.name = "a finite number" if whole else f"a number from {least:g} to {greatest:g}"

    def fits(self, value: Any) -> bool:
        """See `Schema`."""
        return isinstance(value, int | float) and not isinstance(value, bool) and self.least <= value <= self.greatest


class Flag(Schema):
    """True or false."""

    name = "true or false"

    def fits(self, value: Any) -> bool:
        """See `Schema`."""
        return isinstance(value, bool)


class Null(Schema):
    """Null."""

    name = "null"

    def fits(self, value: Any) -> bool:
        """See `Schema`."""
        return value is None


class Text(Schema):
    """A string of whole characters: half of a surrogate pair is none.

    Args:
        pattern: a regular expression that all of it must match.
        name: what is required, for people.
        halves: take half of a surrogate pair too, for texts that are only stored and shown.
    """

    def __init__(self, pattern: str | None = None, name: str = "a text", *, halves: bool = False) -> None:
        self.pattern, self.name, self.halves = pattern, name, halves

    def fits(self, value: Any) -> bool:
        """See `Schema`."""
        if not isinstance(value, str) or not (self.halves or value.isascii() or not _HALVES.search(value)):
            return False
        return self.pattern is None or re.fullmatch(self.pattern, value) is not None


class PathText(Schema):
    """A string that a file may be called, of names of up to 255 bytes; bytes that are not UTF-8 as `surrogateescape` has them."""

    def __init__(self, name: str = "a path") -> None:
        self.name = name

    def fits(self, value: Any) -> bool:
        """See `Schema`."""
        try:
            data = os.fsencode(value) if isinstance(value, str) else b"\0"
        except UnicodeEncodeError:
            return False
        return b"\0" not in data and len(data) <= 2048 and all(len(part) <= 255 for part in data.split(b"/"))


class OneOf(Schema):
    """One of some texts or numbers."""

    def __init__(self, values: tuple[str | int, ...]) -> None:
        self.values = values
        self.name = f"one of {', '.join(map(str, values))}"

    def fits(self, value: Any) -> bool:
        """See `Schema`."""
        return any(type(value) is type(known) and value == known for known in self.values)


class Either(Schema):
    """What fits any of some schemas. Where none fits, the error names all."""

    def __init__(self, schemas: tuple[Schema, ...]) -> None:
        self.schemas = schemas
        self.name = " or ".join(schema.name for schema in schemas)

    def fault(self, value: Any) -> Fault:
        """See `Schema`."""
        faults = [schema.fault(value) for schema in self.schemas]
        if None in faults:
            return None
        return next((fault for fault in faults if fault is not None and fault[0]), ("", self.name, value))


class ListOf(Schema):
    """A list whose items all fit a schema."""

    def __init__(self, items: Schema, least: int = 0, most: int = MANY) -> None:
        self.items, self.least, self.most = items, least, most
        self.name = f"a list of {least}" if least == most else f"a list of {least} or more" if least else "a list"

    def fits(self, value: Any) -> bool:
        """See `Schema`."""
        return isinstance(value, list) and self.least <= len(value) <= self.most

    def part_fault(self, value: Any) -> Fault:
        """See `Schema`."""
        for position, item in enumerate(value):
            fault = self.items.fault(item)
            if fault is not None:
                return f"[{position}]{fault[0]}", *fault[1:]
        return None


class MapOf(Schema):
    """A JSON object of any keys, whose values all fit a schema."""

    name = "an object"

    def __init__(self, values: Schema, keys: Schema | None = None) -> None:
        self.values, self.keys = values, keys or Text()

    def fits(self, value: Any) -> bool:
        """See `Schema`."""
        return isinstance(value, dict)

    def part_fault(self, value: Any) -> Fault:
        """See `Schema`."""
        for key, item in value.items():
            fault = self.keys.fault(key)
            if fault is not None:
                return "'s key", *fault[1:]
            fault = self.values.fault(item)
            if fault is not None:
                return f".{key}{fault[0]}", *fault[1:]
        return None


class Required:
    """A key that must be there."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema


class Object(Schema):
    """A JSON object: what stands under its known keys. A key that is not `Required` may be absent; others are ignored."""

    name = "an object"

    def __init__(self, keys: Mapping[str, Schema | Required]) -> None:
        self.keys = keys

    def fits(self, value: Any) -> bool:
        """See `Schema`."""
        return isinstance(value, dict)

    def part_fault(self, value: Any) -> Fault:
        """See `Schema`."""
        for key, entry in self.keys.items():
            schema = entry.schema if isinstance(entry, Required) else entry
            if key in value:
                fault = schema.fault(value[key])
                if fault is not None:
                    return f".{key}{fault[0]}", *fault[1:]
            elif isinstance(entry, Required):
                return f".{key}", schema.name, _ABSENT
        return None


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


def read_json(path: Path, schema: Schema, damaged: type[SbertMiniError], most: int = MOST_BYTES) -> Any:
    """Return what a JSON file holds, which fits the schema.

    Args:
        path: the file.
        schema: what it must hold.
        damaged: the exception to raise where it cannot be read, or holds something else.
        most: the largest size that is read, in bytes.
    """
    try:
        data = read_whole(path, most)
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
