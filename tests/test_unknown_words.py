"""Texts that a model cannot tell apart: words that its vocabulary lacks, and texts of which nothing is left to read."""

import json
import logging
import unicodedata
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbert_mini import Embedder, IndexWriter
from sbert_mini.runtime.stream import EncodeCounts, join_records
from sbert_mini.search.dedup import deduplicate
from sbert_mini.text.records import Record
from sbert_mini.text.words import Words, is_silent

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
    from sbert_mini.search.dedup import _Kept

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


def test_counts_of_prompts_pairs_and_pieces(default_embedder):
    counts = EncodeCounts()
    default_embedder.encode(["🎉", "\u200b", "a dog"], prompt="query: ", counts=counts)
    assert (counts.empty, counts.unknown) == (1, 1)
    counts = EncodeCounts()
    default_embedder.encode_pairs([("🎉", "😡"), ("\u200b", ""), ("🎉", "a dog")], counts=counts)
    assert (counts.empty, counts.unknown) == (1, 1)
    counts = EncodeCounts()
    long = "🎉 " * 600
    default_embedder.encode([long, long + "dog"], truncation="chunk", counts=counts)
    assert (counts.texts, counts.truncated, counts.empty, counts.unknown) == (2, 2, 0, 1)


def test_long_texts_that_differ_in_unknown_words_are_kept(default_embedder):
    start = "🎉 and the cat " * 200
    assert len(kept([start + "😡", start + "💔"], default_embedder, truncation="chunk")) == 2
    assert len(kept([start + "😡", start.upper() + "😡 "], default_embedder, truncation="chunk")) == 1


words = st.lists(st.sampled_from(["x", "y", "z"]), max_size=4).map(tuple)


@given(words, words, st.booleans())
def test_which_texts_may_repeat_each_other(first, second, same):
    a = Words((1, 3, *[0] * len(first)), first)
    b = Words((1, 3 if same else 4, *[0] * len(second)), second)
    assert a.may_repeat(b) == b.may_repeat(a)
    if a.pieces == b.pieces:
        assert a.may_repeat(b) == (first == second)
    else:
        mostly = any(2 * len(w.unknown) > len(w.pieces) for w in (a, b))
        lacks = [[w for w in set(p) if p.count(w) > q.count(w)] for p, q in ((first, second), (second, first))]
        assert a.may_repeat(b) == (first == second or not (mostly or (lacks[0] and lacks[1])))
    assert not a.may_repeat(Words(()))


@settings(deadline=None)
@given(st.text(max_size=4) | st.text("\u200b\u0301 \t\x07\ufffd\ue000a", max_size=6))
def test_texts_that_leave_no_piece_are_silent(default_embedder, text):
    (read,) = default_embedder.words_of([text])
    assert is_silent(text) or not read.empty
    if not any(unicodedata.category(c)[0] in "MC" for c in text):
        assert is_silent(text) == read.empty


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


def test_the_commands_say_what_the_model_cannot_read(sbmini):
    done = sbmini("dedup", stdin="I love 🎉\nI love 😡\n🎉\n😡\n")
    assert done.stdout == "I love 🎉\nI love 😡\n🎉\n😡\n"
    assert "sbmini: 2 of 4 texts hold no word that the model knows" in done.stderr
    rows = "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(["\u200b", "A dog."]))
    done = sbmini("index", "create", "x.index", "-i", "-", "--input-format", "jsonl", stdin=rows)
    assert "sbmini: 1 of 2 texts hold nothing that the model reads" in done.stderr
    done = sbmini("search", "x.index", "\u200b")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.count("\n") == 1
    assert len(sbmini("search", "x.index", "cat", "-q").stdout.splitlines()) == 1
