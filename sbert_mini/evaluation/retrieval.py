"""Retrieval: how well a model ranks documents (BEIR folders), and how well a kind of index finds the nearest vectors."""

import gzip
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.cosine import unit_rows
from sbert_mini.errors import InputError, MissingExtraError, UsageError
from sbert_mini.evaluation.contestants import Contestant
from sbert_mini.evaluation.measure import alternate, median_ratio, process, silent, summary, timed
from sbert_mini.evaluation.texts import SENTENCES, read_texts
from sbert_mini.search.columns import Schema
from sbert_mini.search.kinds import EXACT
from sbert_mini.search.nearest import SegmentSearch
from sbert_mini.search.segment import Segment, SegmentWriter, StoredRow
from sbert_mini.shapes import FloatArray, IntArray

DEPTH = 100
"""Documents that are ranked for each query."""
MEASURES = {
    "ndcg_at_10": "ndcg_cut_10",
    "recall_at_10": "recall_10",
    "recall_at_100": "recall_100",
    "mrr_at_10": "recip_rank",
}
"""What is measured of a ranking -> trec_eval's name of it; the reciprocal rank within the first 10."""
SEMANTIC_SEARCH = "sentence_transformers.util.semantic_search"


@dataclass(frozen=True)
class RetrievalSet:
    """A test collection in BEIR's layout.

    Attributes:
        name: the folder's name.
        documents: id -> title and text, joined by a blank.
        queries: id -> text; only those with a judgment.
        relevant: query -> document -> judgment; above 0 means relevant, more means more so.
            Judgments of 0 and below are not kept.
    """

    name: str
    documents: Mapping[str, str]
    queries: Mapping[str, str]
    relevant: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class RetrievalScore:
    """How one model did on one collection; all figures in [0, 1], means over the queries.

    Attributes:
        model: its name.
        runtime: what ran it.
        ndcg_at_10: normalised discounted cumulative gain of the first 10 (Järvelin and Kekäläinen 2002; trec_eval's ndcg_cut).
        recall_at_100: the share of the relevant documents that stand among the first 100.
        mrr_at_10: the mean of 1 / rank of the first relevant document, 0 where none stands among the first 10.
        truncated: documents longer than the model reads, which were cut.
    """

    model: str
    runtime: str
    ndcg_at_10: float
    recall_at_100: float
    mrr_at_10: float
    truncated: int


@dataclass(frozen=True)
class IndexKind:
    """How one kind of index did.

    Attributes:
        recall: the share of the k nearest rows (exact search) that it finds.
        queries_per_s: all queries in one call; median, lowest and highest.
        single_ms: one query at a time, the median of 50.
        times_faster: queries_per_s against the peer's, the median of the rounds' ratios; None without a peer.
        build_s: training and adding all rows; None for the peer, which has nothing to build.
        bytes_per_vector: of the FAISS file (of the vectors, where the search is exact and has none); None for the peer.
        peak_bytes: of a process that opens the file and searches; None for the peer.
    """

    recall: float
    queries_per_s: Mapping[str, float]
    single_ms: Mapping[str, float]
    times_faster: float | None
    build_s: float | None
    bytes_per_vector: float | None
    peak_bytes: int | None


