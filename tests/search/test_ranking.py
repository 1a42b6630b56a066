"""Searches by words and by both: ranks, scores and cosines by hand."""

import logging
import math
import shutil

import numpy as np
import pytest

from sbert_mini import IndexWriter, SearchIndex
from sbert_mini.errors import UsageError
from sbert_mini.search import word_index
from sbert_mini.search.analyzer import terms_of
from sbert_mini.search.fusion import DEFAULT_WEIGHT
from sbert_mini.search.ranking import rows_by_words
from sbert_mini.text.records import Record


@pytest.fixture(scope="module")
def index(tmp_path_factory, embedder, passages):
    """The shipped collection and 60 tickets, in two segments, without a row of each."""
    odd = [Record(f"Ticket {n}: the printer on floor {n % 7} is out of paper.", f"T{n}") for n in range(1000, 1060)]
    rows = [Record(row["text"], row["id"], {"topic": row["topic"]}) for row in passages]
    path = tmp_path_factory.mktemp("ranking") / "index"
    IndexWriter(path, embedder).create(rows)
    IndexWriter(path, embedder).add(odd)
    IndexWriter(path).delete(["T1001", rows[3].id])
    return SearchIndex(path)


def ids_by_words(index, query, depth=100):
    """Return the ids and BM25 scores of the ranking by words."""
    allowed = [index._store.present_rows(segment) for segment in index._store.segments]
    ranked = rows_by_words(index._words, index._store.segments, query, depth, allowed)
    located = [(index._store.locate(row), score) for row, score in ranked]
    return [(segment.row(position).id, score) for (segment, position), score in located]


def greatest_bm25(index, query):
    """Return the sum of (k1 + 1) · idf over the query's different terms that rows hold; the deleted rows count too."""
    documents = [{*terms_of(text)} for segment in index._store.segments for text in segment.texts()]
    counts = [sum(term in document for document in documents) for term in {*terms_of(query)}]
    return sum(2.2 * math.log(1 + (len(documents) - count + 0.5) / (count + 0.5)) for count in counts if count)


def test_a_hybrid_search_weighs_cosines_and_bm25(index):
    (hit, *_) = index.search("Ticket 1033", 3, hybrid=True)
    assert hit.id == "T1033"
    query = "how does yeast make dough rise"
    cosines = {h.id: h.cosine for h in index.search(query, 1000, by="meaning")}
    words = dict(ids_by_words(index, query, 1000))
    candidates = {*list(cosines)[:100], *list(words)[:100]}
    greatest = greatest_bm25(index, query)
    for weight in (None, 0, 0.3, 1):
        share = DEFAULT_WEIGHT if weight is None else weight
        scores = {i: share * cosines[i] + (1 - share) * words.get(i, 0) / (greatest + 30) for i in candidates}
        hits = index.search(query, 12, hybrid=True, weight=weight)
        assert [h.score for h in hits] == pytest.approx(sorted(scores.values(), reverse=True)[:12])
        assert all(h.score == pytest.approx(scores[h.id]) for h in hits)
    topics = {h.columns["topic"] for h in index.search(query, 9, hybrid=True, filter="topic = 'railways'")}
    assert topics == {"railways"}
    assert len(index.search("?!", 5, hybrid=True)) == 5  # no word at all


def test_every_hit_has_the_cosine_of_its_vector_and_its_place_in_both_rankings(index, embedder):
    query = "printer of ticket 1033 and the yeast in bread dough"
    (vector,) = embedder.encode_query([query])
    near = [h.id for h in index.search(query, 100, by="meaning")]
    words = dict(ids_by_words(index, query, 1000))
    for by in ("meaning", "words", "both"):
        hits = index.search(query, 100, by=by)
        assert len(hits) == 100 or by == "words"
        cosines = embedder.encode_document([hit.text for hit in hits]) @ vector
        np.testing.assert_allclose([hit.cosine for hit in hits], cosines, atol=1e-6)
        assert all(type(hit.cosine) is float for hit in hits)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        for hit in hits:
            in_both = by == "both"
            rank = near.index(hit.id) + 1 if hit.id in near and (in_both or by == "meaning") else None
            assert hit.rank_by_meaning == rank
            assert hit.bm25 == (words.get(hit.id) if by != "meaning" else None)
            place = list(words).index(hit.id) + 1 if hit.id in list(words)[:100] and by != "meaning" else None
            assert hit.rank_by_words == place
            assert by != "meaning" or hit.score == hit.cosine
            assert by != "words" or hit.score == hit.bm25
    assert [(hit.id, hit.score) for hit in index.search(query, 100, by="words")] == list(words.items())[:100]
    only_words = [hit for hit in index.search(query, 200, by="both") if hit.rank_by_meaning is None]
    assert index.search("xyzzy", 5, by="words") == []
    assert all(hit.bm25 is not None for hit in only_words)


