"""The command `llm`: the built-in models as embedding models, by a plugin that is found once both are installed."""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sbert_mini.errors import MissingExtraError
from sbert_mini.integrations import embedder_of

if TYPE_CHECKING:
    from sbert_mini.runtime.embedder import Embedder

try:
    import llm
except ImportError as error:
    raise MissingExtraError("the plugin for llm", "llm", "llm") from error

MODELS = ("sbert-mini", "sbert-mini-fast")
"""The built-in models, under the names by which llm knows them."""


class SbertMiniEmbeddingModel(llm.EmbeddingModel):
    """A built-in model for `llm embed`. It is opened when it is first used.

    Args:
        model_id: its name.
    """

    batch_size = 256

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id

    @cached_property
    def embedder(self) -> "Embedder":
        """The open model."""
        return embedder_of(self.model_id)

    def embed_batch(self, items: Iterable[str | bytes]) -> Iterator[list[float]]:
        """Return a vector of length 1 a text."""
        return iter(self.embedder.embed_documents([str(item) for item in items]))


@llm.hookimpl  # type: ignore[untyped-decorator]
def register_embedding_models(register: Callable[..., Any]) -> None:
    """Tell llm of the models."""
    for name in MODELS:
        register(SbertMiniEmbeddingModel(name))
