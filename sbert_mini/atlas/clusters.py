"""Vectors -> groups of rows around a centre, in bounded memory; and new rows -> the groups that there are.

A row's density is the number of rows whose cosine to it is the threshold or more, itself included. From the densest row on, each
row that no centre reaches becomes a centre, if its density is the least size of a group. Then each row joins the nearest centre
that reaches it. So every row of a group has a cosine of the threshold or more to the group's centre, and no two centres have.
Nothing is drawn: the same vectors give the same groups.

Up to `EXACT_ROWS` rows all are compared with all. Beyond, rows are put into lists around the centroids of FAISS's k-means, whose
seed is fixed, and are compared with the rows of the nearest lists: a few neighbours are missed.

Source: leader clustering (Hartigan 1975, "Clustering Algorithms", chapter 3), in the order of density, as sentence-transformers'
`community_detection` has it.
"""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbert_mini.cosine import as_cosines, reaches, unit_rows
from sbert_mini.errors import InputError, UsageError
from sbert_mini.progress import ProgressBar
from sbert_mini.runtime import arguments
from sbert_mini.search.faiss_threads import faiss_with
from sbert_mini.search.kinds import EXACT_ROWS, TRAINING_ROWS_A_LIST, lists_for
from sbert_mini.shapes import AnyArray, FloatArray, IntArray

NO_GROUP = -1
THRESHOLD, MIN_SIZE = 0.7, 5
"""The defaults of `find_groups`."""
_PROBES = 32
"""Lists that a row is compared with, beyond `EXACT_ROWS` rows."""
_BLOCK_ROWS, _COMPARED_ROWS = 2048, 8192
"""Rows that are compared with each other at once."""


@dataclass(frozen=True)
class Groups:
    """Rows in groups, the largest group first.

    Attributes:
        numbers: the group of each row, from 0, (rows,); -1 for none.
        cosines: of each row and its group's centre, (rows,); 0 for none.
        centres: the row that is the centre of each group, (groups,).
    """

    numbers: IntArray
    cosines: FloatArray
    centres: IntArray


def compact(blocks: Iterable[AnyArray], rows: int, dimension: int) -> AnyArray:
    """Return vectors of length 1 in one array: float32, or float16 beyond `EXACT_ROWS` rows (2 bytes a component).

    Args:
        blocks: of vectors; a vector of zeros stays one.
        rows: of all blocks together.
        dimension: components of a vector.

    Shapes: each block: (some, dim); the result: (rows, dim).

    Raises:
        InputError: a vector holds NaN or infinity, or there are more or fewer rows.
    """
    made = np.empty((rows, dimension), np.float32 if rows <= EXACT_ROWS else np.float16)
    filled = 0
    for block in blocks:
        if not np.isfinite(block).all():
            first = filled + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
            raise InputError(f"the vectors must be finite, and that of row {first + 1} holds NaN or infinity")
        if filled + len(block) > rows:
            raise InputError(f"there are more vectors than {rows}")
        made[filled : filled + len(block)] = unit_rows(block)
        filled += len(block)
    if filled < rows:
        raise InputError(f"there are {filled} vectors, not {rows}")
    return made


def blocks_of(vectors: AnyArray) -> Iterator[AnyArray]:
    """Yield the rows of an array that memory may not hold, block by block. Shapes: (rows, dim); each: (some, dim)."""
    for start in range(0, len(vectors), _COMPARED_ROWS):
        yield np.asarray(vectors[start : start + _COMPARED_ROWS], np.float32)


def check_threshold(threshold: float) -> float:
    """Return the least cosine of a row and its group's centre.

    Raises:
        UsageError: it is not above 0 and at most 1.
    """
    least = arguments.number(threshold, "threshold")
    if not 0 < least <= 1:
        raise UsageError(f"the threshold must be above 0 and at most 1; found {threshold}", "threshold")
    return least


