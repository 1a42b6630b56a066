"""Options, data files and records, which the scripts here share."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from sbert_mini.evaluation.choices import PEER_MODEL
from sbert_mini.evaluation.measure import machine
from sbert_mini.evaluation.texts import QUESTIONS

RESULTS = Path(__file__).parent / "results"
START = f"from {PEER_MODEL}, which was itself trained on AllNLI, Quora duplicates, Flickr30k and S2ORC"
"""The model that most trainings here start from, and its own training data."""
START_NOTE = f"Training starts {START}: its figures on them are not clean."
"""The note below every figure of a model that was trained from it."""


def arguments(description: str, **defaults: int) -> argparse.Namespace:
    """Parse the options of `parser`."""
    return parser(description, **defaults).parse_args()


def parser(description: str, **defaults: int) -> argparse.ArgumentParser:
    """Return a parser of `--threads`, `--rounds`, `--data` and `--no-save`; `defaults` may set threads and rounds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=defaults.get("threads", 2))
    parser.add_argument("--rounds", type=int, default=defaults.get("rounds", 5), help="alternations of all contestants")
    parser.add_argument("--data", type=Path, default=os.environ.get("SBMINI_DATA"), help="default: $SBMINI_DATA")
    parser.add_argument("--no-save", action="store_true", help="print only; leave benchmarks/results/ as it is")
    return parser


def task(name: str, structure: str, loss: str, **keys: object) -> str:
    """Return a `[[task]]` of a recipe; `keys` are its other keys."""
    values = {"name": name, "structure": structure, "loss": loss, **keys}
    return "\n[[task]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def sst(**keys: object) -> str:
    """Return SST-5 as a task of a recipe: single sentences."""
    files = {"train": "sst5_train.tsv.gz", "dev": "sst5_dev.tsv.gz"}
    return task("sst", "single", "cross-entropy", **files, text="sentence", **keys)


def quora(**keys: object) -> str:
    """Return Quora as a task of a recipe: Siamese pairs, the first 2,000 dev rows."""
    files = {"train": "quora_train.tsv.gz", "dev": QUESTIONS, "dev_limit": 2000}
    columns = {"text": ["question1", "question2"], "label": "is_duplicate"}
    return task("quora", "siamese", "cross-entropy", **files, **columns, **keys)


def stsb(name: str, loss: str = "cosine-mse", **keys: object) -> str:
    """Return STS-B as a task of a recipe: Siamese pairs; `keys` names its files."""
    columns = {"text": ["sentence1", "sentence2"], "label": "score", "high": 5}
    return task(name, "siamese", loss, **columns, **keys)


def data_file(folder: Path | None, name: str) -> Path:
    """Return a data file, or exit with a line that names the missing file."""
    path = Path(folder or ".") / name
    if folder is None or not path.is_file():
        sys.exit(f"{name} is needed: name the folder that holds it with --data or SBMINI_DATA")
    return path


def save(name: str, result: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the result as one line of JSON, the last of stdout, and write it into `benchmarks/results/` unless `--no-save`."""
    command = f"python -m benchmarks.{name} --threads {options.threads} --rounds {options.rounds}"
    result = {"command": command, "machine": machine(options.threads), **result}
    if not options.no_save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result))
