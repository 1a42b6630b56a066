"""Make an index, and change it: each change is a new generation beside the one before."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sbert_mini.errors import InputError, ModelMismatchError
from sbert_mini.runtime.embedder import Embedder, EncodeCounts, Truncation
from sbert_mini.search.index import SearchIndex
from sbert_mini.search.store import ModelIdentity, SegmentWriter, Store, StoredRow
from sbert_mini.text.records import Record


@dataclass
class IndexCounts:
    """What a change of an index met, filled in while it runs.

    Attributes:
        rows: rows stored.
        replaced: rows among them that took the place of one with the same id.
        repeated: rows without an id of their own that were the same, in every column, as one before; stored once.
        encoding: what encoding met.
    """

    rows: int = 0
    replaced: int = 0
    repeated: int = 0
    encoding: EncodeCounts = field(default_factory=EncodeCounts)


class IndexWriter:
    """Writes to an index directory, in one step for readers: they see it as it was before, or as it is after.

    Records are read, encoded and stored as they come: memory holds some thousand of them, and all their ids. A record's id
    is its `id`, or, without one, made of its content (`Record.content_id`).

    Args:
        path: the index directory.
        embedder: the model.
        batch_size: see `Embedder.encode`.
        truncation: see `Embedder.encode`.
        show_progress_bar: draw a progress bar on stderr.
        counts: filled in, if given.
    """

    def __init__(
        self,
        path: str | Path,
        embedder: Embedder,
        *,
        batch_size: int = 32,
        truncation: Truncation = "warn",
        show_progress_bar: bool = False,
        counts: IndexCounts | None = None,
    ) -> None:
        self.path = Path(path)
        self.counts = counts if counts is not None else IndexCounts()
        self._embedder = embedder
        self._batch_size = batch_size
        self._truncation: Truncation = truncation
        self._show_progress_bar = show_progress_bar

    def create(self, records: Iterable[Record], *, prompt: str | None = None) -> SearchIndex:
        """Make a new index of the records, and return it, opened.

        Args:
            records: the rows.
            prompt: put before each text when it is encoded, now and when rows are added later; None for the model's own
                prompt for documents, if it has one.

        Raises:
            IndexExistsError: the directory holds an index or something else.
            IndexLockedError: another process is writing there.
            InputError: there is no record, or two have the same id. Nothing is stored then.
        """
        named = self._embedder.model_name
        model = ModelIdentity(
            name=str(self._embedder.path) if Path(named).expanduser().is_dir() else named,
            fingerprint=self._embedder.fingerprint,
            graph=self._embedder.graph,
            dimension=self._embedder.dimension,
            prompt=self._embedder.document_prompt() if prompt is None else prompt,
        )
        with Store.creating(self.path):
            self._write(records, model, old=None, replace=False)
        return self._opened()

    def add(self, records: Iterable[Record]) -> SearchIndex:
        """Add rows, and return the index, opened. A row without an id of its own that is stored already is counted.

        Raises:
            IndexNotFoundError: there is no index.
            IndexLockedError: another process is writing there.
            ModelMismatchError: the index was made with another model.
            InputError: an id is stored already, or stands twice. Nothing is added then.
        """
        return self._change(records, replace=False)

    def update(self, records: Iterable[Record]) -> SearchIndex:
        """Put each row in the place of the one with its id, or add it where there is none; return the index, opened.

        Raises:
            IndexNotFoundError: there is no index.
            IndexLockedError: another process is writing there.
            ModelMismatchError: the index was made with another model.
            InputError: an id stands twice. Nothing is changed then.
        """
        return self._change(records, replace=True)

    def _change(self, records: Iterable[Record], *, replace: bool) -> SearchIndex:
        SearchIndex(self.path)  # raises where there is none, before a lock file is made
        with Store.writing(self.path):
            old = Store(self.path)
            SearchIndex(self.path).check_model(self._embedder)
            if self._embedder.graph != old.model.graph:
                raise ModelMismatchError(
                    f"{self.path} was made with the {old.model.graph} graph of its model, and rows of the "
                    f"{self._embedder.graph} graph are not added to it"
                )
            self._write(records, old.model, old, replace=replace)
        return self._opened()

    def _write(self, records: Iterable[Record], model: ModelIdentity, old: Store | None, *, replace: bool) -> None:
        self.counts.rows = self.counts.replaced = self.counts.repeated = 0
        first_row = 0 if old is None else int(old.manifest["next_row"])
        generation = 1 if old is None else old.generation + 1
        name = f"{generation:06d}"
        replaced: list[int] = []
        pending: list[StoredRow] = []
        with SegmentWriter(self.path / "segments", name, model.dimension, first_row) as segment:
            blocks = self._embedder.encode_stream(
                self._texts(records, pending, old, replaced if replace else None),
                batch_size=self._batch_size,
                prompt=model.prompt,
                truncation=self._truncation,
                show_progress_bar=self._show_progress_bar,
                counts=self.counts.encoding,
            )
            for block in blocks:
                segment.write(pending[: len(block)], block)
                del pending[: len(block)]
            if not segment.rows and not self.counts.repeated:
                raise InputError("there is no text to index")
        if not segment.rows:
            return
        self.counts.rows, self.counts.replaced = segment.rows, len(replaced)
        entries = [] if old is None else list(old.manifest["segments"])
        entries.append({"name": name, "rows": segment.rows, "checksums_sha256": segment.checksum})
        deleted = np.array(replaced, dtype=np.int64)
        if old is not None:
            deleted = np.concatenate([old.deleted, deleted])
        Store.publish(self.path, generation, model, entries, first_row + segment.rows, deleted)

    def _texts(
        self, records: Iterable[Record], pending: list[StoredRow], old: Store | None, replaced: list[int] | None
    ) -> Iterator[str]:
        """Yield each record's text, after adding it to `pending` with its id."""
        lines: dict[str, int] = {}
        for position, record in enumerate(records, start=1):
            _check(record, record.line or position)
            identity = record.id if record.id is not None else record.content_id()
            if identity in lines:
                if record.id is None:
                    self.counts.repeated += 1
                    continue
                raise InputError(
                    f"the id {identity!r} stands on line {lines[identity]} and again on line {record.line}; "
                    "ids must be unique"
                )
            lines[identity] = record.line
            row = None if old is None else old.find(identity)
            if row is not None and record.id is None:
                self.counts.repeated += 1
                continue
            if row is not None:
                if replaced is None:
                    raise InputError(
                        f"line {record.line}: the id {identity!r} is in the index already; update replaces it"
                    )
                replaced.append(row)
            pending.append(StoredRow(identity, record.text, record.columns))
            yield record.text

    def _opened(self) -> SearchIndex:
        index = SearchIndex(self.path, threads=self._embedder.threads)
        index.prepare()
        return index


