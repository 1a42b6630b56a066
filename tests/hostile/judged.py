"""Hostile files of queries and judgments, in the layouts of BEIR, TREC and CSV."""

import gzip
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.native import messages

FILES = {
    "q.jsonl": '{"_id": "q1", "text": "a cat"}\n{"_id": "q2", "text": "a dog", "title": "T"}\n',
    "q.tsv": "q1\ta cat\nq2\ta dog\n",
    "q.csv": 'id,text\nq1,"a cat"\nq2,a dog\n',
    "r.trec": "q1 0 r1 1\nq1 0 r2 0\nq2 Q0 r3 -1\n",
    "r.tsv": "query-id\tcorpus-id\tscore\nq1\tr1\t1\nq2\tr9\t2\n",
    "r.csv": 'query,document,grade\nq1,r1,1.0\nq2,"r3",0\n',
}

_UNPACKED = 1 << 26
"""Bytes of a compressed file: the time that it takes is that of the whole (docs/trust.md)."""


def make(folder: Path, rng: random.Random) -> tuple[str, Callable[[Path], str]]:
    """Write a file of queries or judgments, with damaged bytes or odd values, and return its name and how it is used."""
    name, text = rng.choice(list(FILES.items()))
    data = text.encode()
    for _ in range(rng.randint(0, 3)):
        if rng.random() < 0.5:
            data = messages.damage(data or b"x", rng)
        else:
            odd = rng.choice(
                (
                    "1e999",
                    "nan",
                    "9" * 400,
                    "\u202e",
                    "\t",
                    " ",
                    '"',
                    "\r",
                    "q" * 10_000,
                    "q" * 200_000,
                    "a " * 300_000,
                    ",\t" * 100_000,
                    "\n" * 5000,
                )
            )
            at = rng.randint(0, len(data))
            data = data[:at] + odd.encode() + data[at:]
    if rng.random() < 0.2:
        name, data = f"{name}.gz", gzip.compress(data * rng.choice((1, 1, max(1, min(10_000, _UNPACKED // len(data))))))
    (folder / name).write_bytes(data)
    return name, partial(_use, name=name)


def _use(folder: Path, name: str) -> str:
    from sbert_mini.evaluation.judgments import read_judgments, read_queries

    if name.startswith("q"):
        return f"read {len(read_queries(folder / name).texts)}"
    return f"read {len(read_judgments(folder / name).grades)}"
