"""Adapters for frameworks: one small file each, which imports its framework. None of them imports torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    from sbert_mini.runtime.embedder import Embedder


def embedder_of(model: Union[str, Path, "Embedder", None], **options: Any) -> "Embedder":
    """Return a model: one that is open already, or one that is named, opened with the options of `Embedder`."""
    from sbert_mini.runtime.embedder import Embedder

    return model if isinstance(model, Embedder) else Embedder(model, **options)
