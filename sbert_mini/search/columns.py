"""A segment's columns and words in one SQLite file: filters are SQL conditions, and words are ranked by FTS5's BM25.

The file holds two tables: `rows`, a row's position, its id and its columns, and `words`, an FTS5 index of the texts (not the
texts themselves), stemmed by Porter's algorithm. It is written once, and opened read-only after that.

**Types.** A column has SQLite's NUMERIC affinity: what reads as a number compares as one, so that `year >= 2020` means the same
whether the rows came from JSON or from a CSV file, whose values are all strings. true and false are 1 and 0, null and a column
that a row does not have are NULL, lists and objects are their JSON text (`json_extract(tags, '$[0]')`). `id` is the row's id; a
column of that name that is not the id column cannot be filtered by.
"""

import json
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from sbert_mini.errors import CorruptIndexError, InputError, UsageError
from sbert_mini.shapes import AnyArray, IntArray

POSITION, ID = "_position", "id"
SPLITTER = "unicode61 remove_diacritics 2"
TOKENIZER = f"porter {SPLITTER}"
MAX_COLUMNS = 1900
MAX_WORDS, MAX_POSTINGS = 256, 200_000
_BATCH = 1000
_ALLOWED = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _value(value: Any) -> int | float | str | None:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if value is None or isinstance(value, float):
        return value
    return json.dumps(value, ensure_ascii=False)


class ColumnsWriter:
    """Writes a segment's SQLite file. A context manager; what it left after an exception is the caller's to remove.

    Args:
        path: the file; there must be none.

    Raises:
        OSError: the disk is full, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: dict[str, str] = {}  # as SQLite compares names -> as it was first spelled
        self._pending: list[tuple[Any, ...]] = []
        self._texts: list[tuple[int, str]] = []
        self._keys: tuple[str, ...] = ()
        self._position = 0

    def __enter__(self) -> "ColumnsWriter":
        self._db = sqlite3.connect(self._path, isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE"):
            self._execute(f"PRAGMA {pragma}")
        self._execute("BEGIN")
        self._execute(f"CREATE TABLE rows ({POSITION} INTEGER PRIMARY KEY, {ID} TEXT)")
        self._execute(f"CREATE VIRTUAL TABLE words USING fts5(text, content='', tokenize='{TOKENIZER}')")
        return self

    def write(self, identity: str, text: str, columns: Mapping[str, Any]) -> None:
        """Append a row; its position is the count of those before it.

        Raises:
            InputError: there are too many columns, or two names differ in case alone.
        """
        keys = tuple(name for name in columns if name.lower() != ID)
        if keys != self._keys or len(self._pending) >= _BATCH:
            self._flush()
            self._keys = keys
            for name in keys:
                self._add_column(name)
        self._pending.append((self._position, _value(identity), *(_value(columns[name]) for name in keys)))
        self._texts.append((self._position, text.encode("utf-8", "replace").decode()))
        self._position += 1

    def _add_column(self, name: str) -> None:
        known = self._names.get(name.lower())
        if known == name:
            return
        if known is not None:
            raise InputError(
                f"the columns {known!r} and {name!r} differ in case alone, which filters cannot tell apart"
            )
        if len(self._names) >= MAX_COLUMNS or name == POSITION or "\0" in name:
            why = "is a reserved name" if name == POSITION else f"is one of more than {MAX_COLUMNS}, or not a name"
            raise InputError(f"the column {name!r} {why}")
        self._names[name.lower()] = name
        self._execute(f"ALTER TABLE rows ADD COLUMN {_quoted(name)} NUMERIC")

    def _flush(self) -> None:
        if not self._pending:
            return
        names = ", ".join((POSITION, ID, *map(_quoted, self._keys)))
        marks = ", ".join("?" * (2 + len(self._keys)))
        self._execute(f"INSERT INTO rows ({names}) VALUES ({marks})", self._pending)  # noqa: S608
        self._execute("INSERT INTO words (rowid, text) VALUES (?, ?)", self._texts)
        self._pending, self._texts = [], []

    def _execute(self, statement: str, rows: Sequence[tuple[Any, ...]] | None = None) -> None:
        try:
            if rows is None:
                self._db.execute(statement)
            else:
                self._db.executemany(statement, rows)
        except sqlite3.Error as error:
            raise OSError(f"{self._path} cannot be written: {error}") from error

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
                self._execute("INSERT INTO words (words) VALUES ('optimize')")
                self._execute("COMMIT")
        finally:
            self._db.close()


def _authorize(action: int, first: str | None, second: str | None, *_: object) -> int:
    harmless = action in _ALLOWED and "load_extension" not in (first, second)
    return sqlite3.SQLITE_OK if harmless else sqlite3.SQLITE_DENY


class _Connections:
    """Read-only connections to one SQLite file, each of which serves one call at a time, in the process that opened it.

    A connection that two threads share can deadlock: one holds SQLite's mutex and waits for Python's lock in a callback, the
    other the other way round. One that was opened before a fork is neither used nor closed in the child.
    """

    def __init__(self, path: Path) -> None:
        self._uri = f"file:{quote(os.fsencode(path.resolve()))}?immutable=1"
        self._free: dict[int, list[sqlite3.Connection]] = {}

    @contextmanager
    def lent(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection to one call."""
        free = self._free.setdefault(os.getpid(), [])
        try:
            db = free.pop()
        except IndexError:
            db = sqlite3.connect(self._uri, uri=True, check_same_thread=False)
            db.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, words, row)")
        try:
            yield db
        finally:
            free.append(db)

    def close(self) -> None:
        """Close those of this process that no call uses."""
        for db in self._free.pop(os.getpid(), []):
            db.close()


