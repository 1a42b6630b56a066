"""Train the three tasks of De La Cruz, Musa and Ndotu with a fifth of their parameters: `make paper`.

    python -m benchmarks.paper.train                  prepare the data, train or continue, write the figures
    python -m benchmarks.paper.train --only prepare

Trains `paper.toml` on CS224N's splits in build/paper, writes the report build/paper/report, and the figures of both phases into
results/paper.json. The same command continues after an interruption.
"""

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.harness import RESULTS, START_NOTE
from sbert_mini.evaluation.measure import machine
from sbert_mini.evaluation.report import write_report
from sbert_mini.evaluation.table import Json, Table
from sbert_mini.evaluation.tables import training as training_tables
from sbert_mini.runtime.predictor import Predictor
from sbert_mini.text.records import Record, read_records

FOLDER = Path("build/paper")
RECIPE = Path("benchmarks/paper/paper.toml")
PAPER = {"sst_accuracy": 0.5014, "quora_accuracy": 0.8584, "sts_pearson": 0.8363, "mean": 0.7561}
"""The best dev figures of the paper, each of its own model; the mean is of one model."""
REFERENCE_NOTE = (
    "De La Cruz, Musa and Ndotu, BERT-base, 110M parameters: the best dev figure of each task, each from a different model, and "
    "the best mean of one model."
)
NOTES = (
    "Quora: {quora_pairs:,} distinct training pairs, {share:.0%} of the paper's {theirs:,}, read in both orders. "
    "All dev pairs are scored.",
    "STS is trained and scored on CS224N's own split. "
    "SST-5 is trained on the training sentences and {phrases:,} phrases of their trees.",
    START_NOTE,
    "Dev figures select the weights, here and in the paper.",
)
PAPER_PAIRS = 283_010
"""Rows of CS224N's Quora training split."""
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
    labels: dict[str, str] = {}
    with gzip.open(data / "sst5_trees" / "train.txt.gz", "rt", encoding="utf-8") as trees:
        for line in trees:
            *inner, _ = phrases(line)
            labels |= {text: label for text, label in inner if len(text.split()) >= WORDS}
    rows = sorted(labels.items())
    drawn = np.random.default_rng(0).permutation(len(rows))[:PHRASES]
    sample = [rows[i] for i in drawn]
    (folder / "phrases.tsv").write_text(
        "label\tsentence\n" + "".join(f"{label}\t{text}\n" for text, label in sample), "utf-8"
    )
    pairs: dict[tuple[str, ...], tuple[str, str, str]] = {}
    for name in ("quora_train", "quora_cs224n_train_partial"):
        for record in read_records(data / f"{name}.tsv.gz", text_column="question1"):
            first, second, label = record.text, str(record.columns["question2"]), str(record.columns["is_duplicate"])
            pairs[tuple(sorted((first, second)))] = (label, first, second)
    (folder / "quora.tsv").write_text(
        "is_duplicate\tquestion1\tquestion2\n" + "".join("\t".join(row) + "\n" for row in pairs.values()), "utf-8"
    )
    return {"phrases": len(sample), "phrases_to_draw_from": len(rows), "quora_pairs": len(pairs)}


def sst_test(records: Sequence[Record], model: Path, threads: int) -> float:
    """Return the accuracy on SST-5's test sentences, in float32."""
    predicted = Predictor(model, "sst", graph="fp32", threads=threads).predict([record.text for record in records])
    right = [p.label == str(r.columns["label"]) for p, r in zip(predicted, records, strict=True)]
    return sum(right) / len(right)


def tables(result: Json) -> list[Table]:
    """Return the saved model against the paper's figures, and the dev figures of each evaluation of both phases."""
    made = {table.title: table for table in training_tables(result)}
    saved = made["The saved model"]
    return [replace(saved, notes=(*saved.notes, *result["notes"])), made["Dev figures of each evaluation"]]


def main() -> None:
    """Prepare, train or go on, score, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("prepare",))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if "SBMINI_DATA" not in os.environ:
        sys.exit("SBMINI_DATA must name the data folder")
    data = Path(os.environ["SBMINI_DATA"])
    folder = FOLDER.resolve()
    counts = prepare(data, folder)
    print(json.dumps(counts), file=sys.stderr)
    if options.only:
        return
    os.environ["SBMINI_PAPER"] = str(folder)
    model = folder / "model"
    from sbert_mini.recipes.plan import prepare as plan_of
    from sbert_mini.recipes.reader import read_recipe
    from sbert_mini.recipes.record import training_record
    from sbert_mini.recipes.run_folder import is_finished
    from sbert_mini.training.checks import overlap

    plan = plan_of(read_recipe(RECIPE))
    if not is_finished(plan):
        command = [
            sys.executable,
            "-m",
            "sbert_mini",
            "train",
            str(RECIPE),
            "--resume",
            "--threads",
            str(options.threads),
        ]
        subprocess.run(command, check=True)
    record = training_record(plan, threads=options.threads)
    test = list(read_records(data / "sst5_test.tsv.gz", text_column="sentence"))
    shared = sum(overlap(plan.tasks[0].train.texts, [(row.text,) for row in test]))
    tested = sst_test(test, model, options.threads)
    values = {**counts, "share": counts["quora_pairs"] / PAPER_PAIRS, "theirs": PAPER_PAIRS}
    notes = [
        f"SST-5 test accuracy: {tested:.4f}; {shared} training texts also occur in that test set.",
        *(note.format(**values) for note in NOTES),
    ]
    result = {
        "command": f"python -m benchmarks.paper.train --threads {options.threads}",
        "machine": machine(options.threads),
        **record,
        "notes": notes,
        "reference": {"name": "the paper, the best of each", "figures": PAPER, "notes": [REFERENCE_NOTE]},
        "data": counts,
        "sst_test_accuracy": tested,
    }
    write_report(folder / "report", "training", result)
    for phase in result["phases"]:  # the curves and the scatter plot stay in the report
        phase["curves"] = {}
    del result["predictions"]["sts"]
    (RESULTS / "paper.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
