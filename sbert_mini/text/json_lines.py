"""A line of JSON -> a row."""

import json
import math
import re
from collections import Counter
from typing import Any

from sbert_mini.text.lines import UnreadableError

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_MAX_NESTING = 100
_MAX_DIGITS = 308


def json_object(line: str) -> dict[str, Any]:
    """Return the JSON object of a line.

    Raises:
        UnreadableError: there is none, or it holds what cannot be stored.
    """
    if not line.strip():
        raise UnreadableError("the line is blank, and must hold a JSON object")
    try:
        row = _DECODER.decode(line)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"not JSON ({error})") from error
    if not isinstance(row, dict):
        raise UnreadableError(f"a JSON object is required, and this is a {type(row).__name__}")
    if wrong := _wrong_values(row, line):
        raise UnreadableError(wrong)
    return row


def _wrong_values(row: dict[str, Any], line: str) -> str:
    """Return what JSON allows in a row and cannot be stored, or ""."""
    if any(isinstance(value, (dict, list)) for value in row.values()):
        level: list[Any] = [row]
        for _ in range(_MAX_NESTING):
            level = [
                inner
                for outer in level
                for inner in (outer.values() if isinstance(outer, dict) else outer)
                if isinstance(inner, (dict, list))
            ]
            if not level:
                break
        else:
            return f"values are nested more than {_MAX_NESTING} deep"
    if "\\u" in line and _HALF_CHARACTER.search(json.dumps(row, ensure_ascii=False)):
        return "not valid Unicode: a character is cut in half"
    return ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        repeated = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {repeated!r} stands twice in one object")
    return made


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{_start(digits)} is greater than any number here")
    return value


def _whole(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits ({_start(digits)}) is greater than any number here")
    return int(digits)


def _start(digits: str) -> str:
    return digits if len(digits) <= 20 else digits[:20] + "..."


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole
)
