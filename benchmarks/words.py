"""Search by words: quality on SciFact and Cranfield, and speed at a million rows beside tantivy alone.

    python -m benchmarks.words --data DATA --threads 2 --rounds 3

The rows are sentences of Wikipedia; the queries are the first 12 words of sentences that are not among them. tantivy alone has
the same texts, its own English stemmer, the same memory, and parses the queries. Where `benchmarks.large_index` left its index,
hybrid search is measured on it, encoding included.
"""

import gzip
import re
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.large_index import LARGE_INDEX, SBMINI
from sbert_mini import SearchIndex
from sbert_mini.evaluation.measure import alternate, process, timed
from sbert_mini.evaluation.retrieval import ranking_scores, read_collection
from sbert_mini.evaluation.table import Json, Table
from sbert_mini.search.columns import Schema
from sbert_mini.search.ranking import rows_by_words
from sbert_mini.search.segment import Segment, SegmentWriter, StoredRow
from sbert_mini.search.word_files import folder_of
from sbert_mini.search.word_index import WordIndex
from sbert_mini.search.word_writer import HEAP_BYTES

FOLDER = Path("build/words")
DEPTH, QUERIES, WORDS = 100, 200, 12
SHARES = {"1 of 2": 2, "1 of 10": 10, "1 of 100": 100, "1 of 10,000": 10_000}
TANTIVY = "tantivy alone"
_BLOCK = 4096


def segment_of(texts: Sequence[str], folder: Path) -> Segment:
    """Return a segment of some texts, with vectors of one component."""
    with SegmentWriter(folder / "segments", "000001", 1, Schema()) as writer:
        for start in range(0, len(texts), _BLOCK):
            block = texts[start : start + _BLOCK]
            rows = [StoredRow(str(start + i), text, {}) for i, text in enumerate(block)]
            writer.write(rows, np.ones((len(block), 1), np.float32))
    entry = {"name": "000001", "rows": len(texts), "checksums_sha256": writer.checksum}
    return Segment(folder / "segments" / "000001", entry)


def words_of(texts: Sequence[str], folder: Path, threads: int) -> tuple[WordIndex, Segment, float]:
    """Return the words of some texts, made and opened, their segment, and the seconds that making them took."""
    shutil.rmtree(folder, ignore_errors=True)
    segment = segment_of(texts, folder)
    words = WordIndex(folder, 1, [segment], np.empty(0, np.int64), threads)
    return words, segment, timed(lambda: words.best(["a"], 1))


def quality(data: Path, name: str, threads: int) -> dict[str, Any]:
    """Return how well words alone rank a collection."""
    collection = read_collection(data / "retrieval" / name, binary=name == "cranfield")
    ids = list(collection.documents)
    words, segment, _ = words_of(list(collection.documents.values()), FOLDER / name, threads)
    ranked = {
        query: {ids[row]: score for row, score in rows_by_words(words, [segment], text, DEPTH, [None])}
        for query, text in collection.queries.items()
    }
    ndcg, recall, _ = ranking_scores(collection.relevant, ranked)
    print(f"{name}: nDCG@10 {100 * ndcg:.2f}, recall@100 {100 * recall:.2f}")
    return {"dataset": name, "documents": len(ids), "queries": len(collection.queries), "ndcg": ndcg, "recall": recall}


