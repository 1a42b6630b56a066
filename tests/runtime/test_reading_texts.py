"""What a model reads of a text, and how it is opened: against its tokenizer, and by hand."""

import copy

import numpy as np
import pytest

from sbert_mini import Embedder
from sbert_mini.errors import UsageError
from sbert_mini.runtime.opening import OpeningOptions, open_model
from sbert_mini.runtime.reading import are_longer, document_prompt, padded_tokens, prompt_text, with_prompt, words_of
from sbert_mini.runtime.stream import joined

TEXTS = ["the cat", "the cat sat", "", "a house and a tree"]


def test_tokens_are_padded_to_the_longest_text(embedder):
    tokenizer = embedder.tokenizer
    padded = padded_tokens(TEXTS, tokenizer)
    ids = [list(tokens.ids) for tokens in tokenizer.encode(TEXTS)]
    longest = max(map(len, ids))
    assert padded["input_ids"].tolist() == [row + [tokenizer.pad_id] * (longest - len(row)) for row in ids]
    assert padded["attention_mask"].sum(axis=1).tolist() == [len(row) for row in ids]
    assert not padded["token_type_ids"].any()


def test_the_prompt_counts_for_the_length_and_not_for_the_words(embedder):
    layout, tokenizer = embedder._layout, embedder.tokenizer
    prompted = words_of(TEXTS, layout, tokenizer, "find a text about: ")
    assert prompted == words_of(TEXTS, layout, tokenizer)
    assert [len(words.pieces) for words in prompted] == [len(t.ids) - 2 for t in tokenizer.encode(TEXTS)]
    room = embedder.max_seq_length - 2
    texts = ["cat " * room, "cat " * (room + 1)]
    assert are_longer(texts, tokenizer, "") == [False, True]
    assert are_longer(texts, tokenizer, "a ") == [True, True]


def test_prompts_are_chosen_by_the_names_that_the_model_has(embedder):
    layout = embedder._layout
    assert with_prompt({"prompt": "x"}, layout, ("query",)) == {"prompt": "x"}
    assert with_prompt({}, layout, ("query",)) == {"prompt_name": "query" if "query" in layout.prompts else None}
    assert document_prompt(layout) == embedder.document_prompt()
    with pytest.raises(UsageError, match="the model has no prompt named 'nobody'"):
        prompt_text(layout, "nobody", None)


def test_blocks_of_vectors_are_one_array(rng):
    vectors = rng.normal(size=(7, 3)).astype(np.float32)
    np.testing.assert_array_equal(joined(iter([vectors[:5], vectors[5:]]), 3), vectors)
    assert joined([], 11).shape == (0, 11)


def test_a_model_is_opened_again_with_the_same_options(make_model):
    path = make_model()
    options = OpeningOptions("fp32", None, "onnx", None, False)
    converted, engine, tokenizer = open_model(path, options)
    assert (converted.graph, engine.name) == ("fp32", "ONNX Runtime")
    model = Embedder(path, "fp32", 1, backend="onnx")
    assert tokenizer.encode(TEXTS)[1].ids == model.tokenizer.encode(TEXTS)[1].ids
    again = copy.copy(model)
    assert (again.graph, again.threads, again.backend) == ("fp32", 1, "ONNX Runtime")
    with pytest.raises(UsageError, match="computed by onnx, on the CPU, alone"):
        OpeningOptions("int8", "cuda", None, object(), False)
