"""A segment's words in one SQLite file: rows are ranked by FTS5's BM25.

The file holds the table `words`, an FTS5 index of the texts (not the texts themselves), stemmed by Porter's algorithm. It is
written once, and opened read-only after that.
"""

import math
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sbert_mini.errors import CorruptIndexError
from sbert_mini.shapes import AnyArray

SPLITTER = "unicode61 remove_diacritics 2"
TOKENIZER = f"porter {SPLITTER}"
MAX_WORDS, MAX_POSTINGS = 256, 200_000
_BATCH = 1000


class WordsWriter:
    """Writes a segment's words. A context manager; what it left after an exception is the caller's to remove.

    Args:
        path: the file; there must be none.

    Raises:
        OSError: the disk is full, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._texts: list[tuple[int, str]] = []
        self._position = 0

    def __enter__(self) -> "WordsWriter":
        self._db = sqlite3.connect(os.fsencode(self._path), isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE"):
            self._execute(f"PRAGMA {pragma}")
        self._execute("BEGIN")
        self._execute(f"CREATE VIRTUAL TABLE words USING fts5(text, content='', tokenize='{TOKENIZER}')")
        return self

    def write(self, text: str) -> None:
        """Append a row's text; its position is the count of those before it."""
        self._texts.append((self._position, text.encode("utf-8", "replace").decode()))
        self._position += 1
        if len(self._texts) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._texts:
            self._execute("INSERT INTO words (rowid, text) VALUES (?, ?)", self._texts)
            self._texts = []

    def _execute(self, statement: str, rows: Sequence[tuple[int, str]] | None = None) -> None:
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


class _Connections:
    """Read-only connections to one SQLite file, each of which serves one call at a time, in the process that opened it.

    One that was opened before a fork is neither used nor closed in the child.
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


class Words:
    """A segment's words, opened read-only. The caller has checked the file's bytes.

    Any number of threads, and processes that were forked, may use it.

    Args:
        path: the file.
        rows: of the segment.

    Raises:
        CorruptIndexError: SQLite cannot read it.
    """

    def __init__(self, path: Path, rows: int) -> None:
        self.rows = rows
        self._connections = _Connections(path)
        try:
            with self._connections.lent():
                pass
        except sqlite3.Error as error:
            raise CorruptIndexError(f"{path} cannot be read: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._connections.close()

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
                values += [weight / _fts5_weight(self.rows, counts[stem]), f'"{word}"']
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


def weights(query: str, segments: Sequence[Words]) -> dict[str, tuple[str, float]]:
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
