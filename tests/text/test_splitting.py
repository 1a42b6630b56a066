"""Texts into passages: nothing readable is lost, each passage fits the model, and borders are those of sentences."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from sbert_mini.errors import UsageError
from sbert_mini.text.passages import PassageSize, PassageSplitter, passage_size
from sbert_mini.text.tokenizer import TextTokenizer
from sbert_mini.text.words import is_silent


def word_pieces(max_seq_length=64):
    """Return a tokenizer of single letters, and of some words."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz.,!?", "the", "cat"]
    pieces += ["##" + letter for letter in "abcdefghijklmnopqrstuvwxyz"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=pieces[1], max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return TextTokenizer(tokenizer, max_seq_length)


TOKENIZER = word_pieces()


def pieces(text):
    """Return how many pieces a text has, by the `tokenizers` library."""
    plain = Tokenizer.from_str(TOKENIZER.backend.to_str())
    plain.no_truncation()
    plain.encode_special_tokens = True
    return len(plain.encode(text, add_special_tokens=False).ids)


PARTS = [
    "the ",
    "cat ",
    ". ",
    "\n",
    "\n\n",
    "\r\n",
    " ",
    "abc",
    "x" * 70,
    "y" * 130,
    "漢",
    "각",
    "é",
    "[SEP] ",
    "👩‍👩‍👧",
]
texts = st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=3)), max_size=200).map("".join)


@settings(max_examples=300, deadline=None)
@given(texts, st.integers(2, 40), st.integers(0, 20))
def test_passages_fit_ascend_and_leave_out_nothing_that_can_be_read(text, tokens, overlap):
    splitter = PassageSplitter(TOKENIZER, PassageSize(tokens, min(overlap, tokens // 2)))
    spans = splitter.spans(text)
    if pieces(text) <= tokens:
        assert spans == [(0, len(text))]
        return
    if spans == [(0, len(text))]:  # nothing can be split: one readable part
        return
    end = 0
    for (start, stop), before in zip(spans, [(-1, 0), *spans], strict=False):
        assert before[0] < start < stop <= len(text)
        assert pieces(text[start:stop]) <= tokens
        assert not text[end:start].strip() or is_silent(text[end:start])
        end = max(end, stop)
    assert is_silent(text[end:])


def test_passages_end_with_paragraphs_and_sentences():
    sentence = "The cat the cat the cat. "
    text = (sentence * 3).strip() + "\n\n" + (sentence * 2).strip() + "\n\n" + (sentence * 9).strip()
    spans = PassageSplitter(TOKENIZER, PassageSize(30, 0)).spans(text)
    parts = [text[a:b] for a, b in spans]
    assert parts[0] == (sentence * 3).strip()
    assert parts[1] == (sentence * 2).strip()
    assert all(part.endswith(".") for part in parts)
    assert "".join(parts).replace(" ", "") == text.replace(" ", "").replace("\n", "")


def test_an_overlap_repeats_sentences():
    sentence = "The cat the cat the cat. "
    text = (sentence * 20).strip()
    apart = PassageSplitter(TOKENIZER, PassageSize(30, 0)).spans(text)
    shared = PassageSplitter(TOKENIZER, PassageSize(30, 8)).spans(text)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(apart))
    assert all(a[1] > b[0] for a, b in itertools.pairwise(shared))
    for (_, end), (start, _) in itertools.pairwise(shared):
        assert pieces(text[start:end]) <= 8


def test_a_long_text_takes_time_in_proportion():
    rng = np.random.default_rng(3)
    words = rng.choice(["the ", "cat ", "abc. ", "dog.\n\n"], 40_000).tolist()
    times = []
    for count in (5_000, 40_000):
        start = time.process_time()
        PassageSplitter(TOKENIZER, PassageSize(62, 15)).spans("".join(words[:count]))
        times.append(time.process_time() - start)
    assert times[1] < 8 * 4 * times[0]


def test_the_size_is_what_the_model_reads_beside_its_prompt():
    assert passage_size(TOKENIZER, "", None, None) == PassageSize(62, 0)
    assert passage_size(TOKENIZER, "the cat. ", None, 7) == PassageSize(59, 7)
    assert passage_size(word_pieces(512), "", None, None) == PassageSize(510, 0)
    with pytest.raises(UsageError, match=r"from 2 to 62, .*found 63"):
        passage_size(TOKENIZER, "", 63, None)
    with pytest.raises(UsageError, match=r"from 0 to 20 tokens.*found 21"):
        passage_size(TOKENIZER, "", 40, 21)
    with pytest.raises(UsageError, match="leaves room for 1 tokens"):
        passage_size(TOKENIZER, "the " * 61, None, None)
