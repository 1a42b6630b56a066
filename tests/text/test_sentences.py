"""Texts as sentences: by punctuation, by paragraphs and items, by lines."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbert_mini.text.sentences import sentence_spans


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One two. Three!  Four? (Five.) Six", ["One two.", "Three!", "Four?", "(Five.)", "Six"]),
        ("See Fig. 3 of Dr. J. Smith, e.g. here. It is 3.5.", ["See Fig. 3 of Dr. J. Smith, e.g. here.", "It is 3.5."]),
        ("It boils at 100 °C. Then it rises.", ["It boils at 100 °C.", "Then it rises."]),
        ("He waited ... and left.\nThe line\ngoes on.", ["He waited ... and left.", "The line\ngoes on."]),
        ("今天下雨。「明天呢？」他问。", ["今天下雨。", "「明天呢？」", "他问。"]),
        ("# Title\nText\n\nMore\n- one\n- two\n  three\n---\n", ["# Title", "Text", "More", "- one", "- two\n  three"]),
        ("Guide\n=====\nText", ["Guide", "Text"]),
        (" \n--- *** \n", []),
        ("", []),
    ],
)  # fmt: skip
def test_a_text_has_these_sentences(text, sentences):
    assert [text[start:end] for start, end in sentence_spans(text)] == sentences


def test_each_line_of_source_code_is_a_sentence():
    text = "def f(x):\n    return x. Y\n\n}\n"
    assert [text[start:end] for start, end in sentence_spans(text, by_line=True)] == ["def f(x):", "return x. Y"]


@given(st.text(st.sampled_from("aA1.!。 \n#-")), st.booleans())
def test_sentences_hold_all_letters_and_digits_in_order(text, by_line):
    spans = sentence_spans(text, by_line=by_line)
    kept = "".join(text[start:end] for start, end in spans)
    assert [c for c in kept if c.isalnum()] == [c for c in text if c.isalnum()]
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in spans)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
