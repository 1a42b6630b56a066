"""LlamaIndex over the adapter."""

import pytest

pytest.importorskip("llama_index.core")

from blocks import run_block

from sbert_mini import Embedder
from sbert_mini.integrations.llama_index import SbertMiniEmbedding

MODEL = Embedder(threads=1)


def test_vectors_are_the_models():
    adapter = SbertMiniEmbedding(MODEL)
    assert adapter.get_query_embedding("a dog") == MODEL.embed_query("a dog")
    texts = ["a dog", "a cat"]
    assert adapter.get_text_embedding_batch(texts) == MODEL.embed_documents(texts)
    assert adapter.get_text_embedding("a dog") == MODEL.embed_documents(texts)[0]
    assert adapter.model_name == MODEL.model_name


def test_the_block_of_the_documents(tmp_path):
    assert "Yeast" in run_block("integrations.llama_index", tmp_path)
