"""Command lines over hostile files: an exit code of the command line's own, no traceback, and no control character shown."""

import random
import shutil
from functools import partial
from pathlib import Path

from tests.hostile import cases, filters, kinds

_HIDDEN = {
    *map(chr, (*range(9), *range(11, 32), *range(127, 160))),
    *"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
}
_EXIT_CODES = {0, 1, 2, 4}


def make_files(bases: Path) -> None:
    """Write a file of rows whose texts, ids and names are full of controls."""
    (bases / "strange.jsonl").write_text(
        '{"id": "\\u202eid", "text": "a cat \\u001b[31m", "c\\u0007": "\\u009b1m"}\n{"id": 2, "text": "dog"}\n'
    )


def line_case(bases: Path, folder: Path, rng: random.Random) -> kinds.Case:
    """Return a command line over a damaged index, model, head, file of rows or recipe."""
    kind = rng.choice(("index", "large", "words", "model", "modules", "head", "rows", "recipe", "json", "header"))
    made = cases.KINDS[kind](bases, folder, rng)
    shutil.copy(bases / "strange.jsonl", folder / "s.jsonl")
    files = [f.name for f in folder.iterdir() if f.is_file()]
    good = str(bases / "model")
    index, model, table = folder / "x.index", folder / "m", rng.choice(files)
    if index.exists():
        choices = [
            ["search", "x.index", "a cat"],
            ["search", "x.index", "a cat", "--hybrid", "--jsonl"],
            ["index", "info", "x.index"],
            ["index", "verify", "x.index"],
            ["index", "add", "x.index", "-i", "s.jsonl", "--offline"],
            ["index", "compact", "x.index"],
            ["index", "delete", "x.index", "r11"],
            ["index", "merge", "z.index", "x.index", "x.index", "--on-conflict", "first"],
            ["index", "migrate", "x.index", "-m", good],
            ["index", "create", "x.index", "-m", good, "-i", "s.jsonl", "--overwrite"],
            ["search", "x.index", "a cat", "--by", "words", "--passages"],
            ["search", "x.index", "cat", "--filter", filters.condition(rng)],
        ]
    elif model.exists():
        choices = [
            ["encode", "-m", "m", "a cat"],
            ["models", "info", "m"],
            ["predict", "-m", "m", "a cat"],
            ["models", "convert", "m"],
            ["dedup", "-m", "m", "-i", "s.jsonl"],
            ["index", "create", "y.index", "-m", "m", "-i", "s.jsonl"],
        ]
    elif (folder / "r").exists():
        choices = [
            ["recipes", "show", "./r/r.toml"],
            ["encode", "-m", good, "-i", "r/train.tsv", "--text-column", "sentence1"],
        ]
    else:
        choices = [
            ["encode", "-m", good, "-i", table],
            ["encode", "-m", good, "-i", table, "-o", "v.npy", "--on-error", "skip"],
            ["index", "create", "y.index", "-m", good, "-i", table],
            ["dedup", "-m", good, "-i", table],
            ["reduce", "fit", table, "-d", "2", "-o", "p.safetensors"],
            ["index", "create", "y.index", "-m", good, "-i", "s.jsonl", "--vectors", table],
        ]
    words = rng.choice(choices)
    return kinds.Case(f"{' '.join(words)}: {made.how}", partial(_run, words=words))


def _run(folder: Path, words: list[str]) -> str:
    from tests.conftest import run_here

    done = run_here(folder, *words)
    if done.returncode not in _EXIT_CODES:
        raise AssertionError(f"exit code {done.returncode}")
    if "Traceback" in done.stderr:
        raise AssertionError(done.stderr[-1000:])
    shown = _HIDDEN & set(done.stdout + done.stderr)
    if shown and words[0] != "dedup":
        raise AssertionError(f"shows {shown}")
    return f"{'read' if done.returncode == 0 else 'refused'} {done.returncode} {done.stderr[-200:]}"
