"""Make an index, and change it: each change is a new generation beside the one before."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from sbert_mini.errors import InputError, ModelMismatchError, UsageError
from sbert_mini.model.registry import directory
from sbert_mini.progress import Counted, expected
from sbert_mini.runtime.choices import LongTexts
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.runtime.engine import thread_count
from sbert_mini.search.columns import Schema
from sbert_mini.search.compaction import compact_segments
from sbert_mini.search.creation import creating_index
from sbert_mini.search.deadline import TIME_LIMIT_S
from sbert_mini.search.deletion import publish_without, rows_to_delete
from sbert_mini.search.encoding import (
    EncodingOptions,
    IndexCounts,
    RowBlock,
    VectorsById,
    encoded_blocks,
    given_blocks,
)
from sbert_mini.search.generation import row_of
from sbert_mini.search.index import SearchIndex
from sbert_mini.search.journal import Journal, JournalingEncoder, journal_folder, remove_journal
from sbert_mini.search.kinds import AUTOMATIC, SearchKind, check_kind, requested_kind
from sbert_mini.search.merging import Generation, publish_change
from sbert_mini.search.queries import IndexModel, check_model
from sbert_mini.search.segment import StoredRow
from sbert_mini.search.store import (
    LongTextRule,
    ModelIdentity,
    Store,
    describe,
    require_index,
    sweep,
    write_lock,
)
from sbert_mini.shapes import FloatArray
from sbert_mini.text.frames import rows_of
from sbert_mini.text.records import Record, Reject

Row: TypeAlias = Record | StoredRow | Mapping[str, Any] | str
"""A row to store: a text, a dict with the key `text` (and `id`, and any other columns), a `Record`, or a row of an index."""


class IndexWriter:
    """Writes to an index directory. Updates are atomic and crash-safe: readers see the index before one, or after it.

    Records are read, encoded and stored as they come: memory holds some thousand of them, and all their ids. A record's id
    is its `id`, or, without one, made of its content (`Record.content_id`).

    Args:
        path: the index directory.
        embedder: the model. None for the one that the index notes, opened when rows are added; a new index needs one.
        batch_size: see `Embedder.encode`.
        truncation, passage_tokens, overlap: of texts longer than the model reads (`encoding.EncodingOptions`); None for what the
            index notes, and for a new one passages as long as the model reads.
        show_progress_bar: draw a progress bar on stderr.
        counts: filled in, if given.
        on_reject: takes each row that cannot be stored; None where the first one is an error.
        threads: where no model is given, for the index's own one and for FAISS; None for the usual choice.
        offline: the index's own model is never fetched; where it is not there, do not advise to fetch it either.
    """

    def __init__(
        self,
        path: str | Path,
        embedder: Embedder | None = None,
        *,
        batch_size: int = 32,
        truncation: LongTexts | None = None,
        passage_tokens: int | None = None,
        overlap: int | None = None,
        show_progress_bar: bool = False,
        counts: IndexCounts | None = None,
        on_reject: Callable[[Reject], None] | None = None,
        threads: int | None = None,
        offline: bool = False,
    ) -> None:
        self.path = Path(path)
        self.counts = counts if counts is not None else IndexCounts()
        self._embedder = embedder
        self._threads = threads if embedder is None else embedder.threads
        self._offline = offline
        self._row_writer = partial(
            _RowWriter,
            path=self.path,
            options=EncodingOptions(truncation, passage_tokens, overlap, batch_size, show_progress_bar),
            counts=self.counts,
            on_reject=on_reject,
        )

    def __repr__(self) -> str:
        about = describe(self.path)
        if about is None and self._embedder is not None:
            about = f"rows=0, model={self._embedder.model_name!r}, dimension={self._embedder.dimension}"
        return f"IndexWriter({str(self.path)!r}, {about or 'no index yet'})"

    def create(
        self,
        records: Iterable[Row],
        *,
        prompt: str | None = None,
        vectors: FloatArray | VectorsById | None = None,
        kind: str = AUTOMATIC,
        pca: int | None = None,
        column_types: Mapping[str, str] | None = None,
        overwrite: bool = False,
        resume: bool = False,
    ) -> SearchIndex:
        """Make a new index of the records, and return it, opened.

        Args:
            records: the rows.
            vectors: the records' vectors, in their order or by their ids, made with this model and of length 1; None to encode
                the texts.
            kind: the kind of index: `auto`, `exact` or a FAISS factory string (`search.kinds.kind_of`).
            pca: components that FAISS indexes, after PCA; candidates are rescored with the full vectors.
            prompt: put before each text when it is encoded, now and when rows are added later; None for the model's own
                prompt for documents, if it has one.
            column_types: types of columns, by name: `integer`, `number`, `boolean` or `text`. The others are inferred
                (`search.columns`).
            overwrite: take the place of an index that the directory holds, in one step: until then, and after an error, that one
                is used.
            resume: keep the vectors beside the index, in INDEX.partial, until it is whole, and take those from there that an
                interrupted call left; rows that have changed since are encoded.

        Raises:
            IndexExistsError: the directory holds an index, without `overwrite`, or something else.
            IndexLockedError: another process is writing there.
            InputError: there is no record, two have the same id, a value does not fit its column's type, or the vectors do not
                fit. Nothing is stored then.
            UsageError: no model is given, FAISS does not know the kind, or a type is unknown.

        Shapes:
            vectors: (records, dim).
        """
        if self._embedder is None:
            raise UsageError(f"a new index needs a model: IndexWriter({str(self.path)!r}, Embedder())")
        check_kind(kind, self._embedder.dimension, pca)
        model = model_identity(self._embedder, prompt)
        with _directory_of_new(self.path, overwrite=overwrite) as replaced:
            rows = self._row_writer(embedder=self._embedder, resume=resume)
            schema, how = Schema(declared=column_types), SearchKind(kind, pca)
            rows.write(records, model, None, vectors, how, schema, replace=False, replaces=replaced)
        return self._opened()

    def add(
        self,
        records: Iterable[Row],
        *,
        vectors: FloatArray | VectorsById | None = None,
        column_types: Mapping[str, str] | None = None,
    ) -> SearchIndex:
        """Add rows, and return the index, opened. A row without an id of its own that is stored already is counted.

        Args:
            records: the rows.
            vectors: see `create`.
            column_types: see `create`; for columns that the index does not have yet.

        Raises:
            IndexNotFoundError: there is no index.
            IndexLockedError: another process is writing there.
            ModelMismatchError: the index was made with another model.
            InputError: an id is stored already, or stands twice, or a value does not fit its column's type. Nothing is added
                then.
        """
        return self._change(records, vectors, column_types, replace=False)

    def update(
        self,
        records: Iterable[Row],
        *,
        vectors: FloatArray | VectorsById | None = None,
        column_types: Mapping[str, str] | None = None,
    ) -> SearchIndex:
        """Replace the rows with the same ids, add the others, and return the index, opened.

        A row that is stored already, with the same text and columns, is left as it is, unless its vector or another way with long
        texts is given.

        Args:
            records: the rows.
            vectors: see `create`.
            column_types: see `create`; for columns that the index does not have yet.

        Raises:
            IndexNotFoundError: there is no index.
            IndexLockedError: another process is writing there.
            ModelMismatchError: the index was made with another model.
            InputError: an id stands twice, or a value does not fit its column's type. Nothing is changed then.
        """
        return self._change(records, vectors, column_types, replace=True)

    def delete(
        self,
        identities: Iterable[str] = (),
        *,
        filter: str | None = None,
        filter_timeout_s: float | None = TIME_LIMIT_S,
        confirm: Callable[[int], bool] | None = None,
    ) -> int:
        """Delete rows, and return how many there were. No model is needed.

        Their bytes stay in the segments until `compact`; no search and no listing gives them any more.

        Args:
            identities: the ids of the rows.
            filter: an SQL condition on the rows' columns (`search.conditions`): the rows that meet it are deleted too.
            filter_timeout_s: seconds after which the filter is given up; None for no limit.
            confirm: called with the number of rows before anything is deleted; if it returns False, nothing is deleted. The
                index stays locked meanwhile, so the number is exact.

        Raises:
            IndexNotFoundError: there is no index.
            IndexLockedError: another process is writing there.
            InputError: an id is not in the index, or all rows would go. Nothing is deleted then.
            UsageError: neither ids nor a filter were given, or the filter cannot be evaluated.
        """
        require_index(self.path)
        with write_lock(self.path):
            old = Store(self.path)
            rows = rows_to_delete(old, identities, filter, filter_timeout_s, thread_count(self._threads))
            if not len(rows) or (confirm is not None and not confirm(len(rows))):
                return 0
            publish_without(old, rows, thread_count(self._threads))
            old.close()
            sweep(self.path)
        return len(rows)

    def compact(
        self,
        *,
        kind: str | None = None,
        pca: int | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> SearchIndex:
        """Write the rows into one segment, without those that were deleted or replaced; return the index, opened.

        Rows keep their ids, their numbers and their order. What the old segments hold is removed once nobody reads it. Where
        there is nothing to gain the index is left as it is. No model is needed.

        Args:
            kind: the new kind of index (`search.kinds.kind_of`); None for the present one.
            pca: with a kind, components that FAISS indexes; None for all.
            on_progress: called with the rows written so far and the number of all rows.

        Raises:
            IndexNotFoundError: there is no index.
            IndexLockedError: another process is writing there.
            CorruptIndexError: a stored block does not match its checksum; the index is left as it was.
            UsageError: FAISS does not know the kind, or `pca` is given without one.
        """
        requested = requested_kind(kind, pca)
        require_index(self.path)
        with write_lock(self.path):
            old = Store(self.path)
            new_kind = old.kind if requested is None else requested
            check_kind(new_kind.factory, old.model.dimension, new_kind.pca)
            compact_segments(old, new_kind, thread_count(self._threads), on_progress)
            old.close()
            sweep(self.path)
        return self._opened()

    def _change(
        self,
        records: Iterable[Row],
        vectors: FloatArray | VectorsById | None,
        column_types: Mapping[str, str] | None,
        *,
        replace: bool,
    ) -> SearchIndex:
        require_index(self.path)
        with write_lock(self.path):
            old = Store(self.path)
            if self._embedder is None:
                self._embedder = IndexModel(old.model, self.path, self._threads, offline=self._offline).embedder()
            _check_encoder(self._embedder, old.model, self.path)
            schema = Schema(old.columns, column_types)
            rows = self._row_writer(embedder=self._embedder)
            rows.write(records, old.model, old, vectors, old.kind, schema, replace=replace)
            old.close()
            sweep(self.path)
        return self._opened()

    def _opened(self) -> SearchIndex:
        index = SearchIndex(self.path, threads=self._threads)
        index.prepare()
        return index


@contextmanager
def _directory_of_new(path: Path, *, overwrite: bool) -> Iterator[Store | None]:
    """Hold the write lock of the directory of a new index, and yield the generation that it replaces, or None."""
    if not (overwrite and (path / "CURRENT").exists()):
        with creating_index(path):
            yield None
        return
    with write_lock(path), closing(Store(path)) as replaced:
        yield replaced
        replaced.close()
        sweep(path)


class _RowWriter:
    """Writes records into a new segment of an index: it checks them, encodes them, and numbers them.

    Args:
        path: the index directory, whose lock is held.
        embedder: the index's model.
        options: how they are encoded.
        counts: filled in.
        on_reject: takes each row that cannot be stored; None where the first one is an error.
        resume: keep vectors in a journal, and take them from there.
    """

    def __init__(
        self,
        path: Path,
        embedder: Embedder,
        *,
        options: EncodingOptions,
        counts: IndexCounts,
        on_reject: Callable[[Reject], None] | None,
        resume: bool = False,
    ) -> None:
        self._path = path
        self._embedder = embedder
        self._options = options
        self._counts = counts
        self._on_reject = on_reject
        self._resume = resume

    def write(
        self,
        records: Iterable[Row],
        model: ModelIdentity,
        old: Store | None,
        vectors: FloatArray | VectorsById | None,
        kind: SearchKind,
        schema: Schema,
        *,
        replace: bool,
        replaces: Store | None = None,
    ) -> None:
        """Write the records into a new segment, and publish the generation that has it.

        Args:
            records: the rows.
            model: the model of the index.
            old: the generation before, or None for a new index.
            vectors: the records' vectors, or None to encode them.
            kind: the kind of index.
            schema: the columns.
            replace: replace the stored row with the same id, if there is one.
            replaces: see `Generation`.

        Raises:
            InputError: a row cannot be stored, or there is none.
        """
        counts = self._counts
        counts.records = counts.rows = counts.replaced = counts.repeated = counts.unchanged = 0
        counts.split = counts.passages = counts.resumed = 0
        rule = self._options.rule(None if old is None else old.long_texts, self._embedder, model.prompt)
        replaced: list[int] = []
        options = self._options
        same_vectors = vectors is None and (options.truncation, options.passage_tokens, options.overlap) == (None,) * 3
        taken = self._accepted(rows_of(records), old, replaced if replace else None, schema, leave_equal=same_vectors)
        accepted = Counted(taken, expected(records))
        if vectors is None:
            rows = Counted((row for _, row in accepted), expected(accepted))
            blocks = self._encoded(rows, model, rule)
        else:
            blocks = given_blocks(accepted, vectors, model.dimension, counts)

        def check(rows: int) -> None:
            if not rows and not counts.repeated and not counts.unchanged:
                raise InputError("there is no text to index")

        new = Generation(self._path, old, model, kind, rule, schema, self._embedder.threads, replaces)
        counts.rows = publish_change(new, blocks, replaced, check)
        counts.replaced = len(replaced)
        if self._resume:
            remove_journal(self._path)

    def _encoded(self, rows: Iterable[StoredRow], model: ModelIdentity, rule: LongTextRule) -> Iterator[RowBlock]:
        """Yield the rows with their vectors, computed or out of the journal."""
        options, counts = self._options, self._counts
        if not self._resume:
            yield from encoded_blocks(rows, self._embedder, model.prompt, rule, options, counts)
            return
        journal = Journal(self._path, model, rule.truncation)
        if journal.is_of_others:
            raise InputError(
                f"{journal_folder(self._path)} was left by a command with another model, prompt or way with long texts: run that "
                "one, or delete the folder"
            )
        with closing(journal):
            journal.open()
            encoder = JournalingEncoder(self._embedder, journal)
            try:
                yield from encoded_blocks(rows, encoder, model.prompt, rule, options, counts)
            finally:
                counts.resumed = journal.taken
                if journal.is_empty:
                    journal.remove()

    def _accepted(
        self,
        records: Iterable[Row],
        old: Store | None,
        replaced: list[int] | None,
        schema: Schema,
        *,
        leave_equal: bool,
    ) -> Iterator[tuple[int, StoredRow]]:
        """Yield the rows to store, with their records' positions; with `leave_equal` without those that are stored already."""
        origins: dict[str, tuple[str, int]] = {}
        for position, item in enumerate(records):
            self._counts.records += 1
            file, line = getattr(item, "file", ""), getattr(item, "line", 0) or position + 1
            try:
                record = as_record(item, line)
                identity = record.id if record.id is not None else record.content_id()
                row = None if old is None else old.find(identity)
                if record.id is None and (identity in origins or row is not None):
                    self._counts.repeated += 1
                    continue
                if identity in origins:
                    first_file, first_line = origins[identity]
                    where = f"line {first_line}" if first_file == file else f"{first_file}, line {first_line},"
                    raise InputError(
                        f"the id {identity!r} stands on {where} and again on line {line}; ids must be unique"
                    )
                if row is not None and replaced is None:
                    raise InputError(f"the id {identity!r} is in the index already; update replaces it")
                schema.take(record.columns, typed=record.typed)
            except InputError as error:
                if self._on_reject is None:
                    origin = item.place if isinstance(item, Record) and item.line else f"line {line}"
                    raise InputError(f"{origin}: {error}") from error
                self._on_reject(Reject(line, str(error), str(getattr(item, "text", item))[:1000], file))
                continue
            origins[identity] = (file, line)
            stored = StoredRow(identity, record.text, record.columns)
            if row is not None and replaced is not None:
                if leave_equal and old is not None and row_of(old, identity) == stored:
                    self._counts.unchanged += 1
                    continue
                replaced.append(row)
            yield position, stored


