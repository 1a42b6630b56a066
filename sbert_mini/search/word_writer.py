"""Makes the words of a generation: from the stored rows, or from the words of the generation before."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from sbert_mini.errors import CorruptIndexError, SbertMiniError
from sbert_mini.files.durable import scratch_folder
from sbert_mini.files.paths import is_utf8
from sbert_mini.search.analyzer import ANALYZER_NAME, analyzer, normalized
from sbert_mini.search.segment import Segment, segment_folder
from sbert_mini.search.store import Store
from sbert_mini.search.word_files import (
    ROW,
    TEXT,
    Record,
    content_digest,
    folder_of,
    link_files,
    publish_folder,
    read_record,
    remove_words,
    seal,
    write_meta,
)
from sbert_mini.shapes import IntArray

if TYPE_CHECKING:
    from tantivy import Index

HEAP_BYTES, SMALL_HEAP_BYTES = 128_000_000, 15_000_000
"""Of tantivy's writer; the smaller one is the least that it takes, for a change of few rows."""
FEW_ROWS = 20_000
"""Up to so many new rows are written by one thread: each thread makes a segment of tantivy's, and a search looks into each."""
NO_ROWS: Record = {"segments": [], "opstamp": 0}

log = logging.getLogger("sbert_mini")


@contextmanager
def tantivy_errors(failure: type[Exception], what: str) -> Iterator[None]:
    """Raise `failure` where tantivy raises anything, a panic of its Rust code included."""
    try:
        yield
    except SbertMiniError:
        raise
    except (OSError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError, SystemError) as error:
        raise failure(f"{what}: {error}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # pyo3's, which is no Exception
            raise
        raise failure(f"{what}: {error}") from error


def open_index(folder: Path, record: Record = NO_ROWS) -> "Index":
    """Return tantivy's index of a folder that only this process knows, whose list of segments is written first."""
    from tantivy import Index

    write_meta(folder, record)
    if is_utf8(folder):
        index = Index.open(str(folder))
    else:  # tantivy takes a name in UTF-8 alone, and then follows links
        with TemporaryDirectory(prefix="sbmini-words-") as temporary:
            link = Path(temporary) / "words"
            link.symlink_to(folder.resolve())
            index = Index.open(str(link))
    index.config_reader("manual")  # ends the thread that would wait for changes
    index.register_tokenizer(ANALYZER_NAME, analyzer())
    index.reload()
    return index


def index_in_memory() -> "Index":
    """Return an empty index of tantivy's that has no files."""
    from tantivy import Index, SchemaBuilder

    schema = (
        SchemaBuilder()
        .add_integer_field(ROW, indexed=True, fast=True)
        .add_text_field(TEXT, index_option="freq", tokenizer_name=ANALYZER_NAME)
        .build()
    )
    index = Index(schema)
    index.config_reader("manual")
    index.register_tokenizer(ANALYZER_NAME, analyzer())
    return index


def stored_texts(segments: Iterable[Segment], deleted: IntArray) -> Iterator[tuple[int, str]]:
    """Yield the numbers and the texts of the rows of some segments, but for deleted ones.

    Raises:
        CorruptIndexError: a stored block does not match its checksum.
    """
    gone = set(deleted.tolist())
    for segment in segments:
        for row, text in zip(segment.row_ids.tolist(), segment.texts(), strict=True):
            if row not in gone:
                yield row, text


def write_rows(
    index: "Index", texts: Iterable[tuple[int, str]], deleted: Iterable[int], count: int, threads: int
) -> None:
    """Add rows to an index, delete others, and wait until it is written.

    Args:
        index: tantivy's.
        texts: the numbers and texts of the new rows.
        deleted: the numbers of the rows to delete, which are in the index.
        count: how many new rows there are about.
        threads: for tantivy.

    Raises:
        OSError: tantivy cannot write it.
    """
    from tantivy import Document

    few = count <= FEW_ROWS
    with tantivy_errors(OSError, "tantivy cannot write the index of words"):
        writer = index.writer(SMALL_HEAP_BYTES if few else HEAP_BYTES, 1 if few else min(threads, 8))
        try:
            for row in deleted:
                writer.delete_documents_by_term(ROW, row)
            for row, text in texts:
                document = Document()  # its keyword arguments take twice the time
                document.add_integer(ROW, row)
                document.add_text(TEXT, normalized(text))
                writer.add_document(document)
            writer.commit()
            writer.wait_merging_threads()
            index.reload()
        except BaseException:
            del writer  # ends its threads before their files are removed
            raise


def write_folder(folder: Path, content: str, segments: Sequence[Segment], deleted: IntArray, threads: int) -> None:
    """Make a folder of words from the stored rows.

    Args:
        folder: the folder, which is made.
        content: its `content_digest`.
        segments: the segments.
        deleted: the numbers of their rows that it does not hold.
        threads: for tantivy.

    Raises:
        OSError: it cannot be written.
        CorruptIndexError: a stored block does not match its checksum.
    """
    folder.mkdir()
    rows = sum(segment.rows for segment in segments) - len(deleted)
    write_rows(open_index(folder), stored_texts(segments, deleted), (), rows, threads)
    seal(folder, content, rows, None)


def write_generation(
    path: Path,
    generation: int,
    entries: Sequence[Mapping[str, Any]],
    deleted: IntArray,
    old: Store | None,
    threads: int,
) -> None:
    """Make the words of a generation that is published next.

    They are a cache: where they cannot be made, a warning says so, and the first search that needs them makes them.

    Args:
        path: the index directory, whose lock is held.
        generation: the generation's number.
        entries: its segments, as they will stand in its manifest.
        deleted: the numbers of the rows that it will not hold.
        old: the generation before, or None for a new index.
        threads: for tantivy.
    """
    folder = folder_of(path, generation)
    opened = {} if old is None else {segment.name: segment for segment in old.segments}
    try:
        folder.parent.mkdir(exist_ok=True)
        with ExitStack() as stack:
            scratch = stack.enter_context(scratch_folder(folder))
            segments = []
            for entry in entries:
                if entry["name"] not in opened:
                    opened[entry["name"]] = Segment(segment_folder(path, entry), entry)
                    stack.callback(opened[entry["name"]].close)
                segments.append(opened[entry["name"]])
            _write(scratch / "new", segments, deleted, old, threads)
            publish_folder(scratch / "new", folder)
    except (OSError, CorruptIndexError) as error:
        remove_words(folder)  # what a writer that died left there is of other rows
        log.warning("the index of words %s was not made, which the first search by words does: %s", folder, error)


def _write(folder: Path, segments: Sequence[Segment], deleted: IntArray, old: Store | None, threads: int) -> None:
    content = content_digest(segments, deleted)
    if old is not None and not {segment.name for segment in old.segments}.isdisjoint(s.name for s in segments):
        try:
            _carry_on(old, folder, content, segments, deleted, threads)
            return
        except (OSError, CorruptIndexError) as error:
            log.warning("making the index of words anew from the stored rows: %s", error)
            remove_words(folder)
    write_folder(folder, content, segments, deleted, threads)


def _try_terms(index: "Index") -> None:
    """Look a term of each field up in each segment, in this thread, where a panic of a damaged file is an exception.

    tantivy deletes rows in a thread of its own, and there a panic ends the process.
    """
    from tantivy import Query

    searcher = index.searcher()
    for field, value in ((ROW, 0), (TEXT, "a")):
        searcher.search(Query.term_query(index.schema, field, value), 1)


def _carry_on(
    old: Store, folder: Path, content: str, segments: Sequence[Segment], deleted: IntArray, threads: int
) -> None:
    """Make a folder of words from that of the generation before: link its files, add the new rows, delete the missing ones.

    Raises:
        FileNotFoundError: there is none, or one of an earlier version.
        OSError: it cannot be written.
        CorruptIndexError: it is damaged.
    """
    before = folder_of(old.folder, old.generation)
    record = read_record(before, content_digest(old.segments, old.deleted))
    if record is None:
        raise FileNotFoundError(f"{before} holds no words")
    folder.mkdir()
    link_files(before, record, folder)
    names, kept = {segment.name for segment in old.segments}, {segment.name for segment in segments}
    new = [segment for segment in segments if segment.name not in names]
    merged = [segment.row_ids for segment in old.segments if segment.name not in kept]
    gone = np.setdiff1d(deleted, old.deleted)
    if merged:  # their rows are in the new segments, but for those that are left out
        left_out = np.setdiff1d(np.concatenate(merged), np.concatenate([*(s.row_ids for s in new), old.deleted]))
        gone = np.union1d(gone, left_out)
    next_row = int(old.manifest["next_row"])
    texts = ((row, text) for row, text in stored_texts(new, gone) if row >= next_row)
    count = sum(int(np.count_nonzero(segment.row_ids >= next_row)) for segment in new)
    with tantivy_errors(CorruptIndexError, f"{before} cannot be read by this tantivy"):
        index = open_index(folder, record)
        _try_terms(index)
    write_rows(index, texts, gone.tolist(), count, threads)
    rows = sum(segment.rows for segment in segments) - len(np.unique(deleted))
    if index.searcher().num_docs != rows:
        raise CorruptIndexError(f"{before} did not hold the rows that its record tells of")
    seal(folder, content, rows, (before, record))
