"""The routes of a server."""

import asyncio
import base64
from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

import numpy as np
import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router

from sbert_mini.errors import UsageError
from sbert_mini.serve import schemas
from sbert_mini.serve.embedding import EmbeddingService
from sbert_mini.serve.guard import App, Guard
from sbert_mini.serve.metrics import Metrics
from sbert_mini.serve.openapi import document
from sbert_mini.serve.problems import BadBodyError, ProblemError
from sbert_mini.serve.searching import Ask, IndexService, named
from sbert_mini.serve.settings import Settings

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_PAGE = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}


@dataclass
class Server:
    """A model and some indexes behind routes.

    Attributes:
        model: the model of /v1/embeddings.
        indexes: by name.
        settings: of the server.
    """

    model: EmbeddingService
    indexes: Mapping[str, IndexService]
    settings: Settings

    def __post_init__(self) -> None:
        limits = self.settings.limits
        self.metrics = Metrics()
        self.is_ready = True
        self._bodies = {
            "embeddings": schemas.embeddings(limits),
            "search": schemas.search(limits),
            "upsert": schemas.upsert(limits),
            "delete": schemas.delete(limits),
        }
        self._page = {
            path: (files("sbert_mini.serve") / "page" / name).read_bytes() for path, (name, _) in _PAGE.items()
        }

    def app(self) -> App:
        """Return the ASGI application."""

        @asynccontextmanager
        async def lifespan(_: Any) -> Any:
            yield
            self.is_ready = False
            self.model.queue.close()
            for index in self.indexes.values():
                index.close()

        table = (
            ("/v1/embeddings", self.embeddings, ["POST"]),
            ("/v1/models", self.models, ["GET"]),
            ("/search", self.search, ["POST"]),
            ("/indexes", self.list_indexes, ["GET"]),
            ("/indexes/{name}", self.describe, ["GET"]),
            ("/indexes/{name}/rows", self.rows, ["GET", "POST", "DELETE"]),
            ("/health", self.health, ["GET"]),
            ("/ready", self.ready, ["GET"]),
            ("/metrics", self.counts, ["GET"]),
            ("/openapi.json", self.openapi, ["GET"]),
            *((path, self.page, ["GET"]) for path in _PAGE),
        )
        routes = [Route(path, _noted(path, endpoint), methods=methods) for path, endpoint, methods in table]
        return Guard(Router(routes, lifespan=lifespan), self.settings, self.metrics)

    async def embeddings(self, request: Request) -> Response:
        """POST /v1/embeddings: OpenAI's."""
        body = await self._body(request, "embeddings")
        self._check_model(body.get("model"))
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        done = await self.model.embed(texts, body.get("dimensions"))
        self.metrics.texts.inc(len(texts))
        self.metrics.tokens.inc(done.tokens)
        self.metrics.truncated.inc(done.truncated)
        request.scope["notes"] |= {"texts": len(texts), "tokens": done.tokens}
        vectors: Any = done.vectors
        if body.get("encoding_format") == "base64":
            vectors = [base64.b64encode(np.ascontiguousarray(row, "<f4").tobytes()).decode() for row in vectors]
        answer = {
            "object": "list",
            "model": self.model.name,
            "data": [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)],
            "usage": {"prompt_tokens": done.tokens, "total_tokens": done.tokens},
            "truncated": done.truncated,
        }
        return _json(answer)

    async def models(self, request: Request) -> Response:  # noqa: ARG002
        """GET /v1/models: OpenAI's."""
        names = dict.fromkeys([self.model.name, *_short(self.model.name)])
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "sbert-mini"} for name in names]
        return _json({"object": "list", "data": data})

    async def search(self, request: Request) -> Response:
        """POST /search: as `sbmini search`."""
        body = await self._body(request, "search")
        index = named(self.indexes, body.get("index"))
        ask = _ask(body)
        results = await index.search(ask)
        self.metrics.queries.labels(index.name).inc(len(results))
        request.scope["notes"] |= {"index": index.name, "queries": len(results)}
        return _json({"index": index.name, "model": index.model_name, "results": results})

    async def list_indexes(self, request: Request) -> Response:  # noqa: ARG002
        """GET /indexes."""
        return _json({"indexes": await asyncio.gather(*(index.describe() for index in self.indexes.values()))})

    async def describe(self, request: Request) -> Response:
        """GET /indexes/NAME."""
        return _json(await named(self.indexes, request.path_params["name"]).describe())

    async def rows(self, request: Request) -> Response:
        """GET, POST and DELETE /indexes/NAME/rows."""
        index = named(self.indexes, request.path_params["name"])
        if request.method == "POST":
            return _json(await index.upsert(_flat((await self._body(request, "upsert"))["rows"])))
        if request.method == "DELETE":
            body = await self._body(request, "delete")
            if not body:
                raise ProblemError(400, "name rows to delete: ids, or a filter")
            return _json({"deleted": await index.delete(body.get("ids", ()), body.get("filter"))})
        ids = request.query_params.getlist("id")
        if not 1 <= len(ids) <= self.settings.limits.hits:
            raise ProblemError(400, f"name 1 to {self.settings.limits.hits} rows: ?id=A&id=B; found {len(ids)}", "id")
        return _json({"rows": await index.rows(ids)})

    async def health(self, request: Request) -> Response:  # noqa: ARG002
        """GET /health: the process answers."""
        return _json({"status": "ok"})

    async def ready(self, request: Request) -> Response:  # noqa: ARG002
        """GET /ready: models and indexes are open, and the server is not ending."""
        return _json({"status": "ready" if self.is_ready else "ending"}, 200 if self.is_ready else 503)

    async def counts(self, request: Request) -> Response:  # noqa: ARG002
        """GET /metrics: for Prometheus."""
        self.metrics.waiting.set(self.model.queue.waiting + sum(i.queue.waiting for i in self.indexes.values()))
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, request: Request) -> Response:  # noqa: ARG002
        """GET /openapi.json."""
        return _json(self._document)

    async def page(self, request: Request) -> Response:
        """GET / and what it needs."""
        kind = _PAGE[request.url.path][1]
        return Response(self._page[request.url.path], media_type=kind, headers={"content-security-policy": _POLICY})

    @cached_property
    def _document(self) -> dict[str, Any]:
        return document(self._bodies, with_key=self.settings.key is not None)

    def _check_model(self, name: str | None) -> None:
        if name is not None and name not in (self.model.name, *_short(self.model.name)):
            raise ProblemError(404, f"the model here is {self.model.name!r}; found {name[:200]!r}", "model")

    async def _body(self, request: Request, kind: str) -> dict[str, Any]:
        """Return a request's body, which fits its schema.

        Raises:
            ProblemError: it is too large or too slow, or the client has gone.
            BadBodyError: it is not JSON, or does not fit.
        """
        limits, parts, size = self.settings.limits, [], 0
        try:
            async with asyncio.timeout(limits.body_seconds):
                async for part in request.stream():
                    size += len(part)
                    if size > limits.body_bytes:
                        raise ProblemError(413, f"a body may have {limits.body_bytes} bytes; found more")
                    parts.append(part)
        except TimeoutError:
            raise ProblemError(408, f"the body did not arrive within {limits.body_seconds:g} s") from None
        except ClientDisconnect:
            raise ProblemError(400, "the connection ended before the body did") from None
        try:
            value = orjson.loads(b"".join(parts))
        except ValueError as error:
            raise BadBodyError(f"the body is not JSON in UTF-8: {error}") from None
        return schemas.checked(value, self._bodies[kind])


