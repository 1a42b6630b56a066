"""Search beside other libraries in one run: LanceDB (vectors, words, both), tantivy (words), `semantic_search` (vectors).

    python -m benchmarks.libraries --data DATA --threads 2

Rows and queries are sentences of Wikipedia: the first 20,000, and a million. Their vectors are those of `benchmarks.large_index`,
and are made if they are missing. Query vectors are given, so no time holds encoding. Each library searches one query at a time,
for 10 hits; queries of all libraries alternate. Quality is nDCG@10 of SciFact: one vector a document, cut at 256 tokens, for all.
LanceDB has its own defaults: IVF-PQ, and beside it a search with more partitions whose candidates are rescored.
"""

import gzip
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks import harness, large_index
from benchmarks.words import WORDS, bare, percentiles
from sbert_mini import Embedder, IndexWriter, Record, SearchIndex
from sbert_mini.cosine import unit_rows
from sbert_mini.evaluation.measure import timed
from sbert_mini.evaluation.retrieval import (
    DEPTH,
    SEMANTIC_SEARCH,
    RetrievalSet,
    exact_search,
    ranking_scores,
    read_collection,
)
from sbert_mini.evaluation.table import Json, Table
from sbert_mini.evaluation.texts import SENTENCES
from sbert_mini.search.fusion import fused
from sbert_mini.search.ranking import bm25_scores, greatest_bm25, rows_by_meaning, rows_by_words, stored_cosines
from sbert_mini.shapes import FloatArray

FOLDER = Path("build/libraries")
MODEL = "sbert-mini"
SIZES = (20_000, 1_000_000)
QUERIES, SLOW_QUERIES, K = 200, 20, 10
"""Queries; those of a search that takes more than `SLOW_S` of a query's time; hits."""
SLOW_S = 0.05
MEANING, BY_WORDS, BOTH = "meaning", "words", "both"

Search: TypeAlias = Callable[[str, FloatArray, int], Sequence[int]]
"""A query's text, its vector and how many hits -> the rows' numbers, best first."""


@dataclass
class Library:
    """What was built of some rows.

    Attributes:
        name: of the library.
        build_s: until it can be searched.
        bytes: on the disk; of a search in memory its array.
        searches: what is searched (`meaning`, `words`, `both`), with the setting in parentheses -> the search.
    """

    name: str
    build_s: float
    bytes: int
    searches: dict[str, Search] = field(default_factory=dict)


