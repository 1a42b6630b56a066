"""Texts that a model cannot tell apart: words that its vocabulary lacks, and texts of which nothing is left to read."""

import json
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from sbert_mini.runtime.stream import EncodeCounts
from sbert_mini.text.words import Words, is_silent


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


def test_the_commands_say_what_the_model_cannot_read(sbmini_here):
    done = sbmini_here("dedup", stdin="I love 🎉\nI love 😡\n🎉\n😡\n")
    assert done.stdout == "I love 🎉\nI love 😡\n🎉\n😡\n"
    assert "sbmini: 2 of 4 texts hold no word that the model knows" in done.stderr
    rows = "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(["\u200b", "A dog."]))
    done = sbmini_here("index", "create", "x.index", "-i", "-", "--input-format", "jsonl", stdin=rows)
    assert "sbmini: 1 of 2 texts hold nothing that the model reads" in done.stderr
    done = sbmini_here("search", "x.index", "\u200b")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.count("\n") == 1
    assert len(sbmini_here("search", "x.index", "cat", "-q").stdout.splitlines()) == 1