@dataclass(frozen=True)
class SearchResult:
    """What `sbmini bench search` measures.

    Attributes:
        rows, dim, queries, k: of the vectors that the kinds of index were measured on.
        reference: what ratios are to; None without a peer.
        kinds: kind -> `IndexKind`.
        retrieval: a collection each: dataset, documents, queries, models (`RetrievalScore`).
    """

    rows: int
    dim: int
    queries: int
    k: int
    reference: str | None
    kinds: Mapping[str, IndexKind]
    retrieval: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON holds it."""
        return asdict(self)


# --- how well a model ranks documents ---------------------------------------------------------------------------------


def _opened(folder: Path, name: str) -> Path | None:
    return next((folder / f for f in (name, f"{name}.gz") if (folder / f).is_file()), None)


def _json_lines(file: Path) -> Iterator[dict[str, Any]]:
    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict) or "_id" not in row or not isinstance(row.get("text"), str):
                    raise InputError(f'{file}, line {number}: an object with "_id" and "text" is required')
                yield row
    except (OSError, EOFError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} cannot be read: {error}") from error


def read_collection(folder: Path, *, binary: bool = False) -> RetrievalSet:
    """Return a BEIR folder's collection: `corpus.jsonl`, `queries.jsonl` (gzipped or not), `qrels/test.tsv` or `qrels.tsv`.

    Args:
        folder: the folder.
        binary: count every judgment above 0 as 1. For collections whose grades are no gains: in Cranfield 1 is the best.

    Raises:
        InputError: a file is missing, or a line of it cannot be read.
    """
    corpus, queries = _opened(folder, "corpus.jsonl"), _opened(folder, "queries.jsonl")
    judged = next((f for f in (folder / "qrels" / "test.tsv", folder / "qrels.tsv") if f.is_file()), None)
    for file, what in ((corpus, "corpus.jsonl"), (queries, "queries.jsonl"), (judged, "qrels/test.tsv or qrels.tsv")):
        if file is None:
            raise InputError(f"{folder} has no {what}: a folder in BEIR's layout is required")
    assert corpus is not None  # noqa: S101
    assert queries is not None  # noqa: S101
    assert judged is not None  # noqa: S101
    relevant: dict[str, dict[str, int]] = {}
    for number, line in enumerate(judged.read_text("utf-8").splitlines(), start=1):
        fields = line.split("\t")
        if number == 1 and not fields[-1].lstrip("-").isdigit():
            continue  # the header
        if len(fields) != 3 or not fields[2].lstrip("-").isdigit():
            raise InputError(f"{judged}, line {number}: query, document and a whole number are required, tab separated")
        if int(fields[2]) > 0:
            relevant.setdefault(fields[0], {})[fields[1]] = 1 if binary else int(fields[2])
    documents = {str(row["_id"]): f"{row.get('title') or ''} {row['text']}".strip() for row in _json_lines(corpus)}
    texts = {str(row["_id"]): row["text"] for row in _json_lines(queries) if str(row["_id"]) in relevant}
    if not documents or not texts:
        raise InputError(f"{folder} holds no document, or no query with a relevant document")
    return RetrievalSet(folder.name, documents, texts, {query: relevant[query] for query in texts})


def find_collections(folder: Path) -> list[Path]:
    """Return the BEIR folders in a folder, in `retrieval/` in it, or the folder itself."""
    folders = [folder, *sorted(folder.glob("*/")), *sorted((folder / "retrieval").glob("*/"))]
    return [path for path in folders if _opened(path, "corpus.jsonl") and _opened(path, "queries.jsonl")]


def query_measures(
    relevant: Mapping[str, Mapping[str, int]], ranked: Mapping[str, Mapping[str, float]]
) -> dict[str, list[float]]:
    """Return nDCG@10, recall@10, recall@100 and MRR@10 of each query of a run, computed by trec_eval (pytrec_eval).

    Args:
        relevant: query -> document -> judgment.
        ranked: query -> document -> score, at most 100 documents each; a query that is absent counts as 0.

    Returns:
        `MEASURES` -> a figure a query, in the order of `relevant`.

    Raises:
        MissingExtraError: pytrec_eval is not installed.
    """
    try:
        import pytrec_eval
    except ModuleNotFoundError as error:
        raise MissingExtraError("scoring retrieval", "pytrec_eval", "bench") from error
    judged = {query: dict(documents) for query, documents in relevant.items()}
    whole = {query: dict(documents) for query, documents in ranked.items()}
    first = {q: dict(sorted(d.items(), key=lambda item: -item[1])[:10]) for q, d in whole.items()}
    deep = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.10", "recall.10,100"}).evaluate(whole)
    short = pytrec_eval.RelevanceEvaluator(judged, {"recip_rank"}).evaluate(first)
    measured = {query: {**deep[query], **short[query]} for query in deep}
    return {
        measure: [float(measured[query][name]) if query in measured else 0.0 for query in relevant]
        for measure, name in MEASURES.items()
    }


def ranking_scores(
    relevant: Mapping[str, Mapping[str, int]], ranked: Mapping[str, Mapping[str, float]]
) -> tuple[float, float, float]:
    """Return nDCG@10, recall@100 and MRR@10 of a run, means over the judged queries: see `query_measures`."""
    of_queries = query_measures(relevant, ranked)
    ndcg, recall, mrr = (math.fsum(of_queries[m]) / len(relevant) for m in ("ndcg_at_10", "recall_at_100", "mrr_at_10"))
    return ndcg, recall, mrr


def score_retrieval(contestant: Contestant, collection: RetrievalSet) -> RetrievalScore:
    """Return how well a model ranks a collection's documents, by exact search over all of them."""
    ids, texts = list(collection.documents), list(collection.documents.values())
    queries = list(collection.queries)
    documents = unit_rows(contestant.encode_document(texts))
    asked = unit_rows(contestant.encode_query(list(collection.queries.values())))
    scores, rows = exact_search(documents, asked, min(DEPTH, len(ids)))
    ranked = {
        query: {ids[row]: float(value) for row, value in zip(rows[q].tolist(), scores[q].tolist(), strict=True)}
        for q, query in enumerate(queries)
    }
    ndcg, recall, mrr = ranking_scores(collection.relevant, ranked)
    return RetrievalScore(contestant.name, contestant.runtime, ndcg, recall, mrr, contestant.truncated(texts))


