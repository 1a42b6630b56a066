"""Does gradient surgery help where tasks conflict? Similarity with contradictions against retrieval: `make conflict`.

    python -m benchmarks.conflict --data DATA            run what is missing, then write table and picture
    python -m benchmarks.conflict --data DATA --collect  run nothing

EXPERIMENTS.md has the protocol: metric, seeds, tests, and what would change our mind. Every run has its own file in the
folder `--keep`, outside the checkout, so the same command continues after an interruption; one command at a time. Training
starts from four layers of all-MiniLM-L6-v2. The weights are used for this question alone: STS-B's training pairs are in them.
"""

import argparse
import gzip
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import conflict_analysis as analysis
from benchmarks import harness
from benchmarks.conflict_analysis import EVEN
from benchmarks.harness import RESULTS, START_NOTE
from sbert_mini.evaluation.choices import PEER_MODEL
from sbert_mini.evaluation.log_keys import CONFLICT
from sbert_mini.evaluation.measure import machine

KEEP = Path("../keep/conflict")
RATES = (2e-5, 5e-5, 1e-4)
SEEDS = (1, 2, 3)
SHARES = (0.1, 0.3, EVEN, 0.7, 0.9)
"""Of similarity in the weights of the two sums: the tasks weigh 2 s and 2 (1 - s)."""
EXPERTS = "experts merged"
ARMS = (*analysis.CURVES, "pcgrad", "pcgrad-normalized", "torchjd:UPGrad", "torchjd:IMTLG", "torchjd:PCD", EXPERTS)
"""Rules of surgery, by the names that a recipe takes; and two models of one task each, whose weights are averaged."""
STEPS, BATCH, TOKENS, LAYERS = 300, 32, 64, (0, 2, 3, 5)
HELD_OUT = 2_000
"""Titles of wiki pairs for dev, and as many for test."""
RECIPE = """
[model]
start = "{start}"
layers = {layers}
max_seq_length = {tokens}
output = "model"
[train]
steps = {steps}
batch_size = {batch}
surgery = "{surgery}"
log_every = 1
[optimizer]
learning_rate = {rate}
"""


@dataclass(frozen=True)
class Spec:
    """A run.

    Attributes:
        arm: of `ARMS`.
        share: of similarity in the tasks' weights.
        rate: the highest learning rate.
        seed: of the run.
    """

    arm: str
    share: float
    rate: float
    seed: int

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.arm.replace(':', '-').replace(' ', '-')}.{self.share}.{self.rate:.0e}.seed{self.seed}.json"


def wanted(runs: Sequence[dict[str, Any]]) -> list[Spec]:
    """Return the runs that the protocol asks for, in order; those after the search of rates where the arm's rate is known."""
    specs = [Spec(arm, EVEN, rate, SEEDS[0]) for arm in ARMS for rate in RATES]
    rate_of = analysis.chosen_rates(runs, RATES, SEEDS[0])
    specs += [Spec(arm, EVEN, rate_of[arm], seed) for seed in SEEDS[1:] for arm in ARMS if arm in rate_of]
    specs += [
        Spec(arm, share, rate_of[arm], seed)
        for seed in SEEDS
        for arm in analysis.CURVES
        if arm in rate_of
        for share in SHARES
        if share != EVEN
    ]
    return specs


TOTAL = len(ARMS) * (len(RATES) + len(SEEDS) - 1) + len(analysis.CURVES) * (len(SHARES) - 1) * len(SEEDS)


