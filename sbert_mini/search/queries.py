"""What every kind of index shares: what a search asks for, checked and encoded, and the hits that it returns."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict, Unpack, overload

import numpy as np

from sbert_mini.cosine import reaches
from sbert_mini.errors import ModelMismatchError, ModelNotFoundError, UsageError
from sbert_mini.model.registry import resolve_noted
from sbert_mini.runtime import arguments
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.runtime.graphs import is_converted
from sbert_mini.search.fusion import DEFAULT_WEIGHT, SEARCH_BY, SearchBy
from sbert_mini.search.notebook import table
from sbert_mini.search.store import ModelIdentity
from sbert_mini.shapes import FloatArray
from sbert_mini.text.words import Words

_SHOWN_WORDS = 5
log = logging.getLogger("sbert_mini")


@dataclass(frozen=True)
class Hit:
    """A row that a search returns.

    Attributes:
        id: the row's id.
        score: what ranks the hits: the cosine in a search by meaning, the BM25 score in a search by words, and in a search by
            both the score of `search.fusion.fused`. Larger is closer.
        text: its text.
        columns: its other columns, with the values of their types (`columns.shown_columns`).
        start, end: where the passage that is nearest to the query starts and ends in the text, in characters; of a row with one
            vector, the whole text.
        cosine: the cosine similarity of its nearest passage's vector and the query's, in [-1, 1], whatever ranks the hits.
        bm25: its BM25 score; None where words were not searched, or the row shares no word with the query.
        rank_by_meaning: its rank in the ranking by meaning, from 1; None where it is not in that.
        rank_by_words: its rank in the ranking by words, from 1; None where it is not in that.
    """

    id: str
    score: float
    text: str
    columns: Mapping[str, Any]
    start: int
    end: int
    cosine: float
    bm25: float | None = None
    rank_by_meaning: int | None = None
    rank_by_words: int | None = None

    @property
    def passage(self) -> str:
        """The part of the text that is nearest to the query."""
        return self.text[self.start : self.end]

    def _repr_html_(self) -> str:
        """Return what a notebook shows: its scores, its columns and its passage."""
        return table({"id": self.id, "score": f"{self.score:.4f}", **self.columns}, self.passage)


class SearchOptions(TypedDict, total=False):
    """The options of `SearchIndex.search`, which describes them."""

    min_score: float | None
    filter: str | None
    hybrid: bool
    by: SearchBy | None
    weight: float | None
    exact: bool
    embedder: Embedder | None


class Searchable(Protocol):
    """An index that is opened for search: `SearchIndex` in a directory, `scale.milvus.MilvusIndex` in Milvus."""

    def __len__(self) -> int:
        """Return how many rows it has."""

    @property
    def model(self) -> ModelIdentity:
        """The model that it was made with."""

    @property
    def columns(self) -> dict[str, str | None]:
        """The rows' columns with their types."""

    def embedder(self) -> Embedder:
        """Return the model that it names, opened once."""

    @overload
    def search(  # type: ignore[overload-overlap]  # a str is a sequence of str, and one query
        self, queries: str, k: int = 10, **options: Unpack[SearchOptions]
    ) -> list[Hit]: ...

    @overload
    def search(
        self, queries: Iterable[str] | FloatArray, k: int = 10, **options: Unpack[SearchOptions]
    ) -> list[list[Hit]]: ...


class IndexModel:
    """The model of an index, opened when it is needed, and once. It is never fetched: a stranger may have made the index.

    Args:
        identity: what the index notes of it.
        path: of the index, for messages.
        threads: see `Embedder`.
        offline: where the model is not there, do not advise to fetch it.
    """

    def __init__(self, identity: ModelIdentity, path: Path | str, threads: int | None, *, offline: bool) -> None:
        self.identity = identity
        self._path = path
        self._threads, self._offline = threads, offline
        self._embedder: Embedder | None = None

    def embedder(self) -> Embedder:
        """Return the model.

        Raises:
            ModelNotFoundError: it does not exist any more, must be fetched first, or lies in the index itself.
            ModelMismatchError: its name stands for another model now.
        """
        if self._embedder is None:
            name, graph = self.identity.name, self.identity.graph
            try:
                folder = self._path if isinstance(self._path, Path) else None
                model = resolve_noted(name, folder, offline=self._offline)
                if not is_converted(model, graph):  # type: ignore[arg-type]
                    raise ModelNotFoundError(
                        "it has no graphs that are up to date, and nothing is written into a folder that an index names: pass "
                        f"-m {name} to convert it (in Python, embedder=Embedder({name!r}))"
                    )
                named = Embedder(name, graph=graph, threads=self._threads, offline=True, read_only=True)  # type: ignore[arg-type]
            except ModelNotFoundError as error:
                raise ModelNotFoundError(f"{self._path} was made with the model {name!r}: {error}") from error
            self._embedder = check_model(named, self.identity, self._path)
        return self._embedder

    def check(self, embedder: Embedder) -> Embedder:
        """Return the embedder if its vectors can be compared with the index's.

        They can if both models state the same space: a static model may search the index of the model that it was fitted to.

        Raises:
            ModelMismatchError: they cannot; the text names both models.
        """
        if embedder.space == (self.identity.space or self.identity.fingerprint):
            return check_dimension(embedder, self.identity, self._path)
        return check_model(embedder, self.identity, self._path)


