"""Chroma: vectors (`EmbeddingFunction`)."""

from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.errors import MissingExtraError, UsageError
from sbert_mini.integrations import embedder_of
from sbert_mini.runtime.embedder import Embedder

try:
    from chromadb import Documents, EmbeddingFunction, Embeddings
    from chromadb.utils.embedding_functions import register_embedding_function
except ImportError as error:
    raise MissingExtraError("the adapter for Chroma", "chromadb", "chroma") from error


@register_embedding_function
class SbertMiniEmbeddingFunction(EmbeddingFunction[Documents]):
    """Sentence vectors for Chroma, which keeps the model's name with a collection.

    Args:
        model: a name, a directory, or an open `Embedder`; None for the default model.
    """

    def __init__(self, model: str | Path | Embedder | None = None) -> None:
        self.embedder = embedder_of(model)

    def __call__(self, input: Documents) -> Embeddings:
        """Return a vector a document."""
        return list(np.asarray(self.embedder.encode_document(input)))

    def embed_query(self, input: Documents) -> Embeddings:
        """Return a vector a query."""
        return list(np.asarray(self.embedder.encode_query(input)))

    @staticmethod
    def name() -> str:
        """Return the name under which Chroma knows it."""
        return "sbert_mini"

    def get_config(self) -> dict[str, Any]:
        """Return what Chroma stores."""
        return {"model": self.embedder.model_name}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> "SbertMiniEmbeddingFunction":
        """Return the function of a stored configuration."""
        return SbertMiniEmbeddingFunction(config["model"])

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Refuse another model: the vectors that are stored are of the first.

        Raises:
            UsageError: the models differ.
        """
        if old_config.get("model") != new_config.get("model"):
            raise UsageError("a collection keeps its model: its vectors cannot be compared with another's")

    def default_space(self) -> str:
        """Return how Chroma compares the vectors."""
        return "cosine"

    def supported_spaces(self) -> list[str]:
        """Return how Chroma may compare the vectors."""
        return ["cosine", "l2", "ip"]
