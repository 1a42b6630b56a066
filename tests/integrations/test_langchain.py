"""LangChain's own suites over the adapter."""

from pathlib import Path

import pytest

pytest.importorskip("langchain_tests")

from blocks import run_block
from langchain_core.documents import Document
from langchain_tests.integration_tests import EmbeddingsIntegrationTests, VectorStoreIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from sbert_mini import Embedder
from sbert_mini.errors import InputError, UsageError
from sbert_mini.integrations.langchain import SbertMiniEmbeddings, SbertMiniVectorStore, condition

MODEL = Embedder(threads=1)


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self):
        return SbertMiniEmbeddings

    @property
    def embedding_model_params(self):
        return {"model": MODEL}


class TestEmbeddingsAsAUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self):
        return SbertMiniEmbeddings

    @property
    def embedding_model_params(self):
        return {"model": MODEL}


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path):
        return SbertMiniVectorStore(tmp_path / "rows.index", SbertMiniEmbeddings(MODEL))


@pytest.fixture
def store(tmp_path):
    texts = ["a dog runs", "a dog is running", "rain falls", "it's raining"]
    metadatas = [{"year": 2019 + i, "kind": "it's" if i > 1 else "dog"} for i in range(4)]
    return SbertMiniVectorStore.from_texts(
        texts, SbertMiniEmbeddings(MODEL), metadatas, ids=list("abcd"), path=Path(tmp_path, "rows.index")
    )


def test_filters_and_scores(store):
    assert {d.id for d in store.similarity_search("dogs", 4, filter="year > 2020")} == {"c", "d"}
    found = store.similarity_search_with_score("wet weather", 4, filter={"kind": "it's", "year": 2021})
    assert [document.id for document, _ in found] == ["c"]
    assert found[0][1] == pytest.approx(
        float(MODEL.encode_query("wet weather") @ MODEL.encode_document("rain falls")), abs=1e-3
    )
    (first, relevance), *_ = store.similarity_search_with_relevance_scores("a dog runs", 2)
    assert (first.id, first.metadata) == ("a", {"year": 2019, "kind": "dog"})
    assert relevance == pytest.approx(1, abs=1e-3)
    assert store.similarity_search_by_vector(MODEL.embed_query("rain falls"), 1)[0].id == "c"
    diverse = [d.id for d in store.max_marginal_relevance_search("a dog runs", 2, lambda_mult=0.1)]
    assert diverse[0] == "a"
    assert diverse[1] in "cd"
    retriever = store.as_retriever(search_kwargs={"k": 1, "filter": "kind = 'dog'"})
    assert retriever.invoke("rain")[0].metadata["kind"] == "dog"


def test_what_is_refused(store, tmp_path):
    with pytest.raises(InputError):
        store.delete(list("abcd"))
    with pytest.raises(UsageError, match="may not hold 'metadata_id'"):
        store.add_documents([Document("x", metadata={"metadata_id": "y"})])
    with pytest.raises(UsageError, match="path names the index"):
        SbertMiniVectorStore.from_texts(["x"], SbertMiniEmbeddings(MODEL))
    with pytest.raises(UsageError, match="found list: write SQL"):
        condition({"year": [1, 2]})
    assert condition({'a"b': True}) == '"a""b" = true'


def test_the_block_of_the_documents(tmp_path):
    assert "Yeast" in run_block("integrations.langchain", tmp_path)
