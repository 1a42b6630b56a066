"""An index in Milvus: pushed there from an index directory, and searched with the same options and results.

A collection has the fields `id` (VARCHAR, the primary key), `text`, `columns` (JSON as text, as they come back), `keys` (JSON, as
filters compare them), `vector` (cosine) and `words` (Milvus's BM25 of `text`). What it was made with, the model's fingerprint
above all, stands in one row of a second collection, `<name>_sbmini`.

Milvus does what an index directory cannot: shards and replicas on many machines, and many writers. What is tested here is this
adapter against milvus-lite, a server of one process that speaks the same protocol: not Milvus's sharding, replication or load.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar, Unpack, overload

import numpy as np

from sbert_mini.cosine import as_cosines
from sbert_mini.errors import (
    IndexNotFoundError,
    InputError,
    MissingExtraError,
    ModelMismatchError,
    RemoteIndexError,
    UsageError,
)
from sbert_mini.runtime import arguments
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.scale.address import Address
from sbert_mini.scale.conditions import keys, to_milvus
from sbert_mini.search.fusion import RankedRow, SearchBy
from sbert_mini.search.index import SearchIndex
from sbert_mini.search.queries import Hit, IndexModel, SearchOptions, read_request
from sbert_mini.search.ranking import Ranking, hits_by_words, hybrid_hits
from sbert_mini.search.segment import StoredRow
from sbert_mini.search.store import ModelIdentity
from sbert_mini.shapes import FloatArray
from sbert_mini.text.words import is_silent

BATCH_ROWS = 1000
MAX_BYTES = 65_535
"""Of a text or of a row's columns: Milvus's limit of a VARCHAR."""
MAX_HITS = 16_384
SHARE_REACHED = 0.4
"""The share of the greatest BM25 score possible that the best row of a query reaches, about."""
HNSW, LEAST_EF = {"M": 32, "efConstruction": 200}, 64
ATTEMPTS, FIRST_PAUSE_S = 6, 0.5
TOKEN = "SBMINI_MILVUS_TOKEN"  # noqa: S105  # the name of a variable
_FIELDS = ["id", "text", "columns"]
_UNAVAILABLE = {2, 14}

T = TypeVar("T")
log = logging.getLogger("sbert_mini")


@dataclass
class PushCounts:
    """Counts of a push.

    Attributes:
        rows: rows of the collection afterwards, as the server counts them.
        sent: rows that were sent.
        removed: rows that the collection held and the index does not.
    """

    rows: int = 0
    sent: int = 0
    removed: int = 0


class _Server:
    """A connection that reconnects, with growing pauses, when the server does not answer."""

    def __init__(self, address: Address) -> None:
        try:
            import pymilvus  # type: ignore[import-untyped]
        except ModuleNotFoundError as error:
            raise MissingExtraError("using Milvus", "pymilvus", "milvus") from error
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it prints the traceback of what it raises
        self.pymilvus = pymilvus
        self._address = address
        self._client: Any = None

    def call(self, what: Callable[[Any], T]) -> T:
        """Return what a call of the client gives.

        Raises:
            RemoteIndexError: the server refuses it, or is not there after all attempts.
        """
        import grpc  # type: ignore[import-untyped]

        for attempt in range(ATTEMPTS):
            try:
                if self._client is None:
                    token = os.environ.get(TOKEN, "")
                    self._client = self.pymilvus.MilvusClient(uri=self._address.uri, token=token, timeout=30)
                return what(self._client)
            except (self.pymilvus.MilvusException, grpc.RpcError, ConnectionError, ValueError) as error:
                away = isinstance(error, (grpc.RpcError, ConnectionError)) or getattr(error, "code", 0) in _UNAVAILABLE
                away = away or "closed channel" in str(error)
                if isinstance(error, ValueError) and not away:
                    raise
                if not away or attempt == ATTEMPTS - 1:
                    reason = getattr(error, "message", None) or str(error)
                    what_happened = f"does not answer, {ATTEMPTS} times: is it running?" if away else "refuses:"
                    raise RemoteIndexError(
                        f"the Milvus server {self._address.uri} {what_happened} {' '.join(str(reason).split())[:300]}"
                    ) from error
                self.close()
                pause_s = FIRST_PAUSE_S * 2**attempt
                log.warning("%s does not answer; trying again in %.1f s", self._address.uri, pause_s)
                time.sleep(pause_s)
        raise AssertionError

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._client is not None:
            try:
                self._client.close()
            finally:
                self._client = None


def push(
    index: SearchIndex,
    address: str,
    *,
    batch_rows: int = BATCH_ROWS,
    on_progress: Callable[[int, int], None] | None = None,
) -> PushCounts:
    """Synchronise a collection with an index, and return the counts: send all rows, delete rows that the index does not have.

    Rows are upserted by their ids, so a repeated push completes an interrupted one, without duplicates. At the end the server's
    count must equal the index's. A row has one vector in Milvus: that of several passages is their mean (`Passages.averaged`).

    Args:
        index: an index directory, opened.
        address: `milvus://HOST[:PORT]/COLLECTION`; the collection is created if it does not exist.
        batch_rows: rows a request.
        on_progress: called with the rows sent so far and the number of all rows.

    Raises:
        InputError: a row is larger than Milvus accepts; nothing is sent then.
        ModelMismatchError: the collection was made with another model.
        RemoteIndexError: the server does not answer, refuses, or its count differs from the index's at the end.
        MissingExtraError: pymilvus is not installed.
    """
    collection = Address.parse(address)
    server = _Server(collection)
    types = index.columns
    if index.vectors > len(index) + index.deleted_rows:
        log.warning("Milvus gets one vector a row: those of rows with several passages are averaged")
    for row in index.rows():
        if max(len(row.id.encode()), len(row.text.encode()), len(_json(row).encode())) > MAX_BYTES:
            raise InputError(
                f"the row {row.id!r} is larger than the {MAX_BYTES} bytes that Milvus takes; nothing was sent"
            )
    try:
        about = {"model": asdict(index.model), "columns": [{"name": n, "type": t} for n, t in types.items()]}
        _make(server, collection, index.model, about)
        counts, sent = PushCounts(), set[str]()
        for rows, vectors in _batches(index, batch_rows):
            data = [
                {"id": r.id, "text": r.text, "columns": _json(r), "keys": keys(r.columns, types), "vector": v.tolist()}
                for r, v in zip(rows, vectors, strict=True)
            ]
            server.call(lambda client, data=data: client.upsert(collection.name, data))  # type: ignore[misc]
            sent.update(row.id for row in rows)
            counts.sent += len(rows)
            if on_progress is not None:
                on_progress(counts.sent, len(index))
        gone = [identity for identity in _ids(server, collection) if identity not in sent]
        for start in range(0, len(gone), batch_rows):
            chunk = gone[start : start + batch_rows]
            server.call(lambda client, chunk=chunk: client.delete(collection.name, ids=chunk))  # type: ignore[misc]
        counts.removed = len(gone)
        server.call(lambda client: client.flush(collection.name))
        counts.rows = _count(server, collection)
        if counts.rows != len(index):
            raise RemoteIndexError(
                f"{address} counts {counts.rows} rows after the push, and the index holds {len(index)}: push again"
            )
        return counts
    finally:
        server.close()


def _json(row: StoredRow) -> str:
    return json.dumps(dict(row.columns), ensure_ascii=False)


def _batches(index: SearchIndex, rows: int) -> Iterator[tuple[list[StoredRow], FloatArray]]:
    for block, vectors in index.row_blocks():
        for start in range(0, len(block), rows):
            yield block[start : start + rows], vectors[start : start + rows]


def _about_name(address: Address) -> str:
    return f"{address.name}_sbmini"


def _make(server: _Server, address: Address, model: ModelIdentity, about: dict[str, Any]) -> None:
    """Make the collection if there is none, and say what it was made with."""
    m, name = server.pymilvus, _about_name(address)
    known = _read_about(server, address)
    if known is not None and known["model"]["fingerprint"] != model.fingerprint:
        raise ModelMismatchError(
            f"the collection {address.name} was made with the model {known['model']['name']!r}, and the index with {model.name!r}"
        )
    if known is None and server.call(lambda client: client.has_collection(address.name)):
        raise UsageError(f"the collection {address.name} at {address.uri} was made by something else; name another one")
    if not server.call(lambda client: client.has_collection(name)):
        schema = m.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", m.DataType.VARCHAR, is_primary=True, max_length=64)
        schema.add_field("about", m.DataType.VARCHAR, max_length=MAX_BYTES)
        schema.add_field("vector", m.DataType.FLOAT_VECTOR, dim=2)  # a collection must have one
        _create(server, name, schema, {"vector": ("AUTOINDEX", "COSINE")})
    row = {"id": "about", "about": json.dumps(about), "vector": [1.0, 0.0]}
    server.call(lambda client: client.upsert(name, [row]))
    server.call(lambda client: client.flush(name))
    if not server.call(lambda client: client.has_collection(address.name)):
        schema = m.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", m.DataType.VARCHAR, is_primary=True, max_length=MAX_BYTES)
        schema.add_field("text", m.DataType.VARCHAR, max_length=MAX_BYTES, enable_analyzer=True)
        schema.add_field("columns", m.DataType.VARCHAR, max_length=MAX_BYTES)
        schema.add_field("keys", m.DataType.JSON)
        schema.add_field("vector", m.DataType.FLOAT_VECTOR, dim=model.dimension)
        schema.add_field("words", m.DataType.SPARSE_FLOAT_VECTOR)
        function = m.Function(
            name="bm25", input_field_names=["text"], output_field_names=["words"], function_type=m.FunctionType.BM25
        )
        schema.add_function(function)
        kinds = {"vector": ("HNSW", "COSINE"), "words": ("SPARSE_INVERTED_INDEX", "BM25")}
        _create(server, address.name, schema, kinds)


def _create(server: _Server, name: str, schema: Any, kinds: dict[str, tuple[str, str]]) -> None:
    parameters = server.pymilvus.MilvusClient.prepare_index_params()
    for field, (kind, metric) in kinds.items():
        parameters.add_index(field, index_type=kind, metric_type=metric, params=HNSW if kind == "HNSW" else {})
    server.call(lambda client: client.create_collection(name, schema=schema, index_params=parameters))


def _read_about(server: _Server, address: Address) -> dict[str, Any] | None:
    name = _about_name(address)
    if not server.call(lambda client: client.has_collection(name)):
        return None
    server.call(lambda client: client.load_collection(name))
    rows = server.call(lambda client: client.query(name, filter='id == "about"', output_fields=["about"]))
    return dict(json.loads(rows[0]["about"])) if rows else None


def _count(server: _Server, address: Address) -> int:
    server.call(lambda client: client.load_collection(address.name))
    rows = server.call(
        lambda client: client.query(address.name, filter="", output_fields=["count(*)"], consistency_level="Strong")
    )
    return int(rows[0]["count(*)"])


def _ids(server: _Server, address: Address) -> list[str]:
    def every(client: Any) -> list[str]:
        client.load_collection(address.name)
        iterator = client.query_iterator(
            address.name, filter="", output_fields=["id"], batch_size=BATCH_ROWS, consistency_level="Strong"
        )
        ids: list[str] = []
        try:
            while batch := iterator.next():
                ids += [row["id"] for row in batch]
        finally:
            iterator.close()
        return ids

    return server.call(every)


def _by_cosine(k: int) -> dict[str, Any]:
    """Return the parameters of a search for k rows: HNSW must look at more than that to find most of them."""
    return {"metric_type": "COSINE", "params": {"ef": max(2 * k, LEAST_EF)}}


class _Rows:
    """The rows that the searches of one call return, numbered in the order in which they come.

    Attributes:
        entities: a row's fields, by its number.
    """

    def __init__(self) -> None:
        self.entities: list[dict[str, Any]] = []
        self._numbers: dict[str, int] = {}

    def ranked(self, result: Any) -> list[tuple[int, float]]:
        """Return a result's rows with what Milvus ranks them by, best first."""
        rows = []
        for entry in result:
            number = self._numbers.setdefault(entry["entity"]["id"], len(self.entities))
            if number == len(self.entities):
                self.entities.append({})
            self.entities[number] |= entry["entity"]
            rows.append((number, float(entry["distance"])))
        return rows

    def cosines(self, vector: FloatArray, rows: Iterable[int]) -> dict[int, float]:
        """Return the cosines of some rows' vectors and a query's, by the rows' numbers."""
        return {row: float(as_cosines(np.float32(self.entities[row]["vector"]) @ vector)) for row in rows}

    def hit(self, ranked: RankedRow, _: FloatArray) -> Hit:
        """Return the hit of a row of a ranking: its passage is its whole text."""
        entity = self.entities[ranked.row]
        text, columns = entity["text"], json.loads(entity["columns"])
        scores = {name: value for name, value in vars(ranked).items() if name not in ("row", "score")}
        return Hit(entity["id"], ranked.score, text, columns, 0, len(text), **scores)


