"""Near-duplicates in a stream of rows: the first of each kind is kept, and every other one says which row it repeats."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from sbert_mini.cosine import as_cosines, reaches
from sbert_mini.errors import UsageError
from sbert_mini.progress import Counted, expected
from sbert_mini.runtime import arguments
from sbert_mini.runtime.choices import Truncation
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.runtime.stream import EncodeCounts, join_records
from sbert_mini.search.faiss_threads import faiss_with
from sbert_mini.search.kinds import EXACT_ROWS, lists_for
from sbert_mini.search.writer import Row, as_record
from sbert_mini.shapes import FloatArray, IntArray
from sbert_mini.text.records import Record
from sbert_mini.text.words import Words

_PROBES = 32
"""Inverted lists that a row is compared with, once more than `EXACT_ROWS` rows are kept."""
_DEEPER = 32
"""Kept rows that a row with unknown words is compared with at first, where the nearest one is another text."""


@dataclass(frozen=True)
class Verdict:
    """The result for a row: kept, or a repetition of another row.

    Attributes:
        record: the row.
        of: the kept row that it repeats, or None where it is kept itself.
        reason: `same text`, apart from case and blanks, or `near`; None where it is kept.
        score: the cosine of the two, in [-1, 1]; 1 for the same text, None where it is kept.
    """

    record: Record
    of: Record | None = None
    reason: Literal["same text", "near"] | None = None
    score: float | None = None


def deduplicate(
    records: Iterable[Row],
    embedder: Embedder,
    *,
    threshold: float = 0.9,
    batch_size: int = 32,
    truncation: Truncation = "warn",
    show_progress_bar: bool = False,
    counts: EncodeCounts | None = None,
) -> Iterator[Verdict]:
    """Yield a verdict a row, in their order, as they are read; memory holds the kept rows and their vectors.

    A row repeats the kept row that it is nearest to, if their cosine is `threshold` or more: what is kept depends on the order.
    Rows that each hold a word that the model does not know and the other lacks are never near: the model takes such words for one
    another (`text.words.Words.may_repeat`). A row of which nothing is read is near to none.

    Args:
        records: the rows: records, or what `IndexWriter.add` takes as one.
        embedder: the model.
        threshold: the least cosine of near-duplicates, in (0, 1]; what it means depends on the model (see its card).
        batch_size: see `Embedder.encode`.
        truncation: see `Embedder.encode`.
        show_progress_bar: draw a progress bar on stderr.
        counts: filled in, if given.

    Raises:
        UsageError: the threshold is outside (0, 1].
        InputError: a row cannot be read as a record.
    """
    least = arguments.number(threshold, "threshold")
    if not 0 < least <= 1:
        raise UsageError(f"the threshold must be above 0 and at most 1; found {threshold}")
    several = arguments.items_of(records, "records", "records")
    rows = (
        record if isinstance(record, Record) else as_record(record, position + 1)
        for position, record in enumerate(several)
    )
    keeper = _Kept(embedder.dimension)
    encode = partial(
        embedder.encode_windows,
        batch_size=batch_size,
        truncation=truncation,
        show_progress_bar=show_progress_bar,
        counts=counts,
    )
    for encoded, window in join_records(Counted(rows, expected(records)), encode):
        yield from keeper.judge(encoded, window.vectors, window.words(), least)


class _Group:
    """Kept rows of one vector: a single row, or rows of the same pieces whose unknown words differ."""

    def __init__(self, record: Record, words: Words) -> None:
        self._pieces = words.pieces
        self._members: dict[tuple[str, ...], Record] = {}
        self._by_word: dict[str, list[tuple[str, ...]]] = {}
        self.first = record
        if words.unknown:
            self.add(record, words)

    def add(self, record: Record, words: Words) -> None:
        """Take in a row of the same pieces."""
        self._members[words.unknown] = record
        for word in dict.fromkeys(words.unknown):
            self._by_word.setdefault(word, []).append(words.unknown)

    def repeated_by(self, words: Words) -> Record | None:
        """Return the first row that a row near to it may repeat, or None."""
        if not self._members:
            return self.first if words.may_repeat(Words(self._pieces)) else None
        if not words.unknown:
            first = next(iter(self._members))
            return self._members[first] if words.may_repeat(Words(self._pieces, first)) else None
        if words.unknown in self._members:
            return self._members[words.unknown]
        for word in dict.fromkeys(words.unknown):  # rows that share none are different
            for unknown in self._by_word.get(word, ()):
                if words.may_repeat(Words(self._pieces, unknown)):
                    return self._members[unknown]
        return None


class _Kept:
    """The rows that are kept."""

    def __init__(self, dimension: int) -> None:
        faiss = faiss_with()
        self._by_text: dict[str, Record] = {}
        self._by_pieces: dict[tuple[int, ...], _Group] = {}
        self._groups: list[_Group] = []
        self._index: Any = faiss.IndexFlatIP(dimension)
        self._is_exact = True

    def judge(
        self, records: list[Record], vectors: FloatArray, words: list[Words], threshold: float
    ) -> Iterator[Verdict]:
        """Yield a verdict on each row, and keep the new ones."""
        faiss_with()
        before = len(self._groups)
        nearest, scores = self._nearest(vectors, 1)
        among = as_cosines(vectors @ vectors.T)
        new: list[int] = []
        for i, (record, row_words) in enumerate(zip(records, words, strict=True)):
            text = " ".join(record.text.casefold().split())
            if text in self._by_text:
                yield Verdict(record, self._by_text[text], "same text", 1.0)
                continue
            if not row_words.empty:
                within = among[i, new]
                in_block = np.flatnonzero(reaches(within, threshold))
                candidates = itertools.chain(
                    zip(scores[i].tolist(), nearest[i].tolist(), strict=True),
                    zip(within[in_block].tolist(), (before + in_block).tolist(), strict=True),
                )
                deeper = partial(self._deeper, vectors[i], threshold)
                match = self._match(row_words, candidates, threshold, deeper)
                if match is not None:
                    yield Verdict(record, match[0], "near", match[1])
                    continue
            self._by_text[text] = record
            if row_words.unknown and row_words.pieces in self._by_pieces:
                self._by_pieces[row_words.pieces].add(record, row_words)
            elif not row_words.empty:
                self._groups.append(_Group(record, row_words))
                if row_words.unknown:
                    self._by_pieces[row_words.pieces] = self._groups[-1]
                new.append(i)
            yield Verdict(record)
        if new:
            self._index.add(np.ascontiguousarray(vectors[new]))
            self._grow()

    def _match(
        self,
        words: Words,
        candidates: Iterable[tuple[float, int]],
        threshold: float,
        deeper: Callable[[], Iterable[tuple[float, int]]],
    ) -> tuple[Record, float] | None:
        """Return the kept row that a row repeats, with their cosine, or None.

        Args:
            words: of the row.
            candidates: cosines to groups, and their numbers: the nearest one, and those of the row's own block.
            threshold: the least cosine.
            deeper: gives more groups that are near.
        """
        reaching = (candidate for candidate in candidates if reaches(candidate[0], threshold))
        near = sorted(reaching, key=lambda candidate: -candidate[0])
        if near and self._groups[near[0][1]].repeated_by(words) is None:
            near = sorted(set(near).union(deeper()), key=lambda candidate: -candidate[0])
        for score, group in near:
            record = self._groups[group].repeated_by(words)
            if record is not None:
                return record, score
        return None

    def _nearest(self, vectors: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
        """Return the groups nearest to each vector and their cosines, nearest first. Shapes: each (rows, min(k, groups))."""
        k = min(k, self._index.ntotal)
        if not k:
            return np.empty((len(vectors), 0), np.int64), np.empty((len(vectors), 0), np.float32)
        scores, nearest = self._index.search(vectors, k)
        if not self._is_exact:  # half precision rounds the vectors' lengths
            for i, row in enumerate(nearest):
                for j, group in enumerate(row.tolist()):
                    if group >= 0:
                        stored = self._index.reconstruct(group)
                        scores[i, j] = stored @ vectors[i] / np.linalg.norm(stored)
        return nearest, as_cosines(scores)

    def _deeper(self, vector: FloatArray, threshold: float) -> list[tuple[float, int]]:
        """Return all groups that are near to a vector, with their cosines."""
        k, every = _DEEPER, self._index.ntotal
        nearest, scores = self._nearest(vector[None], k)
        while k < every and reaches(float(scores[0, -1]), threshold):
            k *= 4
            nearest, scores = self._nearest(vector[None], k)
        near = zip(scores[0].tolist(), nearest[0].tolist(), strict=True)
        return [(score, group) for score, group in near if group >= 0 and reaches(score, threshold)]

    def _grow(self) -> None:
        """Go over to inverted lists of half-precision vectors once there are many."""
        faiss = faiss_with()
        if self._index.ntotal <= EXACT_ROWS or not self._is_exact:
            return
        vectors = self._index.reconstruct_n(0, self._index.ntotal)
        lists = f"IVF{lists_for(len(vectors))},SQfp16"
        index = faiss.index_factory(vectors.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.add(vectors)
        inverted = faiss.extract_index_ivf(index)
        inverted.nprobe = _PROBES
        inverted.make_direct_map()
        self._index, self._is_exact = index, False
