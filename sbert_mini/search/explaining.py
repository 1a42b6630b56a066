"""Why a query found its hits: the parts of their cosines by pairs of words."""

from collections.abc import Sequence

from sbert_mini.runtime.embedder import Embedder
from sbert_mini.runtime.explanation import Explanation
from sbert_mini.runtime.reading import QUERY_PROMPTS
from sbert_mini.search.queries import Hit


def explain_hits(query: str, hits: Sequence[Hit], embedder: Embedder, prompt: str) -> list[Explanation]:
    """Return why the query and the closest passage of each hit have their cosine, without the effect of words' removal.

    A passage that is longer than the model reads is cut, so its cosine may differ from that of a hit whose row was averaged.

    Args:
        query: the query.
        hits: of the query.
        embedder: the model that the index was made with.
        prompt: put before the index's texts.

    Raises:
        UnsupportedModelError: the model's cosine is no sum over tokens.
    """
    of_query = next((embedder.prompts[name] for name in QUERY_PROMPTS if name in embedder.prompts), None)
    return [embedder.explain(query, hit.passage, prompts=(of_query, prompt), removal=False) for hit in hits]
