"""What a server takes, and how much of it."""

from dataclasses import dataclass, field

from sbert_mini.runtime.choices import Truncation

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
"""Addresses that only this machine reaches."""


@dataclass(frozen=True)
class Limits:
    """The most that one request, and all that wait, may hold.

    Attributes:
        body_bytes: of a request's body.
        texts: of a request for vectors.
        tokens: of a request for vectors, as the model reads them.
        queries: of a request for hits.
        hits: of a query.
        rows: of a request that writes.
        waiting: texts that may wait to be computed; above it a request is refused (429).
        body_seconds: how long the body of a request may take to arrive.
        filter_seconds: how long a filter may take.
    """

    body_bytes: int = 8 << 20
    texts: int = 2048
    tokens: int = 300_000
    queries: int = 64
    hits: int = 1000
    rows: int = 10_000
    waiting: int = 16_384
    body_seconds: float = 30.0
    filter_seconds: float = 10.0


@dataclass(frozen=True)
class Settings:
    """How a server is reached, and what it does.

    Attributes:
        host: the address that it listens on.
        hosts: further names that requests may address it by.
        key: what every request must bring; None for none.
        truncation: what happens to a text that is longer than the model reads.
        limits: see `Limits`.
        log: whether each request is a line of JSON on stderr.
    """

    host: str = "127.0.0.1"
    hosts: tuple[str, ...] = ()
    key: str | None = None
    truncation: Truncation = "warn"
    limits: Limits = field(default_factory=Limits)
    log: bool = True

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return self.host in LOCAL_HOSTS

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """The names that requests may address it by, in small letters, without a port."""
        own = LOCAL_HOSTS if self.is_local else (self.host,)
        return frozenset(name.lower() for name in (*own, *self.hosts))
