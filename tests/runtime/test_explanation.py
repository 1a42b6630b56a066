"""Shares of a cosine: beside sums over all pairs of tokens, written out, and the cosine of the vectors."""

import math

import numpy as np
import pytest

from sbert_mini import Embedder
from sbert_mini.errors import InputError, TextTooLongError, UnsupportedModelError, UsageError

A = "How do I keep unbelievably good bread fresh?"
B = "Bread, if it's in a cloth bag, stays fresh (3 days)."
PAIRS = [(A, B), (A, A), ("", "bread"), ("bread " * 400, B), ("😀", "面包"), ("no", "yes")]


def pooled(mode):
    return [{"kind": "Pooling", "embedding_dimension": 28, "pooling_mode": mode}, {"kind": "Normalize"}]


def shares_of_tokens(model, a, b):
    """All pairs of tokens, one by one, for mean pooling."""
    x, y = (vectors.astype(np.float64) for vectors in model.encode_tokens([a, b]))
    lengths = np.linalg.norm(x.sum(axis=0)) * np.linalg.norm(y.sum(axis=0))
    return np.array([[sum(t[k] * u[k] for k in range(len(t))) / lengths for u in y] for t in x])


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_shares_add_up_to_the_cosine_that_similarity_gives(default_embedder, a, b):
    explanation = default_embedder.explain(a, b, removal=False)
    vectors = default_embedder.encode([a, b])
    assert abs(explanation.shares.sum() - explanation.cosine) < 1e-6
    assert abs(explanation.cosine - default_embedder.similarity(*vectors)[0, 0]) < 1e-6
    for words, shares in (
        (explanation.words_a, explanation.shares.sum(1)),
        (explanation.words_b, explanation.shares.sum(0)),
    ):
        assert [word.share for word in words] == pytest.approx(shares.tolist(), abs=1e-12)
        assert words[0].text == "[CLS]"
        assert words[-1].text == "[SEP]"
        assert {word.removal for word in words} == {None}


def test_a_pair_s_share_is_the_sum_over_its_pieces(default_embedder):
    explanation = default_embedder.explain(A, B, removal=False)
    tokens = shares_of_tokens(default_embedder, A, B)
    words = [word.text for word in explanation.words_a]
    pieces = len(tokens) - len(words) + 1  # one word has several
    place = words.index("unbelievably")
    assert pieces > 1
    joined = np.concatenate(
        [tokens[:place], tokens[place : place + pieces].sum(0, keepdims=True), tokens[place + pieces :]]
    )
    np.testing.assert_allclose(explanation.shares, joined, atol=1e-9)
    assert explanation.words_a[place].start == A.index("unbelievably")
    assert A[explanation.words_a[place].start : explanation.words_a[place].end] == "unbelievably"


