"""Near-duplicates in a stream of rows: the first of each kind is kept, and every other one says which row it repeats."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sbert_mini.errors import UsageError
from sbert_mini.progress import Counted, expected
from sbert_mini.runtime.embedder import Embedder, EncodeCounts, Truncation
from sbert_mini.search.faiss_threads import faiss_with
from sbert_mini.search.nearest import lists_for
from sbert_mini.shapes import FloatArray
from sbert_mini.text.records import Record

EXACT_ROWS = 50_000
"""Kept rows that a row is held against one by one; above that, those in the likeliest inverted lists."""
_PROBES = 32


@dataclass(frozen=True)
class Verdict:
    """What became of a row.

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
    records: Iterable[Record],
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

    Args:
        records: the rows.
        embedder: the model.
        threshold: the least cosine of near-duplicates, in (0, 1]; what it means depends on the model (see its card).
        batch_size: see `Embedder.encode`.
        truncation: see `Embedder.encode`.
        show_progress_bar: draw a progress bar on stderr.
        counts: filled in, if given.

    Raises:
        UsageError: the threshold is outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise UsageError(f"the threshold must be above 0 and at most 1; found {threshold}")
    pending: list[Record] = []

    def texts() -> Iterator[str]:
        for record in records:
            pending.append(record)
            yield record.text

    kept = _Kept(embedder.dimension)
    blocks = embedder.encode_stream(
        Counted(texts(), expected(records)),
        batch_size=batch_size,
        truncation=truncation,
        show_progress_bar=show_progress_bar,
        counts=counts,
    )
    for block in blocks:
        yield from kept.judge(pending[: len(block)], block, threshold)
        del pending[: len(block)]


class _Kept:
    """The rows that are kept."""

    def __init__(self, dimension: int) -> None:
        faiss = faiss_with()
        self._records: list[Record] = []
        self._by_text: dict[str, int] = {}
        self._index: Any = faiss.IndexFlatIP(dimension)

    def judge(self, records: list[Record], vectors: FloatArray, threshold: float) -> Iterator[Verdict]:
        """Yield a verdict on each row, and keep the new ones."""
        faiss_with()
        before = len(self._records)
        if before:
            scores, nearest = (found[:, 0] for found in self._index.search(vectors, 1))
        else:
            scores, nearest = np.full(len(records), -np.inf), np.full(len(records), -1)
        among = vectors @ vectors.T
        new: list[int] = []
        for i, record in enumerate(records):
            text = " ".join(record.text.casefold().split())
            if text in self._by_text:
                yield Verdict(record, self._records[self._by_text[text]], "same text", 1.0)
                continue
            best, of = float(scores[i]), int(nearest[i])
            if new:
                at = int(np.argmax(among[i, new]))
                if among[i, new[at]] > best:
                    best, of = float(among[i, new[at]]), before + at
            if best >= threshold:
                yield Verdict(record, self._records[of], "near", best)
                continue
            self._by_text[text] = len(self._records)
            self._records.append(record)
            new.append(i)
            yield Verdict(record)
        if new:
            self._index.add(np.ascontiguousarray(vectors[new]))
            self._grow()

    def _grow(self) -> None:
        """Go over to inverted lists of half-precision vectors once there are many."""
        faiss = faiss_with()
        if self._index.ntotal <= EXACT_ROWS or not isinstance(self._index, faiss.IndexFlatIP):
            return
        held = self._index.reconstruct_n(0, self._index.ntotal)
        lists = f"IVF{lists_for(len(held))},SQfp16"
        index = faiss.index_factory(held.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
        index.train(held)
        index.add(held)
        faiss.extract_index_ivf(index).nprobe = _PROBES
        self._index = index