def size_of(folder: Path) -> int:
    """Return the bytes of all files of a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def sbert_mini_of(texts: Sequence[str], vectors: FloatArray, folder: Path, threads: int) -> Library:
    """Return our own index of texts with their vectors."""
    records = (Record(text, str(row), {}) for row, text in enumerate(texts))
    writer = IndexWriter(folder, Embedder(MODEL, threads=threads))
    build_s = timed(lambda: writer.create(records, vectors=vectors))
    index = SearchIndex(folder, threads=threads)
    index.prepare()
    segments, searches, words = index._store.segments, index._segment_searches(), index._words
    everything: list[Any] = [None] * len(segments)

    def by_meaning(_: str, vector: FloatArray, k: int) -> list[int]:
        return list(index.nearest(vector[None], k)[1][0].tolist())

    def by_words(text: str, _: FloatArray, k: int) -> list[int]:
        return [row for row, _ in rows_by_words(words, segments, text, k, everything)]

    def by_both(text: str, vector: FloatArray, k: int) -> list[int]:
        depth = max(k, DEPTH)
        (near,) = rows_by_meaning(searches, vector[None], depth, everything, exact=False)
        worded = rows_by_words(words, segments, text, depth, everything)
        cosines = stored_cosines(segments, vector, {row for row, _ in worded} - {row for row, _ in near})
        bm25 = bm25_scores(words, segments, text, {row for row, _ in near} - {row for row, _ in worded})
        return [ranked.row for ranked in fused(near, worded, cosines, bm25, greatest_bm25(words, text))[:k]]

    return Library("sbert-mini", build_s, size_of(folder), {MEANING: by_meaning, BY_WORDS: by_words, BOTH: by_both})


def lancedb_of(texts: Sequence[str], vectors: FloatArray, folder: Path) -> Library | None:
    """Return a table of LanceDB with its index of vectors and that of words; None where it is not installed."""
    os.environ.setdefault("LANCEDB_LOG", "error")  # else it warns once a query that a later version leaves a column out
    try:
        database = import_module("lancedb")  # no dependency of this project: its types may be there or not
        pa = import_module("pyarrow")
    except ImportError:
        return None
    dimension = vectors.shape[1]
    kinds = {"row": pa.int64(), "text": pa.string(), "vector": pa.list_(pa.float32(), dimension)}
    schema = pa.schema(list(kinds.items()))

    def batches() -> Iterator[Any]:
        for start in range(0, len(texts), 50_000):
            stop = min(start + 50_000, len(texts))
            flat = pa.array(np.asarray(vectors[start:stop], np.float32).reshape(-1))
            columns = [
                pa.array(range(start, stop), pa.int64()),
                pa.array(texts[start:stop]),
                pa.FixedSizeListArray.from_arrays(flat, dimension),
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    start = time.perf_counter()
    table = database.connect(str(folder)).create_table("rows", batches(), schema=schema)
    table.create_index(metric="cosine", vector_column_name="vector", index_type="IVF_PQ")
    table.create_fts_index("text", replace=True)
    build_s = time.perf_counter() - start

    def rows(query: Any, k: int) -> list[int]:
        return list(query.limit(k).select(["row"]).to_arrow()["row"].to_pylist())

    def by_meaning(_: str, vector: FloatArray, k: int) -> list[int]:
        return rows(table.search(vector, vector_column_name="vector"), k)

    def rescored(_: str, vector: FloatArray, k: int) -> list[int]:
        return rows(table.search(vector, vector_column_name="vector").nprobes(50).refine_factor(10), k)

    def by_words(text: str, _: FloatArray, k: int) -> list[int]:
        return rows(table.search(text, query_type="fts", fts_columns="text"), k)

    def by_both(text: str, vector: FloatArray, k: int) -> list[int]:
        return rows(table.search(query_type="hybrid", vector_column_name="vector").vector(vector).text(text), k)

    searches: dict[str, Search] = {
        MEANING: by_meaning,
        f"{MEANING} (50 partitions, 10 x rescored)": rescored,
        BY_WORDS: by_words,
        BOTH: by_both,
    }
    return Library("LanceDB", build_s, size_of(folder), searches)


def tantivy_of(texts: Sequence[str], folder: Path, threads: int) -> Library:
    """Return tantivy alone, as `benchmarks.words` uses it."""
    search, build_s = bare(texts, folder, threads)

    def by_words(text: str, _: FloatArray, k: int) -> list[int]:
        return list(search(" ".join(re.findall(r"\w+", text)), k))

    return Library("tantivy", build_s, size_of(folder), {BY_WORDS: by_words})


def semantic_search_of(vectors: FloatArray, threads: int) -> Library:
    """Return sentence-transformers' search in memory."""
    import torch
    from sentence_transformers import util

    torch.set_num_threads(threads)
    corpus = torch.from_numpy(vectors)

    def by_meaning(_: str, vector: FloatArray, k: int) -> list[int]:
        queries = torch.from_numpy(vector[None])
        (hits,) = util.semantic_search(queries, corpus, top_k=k, score_function=util.dot_score)
        return [int(hit["corpus_id"]) for hit in hits]

    return Library(SEMANTIC_SEARCH, 0.0, vectors.nbytes, {MEANING: by_meaning})