def test_the_least_cosine_holds_whatever_ranks_the_rows(index):
    query = "the printer is out of paper, and the dough rises"
    everything = {hit.id: hit.cosine for hit in index.search(query, 1000, by="meaning")}
    for least in (0.1, 0.3, 0.5):
        expected = {identity for identity, cosine in everything.items() if cosine >= least - 1e-6}
        for by in ("meaning", "both", None):
            assert {hit.id for hit in index.search(query, 1000, by=by, min_score=least)} == expected
        for by in ("words", "both"):
            hits = index.search(query, 1000, by=by, min_score=least)
            assert all(hit.cosine >= least - 1e-6 for hit in hits)
            unlimited = index.search(query, 1000, by=by)
            assert [hit.id for hit in hits] == [hit.id for hit in unlimited if hit.id in expected]
    few = index.search(query, 2, by="words", min_score=0.3)  # it looks deeper than the first 2
    assert [hit.id for hit in few] == [h.id for h in index.search(query, 1000, by="words", min_score=0.3)][:2]


def test_a_search_by_words_takes_a_filter_and_its_order_is_bm25(index):
    query = "the train and the signal"
    hits = index.search(query, 300, by="words", filter="topic = 'railways'")
    assert {hit.columns["topic"] for hit in hits} == {"railways"}
    assert [hit.id for hit in hits] == [
        hit.id for hit in index.search(query, 300, by="words") if hit.columns.get("topic") == "railways"
    ]
    assert [hit.rank_by_words for hit in hits] == list(range(1, len(hits) + 1))


def test_vectors_are_searched_by_meaning_and_what_contradicts_itself_is_refused(index, embedder):
    vectors = embedder.encode_query(["bread", "tickets"])
    assert [[h.id for h in hits] for hits in index.search(vectors, 3)] == [
        [h.id for h in hits] for hits in index.search(vectors, 3, by="meaning")
    ]
    for wrong, message in (
        ({"queries": vectors, "by": "words"}, "a search by words takes texts"),
        ({"queries": vectors, "hybrid": True}, "a hybrid search takes texts"),
        ({"queries": "bread", "by": "sense"}, "by must be one of meaning, words, both; found 'sense'"),
        ({"queries": "bread", "by": "words", "hybrid": True}, "by='words' is another"),
        ({"queries": "bread", "by": "words", "weight": 0.5}, "weight is the share of meaning .* is by words"),
        ({"queries": "bread", "hybrid": True, "weight": 1.5}, "must be from 0 to 1; found 1.5"),
    ):
        with pytest.raises(UsageError, match=message):
            index.search(wrong.pop("queries"), 3, **wrong)
    assert index.search("bread", 3, by="both", hybrid=True) == index.search("bread", 3, hybrid=True)


def test_texts_are_searched_by_both_and_a_weight_asks_for_it(index):
    query = "how does yeast make dough rise"
    both = index.search(query, 20, by="both")
    assert index.search(query, 20) == both != index.search(query, 20, by="meaning")
    assert index.search(query, 20, weight=DEFAULT_WEIGHT) == both
    assert index.search([query, "?!"], 20) == index.search([query, "?!"], 20, by="both")
    assert [hit.id for hit in index.search(query, 20, weight=1)] == [
        hit.id for hit in index.search(query, 20, by="meaning")
    ]


def test_no_bm25_score_reaches_the_greatest_one(index):
    for query in ("how does yeast make dough rise", "ticket", "the the printer", "xyzzy printer", "?!"):
        greatest = index._words.greatest_bm25(list(dict.fromkeys(terms_of(query))))
        assert greatest == pytest.approx(greatest_bm25(index, query))
        assert all(0 < score < greatest for _, score in ids_by_words(index, query, 1000))


@pytest.mark.parametrize("lost", ["missing", "damaged"])
def test_many_rows_whose_words_are_not_indexed_are_searched_by_meaning(index, tmp_path, monkeypatch, caplog, lost):
    path = tmp_path / "index"
    shutil.copytree(index.path, path)
    if lost == "missing":
        shutil.rmtree(path / "words")
    else:
        for record in (path / "words").glob("*/record.json"):
            record.write_bytes(record.read_bytes()[:-9])
    monkeypatch.setattr(word_index, "MADE_IN_A_SEARCH", 100)
    opened, query = SearchIndex(path), "how does yeast make dough rise"
    with caplog.at_level(logging.WARNING, "sbert_mini"):
        hits = [opened.search(query, 5) for _ in range(2)]
    assert hits == [index.search(query, 5, by="meaning")] * 2
    assert len(caplog.records) == 1
    assert (
        f"{path}: the words of {len(index)} rows are not indexed yet, so the search is by meaning alone" in caplog.text
    )
    made = opened.search(
        query, 5, by="both"
    )  # it makes them, without the deleted rows, which count in the other's statistics
    assert [(hit.id, hit.cosine, hit.rank_by_words) for hit in made] == [
        (hit.id, hit.cosine, hit.rank_by_words) for hit in index.search(query, 5)
    ]
    assert opened.search(query, 5) == made
    monkeypatch.setattr(word_index, "MADE_IN_A_SEARCH", 1000)
    shutil.rmtree(path / "words")
    assert SearchIndex(path).search(query, 5) == made  # of few rows at once
