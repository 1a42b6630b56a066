"""One ranking out of two: rows by meaning (cosines) and rows by words (BM25). Imports nothing heavy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

SearchBy: TypeAlias = Literal["meaning", "words", "both"]
"""What ranks the rows of a search: cosines, BM25, or both fused."""
SEARCH_BY: tuple[SearchBy, ...] = get_args(SearchBy)
DEFAULT_BY: SearchBy = "both"
HYBRID_DEPTH = 100
"""The rows of each ranking that are fused, if `k` is not larger."""
DEFAULT_WEIGHT = 0.5
"""The share of meaning."""
SPARE_BM25 = 30.0
"""Added to the greatest BM25 score possible, as if the query had one more rare word: few words say less than many."""


@dataclass(frozen=True)
class RankedRow:
    """A row of a ranking, with what ranks it.

    Attributes:
        row: its number.
        score: what ranks it; larger is closer.
        cosine: of its stored vector, or its nearest passage's, and the query's.
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
    bm25: Mapping[int, float],
    greatest_bm25: float,
    weight: float = DEFAULT_WEIGHT,
) -> list[RankedRow]:
    """Return the rows of two rankings by `weight · cosine + (1 - weight) · BM25 / (greatest_bm25 + 30)`, the greatest first.

    Both summands are at most their shares. `greatest_bm25` depends on the query and the index alone, so a weak best match by
    words counts less than a strong one. The BM25 score of a row that shares no word with the query is 0. Ties go by row number.

    Args:
        by_meaning: rows with their cosines, best first.
        by_words: rows with their BM25 scores, best first.
        cosines: of the rows that `by_meaning` lacks.
        bm25: BM25 scores of the rows that `by_words` lacks; of those that share a word with the query.
        greatest_bm25: what no row's BM25 score of the query can exceed (`WordIndex.greatest_bm25`).
        weight: the share of meaning, in [0, 1].

    Source:
        Bruch, Gai and Ingber 2023, "An Analysis of Fusion Functions for Hybrid Retrieval", arXiv 2210.11934, section 4 (convex
        combination). Differs from it: it divides by the greatest score among the candidates.
    """
    cosine_of, bm25_of = {**cosines, **dict(by_meaning)}, {**bm25, **dict(by_words)}
    meaning = {row: rank for rank, (row, _) in enumerate(by_meaning, start=1)}
    words = {row: rank for rank, (row, _) in enumerate(by_words, start=1)}
    per_bm25 = (1 - weight) / (greatest_bm25 + SPARE_BM25)
    rows = []
    for row in meaning | words:
        score = weight * cosine_of[row] + per_bm25 * bm25_of.get(row, 0.0)
        rows.append(RankedRow(row, score, cosine_of[row], bm25_of.get(row), meaning.get(row), words.get(row)))
    return sorted(rows, key=lambda ranked: (-ranked.score, ranked.row))
