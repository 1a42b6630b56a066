"""Filters on an index of a million rows: the first time in a process, and again, beside SQLite and DuckDB; searches with filters.

    python -m benchmarks.filters --threads 2 --rounds 5

The rows are random (a seed): an integer, a number, a text of 20 values, a text of a million, a boolean; their vectors lie around
4,096 centres. build/filters keeps the index and the databases, which the first run makes in about three minutes.
"""

import csv
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from sbert_mini import Embedder, IndexWriter, SearchIndex
from sbert_mini.evaluation.measure import summary, timed
from sbert_mini.evaluation.table import Json, Table
from sbert_mini.shapes import FloatArray
from sbert_mini.text.records import Record

FOLDER = Path("build/filters")
ROWS, DIMENSION, CENTRES, K = 1_000_000, 384, 4096, 10
LANGUAGES = tuple("ar cs da de en es fi fr he hi it ja ko nl pl pt ru sv tr zh".split())  # noqa: SIM905
WORDS = (
    "amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty", "knoll", "ledge", "maple", "north",
    "ocean", "prairie", "quarry", "ridge",
)  # fmt: skip
VARIANTS = 15
_SHARES = {"50 %": 500.0, "1 %": 10.0, "0.01 %": 0.1}
"""Share of the rows -> the price below which they are."""

ENGINES = ("sbert-mini", "SQLite", "DuckDB")


def conditions() -> dict[str, list[str]]:
    """Return for each kind of condition some with other values, none twice."""
    title = [title_of(61_803 * (i + 1) % ROWS) for i in range(3 * VARIANTS)]
    numbers = range(VARIANTS)
    pairs = [(LANGUAGES[i], LANGUAGES[(i + 7) % 20]) for i in numbers]
    return {
        "a range of integers": [f"year between {1975 + i} and {1984 + i}" for i in numbers],
        "a range of numbers": [f"price >= {40 * i + 5} and price < {40 * i + 15}" for i in numbers],
        "`=` on a text of 20 values": [f"lang = '{LANGUAGES[i]}'" for i in numbers],
        "`in` on a text of 20 values": [f"lang in ('{a}', '{b}', 'uk')" for a, b in pairs],
        "`=` on a text of a million values": [f"title = '{title[i]}'" for i in numbers],
        "`in` on a text of a million values": [
            "title in ({})".format(", ".join(f"'{one}'" for one in title[3 * i : 3 * i + 3])) for i in numbers
        ],
        "a range and `=`": [f"year >= {1990 + i} and lang = '{LANGUAGES[i]}'" for i in numbers],
        "two ranges": [f"price < {40 * i + 50} and year between {1975 + i} and {1984 + i}" for i in numbers],
        "a boolean and `in`": [f"active and lang in ('{a}', '{b}')" for a, b in pairs],
        "`like` on a text of 20 values": [f"lang like '{LANGUAGES[i][0]}%'" for i in numbers],
        "`like` on a text of a million values": [f"title like '%{WORDS[i]} 1{i:02d}%'" for i in numbers],
    }


def title_of(number: int) -> str:
    """Return the title of a row."""
    return f"{WORDS[number % 18]} {WORDS[number // 18 % 18]} {number * 7919 % ROWS}"


def columns() -> Iterator[tuple[int, float, str, str, bool]]:
    """Yield the rows: year, price, lang, title, active."""
    rng = np.random.default_rng(25)
    years, prices = rng.integers(1970, 2025, ROWS).tolist(), rng.uniform(0, 1000, ROWS).round(3).tolist()
    languages, active = rng.integers(0, 20, ROWS).tolist(), (rng.random(ROWS) < 0.3).tolist()
    for number in range(ROWS):
        yield years[number], prices[number], LANGUAGES[languages[number]], title_of(number), active[number]