def test_removal_is_the_difference_of_two_cosines(default_embedder):
    explanation = default_embedder.explain(A, B)
    first, second = default_embedder.encode([A, B])
    for words, text, other in ((explanation.words_a, A, second), (explanation.words_b, B, first)):
        assert [word.removal is None for word in words] == [word.kind != "word" for word in words]
        word = words[len(words) // 2]
        without = default_embedder.encode(text[: word.start] + text[word.end :])
        assert word.removal == pytest.approx(explanation.cosine - float(without @ other), abs=1e-6)
    bread = next(word for word in explanation.words_a if word.text == "bread")
    assert bread.removal == max(word.removal for word in explanation.words_a if word.kind == "word")


def test_the_strongest_pairs_come_first(default_embedder):
    explanation = default_embedder.explain(A, B, removal=False)
    pairs = explanation.pairs(3)
    assert (pairs[0].a.text, pairs[0].b.text) == ("bread", "Bread")
    assert pairs[0].share == np.abs(explanation.shares).max()
    every = explanation.pairs(10_000, special=False)
    assert len(every) == (len(explanation.words_a) - 2) * (len(explanation.words_b) - 2)
    assert {pair.a.kind for pair in every} == {"word"}
    assert sum(pair.share for pair in every) + explanation.special_share == pytest.approx(explanation.cosine, abs=1e-9)
    with pytest.raises(UsageError, match="most"):
        explanation.pairs(0)


def test_words_of_a_prompt_have_shares_and_are_named(default_embedder):
    explanation = default_embedder.explain(A, B, prompts=("query: ", None))
    assert [(word.text, word.kind) for word in explanation.words_a[:4]] == [
        ("[CLS]", "special"), ("query", "prompt"), (":", "prompt"), ("How", "word")
    ]  # fmt: skip
    vectors = default_embedder.encode(A, prompt="query: "), default_embedder.encode(B)
    assert abs(explanation.cosine - default_embedder.similarity(*vectors)[0, 0]) < 1e-6
    without = default_embedder.encode(A[4:], prompt="query: ")
    assert explanation.words_a[3].removal == pytest.approx(explanation.cosine - float(without @ vectors[1]), abs=1e-6)


def test_fewer_components_and_what_is_cut(default_embedder):
    explanation = default_embedder.explain(A, "bread " * 400, truncate_dim=64, removal=False)
    vectors = default_embedder.encode([A, "bread " * 400], truncate_dim=64)
    assert abs(explanation.cosine - float(vectors[0] @ vectors[1])) < 1e-6
    assert explanation.truncated == (False, True)


@pytest.mark.parametrize("backend", ["native", "onnx", "torch"])
@pytest.mark.parametrize("mode", ["mean", "mean_sqrt_len_tokens", "weightedmean"])
def test_every_linear_pooling_and_backend(converted_model, mode, backend):
    model = Embedder(converted_model(modules=pooled(mode)), backend=backend, threads=1)
    texts = "the cat sleeps", "a red house, tree."
    explanation = model.explain(*texts)
    assert abs(explanation.cosine - model.similarity(*model.encode(texts))[0, 0]) < 1e-6
    assert abs(explanation.shares.sum() - explanation.cosine) < 1e-6
    assert [len(rows) for rows in model.encode_tokens(texts)] == [
        len(tokens.ids) for tokens in model.tokenizer.encode(texts)
    ]
    assert model.encode_tokens([]) == []


@pytest.mark.parametrize(
    ("modules", "reason"),
    [
        (pooled("cls"), "that of .* is cls"),
        (pooled(["mean", "max"]), "is mean and max"),
        ([pooled("mean")[0], {"kind": "Dense", "in_features": 28, "out_features": 5,
          "activation_function": "torch.nn.modules.linear.Identity"}], "projection"),
    ],
)  # fmt: skip
def test_models_whose_cosine_is_no_sum_are_refused(converted_model, modules, reason):
    model = Embedder(converted_model(modules=modules), threads=1)
    with pytest.raises(UnsupportedModelError, match=reason):
        model.explain("a cat", "a dog")


def test_token_vectors_are_those_that_are_pooled(default_embedder, caplog):
    texts = ["a cat", "bread " * 400, "", "the dog runs"]
    rows = default_embedder.encode_tokens(texts)
    means = np.stack([vectors.mean(axis=0) for vectors in rows])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(means, default_embedder.encode(texts), atol=1e-6)
    assert "1 of 4 texts were longer" in caplog.text
    (single,) = default_embedder.encode_tokens("a cat")
    np.testing.assert_array_equal(single, rows[0])
    with pytest.raises(TextTooLongError, match="text 2 is longer"):
        default_embedder.encode_tokens(texts, truncation="error")


def test_bad_arguments_are_refused(default_embedder):
    with pytest.raises(UsageError, match="did you mean removal"):
        default_embedder.explain("a", "b", removals=True)
    with pytest.raises(UsageError, match="two, of a and of b"):
        default_embedder.explain("a", "b", prompts="query: ")
    with pytest.raises(UsageError, match="truncation must be warn or error"):
        default_embedder.encode_tokens(["a"], truncation="chunk")
    with pytest.raises(InputError, match="half a character"):
        default_embedder.explain("a", "\ud800")
    with pytest.raises(UsageError, match="truncate_dim"):
        default_embedder.explain("a", "b", truncate_dim=math.inf)