def _noted(path: str, endpoint: Any) -> Any:
    """Return an endpoint that notes which route it is."""

    async def run(request: Request) -> Response:
        request.scope["notes"]["route"] = path
        response: Response = await endpoint(request)
        return response

    return run


def _short(name: str) -> list[str]:
    """Return the last part of a model's name that is a path."""
    last = name.rstrip("/").rpartition("/")[2]
    return [last] if last and last != name else []


def _ask(body: Mapping[str, Any]) -> Ask:
    if ("query" in body) == ("like" in body):
        raise ProblemError(400, "give query, or like (the id of a row)", "query")
    queries = () if "like" in body else (body["query"],) if isinstance(body["query"], str) else tuple(body["query"])
    by = body.get("by")
    if body.get("hybrid"):
        if by not in (None, "both"):
            raise UsageError(f"hybrid is by both; found by {by!r}", "by")
        by = "both"
    options = {"by": by, **{name: body.get(name) for name in ("filter", "weight", "min_score", "exact")}}
    return Ask(
        queries,
        body.get("like"),
        body.get("k", 10),
        tuple(sorted((name, value) for name, value in options.items() if value is not None)),
        body.get("passages", False),
        body.get("with_text", True),
        body.get("excerpts", False),
    )


def _flat(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows as `Collection.upsert` takes them: `columns`, as `GET rows` gives them, stand beside id and text."""
    flat = []
    for row in rows:
        columns = row.get("columns")
        flat.append(
            {**{k: v for k, v in row.items() if k != "columns"}, **columns} if isinstance(columns, dict) else row
        )
    return flat


def _json(value: Any, status: int = 200) -> Response:
    try:
        data = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # half of a surrogate pair, which UTF-8 cannot hold and JSON can
        import json

        data = json.dumps(value).encode()
    return Response(data, status, media_type="application/json")
