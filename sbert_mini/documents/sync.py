"""Make an index agree with folders: what is new or changed is encoded, what vanished is removed, in one generation."""

import logging
import shlex
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from sbert_mini.documents import reader
from sbert_mini.documents.formats import CONVERTED_FORMATS, ROW_FORMATS, format_of
from sbert_mini.documents.ignoring import Globs
from sbert_mini.documents.outline import outline, parts
from sbert_mini.documents.publishing import no_row_left, publish_rows
from sbert_mini.documents.reader import BinaryError, DocumentReader, FileContent, failure_of
from sbert_mini.documents.selection import Folder, FolderFile, folders_of, select
from sbert_mini.documents.state import FolderPlan, held_as, plan_folder, stored_files
from sbert_mini.errors import InputError, MissingExtraError
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.runtime.engine import thread_count
from sbert_mini.search.columns import Schema
from sbert_mini.search.creation import creating_index
from sbert_mini.search.deletion import publish_without
from sbert_mini.search.encoding import EncodingOptions, IndexCounts
from sbert_mini.search.journal import MIGRATING, PARTIAL, Journal, JournalingEncoder, journal_folder, remove_journal
from sbert_mini.search.kinds import SearchKind
from sbert_mini.search.merging import Generation
from sbert_mini.search.queries import IndexModel, check_model
from sbert_mini.search.segment import StoredRow
from sbert_mini.search.store import Store, sweep, write_lock
from sbert_mini.search.writer import model_identity
from sbert_mini.text.passages import Span

LARGEST_LOSS = 0.5
"""The share of a folder's rows above which they are removed only where the caller allows it."""
log = logging.getLogger("sbert_mini")
Action: TypeAlias = Literal["add", "change", "remove"]


class RemovalError(InputError):
    """More of a folder's rows would go than are removed without being asked for."""


@dataclass(frozen=True)
class SyncOptions:
    """How folders are read.

    Attributes:
        name: what the rows of the one folder are known by; None for its path as given.
        include: patterns of the files to read; none for all.
        exclude: patterns of the files and folders to leave out.
        encoding: of files that are not UTF-8; None to detect it.
        compare_contents: compare the contents of all files, also where size and time of modification are the same.
        allow_removals: remove more than half of a folder's rows where their files are gone.
        prompt: put before each passage in a new index; None for the model's own one.
        passage_tokens, overlap: see `IndexWriter`.
        batch_size: see `Embedder.encode`.
    """

    name: str | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    encoding: str | None = None
    compare_contents: bool = False
    allow_removals: bool = False
    prompt: str | None = None
    passage_tokens: int | None = None
    overlap: int | None = None
    batch_size: int = 32


@dataclass
class SyncCounts:
    """Counts of a sync, updated while it runs.

    Attributes:
        added: new files that are stored.
        changed: files that took the place of an earlier version.
        unchanged: files that were not read.
        removed: files whose rows were removed.
        empty: files without any text.
        hidden, ignored, binary, links: see `selection.Selection`.
        failed: ids of files, and of folders, that could not be read -> why. Their rows stay.
        rejected: ids of files that were read, but not all their rows -> how many, and why the first.
        encodings: encodings other than UTF-8 -> how many files are in them.
        index: of the rows and passages that were written.
        resumed: passages whose vectors an earlier sync computed that was not finished.
    """

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    empty: int = 0
    hidden: int = 0
    ignored: int = 0
    binary: int = 0
    links: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    encodings: Counter[str] = field(default_factory=Counter)
    index: IndexCounts = field(default_factory=IndexCounts)
    resumed: int = 0

    @property
    def is_change(self) -> bool:
        """Whether the index is another one now."""
        return bool(self.added or self.changed or self.removed)


@dataclass
class SyncPlan:
    """What a sync would do.

    Attributes:
        actions: the action and the file's id, by folder: what is added, what is changed, what is removed.
        empty: new and changed files without any text.
        binary: new and changed files that hold no text.
        failed: ids of files that cannot be read -> why. Tables, HTML, PDF and DOCX are not read for this.
        refusal: why `run` would refuse; None where it would not.
    """

    actions: list[tuple[Action, str]] = field(default_factory=list)
    empty: int = 0
    binary: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    refusal: str | None = None


