"""The words of a generation's rows, ranked by BM25: one index for all segments, which tantivy searches.

It is a cache beside FAISS's (`search.word_files` describes its files). A writer makes a generation's words before it publishes
the generation: it links the files of the generation before, adds the new rows and deletes the deleted ones. A reader that finds
no words, or damaged ones, makes them anew from the stored rows.

BM25's statistics are those of the whole index. Deleted rows count in them until tantivy merges the segment that they are in, at
the latest until the index is compacted; they are never found.

Source:
    Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", equation 3.15, with k1 = 1.2 and
    b = 0.75. As in Lucene, a word in n of N rows weighs `log(1 + (N - n + 0.5) / (n + 0.5))`, and the length of a row of more
    than 40 words is rounded down to one of 216 numbers.
"""

import logging
import math
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from sbert_mini.errors import CorruptIndexError
from sbert_mini.files import system
from sbert_mini.files.durable import scratch_folder
from sbert_mini.search.segment import Segment, SegmentVanishedError, shared_lock
from sbert_mini.search.word_files import (
    RECORD,
    ROW,
    TEXT,
    Record,
    check_files,
    content_digest,
    damage_of,
    file_state,
    folder_of,
    opened_folder,
    publish_folder,
    read_record,
)
from sbert_mini.search.word_writer import (
    index_in_memory,
    open_index,
    stored_texts,
    tantivy_errors,
    write_folder,
    write_rows,
)
from sbert_mini.shapes import FloatArray, IntArray

if TYPE_CHECKING:
    from tantivy import Query, Schema, Searcher

T = TypeVar("T")
K1 = 1.2
"""BM25's: how much a word's repetitions count. tantivy has no other."""
FEW_ROWS = 2000
"""So many rows are looked up one by one, when they alone are scored: 0.9 ms for 100 of a million, where a set takes 3.6."""
MADE_IN_A_SEARCH = 200_000
"""The words of so many rows are made within seconds by a search that does not ask for them, if they are missing."""
log = logging.getLogger("sbert_mini")

_opening = threading.RLock()
"""Held while an index of words is opened or made: two threads of one process would make it twice."""


def _renew_lock() -> None:
    global _opening  # noqa: PLW0603
    _opening = threading.RLock()


system.after_fork(_renew_lock)


@dataclass(frozen=True)
class _Opened:
    """An index of words, opened for search.

    Attributes:
        folder: where its files lie.
        schema: tantivy's.
        searcher: tantivy's, over the files as they were; threads and forked processes may share it.
        counted_rows: the rows that count in BM25's statistics: deleted ones too, until they are merged away.
        states: the files' names, and what changes where somebody writes into one (`word_files.file_state`).
    """

    folder: Path
    schema: "Schema"
    searcher: "Searcher"
    counted_rows: int
    states: Mapping[str, tuple[int, ...]]

    def is_unchanged(self) -> bool:
        """Return whether no file was written into; one that was removed is still mapped."""
        for name, state in self.states.items():
            try:
                if file_state(f"{self.folder}/{name}") != state:
                    return False
            except FileNotFoundError:
                continue
        return True


