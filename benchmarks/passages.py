"""What happens to long documents: cut, averaged or stored in passages, at 256 and 512 tokens, on SciFact and Cranfield.

    python -m benchmarks.passages --data /work/shared/data

Each way makes an index by `IndexWriter` and searches it exactly, 100 hits a query; trec_eval computes the figures. Documents are
read up to 256 and 512 tokens; passages have at most so many, special tokens included. The last part searches this project's own
documents for "train on two GPUs": the rank of the section that says how, among all sections of README.md and docs/, by each way.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from sbert_mini import Embedder, IndexWriter
from sbert_mini.evaluation.choices import PEER_MODEL
from sbert_mini.evaluation.retrieval import DEPTH, RetrievalSet, read_collection
from sbert_mini.evaluation.table import Json, Table
from sbert_mini.model.registry import resolve
from sbert_mini.search.encoding import IndexCounts
from sbert_mini.text.records import Record

ROOT = Path(__file__).parent.parent
MODELS = ("sbert-mini", PEER_MODEL)
COLLECTIONS = ("scifact", "cranfield")
WAYS: Mapping[str, Mapping[str, Any]] = {
    "cut, 256": {"reads": 256, "truncation": "warn"},
    "cut, 512": {"reads": 512, "truncation": "warn"},
    "averaged, 256": {"reads": 256, "truncation": "chunk"},
    "averaged, 512": {"reads": 512, "truncation": "chunk"},
    **{
        f"passages of {tokens}, overlap {overlap}": {
            "reads": max(tokens, 256),
            "truncation": "passages",
            "passage_tokens": tokens - 2,
            "overlap": overlap,
        }
        for tokens, overlap in (
            (512, 0),
            (512, 32),
            (256, 0),
            (256, 32),
            (256, 64),
            (128, 0),
            (128, 32),
        )
    },
}
"""How documents are indexed: what the model reads of a text, and the options of `IndexWriter`."""
REFERENCE = "cut, 256"
RESAMPLES = 10_000
QUERY, ANSWER = "train on two GPUs", "torchrun"


def reading(model: str, tokens: int, folder: Path) -> Path:
    """Return a copy of a model that reads so many tokens."""
    path = folder / f"{model}-{tokens}"
    if not path.exists():
        shutil.copytree(resolve(model), path)
        settings = json.loads((path / "sentence_bert_config.json").read_text("utf-8"))
        settings["max_seq_length"] = tokens
        (path / "sentence_bert_config.json").write_text(json.dumps(settings), "utf-8")
    return path


def ndcg_and_recall(collection: RetrievalSet, ranked: Mapping[str, Mapping[str, float]]) -> tuple[list[float], float]:
    """Return nDCG@10 of each query, in their order, and the mean recall@100, by trec_eval."""
    import pytrec_eval

    judged = {query: dict(documents) for query, documents in collection.relevant.items()}
    run = {query: dict(documents) for query, documents in ranked.items()}
    figures = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.10", "recall.100"}).evaluate(run)
    ndcg = [figures.get(query, {}).get("ndcg_cut_10", 0.0) for query in judged]
    return ndcg, float(np.mean([figures.get(query, {}).get("recall_100", 0.0) for query in judged]))


def measure(collection: RetrievalSet, embedder: Embedder, folder: Path, way: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of one way on one collection."""
    options = {key: value for key, value in way.items() if key != "reads"}
    counts, start = IndexCounts(), time.perf_counter()
    records = [Record(text, identity) for identity, text in collection.documents.items() if text.strip()]
    index = IndexWriter(folder, embedder, counts=counts, **options).create(records)
    build_s, start = time.perf_counter() - start, time.perf_counter()
    results = index.search(list(collection.queries.values()), DEPTH, by="meaning", exact=True)
    search_s = time.perf_counter() - start
    ranked = zip(collection.queries, results, strict=True)
    ndcg, recall = ndcg_and_recall(collection, {query: {hit.id: hit.score for hit in hits} for query, hits in ranked})
    return {
        "ndcg_at_10": float(np.mean(ndcg)),
        "recall_at_100": recall,
        "vectors": index.vectors,
        "split": counts.split,
        "truncated": counts.encoding.truncated,
        "build_s": build_s,
        "search_s": search_s,
        "ndcg_of_queries": ndcg,
    }


