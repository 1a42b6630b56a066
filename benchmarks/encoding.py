"""Encoding with the shipped models, by what computes: rate, closeness, one query, cold starts, a million sentences end to end.

    python -m benchmarks.encoding --threads 2 --rounds 5

4,096 questions of quora_cs224n_dev; contestants alternate. ONNX Runtime's dynamic int8 of the same weights runs in both of its
arrangements, one session of all threads and a session a thread, and ratios are to the faster one. The million are
sentences_wikipedia_1. About 25 minutes.
"""

import gzip
import itertools
import json
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.model import NAMES
from sbert_mini import Embedder, models
from sbert_mini.evaluation.measure import alternate, median_ratio, process, summary, timed
from sbert_mini.evaluation.speed import Encode, dynamic_int8, flops_per_text, int8_rate, onnx_runtime
from sbert_mini.layout import read_layout
from sbert_mini.runtime.conversion import file_sha256, find, open_tokenizer
from sbert_mini.runtime.engine import Engine, OnnxEngine
from sbert_mini.runtime.native import LEVELS, level
from sbert_mini.shapes import FloatArray
from sbert_mini.text.batching import batches_by_length

TEXTS, BATCH, TOKENS = 4096, 32, 512
PEER = "all-MiniLM-L6-v2"
TOGETHER, APART = "ONNX Runtime dynamic int8", "ONNX Runtime dynamic int8, a session a thread"
ROWS, QUERIES = 100_000, 256
SBMINI = str(Path(sys.executable).with_name("sbmini"))


def apart(engine: Engine, model: str, threads: int) -> Encode:
    """Return an engine over batches of like length on `threads` threads: ONNX Runtime's best arrangement, without our windows."""
    tokenizer = open_tokenizer(read_layout(models.resolve(model)))

    def encode(texts: Sequence[str], size: int) -> FloatArray:
        tokens = tokenizer.encode(list(texts))
        batches = batches_by_length([len(t.ids) for t in tokens], size, TOKENS)
        vectors: list[FloatArray] = [np.empty(0, np.float32)] * len(texts)

        def run(batch: Any) -> None:
            for i, vector in zip(batch, engine.run([tokens[i] for i in batch]), strict=True):
                vectors[i] = vector

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(run, batches))
        return np.stack(vectors)

    return encode


def contestants(model: str, threads: int, folder: Path) -> dict[str, Encode]:
    """Return what encodes: this package by each of its backends, ONNX Runtime's dynamic int8, and sentence-transformers."""
    import torch
    from sentence_transformers import SentenceTransformer

    found: dict[str, Encode] = {}
    for backend in (*LEVELS[1 : level() + 1], "onnx"):
        embedder = Embedder(model, threads=threads, backend=backend)  # type: ignore[arg-type]
        found[f"sbert_mini, {embedder.backend}"] = lambda texts, size, e=embedder: e.encode(texts, batch_size=size)  # type: ignore[misc]
    exact = find(models.resolve(model), "fp32")
    file = dynamic_int8(exact.file, folder / f"{model}.onnx")
    found[TOGETHER] = onnx_runtime(file, exact.layout, threads)
    found[APART] = apart(OnnxEngine(replace(exact, file=file, sha256=file_sha256(file))), model, threads)
    torch.set_num_threads(threads)
    peer = SentenceTransformer(str(models.resolve(PEER)), local_files_only=True, device="cpu")
    found[f"{PEER}, sentence-transformers"] = lambda texts, size: np.asarray(
        peer.encode(list(texts), batch_size=size, normalize_embeddings=True, show_progress_bar=False)
    )
    return found


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
    found: dict[str, Any] = {}
    for name, encode in encoders.items():
        cosines = (encode(texts, BATCH) * expected).sum(axis=1)
        alone = np.concatenate([encode([text], 1) for text in some])
        together = np.concatenate([encode(some[i : i + BATCH], BATCH) for i in range(0, len(some), BATCH)])
        single_ms = [1000 * timed(partial(encode, [text], 1)) for text in some]
        other = name.startswith(PEER)  # another model: its vectors are not to be near
        found[name] = {
            "texts_per_s": summary(rates[name]),
            "to_dynamic_int8": median_ratio(rates[name], rates[best]),
            "cosine_mean": None if other else float(cosines.mean()),
            "cosine_min": None if other else float(cosines.min()),
            "alone_to_batch_min": float((alone * together).sum(axis=1).min()),
            "p50_ms": float(np.percentile(single_ms, 50)),
            "p99_ms": float(np.percentile(single_ms, 99)),
        }
        print(f"{model:16s} {name:50s}{summary(rates[name])['median']:8,.0f} texts/s")
    layout = read_layout(models.resolve(model))
    lengths = [len(t.ids) for t in open_tokenizer(layout).encode(list(texts))]
    limit = int8_rate(layout, threads) / float(np.mean([flops_per_text(layout.config, n) for n in lengths]))
    return {"contestants": found, "limit_texts_per_s": limit, "tokens_per_text": float(np.mean(lengths))}