class FolderSync:
    """Makes an index agree with folders. The index is made where there is none.

    Args:
        path: the index directory.
        folders: paths of the folders.
        options: how they are read.
        embedder: the model; None for the one that the index notes, and for a new index the default one.
        threads: where no model is given; None for the usual choice.
        offline: do not fetch a model.

    Raises:
        InputError: a folder is missing or cannot be read.
        UsageError: an option is none, or a folder lies in another one.
    """

    def __init__(
        self,
        path: str | Path,
        folders: Sequence[str | Path],
        options: SyncOptions | None = None,
        *,
        embedder: Embedder | None = None,
        threads: int | None = None,
        offline: bool = False,
    ) -> None:
        self.path = Path(path)
        self.options = SyncOptions() if options is None else options
        self._given = list(folders)
        self._include = Globs(self.options.include, "--include")
        self._exclude = Globs(self.options.exclude, "--exclude")
        self.folders: list[Folder] = folders_of(self._given, self.options.name)
        self._embedder = embedder
        self._threads, self._offline = threads, offline

    def __repr__(self) -> str:
        return f"FolderSync({str(self.path)!r}, {[folder.name for folder in self.folders]})"

    def plan(self) -> SyncPlan:
        """Return what `run` would do. Nothing is changed or encoded.

        Raises:
            InputError: a folder is missing or cannot be read.
        """
        store = Store(self.path) if (self.path / "CURRENT").exists() else None
        plans = self._plans(store)
        made = SyncPlan(refusal=next((refusal for refusal in map(_refusal, plans) if refusal), None))
        if self.options.allow_removals:
            made.refusal = None
        with DocumentReader(self.options.encoding) as documents:
            for plan in plans:
                made.failed.update({plan.folder.id_of(path): why for path, why in plan.failed.items()})
                for action, files in (("add", plan.new), ("change", plan.changed)):
                    made.actions += [
                        (action, plan.folder.id_of(file.path))  # type: ignore[misc]
                        for file in files
                        if _has_text(documents, plan.folder, file, made)
                    ]
                made.actions += [("remove", plan.folder.id_of(path)) for path in plan.vanished]
        return made

    def run(self, on_progress: Callable[[int, int, int], None] | None = None) -> SyncCounts:
        """Make the index agree with the folders, and return what was done.

        New and changed files are read and encoded, unchanged ones are not. Rows whose files are gone are removed. Rows that no
        sync of these folders made are not touched. All is one new generation: after an error, Ctrl-C or a crash, the index is as
        it was. The vectors that were computed until then are kept beside the index, and the next sync takes them from there.

        Args:
            on_progress: called with the files done, the files to do, and the passages encoded so far.

        Raises:
            InputError: a folder is missing, cannot be read, or is gone before all is read; or no row would be left.
            RemovalError: more than half of a folder's rows would go, and `allow_removals` is off.
            IndexLockedError: another process is writing to the index.
            IndexExistsError: the directory holds something else.
            ModelMismatchError: the model is not the one that the index was made with.
        """
        if (self.path / "CURRENT").exists():
            with write_lock(self.path), closing(Store(self.path)) as old:
                counts = self._write(old, on_progress)
                if counts.is_change:
                    old.close()
                    sweep(self.path)
        else:
            with creating_index(self.path):
                counts = self._write(None, on_progress)
        return counts

    def _plans(self, store: Store | None) -> list[FolderPlan]:
        self.folders = folders_of(self._given, self.options.name)
        left_out = [self.path.resolve(), *(journal_folder(self.path, s).resolve() for s in (PARTIAL, MIGRATING))]
        plans = []
        for folder in self.folders:
            selection = select(folder, self._include, self._exclude, left_out)
            stored = {} if store is None else stored_files(store, folder)
            plans.append(plan_folder(folder, selection, stored, compare_contents=self.options.compare_contents))
            if store is not None and not stored and selection.files:
                self._warn_of_another_name(store, folder, selection.files)
        return plans

    def _warn_of_another_name(self, store: Store, folder: Folder, files: Sequence[FolderFile]) -> None:
        """Say that a folder's files seem to be in the index under another folder's name."""
        if (held := held_as(store, files)) is not None:
            name, count = held
            quoted = name.replace("'", "''")
            log.warning(
                "%d of the %d files of %s are in the index already, as files of %s, and are added a second time. If the folder "
                "was moved, or is given in another way, sync it with --as %s instead. The rows of %s go by: sbmini index delete "
                "%s --filter \"synced_from = '%s'\"",
                *(count, len(files), folder.name, name, shlex.quote(name), name, shlex.quote(str(self.path)), quoted),
            )

    def _write(self, old: Store | None, on_progress: Callable[[int, int, int], None] | None) -> SyncCounts:
        plans = self._plans(old)
        if not self.options.allow_removals:
            for refusal in filter(None, map(_refusal, plans)):
                raise RemovalError(refusal)
        counts = _first_counts(plans)
        gone = [row for plan in plans for path in plan.vanished for row in plan.stored[path].rows]
        if not any(plan.new or plan.changed for plan in plans):
            if old is None:
                raise InputError(no_row_left(self.path, is_new=True))
            if gone:
                self._remove(old, gone)
            return counts
        embedder = self._model(old)
        model = model_identity(embedder, self.options.prompt) if old is None else old.model
        options = EncodingOptions(
            None, self.options.passage_tokens, self.options.overlap, self.options.batch_size, parts=parts_of_row
        )
        rule = options.rule(None if old is None else old.long_texts, embedder, model.prompt)
        kind = SearchKind() if old is None else old.kind
        schema = Schema(() if old is None else old.columns)
        generation = Generation(self.path, old, model, kind, rule, schema, embedder.threads)
        journal = Journal(self.path, model)
        with closing(journal), DocumentReader(self.options.encoding) as documents:
            journal.open()
            rows = _Rows(plans, documents, old, schema, gone, counts)
            total = sum(len(plan.new) + len(plan.changed) for plan in plans)

            def report(written: int) -> None:
                if on_progress is not None:
                    on_progress(rows.files_in(written), total, counts.index.encoding.texts)

            encoder = JournalingEncoder(embedder, journal)
            publish_rows(generation, rows, gone, encoder, options, counts.index, report)
            counts.resumed = journal.taken
            journal.remove()
        return counts

    def _remove(self, old: Store, gone: list[int]) -> None:
        if len(gone) == old.rows:
            raise InputError(no_row_left(self.path, is_new=False))
        publish_without(old, np.array(gone, dtype=np.int64), thread_count(self._threads))
        remove_journal(self.path)

    def _model(self, old: Store | None) -> Embedder:
        """Return the model of the index, opened once."""
        if self._embedder is None:
            if old is None:
                self._embedder = Embedder(threads=self._threads, offline=self._offline)
            else:
                self._embedder = IndexModel(old.model, self.path, self._threads, offline=self._offline).embedder()
        if old is not None:
            check_model(self._embedder, old.model, self.path)
        return self._embedder


