"""What a search asks for and returns: k, min_score, the model, words that the model does not know."""

import json
import logging
import shutil

import numpy as np
import pytest

from sbert_mini import Embedder, IndexWriter, SearchIndex
from sbert_mini.errors import (
    ModelMismatchError,
    ModelNotFoundError,
    UsageError,
)
from sbert_mini.text.records import Record


def test_k_and_min_score_combine(collection_index):
    index = SearchIndex(collection_index)
    everything = index.search("yeast and dough", 1000)
    assert len(everything) == 240
    assert [hit.score for hit in everything] == sorted((hit.score for hit in everything), reverse=True)
    scores = sorted((hit.cosine for hit in everything), reverse=True)
    above = index.search("yeast and dough", 1000, min_score=scores[5])
    assert len(above) == 6
    assert len(index.search("yeast and dough", 3, min_score=scores[5])) == 3
    for beyond in (1.01, -1.01):
        with pytest.raises(UsageError, match="min_score is a cosine, from -1 to 1"):
            index.search("yeast and dough", 3, min_score=beyond)
    with pytest.raises(UsageError, match="k must be at least 1; found 0"):
        index.search("x", 0)
    with pytest.raises(UsageError, match=r"\(queries, 384\); found \(2, 5\)"):
        index.search(np.zeros((2, 5), np.float32))
    with pytest.raises(UsageError, match="finite"):
        index.search(np.full((1, 384), np.nan, np.float32))


def test_another_model_is_refused_naming_both(collection_index, converted_model):
    other = Embedder(converted_model())
    with pytest.raises(ModelMismatchError, match=r"'.*all-MiniLM.*|gt_all.*' .*model-1"):
        SearchIndex(collection_index).search("bread", embedder=other)


def test_a_model_that_changed_or_vanished_under_its_name_is_refused(converted_model, tmp_path):
    path = converted_model()
    IndexWriter(tmp_path / "index", Embedder(path)).create([Record("the cat")])
    (path / "vocab.txt").write_text((path / "vocab.txt").read_text().replace("cat", "cow"))
    with pytest.raises(ModelNotFoundError, match="no graphs that are up to date"):
        SearchIndex(tmp_path / "index").search("cat")
    Embedder(path)  # converts it
    with pytest.raises(ModelMismatchError, match="is another"):
        SearchIndex(tmp_path / "index").search("cat")
    shutil.rmtree(path)
    with pytest.raises(ModelNotFoundError, match="was made with the model"):
        SearchIndex(tmp_path / "index").search("cat")


def test_another_dimension_or_graph_of_the_same_model_is_refused(tmp_path, converted_model):
    path = converted_model()
    config = path / "config_sentence_transformers.json"
    config.write_text(json.dumps({"truncate_dim": 12}))
    IndexWriter(tmp_path / "index", Embedder(path)).create([Record("a red house")])
    with pytest.raises(ModelMismatchError, match="the int8 graph"):
        IndexWriter(tmp_path / "index", Embedder(path, graph="fp32")).add([Record("a tree")])
    config.write_text("{}")
    with pytest.raises(ModelMismatchError, match=r"12 components, and .* gives 28 now"):
        IndexWriter(tmp_path / "index", Embedder(path)).add([Record("a tree")])
    with pytest.raises(ModelMismatchError, match="12 components"):
        SearchIndex(tmp_path / "index").search("a tree")


def test_a_static_model_searches_the_index_of_the_model_in_whose_space_it_is(converted_model, static_model, tmp_path):
    encoder = Embedder(converted_model())
    static = Embedder(static_model(dimension=28, space=encoder.fingerprint))
    rows = [Record("the cat sleeps"), Record("the dog")]
    IndexWriter(tmp_path / "encoder", encoder).create(rows)
    IndexWriter(tmp_path / "static", static).create(rows)
    for name, embedder in (("encoder", static), ("static", encoder)):
        index = SearchIndex(tmp_path / name)
        hits = index.search("cat", embedder=embedder, by="meaning")
        expected = index.search(embedder.encode(["cat"]), by="meaning")[0]
        assert [(hit.text, hit.score) for hit in hits] == [(hit.text, hit.score) for hit in expected]
        with pytest.raises(ModelMismatchError, match="is another"):
            IndexWriter(tmp_path / name, embedder).add([Record("a tree")])
    strangers = Embedder(static_model(dimension=28))
    smaller = Embedder(static_model(dimension=22, space=encoder.fingerprint))
    for embedder, text in ((strangers, "is another"), (smaller, "28 components")):
        with pytest.raises(ModelMismatchError, match=text):
            SearchIndex(tmp_path / "encoder").search("cat", embedder=embedder)


@pytest.fixture(scope="module")
def odd(default_embedder, tmp_path_factory):
    rows = [
        "\u200b",
        "\u0007",
        "\u200d\u200b",
        "A dog.",
        "Stocks fell.",
        "I love 😡",
        "I love 💔",
        "I love 🎉",
        "The cat.",
    ]
    records = [Record(t, id=str(i)) for i, t in enumerate(rows)]
    return IndexWriter(tmp_path_factory.mktemp("odd") / "index", default_embedder).create(records)


def test_rows_of_which_nothing_is_read_are_no_hits(odd, default_embedder):
    everything = odd.search("fog", 100)
    assert {hit.id for hit in everything} == {"3", "4", "5", "6", "7", "8"}
    for k in (1, 2, 6, 9):  # they are the nearest ones to an empty text's vector, and take no places
        hits = odd.search(default_embedder.encode([""]), k)[0]
        assert len(hits) == min(k, 6)
        assert not {hit.id for hit in hits} & {"0", "1", "2"}
    assert {hit.id for hit in odd.search("dog", 100, hybrid=True)} == {hit.id for hit in everything}


def test_a_query_of_which_nothing_is_read_has_no_hits_and_one_note(odd, caplog):
    with caplog.at_level(logging.WARNING, "sbert_mini"):
        assert odd.search(["\u200b", "dog"], 2)[0] == []
        assert odd.search("\u200b", 2, hybrid=True) == []
        assert [hit.id for hit in odd.search("dog", 1)] == ["3"]
    assert [r.message for r in caplog.records] == [
        "1 of 2 queries hold nothing that the model reads: they have no hits by meaning",
        "1 of 1 queries hold nothing that the model reads: they have no hits by meaning",
    ]


def test_the_row_with_the_query_s_own_unknown_words_comes_first(odd, caplog):
    with caplog.at_level(logging.WARNING, "sbert_mini"):
        for emoji, identity in (("🎉", "7"), ("💔", "6"), ("😡", "5")):
            for k in (1, 3):
                assert odd.search(f"i  love {emoji}", k)[0].id == identity
    assert "1 of 1 queries hold words that the model does not know ('🎉')" in caplog.text


def test_of_equal_rows_the_query_s_own_text_comes_first(default_embedder, tmp_path):
    texts = ["Bread , baked .", "Bread, baked.", "A cat."]
    index = IndexWriter(tmp_path / "index", default_embedder).create(texts)
    for query in texts[:2]:
        hits = index.search(query, 3)
        assert [hit.cosine for hit in hits[:2]] == [1, 1]
        assert [hit.text for hit in hits] == [query, next(t for t in texts[:2] if t != query), "A cat."]
    assert {hit.score for hit in index.search(default_embedder.encode([texts[0]]), 2)[0]} == {1}
