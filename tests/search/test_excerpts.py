"""What is shown of a hit: its closest sentences by brute force, and the query's words as the index of words finds them."""

import numpy as np
import pytest

from sbert_mini.search.excerpts import QueryWords, excerpts
from sbert_mini.search.queries import Hit

TEXT = "# Bread\n\nCats sleep all day. Bread needs yeast and time. The stars shine at night. Dough rises in the oven."


def hit(text, start=0, end=None, **columns):
    return Hit("1", 0.5, text, columns, start, len(text) if end is None else end, 0.5)


def test_the_closest_sentences_of_each_hit_are_shown_in_their_order(default_embedder):
    query = default_embedder.encode("how is bread baked")
    other = "It rains. Bakers bake bread."
    first, second, empty = excerpts([hit(TEXT), hit(other), hit("...")], query, default_embedder, most=2)
    sentences = [
        "Cats sleep all day.",
        "Bread needs yeast and time.",
        "The stars shine at night.",
        "Dough rises in the oven.",
    ]
    cosines = default_embedder.encode(sentences) @ query
    best = sorted(np.argsort(-cosines)[:2].tolist())
    assert [TEXT[slice(*span)] for span in first.sentences] == [sentences[i] for i in best]
    assert TEXT[slice(*first.closest)] == sentences[int(np.argmax(cosines))]
    assert other[slice(*second.closest)] == "Bakers bake bread."
    assert (empty.sentences, empty.closest) == (((0, 3),), (0, 3))


def test_sentences_are_those_of_the_passage_and_words_may_rank_them(default_embedder):
    query = default_embedder.encode("bread")
    start = TEXT.index("The stars")
    (shown,) = excerpts([hit(TEXT, start)], query, default_embedder, QueryWords("the night"))
    assert [TEXT[slice(*span)] for span in shown.sentences] == ["The stars shine at night.", "Dough rises in the oven."]
    assert TEXT[slice(*shown.closest)] == "The stars shine at night."
    (code,) = excerpts([hit("a = 1\nb = 2", file_format="code")], query, default_embedder)
    assert code.sentences == ((0, 5), (6, 11))


def test_no_hit_has_no_excerpt_and_odd_texts_have_one(default_embedder):
    query = default_embedder.encode("bread")
    assert excerpts([], query, default_embedder) == []
    text = "a\ud800b " + "word " * 5000
    (shown,) = excerpts([hit(text)], query, default_embedder)
    assert shown.closest == (0, len(text) - 1)


@pytest.mark.parametrize(
    ("query", "text", "found"),
    [
        ("how is the bread baking", "The Breads: bake it, how?", ["Breads", "bake"]),
        ("the who", "Who is the one?", ["Who", "the"]),
        ("CAFÉ naive", "a cafe, naïve", ["cafe", "naïve"]),
        ("E-1042", "E1042, E-1042 and e 1042", ["E1042", "E-1042", "e", "1042"]),
        ("E1042", "error E-1042", ["E-1042"]),
        ("well-known", "a well-made, known thing", ["well", "known"]),
        ("面包", "新鲜的面包和面条", ["面包"]),
        ("面", "面包和面条", ["面", "面"]),
        ("🎉 !", "a 🎉 !", []),
        ("", "a text", []),
    ],
)
def test_words_are_found_by_stem_without_diacritics(query, text, found):
    assert [text[start:end] for start, end in QueryWords(query).spans(text)] == found
