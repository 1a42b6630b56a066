"""Two rankings become one: by hand, and by the laws of a weighted sum."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbert_mini.search.fusion import DEFAULT_WEIGHT, fused


def test_cosines_and_bounded_bm25_scores_are_added_up_by_hand():
    rows = fused([(5, 0.8), (3, 0.5), (7, 0.4)], [(3, 8.0), (9, 2.0)], {9: 0.2}, {5: 1.0}, 10.0, 0.75)
    assert [row.row for row in rows] == [5, 3, 7, 9]
    assert [row.score for row in rows] == pytest.approx(
        [0.75 * 0.8 + 0.25 / 40, 0.75 * 0.5 + 0.25 * 8 / 40, 0.75 * 0.4, 0.75 * 0.2 + 0.25 * 2 / 40]
    )
    assert [(row.cosine, row.bm25) for row in rows] == [(0.8, 1.0), (0.5, 8.0), (0.4, None), (0.2, 2.0)]
    assert [(row.rank_by_meaning, row.rank_by_words) for row in rows] == [(1, None), (2, 1), (3, None), (None, 2)]
    assert fused([], [], {}, {}, 0) == []
    assert [row.row for row in fused([(8, 0.5)], [(2, 0.0)], {2: 0.5}, {}, 0)] == [
        2,
        8,
    ]  # a tie goes by the row's number
    assert fused([(1, -1.0)], [], {}, {}, 3, 0.25)[0].score == -0.25


CANDIDATES = st.dictionaries(
    st.integers(0, 30),
    st.tuples(st.floats(-1, 1), st.one_of(st.none(), st.floats(0.01, 40)), st.booleans()),
    min_size=1,
)


@given(CANDIDATES, st.floats(0, 1))
def test_the_share_of_meaning_moves_the_order_from_words_to_meaning(candidates, weight):
    near = [(row, cosine) for row, (cosine, bm25, both) in candidates.items() if both or bm25 is None]
    words = [(row, bm25) for row, (_, bm25, _) in candidates.items() if bm25 is not None]
    near, words = (sorted(ranking, key=lambda entry: -entry[1]) for ranking in (near, words))
    others = {row: candidates[row][0] for row in dict(words).keys() - dict(near).keys()}
    rows = fused(near, words, others, {}, 40, weight)
    assert {row.row for row in rows} == set(candidates)
    assert all(-weight <= row.score <= 1 + 1e-12 for row in rows)
    assert [row.score for row in rows] == sorted((row.score for row in rows), reverse=True)
    by_meaning, by_words = (
        [row.score for row in sorted(fused(near, words, others, {}, 40, share), key=lambda row: row.row)]
        for share in (1, 0)
    )
    mixed = [row.score for row in sorted(rows, key=lambda row: row.row)]
    assert mixed == pytest.approx([weight * a + (1 - weight) * b for a, b in zip(by_meaning, by_words, strict=True)])
    cosines = [candidates[row.row][0] for row in fused(near, words, others, {}, 40, 1)]
    assert cosines == pytest.approx(sorted(cosines, reverse=True), abs=1e-9)
    assert fused(near, words, others, {}, 40) == fused(near, words, others, {}, 40, DEFAULT_WEIGHT)
