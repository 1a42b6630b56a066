"""Measure the shipped models: benchmarks/results/model.json, and the last part of their cards.

    python -m benchmarks.models.figures --threads 2

`sbmini bench` measures quality and speed, beside all-MiniLM-L6-v2 in sentence-transformers. For each model follow the
meaning of a cosine and an audit (`audit`). The meaning consists of percentiles (paraphrases, similar pairs that are
no paraphrases, random pairs, titles and their articles) and of thresholds. A threshold is selected on one half of the
pairs and measured on the other.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import RESULTS, START, data_file
from benchmarks.models.audit import hubness, rare_words
from benchmarks.models.card import DIMS, MARK, PERCENTILES, SETS, card
from benchmarks.models.data import titles_dev
from benchmarks.models.train import NAMES, SHIPPED
from sbert_mini import Embedder
from sbert_mini.evaluation.audit import associations
from sbert_mini.evaluation.choices import PEER_MODEL
from sbert_mini.evaluation.measure import machine
from sbert_mini.evaluation.texts import QUESTION_COLUMN, QUESTIONS
from sbert_mini.model import registry
from sbert_mini.shapes import FloatArray
from sbert_mini.text.records import read_records

NOTE = (
    f"Training used no pair of these STS sets, and nothing of SciFact or Cranfield. It starts {START}. Single sentences of NLI "
    "also occur in STS12, STS15, STS-B and SICK."
)


def bench(kind: str, *arguments: str) -> dict[str, Any]:
    """Return what `sbmini bench` prints as JSON."""
    command = [sys.executable, "-m", "sbert_mini", "bench", kind, *arguments, "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def quality(names: Sequence[str], threads: int) -> dict[str, Any]:
    """Return the STS figures of the models, whole and cut, and of the peer; and nDCG@10 of both collections."""
    models = [word for name in names for word in ("-m", name)]
    dims = [word for dim in DIMS for word in ("--dim", str(dim))]
    both = ("--threads", str(threads))
    scored = bench("sts", *models, *dims, "--peer", PEER_MODEL, "--sets", SETS, "--resamples", "100", *both)
    result: dict[str, Any] = {}
    for entry in scored["models"]:
        name = entry["model"] if entry["runtime"] == "int8" else f"{entry['model']} ({entry['runtime']})"
        sets = {s["set"]: s["spearman"] for s in entry["sets"]}
        result[name] = {"mean": float(np.mean(list(sets.values()))), **sets}
    for i, name in enumerate(names):
        beside = ("--peer", PEER_MODEL) if i == 0 else ("--no-peer",)
        searched = bench("search", "-m", name, *beside, "--binary", "--rows", "1000", "--rounds", "1", *both)
        for entry in searched["retrieval"]:
            for model in entry["models"]:
                label = model["model"] if model["runtime"] == "int8" else f"{model['model']} ({model['runtime']})"
                result[label][entry["dataset"]] = 100 * model["ndcg_at_10"]
    return result


def speed(names: Sequence[str], threads: int, rounds: int) -> dict[str, Any]:
    """Return each model's questions a second and the ratio to the peer's, in batches of 32 (the peer's default), in turns."""
    result: dict[str, Any] = {}
    for name in names:
        arguments = ("-m", name, "--peer", PEER_MODEL, "--threads", str(threads), "--rounds", str(rounds))
        measured = bench("speed", *arguments)
        label = f"{name} (int8)"
        rate = measured["by_batch_size"][label]["32"]
        result[name] = {
            "rate": rate,
            "latency": measured["latency"][label],
            "cold_start": measured["cold_start"],
            "bytes": {label: model["disk_bytes"] for label, model in measured["models"].items()},
        }
    return result


def percentiles(values: FloatArray) -> dict[str, float]:
    """Return `PERCENTILES` of some cosines."""
    return {str(p): round(float(np.percentile(values, p)), 3) for p in PERCENTILES}


def cosines(embedder: Embedder, first: Sequence[str], second: Sequence[str]) -> FloatArray:
    """Return the cosine of each pair. Shapes: the result (pairs,)."""
    u, v = embedder.encode(list(first)), embedder.encode(list(second))
    result: FloatArray = (u * v).sum(axis=1)
    return result


def scores(embedder: Embedder, data: Path) -> dict[str, Any]:
    """Return what a cosine means: percentiles, and thresholds for paraphrases and for search."""
    rows = list(read_records(data_file(data, QUESTIONS), text_column=QUESTION_COLUMN))[:8000]
    first, second = [r.text for r in rows], [str(r.columns["question2"]) for r in rows]
    same = np.array([r.columns["is_duplicate"] in (1, "1") for r in rows])
    pair_cosines = cosines(embedder, first, second)
    shuffled = np.random.default_rng(0).permutation(len(second))
    random = cosines(embedder, first[:2000], [second[i] for i in shuffled[:2000]])
    titles = titles_dev(data)
    table = embedder.encode([title for title, _ in titles]) @ embedder.encode([lead for _, lead in titles]).T
    right_leads, wrong_leads = np.diag(table), table[~np.eye(len(table), dtype=bool)]
    half = np.arange(len(rows)) % 2 == 0
    candidates = np.linspace(0, 1, 201)
    accuracies = [float(((pair_cosines >= t) == same)[half].mean()) for t in candidates]
    paraphrase = float(candidates[int(np.argmax(accuracies))])
    precise = next(
        (
            float(t)
            for t in candidates
            if (pair_cosines >= t)[half].any() and same[half & (pair_cosines >= t)].mean() >= 0.9
        ),
        None,
    )
    predicted = (pair_cosines >= paraphrase)[~half]
    search = float(np.percentile(wrong_leads, 99.9))
    return {
        "percentiles": {
            "duplicate questions": percentiles(pair_cosines[same]),
            "similar questions that are not duplicates": percentiles(pair_cosines[~same]),
            "random questions": percentiles(random),
            "a title and its article's lead": percentiles(right_leads),
            "a title and another lead": percentiles(wrong_leads),
        },
        "paraphrase": {
            "threshold": round(paraphrase, 3),
            "accuracy": float((predicted == same[~half]).mean()),
            "precision": float(same[~half][predicted].mean()),
            "recall": float(predicted[same[~half]].mean()),
            "threshold_for_precision_0.9": precise,
            "pairs": int((~half).sum()),
        },
        "search": {"threshold": round(search, 3), "recall": float((right_leads >= search).mean()), "wrong": 0.001},
    }


def main() -> None:
    """Measure, keep, and write the cards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="of the measurement of speed")
    options = parser.parse_args()
    if "SBMINI_DATA" not in os.environ:
        sys.exit("SBMINI_DATA must name the data folder")
    data = Path(os.environ["SBMINI_DATA"])
    speeds = speed(NAMES, options.threads, options.rounds)
    result: dict[str, Any] = {
        "command": f"python -m benchmarks.models.figures --threads {options.threads} --rounds {options.rounds}",
        "machine": machine(options.threads),
        "note": NOTE,
        "quality": quality(NAMES, options.threads),
        "speed": speeds,
        "scores": {},
        "audit": {},
    }
    for name in (*NAMES, PEER_MODEL):
        embedder = Embedder(registry.resolve(name), threads=options.threads)
        result["scores"][name] = scores(embedder, data)
        result["audit"][name] = {
            "associations": associations(embedder), "hubness": hubness(embedder, data), "rare_words": rare_words(embedder, data),
        }  # fmt: skip
    (RESULTS / "model.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    for name in NAMES:
        file = SHIPPED / name / "README.md"
        start = file.read_text("utf-8").partition(MARK)[0].rstrip() + "\n\n"
        file.write_text(start + card(name, result), "utf-8")


if __name__ == "__main__":
    main()