def model_identity(embedder: Embedder, prompt: str | None) -> ModelIdentity:
    """Return what an index notes of its model; a prompt of None stands for the model's own for documents."""
    name = embedder.model_name
    return ModelIdentity(
        name=str(embedder.path) if directory(name) is not None else name,
        fingerprint=embedder.fingerprint,
        graph=embedder.graph,
        dimension=embedder.dimension,
        prompt=embedder.document_prompt() if prompt is None else prompt,
        space="" if embedder.space == embedder.fingerprint else embedder.space,
    )


def _check_encoder(embedder: Embedder, model: ModelIdentity, path: Path) -> None:
    """Make sure that the rows that an embedder encodes can be added to an index.

    Raises:
        ModelMismatchError: the index was made with another model, or with another graph of the same one.
    """
    check_model(embedder, model, path)
    if embedder.graph != model.graph:
        raise ModelMismatchError(
            f"{path} was made with the {model.graph} graph of its model, and rows of the {embedder.graph} graph are not added "
            "to it"
        )


def as_record(row: Row, line: int) -> Record:
    """Return a row as a record.

    Args:
        row: see `Row`. An id may be an integer: it is stored as its digits.
        line: where the row stands, for messages.

    Raises:
        InputError: it cannot be stored.
    """
    if isinstance(row, str):
        record = Record(str(row), line=line)
    elif isinstance(row, Record):
        record = row
    elif isinstance(row, StoredRow):
        record = Record(row.text, row.id, row.columns, line)
    elif isinstance(row, Mapping):
        if "text" not in row:
            raise InputError(f"a dict must have the key 'text'; found {', '.join(map(repr, row)) or 'none'}")
        columns = {str(name): value for name, value in row.items() if name not in ("text", "id")}
        record = Record(row["text"], row.get("id"), columns, line)
    else:
        raise InputError(f"a row must be a text, a dict, or a Record; found a {type(row).__name__}")
    if not isinstance(record.text, str) or not record.text.strip():
        raise InputError(f"the text must be a string that is not blank; found {record.text!r}")
    if isinstance(record.id, (int, np.integer)) and not isinstance(record.id, bool):
        record = replace(record, id=str(record.id))
    if record.id is not None and not isinstance(record.id, str):
        raise InputError(f"the id must be a string, an integer or None; found {record.id!r}")
    columns = {name: v.item() if isinstance(v, np.generic) else v for name, v in record.columns.items()}
    try:
        json.dumps(columns, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the columns cannot be stored as JSON: {error}") from error
    return replace(record, columns=columns)
