"""Cosines as they are handed out and compared.

The inner product of two equal vectors of length 1 is 1 but for rounding: float32 gives 0.9999994 to 1.0000006, and other sums for
the same vector in another batch. So what is within `TOLERANCE` of 1 is 1, and what falls short of a bound by less reaches it.
"""

from typing import overload

import numpy as np

from sbert_mini.shapes import AnyArray, FloatArray

TOLERANCE = 1e-6
"""Cosines that differ by no more are equal: of a text and itself the inner product is off by less, whatever computed it."""


def as_cosines(products: AnyArray) -> AnyArray:
    """Return inner products of vectors of length 1 as cosines: in [-1, 1], and exactly 1 or -1 within `TOLERANCE` of it.

    Shapes: any; the result has the same, and the same type.
    """
    within = np.clip(products, -1, 1)
    return np.where(1 - np.abs(within) <= TOLERANCE, np.sign(within), within)


def unit_rows(vectors: AnyArray) -> FloatArray:
    """Return vectors divided by their lengths, as float32; a vector of zeros stays one. Shapes: (rows, dim), and the result."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)


@overload
def reaches(cosine: float, bound: float) -> bool: ...


@overload
def reaches(cosine: AnyArray, bound: float) -> AnyArray: ...


def reaches(cosine: float | AnyArray, bound: float) -> bool | AnyArray:
    """Return whether a cosine is a bound or more, up to `TOLERANCE`."""
    return cosine >= bound - TOLERANCE
