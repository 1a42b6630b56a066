"""De La Cruz, Musa and Ndotu's table, with a sixth of their parameters: `make paper`.

    python -m benchmarks.paper                  prepare the data, train (or go on), keep the figures
    python -m benchmarks.paper --only prepare

Trains `paper.toml` on CS224N's splits in build/paper, and writes the figures of each epoch of both phases into
results/paper.json.
"""

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.harness import RESULTS
from sbert_mini.evaluation.measure import machine
from sbert_mini.runtime.heads import Predictor
from sbert_mini.text.records import read_records

FOLDER = Path("build/paper")
RECIPE = Path("benchmarks/paper.toml")
PAPER = {"sst_accuracy": 0.5014, "quora_accuracy": 0.8584, "sts_pearson": 0.8363, "mean": 0.7561}
"""The best dev figures of the paper, a model each; the mean is of one."""
PHRASES, WORDS = 30_000, 3


def phrases(line: str) -> Iterator[tuple[str, str]]:
    """Yield the phrases of a labelled tree and their labels, the whole sentence last."""
    stack: list[tuple[str, list[str]]] = []
    for part in re.findall(r"\(\d|\)|[^()\s]+", line):
        if part.startswith("("):
            stack.append((part[1:], []))
        elif part == ")":
            label, words = stack.pop()
            yield " ".join(words).replace("\\/", "/"), label
            if stack:
                stack[-1][1].extend(words)
        else:
            stack[-1][1].append(part)


def prepare(data: Path, folder: Path) -> dict[str, int]:
    """Write the phrases of SST-5's training trees and the distinct pairs of both Quora files, and return their counts."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, str] = {}
    with gzip.open(data / "sst5_trees" / "train.txt.gz", "rt", encoding="utf-8") as trees:
        for line in trees:
            *inner, _ = phrases(line)
            found |= {text: label for text, label in inner if len(text.split()) >= WORDS}
    rows = sorted(found.items())
    chosen = np.random.default_rng(0).permutation(len(rows))[:PHRASES]
    kept = [rows[i] for i in chosen]
    (folder / "phrases.tsv").write_text(
        "label\tsentence\n" + "".join(f"{label}\t{text}\n" for text, label in kept), "utf-8"
    )
    pairs: dict[tuple[str, ...], tuple[str, str, str]] = {}
    for name in ("quora_train", "quora_cs224n_train_partial"):
        for record in read_records(data / f"{name}.tsv.gz", text_column="question1"):
            first, second, label = record.text, str(record.columns["question2"]), str(record.columns["is_duplicate"])
            pairs[tuple(sorted((first, second)))] = (label, first, second)
    (folder / "quora.tsv").write_text(
        "is_duplicate\tquestion1\tquestion2\n" + "".join("\t".join(row) + "\n" for row in pairs.values()), "utf-8"
    )
    return {"phrases": len(kept), "phrases_to_draw_from": len(rows), "quora_pairs": len(pairs)}


def sst_test(data: Path, model: Path, threads: int) -> float:
    """Return the accuracy on SST-5's test sentences, in float32."""
    records = list(read_records(data / "sst5_test.tsv.gz", text_column="sentence"))
    said = Predictor(model, "sst", graph="fp32", threads=threads).predict([record.text for record in records])
    right = [p.label == str(r.columns["label"]) for p, r in zip(said, records, strict=True)]
    return sum(right) / len(right)


def epochs(log: Path) -> list[dict[str, float]]:
    """Return the figures of each evaluation of a phase, from its log."""
    entries = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    return [{k.removeprefix("eval_"): v for k, v in e.items()} for e in entries if "eval_mean" in e]


def main() -> None:
    """Prepare, train or go on, score, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("prepare",))
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    data = Path(os.environ["SBMINI_DATA"])
    folder = FOLDER.resolve()
    counts = prepare(data, folder)
    print(json.dumps(counts), file=sys.stderr)
    if chosen.only:
        return
    model = folder / "model"
    if not model.is_dir():
        command = [
            sys.executable,
            "-m",
            "sbert_mini",
            "train",
            str(RECIPE),
            "--resume",
            "--threads",
            str(chosen.threads),
        ]
        subprocess.run(command, check=True, env={**os.environ, "SBMINI_PAPER": str(folder)})
    result = {
        "command": "make paper",
        "machine": machine(chosen.threads),
        "paper": PAPER,
        "data": counts,
        "phases": [epochs(folder / "model.run" / f"phase-{number}" / "log.jsonl") for number in (1, 2)],
        "sst_test_accuracy": sst_test(data, model, chosen.threads),
    }
    (RESULTS / "paper.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
