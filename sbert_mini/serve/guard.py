"""What stands before every route: who may ask, one line of log, counts, and errors as JSON.

A page of another site, open in a browser on this machine, can send requests to a local server. It cannot set the Host header, its
requests carry its own Origin, and without the server's consent it cannot send application/json. So a foreign Host or Origin is
refused (403), and so is a body of another type (415). The server never consents (no CORS headers).
"""

import hmac
import json
import logging
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from starlette.exceptions import HTTPException
from starlette.responses import Response

from sbert_mini.errors import SbertMiniError
from sbert_mini.serve.metrics import Metrics
from sbert_mini.serve.problems import ProblemError, body_of, problem_of
from sbert_mini.serve.settings import Settings

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = frozenset({"/", "/page.js", "/page.css", "/health", "/ready"})
"""What needs no key: the page itself, which then asks for it, and what balancers look at."""
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
log = logging.getLogger("sbert_mini.serve")


class Guard:
    """The outermost layer of a server.

    Args:
        app: the routes.
        settings: of the server.
        metrics: its counts.
    """

    def __init__(self, app: App, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._key = None if settings.key is None else settings.key.encode()
        self._hosts = settings.allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1003})
            return
        begun, status = time.perf_counter(), 0
        scope["notes"] = {}
        scope["app"] = self  # so that the router raises where it finds no route

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                there = {name for name, _ in message["headers"]}
                added = ((name.encode(), value.encode()) for name, value in HEADERS.items())
                message["headers"] = [*message["headers"], *(item for item in added if item[0] not in there)]
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, answer)
        except (SbertMiniError, HTTPException) as error:
            if status:  # the answer was begun: only the connection can tell
                raise
            await _refuse(error, scope, receive, answer)
        except Exception:
            traceback.print_exc()
            if status:
                raise
            await _refuse(ProblemError(500, "the server failed; its log says where"), scope, receive, answer)
        self._note(scope, status, time.perf_counter() - begun)

    def _check(self, scope: Scope) -> None:
        """Refuse a request that may come from a foreign page, or without the key.

        Raises:
            ProblemError: 403, 401, or 415 for a body that is not JSON.
        """
        headers = {name: value for name, value in scope["headers"] if name in _READ}
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if _name(host) not in self._hosts:
            raise ProblemError(403, f"this server is not called {host[:100]!r}: --allow-host adds a name")
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1").lower() not in (f"http://{host}", f"https://{host}"):
            raise ProblemError(403, "pages of other sites may not use this server")
        if self._key is not None and scope["path"] not in OPEN_PATHS:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self._key):
                raise ProblemError(401, "the key is missing or wrong: Authorization: Bearer KEY", headers=_ASKS)
        if scope["method"] in ("POST", "PUT", "PATCH", "DELETE"):
            kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
            if kind != b"application/json":
                raise ProblemError(415, "a body must have the Content-Type application/json")
            size = headers.get(b"content-length", b"0")
            if size.isdigit() and (len(size) > _DIGITS or int(size) > self._settings.limits.body_bytes):
                found = size[:_DIGITS].decode() + "..." * (len(size) > _DIGITS)
                raise ProblemError(413, f"a body may have {self._settings.limits.body_bytes} bytes; found {found}")

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request, and write its line of log, which holds no text of it."""
        route = scope["notes"].get("route", "none")
        self._metrics.requests.labels(route, status).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if self._settings.log:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            line = {
                "time": now,
                "method": scope["method"][:20],
                "route": route,
                "status": status,
                "ms": round(1000 * seconds, 2),
            }
            sys.stderr.write(json.dumps({**line, **scope["notes"]}) + "\n")


_READ = (b"host", b"origin", b"authorization", b"content-type", b"content-length")
_DIGITS = 20
"""Of the length of a body; a longer number is not read."""
_ASKS = {"WWW-Authenticate": "Bearer"}


def _name(host: str) -> str:
    """Return the name in a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host


async def _refuse(error: SbertMiniError | HTTPException, scope: Scope, receive: Receive, send: Send) -> None:
    if isinstance(error, HTTPException):
        problem = ProblemError(error.status_code, error.detail, headers=error.headers)
    else:
        problem = problem_of(error)
        if problem.status >= 500:
            log.error("%s", error)
    response = Response(
        json.dumps(body_of(problem)), problem.status, media_type="application/json", headers=dict(problem.headers)
    )
    await response(scope, receive, send)
