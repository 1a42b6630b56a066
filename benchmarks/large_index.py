"""An index of a million sentences: build, memory, recall, time of a query, of a cold start and of adding rows.

The sentences are those of sentences_wikipedia_1; the last 1,000 of them are the queries. build/large_index keeps their vectors.
"""

import gzip
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from sbert_mini import SearchIndex
from sbert_mini.evaluation.measure import alternate, median_ratio, process, summary, timed
from sbert_mini.evaluation.retrieval import SEMANTIC_SEARCH, exact_search, recall_of
from sbert_mini.evaluation.table import Json, Table
from sbert_mini.evaluation.tables import spread
from sbert_mini.evaluation.texts import SENTENCES
from sbert_mini.shapes import FloatArray

FOLDER = Path("build/large_index")
LARGE_INDEX, SMALL_INDEX = FOLDER / "index", FOLDER / "small"
QUERIES, ADDED, K = 1000, 1000, 10
SMALL = 20_000
SBMINI = str(Path(sys.executable).with_name("sbmini"))
_RESIDENT = """
import sys
from sbert_mini import SearchIndex
index = SearchIndex(sys.argv[1], threads=int(sys.argv[3]))
for query in open(sys.argv[2], encoding="utf-8"):
    index.search(query.strip(), 10)
"""


def run(*arguments: object) -> tuple[float, int]:
    """Run `sbmini` and return its seconds and peak bytes."""
    return process([SBMINI, *map(str, arguments)])


def raced(
    index: SearchIndex, rows: FloatArray, queries: FloatArray, threads: int, rounds: int
) -> dict[str, list[float]]:
    """Return queries a second of a batch, of the index and of sentence-transformers, alternating."""
    import torch
    from sentence_transformers.util import dot_score, semantic_search

    torch.set_num_threads(threads)
    corpus, requests = torch.from_numpy(rows), torch.from_numpy(queries)
    ours = partial(index.nearest, queries, K)
    theirs = partial(semantic_search, requests, corpus, top_k=K, score_function=dot_score)

    def rate(search: Callable[[], object]) -> float:
        return QUERIES / timed(search)

    return alternate({"index": partial(rate, ours), SEMANTIC_SEARCH: partial(rate, theirs)}, rounds)


def tables(result: Json) -> list[Table]:
    """Return the table of an index of a million rows."""
    add = result["add_s"]
    ours, peer = result["queries_per_s"].values()
    rows = {
        "building from vectors, the process": f"{result['build_s']:.0f} s, {result['build_peak_bytes'] / 1e6:,.0f} MB",
        "peak memory of a process that encodes and searches": f"{result['search_peak_bytes'] / 1e6:,.0f} MB",
        f"recall@{result['k']} against exact search": f"{result['recall']:.4f}",
        "one query, in a process": f"{spread(result['single_ms'], 2)} ms",
        "one query with a filter": f"{spread(result['filtered_ms'], 1)} ms",
        "one query with `--hybrid`, encoding included": f"{spread(result['hybrid_ms'], 0)} ms",
        f"a batch of {result['queries']:,} queries": f"{ours['median']:,.0f} queries/s; "
        f"{result['times_faster']:.1f} times `{SEMANTIC_SEARCH}` ({peer['median']:,.0f})",
        "`sbmini search` from a cold start": f"{spread(result['cold_start_s'], 2)} s",
        "adding 1,000 rows with vectors, the process": f"{add['large']['median']:.2f} s (to {result['small_rows']:,} rows: "
        f"{add['small']['median']:.2f} s)",
        "on the disk": f"{result['bytes'] / 1e9:.2f} GB",
    }
    header = (f"{result['rows']:,} rows of {result['dim']}, `{result['kind']}`", "measured")
    return [Table("A large index", header, tuple(rows.items()))]


def capacity(result: Json, sentences_per_s: float) -> list[Table]:
    """Return the table of what more rows need: its first row is measured, the others are extrapolated linearly.

    Args:
        result: the record of this module.
        sentences_per_s: how fast `sbmini encode` encodes them.
    """
    building = 10 * result["build_peak_bytes"] / 1e9
    notes = {
        1: "measured",
        10: f"extrapolated; a building process needs about {building:.0f} GB of memory",
        100: "extrapolated; encode on Ray and serve from Milvus: one machine would build it in parts, and hold the only copy",
    }
    fixed = 150e6  # bytes of the process with its model, in what was measured
    rows = []
    for times, note in notes.items():
        memory = fixed + times * (result["search_peak_bytes"] - fixed)
        rows.append(
            (
                f"{times * result['rows'] / 1e6:,.0f} million",
                _duration(times * result["rows"] / sentences_per_s),
                _duration(times * result["build_s"]),
                f"{times * result['bytes'] / 1e9:,.0f} GB",
                f"{memory / 1e9:.1f} GB",
                note,
            )
        )
    header = (
        "rows",
        "encoding, 2 cores",
        "building, 2 cores",
        "on the disk",
        "memory while searching",
        "how it is known",
    )
    return [Table("Capacity", header, tuple(rows))]


