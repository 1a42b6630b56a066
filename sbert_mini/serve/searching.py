"""The indexes of a server: queries of requests -> hits as JSON, rows, and changes through the durable writer."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sbert_mini.documents.places import hit_fields
from sbert_mini.errors import IndexNotFoundError, InputError, SbertMiniError, UsageError
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.search.collection import Collection
from sbert_mini.search.excerpts import QueryWords, excerpts
from sbert_mini.search.index import SearchIndex
from sbert_mini.search.queries import Hit
from sbert_mini.search.segment import StoredRow
from sbert_mini.search.similar import similar_rows
from sbert_mini.serve.batching import Batcher
from sbert_mini.serve.problems import ProblemError
from sbert_mini.serve.settings import Settings
from sbert_mini.shapes import FloatArray

TOGETHER = 64
"""Queries of one call."""


@dataclass(frozen=True)
class Ask:
    """What a request asks of an index.

    Attributes:
        queries: texts; empty where `like` is given.
        like: the id of a row, whose vector is the query.
        k: hits a query.
        options: further arguments of `SearchIndex.search`, sorted.
        passages: give the closest passage of a row in place of its text.
        with_text: give texts and columns.
        excerpts: say which sentences are closest, and where the query's words stand.
    """

    queries: tuple[str, ...]
    like: str | None = None
    k: int = 10
    options: tuple[tuple[str, Any], ...] = ()
    passages: bool = False
    with_text: bool = True
    excerpts: bool = False


@dataclass
class IndexService:
    """An index, and the queue before it.

    Attributes:
        name: in requests.
        path: its directory.
        settings: of the server.
        model: the server's model, which is used where the index was made with it.
        threads: see `Embedder`.
        offline: see `SearchIndex`.
        is_writable: whether requests may change it.
        model_name: of the model that the index was made with, when it was last searched.
    """

    name: str
    path: Path
    settings: Settings
    model: Embedder | None = None
    threads: int | None = None
    offline: bool = False
    is_writable: bool = False
    model_name: str = field(init=False)
    queue: "Batcher[Ask, list[dict[str, Any]]]" = field(init=False)
    _reader: Collection = field(init=False)
    _pool: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self.queue = Batcher(
            self._compute,
            size=lambda ask: max(len(ask.queries), 1),
            together=TOGETHER,
            waiting=self.settings.limits.waiting,
            name="sbmini-search",
        )
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sbmini-write")
        identity = SearchIndex(self.path).model
        self.model_name = identity.name
        same = self.model is not None and self.model.fingerprint == identity.fingerprint
        shared = self.model if same else None
        seconds = self.settings.limits.filter_seconds
        self._reader = Collection(
            self.path, shared, threads=self.threads, offline=self.offline, filter_timeout_s=seconds
        )
        self._reader.index().prepare()
        self._reader.query("words", 1)  # opens the model, and the words

    async def search(self, ask: Ask) -> list[dict[str, Any]]:
        """Return for each query its text and its hits, as JSON holds them."""
        return await self.queue.submit(ask)

    async def describe(self) -> dict[str, Any]:
        """Return what the index holds now."""
        return await self._in_turn(self._description)

    async def rows(self, ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """Return the rows with some ids, in their order; None for an id that there is not."""
        return await self._in_turn(lambda: [None if row is None else row_fields(row) for row in self._reader.get(ids)])

    async def upsert(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Add or replace rows, and return what was done.

        Raises:
            ProblemError: the index is not for writing.
            IndexLockedError: another process is writing.
            InputError: a row cannot be stored; nothing is changed then.
        """
        self._check_writable()
        embedder = await self._in_turn(lambda: self._reader.index().embedder())

        def write() -> dict[str, int]:
            counts = self._writer(embedder).upsert(rows)
            return {"written": counts.rows, "replaced": counts.replaced, "unchanged": counts.unchanged}

        return await asyncio.get_running_loop().run_in_executor(self._pool, write)

    async def delete(self, ids: Sequence[str], filter: str | None) -> int:
        """Delete rows by ids or a condition, and return how many there were; the errors are those of `upsert`."""
        self._check_writable()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: self._writer().delete(ids, filter=filter))

    def close(self) -> None:
        """End the threads, after the calls that they are in."""
        self.queue.close()
        self._pool.shutdown(wait=True)

    def _check_writable(self) -> None:
        if not self.is_writable:
            raise ProblemError(403, f"the index {self.name!r} is not for writing here: --allow-writes {self.name}")

    def _writer(self, embedder: Embedder | None = None) -> Collection:
        return Collection(self.path, embedder, threads=self.threads, offline=self.offline)

    async def _in_turn(self, call: Any) -> Any:
        """Return what a call gives that reads the index, made between searches."""
        return await asyncio.get_running_loop().run_in_executor(self.queue.pool, call)

    def _description(self) -> dict[str, Any]:
        index = self._reader.index()
        return {
            "name": self.name,
            "rows": len(index),
            "generation": index.generation,
            "created": index.created,
            "model": index.model.name,
            "dimension": index.model.dimension,
            "columns": index.columns,
            "writable": self.is_writable,
        }

    def _compute(self, asks: Sequence[Ask]) -> list[list[dict[str, Any]] | BaseException]:
        """Return the answer to each ask; those with the same options are one search."""
        results: list[list[dict[str, Any]] | BaseException | None] = [None] * len(asks)
        groups: dict[Any, list[int]] = {}
        for number, ask in enumerate(asks):
            groups.setdefault((ask.like, ask.k, ask.options), []).append(number)
        for numbers in groups.values():
            try:
                found = self._found([asks[number] for number in numbers])
            except SbertMiniError as error:
                for number in numbers:
                    results[number] = error
                continue
            for number, answer in zip(numbers, found, strict=True):
                results[number] = answer
        return [result for result in results if result is not None]

    def _found(self, asks: Sequence[Ask]) -> list[list[dict[str, Any]]]:
        options = dict(asks[0].options)
        self.model_name = self._reader.index().model.name  # another program may have migrated the index
        if asks[0].like is not None:
            return [[self._like(ask, options)] for ask in asks]
        queries = [query for ask in asks for query in ask.queries]
        hits = iter(self._reader.query(queries, asks[0].k, **options))
        return [[self._answer(ask, query, next(hits)) for query in ask.queries] for ask in asks]

    def _like(self, ask: Ask, options: Mapping[str, Any]) -> dict[str, Any]:
        if options.get("by", "meaning") != "meaning":
            raise UsageError("like compares by meaning: leave by, hybrid and weight out", "by")
        identity = str(ask.like)
        try:
            others, vector = similar_rows(self._reader.index(), identity, ask.k, **{**options, "by": "meaning"})
        except InputError:
            raise ProblemError(404, f"the index {self.name!r} has no row {identity[:200]!r}", "like") from None
        return self._answer(ask, identity, others, vector)

    def _answer(self, ask: Ask, query: str, hits: Sequence[Hit], vector: FloatArray | None = None) -> dict[str, Any]:
        shown = {"with_text": ask.with_text, "passages": ask.passages}
        fields = [hit_fields(rank, hit, **shown) for rank, hit in enumerate(hits, start=1)]
        if ask.excerpts and hits and ask.with_text:
            embedder = self._reader.index().embedder()
            of_query = embedder.encode_query(query) if vector is None else vector
            words = QueryWords(query if vector is None else "")
            by_words = words if dict(ask.options).get("by") == "words" else None
            for field_, hit, excerpt in zip(fields, hits, excerpts(hits, of_query, embedder, by_words), strict=True):
                field_["excerpt"] = {
                    "sentences": excerpt.sentences,
                    "closest": excerpt.closest,
                    "words": [(hit.start + a, hit.start + b) for a, b in words.spans(hit.passage)],
                }
        return {"query": query, "hits": fields}


def row_fields(row: StoredRow) -> dict[str, Any]:
    """Return a row as JSON holds it."""
    return {"id": row.id, "text": row.text, "columns": dict(row.columns)}


def named(services: Mapping[str, IndexService], name: str | None) -> IndexService:
    """Return an index by its name; None for the only one there is.

    Raises:
        ProblemError: there is none of this name, or none is named and there are several.
        IndexNotFoundError: the server has no index.
    """
    if not services:
        raise IndexNotFoundError("this server has no index")
    if name is None:
        if len(services) > 1:
            raise ProblemError(400, f"name an index: {', '.join(services)}", "index")
        return next(iter(services.values()))
    if name not in services:
        raise ProblemError(404, f"there is no index {name[:200]!r}; there are: {', '.join(services)}", "index")
    return services[name]
