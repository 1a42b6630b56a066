"""One ranking out of two: rows by meaning (cosines) and rows by words (BM25). Imports nothing heavy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

SearchBy: TypeAlias = Literal["meaning", "words", "both"]
"""What ranks the rows of a search: cosines, BM25, or both fused."""
SEARCH_BY: tuple[SearchBy, ...] = get_args(SearchBy)
DEFAULT_BY: SearchBy = "meaning"
HYBRID_DEPTH = 100
"""The rows of each ranking that are fused, if `k` is not larger."""
RRF_CONSTANT = 60


@dataclass(frozen=True)
class RankedRow:
    """A row of a ranking, with what ranks it.

    Attributes:
        row: its number.
        score: what ranks it; larger is closer.
        cosine: of its stored vector and the query's.
        bm25: its BM25 score; None where it is not known, or the row has no word of the query.
        rank_by_meaning: its rank by cosine, from 1; None where the ranking by meaning lacks it.
        rank_by_words: its rank by BM25, from 1; None where the ranking by words lacks it.
    """

    row: int
    score: float
    cosine: float
    bm25: float | None = None
    rank_by_meaning: int | None = None
    rank_by_words: int | None = None


def fused(
    by_meaning: Sequence[tuple[int, float]],
    by_words: Sequence[tuple[int, float]],
    cosines: Mapping[int, float],
) -> list[RankedRow]:
    """Return the rows of two rankings with the sum of `1 / (60 + rank)` over them, the greatest first.

    Args:
        by_meaning: rows with their cosines, best first.
        by_words: rows with their BM25 scores, best first. A row that one ranking lacks adds nothing for it.
        cosines: of the rows that `by_meaning` lacks.

    Source:
        Cormack, Clarke and Büttcher 2009, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods".
    """
    cosine_of, bm25_of = {**cosines, **dict(by_meaning)}, dict(by_words)
    meaning = {row: rank for rank, (row, _) in enumerate(by_meaning, start=1)}
    words = {row: rank for rank, (row, _) in enumerate(by_words, start=1)}
    rows = []
    for row in meaning | words:
        score = sum(1 / (RRF_CONSTANT + ranking[row]) for ranking in (meaning, words) if row in ranking)
        rows.append(RankedRow(row, score, cosine_of[row], bm25_of.get(row), meaning.get(row), words.get(row)))
    return sorted(rows, key=lambda ranked: (-ranked.score, ranked.row))
