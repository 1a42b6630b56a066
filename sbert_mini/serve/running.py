"""Runs a server until a signal ends it. Requests that were begun are answered first."""

import logging
import socket
from collections.abc import Callable
from typing import Protocol

from sbert_mini.errors import SbertMiniError
from sbert_mini.serve.guard import App

_ENDS_WITHIN_S = 30
_IDLE_S = 75
_CONNECTIONS = 1000
"""Connections that may be open at once; a further one is answered 503."""


class Served(Protocol):
    """What is served: `app.Server`, or the tools of an agent."""

    def app(self) -> App:
        """Return the ASGI application."""


class AddressError(SbertMiniError):
    """The server cannot listen on its address."""


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that has an address, for `run` to listen on; port 0 takes any that is free.

    Raises:
        AddressError: another program has the port, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
    except (OSError, OverflowError) as error:
        taken.close()
        reason = getattr(error, "strerror", None) or error
        raise AddressError(f"cannot listen on {host}, port {port}: {reason}; choose another with --port") from error
    return taken


def run(server: Served, listening: socket.socket, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        server: the server.
        listening: from `bound`.
        on_ready: told the address, once requests are taken.
    """
    import uvicorn

    host, port = listening.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    class Ready(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                on_ready(address)
                logging.getLogger("sbert_mini").setLevel(logging.ERROR)  # its notes may hold words of a request's texts

    config = uvicorn.Config(
        server.app(),
        log_config=None,
        access_log=False,
        lifespan="on",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=_ENDS_WITHIN_S,
        limit_concurrency=_CONNECTIONS,
        h11_max_incomplete_event_size=64 << 10,
    )
    Ready(config).run([listening])
