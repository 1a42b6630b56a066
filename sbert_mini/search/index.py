"""Open an index and search it."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Unpack, overload

from sbert_mini.runtime import arguments
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.runtime.engine import thread_count
from sbert_mini.search.deadline import TIME_LIMIT_S
from sbert_mini.search.fusion import SearchBy
from sbert_mini.search.generation import (
    allowed_rows,
    damage_of,
    matching_rows,
    row_blocks,
    row_of,
    shown_row,
    stored_hit,
    stored_rows,
    types_of,
    vector_of,
)
from sbert_mini.search.kinds import SearchKind
from sbert_mini.search.nearest import SegmentSearch, segment_searches
from sbert_mini.search.notebook import IndexTable
from sbert_mini.search.queries import Hit, IndexModel, SearchOptions, read_request
from sbert_mini.search.ranking import default_by, hits_of, nearest_rows
from sbert_mini.search.segment import StoredRow
from sbert_mini.search.store import LongTextRule, ModelIdentity, Store
from sbert_mini.search.word_index import WordIndex
from sbert_mini.shapes import AnyArray, FloatArray, IntArray


class SearchIndex(IndexTable):
    """An index directory at one generation, opened for search. It cannot write: `search.writer.IndexWriter` does.

    Args:
        path: the directory.
        threads: for FAISS and for encoding queries; None for the usual choice.
        offline: the index's model is never fetched; where it is not there, do not advise to fetch it either.
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
        self._threads, self._offline, self._filter_timeout_s = threads, offline, filter_timeout_s
        self._searches: list[SegmentSearch] | None = None
        self._model = IndexModel(self._store.model, self._store.path, threads, offline=offline)
        self._words = _words_of(self._store, threads)

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
        return types_of(self._store)

    @property
    def segments(self) -> int:
        """How many segments the rows lie in."""
        return len(self._store.segments)

    @property
    def vectors(self) -> int:
        """How many vectors the segments hold: more than rows where long rows have passages."""
        return sum(segment.vectors for segment in self._store.segments)

    @property
    def long_texts(self) -> LongTextRule:
        """What happens to long texts that are added."""
        return self._store.long_texts

    @property
    def deleted_rows(self) -> int:
        """Rows that the segments hold and the generation does not: deleted or replaced ones."""
        return len(self._store.deleted)

    @property
    def kind(self) -> SearchKind:
        """The kind of index that was asked for."""
        return self._store.kind

    @property
    def segment_kinds(self) -> list[str]:
        """The kind of each segment: `exact`, or a FAISS factory string."""
        return [search.kind for search in self._segment_searches()]

    @overload
    def search(  # type: ignore[overload-overlap]  # a str is a sequence of str, and one query
        self, queries: str, k: int = 10, **options: Unpack[SearchOptions]
    ) -> list[Hit]: ...

    @overload
    def search(
        self, queries: Iterable[str] | FloatArray, k: int = 10, **options: Unpack[SearchOptions]
    ) -> list[list[Hit]]: ...

    def search(
        self,
        queries: str | Iterable[str] | FloatArray,
        k: int = 10,
        *,
        min_score: float | None = None,
        filter: str | None = None,
        hybrid: bool = False,
        by: SearchBy | None = None,
        weight: float | None = None,
        exact: bool = False,
        embedder: Embedder | None = None,
    ) -> list[Hit] | list[list[Hit]]:
        """Return the rows closest to each query, closest first; for a single string, one list.

        Args:
            queries: texts in any ordered iterable, or an array of vectors of length 1 made with the index's model.
            k: the most hits a query: rows, each with its closest passage. Fewer come back if fewer rows match.
            min_score: leave out rows of a lower cosine (by more than `cosine.TOLERANCE`), whatever ranks the rows.
            filter: an SQL condition on the rows' columns, such as `year >= 2020 and lang = 'en'` (`search.conditions`).
            hybrid: the same as `by="both"`.
            by: rank the rows by `meaning` (cosine), by `words` (BM25) or by `both` (`search.fusion`). None for `both`; for
                `meaning` where the queries are vectors, or many rows have no index of words yet (`ranking.default_by`).
            weight: the share of meaning in a search by both, in [0, 1]; None for `search.fusion.DEFAULT_WEIGHT`. Given without
                `by`, it asks for a search by both.
            exact: look at every row, where the index would look at the likely ones.
            embedder: encodes the texts; None for the model that the index names.

        A query or a row of which nothing can be read (`text.words.is_silent`) has no hit by meaning, and is none. Words that the
        model does not know are reported: it takes them all for one word. Of rows of cosine 1 those come first that are the
        query's own text, then those with its unknown words.

        Shapes:
            queries, where vectors: (queries, dim).

        Raises:
            UsageError: `k` is below 1, the queries or vectors do not fit, the filter cannot be evaluated, or vectors are to be
                searched by words.
            ModelMismatchError: the model is not the one that the index was made with.
        """
        request = read_request(
            *(queries, k, self._model),
            min_score=min_score,
            hybrid=hybrid,
            by=by,
            weight=weight,
            embedder=embedder,
            default_by=partial(default_by, self._words),
        )
        searches, hit_of = self._segment_searches(), partial(stored_hit, self._store)
        allowed, threads = self._allowed(filter), thread_count(self._threads)
        hits = hits_of(request, searches, self._words, allowed, hit_of, exact=exact, threads=threads)
        return request.answer(hits)

    def embedder(self) -> Embedder:
        """Return the model that the index names, opened once.

        Raises:
            ModelNotFoundError: it does not exist any more.
            ModelMismatchError: its name stands for another model now.
        """
        return self._model.embedder()

    def check_model(self, embedder: Embedder) -> Embedder:
        """Return the embedder if its vectors can be compared with the index's.

        Raises:
            ModelMismatchError: they cannot; the text names both models.
        """
        return self._model.check(embedder)

    def nearest(
        self, vectors: FloatArray, k: int, *, filter: str | None = None, exact: bool = False
    ) -> tuple[FloatArray, IntArray]:
        """Return the cosines and row numbers of the k closest rows, closest first; all rows if there are fewer than k.

        A row stands once, with the cosine of its closest passage.

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
        vectors = arguments.unit_vectors(vectors, self.model.dimension, "query vectors", "queries")
        k = arguments.integer(k, "k")
        return nearest_rows(self._segment_searches(), vectors, k, self._allowed(filter), exact=exact)

    def matching(self, filter: str) -> IntArray:
        """Return the numbers of the rows that meet an SQL condition, ascending.

        Raises:
            UsageError: it cannot be evaluated.
        """
        return matching_rows(self._store, filter, self._filter_timeout_s, thread_count(self._threads))

    def _allowed(self, filter: str | None) -> list[AnyArray | None]:
        """Return for each segment which of its rows count, (rows,) bool; None for all."""
        return allowed_rows(self._store, filter, self._filter_timeout_s, thread_count(self._threads))

    def rows(self) -> Iterator[StoredRow]:
        """Yield every row, in the order of their numbers, with typed columns (`columns.shown_columns`)."""
        return (shown_row(self._store, row) for row in stored_rows(self._store))

    def row_blocks(self) -> Iterator[tuple[list[StoredRow], FloatArray]]:
        """Yield every row with its vector, (some, dim), in the order of their numbers, some thousand at a time.

        The vector of a row with several passages is their mean (`Passages.averaged`).
        """
        for rows, vectors in row_blocks(self._store):
            yield [shown_row(self._store, row) for row in rows], vectors

    def get(self, identity: str) -> StoredRow | None:
        """Return the row with this id, or None where there is none."""
        return None if (row := row_of(self._store, identity)) is None else shown_row(self._store, row)

    def vector(self, identity: str) -> FloatArray | None:
        """Return the vector of the row with this id, (dim,), the mean of its passages; None where there is none."""
        return vector_of(self._store, identity)

    def verify(self) -> list[str]:
        """Check every stored block, the caches included, and return a line for each damaged file; none for sound."""
        return damage_of(self._store, self._segment_searches(), self._words)

    def prepare(self) -> None:
        """Read what the first search would have to, and make the FAISS files that are missing."""
        for search in self._segment_searches():
            search.prepare()

    def _segment_searches(self) -> list[SegmentSearch]:
        if self._searches is None:
            self._searches = segment_searches(self._store, thread_count(self._threads))
        return self._searches


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
    index._searches = None
    index._model = IndexModel(index._store.model, path, threads, offline=offline)
    index._words = _words_of(index._store, threads)
    return index


def _words_of(store: Store, threads: int | None) -> WordIndex:
    """Return the words of a generation, which no writer removes from now on."""
    return WordIndex(store.folder, store.generation, store.segments, store.deleted, thread_count(threads))