def check_model(embedder: Embedder, model: ModelIdentity, path: Path | str) -> Embedder:
    """Return the embedder if its model is the one that an index was made with.

    Raises:
        ModelMismatchError: they cannot; the text names both models.
    """
    if embedder.fingerprint != model.fingerprint:
        raise ModelMismatchError(
            f"{path} was made with the model {model.name!r} (fingerprint {model.fingerprint[:12]}), "
            f"and {embedder.model_name!r} is another ({embedder.fingerprint[:12]}): their vectors cannot be "
            "compared. Search with the first, or make the index anew"
        )
    return check_dimension(embedder, model, path)


def check_dimension(embedder: Embedder, model: ModelIdentity, path: Path | str) -> Embedder:
    """Return the embedder if its vectors have as many components as those of an index.

    Raises:
        ModelMismatchError: they have not.
    """
    if embedder.dimension != model.dimension:
        raise ModelMismatchError(
            f"{path} holds vectors of {model.dimension} components, and {embedder.model_name!r} gives "
            f"{embedder.dimension} now"
        )
    return embedder


@dataclass(frozen=True)
class Request:
    """What a search asks for, checked, with the queries' vectors.

    Attributes:
        k: the most hits a query.
        min_score: the least cosine of a hit, or None.
        by: what ranks the rows.
        weight: the share of meaning where both rank them.
        is_single: whether the query is one text, which gets one list of hits.
        texts: the queries' texts; empty where they are vectors.
        vectors: their vectors, (queries, dim).
        words: what the model reads of the texts; empty where they are vectors.
        embedder: the model; None where they are vectors.
    """

    k: int
    min_score: float | None
    by: SearchBy
    weight: float
    is_single: bool
    texts: list[str]
    vectors: FloatArray
    words: list[Words]
    embedder: Embedder | None

    def is_silent(self, query: int) -> bool:
        """Return whether nothing is read of a query."""
        return bool(self.words) and self.words[query].empty

    def unknown(self, query: int) -> tuple[str, ...]:
        """Return a query's words that the model does not know."""
        return self.words[query].unknown if self.words else ()

    def accepts(self, cosine: float) -> bool:
        """Return whether a cosine reaches the least one."""
        return self.min_score is None or bool(reaches(cosine, self.min_score))

    def equals_first(self, query: int, hits: list[Hit]) -> list[Hit]:
        """Return hits with those of cosine 1 and one score in the order: the query's own text, its unknown words, other ones."""
        places = [place for place, hit in enumerate(hits) if hit.cosine == 1]
        if len(places) < 2 or self.embedder is None:
            return hits
        equal = [hits[place] for place in places]
        other_words = [False] * len(equal)
        if self.unknown(query):
            words_of = self.embedder.words_of([hit.passage.encode("utf-8", "replace").decode() for hit in equal])
            other_words = [words.unknown != self.unknown(query) for words in words_of]
        order = sorted(
            range(len(equal)), key=lambda i: (-equal[i].score, other_words[i], equal[i].passage != self.texts[query])
        )
        ordered = list(hits)
        for place, i in zip(places, order, strict=True):
            ordered[place] = equal[i]
        return ordered

    def answer(self, hits: list[list[Hit]]) -> list[Hit] | list[list[Hit]]:
        """Return each query's hits, or for a single text its hits."""
        return hits[0] if self.is_single else hits


