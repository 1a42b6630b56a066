"""The tools of an agent: what each takes and gives, and how it is answered. Nothing here knows the protocol."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from sbert_mini.agents.allowed import AgentIndex
from sbert_mini.agents.answers import hit_answer, row_answer, safe
from sbert_mini.agents.catalogue import TOOLS, Answer, Tool, ToolError, checked
from sbert_mini.documents.sync import FolderSync, SyncCounts
from sbert_mini.errors import InputError, SbertMiniError
from sbert_mini.search.collection import Collection
from sbert_mini.search.index import SearchIndex
from sbert_mini.search.similar import similar_rows

_SHOWN_FAILURES = 20


@dataclass
class Toolbox:
    """Indexes, and the model of the first one, behind tools.

    Calls that read run one at a time on a thread, and a sync on another.

    The indexes are opened on that thread, from the start; calls wait until they are open.

    Attributes:
        indexes: by name; at least one.
        threads: see `Embedder`.
        offline: no model is fetched.
        filter_seconds: how long a filter may take.
    """

    indexes: Mapping[str, AgentIndex]
    threads: int | None = None
    offline: bool = False
    filter_seconds: float = 10.0
    _readers: dict[str, Collection] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="sbmini-tools")
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="sbmini-sync")
        self._opened = self._reading.submit(self._open)

    @property
    def offered(self) -> dict[str, Tool]:
        """The tools by name: `sync` only where an index may be changed."""
        writes = any(index.folders for index in self.indexes.values())
        return {name: tool for name, tool in TOOLS.items() if tool.is_read_only or writes}

    @staticmethod
    def problem_line(error: SbertMiniError) -> str:
        """Return what an agent gets for an error, in one line."""
        return safe(str(error)).replace("\n", " ")

    def call(self, name: str, arguments: Mapping[str, Any] | None) -> "Future[Answer]":
        """Begin a call of a tool. The future raises `SbertMiniError` where it cannot be answered."""
        calls: dict[str, Callable[[dict[str, Any]], Answer]] = {
            "search": self._search,
            "similar": self._similar,
            "get": self._get,
            "list_indexes": self._list_indexes,
            "embed": self._embed,
            "sync": self._sync,
        }
        if name not in self.offered:
            raise ToolError(f"there is no tool {name[:80]!r}; there are: {', '.join(self.offered)}")
        given = checked(name, arguments or {})
        pool = self._writing if name == "sync" else self._reading
        return pool.submit(self._answered, calls[name], given)

    def wait(self) -> None:
        """Wait until the indexes are open.

        Raises:
            SbertMiniError: one cannot be opened.
        """
        self._opened.result()

    def close(self) -> None:
        """End the threads, after the calls that they are in."""
        for pool in (self._reading, self._writing):
            pool.shutdown(wait=True, cancel_futures=True)

    def _open(self) -> None:
        for name, index in self.indexes.items():
            reader = Collection(
                index.path, threads=self.threads, offline=self.offline, filter_timeout_s=self.filter_seconds
            )
            reader.index().prepare()
            reader.query("words", 1)  # opens the model, and the words
            self._readers[name] = reader

    def _answered(self, call: Callable[[dict[str, Any]], Answer], arguments: dict[str, Any]) -> Answer:
        self.wait()
        return call(arguments)

    def _named(self, name: str | None) -> tuple[str, Collection]:
        if name is None and len(self._readers) > 1:
            raise ToolError(f"name an index: {', '.join(self._readers)}")
        name = next(iter(self._readers)) if name is None else name
        if name not in self._readers:
            raise ToolError(f"there is no index {name[:80]!r}; there are: {', '.join(self._readers)}")
        return name, self._readers[name]

    def _search(self, given: dict[str, Any]) -> Answer:
        name, reader = self._named(given.pop("index", None))
        lines, hits = hit_answer(reader.query(given.pop("query"), given.pop("k", 5), **given))
        return Answer(lines, {"index": name, "hits": hits})

    def _similar(self, given: dict[str, Any]) -> Answer:
        name, reader = self._named(given.pop("index", None))
        identity = given.pop("id")
        try:
            rows, _ = similar_rows(reader.index(), identity, given.pop("k", 5), by="meaning", **given)
        except InputError:
            raise ToolError(f"the index {name!r} has no row {safe(identity)[:200]!r}") from None
        lines, hits = hit_answer(rows)
        return Answer(lines, {"index": name, "hits": hits})

    def _get(self, given: dict[str, Any]) -> Answer:
        name, reader = self._named(given.get("index"))
        lines, rows = row_answer(
            given["ids"], reader.get(given["ids"]), given.get("start", 0), given.get("characters", 4000)
        )
        return Answer(lines, {"index": name, "rows": rows})

    def _list_indexes(self, given: dict[str, Any]) -> Answer:  # noqa: ARG002
        described = [self._description(name, reader.index()) for name, reader in self._readers.items()]
        lines = [
            f"{one['name']}: {one['rows']} rows, columns: {', '.join(one['columns']) or 'none'}" for one in described
        ]
        return Answer("\n".join(lines), {"indexes": described})

    def _description(self, name: str, index: SearchIndex) -> dict[str, Any]:
        return {
            "name": name,
            "rows": len(index),
            "generation": index.generation,
            "created": index.created,
            "model": safe(index.model.name),
            "dimension": index.model.dimension,
            "columns": {safe(column): kind for column, kind in index.columns.items()},
            "is_writable": bool(self.indexes[name].folders),
        }

    def _embed(self, given: dict[str, Any]) -> Answer:
        embedder = next(iter(self._readers.values())).index().embedder()
        vectors = embedder.encode_document(given["texts"], truncate_dim=given.get("dimensions"), truncation="chunk")
        cosines = [[round(float(cosine), 4) for cosine in row] for row in vectors @ vectors.T]
        count, dimension = vectors.shape
        lines = [
            f"{count} vectors of {dimension} components; their cosines:",
            *("  ".join(map(str, c)) for c in cosines),
        ]
        return Answer(
            "\n".join(lines),
            {
                "model": safe(embedder.model_name),
                "vectors": [[round(float(x), 6) for x in vector] for vector in vectors],
                "cosines": cosines,
            },
        )

    def _sync(self, given: dict[str, Any]) -> Answer:
        name, reader = self._named(given.get("index"))
        index = self.indexes[name]
        if not index.folders:
            raise ToolError(f"the index {name!r} may not be changed here")
        embedder = self._reading.submit(lambda: reader.index().embedder()).result()
        syncing = FolderSync(index.path, index.folders, embedder=embedder, threads=self.threads)
        if given.get("dry_run", False):
            plan = syncing.plan()
            actions = [{"action": action, "id": safe(identity)} for action, identity in plan.actions[:100]]
            told = f"{len(plan.actions)} files to add, change or remove; nothing was changed"
            refused = {} if plan.refusal is None else {"refusal": safe(plan.refusal)}
            return Answer(told, {"index": name, "changes": len(plan.actions), "actions": actions, **refused})
        return _synced(name, syncing.run())


def _synced(name: str, counts: SyncCounts) -> Answer:
    numbers = {part: getattr(counts, part) for part in ("added", "changed", "removed", "unchanged")}
    failures = list((counts.failed | counts.rejected).items())
    told = ", ".join(f"{number} {part}" for part, number in numbers.items()) + f", {len(failures)} failed"
    shown = [{"id": safe(identity), "why": safe(why)} for identity, why in failures[:_SHOWN_FAILURES]]
    return Answer(told, {"index": name, **numbers, "failed": len(failures), "failures": shown})
