"""What computes sbert-mini: each level of native code, ONNX Runtime and OpenVINO, on short, medium and long texts.

    python -m benchmarks.levels --rounds 5 [--threads 2]

Random ids of 8 to 25, 48 and 128 tokens, so that the tokenizer does not count; in batches of 512 tokens, and one text alone. All
contestants alternate. Processor seconds are those of the whole process. One thread, then `--threads`. OpenVINO has rows where it
is installed, its int8 where NNCF is too. A level's limit is its own instruction on registers (`sbmini_peak`). Levels of other
processors (ARM under qemu) are not timed. About 10 minutes.
"""

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from sbert_mini.evaluation.measure import alternate, summary
from sbert_mini.evaluation.speed import dynamic_int8
from sbert_mini.evaluation.table import Json, Table
from sbert_mini.model import registry
from sbert_mini.runtime.engine import OnnxEngine
from sbert_mini.runtime.graph import INPUTS
from sbert_mini.runtime.graphs import ConvertedModel, find
from sbert_mini.runtime.native import NativeEngine
from sbert_mini.runtime.native_library import LEVELS, levels, library
from sbert_mini.shapes import FloatArray
from sbert_mini.text.batching import batches_by_length, pad
from sbert_mini.text.tokens import TokenBatch, Tokens

MODEL = "sbert-mini"
TOKENS = 512
LENGTHS = {"short": (8, 25, 240), "medium": (48, 48, 80), "long": (128, 128, 24)}
"""The fewest and the most tokens of a text, and how many texts."""
SLOW = ("portable",)
"""Levels that have a tenth of the texts."""
SINGLE_RUNS = 60
_PEAKS, _PEAK_S = 5, 0.03
"""How often a level's instruction is repeated, and for how many processor seconds at least."""

Run = Callable[[TokenBatch], FloatArray]


def random_texts(least: int, most: int, count: int, seed: int = 0) -> list[Tokens]:
    """Return texts of random ids, each of `least` to `most` tokens."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(least, most + 1, count).tolist()
    return [Tokens([101, *rng.integers(1000, 20000, n - 2).tolist(), 102], [0] * n, False) for n in lengths]


def batches(texts: Sequence[Tokens]) -> list[TokenBatch]:
    """Return the texts in batches of at most `TOKENS` tokens, of like lengths."""
    order = batches_by_length([len(t.ids) for t in texts], len(texts), TOKENS)
    return [TokenBatch.of([texts[i] for i in positions]) for positions in order]


def contestants(threads: int, folder: Path) -> dict[str, Run]:
    """Return what computes a batch, by name: levels of native code, ONNX Runtime, and OpenVINO where it is installed."""
    path = registry.resolve(MODEL)
    int8, exact = find(path), find(path, "fp32")
    runs: dict[str, Run] = {}
    for level in levels():
        engine = NativeEngine(int8, level)
        runs[f"native, {level}"] = partial(_native, engine, threads)
    if threads == 1:
        runs["our int8 graph, ONNX Runtime"] = OnnxEngine(int8).run
    runs["fp32, ONNX Runtime"] = _onnx(exact.file, exact, threads)
    runs["dynamic int8, ONNX Runtime"] = _onnx(dynamic_int8(exact.file, folder / "dynamic.onnx"), exact, threads)
    if importlib.util.find_spec("openvino"):
        runs |= _openvino(exact, threads)
    return runs


def _native(engine: NativeEngine, threads: int, batch: TokenBatch) -> FloatArray:
    engine._batches_alone = 0  # the machine is ours
    return engine.run(batch, threads)


def _onnx(file: Path, converted: ConvertedModel, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    pad_id = converted.layout.config.pad_token_id

    def run(batch: TokenBatch) -> FloatArray:
        vectors: FloatArray = session.run(["sentence_embedding"], dict(zip(INPUTS, pad(batch, pad_id), strict=True)))[0]
        return vectors

    return run


def _openvino(exact: ConvertedModel, threads: int) -> dict[str, Run]:
    """Return OpenVINO's float32, and its int8 (NNCF, calibrated on short texts) where NNCF is installed."""
    import openvino  # type: ignore[import-not-found]

    core, pad_id = openvino.Core(), exact.layout.config.pad_token_id
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}

    def feeds(batch: Sequence[Tokens]) -> dict[str, Any]:
        return dict(zip(INPUTS, pad(batch, pad_id), strict=True))

    def run(compiled: Any, batch: TokenBatch) -> FloatArray:
        return np.asarray(compiled(feeds(batch))["sentence_embedding"])

    model = core.read_model(str(exact.file))
    runs: dict[str, Run] = {"f32, OpenVINO": partial(run, core.compile_model(model, "CPU", options))}
    if importlib.util.find_spec("nncf"):
        import nncf  # type: ignore[import-not-found]

        samples = [feeds([text]) for text in random_texts(8, 60, 100, seed=1)]
        quantized = nncf.quantize(model, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER)
        runs["int8, OpenVINO"] = partial(run, core.compile_model(quantized, "CPU", options))
    return runs


