"""Measure `sbert-mini-static` beside sbert-mini: benchmarks/results/model_static.json, and the last part of its card.

    python -m benchmarks.models.static_figures --threads 2 --rounds 5

Measured: similarity by `sbmini bench sts`; retrieval where each of them encodes the queries and each
the documents, because one may search the other's index; Quora questions a second, alternately, by processor time. The meaning
of a cosine and the audit are those of `benchmarks.models.figures`, whose results hold sbert-mini's own.
"""

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import RESULTS, data_file
from benchmarks.models.audit import hubness, rare_words
from benchmarks.models.card import SETS
from benchmarks.models.figures import NOTE, bench, scores
from benchmarks.models.static import NAME, SHIPPED
from benchmarks.models.static_card import DIMS, write_card
from benchmarks.models.static_texts import FOLDER, TEACHER
from sbert_mini import Embedder
from sbert_mini.evaluation.audit import associations
from sbert_mini.evaluation.measure import alternate, machine, processor_timed
from sbert_mini.evaluation.retrieval import RetrievalSet, exact_search, query_measures, read_collection
from sbert_mini.evaluation.significance import interval, resampled_means
from sbert_mini.evaluation.texts import QUESTION_COLUMN, QUESTIONS, read_texts
from sbert_mini.shapes import FloatArray

COLLECTIONS = ("scifact", "cranfield")
RESAMPLES, TEXTS = 1000, 1024


def similarity(threads: int) -> dict[str, Any]:
    """Return the Spearman figures of the model and of its shortened vectors, with their intervals."""
    dims = [word for dim in DIMS for word in ("--dim", str(dim))]
    options = ("--sets", SETS, "--resamples", str(RESAMPLES), "--threads", str(threads))
    result: dict[str, Any] = {}
    for entry in bench("sts", "-m", NAME, *dims, *options)["models"]:
        sets = {s["set"]: s["spearman"] for s in entry["sets"]}
        intervals = {s["set"]: s["spearman_interval"] for s in entry["sets"]}
        result[entry["model"]] = {"mean": float(np.mean(list(sets.values()))), **sets, "intervals": intervals}
    return result


def ndcg(collection: RetrievalSet, documents: FloatArray, queries: FloatArray) -> dict[str, Any]:
    """Return nDCG@10 x 100 of some vectors, with its interval."""
    ids = list(collection.documents)
    values, numbers = exact_search(documents, queries, 100)
    ranked = {
        query: {ids[row]: float(value) for row, value in zip(numbers[q].tolist(), values[q].tolist(), strict=True)}
        for q, query in enumerate(collection.queries)
    }
    found = np.array(query_measures(collection.relevant, ranked)["ndcg_at_10"])
    bounds = interval(resampled_means(found[None], RESAMPLES, 0)[0])
    return {"ndcg_at_10": 100 * float(found.mean()), "interval": [100 * bound for bound in bounds or ()]}


def kept_vectors(model: Embedder, name: str, collection: RetrievalSet) -> FloatArray:
    """Return a model's vectors of a collection's documents, computed once: minutes of sbert-mini."""
    file = FOLDER / f"{name}-{model.fingerprint[:16]}.npy"
    if not file.is_file():
        np.save(file, model.encode_document(collection.documents.values()))
    vectors: FloatArray = np.load(file)
    return vectors


def retrieval(models: dict[str, Embedder], data: Path) -> dict[str, Any]:
    """Return the figures: collection -> who encodes the queries -> who encodes the documents."""
    result: dict[str, Any] = {}
    for name in COLLECTIONS:
        collection = read_collection(data / "retrieval" / name, binary=True)
        documents = {who: kept_vectors(model, name, collection) for who, model in models.items()}
        queries = {who: model.encode_query(collection.queries.values()) for who, model in models.items()}
        result[name] = {
            who: {whose: ndcg(collection, documents[whose], queries[who]) for whose in models} for who in models
        }
    return result


def speed(models: dict[str, Embedder], data: Path, rounds: int) -> dict[str, Any]:
    """Return each model's Quora questions a processor second, measured alternately, and the ratio of the medians' pairs."""
    texts = read_texts(TEXTS, None, data_file(data, QUESTIONS), QUESTION_COLUMN)
    for model in models.values():
        model.encode(texts[:256])
    repeats = {name: 10 if name == NAME else 1 for name in models}

    def rate(name: str) -> float:
        return (
            repeats[name]
            * len(texts)
            / processor_timed(lambda: [models[name].encode(texts) for _ in range(repeats[name])])
        )

    measured = alternate({name: lambda name=name: rate(name) for name in models}, rounds)  # type: ignore[misc]
    ratios = [a / b for a, b in zip(measured[NAME], measured[TEACHER], strict=True)]
    return {
        "texts": len(texts),
        "rounds": rounds,
        "texts_per_s": {name: statistics.median(values) for name, values in measured.items()},
        "times_sbert_mini": statistics.median(ratios),
        "lowest_and_highest": [min(ratios), max(ratios)],
    }


def main() -> None:
    """Measure, keep, and write the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="of the measurement of speed")
    options = parser.parse_args()
    if "SBMINI_DATA" not in os.environ:
        sys.exit("SBMINI_DATA must name the data folder")
    data = Path(os.environ["SBMINI_DATA"])
    models = {name: Embedder(name, threads=options.threads) for name in (NAME, TEACHER)}
    files = [file for file in SHIPPED.rglob("*") if file.is_file() and file.name != "README.md"]
    result: dict[str, Any] = {
        "command": f"python -m benchmarks.models.static_figures --threads {options.threads} --rounds {options.rounds}",
        "machine": machine(options.threads),
        "note": NOTE,
        "bytes": sum(file.stat().st_size for file in files),
        "speed": speed(models, data, options.rounds),
        "similarity": similarity(options.threads),
        "retrieval": retrieval(models, data),
        "scores": {NAME: scores(models[NAME], data)},
        "audit": {
            NAME: {
                "associations": associations(models[NAME]),
                "hubness": hubness(models[NAME], data),
                "rare_words": rare_words(models[NAME], data),
            },
            TEACHER: json.loads((RESULTS / "model.json").read_bytes())["audit"][TEACHER],
        },
    }  # fmt: skip
    (RESULTS / "model_static.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    write_card(SHIPPED / "README.md", result)


if __name__ == "__main__":
    main()