def end_to_end(model: str, source: Path, texts: Sequence[str], threads: int, folder: Path) -> dict[str, Any]:
    """Return what `sbmini encode` of a million sentences takes, and the share of it that tokenizing is."""
    tokenizer = open_tokenizer(read_layout(models.resolve(model)))
    token_s = timed(partial(tokenizer.encode, texts)) / len(texts)
    options = ("-i", str(source), "-o", str(folder / f"{model}.npy"), "-m", model, "-q", "--threads", str(threads))
    seconds, peak = process([SBMINI, "encode", *options])
    rows = int(np.load(folder / f"{model}.npy", mmap_mode="r").shape[0])
    print(f"{model}: {rows:,} sentences in {seconds:.0f} s, {peak / 1e6:.0f} MB peak")
    return {
        "rows": rows,
        "seconds": seconds,
        "peak_bytes": peak,
        "tokenizer_share": token_s * rows / (threads * seconds),
    }


def cold_starts(texts: Sequence[str], vectors: Path, threads: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Return seconds and peak memory of whole processes: one sentence encoded, and one query over 100,000 rows."""
    rows, index = folder / "rows.jsonl", folder / "index"
    rows.write_text("".join(json.dumps({"id": str(i), "text": t}) + "\n" for i, t in enumerate(texts)), "utf-8")
    np.save(folder / "rows.npy", np.load(vectors, mmap_mode="r")[: len(texts)])
    given = ["-i", str(rows), "--vectors", str(folder / "rows.npy"), "--threads", str(threads)]
    process([SBMINI, "index", "create", str(index), *given])
    commands = {
        "sbmini encode": [SBMINI, "encode", "one sentence", "--threads", str(threads)],
        f"sbmini search, {len(texts):,} rows": [
            SBMINI,
            "search",
            str(index),
            "one sentence",
            "--threads",
            str(threads),
        ],
    }
    peaks: dict[str, list[float]] = {name: [] for name in commands}

    def run(name: str) -> float:
        seconds, peak = process(commands[name])
        peaks[name].append(peak)
        return seconds

    for command in commands.values():
        process(command)
    seconds = alternate({name: partial(run, name) for name in commands}, 3 * rounds)
    return {name: {"seconds": summary(seconds[name]), "peak_bytes": summary(peaks[name])} for name in commands}


def main() -> None:
    options = harness.arguments(__doc__, rounds=5)
    questions = harness.data_file(options.data, "quora_cs224n_dev.tsv.gz")
    source = harness.data_file(options.data, "sentences_wikipedia_1.txt.gz")
    with gzip.open(questions, "rt", encoding="utf-8") as lines:
        texts = [line.split("\t")[1] for line in itertools.islice(lines, 1, TEXTS + 1)]
    with gzip.open(source, "rt", encoding="utf-8") as lines:
        sentences = [line.rstrip("\n") for line in itertools.islice(lines, ROWS)]
    result: dict[str, Any] = {"texts": TEXTS, "batch_size": BATCH, "models": {}, "end_to_end": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in NAMES:
            result["models"][model] = measured(model, texts, options.threads, options.rounds, folder)
        for model in NAMES:
            result["end_to_end"][model] = end_to_end(model, source, sentences, options.threads, folder)
        result["cold_start"] = cold_starts(
            sentences, folder / f"{NAMES[0]}.npy", options.threads, options.rounds, folder
        )
    harness.save("encoding", result, options)


if __name__ == "__main__":
    main()