def vectors_of(rows: int, seed: int) -> FloatArray:
    """Return random vectors of length 1 around the same centres. Shapes: (rows, DIMENSION)."""
    centres = np.random.default_rng(1).standard_normal((CENTRES, DIMENSION), np.float32)
    rng = np.random.default_rng(seed)
    vectors = np.empty((rows, DIMENSION), np.float32)
    for first in range(0, rows, 50_000):
        some = vectors[first : first + 50_000]
        some[:] = centres[rng.integers(0, CENTRES, len(some))]
        some += 0.7 * rng.standard_normal(some.shape, np.float32)
        some /= np.linalg.norm(some, axis=1, keepdims=True)
    return vectors


def prepare() -> None:
    """Make the index and the databases, where they are missing."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    names = ("year", "price", "lang", "title", "active")
    if not (FOLDER / "index" / "CURRENT").exists():
        records = (
            Record(f"document {number}", str(number), dict(zip(names, row, strict=True)))
            for number, row in enumerate(columns())
        )
        index = IndexWriter(FOLDER / "index", Embedder("sbert-mini")).create(records, vectors=vectors_of(ROWS, 2))
        print(f"{index!r}, {index.segment_kinds}")
    database = FOLDER / "rows.sqlite"
    if not database.exists():
        connection = sqlite3.connect(database)
        connection.execute("CREATE TABLE r (year INTEGER, price REAL, lang TEXT, title TEXT, active INTEGER)")
        connection.executemany("INSERT INTO r VALUES (?, ?, ?, ?, ?)", columns())
        connection.commit()
        connection.close()
    if duckdb := _duckdb():
        database = FOLDER / "rows.duckdb"
        if not database.exists():
            with (FOLDER / "rows.csv").open("w", encoding="utf-8", newline="") as stream:
                csv.writer(stream).writerows([names, *columns()])
            with duckdb.connect(str(database)) as connection:
                connection.execute(f"CREATE TABLE r AS SELECT * FROM read_csv('{FOLDER}/rows.csv', header = true)")  # noqa: S608
            (FOLDER / "rows.csv").unlink()


def _duckdb() -> Any | None:
    try:
        import duckdb
    except ImportError:
        return None
    return duckdb


def _sqlite() -> Callable[[str], int]:
    connection = sqlite3.connect(f"file:{FOLDER}/rows.sqlite?mode=ro", uri=True)
    connection.execute("PRAGMA case_sensitive_like = on")
    return lambda condition: len(connection.execute(f"SELECT rowid FROM r WHERE {condition}").fetchall())  # noqa: S608


def _duck(threads: int) -> Callable[[str], int]:
    import duckdb

    connection = duckdb.connect(f"{FOLDER}/rows.duckdb", read_only=True, config={"threads": threads})
    return lambda condition: len(
        connection.execute(f"SELECT rowid FROM r WHERE {condition}").fetchnumpy()["rowid"]  # noqa: S608
    )


def opened(engine: str, threads: int) -> Callable[[str], int]:
    """Return an engine's way from a condition to the number of rows, whose numbers it has returned."""
    if engine == "SQLite":
        return _sqlite()
    if engine == "DuckDB":
        return _duck(threads)
    index = SearchIndex(FOLDER / "index", threads=threads)
    index.nearest(vectors_of(1, 3), K)  # FAISS is imported, and opened
    return lambda condition: len(index.matching(condition))