class WordIndex:
    """Searches the words of a generation. Any number of threads, and processes that were forked, may use it.

    Args:
        path: the index directory.
        generation: the generation's number.
        segments: its segments.
        deleted: the numbers of their rows that it does not hold, ascending.
        threads: for making it anew.
    """

    def __init__(
        self, path: Path, generation: int, segments: Sequence[Segment], deleted: IntArray, threads: int
    ) -> None:
        self._folder = folder_of(path, generation)
        self._segments = segments
        self._deleted = deleted
        self._threads = threads
        self._rows = sum(segment.rows for segment in segments) - len(deleted)
        self._content = content_digest(segments, deleted)
        self._opened: _Opened | None = None
        self._has_warned = False
        self._unlock: weakref.finalize[..., WordIndex] | None = None
        self._lock()

    def best(self, terms: Sequence[str], limit: int, among: IntArray | None = None) -> tuple[FloatArray, IntArray]:
        """Return the BM25 scores and the numbers of the rows that hold any of some terms, best first, at most `limit` of them.

        Which of several rows with equal scores come back is tantivy's choice.

        Args:
            terms: different ones, at least one (`analyzer.query_terms`).
            limit: the most rows.
            among: only these rows count; the scores are the same as without it. None for all.

        Shapes:
            each result: (at most limit,).
        """
        return self._searched(lambda opened: self._best(opened, terms, limit, among))

    def greatest_bm25(self, terms: Sequence[str]) -> float:
        """Return what no row's BM25 score of some terms can exceed: the sum of their weights times `k1 + 1`.

        A row would reach it if it held infinitely often every term that there is.

        Args:
            terms: different ones (`analyzer.query_terms`).
        """

        def counts_in(opened: _Opened) -> tuple[int, list[int]]:
            with tantivy_errors(CorruptIndexError, f"{self._folder} cannot be searched"):
                return opened.counted_rows, [opened.searcher.doc_freq(TEXT, term) for term in terms]

        rows, counts = self._searched(counts_in)
        present = [count for count in counts if count]
        return (K1 + 1) * sum(math.log1p((max(rows, count) - count + 0.5) / (count + 0.5)) for count in present)

    def take_long(self) -> bool:
        """Return whether a search would have to make the words of more than `MADE_IN_A_SEARCH` rows first; once it logs so."""
        if self._rows <= MADE_IN_A_SEARCH or self._opened is not None:
            return False
        try:
            if read_record(self._folder, self._content) is not None:
                return False
        except CorruptIndexError:
            pass
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "%s: the words of %d rows are not indexed yet, so the search is by meaning alone; a search with --by both "
                "(in Python by='both') indexes them first, once",
                *(self._folder.parent.parent, self._rows),
            )
        return True

    def damage(self) -> str | None:
        """Return what is wrong with its files, every byte of them, or None; files that are not there are not wrong."""
        return damage_of(self._folder, self._content)

    def close(self) -> None:
        """Close its files, and let them be removed once no generation names them."""
        self._opened = None
        if self._unlock is not None:
            self._unlock()

    def _lock(self) -> None:
        """Hold a shared lock on its record, if there is one: no writer removes the files then."""
        if self._unlock is not None:
            self._unlock()
        try:
            self._unlock = weakref.finalize(self, os.close, shared_lock(self._folder / RECORD))
        except SegmentVanishedError:
            self._unlock = None

    def _searched(self, search: Callable[[_Opened], T]) -> T:
        """Return what a search of the opened index gives; it is made anew where it is damaged."""
        opened = self._open()
        try:
            return search(opened)
        except CorruptIndexError as error:
            return search(self._rebuilt(opened, error))

    def _best(
        self, opened: _Opened, terms: Sequence[str], limit: int, among: IntArray | None
    ) -> tuple[FloatArray, IntArray]:
        with tantivy_errors(CorruptIndexError, f"{self._folder} cannot be searched"):
            hits = opened.searcher.search(_any_of(opened.schema, terms, among), limit, count=False).hits
            rows = opened.searcher.fast_field_values(ROW, [address for _, address in hits])
        if any(row is None for row in rows):
            raise CorruptIndexError(f"{self._folder} holds a row without a number")
        scores, numbers = np.array([score for score, _ in hits], np.float32), np.array(rows, np.int64)
        scores, numbers = (
            scores[scores > 0],
            numbers[scores > 0],
        )  # where few rows come back, some share no word with the query
        if not np.isfinite(scores).all() or len(np.unique(numbers)) < len(numbers) or not self._holds(numbers):
            raise CorruptIndexError(f"{self._folder} names rows that the generation does not hold")
        return scores, numbers

    def _holds(self, rows: IntArray) -> bool:
        """Return whether the generation holds all of some rows."""
        there = np.zeros(len(rows), bool)
        for segment in self._segments:
            there |= segment.positions_of_rows(rows)[1]
        if not len(self._deleted):
            return bool(there.all())
        positions = np.minimum(np.searchsorted(self._deleted, rows), len(self._deleted) - 1)
        return bool(there.all()) and not (self._deleted[positions] == rows).any()

    def _open(self) -> _Opened:
        with _opening:
            if self._opened is None or not self._opened.is_unchanged():
                try:
                    self._opened = self._read() or self._build()
                except CorruptIndexError as error:
                    self._opened = None
                    return self._rebuilt(None, error)
            return self._opened

    def _rebuilt(self, damaged: _Opened | None, error: CorruptIndexError) -> _Opened:
        """Return the index in place of a damaged one; another thread may have made it already."""
        with _opening:
            if self._opened is damaged or self._opened is None:
                log.warning("making the index of words anew from the stored rows: %s", error)
                self._opened = self._build()
            return self._opened

    def _read(self) -> _Opened | None:
        """Return the index that is there, or None."""
        record = read_record(self._folder, self._content)
        if record is None:
            return None
        if self._unlock is None:
            self._lock()
        return self._opened_from(self._folder, record)

    def _opened_from(self, folder: Path, record: Record) -> _Opened:
        states = check_files(folder, record)
        with (
            tantivy_errors(CorruptIndexError, f"{folder} cannot be opened by tantivy"),
            opened_folder(folder, record) as links,
        ):
            index = open_index(links, record)
            searcher = index.searcher()
        if searcher.num_docs != self._rows:
            raise CorruptIndexError(f"{folder} must hold {self._rows} rows, and holds {searcher.num_docs}")
        counted = sum(segment["max_doc"] for segment in record["segments"])
        return _Opened(folder, index.schema, searcher, counted, states)

    def _build(self) -> _Opened:
        """Return the index, made from the stored rows; where it cannot be kept, it is made in memory."""
        try:
            self._folder.parent.mkdir(exist_ok=True)
            with scratch_folder(self._folder) as scratch:
                made = scratch / "new"
                write_folder(made, self._content, self._segments, self._deleted, self._threads)
                record = read_record(made, self._content)
                if record is None:
                    raise OSError(f"{made} was removed")
                opened = self._opened_from(made, record)
                publish_folder(made, self._folder)
            self._lock()
            return replace(opened, folder=self._folder)
        except OSError as error:  # a read-only index is searched all the same
            log.warning("the index of words %s was not kept: %s", self._folder, error)
        index = index_in_memory()
        write_rows(index, stored_texts(self._segments, self._deleted), (), self._rows, self._threads)
        return _Opened(self._folder, index.schema, index.searcher(), self._rows, {})


def _any_of(schema: "Schema", terms: Sequence[str], among: IntArray | None) -> "Query":
    """Return tantivy's query for the rows that hold any of some terms. The terms are never parsed as its query language."""
    from tantivy import Occur, Query

    each = [Query.term_query(schema, TEXT, term, "freq") for term in terms]
    words = Query.boolean_query([(Occur.Should, term) for term in each])
    if among is None:
        return words
    if len(among) > FEW_ROWS:
        rows = Query.const_score_query(Query.term_set_query(schema, ROW, among.tolist()), 0.0)
        return Query.boolean_query([(Occur.Must, rows), (Occur.Must, words)])
    numbers = [(Occur.Should, Query.term_query(schema, ROW, number)) for number in among.tolist()]
    scored = Query.const_score_query(Query.boolean_query(numbers), 0.0)
    for (
        term
    ) in each:  # one inside the other: each looks up these rows alone, while all together would read the rows around
        scored = Query.boolean_query([(Occur.Must, scored), (Occur.Should, term)])
    return scored