def _duration(seconds: float) -> str:
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def write_files(source: Path, threads: int) -> tuple[list[str], FloatArray]:
    """Write the rows, their vectors and the queries into `FOLDER`; return all texts and their vectors.

    Shapes: the vectors (texts, dim).
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    vectors_file = FOLDER / "vectors.npy"
    if not vectors_file.exists():
        encode = [SBMINI, "encode", "-i", source, "-o", vectors_file, "--resume", "--threads", threads]
        subprocess.run(list(map(str, encode)), check=True)
    vectors = np.load(vectors_file, mmap_mode="r")
    with gzip.open(source, "rt", encoding="utf-8") as lines:
        texts = [line.rstrip("\n") for line in lines]
    assert len(texts) == len(vectors)
    rows = len(texts) - QUERIES - ADDED
    parts = {"rows": (0, rows), "more": (rows, rows + ADDED), "small": (0, SMALL)}
    for name, (start, stop) in parts.items():
        with (FOLDER / f"{name}.jsonl").open("w", encoding="utf-8") as stream:
            stream.writelines(
                json.dumps({"id": str(i), "text": texts[i], "length": len(texts[i])}) + "\n" for i in range(start, stop)
            )
        np.save(FOLDER / f"{name}.npy", vectors[start:stop])
    (FOLDER / "queries.txt").write_text("\n".join(texts[-QUERIES:]) + "\n", "utf-8")
    return texts, vectors


def build(threads: int) -> dict[str, float]:
    """Return what building the large index takes, and the memory of searching it; build the small one beside it."""
    for path in (LARGE_INDEX, SMALL_INDEX):
        shutil.rmtree(path, ignore_errors=True)
    options = ("--vectors", FOLDER / "rows.npy", "--threads", threads)
    seconds, peak = run("index", "create", LARGE_INDEX, "-i", FOLDER / "rows.jsonl", *options)
    options = ("--vectors", FOLDER / "small.npy", "--threads", threads)
    run("index", "create", SMALL_INDEX, "-i", FOLDER / "small.jsonl", *options)
    print(f"built in {seconds:.0f} s, {peak / 1e6:.0f} MB peak")
    resident = [sys.executable, "-c", _RESIDENT, str(LARGE_INDEX), str(FOLDER / "queries.txt"), str(threads)]
    _, search_peak = process(resident)
    print(f"{search_peak / 1e6:.0f} MB peak while {QUERIES} queries are encoded and searched")
    return {"build_s": seconds, "build_peak_bytes": peak, "search_peak_bytes": search_peak}


def search(index: SearchIndex, texts: Sequence[str], queries: FloatArray, threads: int, rounds: int) -> dict[str, Any]:
    """Return recall, the time of one query (plain, filtered, hybrid) and the rate of a batch."""
    corpus = np.load(FOLDER / "rows.npy")
    _, exact = exact_search(corpus, queries, K)
    index.prepare()
    _, nearest = index.nearest(queries, K)
    recall = recall_of(nearest, exact)
    singles = [1000 * timed(partial(index.nearest, queries[i : i + 1], K)) for i in range(QUERIES)]
    filtered = [1000 * timed(partial(index.nearest, queries[:1], K, filter=f"length = {n}")) for n in range(80, 90)]
    hybrid = [1000 * timed(partial(index.search, text, K, hybrid=True)) for text in texts[-50:]]
    print(f"recall@{K} {recall:.4f}; one query {statistics.median(singles):.2f} ms")
    rates = raced(index, corpus, queries, threads, rounds)
    ratio = median_ratio(rates["index"], rates[SEMANTIC_SEARCH])
    print(f"a batch of {QUERIES}: {ratio:.1f} times as fast as {SEMANTIC_SEARCH}")
    return {
        "recall": recall,
        "single_ms": summary(singles),
        "filtered_ms": summary(filtered),
        "hybrid_ms": summary(hybrid),
        "queries_per_s": {name: summary(values) for name, values in rates.items()},
        "times_faster": ratio,
    }


def add(rows: int, threads: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of adding `ADDED` rows to the large index and to the small one; they are deleted again."""
    seconds: dict[str, list[float]] = {"large": [], "small": []}
    more = ("-i", FOLDER / "more.jsonl", "--vectors", FOLDER / "more.npy", "--threads", threads)
    for _ in range(rounds):
        for name, path in (("large", LARGE_INDEX), ("small", SMALL_INDEX)):
            seconds[name].append(run("index", "add", path, *more)[0])
            run("index", "delete", path, "--filter", f"cast(id as integer) >= {rows}")
    large, small = (statistics.median(seconds[name]) for name in ("large", "small"))
    print(f"{ADDED} rows added in {large:.2f} s; to {SMALL:,} in {small:.2f} s")
    return seconds


def main() -> None:
    options = harness.arguments(__doc__, rounds=3)
    source = harness.data_file(options.data, SENTENCES)
    texts, vectors = write_files(source, options.threads)
    rows = len(texts) - QUERIES - ADDED
    queries = np.ascontiguousarray(vectors[-QUERIES:])
    built = build(options.threads)
    index = SearchIndex(LARGE_INDEX, threads=options.threads)
    searched = search(index, texts, queries, options.threads, options.rounds)
    cold = [run("search", LARGE_INDEX, text, "--threads", options.threads)[0] for text in texts[-7:]]
    print(f"a cold start {statistics.median(cold):.2f} s")
    adding = add(rows, options.threads, options.rounds)
    harness.save(
        "large_index",
        {
            "rows": rows,
            "dim": int(queries.shape[1]),
            "queries": QUERIES,
            "k": K,
            "kind": index.segment_kinds[0],
            **built,
            **searched,
            "cold_start_s": summary(cold),
            "small_rows": SMALL,
            "add_s": {name: summary(values) for name, values in adding.items()},
            "bytes": sum(file.stat().st_size for file in LARGE_INDEX.rglob("*") if file.is_file()),
        },
        options,
    )


if __name__ == "__main__":
    main()
