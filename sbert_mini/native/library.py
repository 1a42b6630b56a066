"""The compiled library: where it is, and how its functions are declared."""

import ctypes
import importlib.machinery
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sbert_mini.shapes import AnyArray

NO_MEMORY = 1
"""What a function returns where memory is short."""
_SUFFIXES = (*importlib.machinery.EXTENSION_SUFFIXES, ".dll")
"""Of the library's file: what a compiler here makes, `.so` in a wheel, and `.dll` in one for Windows."""


class Array(ctypes.Structure):
    """An array as native code takes it: where it begins, and how many elements it has."""

    _fields_ = (("data", ctypes.c_void_p), ("count", ctypes.c_int64))

    @classmethod
    def of(cls, array: AnyArray) -> "Array":
        """Return a NumPy array as native code takes it; it must live as long as native code reads it."""
        return cls(array.ctypes.data, array.size)


Signatures = Mapping[str, tuple[Any, list[Any]]]
"""Functions by name: what each returns, and its arguments."""


@dataclass(frozen=True)
class Opened:
    """What there is of the library here.

    Attributes:
        file: where it is; None where it was not compiled.
        library: the library; None where there is none, or the system does not load it.
        problem: why there is none, in words; empty where there is one.
    """

    file: Path | None
    library: Any | None
    problem: str


def load(signatures: Signatures) -> Any | None:
    """Return the library with these functions declared; None where it was not compiled, or lacks one of them."""
    loaded = opened().library
    try:
        for name, (result, arguments) in signatures.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError:  # not there, or of an earlier version
        return None
    return loaded


@cache
def opened() -> Opened:
    """Return the library, opened once a process, or why there is none."""
    for suffix in _SUFFIXES:
        file = Path(__file__).with_name(f"_encoder{suffix}")
        if file.is_file():
            try:
                return Opened(file, ctypes.CDLL(str(file)), "")
            except OSError as error:  # of another platform
                return Opened(file, None, f"the system does not load it: {error}")
    return Opened(None, None, "no C++ compiler was there when sbert-mini was installed")