def find_groups(
    vectors: AnyArray,
    *,
    threshold: float = THRESHOLD,
    min_size: int = MIN_SIZE,
    show_progress_bar: bool = False,
) -> Groups:
    """Return the groups of some rows.

    Args:
        vectors: of length 1, as `compact` returns them.
        threshold: the least cosine of a row and its group's centre, in (0, 1].
        min_size: rows of the smallest group.
        show_progress_bar: draw a progress bar on stderr.

    Shapes: vectors: (rows, dim).

    Raises:
        UsageError: the threshold is outside (0, 1], or `min_size` is below 1.
    """
    least, size = check_threshold(threshold), arguments.integer(min_size, "min_size")
    lists = _Lists(vectors)
    density = lists.densities(least, show_progress_bar=show_progress_bar)
    centres = _centres(lists, density, least, size)
    numbers, cosines = _nearest(lists, vectors[centres], least)
    sizes = np.bincount(numbers[numbers >= 0], minlength=len(centres))
    while len(small := np.flatnonzero(sizes < size)):  # the rows of a group that is too small may join another
        freed = np.flatnonzero(np.isin(numbers, small))
        kept = np.flatnonzero(sizes >= size)
        renumbered = np.full(len(centres) + 1, NO_GROUP, np.int64)
        renumbered[kept] = np.arange(len(kept))
        centres, numbers = centres[kept], renumbered[numbers]
        if len(freed):
            numbers[freed], cosines[freed] = _nearest(lists, vectors[centres], least, freed)
        sizes = np.bincount(numbers[numbers >= 0], minlength=len(centres))
    order = np.lexsort((centres, -sizes))
    renumbered = np.full(len(centres) + 1, NO_GROUP, np.int64)
    renumbered[order] = np.arange(len(order))
    return Groups(renumbered[numbers], cosines, centres[order])


def assign(vectors: AnyArray, centres: FloatArray, threshold: float) -> tuple[IntArray, FloatArray]:
    """Return the group of each row, -1 for none, and its cosine to the group's centre, 0 for none.

    Args:
        vectors: of length 1, of the rows.
        centres: of length 1, of the groups.
        threshold: the least cosine of a row and its group's centre.

    Shapes: vectors: (rows, dim); centres: (groups, dim); the results: (rows,) each.
    """
    numbers, cosines = np.full(len(vectors), NO_GROUP, np.int64), np.zeros(len(vectors), np.float32)
    if not len(centres):
        return numbers, cosines
    index = faiss_with().IndexFlatIP(centres.shape[1])
    index.add(np.ascontiguousarray(centres, np.float32))
    for start, block in zip(range(0, len(vectors), _COMPARED_ROWS), blocks_of(vectors), strict=True):
        rows = slice(start, start + len(block))
        numbers[rows], cosines[rows] = _reached(index, block, threshold)
    return numbers, cosines