def _check(record: Record, line: int) -> None:
    """Raise `InputError` for a record that cannot be stored."""
    if not isinstance(record.text, str) or not record.text.strip():
        raise InputError(f"line {line}: the text must be a string that is not blank; found {record.text!r}")
    if record.id is not None and not isinstance(record.id, str):
        raise InputError(f"line {line}: the id must be a string or None; found {record.id!r}")
    try:
        json.dumps(dict(record.columns), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"line {line}: the columns cannot be stored as JSON: {error}") from error


def delete(path: str | Path, identities: Iterable[str]) -> int:
    """Delete the rows with these ids from an index, and return how many there were. No model is needed.

    Their bytes stay in the segments until they are written anew; no search and no listing gives them any more.

    Raises:
        IndexNotFoundError: there is no index.
        IndexLockedError: another process is writing there.
        InputError: an id is not in the index, or all rows would go. Nothing is deleted then.
    """
    path = Path(path)
    Store(path)  # raises where there is none, before a lock file is made
    with Store.writing(path):
        old = Store(path)
        rows: set[int] = set()
        for identity in identities:
            row = old.find(identity)
            if row is None:
                raise InputError(f"the id {identity!r} is not in the index; nothing was deleted")
            rows.add(row)
        if not rows:
            raise InputError("no id was given")
        if len(rows) == old.rows:
            raise InputError(f"these are all {old.rows} rows of the index; remove the directory {path} instead")
        deleted = np.concatenate([old.deleted, np.array(sorted(rows), dtype=np.int64)])
        manifest = old.manifest
        Store.publish(path, old.generation + 1, old.model, manifest["segments"], manifest["next_row"], deleted)
    return len(rows)
