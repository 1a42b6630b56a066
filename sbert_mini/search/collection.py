"""One object for an index that grows: put rows in, get, delete and find them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Unpack, overload

from sbert_mini.runtime.embedder import Embedder
from sbert_mini.search.deadline import TIME_LIMIT_S
from sbert_mini.search.encoding import IndexCounts
from sbert_mini.search.index import SearchIndex
from sbert_mini.search.queries import Hit, SearchOptions
from sbert_mini.search.segment import StoredRow
from sbert_mini.search.writer import IndexWriter, Row
from sbert_mini.shapes import FloatArray


class Collection:
    """An index directory to write to and to search; it is made with the first rows.

    Each call of `upsert` and `delete` is one atomic update. Other processes may write to the same index: a query sees what they
    have written before it.

    Args:
        path: the index directory.
        embedder: the model; None for the index's own one, and for a new index the default one.
        threads: where no model is given; None for the usual choice.
        offline: no model is fetched.
        filter_timeout_s: seconds after which a filter is given up; None for no limit.
    """

    def __init__(
        self,
        path: str | Path,
        embedder: Embedder | None = None,
        *,
        threads: int | None = None,
        offline: bool = False,
        filter_timeout_s: float | None = TIME_LIMIT_S,
    ) -> None:
        self.path = Path(path)
        self._embedder, self._is_given = embedder, embedder is not None
        self._threads, self._offline, self._filter_timeout_s = threads, offline, filter_timeout_s
        self._index: SearchIndex | None = None
        self._pointer: bytes | None = None

    def __repr__(self) -> str:
        return f"Collection({str(self.path)!r}, rows={len(self)})"

    def __len__(self) -> int:
        index = self._opened()
        return 0 if index is None else len(index)

    def upsert(self, rows: Iterable[Row]) -> IndexCounts:
        """Add rows, replace those with the same ids, and return what was done. Rows that are stored already stay as they are.

        Args:
            rows: texts, dicts with the key `text` (and `id`, and any columns), `Record`s, or a DataFrame with such columns.

        Raises:
            InputError: a row cannot be stored, or there is none; nothing is changed then.
            IndexLockedError: another process is writing there.
        """
        is_new = not (self.path / "CURRENT").exists()
        if self._embedder is None and is_new:
            self._embedder = Embedder(threads=self._threads, offline=self._offline)
        if not is_new and not self._is_given:
            self._opened()  # another process may have migrated the index to another model
        writer = IndexWriter(self.path, self._embedder, threads=self._threads, offline=self._offline)
        (writer.create if is_new else writer.update)(rows)
        return writer.counts

    def get(self, ids: str | Sequence[str]) -> list[StoredRow | None]:
        """Return the rows with some ids, in their order; None for an id that there is not.

        Args:
            ids: an id, or several.
        """
        index = self._opened()
        requested = [ids] if isinstance(ids, str) else ids
        return [None if index is None else index.get(identity) for identity in requested]

    def delete(self, ids: str | Iterable[str] = (), *, filter: str | None = None) -> int:
        """Delete rows, and return how many there were.

        Args:
            ids: an id, or several.
            filter: an SQL condition: the rows that meet it are deleted too.

        Raises:
            IndexNotFoundError: there is no row yet.
            InputError: an id is not there, or all rows would go; nothing is deleted then.
            UsageError: neither ids nor a filter were given, or the filter cannot be evaluated.
        """
        return IndexWriter(self.path, threads=self._threads).delete(
            [ids] if isinstance(ids, str) else ids, filter=filter
        )

    @overload
    def query(  # type: ignore[overload-overlap]  # a str is a sequence of str, and one query
        self, queries: str, k: int = 10, **options: Unpack[SearchOptions]
    ) -> list[Hit]: ...

    @overload
    def query(
        self, queries: Iterable[str] | FloatArray, k: int = 10, **options: Unpack[SearchOptions]
    ) -> list[list[Hit]]: ...

    def query(
        self, queries: str | Iterable[str] | FloatArray, k: int = 10, **options: Unpack[SearchOptions]
    ) -> list[Hit] | list[list[Hit]]:
        """Return the rows closest to each query; arguments and result are those of `SearchIndex.search`.

        Raises:
            IndexNotFoundError: there is no row yet.
            UsageError: the arguments do not fit.
        """
        index = self.index()  # which may open another model
        options.setdefault("embedder", self._embedder)
        return index.search(queries, k, **options)

    def index(self) -> SearchIndex:
        """Return the index, opened at its present generation.

        Raises:
            IndexNotFoundError: there is no row yet.
        """
        return self._opened() or SearchIndex(self.path)

    def _opened(self) -> SearchIndex | None:
        """Return the index at its present generation; None where there is none yet."""
        try:
            pointer = (self.path / "CURRENT").read_bytes()
        except FileNotFoundError:
            return None
        if self._index is None or pointer != self._pointer:
            self._index = SearchIndex(
                self.path, threads=self._threads, offline=self._offline, filter_timeout_s=self._filter_timeout_s
            )
            self._pointer = pointer
            fingerprint = None if self._embedder is None else self._embedder.fingerprint
            if self._embedder is None or not (self._is_given or fingerprint == self._index.model.fingerprint):
                self._embedder = self._index.embedder()
        return self._index