def compared(figures: Mapping[str, dict[str, Any]], reference: str = REFERENCE) -> None:
    """Add to each way its nDCG minus that of the reference, with a 95 % interval: paired bootstrap over the queries."""
    base = np.array(figures[reference]["ndcg_of_queries"])
    drawn = np.random.default_rng(0).integers(0, len(base), (RESAMPLES, len(base)))
    for way in figures.values():
        differences = np.array(way.pop("ndcg_of_queries")) - base
        low, high = np.percentile(differences[drawn].mean(axis=1), [2.5, 97.5])
        way["minus_reference"] = {"mean": float(differences.mean()), "low": float(low), "high": float(high)}


def sections() -> list[Record]:
    """Return the sections of README.md and docs/, each from its heading to the next one of its rank or above."""
    records = []
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        parts = file.read_text("utf-8").split("\n## ")
        records += [Record(part, f"{file.name} {number}") for number, part in enumerate(parts) if part.strip()]
    return records


def example(embedder: Embedder, folder: Path, way: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rank of the first section that says how to train on two GPUs, and whether its passage says so."""
    options = {key: value for key, value in way.items() if key != "reads"}
    index = IndexWriter(folder, embedder, **options).create(sections())
    hits = index.search(QUERY, len(index), by="meaning")
    rank = next(rank for rank, hit in enumerate(hits, start=1) if ANSWER in hit.text)
    return {"rank": rank, "section": hits[rank - 1].id, "passage_says_so": ANSWER in hits[rank - 1].passage}


def tables(result: Json) -> list[Table]:
    """Return the table of nDCG@10 and recall@100, a row a way."""
    header = ["documents"]
    for model in result["models"]:
        header += [f"{model}: {name} nDCG@10 (recall@100)" for name in COLLECTIONS]
    rows = []
    for way in WAYS:
        cells = []
        for model in result["models"].values():
            for name in COLLECTIONS:
                figures = model["collections"][name].get(way)
                cells.append("not measured" if figures is None else _cell(figures))
        rows.append((way, *cells))
    note = f"* differs from `{REFERENCE}`: the paired bootstrap's 95 % interval over the queries does not hold 0."
    return [Table("Long documents", tuple(header), tuple(rows), (note,))]


def _cell(figures: Json) -> str:
    difference = figures.get("minus_reference")
    star = "*" if difference is not None and (difference["low"] > 0 or difference["high"] < 0) else ""
    return f"{100 * figures['ndcg_at_10']:.1f}{star} ({100 * figures['recall_at_100']:.1f})"


def collections(data: Path | None) -> list[RetrievalSet]:
    """Return the collections; every judgment of Cranfield above 0 counts as 1."""
    files = [harness.data_file(data, f"retrieval/{name}/corpus.jsonl.gz") for name in COLLECTIONS]
    return [
        read_collection(file.parent, binary=name == "cranfield") for file, name in zip(files, COLLECTIONS, strict=True)
    ]


def of_model(model: str, sets: Sequence[RetrievalSet], threads: int) -> dict[str, Any]:
    """Return the figures of one model."""
    figures: dict[str, dict[str, Any]] = {collection.name: {} for collection in sets}
    examples = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for way, options in WAYS.items():
            embedder = Embedder(reading(model, options["reads"], folder), threads=threads)
            for collection in sets:
                path = folder / f"{collection.name} {way}.index"
                figures[collection.name][way] = measured = measure(collection, embedder, path, options)
                shutil.rmtree(path)
                print(
                    f"{model} {collection.name:10} {way:30} nDCG@10 {100 * measured['ndcg_at_10']:.2f}  "
                    f"recall@100 {100 * measured['recall_at_100']:.2f}  vectors {measured['vectors']}  "
                    f"{measured['build_s']:.0f} s",
                    flush=True,
                )
            examples[way] = example(embedder, folder / f"example {way}.index", options)
            print(f"{model} {QUERY!r} {way:30} {examples[way]}", flush=True)
    for of_ways in figures.values():
        compared(of_ways)
    return {"collections": figures, "example": examples}


def main() -> None:
    options = harness.arguments(__doc__, rounds=1)
    sets = collections(options.data)
    result = {"models": {model: of_model(model, sets, options.threads) for model in MODELS}}
    for table in tables(result):
        print(table.terminal())
    harness.save("passages", result, options)


if __name__ == "__main__":
    main()
