"""Counts of a server, as Prometheus reads them. They hold no texts."""

from typing import Any


class Metrics:
    """The counts of one server."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        names: dict[str, Any] = {"registry": self._registry}
        self.requests = Counter("sbmini_requests", "Requests answered.", ("route", "status"), **names)
        self.seconds = Histogram(
            "sbmini_request_seconds",
            "Time from a request's head to its answer.",
            ("route",),
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
            **names,
        )
        self.texts = Counter("sbmini_texts", "Texts encoded for /v1/embeddings.", **names)
        self.tokens = Counter("sbmini_tokens", "Tokens of those texts.", **names)
        self.truncated = Counter("sbmini_truncated_texts", "Texts among them that were too long, and cut.", **names)
        self.queries = Counter("sbmini_queries", "Queries searched.", ("index",), **names)
        self.waiting = Gauge("sbmini_waiting", "Texts and queries that wait or are computed.", **names)

    def text(self) -> bytes:
        """Return all counts in Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)
