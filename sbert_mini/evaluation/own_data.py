"""How well an index answers a user's own queries, by their judgments: by meaning, by words and by both."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.errors import InputError, UsageError
from sbert_mini.evaluation.judgments import Judgments, Queries
from sbert_mini.evaluation.measure import silent
from sbert_mini.evaluation.retrieval import DEPTH, MEASURES, query_measures
from sbert_mini.evaluation.significance import Comparison, Interval, compare
from sbert_mini.files.durable import write_durably
from sbert_mini.search.fusion import SEARCH_BY, SearchBy
from sbert_mini.search.index import SearchIndex
from sbert_mini.search.queries import Hit

BATCH = 256
"""Queries that are searched together: their hits are in memory."""


@dataclass(frozen=True)
class DataCounts:
    """Counts of the queries and judgments, and of what could not be used.

    Attributes:
        queries: different queries of the file.
        repeated_queries: rows that repeat a query.
        unjudged_queries: queries without a judgment: not evaluated.
        irrelevant_queries: queries all of whose judgments are 0 or less: not evaluated.
        unknown_queries: judged queries that the file of queries lacks: not evaluated.
        evaluated_queries: queries with a relevant document.
        judgments: different pairs of a query and a document.
        repeated_judgments: rows that repeat a judgment.
        conflicting_judgments: rows that judge a pair anew with another grade; the highest counts.
        relevant: judgments above 0 of evaluated queries.
        absent_documents: judged documents that the index does not have.
        absent_relevant: judgments above 0 of evaluated queries on such documents: they count as not found.
    """

    queries: int
    repeated_queries: int
    unjudged_queries: int
    irrelevant_queries: int
    unknown_queries: int
    evaluated_queries: int
    judgments: int
    repeated_judgments: int
    conflicting_judgments: int
    relevant: int
    absent_documents: int
    absent_relevant: int


@dataclass(frozen=True)
class Measure:
    """A measure of one way to search, the mean over the queries, in [0, 1], with its bootstrap 95 % interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class OwnDataResult:
    """What `sbmini bench search --index` measures.

    Attributes:
        index: the index.
        rows: of the index.
        model: that it was made with.
        depth: hits a query.
        resamples, seed: of the bootstrap.
        counts: of the queries and judgments.
        methods: `meaning`, `words` or `both` -> `retrieval.MEASURES` -> the figure.
        comparisons: measure -> each two methods.
        queries: a query each: query_id, query, relevant (judged documents), and for each method its measures.
    """

    index: str
    rows: int
    model: str
    depth: int
    resamples: int
    seed: int
    counts: DataCounts
    methods: Mapping[str, Mapping[str, Measure]]
    comparisons: Mapping[str, Sequence[Comparison]]
    queries: Sequence[Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON holds it."""
        return asdict(self)


Run = Mapping[str, list[tuple[str, float]]]
"""Query -> the ids and scores of its hits, best first."""


def evaluate(
    index: SearchIndex,
    queries: Queries,
    judgments: Judgments,
    *,
    methods: Sequence[SearchBy] = SEARCH_BY,
    binary: bool = False,
    exact: bool = False,
    resamples: int = 10_000,
    seed: int = 0,
    on_progress: Callable[[str], None] = silent,
) -> tuple[OwnDataResult, dict[str, Run]]:
    """Return how well an index answers the judged queries, and the run of each method.

    A relevant document that the index does not have counts as not found. The order of the hits counts, also where scores tie.

    Args:
        index: the index.
        queries: the queries; those with a relevant document are searched.
        judgments: their judgments.
        methods: what ranks the rows.
        binary: count every judgment above 0 as 1. For grades that are no gains: in Cranfield 1 is the best.
        exact: compare with every row.
        resamples: of the bootstrap; at least 100.
        seed: of the bootstrap.
        on_progress: told what is being done.

    Raises:
        UsageError: there are too few resamples.
        InputError: no query has a relevant document.
        MissingExtraError: pytrec_eval is not installed.
    """
    if resamples < 100:
        raise UsageError(f"at least 100 resamples are needed for an interval; found {resamples}")
    relevant = relevant_documents(queries, judgments, binary=binary)
    if not relevant:
        raise InputError(
            f"no query has a relevant document: of {len(queries.texts):,} queries and {len(judgments.grades):,} judged queries "
            f"{len(queries.texts.keys() & judgments.grades.keys()):,} have the same id"
        )
    runs: dict[str, Run] = {}
    measured: dict[str, dict[str, list[float]]] = {}
    for method in methods:
        on_progress(f"{len(relevant):,} queries, by {method}")
        runs[method] = _run(index, {query: queries.texts[query] for query in relevant}, method, exact=exact)
        ranks = {
            query: {doc: -float(rank) for rank, (doc, _) in enumerate(hits)} for query, hits in runs[method].items()
        }
        measured[method] = query_measures(relevant, ranks)
    figures: dict[str, dict[str, Measure]] = {method: {} for method in methods}
    comparisons: dict[str, list[Comparison]] = {}
    for measure in MEASURES:
        values: dict[str, list[float]] = {method: measured[method][measure] for method in methods}
        intervals, comparisons[measure] = compare(values, resamples=resamples, seed=seed)
        for method in methods:
            figures[method][measure] = Measure(float(np.mean(values[method])), intervals[method])
    of_queries = [
        {
            "query_id": query,
            "query": queries.texts[query],
            "relevant": sum(grade > 0 for grade in relevant[query].values()),
            **{method: {measure: measured[method][measure][i] for measure in MEASURES} for method in methods},
        }
        for i, query in enumerate(relevant)
    ]
    result = OwnDataResult(
        index=str(index.path),
        rows=len(index),
        model=index.model.name,
        depth=DEPTH,
        resamples=resamples,
        seed=seed,
        counts=_counts(index, queries, judgments, relevant),
        methods=figures,
        comparisons=comparisons,
        queries=of_queries,
    )
    return result, runs


def relevant_documents(queries: Queries, judgments: Judgments, *, binary: bool = False) -> dict[str, dict[str, int]]:
    """Return the judgments of each query that has a relevant document, in the order of the queries; `binary` as in `evaluate`."""
    relevant = {}
    for query in queries.texts:
        grades = judgments.grades.get(query, {})
        if any(grade > 0 for grade in grades.values()):
            relevant[query] = {document: min(grade, 1) if binary else grade for document, grade in grades.items()}
    return relevant


def _counts(
    index: SearchIndex, queries: Queries, judgments: Judgments, relevant: Mapping[str, Mapping[str, int]]
) -> DataCounts:
    judged = {document for documents in judgments.grades.values() for document in documents}
    absent = {document for document in judged if index.get(document) is None}
    positive = [document for documents in relevant.values() for document, grade in documents.items() if grade > 0]
    return DataCounts(
        queries=len(queries.texts),
        repeated_queries=queries.repeated,
        unjudged_queries=len(queries.texts.keys() - judgments.grades.keys()),
        irrelevant_queries=len((queries.texts.keys() & judgments.grades.keys()) - relevant.keys()),
        unknown_queries=len(judgments.grades.keys() - queries.texts.keys()),
        evaluated_queries=len(relevant),
        judgments=sum(map(len, judgments.grades.values())),
        repeated_judgments=judgments.repeated,
        conflicting_judgments=judgments.conflicting,
        relevant=len(positive),
        absent_documents=len(absent),
        absent_relevant=sum(document in absent for document in positive),
    )


def _run(index: SearchIndex, texts: Mapping[str, str], method: SearchBy, *, exact: bool) -> Run:
    ids, run = list(texts), {}
    for start in range(0, len(ids), BATCH):
        batch = ids[start : start + BATCH]
        answers: list[list[Hit]] = index.search([texts[query] for query in batch], DEPTH, by=method, exact=exact)
        run.update({query: [(h.id, h.score) for h in hits] for query, hits in zip(batch, answers, strict=True)})
    return run


def run_files(path: Path, methods: Sequence[str]) -> dict[str, Path]:
    """Return the file of each method's run: `out.trec` -> `out.meaning.trec`."""
    return {method: path.with_name(f"{path.stem}.{method}{path.suffix}") for method in methods}


def write_runs(path: Path, runs: Mapping[str, Run]) -> list[Path]:
    """Write a TREC run a method, `query Q0 document rank score tag`, and return the files.

    trec_eval orders by score alone, and in float32. So a score that does not fall is lowered to the next float32 number.

    Args:
        path: `out.trec` becomes `out.meaning.trec` and so on.
        runs: method -> its run.

    Raises:
        InputError: an id of a query or document is empty or holds a blank, which the format cannot hold. Nothing is written.
        OSError: a file cannot be written.
    """
    texts = {method: "".join(_run_lines(run, f"sbmini-{method}")) for method, run in runs.items()}
    files = run_files(path, list(runs))
    for method, text in texts.items():
        write_durably(files[method], text.encode("utf-8", "surrogatepass"))
    return list(files.values())


def _run_lines(run: Run, tag: str) -> list[str]:
    lines = []
    for query, hits in run.items():
        previous = np.float32(np.inf)
        for rank, (document, score) in enumerate(hits, start=1):
            for identity in (query, document):
                if not identity or identity.split() != [identity]:
                    raise InputError(f"a TREC run cannot hold the id {identity!r}: it is empty, or has a blank in it")
            previous = min(np.float32(score), np.nextafter(previous, np.float32(-np.inf)))
            lines.append(f"{query} Q0 {document} {rank} {previous!s} {tag}\n")
    return lines
