"""Principal components of vectors: fitted on a sample, applied to files of any size. No torch."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sbert_mini.cosine import unit_rows
from sbert_mini.errors import InputError, UsageError
from sbert_mini.files.durable import write_durably
from sbert_mini.files.json_files import REDUCTION
from sbert_mini.files.json_schema import check, parse
from sbert_mini.files.reading import check_regular
from sbert_mini.search.faiss_threads import faiss_with
from sbert_mini.shapes import FloatArray

FORMAT = "sbert-mini reduction"
SAMPLED_ROWS_A_COMPONENT = 1000
_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Reduction:
    """A linear map to fewer components: `y = A (x - mean)`, with `A`'s rows the principal directions of what it was fitted on.

    Attributes:
        matrix: A, (dim, full_dim); with whitening each row is divided by the square root of its variance.
        mean: (full_dim,).
        variance: of each component that is kept, (dim,), as it was in the sample, the greatest first.
        explained: the share of the sample's variance that the components hold, in [0, 1].
        whitened: whether the components were brought to variance 1.

    Source:
        Su, Cao, Liu and Ou 2021, "Whitening Sentence Representations for Better Semantics and Faster Retrieval",
        arXiv 2103.15316, algorithm 1, for whitening.
    """

    matrix: FloatArray
    mean: FloatArray
    variance: FloatArray
    explained: float
    whitened: bool

    @property
    def dimension(self) -> int:
        """Components that are kept."""
        return len(self.matrix)

    def apply(self, vectors: FloatArray, *, normalize: bool = True) -> FloatArray:
        """Return the components of some vectors, of length 1 unless told otherwise. Shapes: (rows, full_dim) -> (rows, dim)."""
        if vectors.ndim != 2 or vectors.shape[1] != len(self.mean):
            raise UsageError(f"the vectors must have the shape (rows, {len(self.mean)}); found {vectors.shape}")
        reduced = (np.asarray(vectors, np.float32) - self.mean) @ self.matrix.T
        return unit_rows(reduced) if normalize else np.asarray(reduced, np.float32)

    def blocks(self, vectors: FloatArray, *, normalize: bool = True) -> Iterator[FloatArray]:
        """Yield what `apply` returns, block by block, for arrays that memory does not hold."""
        for start in range(0, len(vectors), _BLOCK_ROWS):
            yield self.apply(np.asarray(vectors[start : start + _BLOCK_ROWS]), normalize=normalize)

    def save(self, path: str | Path) -> None:
        """Write the reduction to a safetensors file."""
        metadata = {"format": FORMAT, "explained": self.explained, "whitened": self.whitened}
        tensors = {"matrix": self.matrix, "mean": self.mean, "variance": self.variance}
        write_durably(Path(path), save(tensors, {"sbert_mini": json.dumps(metadata)}))

    @classmethod
    def load(cls, path: str | Path) -> "Reduction":
        """Read what `save` wrote.

        Raises:
            InputError: it cannot be read, or is something else.
        """
        try:
            with safe_open(str(check_regular(Path(path))), "numpy") as file:
                metadata = parse((file.metadata() or {}).get("sbert_mini", "{}"), path, InputError)
                if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
                    raise InputError(f"{path} is no reduction: make one with 'sbmini reduce fit'")
                check(metadata, REDUCTION, path, InputError)
                parts = _tensors(file, path)
        except (OSError, SafetensorError, ValueError) as error:
            raise InputError(f"{path} cannot be read as a reduction: {error}") from error
        return cls(**parts, explained=float(metadata["explained"]), whitened=metadata["whitened"])


def _tensors(file: Any, path: str | Path) -> dict[str, FloatArray]:
    """Return a reduction's tensors, which fit each other.

    Raises:
        InputError: one is missing, has another type or shape, or holds NaN or infinity.
    """
    names = ("matrix", "mean", "variance")
    if missing := sorted(set(names) - set(file.keys())):
        raise InputError(f"{path} is damaged: it holds no tensor {missing[0]!r}")
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    types = {name: file.get_slice(name).get_dtype() for name in names}
    kept, full = shapes["matrix"] if len(shapes["matrix"]) == 2 else (0, 0)
    if shapes != {"matrix": (kept, full), "mean": (full,), "variance": (kept,)} or not 1 <= kept <= full:
        raise InputError(
            f"{path} is damaged: matrix, mean and variance must have the shapes (dim, full_dim), (full_dim,) and (dim,); found "
            + ", ".join(str(shape) for shape in shapes.values())
        )
    if set(types.values()) != {"F32"}:
        raise InputError(f"{path} is damaged: its tensors must be F32; found {', '.join(sorted(set(types.values())))}")
    tensors = {name: file.get_tensor(name) for name in names}
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise InputError(f"{path} is damaged: a tensor holds NaN or infinity")
    return tensors


def fit(vectors: FloatArray, dimension: int, *, whiten: bool = False, seed: int = 0) -> Reduction:
    """Return the reduction to the principal components of some vectors (FAISS's PCA).

    Args:
        vectors: what it is fitted on; of more than 1,000 rows for each of their components, a sample that is drawn.
        dimension: components to keep.
        whiten: bring each component to variance 1.
        seed: of the draw.

    Shapes:
        vectors: (rows, full_dim).

    Raises:
        UsageError: `dimension` is below 1 or above the vectors'.
        InputError: there are fewer rows than components, or they hold NaN or infinity.
    """
    faiss = faiss_with()
    if vectors.ndim != 2:
        raise InputError(f"the vectors must have the shape (rows, dim); found {vectors.shape}")
    full = vectors.shape[1]
    if not 1 <= dimension <= full:
        raise UsageError(f"the dimension must be from 1 to the {full} of the vectors; found {dimension}")
    if len(vectors) <= dimension:
        raise InputError(f"more than {dimension} rows are needed to fit {dimension} components; found {len(vectors)}")
    most = SAMPLED_ROWS_A_COMPONENT * full
    drawn: Any = slice(None)
    if len(vectors) > most:
        drawn = np.sort(np.random.default_rng(seed).choice(len(vectors), most, replace=False))
    sample = np.ascontiguousarray(vectors[drawn], dtype=np.float32)
    if not np.isfinite(sample).all():
        raise InputError("the vectors must be finite, and one holds NaN or infinity")
    pca = faiss.PCAMatrix(full, dimension, -0.5 if whiten else 0.0)
    pca.max_points_per_d = SAMPLED_ROWS_A_COMPONENT + 1
    pca.train(sample)  # its eigenvalues are sums over the rows
    variance = faiss.vector_to_array(pca.eigenvalues).astype(np.float32) / np.float32(len(sample))
    matrix = faiss.vector_to_array(pca.A).reshape(dimension, full)
    return Reduction(
        matrix=(matrix * np.sqrt(len(sample)) if whiten else matrix).astype(np.float32),
        mean=faiss.vector_to_array(pca.mean),
        variance=variance[:dimension],
        explained=float(variance[:dimension].sum() / variance.sum()),
        whitened=whiten,
    )