def parts_of_row(row: StoredRow) -> list[Span]:
    """Return the parts of a row's text that its passages do not cross: those of its headings or definitions."""
    format, path = row.columns.get(reader.FORMAT), row.columns.get(reader.PATH)
    if reader.LINE in row.columns or not isinstance(format, str):
        return [(0, len(row.text))]
    return parts(row.text, outline(row.text, format, str(path)))


def _refusal(plan: FolderPlan) -> str | None:
    """Return why a folder's rows are not removed without being asked for."""
    if plan.vanished_rows <= LARGEST_LOSS * plan.stored_rows:
        return None
    return (
        f"{plan.vanished_rows} of the {plan.stored_rows} rows of {plan.folder.name} would be removed, more than half, because "
        "their files are gone or ignored: nothing was changed. If that is right, pass --allow-removals (allow_removals=True)"
    )


def _has_text(documents: DocumentReader, folder: Folder, file: FolderFile, made: SyncPlan) -> bool:
    """Return whether a file has text, and note it in the plan where it has none; see `SyncPlan.failed` for what is not read."""
    if format_of(file.path) in ROW_FORMATS | CONVERTED_FORMATS:
        return True
    try:
        if documents.read(folder, file).records:
            return True
        made.empty += 1
    except BinaryError:
        made.binary += 1
    except (InputError, OSError) as error:
        made.failed[folder.id_of(file.path)] = failure_of(error)
    return False


