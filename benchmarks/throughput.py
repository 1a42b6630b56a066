"""Sentences a second and closeness to fp32: `Embedder` against `SentenceTransformer.encode`, the same weights and texts.

The texts are the first 4,096 questions of quora_cs224n_dev. Quality: the cosine of each vector to sentence-transformers',
a text alone against a batch of 32, and STS-B test.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks import harness

TEXTS = 4096
ALONE = 512


def main() -> None:
    options = harness.arguments(__doc__ or "")
    os.environ.update(OMP_NUM_THREADS=str(options.threads), TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
    import numpy as np
    import torch
    from scipy.stats import spearmanr
    from sentence_transformers import SentenceTransformer

    from sbert_mini import Embedder
    from sbert_mini.models import resolve

    torch.set_num_threads(options.threads)
    rows = harness.table_rows(harness.data_file(options.data, "quora_cs224n_dev.tsv.gz"))
    texts = [text for row in rows for text in row[1:3]][:TEXTS]
    sts = harness.table_rows(harness.data_file(options.data, "stsb_test.tsv.gz"))
    path = str(resolve("all-MiniLM-L6-v2"))
    peer = SentenceTransformer(path, local_files_only=True, device="cpu")
    ours = {
        "fp32 graph": Embedder(path, graph="fp32", threads=options.threads),
        "int8 graph": Embedder(path, graph="int8", threads=options.threads),
    }
    encoders: dict[str, Callable[[list[str]], Any]] = {
        "sentence-transformers": partial(peer.encode, normalize_embeddings=True),
        **{name: embedder.encode for name, embedder in ours.items()},
    }

    reference = encoders["sentence-transformers"](texts)
    quality = {}
    for name, encode in encoders.items():
        cosine = np.sum(encode(texts) * reference, axis=1)
        first, second = (encode([row[column] for row in sts]) for column in (1, 2))
        correlation = spearmanr(np.sum(first * second, axis=1), [float(row[0]) for row in sts]).statistic
        quality[name] = {
            "cosine_to_fp32_mean": float(cosine.mean()),
            "cosine_to_fp32_min": float(cosine.min()),
            "stsb_test_spearman": 100 * float(correlation),
        }
        batched = np.concatenate([encode(texts[i : i + 32]) for i in range(0, ALONE, 32)])
        alone = np.stack([encode([text])[0] for text in texts[:ALONE]])
        quality[name]["alone_to_batch_cosine_min"] = float(np.sum(batched * alone, axis=1).min())

    def rate(name: str) -> float:
        return TEXTS / harness.timed(lambda: encoders[name](texts))

    rates = harness.alternate({name: partial(rate, name) for name in encoders}, options.rounds)
    ratios = {name: harness.median_ratio(rates[name], rates["sentence-transformers"]) for name in encoders}
    print(f"{'':<24}{'texts/s':>9}{'ratio':>7}{'cosine to fp32':>22}{'alone/batch':>13}{'STS-B':>8}")
    for name, found in quality.items():
        print(
            f"{name:<24}{harness.summary(rates[name])['median']:9.0f}{ratios[name]:7.2f}"
            f"{found['cosine_to_fp32_mean']:12.4f} ({found['cosine_to_fp32_min']:.4f})"
            f"{found['alone_to_batch_cosine_min']:13.7f}{found['stsb_test_spearman']:8.2f}"
        )
    sys.stdout.flush()
    result = {
        "texts": TEXTS,
        "rounds": options.rounds,
        "texts_per_s": {name: harness.summary(values) for name, values in rates.items()},
        "times_faster": ratios,
        "quality": quality,
    }
    harness.save("throughput", result, options)


if __name__ == "__main__":
    main()
