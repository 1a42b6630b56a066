"""What 8-bit vectors lose: recall@10 against float32 vectors on SciFact, by the ranges in which they are stored.

    python -m benchmarks.int8_vectors $SBMINI_DATA/retrieval/scifact

Recall is the share of the ten nearest documents by float32 vectors that are among the ten nearest by restored ones, over all
queries; queries stay float32. `clipped` is the share of components outside of their range. Compared are the model's own ranges,
the least and greatest values of the calibration texts, and those of the documents themselves (which differ in every file). The
last line is JSON.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from sbert_mini import Embedder
from sbert_mini.evaluation.retrieval import read_collection, recall_of
from sbert_mini.runtime.precision import quantize_vectors, restore_vectors
from sbert_mini.runtime.quantization import calibration_texts
from sbert_mini.shapes import FloatArray, IntArray

NEAREST = 10


def nearest(queries: FloatArray, documents: FloatArray) -> IntArray:
    """Return the positions of the nearest documents by cosine, (queries, NEAREST)."""
    units = documents / np.linalg.norm(documents, axis=1, keepdims=True)
    return np.argsort(-(queries @ units.T), axis=1, kind="stable")[:, :NEAREST]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path, help="a folder in BEIR's layout")
    parser.add_argument("--model", default="sbert-mini")
    parser.add_argument("--dims", type=int, nargs="+", default=[384, 128, 64])
    arguments = parser.parse_args()
    collection = read_collection(arguments.collection)
    embedder = Embedder(arguments.model, threads=2)
    results = []
    for dim in arguments.dims:
        sample, documents, queries = (
            embedder.encode(list(texts), truncate_dim=dim)
            for texts in (calibration_texts(), collection.documents.values(), collection.queries.values())
        )
        exact = nearest(queries, documents)
        kinds = {
            "the model's": embedder.component_ranges(dim),
            "least and greatest of the calibration texts": np.stack([sample.min(axis=0), sample.max(axis=0)]),
            "least and greatest of the documents": np.stack([documents.min(axis=0), documents.max(axis=0)]),
        }
        for kind, ranges in kinds.items():
            got = nearest(queries, restore_vectors(quantize_vectors(documents, "int8", ranges), ranges))
            share = recall_of(got, exact)
            clipped = np.mean((documents < ranges[0]) | (documents > ranges[1]))
            results.append({"dim": dim, "ranges": kind, "recall": share, "clipped": float(clipped)})
            print(f"{dim:4} {kind:45} recall@{NEAREST} {share:.4f}  clipped {clipped:.4%}", flush=True)
    sizes = {"documents": len(collection.documents), "queries": len(collection.queries)}
    print(json.dumps({"model": arguments.model, **sizes, "results": results}))


if __name__ == "__main__":
    main()
