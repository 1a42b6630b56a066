"""Checks of what callers pass: every usual form is accepted, and anything else is refused by the argument's name.

Texts come as lists, tuples, generators, NumPy arrays and columns of data frames; numbers as Python's or NumPy's; vectors as
arrays of any float type, or tensors. A `UsageError` refuses what has no order (a set), what holds something else (bytes, a whole
data frame), and what would be misread (one string where several texts are needed).
"""

import difflib
import math
import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

import numpy as np

from sbert_mini.errors import InputError, UsageError
from sbert_mini.shapes import AnyArray, FloatArray

LENGTH_TOLERANCE = 2e-3
"""Of vectors of length 1 that are given: half precision rounds their length by less."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def is_one_text(value: Any) -> bool:
    """Return whether a value is a single text: a string, or a NumPy array of no dimensions that holds one."""
    return isinstance(value, str) or (
        isinstance(value, np.ndarray) and not value.ndim and isinstance(value.item(), str)
    )


def texts_of(value: Any, name: str = "texts") -> Iterable[Any]:
    """Return an iterable of several texts, unread; `check_text` is for what it gives.

    Args:
        value: what was given.
        name: of the argument.

    Raises:
        UsageError: it cannot be several texts.
    """
    if is_one_text(value):
        raise UsageError(f"{name} must be several texts, and one string was given: put it into a list")
    return items_of(value, name, "strings")


def items_of(value: Any, name: str, of: str) -> Iterable[Any]:
    """Return an ordered iterable: a list, an iterator, or an array or column of one dimension.

    Args:
        value: what was given.
        name: of the argument.
        of: what it should hold, in the plural.

    Raises:
        UsageError: it is something else.
    """
    kind = type(value).__name__
    if isinstance(value, np.ndarray):
        if value.ndim != 1 or value.dtype.kind not in "OUT":
            raise UsageError(
                f"{name} must hold {of} in one dimension; found an array of the shape {value.shape} and type {value.dtype}"
            )
        return value.tolist()
    if isinstance(value, (str, bytes, bytearray, memoryview, Mapping, Set)) or value is None:
        raise UsageError(f"{name} must be a list of {of}, or another iterable in order; found {_article(kind)}")
    if getattr(value, "ndim", 1) != 1 or hasattr(value, "column_names"):
        raise UsageError(f"{name} must hold {of} in one dimension; found {_article(kind)}: give one of its columns")
    if hasattr(value, "to_pylist"):  # an Arrow array, whose items are no Python strings
        return value.to_pylist()
    if not isinstance(value, Iterable):
        raise UsageError(f"{name} must be a list of {of}, or another iterable in order; found {_article(kind)}")
    return value


def check_options(options: Mapping[str, Any], known: type) -> None:
    """Refuse options that a call does not have.

    Args:
        options: what was passed, by name.
        known: a `TypedDict` of those that there are.

    Raises:
        UsageError: there is another one; the text names one that is close.
    """
    for name in options:
        if name not in known.__annotations__:
            close = difflib.get_close_matches(name, known.__annotations__, n=1)
            near = f"did you mean {close[0]}?" if close else f"there are {', '.join(known.__annotations__)}"
            raise UsageError(f"there is no option {name!r}: {near}", name)


def holds_half_a_character(text: str) -> bool:
    """Return whether a text holds half of a surrogate pair, which is not valid Unicode."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def check_text(text: Any, position: int, name: str = "text") -> str:
    """Return the text if it is a valid one.

    Args:
        text: what was given.
        position: of it among the others, counted from 0.
        name: what it is.

    Raises:
        UsageError: it is not a string.
        InputError: it is not valid Unicode.
    """
    if not isinstance(text, str):
        raise UsageError(f"{name}s must be strings; {name} {position} is {_article(type(text).__name__)}")
    if holds_half_a_character(text):
        raise InputError(f"{name} {position} (counted from 0) is not valid Unicode: it holds half a character")
    return text


