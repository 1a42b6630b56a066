"""The precision of returned vectors: float32, 8 bits or 1 bit a component."""

from dataclasses import dataclass

import numpy as np

from sbert_mini.errors import UsageError
from sbert_mini.runtime.choices import PRECISIONS, Precision
from sbert_mini.shapes import AnyArray, FloatArray

DEVIATIONS = 4.5
"""Standard deviations on each side of a component's mean that a range spans."""
_GRID = 1e4


@dataclass(frozen=True)
class ComponentRanges:
    """The ranges that a model's vectors are stored in with 8 bits a component, for vectors of any number of components.

    Attributes:
        low: the low of each component of a whole vector of length 1, (dim,).
        high: the high of each, (dim,).
        growth: `growth[d - 1]` is how much the first `d` components grow when they are brought to length 1 again, (dim,).
    """

    low: AnyArray
    high: AnyArray
    growth: AnyArray

    def of(self, dim: int, *, normalized: bool = True) -> FloatArray:
        """Return the ranges of the first `dim` components, normalised again (`normalized`) or as they are.

        Shapes:
            the result: (2, dim), lows and highs.
        """
        both = np.stack([self.low[:dim], self.high[:dim]])
        return np.clip(both * (self.growth[dim - 1] if normalized else 1), -1, 1).astype(np.float32)


def measure_ranges(vectors: FloatArray) -> ComponentRanges:
    """Return ranges for all vectors of a model, from a sample of them.

    A component's range is its mean less and plus `DEVIATIONS` standard deviations: wide enough for texts that the sample lacks,
    where the sample's own least and greatest values would clip a hundredth of all components. Ranges are rounded outwards to
    four digits after the point, so that a component that is nearly constant keeps a range too.

    Shapes:
        vectors: (texts, dim), each of length 1.
    """
    x = np.asarray(vectors, np.float64)
    mean, reach = x.mean(axis=0), DEVIATIONS * x.std(axis=0)
    lengths = np.sqrt(np.square(x).cumsum(axis=1))
    growth = np.round(np.median(lengths[:, -1:] / np.maximum(lengths, 1e-12), axis=0), 4)
    return ComponentRanges(
        np.floor((mean - reach) * _GRID - 1) / _GRID, np.ceil((mean + reach) * _GRID + 1) / _GRID, growth
    )


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
            quantized with different ranges cannot be compared: take the model's own (`Embedder.component_ranges`), or those of
            a large sample, and keep them.

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


def restore_vectors(quantized: AnyArray, ranges: FloatArray) -> FloatArray:
    """Return vectors from their int8 or uint8 values: the middle of the step that each value stands for.

    Compare restored vectors, not the 8-bit values: each component has a low and a step of its own.

    Shapes:
        quantized: (texts, dim), int8 or uint8; ranges: (2, dim), with which they were made; the result: (texts, dim).

    Raises:
        UsageError: the values are neither int8 nor uint8, or the ranges do not fit.
    """
    if quantized.dtype not in (np.int8, np.uint8):
        raise UsageError(f"quantized must be int8 or uint8; found {quantized.dtype}")
    if ranges.shape != (2, quantized.shape[-1]):
        raise UsageError(f"ranges must have the shape (2, {quantized.shape[-1]}); found {ranges.shape}")
    values: FloatArray = quantized.astype(np.float32)
    middle: FloatArray = values + np.float32(0.5)
    if quantized.dtype == np.int8:  # values are rounded towards 0
        middle = np.asarray(values + 128 + 0.5 * np.sign(values), np.float32)
    step = (ranges[1] - ranges[0]) / 255
    return np.asarray(np.clip(ranges[0] + middle * step, ranges[0], ranges[1]), np.float32)
