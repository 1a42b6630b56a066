"""Many short spans of a file: by native code (`sbert_mini/native/spans.cpp`), or one by one where it was not compiled."""

import ctypes
from functools import cache
from typing import Any

import numpy as np

from sbert_mini.files import system
from sbert_mini.native.library import Array, Signatures, load
from sbert_mini.shapes import AnyArray, IntArray

SIGNATURES: Signatures = {"sbmini_read_spans": (ctypes.c_int, [ctypes.c_int, Array, ctypes.c_int64, Array])}


@cache
def library() -> Any | None:
    """Return the compiled library, or None where it was not compiled."""
    return load(SIGNATURES)


def read_spans(file: int, starts: IntArray, size: int, out: AnyArray) -> bool:
    """Read spans of `size` bytes, one after the other, into `out`; return whether the file holds all of them.

    Args:
        file: its descriptor.
        starts: where each span begins.
        size: bytes of each, one or more.
        out: the bytes; contiguous.

    Shapes:
        starts: (spans,); out: (spans * size,), uint8.

    Raises:
        ValueError: `out` has another size.
    """
    if out.dtype != np.uint8 or out.size != len(starts) * size or not out.flags.c_contiguous:
        raise ValueError(f"{len(starts) * size} contiguous bytes are needed for {len(starts)} spans of {size}")
    native = library()
    if native is not None:
        positions = np.ascontiguousarray(starts, np.int64)
        with system.file_position:
            return int(native.sbmini_read_spans(file, Array.of(positions), size, Array.of(out))) == 0
    spans = out.data
    for number, start in enumerate(starts.tolist()):
        if start < 0 or system.read_into(file, spans[number * size : (number + 1) * size], start) < size:
            return False
    return True