def pairs_of(value: Any, name: str = "pairs") -> Iterator[tuple[str, str]]:
    """Yield pairs of texts: tuples, lists or arrays of two strings, or the rows of an array of two columns.

    Raises:
        UsageError: it holds something else.
        InputError: a text is not valid Unicode.
    """
    if isinstance(value, np.ndarray) and value.ndim == 2 and value.shape[1] == 2 and value.dtype.kind in "OUT":
        value = value.tolist()

    def checked(items: Iterable[Any]) -> Iterator[tuple[str, str]]:
        for position, item in enumerate(items):
            two = item.tolist() if isinstance(item, np.ndarray) else item
            if not isinstance(two, (tuple, list)) or len(two) != 2:
                raise UsageError(
                    f"{name} must be tuples of two strings; pair {position} is "
                    f"{repr(item)[:60] if isinstance(two, (tuple, list)) else _article(type(item).__name__)}"
                )
            yield check_text(two[0], position), check_text(two[1], position)

    return checked(items_of(value, name, "pairs of strings"))


def integer(value: Any, name: str, least: int | None = 1) -> int:
    """Return a whole number, Python's or NumPy's.

    Raises:
        UsageError: it is no whole number (True and 2.0 are not), or it is below `least`.
    """
    if not isinstance(value, (bool, np.bool_)):
        try:
            number = operator.index(value)
        except TypeError:
            pass
        else:
            if least is not None and number < least:
                raise UsageError(f"{name} must be at least {least}; found {number}", name)
            return number
    raise UsageError(
        f"{name} must be a whole number{'' if least is None else f' of at least {least}'}; found {_shown(value)}", name
    )


def number(value: Any, name: str) -> float:
    """Return a number, Python's or NumPy's, as a float.

    Raises:
        UsageError: it is no number, NaN or infinite.
    """
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        converted = float(value)
        if math.isfinite(converted):
            return converted
    raise UsageError(f"{name} must be a finite number; found {_shown(value)}", name)


def array_of(value: Any, name: str) -> AnyArray:
    """Return vectors as an array of floats: of a NumPy array, a tensor, or lists of numbers.

    Shapes: that of `value`, of one dimension or more.

    Raises:
        UsageError: it does not hold numbers in rows of one length.
    """
    if hasattr(value, "detach"):  # a tensor of torch
        value = value.detach().cpu()
        value = value.float() if not value.is_floating_point() or value.element_size() < 4 else value
    if isinstance(value, (str, bytes, Mapping, Set)) or value is None:
        raise UsageError(f"{name} must be an array of vectors; found {_article(type(value).__name__)}")
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O":
            array = array.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} must be an array of vectors of one length: {error}") from error
    if array.dtype.kind not in "fiu" or not array.ndim:
        raise UsageError(
            f"{name} must be an array of vectors; found {_article(type(value).__name__)} of the type {array.dtype}"
        )
    return array


def unit_vectors(value: Any, dimension: int, name: str, rows: str = "rows") -> FloatArray:
    """Return vectors as float32 if all have length 1; the rounding of half precision is corrected.

    Args:
        value: what was given.
        dimension: components that each must have.
        name: of the argument, in the plural.
        rows: what its rows are.

    Shapes:
        value and the result: (rows, dim).

    Raises:
        UsageError: the shape is another, or a vector is not finite or not of length 1; the text names its length.
    """
    array = array_of(value, name)
    if array.ndim != 2 or array.shape[1] != dimension:
        way = ": one vector v is v[None]" if array.shape == (dimension,) else ""
        raise UsageError(f"{name} must have the shape ({rows}, {dimension}); found {array.shape}{way}")
    vectors = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise UsageError(f"{name} must be finite, and one holds NaN or infinity")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    wrong = np.flatnonzero(np.abs(lengths - 1) >= LENGTH_TOLERANCE)
    if len(wrong):
        first = int(wrong[0])
        raise UsageError(
            f"{name} must have length 1; vector {first} (counted from 0) has the length {lengths[first]:.4f}. Encode in the "
            "precision float32, or divide each vector by its length"
        )
    return rescaled(vectors, lengths)


def rescaled(vectors: FloatArray, lengths: AnyArray) -> FloatArray:
    """Return vectors of nearly length 1 divided by their lengths; those of this package stay the same, bit by bit.

    Shapes: vectors: (rows, dim); lengths: (rows,).
    """
    off = np.abs(lengths - 1) > 1e-6
    return np.where(off[:, None], vectors / lengths[:, None], vectors).astype(np.float32) if off.any() else vectors


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {value!r}"[:80]


def _article(kind: str) -> str:
    return "None" if kind == "NoneType" else f"a {kind}"
