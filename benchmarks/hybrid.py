"""Search by meaning, by words and by both, with each model: nDCG@10 on SciFact and Cranfield, with the paired bootstrap.

    python -m benchmarks.hybrid --data ../shared/data

The indexes are those of `IndexWriter` with its default options: long documents are stored in passages. build/hybrid keeps them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness
from sbert_mini import Embedder, IndexWriter, Record, SearchIndex
from sbert_mini.evaluation.choices import PEER_MODEL
from sbert_mini.evaluation.judgments import Judgments, Queries
from sbert_mini.evaluation.own_data import evaluate
from sbert_mini.evaluation.retrieval import RetrievalSet, read_collection
from sbert_mini.evaluation.table import Json, Table

FOLDER = Path("build/hybrid")
MODELS = ("sbert-mini", "sbert-mini-fast", PEER_MODEL)
COLLECTIONS = ("scifact", "cranfield")
METHODS = {"meaning": "meaning", "words": "words", "both": "hybrid"}


def collections(data: Path | None) -> list[RetrievalSet]:
    """Return the collections; every judgment of Cranfield above 0 counts as 1."""
    files = [harness.data_file(data, f"retrieval/{name}/corpus.jsonl.gz") for name in COLLECTIONS]
    return [
        read_collection(file.parent, binary=name == "cranfield") for file, name in zip(files, COLLECTIONS, strict=True)
    ]


def indexed(collection: RetrievalSet, model: str, threads: int) -> SearchIndex:
    """Return a collection's index by a model, made once."""
    path = FOLDER / f"{collection.name}-{model}"
    if not (path / "CURRENT").exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        records = (Record(text, identity) for identity, text in collection.documents.items() if text.strip())
        IndexWriter(path, Embedder(model, threads=threads)).create(records)
    return SearchIndex(path, threads=threads)


def measure(model: str, sets: Sequence[RetrievalSet], threads: int) -> dict[str, Any]:
    """Return for each collection nDCG@10 and recall@100 of each way to search, and how two of them differ in nDCG@10."""
    figures = {}
    for collection in sets:
        index = indexed(collection, model, threads)
        judgments = Judgments({query: dict(documents) for query, documents in collection.relevant.items()})
        result, _ = evaluate(index, Queries(collection.queries), judgments, exact=True)
        figures[collection.name] = {
            "documents": len(collection.documents),
            "queries": len(collection.queries),
            "methods": {
                method: {name: measures[name].value for name in ("ndcg_at_10", "recall_at_100")}
                for method, measures in result.methods.items()
            },
            "comparisons": [vars(comparison) for comparison in result.comparisons["ndcg_at_10"]],
        }
        print(f"{model} {collection.name}: {figures[collection.name]['methods']}", flush=True)
    return figures


def tables(result: Json) -> list[Table]:
    """Return the table of the models, with a column for each collection and way to search."""
    models = result["models"]
    sets = next(iter(models.values()))
    header = ["model", *(f"{name}: {label}" for name in sets for label in METHODS.values())]
    rows = []
    for model, figures in models.items():
        cells = []
        for of_set in figures.values():
            worse = {c["second"] for c in of_set["comparisons"] if c["first"] == "meaning" and c["interval"][0] > 0}
            better = {c["second"] for c in of_set["comparisons"] if c["first"] == "meaning" and c["interval"][1] < 0}
            for method in METHODS:
                mark = "+" if method in better else "-" if method in worse else ""
                cells.append(f"{100 * of_set['methods'][method]['ndcg_at_10']:.1f}{mark}")
        rows.append((model, *cells))
    note = (
        "nDCG@10 x 100. + and -: better or worse than by meaning, the paired bootstrap's 95 % interval over the queries does not "
        "hold 0. The share of meaning in hybrid search was chosen on other queries of SciFact, and on half of Cranfield's."
    )
    return [Table("Search by meaning, by words and by both", tuple(header), tuple(rows), (note, harness.START_NOTE))]


def main() -> None:
    options = harness.arguments(__doc__ or "", rounds=1)
    sets = collections(options.data)
    result = {"models": {model: measure(model, sets, options.threads) for model in MODELS}}
    for table in tables(result):
        print(table.terminal())
    harness.save("hybrid", result, options)


if __name__ == "__main__":
    main()
