"""What a filter computes from one text: `like`, the functions of texts, values in JSON, and casts of one value."""

import json
import math
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

MOST_PATTERN = 4096
"""Characters of a pattern of LIKE."""
INT64 = range(-(2**63), 2**63)
_TRUTH: Mapping[str, bool] = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_WINDOW = 1 << 16
"""Characters of a text that are searched between two looks at the clock."""


class FilterValueError(ValueError):
    """A value for which an expression is not defined: an integer beyond 64 bits, a text that is not a number."""


def text_function(name: str, constants: list[Any]) -> Callable[[str], Any]:
    """Return a function of `conditions.FUNCTIONS` that takes a text; `constants` are its other arguments."""
    simple: dict[str, Callable[[str], Any]] = {
        "length": len, "lower": str.lower, "upper": str.upper,
        "trim": lambda text: text.strip(" "), "ltrim": lambda text: text.lstrip(" "), "rtrim": lambda text: text.rstrip(" "),
    }  # fmt: skip
    if name in simple:
        return simple[name]
    first = constants[0]
    if name == "substr":
        return lambda text: _substring(text, int(first), None if len(constants) == 1 else int(constants[1]))
    functions: dict[str, Callable[[str], Any]] = {
        "contains": lambda text: first in text, "starts_with": lambda text: text.startswith(first),
        "ends_with": lambda text: text.endswith(first), "instr": lambda text: text.find(first) + 1,
    }  # fmt: skip
    return functions[name]


def _substring(text: str, start: int, length: int | None) -> str:
    """Return SQL's substring: places count from 1, negative ones from the end; a negative length takes what lies before."""
    begin = start - 1 if start > 0 else (len(text) + start if start < 0 else -1)
    end = len(text) if length is None else begin + length
    if length is not None and length < 0:
        begin, end = end, begin
    return text[max(begin, 0) : max(end, 0)]


@lru_cache(maxsize=64)
def like(
    pattern: str, escape: str | None, *, case_sensitive: bool, check: Callable[[], None] = lambda: None
) -> Callable[[str], bool]:
    """Return a test whether a text fits a pattern of LIKE: `%` stands for any characters, `_` for one.

    Its time is at most the text's length times the pattern's: each piece between two `%` takes the first place where it fits.

    Args:
        pattern: the pattern.
        escape: a character that makes the one after it plain; None for none.
        case_sensitive: whether large and small letters differ.
        check: called now and then while a long text is searched; it may raise.

    Raises:
        FilterValueError: the pattern has more than `MOST_PATTERN` characters, ends with the escape character, or it escapes
            another character than `%`, `_` and itself.
    """
    if len(pattern) > MOST_PATTERN:
        raise FilterValueError(f"a pattern of {len(pattern)} characters; {MOST_PATTERN} are the most")
    pieces: list[list[str]] = [[]]  # between the %: regular expressions of single characters
    characters = iter(pattern if case_sensitive else pattern.lower())
    for character in characters:
        if character == escape:
            following = next(characters, None)
            if following is None or following not in ("%", "_", escape):
                raise FilterValueError(
                    f"in the pattern {pattern!r} the character {escape!r} must stand before %, _ or itself"
                )
            pieces[-1].append(re.escape(following))
        elif character == "%":
            pieces.append([])
        else:
            pieces[-1].append("." if character == "_" else re.escape(character))
    literals = plain_pieces(pattern, escape, case_sensitive=case_sensitive)
    if literals is not None:
        return _plain_like(literals)
    expressions = [re.compile("".join(piece), re.DOTALL) for piece in pieces]
    widths = [len(piece) for piece in pieces]

    def test(text: str) -> bool:
        text = text if case_sensitive else text.lower()
        if len(expressions) == 1:
            return expressions[0].fullmatch(text) is not None
        if expressions[0].match(text) is None or len(text) < sum(widths):
            return False
        at, end = widths[0], len(text) - widths[-1]
        for expression, width in zip(expressions[1:-1], widths[1:-1], strict=True):
            start = _first(expression, width, text, at, end, check)
            if start is None:
                return False
            at = start + width
        return at <= end and expressions[-1].fullmatch(text, end) is not None

    return test


