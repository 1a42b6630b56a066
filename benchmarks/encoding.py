"""Encoding with the shipped models, per backend: rate, closeness to float32, dependence on the batch, one query.

    python -m benchmarks.encoding --threads 2 --rounds 5

4,096 questions of quora_cs224n_dev; contestants alternate. ONNX Runtime's dynamic int8 of the same weights runs in
two arrangements: one session of all threads, and one thread per batch. Ratios are to the faster one. About 7 minutes.
"""

import gzip
import itertools
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.models.train import NAMES
from sbert_mini import Embedder
from sbert_mini.evaluation.choices import PEER_MODEL
from sbert_mini.evaluation.measure import alternate, median_ratio, summary, timed
from sbert_mini.evaluation.speed import Encode, dynamic_int8, flops_per_text, int8_rate, onnx_runtime
from sbert_mini.evaluation.table import Json, Table
from sbert_mini.evaluation.tables import spread
from sbert_mini.evaluation.texts import QUESTIONS
from sbert_mini.model import registry
from sbert_mini.model.layout import read_layout
from sbert_mini.runtime.graph import INPUTS
from sbert_mini.runtime.graphs import find
from sbert_mini.runtime.native_library import levels
from sbert_mini.shapes import FloatArray
from sbert_mini.text.batching import batches_by_length, pad
from sbert_mini.text.tokenizer import open_tokenizer

TEXTS, BATCH, TOKENS = 4096, 32, 512
TOGETHER, APART = "ONNX Runtime dynamic int8", "ONNX Runtime dynamic int8, a thread a batch"
QUERIES = 256


def apart(file: Path, model: str, threads: int) -> Encode:
    """Return a graph on `threads` threads, each computing in one session by itself, over batches of like length."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    pad_id = read_layout(registry.resolve(model)).config.pad_token_id
    tokenizer = open_tokenizer(read_layout(registry.resolve(model)))

    def encode(texts: Sequence[str], size: int) -> FloatArray:
        tokens = tokenizer.encode(list(texts))
        batches = batches_by_length([len(t.ids) for t in tokens], size, TOKENS)
        vectors: list[FloatArray] = [np.empty(0, np.float32)] * len(texts)

        def run(batch: Any) -> None:
            feeds = dict(zip(INPUTS, pad([tokens[i] for i in batch], pad_id), strict=True))
            for i, vector in zip(batch, session.run(["sentence_embedding"], feeds)[0], strict=True):
                vectors[i] = vector

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(run, batches))
        return np.stack(vectors)

    return encode


def contestants(model: str, threads: int, folder: Path) -> dict[str, Encode]:
    """Return what encodes: this package by each of its backends, ONNX Runtime's dynamic int8, and sentence-transformers."""
    import torch
    from sentence_transformers import SentenceTransformer

    encoders: dict[str, Encode] = {}
    for backend in (*levels()[1:], "onnx"):
        embedder = Embedder(model, threads=threads, backend=backend)  # type: ignore[arg-type]
        encoders[f"sbert_mini, {embedder.backend}"] = lambda texts, size, e=embedder: e.encode(texts, batch_size=size)  # type: ignore[misc]
    exact = find(registry.resolve(model), "fp32")
    file = dynamic_int8(exact.file, folder / f"{model}.onnx")
    encoders[TOGETHER] = onnx_runtime(file, exact.layout, threads)
    encoders[APART] = apart(file, model, threads)
    torch.set_num_threads(threads)
    peer = SentenceTransformer(str(registry.resolve(PEER_MODEL)), local_files_only=True, device="cpu")
    encoders[f"{PEER_MODEL}, sentence-transformers"] = lambda texts, size: np.asarray(
        peer.encode(list(texts), batch_size=size, normalize_embeddings=True, show_progress_bar=False)
    )
    return encoders