def exact_search(rows: FloatArray, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
    """Return the scores and numbers of each query's k nearest rows by inner product, nearest first.

    Shapes: rows (rows, dim); queries (queries, dim); each result (queries, k).
    """
    import faiss

    scores, nearest = faiss.knn(queries, rows, k, metric=faiss.METRIC_INNER_PRODUCT)
    return scores, nearest


# --- both ------------------------------------------------------------------------------------------------------------


def texts_to_search(
    rows: int, collections: Sequence[RetrievalSet], files: Sequence[Path] | None, folder: Path | None
) -> list[str]:
    """Return the distinct texts that kinds of index are measured on; the last `held_out_queries` of them are the queries.

    They are those of `files`, else Wikipedia sentences of the data folder, else the first collection's documents, else the
    sentences that travel with the package.

    Raises:
        UsageError: there are too few.
    """
    count = rows + min(1000, rows // 9)
    sentences = None if folder is None else folder / SENTENCES
    if files or (sentences is not None and sentences.is_file()):
        texts = read_texts(count, files, sentences)
    elif collections:
        texts = list(collections[0].documents.values())
    else:
        texts = []
    texts = list(dict.fromkeys(texts or read_texts(rows)))[:count]
    needed = 2 * held_out_queries(len(texts))
    if len(texts) < needed:
        raise UsageError(f"at least {needed} distinct texts are needed to measure with; found {len(texts)}")
    return texts


def held_out_queries(texts: int) -> int:
    """Return how many of some texts are queries: the tenth part, at least 50 and at most 1,000."""
    return max(min(texts // 10, 1000), 50)


def measure(
    contestants: Sequence[Contestant],
    collections: Sequence[RetrievalSet],
    texts: Sequence[str],
    kinds: Sequence[str],
    *,
    k: int,
    threads: int,
    rounds: int,
    with_peer: bool,
    on_progress: Callable[[str], None] = silent,
) -> SearchResult:
    """Return how well the models rank the collections, and how kinds of index do on the first model's vectors.

    Args:
        contestants: the models.
        collections: what they rank.
        texts: see `texts_to_search`.
        kinds: see `measure_kinds`; exact search is measured too.
        k: see `measure_kinds`.
        threads: see `measure_kinds`.
        rounds: see `measure_kinds`.
        with_peer: see `measure_kinds`.
        on_progress: told what is being done.
    """
    scores = []
    for collection in collections:
        models = []
        for contestant in contestants:
            on_progress(f"{collection.name}: {contestant.label} encodes {len(collection.documents):,} documents")
            models.append(score_retrieval(contestant, collection))
        sizes = {"documents": len(collection.documents), "queries": len(collection.queries)}
        scores.append({"dataset": collection.name, **sizes, "models": models})
    on_progress(f"encoding {len(texts):,} texts for the kinds of index")
    vectors = contestants[0].encode(texts)
    queries = held_out_queries(len(texts))
    measured = measure_kinds(
        vectors[:-queries],
        vectors[-queries:],
        [EXACT, *kinds],
        k=k,
        threads=threads,
        rounds=rounds,
        with_peer=with_peer,
        on_progress=on_progress,
    )
    return SearchResult(
        rows=len(vectors) - queries,
        dim=vectors.shape[1],
        queries=queries,
        k=k,
        reference=SEMANTIC_SEARCH if with_peer else None,
        kinds=measured,
        retrieval=tuple(scores),
    )


# --- how well a kind of index finds the nearest vectors ---------------------------------------------------------------


def measure_kinds(
    rows: FloatArray,
    queries: FloatArray,
    kinds: Sequence[str],
    *,
    k: int,
    threads: int,
    rounds: int,
    with_peer: bool,
    on_progress: Callable[[str], None] = silent,
) -> dict[str, IndexKind]:
    """Return recall, rate, build time and size of each kind of index, by a FAISS factory string each.

    Args:
        rows: the vectors that are searched, of length 1.
        queries: the query vectors, of length 1.
        kinds: `exact`, or FAISS factory strings, as an index takes them: what FAISS proposes is scored again.
        k: hits a query.
        threads: of FAISS, and of the peer.
        rounds: alternations of all contestants.
        with_peer: whether `sentence_transformers.util.semantic_search` is measured on the same vectors.
        on_progress: told what is being done.

    Shapes:
        rows: (rows, dim); queries: (queries, dim).

    Raises:
        UsageError: FAISS does not know a kind, or it cannot be built of so few rows.
    """
    k = min(k, len(rows))
    _, truth = exact_search(rows, queries, k)
    searches: dict[str, Callable[[FloatArray], IntArray]] = {}
    built: dict[str, tuple[float, float, int]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        np.save(folder / "queries.npy", queries)
        with SegmentWriter(folder / "segments", "000001", rows.shape[1], Schema()) as writer:
            writer.write((StoredRow(str(i), "", {}) for i in range(len(rows))), rows)
        entry = writer.entry
        segment = Segment(folder / "segments" / "000001", entry)
        for number, kind in enumerate(dict.fromkeys(kinds)):
            on_progress(f"building {kind}")
            search = SegmentSearch(segment, folder / f"faiss{number}", rows.shape[1], kind, threads)
            build_s = timed(search.prepare)
            file = folder / f"faiss{number}" / "000001.faiss"
            size = file.stat().st_size if file.exists() else 4 * rows.size
            arguments = json.dumps([str(folder), entry, f"faiss{number}", rows.shape[1], kind, threads, k])
            peak = process([sys.executable, "-c", _OPEN_AND_SEARCH, arguments], {"OMP_NUM_THREADS": str(threads)})[1]
            built[kind] = (build_s, size / len(rows), peak)
            searches[kind] = partial(_nearest, search, k)
        if with_peer:
            searches[SEMANTIC_SEARCH] = _semantic_search(rows, k, threads)
        return _raced(searches, built, queries, truth, rounds, on_progress)


def recall_of(nearest: IntArray, exact: IntArray) -> float:
    """Return the share of the exact neighbours that are among those of a search. Shapes: (queries, any), (queries, k)."""
    rows = zip(nearest.tolist(), exact.tolist(), strict=True)
    return sum(len(set(of_search) & set(of_exact)) for of_search, of_exact in rows) / exact.size


def _raced(
    searches: Mapping[str, Callable[[FloatArray], IntArray]],
    built: Mapping[str, tuple[float, float, int]],
    queries: FloatArray,
    truth: IntArray,
    rounds: int,
    on_progress: Callable[[str], None],
) -> dict[str, IndexKind]:
    """Return each contestant's figures, all of them alternating."""
    with_peer = SEMANTIC_SEARCH in searches

    def rate(name: str) -> float:
        return len(queries) / timed(partial(searches[name], queries))

    def single(name: str) -> float:
        return float(np.median([1000 * timed(partial(searches[name], queries[i : i + 1])) for i in range(50)]))

    on_progress("searching")
    rates = alternate({name: partial(rate, name) for name in searches}, rounds)
    singles = alternate({name: partial(single, name) for name in searches}, rounds)
    return {
        name: IndexKind(
            recall=recall_of(searches[name](queries), truth),
            queries_per_s=summary(values),
            single_ms=summary(singles[name]),
            times_faster=median_ratio(values, rates[SEMANTIC_SEARCH]) if with_peer else None,
            build_s=built[name][0] if name in built else None,
            bytes_per_vector=built[name][1] if name in built else None,
            peak_bytes=built[name][2] if name in built else None,
        )
        for name, values in rates.items()
    }


_OPEN_AND_SEARCH = """
import json, pathlib, sys, numpy
from sbert_mini.search.nearest import SegmentSearch
from sbert_mini.search.segment import Segment
folder, entry, faiss, dimension, kind, threads, k = json.loads(sys.argv[1])
folder = pathlib.Path(folder)
segment = Segment(folder / "segments" / entry["name"], entry)
SegmentSearch(segment, folder / faiss, dimension, kind, threads).nearest(numpy.load(folder / "queries.npy")[:100], k)
"""


def _nearest(search: SegmentSearch, k: int, queries: FloatArray) -> IntArray:
    return search.nearest(queries, k)[1]


def _semantic_search(rows: FloatArray, k: int, threads: int) -> Callable[[FloatArray], IntArray]:
    import torch
    from sentence_transformers.util import dot_score, semantic_search

    torch.set_num_threads(threads)
    corpus = torch.from_numpy(rows)

    def search(queries: FloatArray) -> IntArray:
        hits_of_queries = semantic_search(torch.from_numpy(queries), corpus, top_k=k, score_function=dot_score)
        return np.array([[hit["corpus_id"] for hit in hits] for hits in hits_of_queries], dtype=np.int64)

    return search