def limit_texts_per_s(level: str, tokens: float) -> float:
    """Return the texts a second and thread that a level's own instruction would allow, were there products of weights alone."""
    config = find(registry.resolve(MODEL)).layout.config
    hidden, inner = config.hidden_size, config.intermediate_size
    weights = config.num_hidden_layers * hidden * (4 * hidden + 2 * inner)
    best, rounds, counted = 0.0, 1000, 0
    while counted < _PEAKS:
        start = time.process_time()
        done = library().sbmini_peak(LEVELS.index(level), rounds)  # type: ignore[union-attr]
        took = time.process_time() - start
        if took < _PEAK_S:
            rounds *= 2
        else:
            best, counted = max(best, done / took), counted + 1
    return best / (weights * tokens)


def measured(threads: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Return the rates of each contestant by wall and by processor seconds, and the times of one text alone."""
    runs = contestants(threads, folder)
    results: dict[str, Any] = {}
    for kind, (least, most, count) in LENGTHS.items():
        texts = random_texts(least, most, count)
        several = {
            name: batches(texts[: count // 10] if name.removeprefix("native, ") in SLOW else texts) for name in runs
        }

        def rates(name: str, several: dict[str, list[TokenBatch]] = several) -> Any:
            began, began_used = time.perf_counter(), time.process_time()
            for batch in several[name]:
                runs[name](batch)
            wall, used = time.perf_counter() - began, time.process_time() - began_used
            done = sum(len(batch) for batch in several[name])
            return done / wall, done / used

        one = TokenBatch.of(random_texts((least + most) // 2, (least + most) // 2, 1))
        for name in runs:
            rates(name)  # not counted: memory is taken
        by_name: dict[str, Any] = alternate({name: partial(rates, name) for name in runs}, rounds)
        single: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(SINGLE_RUNS):
            for name, run in runs.items():
                if name.removeprefix("native, ") in SLOW:
                    continue
                start = time.perf_counter()
                run(one)
                single[name].append(1000 * (time.perf_counter() - start))
        results[kind] = {
            "tokens_per_text": statistics.fmean(len(t.ids) for t in texts),
            "contestants": {
                name: {
                    "texts_per_s": summary([wall for wall, _ in pairs]),
                    "texts_per_processor_s": summary([used for _, used in pairs]),
                    "single_p50_ms": statistics.median(single[name]) if single[name] else None,
                }
                for name, pairs in by_name.items()
            },
        }
        for name, entry in results[kind]["contestants"].items():
            print(
                f"{threads} threads, {kind:7s} {name:32s} {entry['texts_per_s']['median']:9,.0f} texts/s"
                f" {entry['texts_per_processor_s']['median']:9,.0f} a processor second,"
                f" one text {entry['single_p50_ms'] or 0:.2f} ms"
            )
    return results


def tables(result: Json) -> list[Table]:
    """Return a table for each number of threads: rates by length of text, and one text alone."""
    made = []
    for threads, kinds in result["threads"].items():
        header = [f"{MODEL}, {threads} thread{'s' * (threads != '1')}"]
        for kind, entry in kinds.items():
            header += [
                f"{kind} ({entry['tokens_per_text']:.0f} tokens), texts a processor second",
                "texts/s",
                "one text, p50",
            ]
        rows = []
        for name in next(iter(kinds.values()))["contestants"]:
            row = [name]
            for kind, entry in kinds.items():
                values = entry["contestants"][name]
                rate, limit = values["texts_per_processor_s"]["median"], result["limits"][kind].get(name)
                share = f" ({100 * rate / limit:.0f} % of its limit)" if limit else ""
                single = values["single_p50_ms"]
                row += [
                    f"{rate:,.0f}{share}",
                    f"{values['texts_per_s']['median']:,.0f}",
                    "" if single is None else f"{single:.2f} ms",
                ]
            rows.append(tuple(row))
        made.append(Table(f"{threads} thread{'s' * (threads != '1')}", tuple(header), tuple(rows)))
    return made


def main() -> None:
    options = harness.arguments(__doc__, rounds=5)
    with tempfile.TemporaryDirectory() as folder:
        counts = sorted({1, options.threads})
        by_threads = {str(count): measured(count, options.rounds, Path(folder)) for count in counts}
    tokens = {kind: entry["tokens_per_text"] for kind, entry in by_threads["1"].items()}
    limits = {
        kind: {f"native, {level}": limit_texts_per_s(level, count) for level in levels()}
        for kind, count in tokens.items()
    }
    harness.save("levels", {"model": MODEL, "threads": by_threads, "limits": limits}, options)


if __name__ == "__main__":
    main()
