"""The encoder's functions of the compiled library, and the levels of the processor that they compute with."""

import ctypes
from functools import cache
from typing import Any

from sbert_mini.native.library import Array, Signatures, load

LEVELS = ("none", "portable", "avx2", "avx_vnni", "avx512_vnni", "amx_int8", "neon_dotprod")
"""Sets of instructions, each with code of its own, by their numbers in native code (`Level` in encoder.h)."""
NOTHING = Array(None, 0)
_INT, _FLOAT, _MODEL = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
SIGNATURES: Signatures = {
    "sbmini_levels": (_INT, []),
    "sbmini_level_name": (ctypes.c_char_p, [_INT]),
    "sbmini_error": (ctypes.c_char_p, [_INT]),
    "sbmini_open": (_INT, [*[_INT] * 8, _FLOAT, *[Array] * 6, ctypes.POINTER(_MODEL)]),
    "sbmini_close": (None, [_MODEL]),
    "sbmini_set_product": (_INT, [_MODEL, *[_INT] * 4, *[Array] * 3, _FLOAT, _INT, Array]),
    "sbmini_set_norm": (_INT, [_MODEL, _INT, _INT, Array, Array]),
    "sbmini_set_poolings": (_INT, [_MODEL, Array]),
    "sbmini_add_projection": (_INT, [_MODEL, _INT, _INT, Array, Array, _INT]),
    "sbmini_encode": (_INT, [_MODEL, _INT, _INT, *[Array] * 5]),
    "sbmini_multiply": (_INT, [*[_INT] * 4, *[Array] * 3]),
    "sbmini_apply": (_INT, [*[_INT] * 4, _FLOAT, *[Array] * 2]),
    "sbmini_peak": (ctypes.c_int64, [_INT, ctypes.c_int64]),
}
"""Each function of the library: what it returns, and its arguments."""


@cache
def library() -> Any | None:
    """Return the compiled library, or None where it was not compiled."""
    return load(SIGNATURES)


def levels() -> tuple[str, ...]:
    """Return the levels that were compiled and that this processor has, the fastest one last; none without the library."""
    loaded = library()
    bits = int(loaded.sbmini_levels()) if loaded is not None else 0
    return tuple(name for number, name in enumerate(LEVELS) if bits >> number & 1)