def bare(texts: Sequence[str], folder: Path, threads: int) -> tuple[Callable[..., list[Any]], float]:
    """Return a search of tantivy alone over some texts, and the seconds that making its index took."""
    import tantivy

    builder = tantivy.SchemaBuilder().add_integer_field("row", fast=True)
    schema = builder.add_text_field("text", tokenizer_name="en_stem", index_option="freq").build()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    start = time.perf_counter()
    index = tantivy.Index(schema, path=str(folder))
    writer = index.writer(HEAP_BYTES, threads)
    for row, text in enumerate(texts):
        writer.add_document(tantivy.Document(row=row, text=text))
    writer.commit()
    writer.wait_merging_threads()
    seconds = time.perf_counter() - start
    index.config_reader("manual")
    index.reload()
    searcher = index.searcher()

    def search(query: str, depth: int = DEPTH) -> list[Any]:
        hits = searcher.search(index.parse_query(query, ["text"]), depth, count=False).hits
        return list(searcher.fast_field_values("row", [address for _, address in hits]))

    return search, seconds


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return p50 and p95 in milliseconds."""
    return {"p50": 1000 * float(np.percentile(seconds, 50)), "p95": 1000 * float(np.percentile(seconds, 95))}


def raced(
    searches: dict[str, Callable[[str], object]], queries: Sequence[str], rounds: int
) -> tuple[dict[str, dict[str, float]], float]:
    """Return p50 and p95 of each search, one query after the other, and the ratio of the first's p50 to the second's."""
    times: dict[str, list[float]] = {name: [] for name in searches}

    def run(name: str) -> float:
        seconds = [timed(lambda query=query: searches[name](query)) for query in queries]  # type: ignore[misc]
        times[name] += seconds
        return statistics.median(seconds)

    medians = alternate({name: lambda name=name: run(name) for name in searches}, rounds)  # type: ignore[misc]
    first, second = medians.values()
    ratio = statistics.median(a / b for a, b in zip(first, second, strict=True))
    return {name: percentiles(values) for name, values in times.items()}, ratio


def speed(texts: Sequence[str], queries: Sequence[str], threads: int, rounds: int) -> dict[str, Any]:
    """Return what building and searching takes, beside tantivy alone."""
    alone, bare_build_s = bare(texts, FOLDER / "bare", threads)
    words, segment, build_s = words_of(texts, FOLDER / "index", threads)
    print(f"{len(texts):,} rows: built in {build_s:.1f} s; {TANTIVY} {bare_build_s:.1f} s")

    def ours(query: str) -> object:
        return rows_by_words(words, [segment], query, DEPTH, [None])

    times, ratio = raced({"sbmini": ours, TANTIVY: alone}, queries, rounds)
    print(f"{DEPTH} hits: {times}; p50 {ratio:.2f} times {TANTIVY}")
    filtered = {}
    for name, one_of in SHARES.items():
        mask = np.random.default_rng(1).random(len(texts)) < 1 / one_of
        seconds = [timed(lambda q=q, m=mask: rows_by_words(words, [segment], q, DEPTH, [m])) for q in queries[:50]]  # type: ignore[misc]
        filtered[name] = percentiles(seconds)
        print(f"a filter that {name} rows meet: {filtered[name]}")
    folder = folder_of(FOLDER / "index", 1)
    return {
        "rows": len(texts),
        "build_s": {"sbmini": build_s, TANTIVY: bare_build_s},
        "query_ms": times,
        "times_bare": ratio,
        "filtered_ms": filtered,
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
    }


def hybrid(first: Sequence[str], queries: Sequence[str], threads: int) -> dict[str, Any] | None:
    """Return p50 and p95 of hybrid search on the large index, and of a cold start of the command; None where there is none.

    Args:
        first: the first queries of the process: most of the vectors that they propose are read, and checked, for the first time.
        queries: others, after them.
        threads: of the search.
    """
    if not (LARGE_INDEX / "CURRENT").exists():
        print(f"{LARGE_INDEX} is not there: hybrid search is not measured")
        return None
    index = SearchIndex(LARGE_INDEX, threads=threads)
    index.search(queries[0], 10, by="both")
    early, late = (
        percentiles([timed(lambda t=text: index.search(t, 10, by="both")) for text in texts])  # type: ignore[misc]
        for texts in (first, queries)
    )
    command = [SBMINI, "search", str(LARGE_INDEX), queries[0], "--by", "both", "--threads", str(threads)]
    cold = [process(command)[0] for _ in range(7)]
    print(f"both: first {early} ms, then {late} ms; a cold start {statistics.median(cold):.2f} s")
    return {"first_ms": early, "query_ms": late, "cold_start_s": statistics.median(cold)}


def tables(result: Json) -> list[Table]:
    """Return the tables of search by words."""
    quality_rows = tuple(
        (
            f"{entry['dataset']} ({entry['documents']:,} documents)",
            f"{100 * entry['ndcg']:.1f}",
            f"{100 * entry['recall']:.1f}",
        )
        for entry in result["quality"]
    )
    times, built = result["query_ms"], result["build_s"]

    def pair(entry: Json) -> str:
        return f"p50 {entry['p50']:.1f} ms, p95 {entry['p95']:.1f} ms"

    rows = {
        "building": f"{built['sbmini']:.1f} s ({TANTIVY}: {built[TANTIVY]:.1f} s)",
        f"{result['words']} words, {result['depth']} hits": pair(times["sbmini"]),
        f"the same, {TANTIVY}": f"{pair(times[TANTIVY])}; sbmini's p50 is {result['times_bare']:.2f} times as long",
        **{
            f"the same, with a filter that {name} rows meet": pair(entry)
            for name, entry in result["filtered_ms"].items()
        },
        "on the disk": f"{result['bytes'] / 1e6:.0f} MB",
    }
    if result["hybrid"] is not None:
        both = f"`--by both`, {result['words']} words, {result['large_k']} hits, encoding included"
        rows[f"{both}: the first {result['queries']} queries of a process"] = pair(result["hybrid"]["first_ms"])
        rows[f"{both}: {result['queries']} others after them"] = pair(result["hybrid"]["query_ms"])
        rows["`sbmini search --by both` from a cold start"] = f"{result['hybrid']['cold_start_s']:.2f} s"
    return [
        Table("Search by words: quality", ("collection", "nDCG@10 x 100", "recall@100 x 100"), quality_rows),
        Table("Search by words: speed", (f"{result['rows']:,} rows", "measured"), tuple(rows.items())),
    ]


def main() -> None:
    options = harness.arguments(__doc__, rounds=3)
    source = harness.data_file(options.data, "sentences_wikipedia_1.txt.gz")
    with gzip.open(source, "rt", encoding="utf-8") as lines:
        texts = [line.rstrip("\n") for line in lines]
    rows = texts[: -2 * 1000]
    asked = [" ".join(re.findall(r"\w+", text)[:WORDS]) for text in texts[-2 * QUERIES :]]
    first, queries = asked[:QUERIES], asked[QUERIES:]
    result = {
        "quality": [quality(options.data, name, options.threads) for name in ("scifact", "cranfield")],
        **speed(rows, queries, options.threads, options.rounds),
        "words": WORDS,
        "depth": DEPTH,
        "queries": QUERIES,
        "large_k": 10,
        "hybrid": hybrid(first, queries, options.threads),
    }
    harness.save("words", result, options)


if __name__ == "__main__":
    main()
