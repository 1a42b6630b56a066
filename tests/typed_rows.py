"""Random rows of typed columns, and the columns that a segment stores of them."""

import json
import random
from pathlib import Path

from sbert_mini.search.checksums import CheckedFile, file_checksums
from sbert_mini.search.column_reader import Columns
from sbert_mini.search.columns import DATA, DESCRIPTION, ColumnsWriter, Schema

WORDS = [
    "",
    "a",
    "b",
    "ab",
    "Ab",
    "AB",
    "a%b",
    "a_b",
    "é",
    "日本",
    "zebra",
    "z",
    " a ",
    "007",
    "7",
    "-1.5",
    "true",
    "x'y",
]
KINDS = {
    **dict.fromkeys("ij", "integer"), **dict.fromkeys("nm", "number"), **dict.fromkeys("tus", "text"),
    **dict.fromkeys("bc", "boolean"), "sparse": "integer", "gone": None,
}  # fmt: skip
SQL = {"integer": "BIGINT", "number": "DOUBLE", "text": "VARCHAR", "boolean": "BOOLEAN", None: "INTEGER"}


def rows_of(seed: int, count: int) -> list[dict[str, object]]:
    rng = random.Random(seed)

    def nullable(value: object, share: float = 0.2) -> object:
        return None if rng.random() < share else value

    return [
        {
            "i": nullable(rng.randint(-5, 5)), "j": nullable(rng.choice([0, 1, 2**40, -(2**62), 2**53 + 1])),
            "n": nullable(rng.choice([-1.5, 0.0, 0.5, 2.0, 1e10, 3.25])), "m": nullable(round(rng.uniform(-3, 3), 2)),
            "t": nullable(rng.choice(WORDS)), "u": nullable(rng.choice(["en", "de", "fr"])), "s": nullable(f"key {row}é", 0.1),
            "b": nullable(rng.random() < 0.5), "c": nullable(rng.random() < 0.9), "sparse": nullable(rng.randint(0, 3), 0.95),
            "gone": None,
        }
        for row in range(count)
    ]  # fmt: skip


def columns_of(folder: Path, rows: list[dict[str, object]], schema: Schema, **options: int) -> Columns:
    with ColumnsWriter(folder, schema, **options) as writer:
        for number, row in enumerate(rows):
            schema.take(row, typed=True)
            writer.write(f"id {number}", row)
    file = CheckedFile(folder / DATA, file_checksums(folder / DATA))
    return Columns(json.loads((folder / DESCRIPTION).read_text()), file, len(rows))
