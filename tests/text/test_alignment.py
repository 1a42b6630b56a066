"""Which tokens are pieces of which word: beside `TextTokenizer.encode`, and by hand."""

import pytest

from sbert_mini.text.alignment import aligned


def spelled(text, alignment):
    return [word.name or text[slice(*word.span)] for word in alignment.words]


def test_pieces_are_joined_to_words_that_stand_in_the_text(default_embedder):
    text = "Naïve  unbelievableness, don't\u00adstop 面包!"
    alignment = aligned(text, default_embedder.tokenizer)
    assert spelled(text, alignment) == [
        *("[CLS]", "Naïve", "unbelievableness", ",", "don", "'", "t\u00adstop", "面", "包", "!", "[SEP]")
    ]
    firsts = [word.first for word in alignment.words]
    assert firsts == sorted(set(firsts))
    assert firsts[0] == 0
    assert firsts[3] - firsts[2] > 1  # the long word has pieces


@pytest.mark.parametrize(
    "text", ["", " ", "[SEP] and [CLS]", "a" * 300, "word " * 900, "x" * 20_000, "😀 ok 😡", "\u200b\x00b", "émigré ÀÉ"]
)
def test_tokens_are_those_that_are_encoded(default_embedder, text):
    tokenizer = default_embedder.tokenizer
    alignment, (tokens,) = aligned(text, tokenizer), tokenizer.encode([text])
    assert alignment.tokens.ids == tokens.ids
    assert alignment.tokens.truncated == tokens.truncated
    assert [word.name for word in alignment.words if word.span is None] == ["[CLS]", "[SEP]"]