def _first_counts(plans: Sequence[FolderPlan]) -> SyncCounts:
    """Return the counts of what is known before files are read."""
    counts = SyncCounts()
    for plan in plans:
        counts.unchanged += plan.unchanged
        counts.removed += len(plan.vanished)
        for name in ("hidden", "ignored", "binary", "links"):
            setattr(counts, name, getattr(counts, name) + getattr(plan.selection, name))
        counts.failed.update({plan.folder.id_of(path): why for path, why in plan.failed.items()})
    return counts


class _Rows:
    """The rows of the new and changed files, read as they are taken.

    Args:
        plans: what is to be done.
        documents: reads the files.
        old: the generation before, or None.
        schema: notes the rows' columns.
        gone: the numbers of the rows that are replaced are added to it.
        counts: filled in.
    """

    def __init__(
        self,
        plans: Sequence[FolderPlan],
        documents: DocumentReader,
        old: Store | None,
        schema: Schema,
        gone: list[int],
        counts: SyncCounts,
    ) -> None:
        self._plans, self._documents, self._old = plans, documents, old
        self._schema, self._gone, self._counts = schema, gone, counts
        self._ids: set[str] = set()
        self._taken = 0
        self._ends: list[int] = []  # for each file that was read, the rows taken until its last one

    def files_in(self, rows: int) -> int:
        """Return how many files are done once so many rows are written."""
        return bisect_right(self._ends, rows)

    def __iter__(self) -> Iterator[StoredRow]:
        for plan in self._plans:
            changed = {file.path for file in plan.changed}
            for file in sorted((*plan.new, *plan.changed), key=lambda file: file.path):
                yield from self._rows_of(plan, file, is_new=file.path not in changed)
                self._ends.append(self._taken)

    def _rows_of(self, plan: FolderPlan, file: FolderFile, *, is_new: bool) -> Iterator[StoredRow]:
        counts, identity = self._counts, plan.folder.id_of(file.path)
        replaced = [] if is_new else plan.stored[file.path].rows
        first, is_text = self._taken, True
        content = FileContent([])
        try:
            content = self._documents.read(plan.folder, file)
            for row in self._accepted(content, frozenset(replaced)):
                self._taken += 1
                yield row
        except BinaryError:
            counts.binary += 1
            is_text = False
        except (InputError, MissingExtraError, OSError) as error:
            if not plan.folder.path.is_dir():
                raise InputError(f"the folder {plan.folder.path} is gone; nothing was changed") from error
            counts.failed[identity] = failure_of(error)
            if self._taken == first:
                return
        if content.rejected:
            rows = len(content.rejected)
            counts.rejected[identity] = (
                f"{rows} {'row' if rows == 1 else 'rows'} could not be read; the first: {content.rejected[0]}"
            )
            if self._taken == first:
                return
        self._gone += replaced
        if content.encoding not in (None, "utf-8", "utf-8-sig"):
            counts.encodings[content.encoding] += 1
        if self._taken == first:
            counts.empty += is_text
            counts.removed += not is_new
        else:
            counts.added += is_new
            counts.changed += not is_new

    def _accepted(self, content: FileContent, replaced: frozenset[int]) -> Iterator[StoredRow]:
        """Yield the rows of a file that can be stored; the others are rejected."""
        for record in content.records:
            identity = str(record.id)
            try:
                if identity in self._ids:
                    raise InputError(f"the id {identity!r} stands twice")
                row = None if self._old is None else self._old.find(identity)
                if row is not None and row not in replaced:
                    raise InputError(f"the id {identity!r} is that of a row that no sync of this file made")
                self._schema.take(record.columns, typed=record.typed)
            except InputError as error:
                content.rejected.append(f"line {record.line}: {error}" if record.line else str(error))
                continue
            self._ids.add(identity)
            yield StoredRow(identity, record.text, record.columns)
