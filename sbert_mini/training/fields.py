"""Fields of settings: a default, a range, choices. The rules are checked wherever such settings are made. No torch."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import MISSING, field, fields
from typing import Any

from sbert_mini.errors import UsageError


def key(
    default: Any = MISSING, *, low: float | None = None, high: float | None = None, choices: Sequence[str] = ()
) -> Any:
    """Return a dataclass field with rules for `check`.

    Args:
        default: its default; a list or dict is copied for each object. Without one the field is required.
        low: the smallest number that is allowed.
        high: the largest number that is allowed.
        choices: the strings that are allowed; empty for any.
    """
    metadata = {"low": low, "high": high, "choices": tuple(choices)}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata) if default is not MISSING else field(metadata=metadata)


def same(settings: type, name: str) -> Any:
    """Return a field with the default and the rules of a field of another class."""
    (spec,) = (spec for spec in fields(settings) if spec.name == name)
    return field(default=spec.default, metadata=spec.metadata)


def check(settings: Any, table: str = "") -> None:
    """Refuse settings that break a rule of `key`. None passes.

    Args:
        settings: an object of a dataclass.
        table: the name of the settings, for the text.

    Raises:
        UsageError: a number is not finite or out of range, or a string is not one of the choices; `parameter` is the field.
    """
    for spec in fields(settings):
        value, rules = getattr(settings, spec.name), spec.metadata
        shown = f"{table}.{spec.name}" if table else spec.name
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{shown} must be finite; found {value}", spec.name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and rules.get("low") is not None and value < rules["low"]:
            raise UsageError(f"{shown} must be at least {rules['low']}; found {value}", spec.name)
        if number and rules.get("high") is not None and value > rules["high"]:
            raise UsageError(f"{shown} must be at most {rules['high']}; found {value}", spec.name)
        if isinstance(value, str) and rules.get("choices") and value not in rules["choices"]:
            near = near_miss(value, rules["choices"])
            raise UsageError(f"{shown} must be one of {', '.join(rules['choices'])}; found {value!r}{near}", spec.name)


def near_miss(name: str, known: Sequence[str]) -> str:
    """Return the known name that a name may stand for, in words: ` (did you mean sum?)`; empty where none is close."""
    close = difflib.get_close_matches(name.casefold(), [other.casefold() for other in known], n=1)
    return f" (did you mean {next(other for other in known if other.casefold() == close[0])}?)" if close else ""
