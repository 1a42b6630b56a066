"""Chroma over the adapter."""

import numpy as np
import pytest

pytest.importorskip("chromadb")

import chromadb
from blocks import run_block

from sbert_mini import Embedder
from sbert_mini.errors import UsageError
from sbert_mini.integrations.chroma import SbertMiniEmbeddingFunction

MODEL = Embedder(threads=1)


def test_vectors_are_the_models():
    adapter = SbertMiniEmbeddingFunction(MODEL)
    np.testing.assert_array_equal(np.stack(adapter(["a dog", "a cat"])), MODEL.encode_document(["a dog", "a cat"]))
    np.testing.assert_array_equal(adapter.embed_query(["a dog"])[0], MODEL.encode_query("a dog"))
    again = SbertMiniEmbeddingFunction.build_from_config(adapter.get_config())
    assert again.embedder.fingerprint == MODEL.fingerprint
    with pytest.raises(UsageError, match="keeps its model"):
        adapter.validate_config_update({"model": "a"}, {"model": "b"})


def test_a_stored_collection_finds_its_model_again(tmp_path):
    rows = chromadb.PersistentClient(str(tmp_path)).create_collection(
        "rows", embedding_function=SbertMiniEmbeddingFunction(MODEL)
    )
    rows.add(ids=["a", "b"], documents=["Yeast feeds on sugars.", "The cat sleeps."])
    again = chromadb.PersistentClient(str(tmp_path)).get_collection("rows")
    assert again.query(query_texts=["bread"], n_results=1)["ids"] == [["a"]]


def test_the_block_of_the_documents(tmp_path):
    assert "Yeast" in run_block("integrations.chroma", tmp_path)
