"""Whole processes: a million sentences encoded end to end with each shipped model, and cold starts of `encode` and `search`.

    python -m benchmarks.processes --threads 2 --rounds 5

The million are sentences_wikipedia_1; the index that is searched holds the first 100,000 of them. About 20 minutes.
"""

import gzip
import itertools
import json
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.models.train import NAMES
from sbert_mini.evaluation.measure import alternate, process, summary, timed
from sbert_mini.evaluation.table import Json, Table
from sbert_mini.evaluation.tables import spread
from sbert_mini.evaluation.texts import SENTENCES
from sbert_mini.model import registry
from sbert_mini.model.layout import read_layout
from sbert_mini.text.tokenizer import open_tokenizer

ROWS = 100_000
SBMINI = str(Path(sys.executable).with_name("sbmini"))


def end_to_end(model: str, source: Path, texts: Sequence[str], threads: int, folder: Path) -> dict[str, Any]:
    """Return what `sbmini encode` of a million sentences takes, and the share of it that tokenizing is."""
    tokenizer = open_tokenizer(read_layout(registry.resolve(model)))
    token_s = timed(partial(tokenizer.encode, texts)) / len(texts)
    options = ("-i", str(source), "-o", str(folder / f"{model}.npy"), "-m", model, "-q", "--threads", str(threads))
    seconds, peak = process([SBMINI, "encode", *options])
    rows = int(np.load(folder / f"{model}.npy", mmap_mode="r").shape[0])
    print(f"{model}: {rows:,} sentences in {seconds:.0f} s, {peak / 1e6:.0f} MB peak")
    return {
        "rows": rows,
        "seconds": seconds,
        "peak_bytes": peak,
        "tokenizer_share": token_s * rows / (threads * seconds),
    }


def cold_starts(texts: Sequence[str], vectors: Path, threads: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Return seconds and peak memory of whole processes: one sentence encoded, and one query over 100,000 rows."""
    rows, index = folder / "rows.jsonl", folder / "index"
    rows.write_text("".join(json.dumps({"id": str(i), "text": t}) + "\n" for i, t in enumerate(texts)), "utf-8")
    np.save(folder / "rows.npy", np.load(vectors, mmap_mode="r")[: len(texts)])
    options = ["-i", str(rows), "--vectors", str(folder / "rows.npy"), "--threads", str(threads)]
    process([SBMINI, "index", "create", str(index), *options])
    commands = {
        "sbmini encode": [SBMINI, "encode", "one sentence", "--threads", str(threads)],
        f"sbmini search, {len(texts):,} rows": [
            SBMINI,
            "search",
            str(index),
            "one sentence",
            "--threads",
            str(threads),
        ],
    }
    peaks: dict[str, list[float]] = {name: [] for name in commands}

    def run(name: str) -> float:
        seconds, peak = process(commands[name])
        peaks[name].append(peak)
        return seconds

    for command in commands.values():
        process(command)
    seconds = alternate({name: partial(run, name) for name in commands}, 3 * rounds)
    return {name: {"seconds": summary(seconds[name]), "peak_bytes": summary(peaks[name])} for name in commands}


def tables(result: Json) -> list[Table]:
    """Return the table of a million sentences end to end, and of cold starts."""
    rows = [
        (
            f"`sbmini encode -m {name}`, {entry['rows']:,} Wikipedia sentences",
            f"{entry['seconds']:.0f} ({entry['rows'] / entry['seconds']:,.0f} a second)",
            f"{entry['peak_bytes'] / 1e6:.0f} MB",
            f"{100 * entry['tokenizer_share']:.0f} % of the processor time",
        )
        for name, entry in result["end_to_end"].items()
    ]
    rows += [
        (
            f"cold start of {name}",
            spread(entry["seconds"], 2),
            f"{entry['peak_bytes']['median'] / 1e6:.0f} MB",
            "",
        )
        for name, entry in result["cold_start"].items()
    ]
    return [Table("Whole processes", ("whole processes", "seconds", "peak memory", "tokenizing"), tuple(rows))]


def main() -> None:
    options = harness.arguments(__doc__, rounds=5)
    source = harness.data_file(options.data, SENTENCES)
    with gzip.open(source, "rt", encoding="utf-8") as lines:
        sentences = [line.rstrip("\n") for line in itertools.islice(lines, ROWS)]
    result: dict[str, Any] = {"end_to_end": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in NAMES:
            result["end_to_end"][model] = end_to_end(model, source, sentences, options.threads, folder)
        result["cold_start"] = cold_starts(
            sentences, folder / f"{NAMES[0]}.npy", options.threads, options.rounds, folder
        )
    harness.save("processes", result, options)


if __name__ == "__main__":
    main()