def first_ms(engine: str, condition: str, threads: int) -> float:
    """Return the milliseconds of a condition, the first in a new process that has opened the index or the database."""
    command = [sys.executable, "-m", "benchmarks.filters", "--first", engine, condition, str(threads)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def filters(threads: int, rounds: int) -> dict[str, Any]:
    """Return for each kind of condition how many rows meet it, and each engine's times, the first and again."""
    engines = [engine for engine in ENGINES if engine != "DuckDB" or _duckdb()]
    measured: dict[str, Any] = {}
    for kind, variants in conditions().items():
        counts, times = {}, {}
        for engine in engines:
            count = opened(engine, threads)
            counts[engine] = [count(condition) for condition in variants[:2]]
            repeated = variants if engine == "sbert-mini" else variants[:rounds]
            again = [1000 * timed(partial(count, condition)) for condition in repeated]
            first = [first_ms(engine, variants[i % VARIANTS], threads) for i in range(rounds)]
            times[engine] = {"first_ms": summary(first), "again_ms": summary(again)}
        assert all(counts[engine] == counts["sbert-mini"] for engine in engines), (kind, counts)
        measured[kind] = {"condition": variants[0], "rows": counts["sbert-mini"][0], "engines": times}
        shown = ", ".join(
            f"{name} {t['first_ms']['median']:.1f} {t['again_ms']['median']:.1f}" for name, t in times.items()
        )
        print(f"{kind}: {shown} ms")
    return measured


def searches(threads: int) -> dict[str, Any]:
    """Return the milliseconds of a search with a filter, the first time and again, and of the filter alone."""
    queries = vectors_of(40, 4)
    measured: dict[str, Any] = {}
    for share, price in {"all": None, **_SHARES}.items():
        index = SearchIndex(FOLDER / "index", threads=threads)
        index.nearest(queries[:1], K)
        texts = [None if price is None else f"price < {price + i / 1000}" for i in range(len(queries))]

        def one(index: SearchIndex, query: int, filter: str | None) -> None:
            index.nearest(queries[query : query + 1], K, filter=filter)

        first = 1000 * timed(partial(one, index, 0, texts[0]))
        again = [1000 * timed(partial(one, index, i, text)) for i, text in enumerate(texts)]
        alone = [0.0] if price is None else [1000 * timed(partial(index.matching, text)) for text in texts if text]
        rows = len(index) if texts[0] is None else len(index.matching(texts[0]))
        measured[share] = {"rows": rows, "first_ms": first, "again_ms": summary(again), "filter_ms": summary(alone)}
        print(f"a search that {share} of the rows meet: {measured[share]}")
    return measured


def tables(result: Json) -> list[Table]:
    """Return the table of filters and that of searches with one."""
    engines = [name for name in ENGINES if name in next(iter(result["filters"].values()))["engines"]]
    rows = []
    for kind, entry in result["filters"].items():
        cells = [
            f"{entry['engines'][name][when]['median']:.1f}" for name in engines for when in ("first_ms", "again_ms")
        ]
        rows.append((f"{kind}: `{entry['condition'].replace('|', '')}`", f"{entry['rows']:,}", *cells))
    header = ("condition", "rows", *(f"{name}, {when}" for name in engines for when in ("first", "again")))
    filtered = []
    for share, entry in result["searches"].items():
        times = entry["filter_ms"]["median"], entry["again_ms"]["median"], entry["first_ms"]
        filtered.append((share, f"{entry['rows']:,}", *(f"{time:.1f}" for time in times)))
    whole = ("rows that meet the filter", "rows", "the filter", "the whole search", "the first time")
    return [
        Table(
            f"Filters on {result['rows']:,} rows, milliseconds until the rows' numbers are there", header, tuple(rows)
        ),
        Table(
            f"One query, {K} hits of {result['rows']:,} rows (`{result['kind']}`), milliseconds", whole, tuple(filtered)
        ),
    ]


def main() -> None:
    if sys.argv[1:2] == ["--first"]:
        engine, condition, threads = sys.argv[2:]
        run = opened(engine, int(threads))
        print(1000 * timed(partial(run, condition)))
        return
    options = harness.arguments(__doc__, rounds=5)
    prepare()
    kind = SearchIndex(FOLDER / "index").segment_kinds[0]
    result = {
        "rows": ROWS,
        "kind": kind,
        "filters": filters(options.threads, options.rounds),
        "searches": searches(options.threads),
    }
    harness.save("filters", result, options)


if __name__ == "__main__":
    main()