def read_request(
    queries: str | Iterable[str] | FloatArray,
    k: int,
    model: IndexModel,
    *,
    min_score: float | None,
    hybrid: bool,
    by: SearchBy | None,
    weight: float | None,
    embedder: Embedder | None,
    default_by: Callable[[], SearchBy],
) -> Request:
    """Return what a search asks for, and report what the model cannot read of the queries.

    Args:
        queries: texts in any ordered iterable, or an array of vectors.
        k: the most hits a query.
        model: of the index.
        min_score: the least cosine of a hit, or None.
        hybrid: the same as `by="both"`.
        by: what ranks the rows; None for the default.
        weight: the share of meaning where both rank them; None for the default.
        embedder: encodes the texts; None for the index's model.
        default_by: what ranks the rows for texts, where neither `by` nor `weight` is given.

    Raises:
        UsageError: `k`, the least cosine (which must be in [-1, 1]), what ranks the rows or the queries do not fit.
        ModelMismatchError: the embedder is not the model that the index was made with.
    """
    k = arguments.integer(k, "k")
    least = _least_cosine(min_score)
    fused = hybrid or (by is None and weight is not None and not _are_vectors(queries))
    ranked_by = _search_by(by, default_by, hybrid=fused, are_vectors=_are_vectors(queries))
    share = _share(weight, ranked_by)
    dimension, is_single = model.identity.dimension, arguments.is_one_text(queries)
    texts_or_vectors = _checked_queries(queries, dimension)
    if isinstance(texts_or_vectors, np.ndarray):
        return Request(k, least, ranked_by, share, is_single, [], texts_or_vectors, [], None)
    embedder = model.embedder() if embedder is None else model.check(embedder)
    vectors, words = embedder.encode_queries(texts_or_vectors)
    _report_unread(words, ranked_by)
    return Request(k, least, ranked_by, share, is_single, texts_or_vectors, vectors, words, embedder)


def _search_by(by: SearchBy | None, default_by: Callable[[], SearchBy], *, hybrid: bool, are_vectors: bool) -> SearchBy:
    """Return what ranks the rows. Vectors are always searched by meaning.

    Raises:
        UsageError: `by` is unknown or contradicts `hybrid`, or vectors are to be searched by words.
    """
    if by is not None and by not in SEARCH_BY:
        raise UsageError(f"by must be one of {', '.join(SEARCH_BY)}; found {by!r}")
    if hybrid and by not in (None, "both"):
        raise UsageError(f"a hybrid search is one by both, and by={by!r} is another: give one of the two")
    requested = "both" if hybrid else by
    if are_vectors and requested not in (None, "meaning"):
        kind = "a hybrid search" if requested == "both" else "a search by words"
        raise UsageError(f"{kind} takes texts as queries, and vectors are searched by meaning: pass the texts")
    return requested or ("meaning" if are_vectors else default_by())


def _least_cosine(min_score: float | None) -> float | None:
    """Return the least cosine of a hit.

    Raises:
        UsageError: it is none: a number beyond [-1, 1].
    """
    if min_score is None:
        return None
    least = arguments.number(min_score, "min_score")
    if not -1 <= least <= 1:
        raise UsageError(f"min_score is a cosine, from -1 to 1; found {min_score}", "min_score")
    return least


def _share(weight: float | None, by: SearchBy) -> float:
    """Return the share of meaning.

    Raises:
        UsageError: it is not in [0, 1], or given where not both rank the rows.
    """
    if weight is None:
        return DEFAULT_WEIGHT
    share = arguments.number(weight, "weight")
    if not 0 <= share <= 1:
        raise UsageError(f"weight, the share of meaning, must be from 0 to 1; found {weight}")
    if by != "both":
        raise UsageError(f"weight is the share of meaning in a hybrid search (by='both'), and this one is by {by}")
    return share


def _checked_queries(queries: Any, dimension: int) -> list[str] | FloatArray:
    """Return queries as a list of texts, or as vectors of length 1.

    Raises:
        UsageError: they are neither.
    """
    if arguments.is_one_text(queries):
        return [str(queries)]
    if _are_vectors(queries):
        return arguments.unit_vectors(queries, dimension, "query vectors", "queries")
    texts = list(arguments.texts_of(queries, "queries"))
    if texts and np.ndim(texts[0]) and np.asarray(texts[0]).dtype.kind in "fiu":
        raise UsageError(
            f"query vectors must be one array of the shape (queries, {dimension}): np.stack(vectors) makes it"
        )
    return [arguments.check_text(text, position) for position, text in enumerate(texts)]


def _are_vectors(queries: Any) -> bool:
    """Return whether queries are an array or a tensor of numbers."""
    return hasattr(queries, "detach") or (isinstance(queries, np.ndarray) and queries.dtype.kind not in "OUST")


def _report_unread(words_of: Sequence[Words], by: SearchBy) -> None:
    """Log how many queries hold nothing that the model reads, and how many hold words that it does not know."""
    if silent := sum(words.empty for words in words_of):
        log.warning(
            "%d of %d queries hold nothing that the model reads: they have no hits by meaning", silent, len(words_of)
        )
    unknown = [words.unknown for words in words_of if words.unknown]
    if unknown:
        names = list(dict.fromkeys(word for words in unknown for word in words))
        shown = ", ".join(repr(word[:40]) for word in names[:_SHOWN_WORDS])
        log.warning(
            "%d of %d queries hold words that the model does not know (%s): it takes them all for one word%s",
            *(len(unknown), len(words_of), shown + (", ..." if len(names) > _SHOWN_WORDS else "")),
            "; a hybrid search finds them" if by == "meaning" else "",
        )
