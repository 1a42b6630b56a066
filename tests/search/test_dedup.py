"""Near-duplicates: which row repeats which, by meaning, by text and by words that the model does not know."""

import logging
from functools import partial

import numpy as np
import pytest

from sbert_mini import Embedder
from sbert_mini.errors import UsageError
from sbert_mini.runtime.stream import EncodeCounts, join_records
from sbert_mini.search.dedup import _Kept, deduplicate
from sbert_mini.text.records import Record
from sbert_mini.text.words import Words


def test_duplicates_name_the_row_that_they_repeat(embedder):
    rows = [
        Record("How do I reset my password?", line=1),
        Record("How can I reset my password?", line=2),
        Record("how do i  RESET my password?", line=3),
        Record("The train to Basel leaves at nine.", line=4),
        Record("At nine the train leaves for Basel.", line=5),
        Record("Bread needs yeast.", line=6),
    ]
    found = list(deduplicate(rows, embedder, threshold=0.85, batch_size=2))
    assert [(v.record.line, v.of.line if v.of else None, v.reason) for v in found] == [
        (1, None, None),
        (2, 1, "near"),
        (3, 1, "same text"),
        (4, None, None),
        (5, 4, "near"),
        (6, None, None),
    ]
    cosine = float(embedder.encode(rows[1].text) @ embedder.encode(rows[0].text))
    assert found[1].score == pytest.approx(cosine, abs=1e-3)
    assert [v.of for v in deduplicate(rows[:2], embedder, threshold=1.0)] == [None, None]
    with pytest.raises(UsageError, match="above 0"):
        list(deduplicate(rows, embedder, threshold=0))


