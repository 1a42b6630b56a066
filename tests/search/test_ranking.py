"""Hybrid search: reciprocal ranks, added up by hand."""

import numpy as np
import pytest

from sbert_mini import IndexWriter
from sbert_mini.errors import UsageError
from sbert_mini.search.queries import fused
from sbert_mini.search.ranking import rows_by_words
from sbert_mini.text.records import Record


def test_a_hybrid_search_adds_up_reciprocal_ranks(tmp_path, embedder, passages):
    odd = [Record(f"Ticket {n}: the printer on floor {n % 7} is out of paper.", f"T{n}") for n in range(1000, 1060)]
    rows = [Record(row["text"], row["id"], {"topic": row["topic"]}) for row in passages]
    index = IndexWriter(tmp_path / "index", embedder).create(rows + odd)
    (hit, *_) = index.search("Ticket 1033", 3, hybrid=True)
    assert hit.id == "T1033"
    assert hit.score <= 2 / 61
    query = "how does yeast make dough rise"
    near = [h.id for h in index.search(query, 100)]
    (segment,) = index._store.segments
    words = [segment.row(n).id for n, _ in rows_by_words(index._words, [segment], query, 100, [None])]
    scores = {i: sum(1 / (61 + ranking.index(i)) for ranking in (near, words) if i in ranking) for i in {*near, *words}}
    hits = index.search(query, 12, hybrid=True)
    assert [h.score for h in hits] == pytest.approx(sorted(scores.values(), reverse=True)[:12])
    assert all(h.score == pytest.approx(scores[h.id]) for h in hits)
    assert {h.columns["topic"] for h in index.search(query, 9, hybrid=True, filter="topic = 'railways'")} == {
        "railways"
    }
    assert len(index.search("?!", 5, hybrid=True)) == 5  # no word at all
    for wrong in ({"min_score": 0.1}, {}):
        with pytest.raises(UsageError, match="hybrid"):
            index.search(np.zeros((1, 384), np.float32) if not wrong else query, 5, hybrid=True, **wrong)
    assert fused([5, 3], [3, 9]) == [(3, 1 / 61 + 1 / 62), (5, 1 / 61), (9, 1 / 62)]
