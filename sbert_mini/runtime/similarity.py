"""How similar vectors are, by the similarity that their model was trained for."""

from typing import Any

import numpy as np

from sbert_mini.cosine import as_cosines, unit_rows
from sbert_mini.errors import UsageError
from sbert_mini.runtime import arguments
from sbert_mini.shapes import AnyArray, FloatArray


def similarity(a: AnyArray, b: AnyArray, kind: str) -> FloatArray:
    """Return how similar each vector of `a` is to each of `b`; larger is closer.

    Args:
        a: vectors.
        b: vectors.
        kind: `cosine`, in [-1, 1]; `dot`, the inner product; `euclidean` or `manhattan`, minus the distance.

    Shapes:
        a: (texts, dim) or (dim,); b: (others, dim) or (dim,); the result: (texts, others).

    Raises:
        UsageError: they are not vectors of one length.
    """
    x, y = _comparable(a, b)
    if kind == "euclidean":
        squares = np.square(x).sum(1)[:, None] + np.square(y).sum(1)[None] - 2 * (x @ y.T)
        return np.asarray(-np.sqrt(np.maximum(squares, 0)), dtype=np.float32)
    if kind == "manhattan":
        return np.stack([-np.abs(row - y).sum(axis=1) for row in x]).astype(np.float32)
    if kind == "cosine":
        return np.asarray(as_cosines(unit_rows(x) @ unit_rows(y).T), dtype=np.float32)
    return np.asarray(x @ y.T, dtype=np.float32)


def similarity_pairwise(a: AnyArray, b: AnyArray, kind: str) -> FloatArray:
    """Return how similar each vector of `a` is to the one of `b` in its place: the diagonal of `similarity`.

    Args:
        a: vectors.
        b: as many vectors.
        kind: see `similarity`.

    Shapes:
        a, b: (texts, dim) or (dim,); the result: (texts,).

    Raises:
        UsageError: they are not as many, or not vectors of one length.
    """
    x, y = _comparable(a, b)
    if len(x) != len(y):
        raise UsageError(f"as many vectors are needed on either side; found {len(x)} and {len(y)}")
    if kind == "euclidean":
        return np.asarray(-np.linalg.norm(x - y, axis=1), dtype=np.float32)
    if kind == "manhattan":
        return np.asarray(-np.abs(x - y).sum(axis=1), dtype=np.float32)
    if kind == "cosine":
        return np.asarray(as_cosines(np.sum(unit_rows(x) * unit_rows(y), axis=1)), dtype=np.float32)
    return np.asarray(np.sum(x * y, axis=1), dtype=np.float32)


def _comparable(a: Any, b: Any) -> tuple[FloatArray, FloatArray]:
    """Return vectors to compare, one each or several, as (rows, dim)."""
    x, y = (np.atleast_2d(np.asarray(arguments.array_of(v, name), np.float32)) for v, name in ((a, "a"), (b, "b")))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise UsageError(
            f"a and b must be vectors of as many components; found the shapes {np.shape(a)} and {np.shape(b)}"
        )
    return x, y