def test_duplicates_are_found_beyond_the_exact_rows(converted_model, monkeypatch):
    monkeypatch.setattr("sbert_mini.search.dedup.EXACT_ROWS", 300)
    model = Embedder(converted_model())
    words = ["the", "cat", "dog", "red", "house", "tree", "a"]
    texts = [" ".join(words[(i // 7**p) % 7] for p in range(5)) for i in range(0, 16807, 23)]
    vectors = model.encode(texts)
    found = list(deduplicate([Record(t, line=i) for i, t in enumerate(texts)], model, threshold=0.9999))
    kept: list[int] = []
    for i, verdict in enumerate(found):
        best = max((float(vectors[i] @ vectors[j]), j) for j in kept) if kept else (-1.0, -1)
        if abs(best[0] - 0.9999) > 2e-4:  # half precision
            assert (verdict.of is not None) == (best[0] > 0.9999)
        if verdict.of is None:
            kept.append(i)
    assert len(kept) > 300


@pytest.mark.parametrize("exact_rows", [50_000, 300])
def test_equal_pairs_are_near_at_the_threshold_one(default_embedder, passage_sentences, monkeypatch, exact_rows):
    monkeypatch.setattr("sbert_mini.search.dedup.EXACT_ROWS", exact_rows)  # above, inverted lists of half precision
    more = [f"{q}, part 1" for q in passage_sentences]
    rows = [*(Record(f"{q}?") for q in more), *(Record(f"{q} ?") for q in more)]
    judge, verdicts = _Kept(default_embedder.dimension), []
    for block, window in join_records(rows, partial(default_embedder.encode_windows, window=200)):
        verdicts += judge.judge(block, window.vectors, window.words(), 1.0)
    near = [v for v in verdicts if v.of is not None]
    assert len(near) == len(more)
    assert {v.score for v in near} == {1.0}
    assert all(v.of.text == v.record.text.replace(" ?", "?") for v in near)


RUSSIAN = ["Кошка спит на диване дома", "Инфляция выросла в прошлом месяце", "Врач выписал новое лекарство пациенту"]


@pytest.fixture(scope="module")
def fast():
    """A model whose vocabulary lacks Cyrillic letters."""
    return Embedder("sbert-mini-fast", threads=2)


def kept(texts, model, **options):
    return [v.record.text for v in deduplicate([Record(t) for t in texts], model, **options) if v.of is None]


def test_texts_of_unknown_words_are_all_kept(default_embedder, fast):
    emoji = ["🎉🎉", "😡", "💔", "ᠮᠣᠩᠭᠣᠯ"]
    assert kept(emoji, default_embedder) == emoji
    more = [*RUSSIAN, "Погода сегодня хорошая", "Поезд", "Поезд опоздал на час, и все ждали", "Поезд опоздал"]
    assert kept(more, fast) == more
    assert kept(more, fast, threshold=0.5, batch_size=1) == more


def test_unknown_words_decide_between_texts_of_the_same_pieces(default_embedder):
    texts = [
        "I love 🎉",
        "I love 😡",
        "i  LOVE\u200b 🎉",
        "I love 😡!",
        "I love 🎉 .",
        "Bread is baked.",
        "Bread is baked .",
    ]
    found = list(deduplicate([Record(t) for t in texts], default_embedder, threshold=0.85))
    assert [v.of.text if v.of else None for v in found] == [
        None, None, "I love 🎉", "I love 😡", "I love 🎉", None, "Bread is baked.",
    ]  # fmt: skip
    assert found[2].score == 1
    assert found[6].score == 1


@pytest.mark.parametrize("size", [3, 70])
def test_the_same_verdicts_whether_rows_stand_in_one_block_or_in_several(default_embedder, size):
    # 60 different rows of one vector, each again in other case: the second ones repeat the first, and nothing else.
    words = [chr(0x1F600 + i) for i in range(60)]
    first, second = [f"Day {w}" for w in words], [f"day  {w}\u200b" for w in words]
    rows = [Record(t, line=i) for i, t in enumerate([*first, *second, "Day", "A train.", "a train ."])]
    judge, verdicts = _Kept(default_embedder.dimension), []
    for block, window in join_records(rows, partial(default_embedder.encode_windows, window=size)):
        verdicts += judge.judge(block, window.vectors, window.words(), 0.97)
    assert [v.of.line if v.of else None for v in verdicts] == [*[None] * 60, *range(60), None, None, 121]


def test_texts_without_any_piece_are_near_to_none_and_counted(default_embedder, caplog):
    texts = ["\u200b", "\u0007", "\u200b\u200b", "A dog.", "🎉"]
    with caplog.at_level(logging.WARNING, "sbert_mini"):
        counts = EncodeCounts()
        assert kept(texts, default_embedder, counts=counts) == texts
    assert (counts.texts, counts.empty, counts.unknown) == (5, 3, 1)
    assert "1 of 5 texts hold no word that the model knows" in caplog.text
    assert "3 of 5 texts hold nothing that the model reads" in caplog.text


def test_long_texts_that_differ_in_unknown_words_are_kept(default_embedder):
    start = "🎉 and the cat " * 200
    assert len(kept([start + "😡", start + "💔"], default_embedder, truncation="chunk")) == 2
    assert len(kept([start + "😡", start.upper() + "😡 "], default_embedder, truncation="chunk")) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("I love 🎉 and dogs", "I love dogs"),  # nothing that the first one lacks
        ("I love 🎉 and 😡 dogs", "I love dogs and 🎉"),
    ],
)
def test_a_row_without_an_unknown_word_of_its_own_may_repeat(default_embedder, first, second):
    verdict = list(deduplicate([Record(first), Record(second)], default_embedder, threshold=0.3))[1]
    assert (verdict.of.text, verdict.reason) == (first, "near")
    cosine = default_embedder.encode(first) @ default_embedder.encode(second)
    assert verdict.score == pytest.approx(float(cosine), abs=1e-3)
    other = list(deduplicate([Record(first), Record(second + " 💔")], default_embedder, threshold=0.3))[1]
    assert other.of is None


def test_a_row_with_unknown_words_is_held_against_all_that_are_near(converted_model):
    """Behind 39 nearer rows with unknown words of their own stands the one that the last row repeats."""
    model = Embedder(converted_model())
    letters = [chr(ord("a") + i) + end for i in range(20) for end in ("", "b")]
    texts = [f"{letter} dog {chr(0x1F600 + i)}" for i, letter in enumerate(letters)]
    near = model.encode(texts) @ model.encode("the cat runs \U0001f600")
    first = int(near.argmin())
    last = f"the cat runs {chr(0x1F600 + first)}"
    verdicts = list(deduplicate([Record(text) for text in [*texts, last]], model, threshold=float(near.min()) - 0.01))
    assert [v.of for v in verdicts[:-1]] == [None] * 40
    assert verdicts[-1].of.text == texts[first]
    assert verdicts[-1].score == pytest.approx(float(near.min()), abs=1e-3)


@pytest.mark.parametrize("exact_rows", [50_000, 1000])
def test_a_row_is_held_against_more_and_more_kept_rows_until_they_are_not_near(rng, monkeypatch, exact_rows):
    """Of 1,503 kept rows, each with an unknown word of its own, the 101st nearest one has the word of the last row."""
    monkeypatch.setattr("sbert_mini.search.dedup.EXACT_ROWS", exact_rows)  # above, 32 of 64 inverted lists are read
    vectors = rng.standard_normal((1504, 7)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors[:-1] @ vectors[-1]
    repeated = int(np.argsort(-cosines)[100])
    words = [Words((number, 0), (f"word {number}",)) for number in range(1503)]
    rows = [Record(f"text {number}", line=number) for number in range(1504)]
    keeper = _Kept(7)
    assert all(v.of is None for v in keeper.judge(rows[:-1], vectors[:-1], words, 1.0))
    last = Words((9999, 0), (f"word {repeated}",))
    (verdict,) = keeper.judge(rows[-1:], vectors[-1:], [last], -1.0)
    assert verdict.of.line == repeated
    assert verdict.score == pytest.approx(float(cosines[repeated]), abs=2e-3)
    (verdict,) = keeper.judge(rows[-1:], vectors[-1:], [last], float(cosines[repeated]) + 0.01)
    assert verdict.of is None