def _first(
    expression: re.Pattern[str], width: int, text: str, at: int, end: int, check: Callable[[], None]
) -> int | None:
    """Return the first place of a text, from `at` on, where an expression of a fixed width fits before `end`."""
    while at + width <= end:
        match = expression.search(text, at, min(end, at + _WINDOW + width))
        if match is not None:
            return match.start()
        at += _WINDOW + 1
        check()
    return None


def plain_pieces(pattern: str, escape: str | None, *, case_sensitive: bool) -> list[str] | None:
    """Return the one to three plain texts of a pattern that has only `%` between them; None for another one."""
    pieces = pattern.split("%")
    return pieces if case_sensitive and escape is None and "_" not in pattern and len(pieces) <= 3 else None


def _plain_like(literals: list[str]) -> Callable[[str], bool]:
    """Return the test for a pattern of one to three plain texts with `%` between them, without regular expressions."""
    start, end, width = literals[0], literals[-1], sum(map(len, literals))
    if len(literals) == 1:
        return start.__eq__
    if len(literals) == 2:
        return lambda text: len(text) >= width and text.startswith(start) and text.endswith(end)
    middle = literals[1]
    if not start and not end:
        return lambda text: middle in text
    first, last = len(start), len(end)
    return lambda text: (
        len(text) >= width
        and text.startswith(start)
        and text.endswith(end)
        and text.find(middle, first, len(text) - last) >= 0
    )


_STEP = re.compile(r'\.(?:"((?:[^"\\]|\\.)*)"|([^.\[\]"]+))|\[([0-9]{1,18}|\*)\]')


def json_value(text: str, path: str) -> str | None:
    """Return what a JSON text has under a path such as `$.tags[0]`: a text as it is, anything else as JSON; None for nothing.

    Raises:
        FilterValueError: the path is not one.
    """
    steps = _steps(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    for step in steps:
        inside = step < len(value) if isinstance(value, list) and isinstance(step, int) else None
        if isinstance(value, dict) and isinstance(step, str):
            inside = step in value
        if not inside:
            return None
        value = value[step]
    if value is None or isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return None


@lru_cache(maxsize=64)
def _steps(path: str) -> tuple[int | str, ...]:
    rest, steps = path.strip(), list[int | str]()
    if not rest.startswith("$"):
        raise FilterValueError(f"the path {path!r} must begin with $, such as $.tags[0]")
    at = 1
    while at < len(rest):
        step = _STEP.match(rest, at)
        if step is None or step[3] == "*":
            raise FilterValueError(f"the path {path!r} must be made of .name and [number], such as $.tags[0]")
        quoted, name, number = step.groups()
        try:
            steps.append(int(number) if number is not None else name if name is not None else json.loads(f'"{quoted}"'))
        except ValueError as error:
            raise FilterValueError(f'in the path {path!r}, "{quoted}" is no name as JSON spells it: {error}') from error
        at = step.end()
    return tuple(steps)


def cast_one(value: Any, source: str, target: str) -> Any:
    """Return a value of one type in another one.

    Raises:
        ValueError: it has no such value.
    """
    if target == "text":
        return ("true" if value else "false") if source == "boolean" else str(value.item())
    if target == "boolean":
        return bool(value) if source != "text" else _truth(str(value))
    if source == "text" and "_" in value:
        raise ValueError(value)
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    if target == "number":
        return number
    if source == "text":
        try:
            whole = int(value)
        except ValueError:
            whole = round(number)
    else:
        whole = round(number)  # half to even
    if whole not in INT64:
        raise ValueError(value)
    return whole


def _truth(text: str) -> bool:
    if text.lower() not in _TRUTH:
        raise ValueError(text)
    return _TRUTH[text.lower()]
