"""The compiled library: where it is, and how its functions are declared."""

import ctypes
import importlib.machinery
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sbert_mini.shapes import AnyArray

NO_MEMORY = 1
"""What a function returns where memory is short."""


class Array(ctypes.Structure):
    """An array as native code takes it: where it begins, and how many elements it has."""

    _fields_ = (("data", ctypes.c_void_p), ("count", ctypes.c_int64))

    @classmethod
    def of(cls, array: AnyArray) -> "Array":
        """Return a NumPy array as native code takes it; it must live as long as native code reads it."""
        return cls(array.ctypes.data, array.size)


Signatures = Mapping[str, tuple[Any, list[Any]]]
"""Functions by name: what each returns, and its arguments."""


def load(signatures: Signatures) -> Any | None:
    """Return the library with these functions declared; None where it was not compiled, or lacks one of them."""
    loaded = _open()
    try:
        for name, (result, arguments) in signatures.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError:  # not there, or of an earlier version
        return None
    return loaded


@cache
def _open() -> Any | None:
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        file = Path(__file__).with_name(f"_encoder{suffix}")
        if file.is_file():
            try:
                return ctypes.CDLL(str(file))
            except OSError:  # of another platform
                return None
    return None
