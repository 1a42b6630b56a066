"""Make an index of texts, open it, search it."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from sbert_mini.durable import read_sealed_json, write_durably, write_sealed_json
from sbert_mini.errors import (
    CorruptIndexError,
    ModelMismatchError,
    ModelNotFoundError,
    UsageError,
)
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.search.store import (
    CheckedFile,
    ModelIdentity,
    Segment,
    Store,
    StoredRow,
    file_checksums,
)
from sbert_mini.shapes import FloatArray, IntArray

FACTORY = "IDMap2,Flat"
"""The kind of FAISS index, as a factory string: exact search with our own row numbers."""

log = logging.getLogger("sbert_mini")


@dataclass(frozen=True)
class Hit:
    """A row that was found.

    Attributes:
        id: the row's id.
        score: its cosine similarity to the query, in [-1, 1]; larger is closer.
        text: its text.
        columns: its other columns.
    """

    id: str
    score: float
    text: str
    columns: Mapping[str, Any]


class SearchIndex:
    """An index directory at one generation, opened for search. It cannot write: `search.writer.IndexWriter` does.

    Args:
        path: the directory.
        threads: for FAISS and for encoding queries; None for the usual choice.
        offline: open no socket when the index's model is looked for.

    Raises:
        IndexNotFoundError: there is no index.
        CorruptIndexError: a stored block that opening reads does not match its checksum.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None, offline: bool = False) -> None:
        self._store = Store(path)
        self._threads = threads
        self._offline = offline
        self._faiss: list[Any] | None = None
        self._embedder: Embedder | None = None

    def __len__(self) -> int:
        return self._store.rows

    @property
    def path(self) -> Path:
        """The directory."""
        return self._store.path

    @property
    def model(self) -> ModelIdentity:
        """The model that it was made with."""
        return self._store.model

    @property
    def generation(self) -> int:
        """The generation that is open; a writer's later ones do not change it."""
        return self._store.generation

    @property
    def created(self) -> str:
        """When the generation was written, in ISO 8601, UTC."""
        return str(self._store.manifest["created"])

    @property
    def segments(self) -> int:
        """How many segments the rows lie in."""
        return len(self._store.segments)

    @property
    def deleted_rows(self) -> int:
        """Rows that the segments hold and the generation does not: deleted or replaced ones."""
        return len(self._store.deleted)

    @overload
    def search(  # type: ignore[overload-overlap]  # a str is a sequence of str, and one query
        self, queries: str, k: int = 10, *, min_score: float | None = None, embedder: Embedder | None = None
    ) -> list[Hit]: ...

    @overload
    def search(
        self,
        queries: Sequence[str] | FloatArray,
        k: int = 10,
        *,
        min_score: float | None = None,
        embedder: Embedder | None = None,
    ) -> list[list[Hit]]: ...

    def search(
        self,
        queries: str | Sequence[str] | FloatArray,
        k: int = 10,
        *,
        min_score: float | None = None,
        embedder: Embedder | None = None,
    ) -> list[Hit] | list[list[Hit]]:
        """Return the rows closest to each query, closest first; for a single string, one list.

        Args:
            queries: texts, or vectors of length 1 made with the index's model.
            k: the most hits a query.
            min_score: leave out rows of a lower score.
            embedder: encodes the texts; None for the model that the index names.

        Shapes:
            queries, where vectors: (queries, dim).

        Raises:
            UsageError: `k` is below 1, or the vectors do not fit.
            ModelMismatchError: the model is not the one that the index was made with.
        """
        single = isinstance(queries, str)
        if isinstance(queries, np.ndarray):
            vectors = np.asarray(queries, dtype=np.float32)
        else:
            texts = [queries] if isinstance(queries, str) else list(queries)
            embedder = self.check_model(embedder) if embedder is not None else self.embedder()
            vectors = embedder.encode_query(texts)
        if vectors.ndim != 2 or vectors.shape[1] != self.model.dimension:
            raise UsageError(
                f"query vectors must have the shape (queries, {self.model.dimension}); found {vectors.shape}"
            )
        if not np.isfinite(vectors).all():
            raise UsageError("query vectors must be finite, and one holds NaN or infinity")
        scores, rows = self.nearest(vectors, k)
        hits = [
            [self._hit(row, score) for row, score in zip(r, s, strict=True) if min_score is None or score >= min_score]
            for r, s in zip(rows.tolist(), scores.tolist(), strict=True)
        ]
        return hits[0] if single else hits

    def embedder(self) -> Embedder:
        """Return the model that the index names, opened once.

        Raises:
            ModelNotFoundError: it is not to be found any more.
            ModelMismatchError: under its name lies another model now.
        """
        if self._embedder is None:
            try:
                found = Embedder(
                    self.model.name,
                    graph=self.model.graph,  # type: ignore[arg-type]
                    threads=self._threads,
                    offline=self._offline,
                )
            except ModelNotFoundError as error:
                raise ModelNotFoundError(f"{self.path} was made with the model {self.model.name!r}: {error}") from error
            self._embedder = self.check_model(found)
        return self._embedder

    def check_model(self, embedder: Embedder) -> Embedder:
        """Return the embedder if its vectors can be compared with the index's.

        Raises:
            ModelMismatchError: they cannot; the text names both models.
        """
        if embedder.fingerprint != self.model.fingerprint:
            raise ModelMismatchError(
                f"{self.path} was made with the model {self.model.name!r} (fingerprint {self.model.fingerprint[:12]}), "
                f"and {embedder.model_name!r} is another ({embedder.fingerprint[:12]}): their vectors cannot be "
                "compared. Search with the first, or make the index anew"
            )
        if embedder.dimension != self.model.dimension:
            raise ModelMismatchError(
                f"{self.path} holds vectors of {self.model.dimension} components, and {embedder.model_name!r} gives "
                f"{embedder.dimension} now"
            )
        return embedder

    def nearest(self, vectors: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """Return the scores and row numbers of the `min(k, rows)` closest rows, closest first.

        Shapes:
            vectors: (queries, dim); each result: (queries, min(k, rows)).
        """
        if k < 1:
            raise UsageError(f"k must be at least 1; found {k}")
        self.prepare()
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        found = [self._nearest_in(index, vectors, min(k, index.ntotal)) for index in self._faiss or []]
        scores = np.concatenate([scores for scores, _ in found], axis=1)
        rows = np.concatenate([rows for _, rows in found], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, : min(k, len(self))]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)

    def _nearest_in(self, index: Any, vectors: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        # Where fewer than k rows are not deleted, FAISS fills up with row -1 at the lowest score, sorted behind all others.
        if not len(self._store.deleted):
            scores, rows = index.search(vectors, k)
        else:
            import faiss

            kept = faiss.IDSelectorNot(faiss.IDSelectorBatch(self._store.deleted))
            scores, rows = index.search(vectors, k, params=faiss.SearchParameters(sel=kept))  # type: ignore[call-arg]
        return scores, rows

    def rows(self) -> Iterator[StoredRow]:
        """Yield every row, in the order of their numbers."""
        for segment in self._store.segments:
            for position in range(segment.rows):
                if not self._store.is_deleted(int(segment.row_ids[position])):
                    yield segment.row(position)

    def get(self, identity: str) -> StoredRow | None:
        """Return the row with this id, or None where there is none."""
        row = self._store.find(identity)
        if row is None:
            return None
        segment, position = self._store.locate(row)
        return segment.row(position)

    def verify(self) -> list[str]:
        """Check every stored block, the FAISS cache included, and return a line for each damaged file; none for sound."""
        damage = [line for segment in self._store.segments for line in segment.damage()]
        for segment in self._store.segments:
            if self._faiss_record(segment).exists():
                try:
                    self._read_faiss(segment)
                except CorruptIndexError as error:
                    damage.append(str(error))
        return damage

    def prepare(self) -> None:
        """Open the FAISS files, making those that are missing, so that the first search does not have to."""
        if self._faiss is None:
            self._faiss = [self._open_faiss(segment) for segment in self._store.segments]

    def _hit(self, row: int, score: float) -> Hit:
        segment, position = self._store.locate(row)
        stored = segment.row(position)
        return Hit(stored.id, score, stored.text, stored.columns)

    # --- the FAISS cache ---

    def _faiss_record(self, segment: Segment) -> Path:
        return self.path / "faiss" / f"{segment.name}.json"

    def _open_faiss(self, segment: Segment) -> Any:
        try:
            return self._read_faiss(segment)
        except FileNotFoundError:
            return self._build_faiss(segment)
        except CorruptIndexError as error:
            log.warning("making the FAISS file anew from the stored vectors: %s", error)
            return self._build_faiss(segment)

    def _read_faiss(self, segment: Segment) -> Any:
        import faiss

        record_file = self._faiss_record(segment)
        if not record_file.exists():
            raise FileNotFoundError(record_file)
        record = read_sealed_json(record_file, CorruptIndexError)
        if record["segment_sha256"] != segment.checksum:
            raise CorruptIndexError(f"{record_file} belongs to other vectors")
        with CheckedFile(record_file.with_suffix(".faiss"), record["file"]) as file:
            data = np.frombuffer(file.read_all(), dtype=np.uint8)
        faiss.omp_set_num_threads(self._thread_count())
        index = faiss.deserialize_index(data)
        if index.ntotal != segment.rows or index.d != self.model.dimension:
            raise CorruptIndexError(
                f"{record_file}: {index.ntotal} rows of {index.d}, not {segment.rows} of its segment"
            )
        return index

    def _build_faiss(self, segment: Segment) -> Any:
        import faiss

        faiss.omp_set_num_threads(self._thread_count())
        index = faiss.index_factory(self.model.dimension, FACTORY, faiss.METRIC_INNER_PRODUCT)
        start = 0
        for block in segment.vector_blocks(self.model.dimension):
            index.add_with_ids(block, segment.row_ids[start : start + len(block)])
            start += len(block)
        file = self._faiss_record(segment).with_suffix(".faiss")
        try:
            file.parent.mkdir(exist_ok=True)
            write_durably(file, faiss.serialize_index(index).tobytes())
            record = {
                "segment_sha256": segment.checksum,
                "factory": FACTORY,
                "faiss": faiss.__version__,
                "file": file_checksums(file),
            }
            write_sealed_json(file.with_suffix(".json"), record)
        except OSError as error:  # a read-only index is searched all the same
            log.warning("the FAISS file of %s was not kept: %s", self.path, error)
        return index

    def _thread_count(self) -> int:
        from sbert_mini.runtime.engine import thread_count

        return thread_count(self._threads)
