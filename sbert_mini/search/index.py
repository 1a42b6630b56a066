"""Open an index and search it."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np

from sbert_mini.cosine import as_cosines, reaches
from sbert_mini.errors import (
    ModelMismatchError,
    ModelNotFoundError,
    UsageError,
)
from sbert_mini.runtime import arguments
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.runtime.engine import thread_count
from sbert_mini.search.conditions import parse, refusal
from sbert_mini.search.filters import TIME_LIMIT_S, Deadline, FilterValueError, matching
from sbert_mini.search.kinds import SearchKind, kind_of
from sbert_mini.search.nearest import SegmentSearch
from sbert_mini.search.segment import StoredRow
from sbert_mini.search.store import ModelIdentity, Store
from sbert_mini.search.words import weights
from sbert_mini.shapes import AnyArray, FloatArray, IntArray
from sbert_mini.text.words import Words, is_silent

RRF_CONSTANT = 60
HYBRID_DEPTH = 100
_SHOWN_WORDS = 5
log = logging.getLogger("sbert_mini")


@dataclass(frozen=True)
class Hit:
    """A row that was found.

    Attributes:
        id: the row's id.
        score: its cosine similarity to the query, in [-1, 1]; in a hybrid search its reciprocal ranks, added up.
            Larger is closer.
        text: its text.
        columns: its other columns.
    """

    id: str
    score: float
    text: str
    columns: Mapping[str, Any]


class SearchIndex:
    """An index directory at one generation, opened for search. It cannot write: `search.writer.IndexWriter` does.

    Args:
        path: the directory.
        threads: for FAISS and for encoding queries; None for the usual choice.
        offline: open no socket when the index's model is looked for.
        filter_timeout_s: seconds after which a filter is given up; None for no limit.

    Raises:
        IndexNotFoundError: there is no index.
        CorruptIndexError: a stored block that opening reads does not match its checksum.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int | None = None,
        offline: bool = False,
        filter_timeout_s: float | None = TIME_LIMIT_S,
    ) -> None:
        self._store = Store(path)
        self._filter_timeout_s = filter_timeout_s
        self._threads = threads
        self._offline = offline
        self._searches: list[SegmentSearch] | None = None
        self._embedder: Embedder | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles and copies open the index again, at the same generation, which lives as long as anybody has it open."""
        store = self._store
        options = (self._threads, self._offline, self._filter_timeout_s)
        return _reopened, (type(self), store.folder, store.manifest, store.deleted, *options)

    def __len__(self) -> int:
        return self._store.rows

    def __repr__(self) -> str:
        return (
            f"SearchIndex({str(self.path)!r}, rows={len(self)}, model={self.model.name!r}, dimension={self.model.dimension}, "
            f"generation={self.generation})"
        )

    @property
    def path(self) -> Path:
        """The directory."""
        return self._store.path

    @property
    def model(self) -> ModelIdentity:
        """The model that it was made with."""
        return self._store.model

    @property
    def generation(self) -> int:
        """The generation that is open; a writer's later ones do not change it."""
        return self._store.generation

    @property
    def created(self) -> str:
        """When the generation was written, in ISO 8601, UTC."""
        return str(self._store.manifest["created"])

    @property
    def columns(self) -> dict[str, str | None]:
        """The rows' columns with their types: `integer`, `number`, `boolean` or `text`; None for one without any value yet.

        Filters may name them, and `id`, the row's id.
        """
        return {entry["name"]: entry["type"] for entry in self._store.columns}

    @property
    def segments(self) -> int:
        """How many segments the rows lie in."""
        return len(self._store.segments)

    @property
    def deleted_rows(self) -> int:
        """Rows that the segments hold and the generation does not: deleted or replaced ones."""
        return len(self._store.deleted)

    @property
    def kind(self) -> SearchKind:
        """By what its rows are searched."""
        return self._store.kind

    @property
    def segment_kinds(self) -> list[str]:
        """What each segment is searched by: `exact`, or a FAISS factory string."""
        return [search.kind for search in self._segment_searches()]

    @overload
    def search(  # type: ignore[overload-overlap]  # a str is a sequence of str, and one query
        self,
        queries: str,
        k: int = 10,
        *,
        min_score: float | None = None,
        filter: str | None = None,
        hybrid: bool = False,
        exact: bool = False,
        embedder: Embedder | None = None,
    ) -> list[Hit]: ...

    @overload
    def search(
        self,
        queries: Iterable[str] | FloatArray,
        k: int = 10,
        *,
        min_score: float | None = None,
        filter: str | None = None,
        hybrid: bool = False,
        exact: bool = False,
        embedder: Embedder | None = None,
    ) -> list[list[Hit]]: ...

    def search(
        self,
        queries: str | Iterable[str] | FloatArray,
        k: int = 10,
        *,
        min_score: float | None = None,
        filter: str | None = None,
        hybrid: bool = False,
        exact: bool = False,
        embedder: Embedder | None = None,
    ) -> list[Hit] | list[list[Hit]]:
        """Return the rows closest to each query, closest first; for a single string, one list.

        Args:
            queries: texts in any ordered iterable, or an array of vectors of length 1 made with the index's model.
            k: the most hits a query. As many come back as there are rows to be had.
            min_score: leave out rows of a lower score (by more than `cosine.TOLERANCE`).
            filter: an SQL condition on the rows' columns, such as `year >= 2020 and lang = 'en'` (`search.conditions`).
            hybrid: rank by meaning and by words (BM25) both, and add up the reciprocal ranks.
            exact: look at every row, where the index would look at the likely ones.
            embedder: encodes the texts; None for the model that the index names.

        A query or a row of which nothing can be read (`text.words.is_silent`) has no hit by meaning, and is none. Words that the
        model does not know are reported: it takes them all for one word. Of rows of cosine 1 those come first that are the
        query's own text, then those with its unknown words.

        Shapes:
            queries, where vectors: (queries, dim).

        Raises:
            UsageError: `k` is below 1, the queries or vectors do not fit, the filter cannot be evaluated, or a hybrid search has
                vectors as queries or a least score.
            ModelMismatchError: the model is not the one that the index was made with.
        """
        k = arguments.integer(k, "k")
        least = None if min_score is None else arguments.number(min_score, "min_score")
        if hybrid:
            check_hybrid(queries, least)
        asked = as_asked(queries, self.model.dimension)
        chosen = self.embedder if embedder is None else partial(self.check_model, embedder)
        read = read_queries(asked, self.model.dimension, chosen)
        allowed = self._allowed(filter)
        hits = (
            self._by_meaning(read, k, least, allowed, exact=exact)
            if not hybrid
            else self._hybrid(read, k, allowed, exact=exact)
        )
        return hits[0] if arguments.is_one_text(queries) else hits

    def _by_meaning(
        self, read: "Queries", k: int, least: float | None, allowed: Sequence[AnyArray | None], *, exact: bool
    ) -> list[list[Hit]]:
        """Return each query's hits by their cosines; deeper where rows that are none, or ties of unknown words, take places."""
        hits: list[list[Hit]] = [[] for _ in range(len(read.vectors))]
        waiting, depth = [i for i in range(len(hits)) if not read.is_silent(i)], k
        while waiting:
            scores, rows = self._nearest(read.vectors[waiting], depth, allowed, exact=exact)
            again = []
            for i, own_scores, own_rows in zip(waiting, scores.tolist(), rows.tolist(), strict=True):
                ranked = [
                    self._hit(row, score)
                    for row, score in zip(own_rows, own_scores, strict=True)
                    if least is None or reaches(score, least)
                ]
                hits[i] = [hit for hit in ranked if not is_silent(hit.text)]
                tied = bool(read.unknown(i)) and bool(hits[i]) and hits[i][-1].score == 1
                if len(ranked) == depth and (len(hits[i]) < k or tied):
                    again.append(i)
                else:
                    hits[i] = read.equals_first(i, hits[i])[:k]
            waiting, depth = again, 4 * depth
        return hits

    def _hybrid(self, read: "Queries", k: int, allowed: Sequence[AnyArray | None], *, exact: bool) -> list[list[Hit]]:
        depth = max(k, HYBRID_DEPTH)
        _, rows = self._nearest(read.vectors, depth, allowed, exact=exact)
        hits = []
        for i, (text, near) in enumerate(zip(read.texts, rows.tolist(), strict=True)):
            by_words = self._ranked_by_words(text, depth, allowed)
            ranked = fused([] if read.is_silent(i) else near, by_words)
            real = (hit for row, score in ranked if not is_silent((hit := self._hit(row, score)).text))
            hits.append(list(islice(real, k)))
        return hits

    def embedder(self) -> Embedder:
        """Return the model that the index names, opened once.

        Raises:
            ModelNotFoundError: it is not to be found any more.
            ModelMismatchError: under its name lies another model now.
        """
        if self._embedder is None:
            self._embedder = named_embedder(self.model, self.path, self._threads, offline=self._offline)
        return self._embedder

    def check_model(self, embedder: Embedder) -> Embedder:
        """Return the embedder if its vectors can be compared with the index's.

        Raises:
            ModelMismatchError: they cannot; the text names both models.
        """
        return check_model(embedder, self.model, self.path)

    def nearest(
        self, vectors: FloatArray, k: int, *, filter: str | None = None, exact: bool = False
    ) -> tuple[FloatArray, IntArray]:
        """Return the cosines and row numbers of the closest rows, closest first: k of them, or all that there are.

        Args:
            vectors: of length 1.
            k: rows a query.
            filter: an SQL condition that the rows must meet.
            exact: look at every row.

        Shapes:
            vectors: (queries, dim); each result: (queries, min(k, rows that meet the filter)).

        Raises:
            UsageError: `k` is below 1, the vectors are not of length 1, or the filter cannot be evaluated.
        """
        vectors, k = (
            arguments.unit_vectors(vectors, self.model.dimension, "query vectors", "queries"),
            arguments.integer(k, "k"),
        )
        return self._nearest(vectors, k, self._allowed(filter), exact=exact)

    def _nearest(
        self, vectors: FloatArray, k: int, allowed: Sequence[AnyArray | None], *, exact: bool
    ) -> tuple[FloatArray, IntArray]:
        scores, rows = [], []
        for search, mask in zip(self._segment_searches(), allowed, strict=True):
            found, positions = search.nearest(vectors, k, mask, exact=exact)
            scores.append(found)
            rows.append(search.segment.row_ids[positions])
        every, of = as_cosines(np.concatenate(scores, axis=1)), np.concatenate(rows, axis=1)
        order = np.argsort(-every, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(every, order, 1), np.take_along_axis(of, order, 1)

    def matching(self, filter: str) -> IntArray:
        """Return the numbers of the rows that meet an SQL condition, ascending.

        Raises:
            UsageError: it cannot be evaluated.
        """
        allowed = self._allowed(filter)
        return np.concatenate(
            [segment.row_ids[mask] for segment, mask in zip(self._store.segments, allowed, strict=True)]
        )

    def _allowed(self, filter: str | None) -> list[AnyArray | None]:
        """Return for each segment which of its rows count, (rows,) bool; None for all."""
        present = [self._store.present_rows(segment) for segment in self._store.segments]
        if filter is None:
            return present
        columns = [segment.columns for segment in self._store.segments]
        condition = parse(filter, self.columns)
        deadline = Deadline(self._filter_timeout_s)
        masks: list[AnyArray | None] = []
        for values, mask in zip(columns, present, strict=True):
            try:
                matched = matching(condition, values, deadline)
            except FilterValueError as error:
                raise refusal(filter, str(error), self.columns) from error
            masks.append(matched if mask is None else matched & mask)
        return masks

    def _ranked_by_words(self, query: str, depth: int, allowed: Sequence[AnyArray | None]) -> list[int]:
        """Return the numbers of the rows that share words with a query, best first."""
        segments = self._store.segments
        words = weights(query, [segment.words for segment in segments])
        found: list[tuple[float, int]] = []
        for segment, mask in zip(segments, allowed, strict=True):
            for position, score in segment.words.ranked(words, depth, mask):
                found.append((-score, int(segment.row_ids[position])))
        return [row for _, row in sorted(found)[:depth]]

    def rows(self) -> Iterator[StoredRow]:
        """Yield every row, in the order of their numbers."""
        for segment in self._store.segments:
            for position in range(segment.rows):
                if not self._store.is_deleted(int(segment.row_ids[position])):
                    yield segment.row(position)

    def row_blocks(self) -> Iterator[tuple[list[StoredRow], FloatArray]]:
        """Yield every row with its vector, (some, dim), in the order of their numbers, some thousand at a time."""
        for segment, held in zip(self._store.segments, self._allowed(None), strict=True):
            positions = None if held is None else np.flatnonzero(held)
            for chosen, vectors in segment.vector_blocks(self.model.dimension, positions):
                yield [segment.row(position) for position in chosen.tolist()], vectors

    def get(self, identity: str) -> StoredRow | None:
        """Return the row with this id, or None where there is none."""
        row = self._store.find(identity)
        if row is None:
            return None
        segment, position = self._store.locate(row)
        return segment.row(position)

    def verify(self) -> list[str]:
        """Check every stored block, the FAISS cache included, and return a line for each damaged file; none for sound."""
        damage = [line for segment in self._store.segments for line in segment.damage()]
        return damage + [line for search in self._segment_searches() if (line := search.damage()) is not None]

    def prepare(self) -> None:
        """Read what the first search would have to, and make the FAISS files that are missing."""
        for search in self._segment_searches():
            search.prepare()

    def _segment_searches(self) -> list[SegmentSearch]:
        if self._searches is None:
            threads, kind, dimension = thread_count(self._threads), self.kind, self.model.dimension
            self._searches = [
                SegmentSearch(
                    s, self._store.folder / "faiss", dimension, kind_of(kind.factory, s.rows, kind.pca), threads
                )
                for s in self._store.segments
            ]
        return self._searches

    def _hit(self, row: int, score: float) -> Hit:
        segment, position = self._store.locate(row)
        stored = segment.row(position)
        return Hit(stored.id, score, stored.text, stored.columns)


def _reopened(
    kind: type[SearchIndex],
    path: Path,
    manifest: dict[str, Any],
    deleted: IntArray,
    threads: int | None,
    offline: bool,
    filter_timeout_s: float | None,
) -> SearchIndex:
    """Return the index that a pickle or a copy stands for.

    Raises:
        CorruptIndexError: its generation was removed.
    """
    index = kind.__new__(kind)
    index._store = Store.at(path, manifest, deleted)
    index._threads, index._offline, index._filter_timeout_s = threads, offline, filter_timeout_s
    index._searches = index._embedder = None
    return index


@dataclass(frozen=True)
class Queries:
    """Queries, read.

    Attributes:
        texts: their texts; empty where they are vectors.
        vectors: their vectors, (queries, dim).
        words: what the model reads of the texts; empty where they are vectors.
        embedder: the model; None where they are vectors.
    """

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

    def equals_first(self, query: int, hits: list[Hit]) -> list[Hit]:
        """Return hits with those of cosine 1 in the order: the query's own text, its unknown words, other ones."""
        equal = [hit for hit in hits if hit.score == 1]
        if len(equal) < 2 or self.embedder is None:
            return hits
        other_words = [False] * len(equal)
        if self.unknown(query):
            found = self.embedder.words_of([hit.text for hit in equal])
            other_words = [words.unknown != self.unknown(query) for words in found]
        order = sorted(range(len(equal)), key=lambda i: (other_words[i], equal[i].text != self.texts[query]))
        return [equal[i] for i in order] + hits[len(equal) :]


def as_asked(queries: Any, dimension: int) -> list[str] | FloatArray:
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


def check_hybrid(queries: Any, min_score: float | None) -> None:
    """Raise `UsageError` for what a hybrid search cannot be asked."""
    if _are_vectors(queries) or min_score is not None:
        raise UsageError("a hybrid search takes texts, and no least score: its scores are sums of reciprocal ranks")


def read_queries(asked: list[str] | FloatArray, dimension: int, embedder: Callable[[], Embedder]) -> Queries:
    """Return queries with their vectors, and report what the model cannot read of them.

    Args:
        asked: what `as_asked` returns.
        dimension: components of a vector.
        embedder: gives the model, where there are texts.

    Raises:
        UsageError: the model gives vectors of another dimension.
    """
    if isinstance(asked, np.ndarray):
        return Queries([], asked, [], None)
    model = embedder()
    vectors, words = model.encode_queries(asked)
    if vectors.shape[1] != dimension:
        raise UsageError(f"query vectors must have the shape (queries, {dimension}); found {vectors.shape}")
    many = len(asked)
    if silent := sum(own.empty for own in words):
        log.warning("%d of %d queries hold nothing that the model reads: they have no hits by meaning", silent, many)
    if unsure := [own.unknown for own in words if own.unknown]:
        named = list(dict.fromkeys(word for unknown in unsure for word in unknown))
        shown = ", ".join(repr(word[:40]) for word in named[:_SHOWN_WORDS]) + (
            ", ..." if len(named) > _SHOWN_WORDS else ""
        )
        log.warning(
            "%d of %d queries hold words that the model does not know (%s): it takes them all for one word; a hybrid search "
            "finds them",
            *(len(unsure), many, shown),
        )
    return Queries(asked, vectors, words, model)


def named_embedder(model: ModelIdentity, path: Path | str, threads: int | None, *, offline: bool) -> Embedder:
    """Return the model that an index names.

    Raises:
        ModelNotFoundError: it is not to be found any more.
        ModelMismatchError: under its name lies another model now.
    """
    try:
        found = Embedder(model.name, graph=model.graph, threads=threads, offline=offline)  # type: ignore[arg-type]
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"{path} was made with the model {model.name!r}: {error}") from error
    return check_model(found, model, path)


