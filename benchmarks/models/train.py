"""Train the shipped models from scratch: `make model`.

    python -m benchmarks.models.train                 prepare the data, train or continue, and write the package's models
    python -m benchmarks.models.train --only ship     copy the trained models -> sbert_mini/pretrained

Trains sbert-mini.toml in build/model, then sbert-mini-fast.toml with the first model as its teacher. The same command continues
after an interruption. `python -m benchmarks.models.figures` then measures the shipped models, and writes the figures into their
cards.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.models import data
from sbert_mini.model.layout import GRAPH_RECORD, GRAPHS_FOLDER, HEADS_FOLDER, graphs_folder
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.runtime.graphs import find

FOLDER = data.FOLDER
SHIPPED = Path("sbert_mini/pretrained")
NAMES = ("sbert-mini", "sbert-mini-fast")
PRUNED = ("sbert-mini-fast",)
LETTERS = ("LATIN", "GREEK", "COMBINING", "MODIFIER", "FEMININE", "MASCULINE", "MICRO", "SUPERSCRIPT", "SUBSCRIPT")
"""How the Unicode names of the letters and marks begin whose tokens a pruned model keeps."""
LEFT_OUT = ("*.safetensors", "*.onnx", GRAPH_RECORD, HEADS_FOLDER, "README.md")
LOADS = "The encoder loads in plain sentence-transformers."
"""A sentence in the card of a directory with weights. It is not true of the package's copy, which has none."""
SHIPPED_NOTE = (
    "The package contains only its int8 graph: `sbert_mini.load({name!r}).save(folder)` makes a directory for plain "
    "sentence-transformers."
)


PRUNED_NOTE = (
    " Its vocabulary contains only Latin and Greek letters; a word of any other script becomes the unknown token. It keeps the "
    "first 256 positions, the model's maximum length."
)


def train(name: str, threads: int) -> None:
    """Train a model by its recipe, or continue; do nothing if it is trained already."""
    recipe = Path("benchmarks/models") / f"{name}.toml"
    from sbert_mini.recipes.plan import prepare
    from sbert_mini.recipes.reader import read_recipe
    from sbert_mini.recipes.run_folder import is_finished

    if is_finished(prepare(read_recipe(recipe))):
        print(f"{name} is trained already", file=sys.stderr)
        return
    command = [sys.executable, "-m", "sbert_mini", "train", str(recipe), "--resume", "--threads", str(threads)]
    subprocess.run(command, check=True)


def is_spoken_of(token: str) -> bool:
    """Return whether a token is kept: all but the unused ones, and those with a letter that is neither Latin nor Greek."""
    if token.startswith("[unused"):
        return False
    letters = (c for c in token if unicodedata.category(c)[0] in "LM")
    return all(unicodedata.name(c, "").startswith(LETTERS) for c in letters)


def prune(source: Path, target: Path) -> int:
    """Copy a trained model without the tokens and positions that English texts do not use; return how many tokens are left.

    The vectors of texts with Latin and Greek letters do not change, at any length that the model reads.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(GRAPHS_FOLDER))
    tokenizer = json.loads((source / "tokenizer.json").read_bytes())
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    kept_tokens = sorted((i, token) for token, i in vocabulary.items() if is_spoken_of(token))
    new = {token: i for i, (_, token) in enumerate(kept_tokens)}
    tokenizer["model"]["vocab"] = new
    for entry in tokenizer["added_tokens"]:
        entry["id"] = new[entry["content"]]
    for token, entry in tokenizer["post_processor"]["special_tokens"].items():
        entry["ids"] = [new[token]]
    (target / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")), "utf-8")

    weights, metadata = load_file(source / "model.safetensors"), {"format": "pt"}
    longest = json.loads((source / "sentence_bert_config.json").read_bytes())["max_seq_length"]
    words, positions = "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"
    weights[words] = np.ascontiguousarray(weights[words][[i for i, _ in kept_tokens]])
    weights[positions] = np.ascontiguousarray(weights[positions][:longest])
    save_file(weights, target / "model.safetensors", metadata)
    config = json.loads((source / "config.json").read_bytes())
    config |= {"vocab_size": len(new), "max_position_embeddings": longest, "pad_token_id": new["[PAD]"]}
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    return len(new)


def ship(name: str) -> dict[str, int]:
    """Copy a trained model without its weights, its int8 graph alone, into the package; return the bytes of its files."""
    source, target = FOLDER / name, SHIPPED / name
    if name in PRUNED:
        source = FOLDER / f"{name}-pruned"
        print(f"{name}: {prune(FOLDER / name, source):,} tokens are kept", file=sys.stderr)
    folder = find(source).file.parent  # its graphs, made where there are none
    record = json.loads((folder / GRAPH_RECORD).read_bytes())
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
    card = (source / "README.md").read_text("utf-8")
    if LOADS not in card:
        raise ValueError(f"the card of {source} does not say {LOADS!r}: see sbert_mini/recipes/card.py")
    (target / "README.md").write_text(
        card.replace(LOADS, SHIPPED_NOTE.format(name=name) + (PRUNED_NOTE if name in PRUNED else "")), "utf-8"
    )
    graph = record["graphs"]["int8"]
    graphs_folder(target).mkdir(exist_ok=True)
    shutil.copy(folder / graph["file"], graphs_folder(target) / graph["file"])
    record["graphs"] = {"int8": graph}
    (graphs_folder(target) / GRAPH_RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", "utf-8")
    Embedder(target).encode("it computes")
    return {str(file.relative_to(target)): file.stat().st_size for file in sorted(target.rglob("*")) if file.is_file()}


def main() -> None:
    """Prepare, train, ship."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("ship",))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if "SBMINI_DATA" not in os.environ:
        sys.exit("SBMINI_DATA must name the data folder")
    os.environ["SBMINI_MODEL_DATA"] = str(FOLDER.resolve())
    if not options.only:
        if not (FOLDER / "texts.txt").is_file():
            print(json.dumps(data.prepare(Path(os.environ["SBMINI_DATA"]), options.threads)), file=sys.stderr)
        for name in NAMES:
            train(name, options.threads)
    for name in NAMES:
        files = ship(name)
        print(f"{name}: {sum(files.values()) / 1e6:.1f} MB in {SHIPPED / name}")


if __name__ == "__main__":
    main()
