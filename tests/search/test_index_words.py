"""Search by words: BM25 against a computation by hand."""

import math

import numpy as np
import pytest

from sbert_mini.errors import CorruptIndexError
from sbert_mini.search.words import Words, WordsWriter, stems_of, weights


@pytest.fixture
def words(tmp_path):
    def write(texts):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.sqlite"
        with WordsWriter(path) as writer:
            for text in texts:
                writer.write(text)
        return Words(path, len(texts))

    return write


def bm25(texts, query, k1=1.2, b=0.75):
    """Score texts of plain words by hand, all of one index."""
    docs = [text.split() for text in texts]
    mean = sum(map(len, docs)) / len(docs)
    scores = np.zeros(len(docs))
    for word in query.split():
        count = sum(word in doc for doc in docs)
        idf = max(math.log((len(docs) - count + 0.5) / (count + 0.5)), 1e-6)
        for i, doc in enumerate(docs):
            tf = doc.count(word)
            scores[i] += idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * len(doc) / mean))
    return scores


def test_words_are_ranked_by_bm25(words):
    texts = [
        "red fox",
        "red red dog dog",
        "blue fox in a box",
        "cat",
        "a cat and a dog",
        "green",
        "an owl",
        "a hat",
        "red hat cat",
    ]
    held = words(texts)
    for query in ("red dog", "cat hat", "fox", "a", "unknown", "owl unknown"):
        found = dict(held.ranked(weights(query, [held]), 100))
        scores = bm25(texts, query)
        assert set(found) == set(np.flatnonzero(scores).tolist())
        for position, score in found.items():
            assert score == pytest.approx(scores[position], rel=1e-6)
        ranked = [position for position, _ in held.ranked(weights(query, [held]), 2)]
        assert ranked == sorted(found, key=lambda i: (-found[i], i))[:2]
    allowed = np.array([i != 1 for i in range(9)])
    assert [p for p, _ in held.ranked(weights("red dog", [held]), 9, allowed)] == [
        p for p, _ in held.ranked(weights("red dog", [held]), 9) if p != 1
    ]


def test_weights_of_words_are_those_of_all_segments(words):
    large = words([f"plain word{i}" for i in range(20)])
    small = words(["rare plain"])
    assert weights("rare plain", [large, small])["rare"][1] == pytest.approx(math.log(20.5 / 1.5))
    ((position, score),) = small.ranked(weights("rare", [large, small]), 5)
    assert position == 0
    assert score == pytest.approx(math.log(20.5 / 1.5), rel=1e-6)  # tf 1 in a row of the mean length
    assert set(weights("rare plain", [large, small])) == {"rare"}  # plain stands in all rows, and says nothing
    assert set(weights("plain", [large, small])) == {"plain"}
    assert set(weights("plain word1 word2", [large, small])) == {"word1", "word2"}
    snake = words(["set max_rows here", "rows of a table", *["other"] * 9])
    assert set(weights("max_rows", [snake])) == {"max", "row"}  # split as FTS5 splits the texts
    assert [p for p, _ in snake.ranked(weights("MAX_ROWS", [snake]), 5)] == [0, 1]
    far = words(["Über_größe हिनदी", *["other"] * 9])
    for query in ("uber", "हिनदी", "GRÖSSE größe"):
        assert [p for p, _ in far.ranked(weights(query, [far]), 5)] == [0], query
    assert stems_of('running "runs" OR near(x) ran*') == {
        "run": "running",
        "or": "or",
        "near": "near",
        "x": "x",
        "ran": "ran",
    }


def test_a_segment_without_a_word_ranks_by_the_others(words):
    large, small = words(["red fox", "a dog", "the owl", "the cat"]), words(["rare dog", "green", "blue"])
    weighed = weights("fox rare", [large, small])
    assert set(weighed) == {"fox", "rare"}
    assert [position for position, _ in small.ranked(weighed, 5)] == [0]
    assert [position for position, _ in large.ranked(weighed, 5)] == [0]
    assert small.ranked(weights("owl", [large]), 5) == []


def test_the_most_frequent_words_of_a_query_are_left_out_beyond_a_number_of_rows(words, monkeypatch):
    monkeypatch.setattr("sbert_mini.search.words.MAX_POSTINGS", 4)  # 200,000
    segment = words(["cat dog owl", "cat dog", "cat", "cat", *["other"] * 9])
    assert set(weights("cat dog owl", [segment])) == {"owl", "dog"}  # 1 row, 2 rows, and 4 would make 7
    assert set(weights("cat", [segment])) == {"cat"}
    assert set(weights("cat owl", [segment])) == {"owl"}


def test_a_file_of_words_that_is_there_or_is_none_is_refused(tmp_path):
    with WordsWriter(tmp_path / "words.sqlite") as writer:
        writer.write("a cat")
    with (
        pytest.raises(OSError, match=r"words\.sqlite cannot be written: .*already exists"),
        WordsWriter(tmp_path / "words.sqlite"),
    ):
        pass
    (tmp_path / "none.sqlite").write_bytes(b"no database" * 99)
    with pytest.raises(CorruptIndexError, match=r"none\.sqlite cannot be read: file is not a database"):
        Words(tmp_path / "none.sqlite", 1)
