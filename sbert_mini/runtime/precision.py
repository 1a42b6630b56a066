"""The values that a vector is handed out in: float32, or 8 bits or 1 bit a component."""

from typing import Literal, TypeAlias, get_args

import numpy as np

from sbert_mini.errors import UsageError
from sbert_mini.shapes import AnyArray, FloatArray

Precision: TypeAlias = Literal["float32", "int8", "uint8", "binary", "ubinary"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


def check_precision(precision: str) -> None:
    """Raise `UsageError` if the precision is unknown."""
    if precision not in PRECISIONS:
        raise UsageError(f"precision must be one of {', '.join(PRECISIONS)}; found {precision!r}")


def quantize_vectors(vectors: FloatArray, precision: Precision, ranges: FloatArray | None = None) -> AnyArray:
    """Return the vectors in another precision, with sentence-transformers' meaning (`quantize_embeddings`).

    * `float32`: as they are.
    * `int8`, `uint8`: `(x - low) / ((high - low) / 255)`, for int8 less 128, by component. Values outside the range are
      clipped (sentence-transformers lets them wrap around).
    * `binary`, `ubinary`: one bit a component, 1 where `x > 0`, eight to a byte, first component in the highest bit;
      for `binary` less 128.

    Args:
        vectors: the vectors.
        precision: see above.
        ranges: each component's low and high for int8 and uint8; None for those of `vectors` themselves. Vectors
            quantized with different ranges cannot be compared: take them from a large sample, and keep them.

    Shapes:
        vectors: (texts, dim); ranges: (2, dim); the result: (texts, dim), or (texts, ceil(dim / 8)) for the binary ones.

    Raises:
        UsageError: the precision is unknown, or the ranges do not fit.
    """
    check_precision(precision)
    if precision == "float32":
        return vectors
    if precision in ("binary", "ubinary"):
        bits: AnyArray = np.packbits(vectors > 0, axis=-1)
        return bits if precision == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
    if ranges is None:
        if not len(vectors):
            return np.empty(vectors.shape, dtype=precision)
        ranges = np.stack([vectors.min(axis=0), vectors.max(axis=0)])
    if ranges.shape != (2, vectors.shape[1]):
        raise UsageError(f"ranges must have the shape (2, {vectors.shape[1]}); found {ranges.shape}")
    step = np.maximum((ranges[1] - ranges[0]) / 255, np.finfo(np.float32).tiny)
    levels = np.clip((vectors - ranges[0]) / step, 0, 255)
    return (levels - 128).astype(np.int8) if precision == "int8" else levels.astype(np.uint8)
