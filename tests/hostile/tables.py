"""Hostile tables to train from: columns, labels and texts that nobody expects."""

import csv
import io
import json
import random
from pathlib import Path

from tests.hostile import kinds
from tests.native import messages

_HEADERS = (
    "text",
    "label",
    "sentence1",
    "sentence2",
    "score",
    "query",
    "positive",
    "negative",
    "anchor",
    "",
    "text",
    "id",
)
_USUAL = (
    ("text", "label"),
    ("sentence1", "sentence2", "score"),
    ("query", "positive"),
    ("anchor", "positive", "negative"),
)
_WORDS = (
    "the cat",
    "a dog",
    "",
    " ",
    "\x00",
    "\u202e",
    "a" * 3000,
    "1",
    "0",
    "yes",
    "\x1b[31m",
    "\U0001f600",
    "##x",
    "=1+1",
)


def _cell(header: str, row: int, odd: float, rng: random.Random) -> object:
    roll = rng.random()
    if roll < odd:
        return kinds.value(rng)
    if roll < 2 * odd:
        return rng.choice(_WORDS)
    if header in ("label", "score"):
        return rng.choice((0, 1, 2.5, "yes", -1e308, "nan")) if rng.random() < odd else row % 2
    return f"{rng.choice(_WORDS[:2])} {rng.randint(0, 60)}"


def table_case(bases: Path, folder: Path, rng: random.Random) -> kinds.Case:
    """Write a table and read it as `sbmini train TABLE` does, without training."""
    headers = list(rng.choice(_USUAL)) if rng.random() < 0.6 else rng.choices(_HEADERS, k=rng.randint(1, 4))
    odd = rng.choice((0, 0.002, 0.05))
    rows = [{name: _cell(name, row, odd, rng) for name in headers} for row in range(rng.choice((0, 5, 40, 300, 300)))]
    suffix = rng.choice(("csv", "tsv", "jsonl", "json"))
    if suffix in ("csv", "tsv"):
        stream = io.StringIO()
        writer = csv.writer(stream, delimiter="," if suffix == "csv" else "\t")
        writer.writerow(headers)
        writer.writerows([list(row.values()) for row in rows])
        text = stream.getvalue()
    else:
        lines = [json.dumps(row) for row in rows]
        text = "\n".join(lines) if suffix == "jsonl" else f"[{', '.join(lines)}]"
    data = text.encode("utf-8", "surrogatepass")
    is_damaged = rng.random() < 0.3
    (folder / f"t.{suffix}").write_bytes(messages.damage(data or b"x", rng) if is_damaged else data)
    return kinds.Case(f"t.{suffix}: {headers}, {len(rows)} rows{', bytes' if is_damaged else ''}", _use_table)


def _use_table(folder: Path) -> str:
    from sbert_mini.recipes.data import read_data
    from sbert_mini.recipes.from_table import recipe_from_table
    from sbert_mini.recipes.reader import read_recipe

    (table,) = folder.glob("t.*")
    read_data(read_recipe(recipe_from_table(table, folder / "out")))
    return "read"