def check_model(embedder: Embedder, model: ModelIdentity, path: Path | str) -> Embedder:
    """Return the embedder if its vectors can be compared with those of an index.

    Raises:
        ModelMismatchError: they cannot; the text names both models.
    """
    if embedder.fingerprint != model.fingerprint:
        raise ModelMismatchError(
            f"{path} was made with the model {model.name!r} (fingerprint {model.fingerprint[:12]}), "
            f"and {embedder.model_name!r} is another ({embedder.fingerprint[:12]}): their vectors cannot be "
            "compared. Search with the first, or make the index anew"
        )
    if embedder.dimension != model.dimension:
        raise ModelMismatchError(
            f"{path} holds vectors of {model.dimension} components, and {embedder.model_name!r} gives "
            f"{embedder.dimension} now"
        )
    return embedder


def fused(*rankings: Sequence[int]) -> list[tuple[int, float]]:
    """Return the rows of several rankings with the sum of `1 / (60 + rank)` over them, the greatest first.

    Args:
        rankings: rows, best first; a row that one of them lacks adds nothing for it.

    Source:
        Cormack, Clarke and Büttcher 2009, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods".
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, row in enumerate(ranking, start=1):
            scores[row] = scores.get(row, 0.0) + 1 / (RRF_CONSTANT + rank)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