class Columns:
    """A segment's SQLite file, opened read-only. The caller has checked its bytes.

    Args:
        path: the file.

    Raises:
        CorruptIndexError: SQLite cannot read it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._connections = _Connections(path)
            with self._connections.lent() as db:
                described = db.execute("SELECT name FROM pragma_table_info('rows')").fetchall()
                (self._count,) = db.execute("SELECT count(*) FROM rows").fetchone()
        except sqlite3.Error as error:
            raise CorruptIndexError(f"{path} cannot be read: {error}") from error
        self.names: tuple[str, ...] = tuple(name for (name,) in described if name != POSITION)

    def close(self) -> None:
        """Close the file."""
        self._connections.close()

    def matching(self, condition: str, names: Iterable[str]) -> IntArray:
        """Return the positions of the rows that meet an SQL condition, ascending.

        Args:
            condition: such as `year >= 2020 and lang = 'en'`.
            names: the columns that the whole index has; those that this segment lacks are NULL in all its rows.

        Raises:
            UsageError: it is no condition that SQLite understands, or does more than read.
        """
        own = {name.lower() for name in self.names}
        lacking = {name.lower(): name for name in names if name.lower() not in own}
        also = "".join(f", NULL AS {_quoted(name)}" for name in lacking.values())
        with self._connections.lent() as db:
            db.set_authorizer(_authorize)
            try:
                # The line breaks keep a comment in the condition from swallowing the parenthesis.
                found = db.execute(
                    f"SELECT {POSITION} FROM (SELECT *{also} FROM rows) WHERE (\n{condition}\n) ORDER BY {POSITION}"  # noqa: S608
                ).fetchall()
            except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
                known = ", ".join(dict.fromkeys((*self.names, *lacking.values())))
                raise UsageError(f"the filter {condition!r} cannot be evaluated: {error}. Columns: {known}") from error
            finally:
                db.set_authorizer(None)
        return np.fromiter((position for (position,) in found), np.int64, len(found))

    @property
    def rows(self) -> int:
        """How many rows the segment has."""
        return self._count

    def frequencies(self, stems: Iterable[str]) -> dict[str, int]:
        """Return in how many rows each stem stands."""
        found = {}
        with self._connections.lent() as db:
            for stem in stems:
                row = db.execute("SELECT doc FROM temp.vocabulary WHERE term = ?", (stem,)).fetchone()
                found[stem] = 0 if row is None else int(row[0])
        return found

    def ranked(
        self, words: Mapping[str, tuple[str, float]], depth: int, allowed: AnyArray | None = None
    ) -> list[tuple[int, float]]:
        """Return the positions and scores of the rows that hold any of some words, best first, by BM25.

        Args:
            words: stem -> a word of that stem, and the stem's weight (`weights`).
            depth: the most rows.
            allowed: which rows count, (rows,) bool; None for all.

        Source:
            Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", equation 3.15, with k1 = 1.2
            and b = 0.75: SQLite's `bm25()` with its weight of a word, which knows this segment alone, replaced by that over the
            whole index. The mean length of a row is the segment's.
        """
        counts = self.frequencies(words)
        parts, values = [], []
        for stem, (word, weight) in words.items():
            if counts[stem]:
                parts.append("SELECT rowid AS position, -? * bm25(words) AS score FROM words WHERE words MATCH ?")
                values += [weight / _fts5_weight(self._count, counts[stem]), f'"{word}"']
        if not parts:
            return []
        found: list[tuple[int, float]] = []
        # Without the LIMIT SQLite folds a single part into the sum, where bm25() cannot be called.
        both = f"{' UNION ALL '.join(parts)} LIMIT -1"
        with self._connections.lent() as db:
            rows = db.execute(
                f"SELECT position, sum(score) FROM ({both}) GROUP BY position ORDER BY 2 DESC, 1",  # noqa: S608
                values,
            )
            for position, score in rows:
                if allowed is None or allowed[position]:
                    found.append((position, score))
                    if len(found) == depth:
                        break
            rows.close()
        return found


def _fts5_weight(rows: int, count: int) -> float:
    """Return what FTS5 multiplies a word's part of the score with, that stands in `count` of `rows` rows."""
    return max(math.log((rows - count + 0.5) / (count + 0.5)), 1e-6)