def measured(model: str, texts: Sequence[str], threads: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Return each contestant's rate, closeness to float32, dependence on the batch, and time of one query."""
    encoders = contestants(model, threads, folder)
    exact = Embedder(model, graph="fp32", threads=threads)
    some = texts[:QUERIES]
    expected = exact.encode(texts)
    rates: dict[str, list[float]] = alternate(
        {name: partial(lambda e: len(texts) / timed(partial(e, texts, BATCH)), e) for name, e in encoders.items()},
        rounds,
    )
    best = max((TOGETHER, APART), key=lambda name: summary(rates[name])["median"])
    entries: dict[str, Any] = {}
    for name, encode in encoders.items():
        cosines = (encode(texts, BATCH) * expected).sum(axis=1)
        alone = np.concatenate([encode([text], 1) for text in some])
        together = np.concatenate([encode(some[i : i + BATCH], BATCH) for i in range(0, len(some), BATCH)])
        single_ms = [1000 * timed(partial(encode, [text], 1)) for text in some]
        other = name.startswith(PEER_MODEL)  # another model: its vectors are not to be near
        entries[name] = {
            "texts_per_s": summary(rates[name]),
            "to_dynamic_int8": median_ratio(rates[name], rates[best]),
            "cosine_mean": None if other else float(cosines.mean()),
            "cosine_min": None if other else float(cosines.min()),
            "alone_to_batch_min": float((alone * together).sum(axis=1).min()),
            "p50_ms": float(np.percentile(single_ms, 50)),
            "p99_ms": float(np.percentile(single_ms, 99)),
        }
        print(f"{model:16s} {name:50s}{summary(rates[name])['median']:8,.0f} texts/s")
    layout = read_layout(registry.resolve(model))
    lengths = [len(t.ids) for t in open_tokenizer(layout).encode(list(texts))]
    limit = int8_rate(layout, threads) / float(np.mean([flops_per_text(layout.config, n) for n in lengths]))
    return {"contestants": entries, "limit_texts_per_s": limit, "tokens_per_text": float(np.mean(lengths))}


def tables(result: Json) -> list[Table]:
    """Return a table for each model: its rates, by what computes."""
    made = []
    for name, model in result["models"].items():
        header = (
            f"{name}, {result['texts']:,} questions of {model['tokens_per_text']:.1f} tokens",
            "texts/s",
            "to dynamic int8",
            "share of the limit",
            "mean cosine",
            "lowest",
            "alone and in a batch, lowest",
            "one text, p50, p99",
        )
        rows = tuple(_row(label, entry, model["limit_texts_per_s"]) for label, entry in model["contestants"].items())
        made.append(Table(name, header, rows))
    limits = ", ".join(f"{m['limit_texts_per_s']:,.0f} texts/s of {name}" for name, m in result["models"].items())
    note = (
        f"Batches of {result['batch_size']}. The limit is what torch's own int8 product reaches in the shape of a "
        f"feed-forward layer: {limits}; native code may pass it. "
        "\"To dynamic int8\": median of the rounds' ratios to the faster of ONNX Runtime's two arrangements."
    )
    return [*made[:-1], replace(made[-1], notes=(note,))]


def _row(label: str, entry: Json, limit: float) -> tuple[str, ...]:
    """Return the row of a contestant. The peer runs other weights in float32: it has no share of the limit and no cosine."""
    rate = entry["texts_per_s"]
    is_peer = label.startswith(PEER_MODEL)
    return (
        label,
        spread(rate, 0),
        f"{entry['to_dynamic_int8']:.2f}",
        "" if is_peer else f"{100 * rate['median'] / limit:.0f} %",
        *("" if is_peer else f"{entry[key]:.4f}" for key in ("cosine_mean", "cosine_min")),
        f"{entry['alone_to_batch_min']:.6f}",
        f"{entry['p50_ms']:.2f}, {entry['p99_ms']:.2f} ms",
    )


def main() -> None:
    options = harness.arguments(__doc__, rounds=5)
    questions = harness.data_file(options.data, QUESTIONS)
    with gzip.open(questions, "rt", encoding="utf-8") as lines:
        texts = [line.split("\t")[1] for line in itertools.islice(lines, 1, TEXTS + 1)]
    with tempfile.TemporaryDirectory() as folder:
        models = {model: measured(model, texts, options.threads, options.rounds, Path(folder)) for model in NAMES}
    harness.save("encoding", {"texts": TEXTS, "batch_size": BATCH, "models": models}, options)


if __name__ == "__main__":
    main()
