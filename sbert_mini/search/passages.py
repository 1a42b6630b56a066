"""The passages of a segment's rows: which row, and which part of its text, each vector is of.

A row whose text is split has several vectors, one a passage. A segment of which a row has several has the file `passages.npy`;
where each row has one vector, of its whole text, there is none.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sbert_mini.cosine import unit_rows
from sbert_mini.errors import CorruptIndexError
from sbert_mini.shapes import AnyArray, FloatArray, IntArray

_FIRST_DEPTH, _DEEPER = 3, 4
"""Vectors that are looked at for each row that is asked for: at first at most three, and four times as many where rows repeat."""


class Passages:
    """Which row and which part of its text each vector of a segment is of.

    Args:
        spans: for each vector the position of its row in the segment, and where the passage starts and ends in the row's text.
        rows: rows of the segment.
        file: where they were read, for an error.

    Attributes:
        spans: as given.
        rows: the row of each vector, ascending, (vectors,).
        firsts: where the vectors of each row start, and the end of the last, (rows + 1,).

    Raises:
        CorruptIndexError: the rows do not ascend from the first to the last without a gap, a passage is empty, or the passages
            of a row do not ascend.

    Shapes:
        spans: (vectors, 3).
    """

    def __init__(self, spans: IntArray, rows: int, file: Path) -> None:
        self.spans = spans
        self.rows: IntArray = np.ascontiguousarray(spans[:, 0])
        steps = np.diff(self.rows, prepend=-1, append=rows)
        starts, ends = spans[:, 1], spans[:, 2]
        if ((steps != 0) & (steps != 1)).any() or steps[0] != 1 or steps[-1] != 1:
            raise CorruptIndexError(f"{file} must name each of the {rows} rows, in their order")
        if (starts >= ends).any() or (np.diff(starts)[steps[1:-1] == 0] <= 0).any():
            raise CorruptIndexError(f"{file} must name passages that are not empty, in their order")
        self.firsts: IntArray = np.flatnonzero(steps)

    def __len__(self) -> int:
        return len(self.spans)

    def vectors_of(self, rows: AnyArray) -> AnyArray:
        """Return which vectors are of some rows, (vectors,) bool, for (rows,) bool."""
        return np.asarray(rows[self.rows])

    def of_row(self, row: int) -> IntArray:
        """Return the positions of a row's vectors, ascending."""
        return np.arange(self.firsts[row], self.firsts[row + 1])

    def nearest_rows(
        self,
        nearest: Callable[[FloatArray, int], tuple[FloatArray, IntArray]],
        queries: FloatArray,
        k: int,
    ) -> tuple[FloatArray, IntArray]:
        """Return the cosines and positions of the rows nearest to each query, nearest first; a row has its best vector's cosine.

        Args:
            nearest: some queries, and how many vectors each -> the vectors' cosines and positions, nearest first, and fewer than
                that only where there are no more.
            queries: of length 1.
            k: rows a query; `nearest` must reach as many.

        Shapes:
            queries: (queries, dim); each result: (queries, k).
        """
        scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        waiting, depth = np.arange(len(queries)), k * min(-(-len(self) // max(len(self.firsts) - 1, 1)), _FIRST_DEPTH)
        while len(waiting):
            cosines, vectors = nearest(queries[waiting], depth)
            again = []
            for query, query_scores, query_rows in zip(waiting.tolist(), cosines, self.rows[vectors], strict=True):
                _, first = np.unique(query_rows, return_index=True)
                best = np.sort(first)[:k]
                if len(best) < k:
                    again.append(query)
                else:
                    scores[query], rows[query] = query_scores[best], query_rows[best]
            if again and cosines.shape[1] < depth:
                raise CorruptIndexError(f"a search for {k} rows found no more than {cosines.shape[1]} vectors")
            waiting, depth = np.array(again, np.int64), _DEEPER * depth
        return scores, rows

    def averaged(self, vectors: FloatArray, positions: IntArray) -> FloatArray:
        """Return one vector of length 1 a row: the mean of its passages' vectors by their lengths in characters.

        Args:
            vectors: all vectors of some rows.
            positions: of the vectors, ascending.

        Shapes:
            vectors: (vectors, dim); positions: (vectors,); the result: (rows, dim).
        """
        spans = self.spans[positions]
        weights = (spans[:, 2] - spans[:, 1]).astype(np.float32)
        starts = np.flatnonzero(np.diff(spans[:, 0], prepend=-1))
        return unit_rows(np.add.reduceat(vectors * weights[:, None], starts, axis=0))