def built(texts: Sequence[str], vectors: FloatArray, threads: int) -> list[Library]:
    """Return every library with an index of some texts and their vectors."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    libraries: list[Library | None] = []
    makers: list[Callable[[], Library | None]] = [
        partial(sbert_mini_of, texts, vectors, FOLDER / "sbert-mini", threads),
        partial(lancedb_of, texts, vectors, FOLDER / "lancedb"),
        partial(tantivy_of, texts, FOLDER / "tantivy", threads),
        partial(semantic_search_of, vectors, threads),
    ]
    for make in makers:
        libraries.append(make())
        if (made := libraries[-1]) is not None:
            print(
                f"{len(texts):,} rows: {made.name} built in {made.build_s:.1f} s, {made.bytes / 1e6:,.0f} MB",
                flush=True,
            )
    return [library for library in libraries if library is not None]


def speed(
    libraries: Sequence[Library], queries: Sequence[str], asked: FloatArray, exact: Sequence[Sequence[int]]
) -> list[dict[str, Any]]:
    """Return what each search of each library takes, and the recall of those by meaning. Queries alternate between them."""
    searches = [(library, kind, search) for library in libraries for kind, search in library.searches.items()]
    times: list[list[float]] = [[] for _ in searches]
    hits: list[list[Sequence[int]]] = [[] for _ in searches]
    counts = []
    for _, _, search in searches:
        search(queries[0], asked[0], K)  # files are opened
        counts.append(len(queries) if timed(partial(search, queries[1], asked[1], K)) < SLOW_S else SLOW_QUERIES)
    for i, text in enumerate(queries):
        for place, (_, _, search) in enumerate(searches):
            if i < counts[place]:
                start = time.perf_counter()
                hits[place].append(search(text, asked[i], K))
                times[place].append(time.perf_counter() - start)
    entries = []
    for (library, kind, _), seconds, of_queries in zip(searches, times, hits, strict=True):
        overlaps = [len({*got} & {*right}) / len(right) for got, right in zip(of_queries, exact, strict=False)]
        entries.append(
            {
                "library": library.name,
                "search": kind,
                "query_ms": percentiles(seconds),
                "queries": len(seconds),
                "recall": float(np.mean(overlaps)) if kind.startswith(MEANING) else None,
            }
        )
        print(f"{library.name}, {kind}: {entries[-1]['query_ms']}, recall {entries[-1]['recall']}", flush=True)
    return entries


def quality(collection: RetrievalSet, threads: int) -> list[dict[str, Any]]:
    """Return how well each search of each library ranks a collection."""
    embedder = Embedder(MODEL, threads=threads)
    documents = {identity: text for identity, text in collection.documents.items() if text.strip()}
    ids, texts = list(documents), list(documents.values())
    vectors = unit_rows(embedder.encode_document(texts))
    asked = unit_rows(embedder.encode_query(list(collection.queries.values())))
    entries = []
    for library in built(texts, vectors, threads):
        for kind, search in library.searches.items():
            ranked = {
                query: {ids[row]: -float(rank) for rank, row in enumerate(search(text, asked[i], DEPTH))}
                for i, (query, text) in enumerate(collection.queries.items())
            }
            ndcg, recall, _ = ranking_scores(collection.relevant, ranked)
            entries.append({"library": library.name, "search": kind, "ndcg_at_10": ndcg, "recall_at_100": recall})
            print(f"{collection.name}: {library.name}, {kind}: nDCG@10 {100 * ndcg:.1f}", flush=True)
    return entries


def sentences(data: Path | None, threads: int) -> tuple[list[str], FloatArray]:
    """Return the sentences and their vectors, which are made if `benchmarks.large_index` did not leave them."""
    source = harness.data_file(data, SENTENCES)
    if (large_index.FOLDER / "vectors.npy").exists():
        with gzip.open(source, "rt", encoding="utf-8") as lines:
            return [line.rstrip("\n") for line in lines], np.load(large_index.FOLDER / "vectors.npy", mmap_mode="r")
    return large_index.write_files(source, threads)


def measure(texts: Sequence[str], vectors: FloatArray, rows: int, threads: int) -> dict[str, Any]:
    """Return the figures of each library on the first rows; the last `QUERIES` texts are the queries."""
    corpus = np.ascontiguousarray(vectors[:rows])
    asked = np.ascontiguousarray(vectors[-QUERIES:])
    queries = [" ".join(re.findall(r"\w+", text)[:WORDS]) for text in texts[-QUERIES:]]
    libraries = built(texts[:rows], corpus, threads)
    exact = exact_search(corpus, asked, K)[1].tolist()
    searched = speed(libraries, queries, asked, exact)
    built_as = {library.name: {"build_s": library.build_s, "bytes": library.bytes} for library in libraries}
    return {"rows": rows, "libraries": built_as, "searches": searched}


def tables(result: Json) -> list[Table]:
    """Return a table of each size, and that of quality."""
    made = []
    header = ("library", "search", "p50", "p95", f"recall@{result['k']}", "build", "size")
    for size in result["sizes"]:
        rows, shown = [], set[str]()
        for entry in size["searches"]:
            name, recall = entry["library"], entry["recall"]
            about = size["libraries"][name]
            first = name not in shown
            shown.add(name)
            rows.append(
                (
                    name,
                    entry["search"],
                    *(f"{entry['query_ms'][percentile]:.1f} ms" for percentile in ("p50", "p95")),
                    "" if recall is None else f"{recall:.3f}",
                    f"{about['build_s']:.1f} s" if first and about["build_s"] else "",
                    f"{about['bytes'] / 1e6:,.0f} MB" if first else "",
                )
            )
        made.append(Table(f"{size['rows']:,} rows of {result['dim']}", header, tuple(rows)))
    ranked = tuple(
        (e["library"], e["search"], f"{100 * e['ndcg_at_10']:.1f}", f"{100 * e['recall_at_100']:.1f}")
        for e in result["quality"]
    )
    columns = ("library", "search", "nDCG@10 x 100", "recall@100 x 100")
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    note = (
        f"One query at a time, {result['k']} hits, query vectors given; a query has at most {WORDS} words. {versions}."
    )
    return [*made, Table("SciFact, one vector a document, cut at 256 tokens", columns, ranked, (note,))]


def versions() -> Mapping[str, str]:
    """Return the versions of the other libraries."""
    from importlib.metadata import PackageNotFoundError, version

    installed = {}
    for name in ("lancedb", "pylance", "tantivy"):
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def main() -> None:
    options = harness.arguments(__doc__ or "", rounds=1)
    collection = read_collection(harness.data_file(options.data, "retrieval/scifact/corpus.jsonl.gz").parent)
    texts, vectors = sentences(options.data, options.threads)
    most = len(texts) - large_index.QUERIES - large_index.ADDED
    result = {
        "dim": int(vectors.shape[1]),
        "k": K,
        "versions": versions(),
        "sizes": [measure(texts, vectors, min(rows, most), options.threads) for rows in SIZES],
        "quality": quality(collection, options.threads),
    }
    shutil.rmtree(FOLDER, ignore_errors=True)
    for table in tables(result):
        print(table.terminal() + "\n")
    harness.save("libraries", result, options)


if __name__ == "__main__":
    main()