class MilvusIndex:
    """A collection that `push` made, opened for search.

    Args:
        address: `milvus://HOST[:PORT]/COLLECTION`.
        threads: for encoding queries; None for the usual choice.
        offline: open no other socket when the collection's model is looked for.

    Raises:
        IndexNotFoundError: there is no such collection.
        RemoteIndexError: the server does not answer.
    """

    def __init__(self, address: str, *, threads: int | None = None, offline: bool = False) -> None:
        self.address = address
        self._collection = Address.parse(address)
        self._server = _Server(self._collection)
        about = _read_about(self._server, self._collection)
        if about is None:
            raise IndexNotFoundError(f"{address} does not exist: make it with 'sbmini index push INDEX {address}'")
        known = {f.name for f in fields(ModelIdentity)}
        self.model = ModelIdentity(**{key: value for key, value in about["model"].items() if key in known})
        self._model = IndexModel(self.model, address, threads, offline=offline)
        self._columns: list[Any] = about["columns"]
        self._server.call(lambda client: client.load_collection(self._collection.name))

    def __len__(self) -> int:
        return _count(self._server, self._collection)

    def __repr__(self) -> str:
        return f"MilvusIndex({self.address!r}, model={self.model.name!r}, dimension={self.model.dimension})"

    @property
    def columns(self) -> dict[str, str | None]:
        """The rows' columns with their types: see `SearchIndex.columns`.

        Raises:
            UsageError: an earlier version, which did not keep types, pushed the rows.
        """
        if any(isinstance(entry, str) for entry in self._columns):
            raise UsageError(f"{self.address} was pushed by an earlier version: push the index again to filter it")
        return {entry["name"]: entry["type"] for entry in self._columns}

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    def embedder(self) -> Embedder:
        """Return the model that the collection names, opened once."""
        return self._model.embedder()

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
        """Return the rows closest to each query: `SearchIndex.search`, by Milvus.

        Words are split and weighed by Milvus, so that the order by words may differ from an index directory's. It does not tell
        how many rows hold a word. So a search by both estimates the greatest BM25 score from the best row's (`SHARE_REACHED`),
        and the default is a search by meaning.

        Raises:
            UsageError: as `SearchIndex.search`; `exact` is set; or `k` is above Milvus's limit of 16,384.
            RemoteIndexError: the server does not answer, or refuses.
        """
        if exact:
            raise UsageError("Milvus cannot be asked to search exactly: its index decides how it searches")
        if arguments.integer(k, "k") > MAX_HITS:
            raise UsageError(f"k must be from 1 to {MAX_HITS} in Milvus; found {k}")
        request = read_request(
            *(queries, k, self._model),
            min_score=min_score,
            hybrid=hybrid,
            by=by,
            weight=weight,
            embedder=embedder,
            default_by=lambda: "meaning",
        )
        greatest: dict[str, float] = {}
        rows, expression = _Rows(), "" if filter is None else to_milvus(filter, self.columns)

        def by_meaning(vectors: FloatArray, depth: int) -> list[Ranking]:
            results = self._results("vector", vectors.tolist(), depth, expression) if len(vectors) else []
            ranked = [rows.ranked(result) for result in results]
            return [[(row, float(as_cosines(np.asarray(cosine)))) for row, cosine in of_query] for of_query in ranked]

        def by_words(text: str, depth: int) -> Ranking:
            ranked = rows.ranked(self._results("words", [text], depth, expression)[0])
            scores = [(row, abs(score)) for row, score in ranked]  # milvus-lite gives BM25 scores with a minus sign
            greatest[text] = max((score for _, score in scores), default=0.0) / SHARE_REACHED
            return scores

        def bm25_of(text: str, numbers: Iterable[int]) -> dict[int, float]:
            ids = [rows.entities[number]["id"] for number in numbers]
            among = f"id in {json.dumps(ids, ensure_ascii=False)}"
            ranked = rows.ranked(self._results("words", [text], len(ids), among)[0]) if ids else []
            return {row: abs(score) for row, score in ranked}

        if request.by == "words":
            return request.answer(hits_by_words(request, by_words, rows.cosines, rows.hit))
        if request.by == "both":

            def rankings(depth: int) -> Iterator[tuple[Ranking, Ranking]]:
                for near, text in zip(by_meaning(request.vectors, depth), request.texts, strict=True):
                    yield near, by_words(text, depth)

            hits_of_queries = hybrid_hits(request, rankings, rows.cosines, bm25_of, greatest.__getitem__, rows.hit)
            return request.answer(hits_of_queries)
        hits = []
        for query, ranked in enumerate(by_meaning(request.vectors, request.k)):
            vector = request.vectors[query]
            near = [
                rows.hit(RankedRow(row, cosine, cosine), vector) for row, cosine in ranked if request.accepts(cosine)
            ]
            readable = [] if request.is_silent(query) else [hit for hit in near if not is_silent(hit.text)]
            ordered = request.equals_first(query, readable)
            hits.append([replace(hit, rank_by_meaning=rank) for rank, hit in enumerate(ordered, start=1)])
        return request.answer(hits)

    def _results(self, field: str, data: list[Any], limit: int, expression: str) -> Any:
        """Return what Milvus returns for some queries: of a search by words with the rows' vectors."""
        limit = min(limit, MAX_HITS)
        by_words = field == "words"
        return self._server.call(
            lambda client: client.search(
                self._collection.name,
                data=data,
                anns_field=field,
                limit=limit,
                filter=expression,
                output_fields=[*_FIELDS, "vector"] if by_words else _FIELDS,
                search_params={"metric_type": "BM25"} if by_words else _by_cosine(limit),
                consistency_level="Strong",
            )
        )
