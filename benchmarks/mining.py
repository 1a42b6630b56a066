"""`sbmini mine` beside sentence-transformers' `mine_hard_negatives`: time, peak memory, and whether both find the same negatives.

Queries are titles of pairs_wiki_title_lead, positives their first sentences, the other texts sentences_wikipedia_1. Both use
all-MiniLM-L6-v2 with the same margin and ranks, each in a process of its own, one after the other in turn.
"""

import csv
import gzip
import itertools
import json
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks import harness
from sbert_mini.evaluation.choices import PEER_MODEL
from sbert_mini.evaluation.measure import process
from sbert_mini.evaluation.table import Json, Table
from sbert_mini.evaluation.texts import SENTENCES
from sbert_mini.model.registry import resolve

PAIRS = "pairs_wiki_title_lead.tsv.gz"
QUERIES, TEXTS = 1_000, 10_000
_CHARACTERS = 200
_PEER = """
import csv, json, sys
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives
model, pairs, corpus, output, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
rows = list(csv.DictReader(open(pairs, newline="")))
texts = open(corpus).read().splitlines()
found = mine_hard_negatives(
    Dataset.from_list(rows), SentenceTransformer(model, device="cpu"), corpus=texts, relative_margin=0.05, range_max=30,
    num_negatives=3, use_faiss=True, verbose=False,
)
with open(output, "w") as stream:
    for row in found:
        stream.write(json.dumps(row) + "\\n")
"""


def tables(result: Json) -> list[Table]:
    """Return the table of time, memory and agreement."""
    ours, theirs = result["sbert-mini"], result["sentence-transformers"]
    rows = tuple(
        (name, f"{entry['seconds']:.0f} s", f"{entry['peak_bytes'] / 1e6:.0f} MB", f"{entry['rows']:,}")
        for name, entry in (("sbmini mine", ours), ("mine_hard_negatives", theirs))
    )
    notes = (
        f"{result['queries']:,} queries and {result['texts']:,} texts, {PEER_MODEL}, whole processes, in turn; median of "
        f"{result['rounds']}. "
        f"{result['shared']:.1%} of sentence-transformers' negatives are also ours: ours are computed with int8.",
    )
    return [Table("Mining", ("", "time", "peak memory", "triplets"), rows, notes)]


def _write(folder: Path, data: Path, queries: int, texts: int) -> tuple[Path, Path]:
    pairs, corpus = folder / "pairs.csv", folder / "corpus.txt"
    with gzip.open(harness.data_file(data, PAIRS), "rt", encoding="utf-8") as lines:
        rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        taken = [(row["title"], row["lead"][:_CHARACTERS]) for row in itertools.islice(rows, queries)]
    with pairs.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("query", "positive"), *taken])
    with gzip.open(harness.data_file(data, SENTENCES), "rt", encoding="utf-8") as lines:
        corpus.write_text("".join(itertools.islice(lines, texts)), "utf-8")
    return pairs, corpus


def _negatives(file: Path) -> set[tuple[str, str]]:
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return {(row["query"], row["negative"]) for row in rows}


def main() -> None:
    options = harness.arguments(__doc__, rounds=1)
    sbmini = str(Path(sys.executable).with_name("sbmini"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs, corpus = _write(folder, options.data, QUERIES, TEXTS)
        ours, theirs = folder / "ours.jsonl", folder / "theirs.jsonl"
        (folder / "peer.py").write_text(_PEER, "utf-8")
        threads = ["--threads", str(options.threads)]
        mine = [sbmini, "mine", str(pairs), "--corpus", str(corpus), "-o", str(ours), "-m", PEER_MODEL, "-q", *threads]
        model = str(resolve(PEER_MODEL, offline=True))
        peer = [
            sys.executable,
            str(folder / "peer.py"),
            model,
            str(pairs),
            str(corpus),
            str(theirs),
            str(options.threads),
        ]
        runs: dict[str, list[tuple[float, int]]] = {"sbert-mini": [], "sentence-transformers": []}
        for _ in range(options.rounds):
            for label, command in (("sbert-mini", mine), ("sentence-transformers", peer)):
                runs[label].append(process(command))
                print(label, *runs[label][-1], flush=True)
        found = {"sbert-mini": _negatives(ours), "sentence-transformers": _negatives(theirs)}
        result: dict[str, object] = {
            label: {
                "seconds": statistics.median(seconds for seconds, _ in of),
                "peak_bytes": max(peak for _, peak in of),
                "rows": len(found[label]),
            }
            for label, of in runs.items()
        }
        shared = len(found["sbert-mini"] & found["sentence-transformers"]) / len(found["sentence-transformers"])
        result |= {"queries": QUERIES, "texts": TEXTS, "rounds": options.rounds, "shared": shared}
    harness.save("mining", result, options)


if __name__ == "__main__":
    main()
