"""Records keep their vectors over the borders of windows, and pairs get advice that pairs can follow."""

import logging
import re
from dataclasses import dataclass

import numpy as np
import pytest

from sbert_mini import Embedder
from sbert_mini.errors import TextTooLongError, UsageError
from sbert_mini.progress import Counted
from sbert_mini.runtime.stream import EncodeCounts, join_records
from sbert_mini.text.records import Record

TEXTS = [f"a {'very ' * (i % 5)}small cat, number {i}" for i in range(23)]


@dataclass
class Titled:
    """A row that is no `Record`."""

    title: str

    @property
    def text(self):
        """The text."""
        return self.title


@pytest.mark.parametrize("window", [1, 7, 23, 100])
@pytest.mark.parametrize("kind", [Record, Titled])
def test_records_come_with_their_own_vectors_window_by_window(default_embedder, window, kind):
    rows = [kind(text) for text in TEXTS]
    blocks = list(default_embedder.encode_records(iter(rows), window=window, prompt="query: "))
    assert [len(block) for block, _ in blocks] == [len(TEXTS[i : i + window]) for i in range(0, len(TEXTS), window)]
    joined = [row for block, _ in blocks for row in block]
    assert all(a is b for a, b in zip(joined, rows, strict=True))
    expected = default_embedder.encode(TEXTS, prompt="query: ")
    np.testing.assert_allclose(np.concatenate([vectors for _, vectors in blocks]), expected, atol=1e-6)


def test_records_are_read_as_they_are_encoded(default_embedder):
    read = []

    def endless():
        while True:
            read.append(f"text {len(read)}")
            yield Record(read[-1])

    blocks = default_embedder.encode_records(endless(), window=4)
    assert [record.text for record in next(blocks)[0]] == ["text 0", "text 1", "text 2", "text 3"]
    assert len(read) <= 16
    blocks.close()


def test_invalid_options_are_refused_before_a_record_is_read(default_embedder):
    rows = iter([Record("a")])
    with pytest.raises(UsageError, match="batch_size must be at least 1; found 0"):
        default_embedder.encode_records(rows, batch_size=0)
    with pytest.raises(UsageError, match="there is no option 'no_such_option'"):
        default_embedder.encode_records(rows, no_such_option=1)
    assert next(rows).text == "a"


def test_joining_passes_on_how_many_records_there_are():
    told = []

    def encode(texts):
        told.append((texts.total, texts.done))
        return iter(())

    assert list(join_records([Record("a"), Record("b")], encode)) == []
    assert list(join_records(Counted(iter([]), 9, 4), encode)) == []
    assert told == [(2, 0), (9, 4)]


def test_a_long_pair_gets_no_advice_that_pairs_refuse(default_embedder, caplog):
    pairs, counts = [("a cat", "a dog"), ("a cat " * 300, "a dog")], EncodeCounts()
    with caplog.at_level(logging.WARNING, "sbert_mini"):
        default_embedder.encode_pairs(pairs, counts=counts)
    assert counts.truncated == 1
    assert "1 of 2 pairs were longer than 256 tokens, and were cut" in caplog.text
    assert "chunk" not in caplog.text
    with pytest.raises(TextTooLongError, match=r"pair 1 \(counted from 0\) is longer than 256 tokens") as error:
        default_embedder.encode_pairs(pairs, truncation="error")
    assert "chunk" not in str(error.value)


def test_pairs_refuse_an_unknown_truncation(default_embedder):
    with pytest.raises(UsageError, match="truncation must be warn or error for pairs; found 'foo'"):
        default_embedder.encode_pairs([("a", "b")], truncation="foo")
    with pytest.raises(UsageError, match=r"truncation must be warn, error or chunk .*; found 'foo'"):
        default_embedder.encode(["a"], truncation="foo")


def test_an_opened_model_and_its_tokenizer_say_what_they_are(make_model):
    embedder = Embedder(make_model(), threads=1)
    shown = repr(embedder)
    assert re.fullmatch(
        r"Embedder\('.*', graph='int8', threads=1, dimension=28, max_seq_length=\d+, backend='.*'\)", shown
    )
    assert re.fullmatch(r"TextTokenizer\(vocab_size=\d+, max_seq_length=\d+\)", repr(embedder.tokenizer))
    assert repr(embedder._engine).startswith(("NativeEngine(", "OnnxEngine("))


def test_a_window_of_long_texts_has_few_of_them(default_embedder, monkeypatch):
    monkeypatch.setattr("sbert_mini.text.limits.WINDOW_BYTES", 5000)
    texts = ["a cat " * 400, "a dog", "red " * 2000, "x", "y"] * 3
    windows = list(default_embedder.encode_stream(texts))
    assert [len(window) for window in windows] == [3, 5, 5, 2]
    np.testing.assert_array_equal(np.concatenate(windows), default_embedder.encode(texts))


def test_a_window_of_long_vectors_has_few_of_them(default_embedder, monkeypatch):
    monkeypatch.setattr("sbert_mini.runtime.stream._VECTOR_BYTES", 4 * 384 * 3)
    assert [len(window) for window in default_embedder.encode_stream(["a"] * 7)] == [3, 3, 1]
    monkeypatch.setattr("sbert_mini.runtime.stream._VECTOR_BYTES", 1)
    assert [len(window) for window in default_embedder.encode_stream(["a"] * 3)] == [1, 1, 1]


def test_a_text_that_is_split_has_a_greatest_length(default_embedder, monkeypatch):
    expected = default_embedder.encode(["a cat " * 500], truncation="chunk")
    monkeypatch.setattr("sbert_mini.runtime.stream._SPLIT_BYTES", 78_000)  # of 72 and 6 bytes a token
    np.testing.assert_array_equal(default_embedder.encode(["a cat " * 500], truncation="chunk"), expected)
    for long in ("a cat " * 501, "\u2603 " * 501):  # a word that is not known counts twice
        with pytest.raises(TextTooLongError, match=r"text 1 \(counted from 0\) has more than 1,000 tokens.*passages"):
            default_embedder.encode(["a", long], truncation="chunk")
    assert len(default_embedder.encode(["a cat " * 5000])) == 1


def test_texts_that_are_there_are_encoded_before_the_next_one_is_waited_for(default_embedder):
    arrived = ["a cat", "a dog"]
    asked = []

    def source():
        for text in ("a cat", "a dog", "red", "blue"):
            asked.append(text)
            yield text

    blocks = default_embedder.encode_stream(source(), waits=lambda: len(asked) >= len(arrived))
    first = next(blocks)
    assert (len(first), asked) == (2, ["a cat", "a dog"])
    arrived += ["red", "blue", "the end"]
    rest = list(blocks)
    assert [len(block) for block in rest] == [2]
    expected = default_embedder.encode(["a cat", "a dog", "red", "blue"])
    np.testing.assert_allclose(np.concatenate([first, *rest]), expected, atol=1e-6)
