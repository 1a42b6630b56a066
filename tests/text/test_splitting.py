"""Texts into passages: nothing readable is lost, each passage fits the model, and borders are those of sentences."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from sbert_mini.errors import UsageError
from sbert_mini.text.passages import PassageSize, PassageSplitter, _blocks, passage_size
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


def test_a_long_text_is_split_in_parts_of_a_bounded_length_between_words():
    """The library's time grows faster than the text: it is given parts, and passages of two parts share no words."""
    text = "the cat abc " * 10_000
    spans = PassageSplitter(TOKENIZER, PassageSize(62, 15)).spans(text)
    borders = [start for (_, end), (start, _) in itertools.pairwise(spans) if start >= end]
    assert len(borders) == (len(text) - 1) // 20_000
    assert all(b - a <= 20_000 for a, b in itertools.pairwise([0, *borders, len(text)]))
    apart = PassageSplitter(TOKENIZER, PassageSize(62, 0)).spans(text)
    assert " ".join(text[start:end] for start, end in apart).split() == text.split()
    assert {text[start - 1] for start, _ in spans[1:]} == {text[end] for _, end in spans[:-1]} == {" "}


@pytest.mark.parametrize("border", ["\n\n", "\n", ". ", " ", ""])
def test_where_a_long_text_is_divided(border):
    """After the last paragraph, line, sentence or blank of a part's second half, else anywhere."""
    parts = list(_blocks("x" * 15_000 + border + "y" * 9_000, (0, 24_000 + len(border))))
    assert parts == [(0, 15_000 + len(border) if border else 20_000), (parts[0][1], 24_000 + len(border))]


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
