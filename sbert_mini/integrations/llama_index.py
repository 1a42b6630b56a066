"""LlamaIndex: vectors (`BaseEmbedding`)."""

from pathlib import Path
from typing import Any

from sbert_mini.errors import MissingExtraError
from sbert_mini.integrations import embedder_of
from sbert_mini.runtime.embedder import Embedder

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import PrivateAttr
except ImportError as error:
    raise MissingExtraError("the adapter for LlamaIndex", "llama-index-core", "llama-index") from error


class SbertMiniEmbedding(BaseEmbedding):
    """Sentence vectors for LlamaIndex.

    Args:
        model: a name, a directory, or an open `Embedder`; None for the default model.
        embed_batch_size: texts that LlamaIndex hands over together.
        options: of `Embedder`.
    """

    _embedder: Embedder = PrivateAttr()

    def __init__(
        self, model: str | Path | Embedder | None = None, *, embed_batch_size: int = 256, **options: Any
    ) -> None:
        embedder = embedder_of(model, **options)
        super().__init__(model_name=embedder.model_name, embed_batch_size=embed_batch_size)
        self._embedder = embedder

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex keeps it."""
        return "SbertMiniEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embedder.embed_query(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._embedder.embed_query(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embedder.embed_documents([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embedder.embed_documents(texts)
