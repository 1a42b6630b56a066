"""Hostile requests to a server: an answer of 2xx or 4xx, never 5xx; the server answers afterwards as before."""

import asyncio
import copy
import json
import random
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.hostile import filters, kinds
from tests.native import messages

_EACH = 12
"""Requests of one case, all to the same server."""
_BODIES: dict[str, list[dict[str, Any]]] = {
    "/v1/embeddings": [
        {"input": ["the cat", "a dog"], "model": "model", "encoding_format": "base64", "dimensions": 7},
        {"input": "the cat " * 40, "user": "u"},
    ],
    "/search": [
        {"query": ["the cat", "red house"], "k": 3, "by": "both", "weight": 0.5, "excerpts": True, "passages": True},
        {"like": "r11", "k": 4, "index": "x", "filter": "n > 3"},
        {"query": "dog", "hybrid": True, "min_score": 0.1, "exact": True, "with_text": False},
    ],
    "/indexes/x/rows": [
        {
            "rows": [
                {"id": "r1", "text": "the cat", "n": 3, "b": True},
                {"id": "new", "text": "a dog", "columns": {"n": 1}},
            ]
        },
        {"ids": ["r5", "r6"]},
        {"filter": "n between 5 and 9"},
    ],
}
_PATHS = [
    *(
        "/",
        "/indexes",
        "/indexes/x",
        "/indexes/x/rows?id=r1&id=r2",
        "/v1/models",
        "/metrics",
        "/openapi.json",
        "/ready",
    ),
    *(
        "/indexes/../../etc/passwd",
        "/indexes/%2e%2e%2fx/rows?id=%00",
        "/page.js/../x",
        "//",
        "/indexes/x/rows?id=" + "a" * 9000,
    ),
    *("/indexes/x/rows?id=%ff%fe", "/indexes/x/rows?" + "id=r1&" * 1100, "/v1/embeddings/", "/search\x00", "/\u202e"),
]
_ODD_HEADERS = [
    (b"host", b"evil.example"),
    (b"host", b"127.0.0.1:99999999999"),
    (b"host", b"[::1"),
    (b"origin", b"http://evil.example"),
    (b"origin", b"null"),
    (b"authorization", b"Bearer \xff\x00"),
    (b"content-type", b"text/plain"),
    (b"content-type", b"application/json; charset=utf-16"),
    (b"content-length", b"9" * 4000),
    (b"content-length", b"-1"),
    (b"content-encoding", b"gzip"),
    (b"x" * 3000, b"y" * 30_000),
]


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    parts: tuple[bytes, ...]
    """The body as it arrives; without the last part where the client hangs up."""
    is_whole: bool


def request_case(bases: Path, folder: Path, rng: random.Random) -> kinds.Case:
    """Send requests, of which most are damaged, to a server with an index that may be written."""
    shutil.copytree(bases / f"index{rng.choice((0, 1, 4))}", folder / "x.index")
    shutil.copytree(bases / "model", folder / "model")
    asked = tuple(_request(rng) for _ in range(_EACH))
    how = "; ".join(f"{r.method} {r.path[:40]} {b''.join(r.parts)[:60]!r}" for r in asked)
    return kinds.Case(how, partial(_use_server, asked=asked))


def _request(rng: random.Random) -> _Request:
    path = rng.choice(list(_BODIES)) if rng.random() < 0.85 else rng.choice(_PATHS)
    method = "POST" if path in _BODIES else "GET"
    if path == "/indexes/x/rows" and rng.random() < 0.5:
        method = "DELETE"
    if rng.random() < 0.05:
        method = rng.choice(("GET", "PUT", "OPTIONS", "HEAD", "TRACE", "\u202e", "POST"))
    headers = {b"host": b"127.0.0.1", b"content-type": b"application/json"}
    if rng.random() < 0.1:
        headers |= [rng.choice(_ODD_HEADERS)]
    data = _body(path, rng) if path in _BODIES or rng.random() < 0.1 else b""
    cut = sorted(rng.randint(0, len(data)) for _ in range(rng.choice((0, 0, 1, 3))))
    parts = tuple(data[a:b] for a, b in zip([0, *cut], [*cut, len(data)], strict=True))
    return _Request(method, path, tuple(headers.items()), parts, rng.random() < 0.97)


def _body(path: str, rng: random.Random) -> bytes:
    body = copy.deepcopy(rng.choice(_BODIES.get(path, [{}])))
    roll = rng.random()
    if roll < 0.1:
        depth = rng.choice((100, 5000, 300_000))
        return rng.choice((b"[" * depth + b"]" * depth, b'{"query": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"))
    if roll < 0.2 and "filter" in body:
        body["filter"] = filters.condition(rng) if rng.random() < 0.5 else filters.nested(rng)
    elif roll < 0.8:
        for _ in range(rng.randint(1, 3)):
            body, _ = kinds.change_value(body, rng)
            if not isinstance(body, dict | list):
                break
    data = json.dumps(body).encode("utf-8", "surrogatepass")
    return messages.damage(data, rng) if roll > 0.85 else data


def _use_server(folder: Path, asked: tuple[_Request, ...]) -> str:
    from sbert_mini import Embedder
    from sbert_mini.serve.app import Server
    from sbert_mini.serve.embedding import EmbeddingService
    from sbert_mini.serve.searching import IndexService
    from sbert_mini.serve.settings import Settings

    settings = Settings(log=False)
    embedder = Embedder(folder / "model", threads=1)
    index = IndexService("x", folder / "x.index", settings, embedder, 1, True, is_writable=True)
    app = Server(EmbeddingService(embedder, settings), {"x": index}, settings).app()

    async def ask_all() -> list[int]:
        statuses = [await _answer(app, request) for request in asked]
        last = _Request(
            "POST",
            "/search",
            ((b"host", b"127.0.0.1"), (b"content-type", b"application/json")),
            (json.dumps({"query": "the cat", "k": 1}).encode(),),
            True,
        )
        if await _answer(app, last) != 200:
            raise AssertionError("the server does not answer a plain search any more")
        return statuses

    statuses = asyncio.run(ask_all())
    return f"read {statuses}" if max(statuses) < 400 else f"refused {statuses}"


async def _answer(app: Any, request: _Request) -> int:
    """Return the status of an answer, 0 where the client has hung up.

    Raises:
        AssertionError: the answer is 5xx, or an error's body is not JSON with one line.
    """
    path, _, query = request.path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "query_string": query.encode(),
        "root_path": "",
        "headers": list(request.headers),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8080),
    }
    waiting = [{"type": "http.request", "body": part, "more_body": True} for part in request.parts]
    waiting.append({"type": "http.request", "body": b""} if request.is_whole else {"type": "http.disconnect"})
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    if not sent:
        if request.is_whole:
            raise AssertionError(f"no answer to {request}")
        return 0
    status = int(sent[0]["status"])
    data = b"".join(message.get("body", b"") for message in sent[1:])
    if status >= 500:
        raise AssertionError(f"{status} {data[:300]!r} to {request.method} {request.path} {request.parts!r:.500}")
    if status >= 400 and request.method != "HEAD":
        message = json.loads(data)["error"]["message"]
        if "\n" in message or len(message) > 1000:
            raise AssertionError(f"the message {message[:1200]!r}")
    return status
