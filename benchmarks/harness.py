"""What the scripts here share: options, data files, and where results are kept."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from sbert_mini.evaluation.measure import machine

RESULTS = Path(__file__).parent / "results"
PEER = "all-MiniLM-L6-v2"
"""The model of sentence-transformers that the shipped models are compared with."""
START = (
    "all-MiniLM-L6-v2, where training starts, was itself trained on Quora duplicates, Flickr30k and AllNLI: "
    "not clean of them."
)
"""What is said beside every figure of a model that was trained from all-MiniLM-L6-v2."""


def arguments(description: str, **defaults: int) -> argparse.Namespace:
    """Parse `--threads`, `--rounds`, `--data` and `--no-save`; `defaults` may set threads and rounds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=defaults.get("threads", 2))
    parser.add_argument("--rounds", type=int, default=defaults.get("rounds", 5), help="alternations of all contestants")
    parser.add_argument("--data", type=Path, default=os.environ.get("SBMINI_DATA"), help="default: $SBMINI_DATA")
    parser.add_argument("--no-save", action="store_true", help="print only; leave benchmarks/results/ as it is")
    return parser.parse_args()


def task(name: str, structure: str, loss: str, **keys: object) -> str:
    """Return a `[[task]]` of a recipe; `keys` are its others."""
    held = {"name": name, "structure": structure, "loss": loss, **keys}
    return "\n[[task]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in held.items())


def sst(**keys: object) -> str:
    """Return SST-5 as a task of a recipe: single sentences."""
    files = {"train": "sst5_train.tsv.gz", "dev": "sst5_dev.tsv.gz"}
    return task("sst", "single", "cross-entropy", **files, text="sentence", **keys)


def quora(**keys: object) -> str:
    """Return Quora as a task of a recipe: Siamese pairs, the first 2,000 dev rows."""
    files = {"train": "quora_train.tsv.gz", "dev": "quora_cs224n_dev.tsv.gz", "dev_limit": 2000}
    columns = {"text": ["question1", "question2"], "label": "is_duplicate"}
    return task("quora", "siamese", "cross-entropy", **files, **columns, **keys)


def stsb(name: str, loss: str = "cosine-mse", **keys: object) -> str:
    """Return STS-B as a task of a recipe: Siamese pairs; `keys` names its files."""
    columns = {"text": ["sentence1", "sentence2"], "label": "score", "high": 5}
    return task(name, "siamese", loss, **columns, **keys)


def data_file(folder: Path | None, name: str) -> Path:
    """Return a data file, or leave with a line that says what is missing."""
    path = Path(folder or ".") / name
    if folder is None or not path.is_file():
        sys.exit(f"{name} is needed: name the folder that holds it with --data or SBMINI_DATA")
    return path


def save(name: str, result: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the result as one line of JSON, the last of stdout, and keep it unless `--no-save`."""
    command = f"python -m benchmarks.{name} --threads {options.threads} --rounds {options.rounds}"
    result = {"command": command, "machine": machine(options.threads), **result}
    if not options.no_save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result))