def stems_of(query: str) -> dict[str, str]:
    """Return a query's words by their stems: stem -> the first word of that stem, at most `MAX_WORDS` of them."""
    db = sqlite3.connect(":memory:")
    try:
        # Split by FTS5 itself, as the rows' texts are, and then stemmed word by word.
        for name, tokenizer in (("plain", SPLITTER), ("stemmed", TOKENIZER)):
            db.execute(f"CREATE VIRTUAL TABLE {name} USING fts5(text, tokenize='{tokenizer}')")
            db.execute(f"CREATE VIRTUAL TABLE {name}_terms USING fts5vocab({name}, instance)")
        db.execute("INSERT INTO plain (text) VALUES (?)", (query.encode("utf-8", "replace").decode(),))
        terms = db.execute("SELECT term FROM plain_terms ORDER BY offset").fetchall()
        words = list(dict.fromkeys(term for (term,) in terms))[:MAX_WORDS]
        db.executemany("INSERT INTO stemmed (rowid, text) VALUES (?, ?)", enumerate(words))
        found: dict[str, str] = {}
        for stem, position in db.execute("SELECT term, doc FROM stemmed_terms ORDER BY doc").fetchall():
            found.setdefault(stem, words[position])
        return found
    finally:
        db.close()


def weights(query: str, segments: Sequence[Columns]) -> dict[str, tuple[str, float]]:
    """Return a query's words with their weights over all segments: `log((N - n + 0.5) / (n + 0.5))`, N rows, n with the word.

    Words that stand in half of the rows or more weigh nothing, and are left out where there are others; so are a query's most
    frequent words as far as its words stand, taken together, in more than `MAX_POSTINGS` rows.
    """
    words = stems_of(query)
    rows = sum(segment.rows for segment in segments)
    counts = dict.fromkeys(words, 0)
    for segment in segments:
        for stem, count in segment.frequencies(words).items():
            counts[stem] += count
    found = {stem: (word, _fts5_weight(rows, counts[stem])) for stem, word in words.items() if counts[stem]}
    telling = {stem: entry for stem, entry in found.items() if 2 * counts[stem] < rows}
    kept: dict[str, tuple[str, float]] = {}
    postings = 0
    for stem, entry in sorted((telling or found).items(), key=lambda item: counts[item[0]]):
        postings += counts[stem]
        if kept and postings > MAX_POSTINGS:
            break
        kept[stem] = entry
    return kept
