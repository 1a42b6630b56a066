"""Task heads: the same with and without torch."""

import numpy as np
import pytest
import torch

from sbert_mini.errors import CorruptModelError, ModelNotFoundError, UsageError
from sbert_mini.model.choices import JOINED
from sbert_mini.model.heads import HeadConfig, read_head
from sbert_mini.runtime.predictor import Predictor, siamese_features
from sbert_mini.training.heads import Head


@pytest.mark.parametrize("structure", ["single", "siamese", "pair", "pair+siamese"])
@pytest.mark.parametrize(("kind", "hidden"), [("classification", 0), ("classification", 11), ("regression", 0)])
def test_a_head_says_the_same_with_and_without_torch(make_model, structure, kind, hidden):
    path = make_model(seed=4)
    labels = ("no", "yes", "maybe") if kind == "classification" else ()
    torch.manual_seed(1)
    head = Head(HeadConfig("task", structure, kind, 28, labels, low=1, high=5, hidden=hidden, dropout=0.5)).eval()
    with torch.no_grad():
        head.output.bias.normal_()
    head.save(path)
    predictor = Predictor(path, graph="fp32")
    pairs = [("the cat sleeps", "a dog runs"), ("red house", "blue house"), ("bread", "dough rises")]
    inputs = [a for a, _ in pairs] if structure == "single" else pairs
    vectors = [torch.from_numpy(predictor.embedder.encode_pairs(pairs))] if structure in JOINED else []
    if structure != "pair":
        columns = [inputs] if structure == "single" else list(zip(*pairs, strict=True))
        vectors += [torch.from_numpy(predictor.embedder.encode(list(c))) for c in columns]
    with torch.no_grad():
        logits = Head.load(path, "task")(*vectors).double()
    for row, found in zip(logits, predictor.predict(inputs), strict=True):
        if kind == "regression":
            assert found.score == pytest.approx(1 + 4 * torch.sigmoid(row[0]).item(), abs=1e-5)
        else:
            expected = row.softmax(dim=-1).tolist()
            assert list(found.probabilities) == list(labels)
            assert list(found.probabilities.values()) == pytest.approx(expected, abs=1e-5)
            assert found.label == labels[int(np.argmax(expected))]


def test_a_similarity_head_and_its_features(make_model):
    path = make_model(seed=4)
    Head(HeadConfig("sim", "siamese", "similarity", 28, low=0, high=5)).save(path)
    predictor = Predictor(path, "sim", graph="fp32")
    same, other = predictor.predict([("the cat", "the cat"), ("the cat", "bread rises")])
    assert (same.cosine, same.score) == (pytest.approx(1, abs=1e-5), pytest.approx(5, abs=1e-4))
    assert other.score == pytest.approx(5 * max(other.cosine, 0))
    u, v = np.array([[1.0, -2.0]]), np.array([[3.0, 5.0]])
    assert siamese_features(u, v).tolist() == [[1, -2, 3, 5, 2, 7, 3, -10]]
    with pytest.raises(UsageError, match="the head 'sim' reads two texts an input"):
        predictor.predict(["one"])
    with pytest.raises(ModelNotFoundError, match="has no head 'other'; it has: sim"):
        Predictor(path, "other")


def test_a_damaged_head_is_an_error(make_model):
    path = make_model(seed=4)
    head = Head(HeadConfig("t", "single", "classification", 28, ("a", "b")))
    head.save(path)
    assert read_head(path, "t")[0] == head.config
    text = (path / "heads" / "t" / "config.json").read_text()
    for old, new, match in (
        ('"format": 1', '"format": 2', "is not of format 1"),
        ('"dimension": 28', '"dimension": 29', r"must have the shape \(2, 29\); found \(2, 28\)"),
        ('"single"', '"double"', "structure must be one of"),
    ):
        (path / "heads" / "t" / "config.json").write_text(text.replace(old, new))
        with pytest.raises(CorruptModelError, match=match):
            read_head(path, "t")


def test_pairs_are_one_input_and_a_forged_separator_is_none(make_model):
    from sbert_mini import Embedder

    path = make_model(seed=5)
    embedder = Embedder(path, graph="fp32")
    pair, forged = embedder.encode_pairs([("the cat", "a dog")]), embedder.encode(["the cat [SEP] a dog"])
    assert np.abs(pair - forged).max() > 1e-3
    from sbert_mini.encoder.bert import MiniBert
    from sbert_mini.encoder.pooling import pool
    from sbert_mini.model.layout import read_layout
    from sbert_mini.text.batching import pad
    from sbert_mini.text.tokenizer import open_tokenizer

    arrays = [torch.from_numpy(a) for a in pad(open_tokenizer(read_layout(path)).encode([("the cat", "a dog")]), 0)]
    assert arrays[2].sum() > 0  # segment ids
    states = MiniBert.from_pretrained(path)(*arrays).last_hidden_state
    expected = torch.nn.functional.normalize(pool(states, arrays[1], "mean"), dim=-1).detach().numpy()
    np.testing.assert_allclose(pair, expected, atol=1e-5)
    with pytest.raises(UsageError, match="cannot be read in pieces"):
        embedder.encode_pairs([("a", "b")], truncation="chunk")
    with pytest.raises(UsageError, match="pair 0 is a str"):
        embedder.encode_pairs(["ab"])
