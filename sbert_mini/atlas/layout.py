"""Vectors -> a map: a place for each row in the plane, groups of places, and how far neighbours stay neighbours. No torch."""

from collections.abc import Callable

import numpy as np

from sbert_mini.errors import InputError, MissingExtraError
from sbert_mini.search.faiss_threads import faiss_with
from sbert_mini.shapes import AnyArray, FloatArray, IntArray

NEIGHBOURS = 15
EXACT_ROWS = 20_000
"""Up to so many rows, neighbours are exact, and all rows are grouped; of more, a sample is."""
SAMPLE = 2_000
"""Rows on which `trustworthiness` is measured."""
_EARLY, _LATE = 125, 250
_SMALLEST = 8
"""Fewer rows are placed by their principal components alone."""


def require() -> None:
    """Raise `MissingExtraError` where openTSNE or scikit-learn is not installed."""
    try:
        import openTSNE  # noqa: F401
        import sklearn  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("drawing a map", error.name or "openTSNE", "map") from error


def places(
    vectors: FloatArray, *, seed: int = 0, threads: int = 1, advance: Callable[[int], None] | None = None
) -> FloatArray:
    """Return a place for each row, by t-SNE with the cosines' 15 nearest neighbours (openTSNE), from principal components.

    The same vectors and seed give the same places on the same machine.

    Args:
        vectors: of the rows, of length 1.
        seed: for the choice of FAISS's lists, beyond 20,000 rows.
        threads: for openTSNE; the places do not depend on it.
        advance: is called with the number of steps that are done since the last call, of 375.

    Shapes: vectors: (rows, dim); the result: (rows, 2).

    Raises:
        InputError: there is no row, or one holds NaN or infinity.
        MissingExtraError: openTSNE is not installed.
    """
    require()
    if not len(vectors):
        raise InputError("there is no row to draw")
    if not np.isfinite(vectors).all():
        raise InputError("the vectors must be finite, and one holds NaN or infinity")
    start = _principal(vectors)
    if len(vectors) < _SMALLEST:
        return start.astype(np.float32)
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import Uniform
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    rows, distances = neighbours(vectors, min(NEIGHBOURS, len(vectors) - 1), seed)
    affinities = Uniform(knn_index=PrecomputedNeighbors(rows, distances), k_neighbors=rows.shape[1])
    method = "bh" if len(vectors) < 3000 else "fft"
    start *= 1e-4 / max(float(start[:, 0].std()), 1e-12)
    embedding = TSNEEmbedding(start, affinities, negative_gradient_method=method, n_jobs=threads, random_state=seed)
    for steps, options in ((_EARLY, {"exaggeration": 12, "momentum": 0.5}), (_LATE, {"momentum": 0.8})):
        for _ in range(0, steps, 25):
            embedding.optimize(25, inplace=True, **options)
            if advance is not None:
                advance(25)
    found = np.asarray(embedding, np.float32)
    return found - found.mean(0)


STEPS = _EARLY + _LATE
"""Steps that `places` reports."""


def neighbours(vectors: FloatArray, count: int, seed: int = 0) -> tuple[IntArray, AnyArray]:
    """Return the nearest other rows of each row, nearest first, and their distances; beyond 20,000 rows the likely ones.

    Shapes: vectors: (rows, dim), of length 1; each result: (rows, count).
    """
    faiss = faiss_with()
    rows, dim = vectors.shape
    if rows <= EXACT_ROWS:
        index = faiss.IndexFlatIP(dim)
    else:
        lists = int(np.sqrt(rows))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed, index.nprobe = seed + 1, 12
        index.train(vectors[np.random.default_rng(seed).permutation(rows)[: lists * 60]])
    index.add(vectors)
    found = np.empty((rows, count), np.int64)
    cosines = np.empty((rows, count), np.float64)
    for first in range(0, rows, 4096):
        scores, ids = index.search(vectors[first : first + 4096], count + 1)
        own = ids == np.arange(first, first + len(ids))[:, None]
        own[~own.any(1), -1] = True  # among equal rows its own may not be found
        found[first : first + len(ids)] = ids[~own].reshape(-1, count)
        cosines[first : first + len(ids)] = scores[~own].reshape(-1, count)
    absent = found < 0  # a short list: the nearest row stands for what is missing
    found, cosines = np.where(absent, found[:, :1], found), np.where(absent, cosines[:, :1], cosines)
    return found, np.sqrt(np.maximum(2 - 2 * cosines, 0))


def groups(positions: FloatArray, *, seed: int = 0) -> IntArray:
    """Return the group of each place, from 0, the largest first; -1 for none: HDBSCAN (scikit-learn) on the plane.

    Of more than 20,000 rows, a sample is grouped; each other row takes the group of the nearest row of the sample.

    Shapes: positions: (rows, 2); the result: (rows,).
    """
    require()
    from sklearn.cluster import HDBSCAN

    rows = len(positions)
    if rows < 2 * _SMALLEST:
        return np.full(rows, -1, np.int64)
    drawn = np.arange(rows)
    if rows > EXACT_ROWS:
        drawn = np.sort(np.random.default_rng(seed).choice(rows, EXACT_ROWS, replace=False))
    least = max(5, len(drawn) // 250)
    sampled = positions[drawn].astype(np.float64)
    found = HDBSCAN(min_cluster_size=least, min_samples=5, cluster_selection_method="leaf", copy=True).fit_predict(
        sampled
    )
    if rows > EXACT_ROWS:
        index = faiss_with().IndexFlatL2(2)
        index.add(np.ascontiguousarray(positions[drawn], np.float32))
        found = found[index.search(np.ascontiguousarray(positions, np.float32), 1)[1][:, 0]]
    sizes = np.bincount(found[found >= 0], minlength=int(found.max(initial=-1)) + 1)
    rank = np.empty(len(sizes), np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return np.where(found >= 0, rank[found] if len(sizes) else -1, -1).astype(np.int64)


def trustworthiness(vectors: FloatArray, positions: FloatArray, *, seed: int = 0) -> tuple[float, int] | None:
    """Return scikit-learn's trustworthiness of the places for 15 neighbours, in [0, 1], and on how many rows it was measured.

    1: all neighbours in the plane are neighbours by cosine. More than 2,000 rows are sampled. None for fewer than 32 rows.

    Shapes: vectors: (rows, dim); positions: (rows, 2).
    """
    require()
    from sklearn.manifold import trustworthiness as measured

    rows = len(vectors)
    if rows <= 2 * NEIGHBOURS + 1:
        return None
    drawn = np.sort(np.random.default_rng(seed).choice(rows, min(rows, SAMPLE), replace=False))
    return float(measured(vectors[drawn], positions[drawn], n_neighbors=NEIGHBOURS, metric="cosine")), len(drawn)


def _principal(vectors: FloatArray) -> AnyArray:
    """Return the rows' first two principal components, each with the sign that makes its largest weight positive."""
    mean = vectors.mean(0, dtype=np.float64)
    sample = vectors[:: max(1, len(vectors) // EXACT_ROWS)] - mean
    directions = np.linalg.eigh(sample.T @ sample)[1][:, [-1, -2]] if vectors.shape[1] > 1 else np.eye(1, 2)
    directions = directions * np.sign(directions[np.abs(directions).argmax(0), [0, 1][: directions.shape[1]]] + 1e-30)
    return np.asarray(vectors @ directions - mean @ directions, np.float64)
