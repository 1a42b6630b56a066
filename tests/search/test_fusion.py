"""Two rankings become one: by hand."""

from sbert_mini.search.fusion import RankedRow, fused


def test_reciprocal_ranks_are_added_up():
    rows = fused([(5, 0.9), (3, 0.8)], [(3, 7.5), (9, 2.5)], {9: 0.25})
    assert rows == [
        RankedRow(3, 1 / 61 + 1 / 62, 0.8, 7.5, 2, 1),
        RankedRow(5, 1 / 61, 0.9, None, 1, None),
        RankedRow(9, 1 / 62, 0.25, 2.5, None, 2),
    ]
    assert fused([], [], {}) == []
    assert [row.row for row in fused([(8, 0.5)], [(2, 1.0)], {2: 0.1})] == [2, 8]  # a tie goes by the row's number
