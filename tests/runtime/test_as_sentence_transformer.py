"""An embedder where sentence-transformers' own code expects its model: the oracle is that library on the same weights."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

from sbert_mini.errors import UsageError

TEXTS = ["A dog runs.", "A dog is running.", "Rain falls.", "It rains.", "Bread with butter", "A cat sleeps."]


@pytest.fixture(scope="module")
def theirs(minilm):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(minilm), device="cpu")


def test_what_the_evaluator_of_similarities_finds(exact_embedder, theirs):
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    scores = [0.9, 0.1, 0.8, 0.2]
    for options in ({}, {"precision": "binary"}, {"truncate_dim": 64}):
        evaluator = EmbeddingSimilarityEvaluator(TEXTS[:4], TEXTS[1:5], scores, **options)
        assert evaluator(exact_embedder) == pytest.approx(evaluator(theirs), abs=1e-4)


def test_what_the_evaluator_of_retrieval_finds(exact_embedder, theirs):
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    corpus = {f"d{i}": text for i, text in enumerate(TEXTS)}
    evaluator = InformationRetrievalEvaluator(
        {"q": "wet weather", "r": "pets"}, corpus, {"q": {"d2"}, "r": {"d1", "d5"}}
    )
    ours = evaluator(exact_embedder)
    assert ours == pytest.approx(evaluator(theirs), abs=1e-6)
    assert ours["cosine_recall@10"] == 1


def test_utilities(exact_embedder, theirs):
    from sentence_transformers.util import community_detection, paraphrase_mining, semantic_search

    ours, other = (model.encode(TEXTS, convert_to_tensor=True) for model in (exact_embedder, theirs))
    for found, expected in zip(semantic_search(ours[:2], ours), semantic_search(other[:2], other), strict=True):
        assert [hit["corpus_id"] for hit in found] == [hit["corpus_id"] for hit in expected]
    mined = [pair[1:] for pair in paraphrase_mining(exact_embedder, TEXTS)]
    assert mined == [pair[1:] for pair in paraphrase_mining(theirs, TEXTS)]
    assert mined[0] == [0, 1]
    groups = community_detection(ours, threshold=0.6, min_community_size=2)
    assert groups == community_detection(other, threshold=0.6, min_community_size=2) != []


def test_forms_of_the_result(embedder):
    import torch

    array = embedder.encode(TEXTS)
    tensor = embedder.encode(TEXTS, convert_to_tensor=True, convert_to_numpy=True, device="cpu")
    np.testing.assert_array_equal(tensor.numpy(), array)
    several = embedder.encode(TEXTS, convert_to_numpy=False)
    assert isinstance(several, list)
    np.testing.assert_array_equal(torch.stack(several), array)
    assert embedder.encode(TEXTS[0], convert_to_numpy=False).shape == (384,)
    assert (
        embedder.encode(TEXTS[:2], precision="int8", convert_to_tensor=True, show_progress_bar=None).dtype == torch.int8
    )
    assert embedder.encode(TEXTS, device=torch.device("cpu"), precision=None).dtype == np.float32
    scores = embedder.similarity(tensor, array[:2])
    np.testing.assert_array_equal(scores.numpy(), embedder.similarity(array, array[:2]))
    assert isinstance(embedder.similarity_pairwise(tensor, tensor), torch.Tensor)


def test_names_that_frameworks_use(embedder, theirs):
    assert embedder.get_max_seq_length() == embedder.max_seq_length == theirs.get_max_seq_length()
    assert (embedder.device, embedder.similarity_fn_name) == (str(theirs.device), theirs.similarity_fn_name)
    vectors = embedder.encode_document(TEXTS)
    assert embedder.embed_documents(iter(TEXTS)) == vectors.tolist()
    assert embedder.embed_query(TEXTS[0]) == embedder.encode_query(TEXTS[0]).tolist()
    np.testing.assert_array_equal(embedder(input=TEXTS), vectors)


def test_what_is_refused_by_name(embedder):
    for options, named in (
        ({"output_value": "token_embeddings"}, "output_value must be 'sentence_embedding'; found 'token_embeddings'"),
        ({"output_value": None}, "output_value"),
        ({"device": "cuda:1"}, "device must be that of the model, 'cpu'; found 'cuda:1'"),
        ({"device": ["cpu", "cpu"]}, "device"),
        ({"pool": {}}, "pool must be None"),
        ({"chunk_size": 5}, "chunk_size must be None"),
        ({"convert_to_tenser": True}, "convert_to_tenser"),
    ):
        for call in (embedder.encode, embedder.encode_query, embedder.encode_document):
            with pytest.raises(UsageError, match=named):
                call(TEXTS, **options)
    with pytest.raises(UsageError, match="embed_query takes one text; found a list"):
        embedder.embed_query(TEXTS)
    with pytest.raises(UsageError, match="put it into a list"):
        embedder.embed_documents("a dog")
    with pytest.raises(UsageError, match="found a dict"):
        embedder({"input_ids": [1]})
    with pytest.raises(AttributeError, match=r"Embedder has no 'start_multi_process_pool'.*sbert_mini\.load"):
        embedder.start_multi_process_pool()
    with pytest.raises(AttributeError, match="no attribute 'encde'"):
        _ = embedder.encde
    assert not hasattr(embedder, "fit")


def test_copies_are_made_as_before(embedder):
    for other in (copy.copy(embedder), pickle.loads(pickle.dumps(embedder))):  # noqa: S301
        assert other.fingerprint == embedder.fingerprint


def test_arrays_need_no_torch(minilm):
    """And a tensor says that torch is missing."""
    code = f"""
import sys
sys.modules["torch"] = None
from sbert_mini import Embedder
from sbert_mini.errors import MissingExtraError
model = Embedder({str(minilm)!r}, threads=1)
assert model.similarity(model.embed_documents(["a dog"]), model.encode("a dog", device="cpu")).shape == (1, 1)
try:
    model.encode("a dog", convert_to_tensor=True)
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("a tensor needs the package torch"), done.stderr