class _Lists:
    """Rows in lists of near ones: a row is compared with the rows of the nearest lists. Up to `EXACT_ROWS` rows are one list."""

    def __init__(self, vectors: AnyArray) -> None:
        self.vectors = vectors
        self.quantizer: Any = None
        rows, dimension = vectors.shape
        if rows <= EXACT_ROWS:
            self.members, self.partners = [np.arange(rows)], [np.zeros(1, np.int64)]
            return
        faiss = faiss_with()
        count = lists_for(rows)
        kmeans = faiss.Kmeans(dimension, count, niter=10, spherical=True, seed=1234, verbose=False)
        step = max(rows // (count * TRAINING_ROWS_A_LIST), 1)
        kmeans.train(np.asarray(vectors[::step], np.float32))
        self.quantizer = faiss.IndexFlatIP(dimension)
        self.quantizer.add(kmeans.centroids)
        owner = np.concatenate([self.quantizer.search(block, 1)[1][:, 0] for block in blocks_of(vectors)])
        order = np.argsort(owner, kind="stable")
        self.members = np.split(order, np.cumsum(np.bincount(owner, minlength=count))[:-1])
        nearest = self.quantizer.search(kmeans.centroids, min(_PROBES, count))[1]
        near = np.zeros((count, count), bool)
        near[np.arange(count)[:, None], nearest] = True
        near |= near.T | np.eye(count, dtype=bool)
        self.partners = [np.flatnonzero(row) for row in near]

    def densities(self, threshold: float, *, show_progress_bar: bool) -> IntArray:
        """Return how many rows each row reaches, itself included. Shapes: (rows,)."""
        density = np.zeros(len(self.vectors), np.int64)
        with ProgressBar("comparing", len(self.vectors)) if show_progress_bar else nullcontext() as bar:
            for number, rows in enumerate(self.members):
                partners = self.partners[number]
                later = [self.members[other] for other in partners[partners > number]]
                others = np.concatenate(later) if later else np.empty(0, np.int64)
                for start in range(0, len(rows), _BLOCK_ROWS):
                    block = rows[start : start + _BLOCK_ROWS]
                    own = self._of(block)
                    density[block] += reaches(own @ own.T, threshold).sum(axis=1)
                    self._count(density, own, block, np.concatenate([rows[start + _BLOCK_ROWS :], others]), threshold)
                    if bar is not None:
                        bar.advance(len(block))
        return density

    def _count(self, density: IntArray, own: FloatArray, block: IntArray, others: IntArray, threshold: float) -> None:
        """Count the pairs of a block's rows and others that reach each other, on both sides."""
        for start in range(0, len(others), _COMPARED_ROWS):
            compared = others[start : start + _COMPARED_ROWS]
            near = reaches(own @ self._of(compared).T, threshold)
            density[block] += np.count_nonzero(near, axis=1)
            density[compared] += np.count_nonzero(near, axis=0)

    def _of(self, rows: IntArray) -> FloatArray:
        return np.asarray(self.vectors[rows], np.float32)

    def index(self) -> Any:
        """Return an empty FAISS index that finds the nearest of the vectors that are added to it."""
        faiss, dimension = faiss_with(), self.vectors.shape[1]
        if self.quantizer is None:
            return faiss.IndexFlatIP(dimension)
        index = faiss.IndexIVFFlat(self.quantizer, dimension, self.quantizer.ntotal, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = _PROBES
        return index


def _centres(lists: _Lists, density: IntArray, threshold: float, min_size: int) -> IntArray:
    """Return the rows that become centres, the densest first."""
    order = np.lexsort((np.arange(len(density)), -density))
    order = order[density[order] >= min_size]
    index, centres = lists.index(), []
    for start in range(0, len(order), _BLOCK_ROWS):
        rows = order[start : start + _BLOCK_ROWS]
        block = np.asarray(lists.vectors[rows], np.float32)
        if index.ntotal:
            free = _reached(index, block, threshold)[0] == NO_GROUP
            rows, block = rows[free], block[free]
        near = reaches(block @ block.T, threshold)
        open_rows = np.ones(len(rows), bool)
        new = []
        for i in range(len(rows)):
            if open_rows[i]:
                new.append(i)
                open_rows &= ~near[i]
        if new:
            index.add(np.ascontiguousarray(block[new]))
            centres.append(rows[new])
    return np.concatenate(centres) if centres else np.empty(0, np.int64)


def _nearest(
    lists: _Lists, centres: AnyArray, threshold: float, rows: IntArray | None = None
) -> tuple[IntArray, FloatArray]:
    """Return the nearest centre that reaches each row, and their cosine: of all rows, or of some."""
    rows = np.arange(len(lists.vectors)) if rows is None else rows
    numbers, cosines = np.full(len(rows), NO_GROUP, np.int64), np.zeros(len(rows), np.float32)
    if not len(centres):
        return numbers, cosines
    index = lists.index()
    index.add(np.ascontiguousarray(centres, np.float32))
    for start in range(0, len(rows), _COMPARED_ROWS):
        some = slice(start, start + _COMPARED_ROWS)
        numbers[some], cosines[some] = _reached(index, np.asarray(lists.vectors[rows[some]], np.float32), threshold)
    return numbers, cosines


def _reached(index: Any, block: FloatArray, threshold: float) -> tuple[IntArray, FloatArray]:
    """Return the nearest vector of an index that reaches each row, -1 for none, and their cosine, 0 for none."""
    products, nearest = index.search(np.ascontiguousarray(block), 1)
    cosines = np.asarray(as_cosines(products[:, 0]), np.float32)
    near = reaches(cosines, threshold) & (nearest[:, 0] >= 0)
    return np.where(near, nearest[:, 0], NO_GROUP), np.where(near, cosines, 0).astype(np.float32)
