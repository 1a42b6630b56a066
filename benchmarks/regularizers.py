"""Do the fitter's regularizers and schedules help on SST-5, Quora and STS, at a fixed number of steps?

    python -m benchmarks.regularizers --threads 1

Every arm is the recipe below with one change: 150 steps of 24 examples from all-MiniLM-L6-v2, one seed, dev figures
of the last step (Quora: the first 2,000 dev rows). An arm that results/regularizers.json has for the same commit is
not run again.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import harness
from sbert_mini.evaluation.measure import machine

STEPS = 150
BASE = """
[data]
folder = "$SBMINI_DATA"
[model]
start = "all-MiniLM-L6-v2"
output = "model"
[train]
{steps}
batch_size = 24
surgery = "pcgrad-normalized"
seed = 1
[optimizer]
learning_rate = {rate}
{optimizer}
[evaluation]
every = {every}
{tables}
{tasks}
"""
STSB = {"train": "stsb_train.tsv.gz", "dev": "stsb_dev.tsv.gz"}
SIMCSE = harness.task(
    "simcse", "single", "multiple-negatives-ranking", train="sentences_misc.txt.gz", limit=20000
) + harness.stsb("sts", dev=STSB["dev"])


def tasks(**adapter: int) -> str:
    """Return the three tasks; those with a head take the adapter."""
    return harness.sst(**adapter) + harness.quora(**adapter) + harness.stsb("sts", **STSB)


ARMS: dict[str, dict[str, str]] = {
    "nothing further": {},
    "R-Drop, α = 1": {"tables": "[regularization]\nr_drop = 1.0"},
    "SMART, λ = 1, μ = 1": {"tables": "[regularization]\nsmart = 1.0\nbregman = 1.0"},
    "moving average, d = 0.99": {"tables": '[average]\nkind = "ema"\ndecay = 0.99'},
    "mean of the last 4 evaluations": {"tables": '[average]\nkind = "checkpoints"\nstart = 0.6', "every": "15"},
    "rates falling by 0.9 a layer": {"optimizer": "layer_decay = 0.9"},
    "gradual unfreezing, a layer each 15 steps": {"optimizer": "unfreeze_every = 15"},
    "heads first for 50 of the steps": {
        "steps": "",
        "tables": '[[phase]]\nencoder = "frozen"\nsteps = 50\n[[phase]]\nsteps = 100',
        "every": "50",
    },
    "LoRA, rank 16, rate 1e-3": {
        "tables": '[lora]\nrank = 16\nalpha = 32\ntargets = ["query", "key", "value", "dense"]',
        "rate": "1e-3",
    },
    "projected attention, 96 components": {"tasks": tasks(adapter_size=96)},
    "unsupervised SimCSE alone": {"tasks": SIMCSE, "rate": "3e-5"},
}


def main() -> None:
    options = harness.arguments(__doc__ or "")
    os.environ.update(
        OMP_NUM_THREADS=str(options.threads), TOKENIZERS_PARALLELISM="false", SBMINI_DATA=str(options.data)
    )
    from sbert_mini.recipes.fit import fit
    from sbert_mini.recipes.plan import prepare
    from sbert_mini.recipes.reader import read_recipe
    from sbert_mini.recipes.settings import computing_threads

    file = harness.RESULTS / "regularizers.json"
    card = machine(options.threads)
    earlier = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    arms = earlier.get("arms", {}) if earlier.get("machine", {}).get("commit") == card["commit"] else {}
    for name, changes in ARMS.items():
        if name in arms:
            continue
        settings = {
            "steps": f"steps = {STEPS}",
            "rate": "5e-5",
            "optimizer": "",
            "tables": "",
            "every": str(STEPS),
            "tasks": tasks(),
        }
        settings |= changes
        with tempfile.TemporaryDirectory() as folder, computing_threads(options.threads):
            recipe = Path(folder) / "recipe.toml"
            recipe.write_text(BASE.format(**settings), "utf-8")
            begun = time.perf_counter()
            done = fit(prepare(read_recipe(recipe)))
            seconds = time.perf_counter() - begun
        arms[name] = {"figures": dict(done.figures), "seconds": round(seconds, 1), "steps": done.steps}
        print(name, json.dumps(arms[name]), file=sys.stderr)
        if not options.no_save:
            result = {
                "command": f"python -m benchmarks.regularizers --threads {options.threads}",
                "machine": card,
                "arms": arms,
            }
            file.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(json.dumps(arms, ensure_ascii=False))


if __name__ == "__main__":
    main()