def rows_of(file: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a data file by column."""
    with gzip.open(file, "rt", encoding="utf-8", newline="\n") as lines:
        header = next(lines).rstrip("\n").split("\t")
        for line in lines:
            yield dict(zip(header, line.rstrip("\n").split("\t"), strict=True))


def prepare(folder: Path, data: Path) -> dict[str, int]:
    """Write the tasks' tables, where they are not there; return how many rows each has, and how many were left out.

    Similarity: STS-B's training pairs (0 to 1), and as many of NLI: half entailed (1), half contradicted (0). Pairs of
    STS-B's dev and test sets are left out. Retrieval: Wikipedia titles and leads; repeated titles and leads are left out.
    """
    counts = folder / "data.json"
    if counts.is_file():
        found: dict[str, int] = json.loads(counts.read_text("utf-8"))
        return found
    draw = random.Random(0)  # noqa: S311
    measured = {
        part: [
            (row["sentence1"], row["sentence2"], float(row["score"]) / 5)
            for row in rows_of(data / f"stsb_{part}.tsv.gz")
        ]
        for part in ("dev", "test")
    }
    known = {_key(*pair[:2]) for pairs in measured.values() for pair in pairs}
    graded = [
        (row["sentence1"], row["sentence2"], float(row["score"]) / 5) for row in rows_of(data / "stsb_train.tsv.gz")
    ]
    train = [pair for pair in graded if _key(*pair[:2]) not in known]
    stsb = len(train)
    nli: dict[str, list[tuple[str, str, float]]] = {"entailment": [], "contradiction": []}
    for row in rows_of(data / "nli_train.tsv.gz"):
        if row["label"] in nli and _key(row["premise"], row["hypothesis"]) not in known:
            nli[row["label"]].append((row["premise"], row["hypothesis"], float(row["label"] == "entailment")))
    train += [pair for pairs in nli.values() for pair in draw.sample(pairs, stsb // 2)]
    titles: dict[str, str] = {}
    leads: set[str] = set()
    read = 0
    for row in rows_of(data / "pairs_wiki_title_lead.tsv.gz"):
        read += 1
        if row["title"] not in titles and row["lead"] not in leads:
            titles[row["title"]] = row["lead"]
            leads.add(row["lead"])
    pairs = list(titles.items())
    draw.shuffle(pairs)
    tables: dict[str, tuple[str, Sequence[Sequence[object]]]] = {
        "similarity": ("text1\ttext2\tscore", train),
        "similarity_dev": ("text1\ttext2\tscore", measured["dev"]),
        "similarity_test": ("text1\ttext2\tscore", measured["test"]),
        "retrieval": ("title\tlead", pairs[2 * HELD_OUT :]),
        "retrieval_dev": ("title\tlead", pairs[:HELD_OUT]),
        "retrieval_test": ("title\tlead", pairs[HELD_OUT : 2 * HELD_OUT]),
    }
    for name, (header, rows) in tables.items():
        lines = [header, *("\t".join(map(str, row)) for row in rows)]
        (folder / f"{name}.tsv.gz").write_bytes(
            gzip.compress("".join(f"{x}\n" for x in lines).encode("utf-8"), 6, mtime=0)
        )
    numbers = {name: len(rows) for name, (_, rows) in tables.items()}
    numbers |= {
        "stsb_left_out": len(graded) - stsb,
        "wiki_left_out": read - len(pairs),
    }
    counts.write_text(json.dumps(numbers) + "\n", "utf-8")
    return numbers


def _key(first: str, second: str) -> tuple[str, ...]:
    """Return a pair without case, outer blanks and order."""
    return tuple(sorted((first.strip().casefold(), second.strip().casefold())))


def recipe(spec: Spec, folder: Path, steps: int, task: str = "") -> str:
    """Return the recipe of a run; of an expert where a task is named, with the examples a step that the task has otherwise."""
    similarity = harness.task(
        "similarity",
        "siamese",
        "cosine-mse",
        train=str(folder / "similarity.tsv.gz"),
        text=["text1", "text2"],
        label="score",
        weight=round(2 * spec.share, 3),
    )
    retrieval = harness.task(
        "retrieval",
        "siamese",
        "multiple-negatives-ranking",
        train=str(folder / "retrieval.tsv.gz"),
        text=["title", "lead"],
        weight=round(2 - 2 * spec.share, 3),
    )
    head = RECIPE.format(
        start=PEER_MODEL,
        layers=list(LAYERS),
        tokens=TOKENS,
        steps=steps,
        batch=BATCH // 2 if task else BATCH,
        surgery="sum" if task else spec.arm,
        rate=spec.rate,
    )
    return head + {"": similarity + retrieval, "similarity": similarity, "retrieval": retrieval}[task]


def fitted(text: str, seed: int, folder: Path) -> list[dict[str, Any]]:
    """Fit by a recipe in `folder`; return the lines of the log."""
    from sbert_mini.recipes.fit import fit
    from sbert_mini.recipes.plan import prepare as planned
    from sbert_mini.recipes.reader import read_recipe

    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(text, "utf-8")
    plan = planned(read_recipe(folder / "recipe.toml"))
    fit(plan, seed=seed)
    lines = [json.loads(line) for line in (plan.run / "log.jsonl").read_text("utf-8").splitlines()]
    return [line for line in lines if "loss" in line]


def run(spec: Spec, keep: Path, steps: int) -> dict[str, Any]:
    """Train, measure on dev and test, and return what the analysis needs."""
    from sbert_mini.training.averaging import soup

    with tempfile.TemporaryDirectory(dir=keep) as name:
        folder, begun, processor = Path(name), time.perf_counter(), time.process_time()
        if spec.arm == EXPERTS:
            for task in ("similarity", "retrieval"):
                fitted(recipe(spec, keep, steps, task), spec.seed, folder / task)
            model, conflict = folder / "merged", None
            experts = [folder / task / "model" for task in ("similarity", "retrieval")]
            for expert in experts:
                shutil.rmtree(expert / "heads", ignore_errors=True)  # of other tasks, and without weights
            soup(experts, model)
        else:
            logged = fitted(recipe(spec, keep, steps), spec.seed, folder / "joint")
            model = folder / "joint" / "model"
            (pair,) = (key for key in logged[0] if key.startswith(CONFLICT))
            conflict = statistics.fmean(line[pair] for line in logged)
        trained, trained_processor = time.perf_counter() - begun, time.process_time() - processor
        figures = measured(model, keep)
    return {
        **asdict(spec),
        "steps": steps,
        **figures,
        "conflict": conflict,
        "seconds": round(time.perf_counter() - begun, 1),
        "training_s": round(trained, 1),
        "step_s": trained_processor / steps,
    }


def measured(model: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Return a model's figures on dev and test, times 100: Spearman's correlation on STS-B, and MRR@10 on held-out titles."""
    import numpy as np

    import sbert_mini
    from sbert_mini.evaluation.sts import spearman

    encoder = sbert_mini.load(str(model), device="cpu")

    def vectors(texts: list[str]) -> Any:
        return np.asarray(encoder.encode(texts, normalize_embeddings=True, show_progress_bar=False))

    found = {}
    for part in ("dev", "test"):
        graded = list(rows_of(folder / f"similarity_{part}.tsv.gz"))
        u, v = (vectors([row[column] for row in graded]) for column in ("text1", "text2"))
        correlation = spearman((u * v).sum(axis=1), np.array([float(row["score"]) for row in graded]))
        pairs = list(rows_of(folder / f"retrieval_{part}.tsv.gz"))
        scores = vectors([row["title"] for row in pairs]) @ vectors([row["lead"] for row in pairs]).T
        ranks = (scores > np.diag(scores)[:, None]).sum(axis=1) + 1
        mrr = np.where(ranks <= 10, 1 / ranks, 0).mean()
        found[part] = {"similarity": 100 * float(correlation or 0), "retrieval": 100 * float(mrr)}
    return found


def done_in(keep: Path, steps: int) -> list[dict[str, Any]]:
    """Return the runs of a folder, and refuse those of another number of steps."""
    runs = [json.loads(file.read_text("utf-8")) for file in sorted(keep.glob("*.seed*.json"))]
    if any(run["steps"] != steps for run in runs):
        sys.exit(f"{keep} holds runs of another number of steps: name another folder")
    return runs


def run_missing(keep: Path, steps: int, threads: int, only: Sequence[str]) -> None:
    """Run what is missing, and print how many runs are done and the time left."""
    from sbert_mini.files.durable import write_durably
    from sbert_mini.recipes.settings import computing_threads

    spent: list[float] = []
    while True:
        runs = done_in(keep, steps)
        left = [s for s in wanted(runs) if not (keep / s.file).is_file() and s.arm in (only or ARMS)]
        if not left:
            return
        with computing_threads(threads):
            result = run(left[0], keep, steps)
        write_durably(keep / left[0].file, (json.dumps({**result, "machine": machine(threads)}) + "\n").encode())
        spent.append(result["seconds"])
        hours = (TOTAL - len(runs) - 1) * statistics.fmean(spent) / 3600
        print(
            f"{len(runs) + 1} of {TOTAL} runs, about {hours:.1f} hours left: {left[0].file}",
            file=sys.stderr,
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SBMINI_DATA"), help="default: $SBMINI_DATA")
    parser.add_argument("--keep", type=Path, default=KEEP, help=f"folder of runs and tables; default: {KEEP}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=STEPS, help="for a trial, in a folder of its own")
    parser.add_argument("--only", nargs="*", choices=ARMS, default=[], help="arms to run; default: all")
    parser.add_argument("--collect", action="store_true", help="run nothing: write table and picture")
    options = parser.parse_args()
    keep = options.keep.resolve()
    keep.mkdir(parents=True, exist_ok=True)
    if not options.collect:
        for name in ("stsb_train", "stsb_dev", "stsb_test", "nli_train", "pairs_wiki_title_lead"):
            harness.data_file(options.data, f"{name}.tsv.gz")
        os.environ.update(OMP_NUM_THREADS=str(options.threads), TOKENIZERS_PARALLELISM="false")
        print(json.dumps(prepare(keep, options.data)), file=sys.stderr)
        run_missing(keep, options.steps, options.threads, options.only)
    runs = done_in(keep, options.steps)
    result = analysis.analysed(runs, RATES, SEEDS[0])
    if not result["arms"]:
        sys.exit(f"{keep}: {len(runs)} of {TOTAL} runs are done, and no arm has all its rates")
    cards = [run["machine"] for run in runs]
    head = {
        "command": f"python -m benchmarks.conflict --threads {cards[-1]['threads']}",
        "machine": cards[-1],
        "commits": sorted({card["commit"] for card in cards}),
        "note": START_NOTE,
        "steps": options.steps,
        "runs": len(runs),
        "of": TOTAL,
    }
    folder = RESULTS if options.steps == STEPS else keep
    (folder / "conflict.json").write_text(json.dumps({**head, **result}, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (folder / "conflict.png").write_bytes(analysis.picture(result))
    for table in analysis.tables(result):
        print(table.markdown(), end="\n\n")


if __name__ == "__main__":
    main()
