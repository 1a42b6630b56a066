"""Indexes that several tests search: random unit vectors around centres, and the shipped collection."""

import numpy as np

from sbert_mini import Embedder, IndexWriter
from sbert_mini.text.records import Record

ROWS = 3001


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def clustered():
    """Return ROWS unit vectors of 28 components around 40 centres."""
    rng = np.random.default_rng(7)
    centres = rng.standard_normal((40, 28))
    return unit(centres[rng.integers(0, 40, ROWS)] + 0.6 * rng.standard_normal((ROWS, 28)))


def numbered():
    """Return a record for each of those vectors."""
    return [
        Record("the cat", str(i), {"n": i, "even": i % 2 == 0, "lang": ("en", "de", "fr")[i % 3]}) for i in range(ROWS)
    ]


def make(path, converted_model, records, vectors, **options):
    return IndexWriter(path, Embedder(converted_model())).create(records, vectors=vectors, **options)


def records_of(passages):
    return [
        Record(row["text"], row["id"], {key: row[key] for key in ("topic", "title", "level")}, line)
        for line, row in enumerate(passages, start=1)
    ]
