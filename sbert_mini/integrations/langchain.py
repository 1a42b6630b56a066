"""LangChain: vectors (`Embeddings`), and a durable index as a `VectorStore` with filters."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from sbert_mini.errors import MissingExtraError, UsageError
from sbert_mini.integrations import embedder_of
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.search.collection import Collection
from sbert_mini.search.fusion import SearchBy
from sbert_mini.search.queries import Hit
from sbert_mini.shapes import FloatArray

try:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore
    from langchain_core.vectorstores.utils import maximal_marginal_relevance
except ImportError as error:
    raise MissingExtraError("the adapter for LangChain", "langchain-core", "langchain") from error

_RENAMED = {"id": "metadata_id", "text": "metadata_text"}
"""Metadata whose names the index uses itself -> their columns."""
Filter = str | Mapping[str, Any] | None
"""An SQL condition, such as `year >= 2020`, or values that columns must have."""


class SbertMiniEmbeddings(Embeddings):
    """Sentence vectors for LangChain.

    Args:
        model: a name, a directory, or an open `Embedder`; None for the default model.
        options: of `Embedder`.
    """

    def __init__(self, model: str | Path | Embedder | None = None, **options: Any) -> None:
        self.embedder = embedder_of(model, **options)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a vector of length 1 a text, as lists."""
        return self.embedder.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a query."""
        return self.embedder.embed_query(text)


class SbertMiniVectorStore(VectorStore):
    """An index directory as a vector store: updates are atomic, and other processes may search it meanwhile.

    Metadata are columns of the index. Each has one type, and a filter may name it; in a filter `id` is the document's own, and
    metadata named `id` or `text` are `metadata_id` and `metadata_text`.

    Args:
        path: the index directory; it is made with the first documents.
        embedding: the model; None for the index's own one, or the default one.
        by: what ranks the documents: `meaning`, `words` or `both`.
    """

    def __init__(
        self, path: str | Path, embedding: SbertMiniEmbeddings | None = None, *, by: SearchBy = "meaning"
    ) -> None:
        self._embedding, self._by = embedding, by
        self._rows = Collection(path, None if embedding is None else embedding.embedder)

    @property
    def embeddings(self) -> SbertMiniEmbeddings | None:
        """The model that was given."""
        return self._embedding

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        path: str | Path | None = None,
        **options: Any,
    ) -> "SbertMiniVectorStore":
        """Return a store at `path` that holds the texts.

        Raises:
            UsageError: there is no path, or the vectors are those of another library.
        """
        if path is None:
            raise UsageError(
                "path names the index directory: SbertMiniVectorStore.from_texts(texts, embedding, path=...)"
            )
        if not isinstance(embedding, SbertMiniEmbeddings):
            raise UsageError(f"embedding must be SbertMiniEmbeddings; found {type(embedding).__name__}")
        store = cls(path, embedding, **options)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **_: Any,
    ) -> list[str]:
        """Add texts, or replace those with the same ids, in one step, and return the ids.

        Raises:
            UsageError: there are not as many metadata or ids as texts, or metadata hold `metadata_id` or `metadata_text`.
            InputError: a text cannot be stored; nothing is changed then.
        """
        all_texts = list(texts)
        named = [uuid4().hex if identity is None else identity for identity in ids or [None] * len(all_texts)]
        columns = metadatas or [{}] * len(all_texts)
        if not len(all_texts) == len(named) == len(columns):
            raise UsageError(
                f"as many ids and metadatas are needed as texts; found {len(all_texts)} texts, {len(named)} ids and "
                f"{len(columns)} metadatas"
            )
        if taken := next((key for one in columns for key in one if key in _RENAMED.values()), None):
            raise UsageError(f"metadata may not hold {taken!r}, where the index keeps other metadata")
        rows = [
            {**{_RENAMED.get(key, key): value for key, value in column.items()}, "id": identity, "text": text}
            for column, identity, text in zip(columns, named, all_texts, strict=True)
        ]
        if rows:
            self._rows.upsert(rows)
        return named

    def delete(self, ids: list[str] | None = None, **_: Any) -> bool | None:
        """Delete documents; ids that there are not are passed over.

        Raises:
            UsageError: no ids were given.
            InputError: no document would be left; an index holds one at least.
        """
        if ids is None:
            raise UsageError("ids name what is deleted; to delete all, remove the index directory")
        there = [row.id for row in self._rows.get(ids) if row is not None]
        if there:
            self._rows.delete(dict.fromkeys(there))
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents with some ids; those that there are not are left out."""
        return [
            Document(id=row.id, page_content=row.text, metadata=_metadata(row.columns))
            for row in self._rows.get(ids)
            if row is not None
        ]

    def similarity_search(self, query: str, k: int = 4, filter: Filter = None, **options: Any) -> list[Document]:
        """Return the documents closest to a query; `options` are those of `SearchIndex.search`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, filter, **options)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Filter = None, **options: Any
    ) -> list[tuple[Document, float]]:
        """Return the documents closest to a query with their scores; larger is closer."""
        if not len(self._rows):
            return []
        hits = self._rows.query(query, k, **{"by": self._by, "filter": condition(filter), **options})
        return [(_document(hit), hit.score) for hit in hits]

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter = None, **options: Any
    ) -> list[Document]:
        """Return the documents closest to a vector of length 1."""
        return [_document(hit) for hit in self._nearest(embedding, k, filter, **options)]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter = None,
        **options: Any,
    ) -> list[Document]:
        """Return documents that are close to a query and differ from each other."""
        if not len(self._rows):
            return []
        vector = self._rows.index().embedder().encode_query(query)
        hits = self._nearest(vector, fetch_k, filter, **options)
        vectors = [self._rows.index().vector(hit.id) for hit in hits]
        return [_document(hits[i]) for i in maximal_marginal_relevance(vector, vectors, lambda_mult, k)]

    def _nearest(self, vector: "FloatArray | list[float]", k: int, filter: Filter, **options: Any) -> list[Hit]:
        if not len(self._rows):
            return []
        import numpy as np

        one = np.asarray(vector, np.float32)[None]
        return self._rows.query(one, k, **{"filter": condition(filter), **options, "by": "meaning"})[0]

    def _select_relevance_score_fn(self) -> Any:
        if self._by != "meaning":
            raise UsageError("relevance in [0, 1] is for by='meaning': other scores have no fixed range")
        return lambda cosine: max(cosine, 0.0)


def condition(filter: Filter) -> str | None:
    """Return a filter as an SQL condition.

    Raises:
        UsageError: a value is of a type that no column has.
    """
    if filter is None or isinstance(filter, str):
        return filter
    return " and ".join(f"{_quoted(name)} = {_literal(value)}" for name, value in filter.items()) or None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    raise UsageError(f"a filter's values are texts, numbers and booleans; found {type(value).__name__}: write SQL")


def _document(hit: Hit) -> Document:
    return Document(id=hit.id, page_content=hit.text, metadata=_metadata(hit.columns))


def _metadata(columns: Mapping[str, Any]) -> dict[str, Any]:
    names = {column: name for name, column in _RENAMED.items()}
    return {names.get(key, key): value for key, value in columns.items()}
