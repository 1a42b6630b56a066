"""Equal vectors of a segment: FAISS is given the first of them alone."""

import numpy as np

from sbert_mini.errors import CorruptIndexError
from sbert_mini.search.segment import Segment
from sbert_mini.shapes import AnyArray, FloatArray, IntArray

_COMPARED_ROWS = 4096


def repeated_rows(segment: Segment, dimension: int) -> IntArray:
    """Return the positions of vectors that equal an earlier one, with the first such one: (repeats, 2), ascending.

    They are found by a hash of 64 bits, and compared byte by byte.
    """
    weights = np.random.default_rng(0).integers(0, 2**63, dimension, np.uint64) * 2 + 1
    hashes = np.concatenate(
        [
            (block.view(np.uint32).astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64)
            for _, block in segment.vector_blocks(dimension)
        ]
    )
    order = np.argsort(hashes, kind="stable")
    same = np.concatenate([[False], hashes[order][1:] == hashes[order][:-1]])
    starts = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    pairs = np.stack([order[same], order[starts[same]]], axis=1)
    pairs = pairs[np.argsort(pairs[:, 0])]
    repeats = [np.empty((0, 2), np.int64)]
    for first in range(0, len(pairs), _COMPARED_ROWS):
        some = pairs[first : first + _COMPARED_ROWS]
        firsts, inverse = np.unique(some[:, 1], return_inverse=True)
        vectors = segment.vectors_at(some[:, 0], dimension)
        equal = (vectors == segment.vectors_at(firsts, dimension)[inverse]).all(axis=1)
        repeats.append(some[equal])
    return np.concatenate(repeats)


class Groups:
    """Groups of equal vectors. FAISS is given the first of each group: HNSW loses vectors where many are the same.

    Args:
        repeats: positions, ascending, each with the first one of its group, (repeats, 2).
        vectors: of the segment.

    Attributes:
        firsts: the groups' first vectors, ascending: FAISS's numbers -> positions.

    Raises:
        CorruptIndexError: a repeat is not a vector after the first one of its group.
    """

    def __init__(self, repeats: IntArray, vectors: int) -> None:
        is_first = np.ones(vectors, dtype=bool)
        if len(repeats):
            later, first = repeats[:, 0], repeats[:, 1]
            if repeats.shape[1] != 2 or first.min() < 0 or later.max() >= vectors or (later <= first).any():
                raise CorruptIndexError("the file of repeated vectors belongs to another segment")
            is_first[later] = False
            if not is_first[first].all():
                raise CorruptIndexError("the file of repeated vectors belongs to another segment")
        self._is_first = is_first
        self.firsts: IntArray = np.flatnonzero(is_first)
        by_first = np.argsort(repeats[:, 1], kind="stable")
        self._first, self._later = repeats[by_first, 1], repeats[by_first, 0]

    def any_of(self, allowed: AnyArray) -> AnyArray:
        """Return which groups have a vector that is allowed, (groups,) bool. Shapes: allowed: (vectors,)."""
        if not len(self._later):
            return allowed
        groups = allowed[self._is_first]
        rows = allowed[self._later]
        groups[np.searchsorted(self.firsts, self._first[rows])] = True
        return groups

    def expanded(
        self, scores: FloatArray, firsts: IntArray, k: int, allowed: AnyArray | None
    ) -> tuple[FloatArray, IntArray]:
        """Return the first k allowed vectors of some groups, with their groups' scores; -1 where there are fewer.

        Shapes:
            scores, firsts: (queries, groups), best first; each result: (queries, k).
        """
        if not len(self._first) and firsts.shape[1] == k:
            return scores, firsts
        every = np.full((len(firsts), k), -np.inf, np.float32)
        rows = np.full((len(firsts), k), -1, np.int64)
        for query in range(len(firsts)):
            at = 0
            for score, first in zip(scores[query], firsts[query], strict=True):
                if first < 0 or at == k:
                    break
                low, high = np.searchsorted(self._first, [first, first + 1])
                group = np.concatenate([[first], self._later[low:high]])
                group = group[allowed[group]] if allowed is not None else group
                stop = min(at + len(group), k)
                every[query, at:stop], rows[query, at:stop] = score, group[: stop - at]
                at = stop
        return every, rows
