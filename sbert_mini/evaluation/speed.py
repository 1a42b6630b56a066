"""How fast: cold start, one text, many texts by batch size and by length, memory, size; and how near to the machine's limit.

Contestants are ours in int8 (by native code and, where that computes, by ONNX Runtime too) and fp32, sentence-transformers on
the same weights, and ONNX Runtime's own dynamic int8 of the same graph. They alternate within each round and have the same
thread budget; figures are medians of the rounds, ratios medians of the rounds' ratios.
"""

import itertools
import logging
import sys
import tempfile
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.errors import MissingExtraError, UsageError
from sbert_mini.evaluation.choices import PEER_RUNTIME
from sbert_mini.evaluation.contestants import short_name
from sbert_mini.evaluation.measure import alternate, median_ratio, process, silent, summary, timed
from sbert_mini.model import registry
from sbert_mini.model.layout import GRAPH_FILES, BertConfig, ModelLayout, read_layout
from sbert_mini.runtime.graphs import find
from sbert_mini.runtime.onnx_runtime import import_onnxruntime
from sbert_mini.shapes import FloatArray
from sbert_mini.text.tokenizer import open_tokenizer

BATCH_SIZES = (1, 8, 32, 128)
LENGTHS = (8, 16, 32, 64, 128, 256)
_DYNAMIC = "ONNX Runtime dynamic int8"
_TOKENS_A_LENGTH = 4096
_ROWS = 512
"""Tokens in the matrix products that the machine's limit is taken from."""
_PEER_START = """
import sys
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], local_files_only=True, device="cpu", model_kwargs={"use_safetensors": True})
texts = open(sys.argv[2], encoding="utf-8").read().splitlines() if len(sys.argv) > 2 else ["one sentence"]
print(model.encode(texts, normalize_embeddings=True)[0].tolist())
"""

Encode = Callable[[Sequence[str], int], FloatArray]
"""(texts, batch size) -> vectors of length 1."""


@dataclass(frozen=True)
class SpeedResult:
    """What `sbmini bench speed` measures. Times in seconds or milliseconds as their names say, memory and size in bytes.

    Attributes:
        texts: texts of the throughput by batch size.
        reference: what ratios are to; None where no peer ran.
        fidelity_to: what cosines are to.
        rounds: alternations.
        cold_start: process -> seconds, peak_bytes, times_faster.
        latency: model -> p50_ms, p99_ms, times_faster, for one text at a time.
        by_batch_size: model -> batch size -> texts_per_s, times_faster.
        by_length: model -> tokens a text -> the same, batches of 32.
        models: model -> cosine_mean, cosine_min, alone_to_batch_min, backend, disk_bytes, peak_bytes.
        roofline: the bound that matrix products set, and the share of it that each model reaches; None without torch.
    """

    texts: int
    reference: str | None
    fidelity_to: str
    rounds: int
    cold_start: Mapping[str, Any]
    latency: Mapping[str, Any]
    by_batch_size: Mapping[str, Any]
    by_length: Mapping[str, Any]
    models: Mapping[str, Any]
    roofline: Mapping[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON holds it."""
        return asdict(self)


def flops_per_text(config: BertConfig, tokens: float) -> float:
    """Return the floating-point operations of the encoder's matrix products for a text of `tokens` tokens.

    A layer costs `2 t (4 h² + 2 h i)` for its projections and `4 t² h` for scores and weighted sums, with t tokens, h hidden and
    i intermediate components; a multiplication and an addition count as two.
    """
    h, i = config.hidden_size, config.intermediate_size
    return config.num_hidden_layers * (2 * tokens * (4 * h * h + 2 * h * i) + 4 * tokens * tokens * h)


def texts_of_length(
    layout: ModelLayout, texts: Sequence[str], tokens: int, count: int, *, trust_tokenizer: bool = False
) -> list[str]:
    """Return `count` texts of `tokens` tokens each (special tokens included), cut from the words of `texts`.

    A text is exact to the few tokens that a word may split into.
    """
    tokenizer = open_tokenizer(layout, trust=trust_tokenizer)
    words = itertools.cycle(" ".join(texts).split())
    made = []
    for _ in range(count):
        text: list[str] = []
        length = 2
        while length < tokens:
            word = next(words)
            text.append(word)
            length += len(tokenizer.encode([word])[0].ids) - 2
        made.append(" ".join(text))
    return made


def measure(
    model: str,
    texts: Sequence[str],
    *,
    peer: str | None,
    threads: int,
    rounds: int,
    offline: bool = False,
    trust_tokenizer: bool = False,
    on_progress: Callable[[str], None] = silent,
) -> SpeedResult:
    """Return how fast the model is in each of its runtimes, and its peers.

    Args:
        model: a model directory, a built-in name or a hub id.
        texts: what is encoded; at least 64.
        peer: the model that sentence-transformers runs; None for no peer.
        threads: the budget of each contestant.
        rounds: alternations.
        offline: open no socket.
        trust_tokenizer: of our model: see `Embedder`.
        on_progress: told what is being done.

    Raises:
        UsageError: there are too few texts.
        MissingExtraError: a peer is asked for and not installed.
        UnsupportedModelError: the model's tokenizer is not BERT's, and is not trusted.
    """
    if len(texts) < 64:
        raise UsageError(f"at least 64 texts are needed to measure with; found {len(texts)}")
    path = registry.resolve(model, offline=offline)
    layout = read_layout(path)
    name = short_name(model)
    with tempfile.TemporaryDirectory() as folder:
        encoders, peer_name, files, backends = _encoders(
            path, name, peer, threads, Path(folder), offline=offline, trust_tokenizer=trust_tokenizer
        )
        disk_bytes = {label: file.stat().st_size for label, file in files.items()}
        other = peer_name if peer is not None and registry.resolve(peer, offline=offline) != path else None
        label_of_model = next(label for label in (f"{name} (fp32)", f"{name} (int8)") if label in encoders)
        reference = peer_name if peer_name is not None and other is None else label_of_model
        on_progress("closeness")
        fidelity = _fidelity(encoders, reference, other, texts)
        on_progress("cold start and memory of whole processes")
        trust = ["--trust-tokenizer"] if trust_tokenizer else []
        cold, peaks = _processes(path, name, encoders, peer_name, peer, texts, threads, rounds, Path(folder), trust)
        on_progress("one text at a time")
        latency = _latency(encoders, peer_name, texts[:64], rounds)
        by_batch: dict[str, dict[str, Any]] = {label: {} for label in encoders}
        for size in BATCH_SIZES:
            on_progress(f"batches of {size}")
            _rates(by_batch, str(size), encoders, texts, size, peer_name, rounds)
        by_length: dict[str, dict[str, Any]] = {label: {} for label in encoders}
        for tokens in (n for n in LENGTHS if n <= layout.max_seq_length):
            on_progress(f"texts of {tokens} tokens")
            count = max(_TOKENS_A_LENGTH // tokens, 16)
            made = texts_of_length(layout, texts, tokens, count, trust_tokenizer=trust_tokenizer)
            _rates(by_length, str(tokens), encoders, made, 32, peer_name, rounds)
        on_progress("the machine's limit")
        roofline = _roofline(layout, texts, by_batch, threads, trust_tokenizer=trust_tokenizer)
    record = {
        label: {
            **fidelity[label],
            "backend": backends.get(label),
            "disk_bytes": disk_bytes.get(label),
            "peak_bytes": peaks.get(label),
        }
        for label in encoders
    }
    return SpeedResult(len(texts), peer_name, reference, rounds, cold, latency, by_batch, by_length, record, roofline)


def _encoders(
    path: Path, name: str, peer: str | None, threads: int, folder: Path, *, offline: bool, trust_tokenizer: bool
) -> tuple[dict[str, Encode], str | None, dict[str, Path], dict[str, str]]:
    from sbert_mini.runtime.embedder import Embedder

    files: dict[str, Path] = {}
    encoders: dict[str, Encode] = {}
    backends: dict[str, str] = {}
    for kind in GRAPH_FILES:
        try:
            files[f"{name} ({kind})"] = find(path, kind, trust_tokenizer=trust_tokenizer).file
        except MissingExtraError:  # a model that travels as an int8 graph alone, and no onnx to make the other one
            if kind == "int8":
                raise
            continue
        embedder = Embedder(path, graph=kind, threads=threads, trust_tokenizer=trust_tokenizer)
        encoders[f"{name} ({kind})"] = partial(_embed, embedder)
        backends[f"{name} ({kind})"] = embedder.backend
        if embedder.backend.startswith("native"):
            label = f"{name} ({kind}, ONNX Runtime)"
            files[label] = files[f"{name} ({kind})"]
            other = Embedder(path, graph=kind, threads=threads, backend="onnx", trust_tokenizer=trust_tokenizer)
            encoders[label], backends[label] = partial(_embed, other), other.backend
    try:
        exact = files.get(f"{name} (fp32)")
        dynamic = dynamic_int8(exact, folder / "dynamic.onnx") if exact is not None else None
    except ModuleNotFoundError:  # the package onnx quantizes; where it is absent this contestant is, too
        dynamic = None
    if dynamic is not None:
        label = f"{name} ({_DYNAMIC})"
        encoders[label] = onnx_runtime(dynamic, read_layout(path), threads, trust_tokenizer=trust_tokenizer)
        files[label] = dynamic
    if peer is None:
        return encoders, None, files, backends
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    torch.set_num_threads(threads)
    where = str(registry.resolve(peer, offline=offline))
    model = SentenceTransformer(where, local_files_only=True, device="cpu", model_kwargs={"use_safetensors": True})
    label = f"{short_name(peer)} ({PEER_RUNTIME})"
    encoders[label] = lambda texts, size: np.asarray(
        model.encode(list(texts), batch_size=size, normalize_embeddings=True, show_progress_bar=False)
    )
    files[label] = max(Path(where).rglob("*.safetensors"), key=lambda file: file.stat().st_size)
    return encoders, label, files, backends


def _embed(embedder: Any, texts: Sequence[str], size: int) -> FloatArray:
    vectors: FloatArray = np.concatenate(
        list(embedder.encode_stream(texts, batch_size=size, max_tokens=max(512, size * 16)))
    )
    return vectors


def dynamic_int8(source: Path, target: Path) -> Path:
    """Write ONNX Runtime's own dynamic int8 of a graph: weights int8 by column, one activation scale a tensor at run time."""
    import onnx

    quantization = import_onnxruntime("onnxruntime.quantization")
    silenced = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises a pass that graphs written fused have no need of
    try:
        options = {"DefaultTensorType": onnx.TensorProto.FLOAT}
        quantization.quantize_dynamic(
            source, target, weight_type=quantization.QuantType.QInt8, per_channel=True, extra_options=options
        )
    finally:
        logging.disable(silenced)
    return target


def onnx_runtime(file: Path, layout: ModelLayout, threads: int, *, trust_tokenizer: bool = False) -> Encode:
    """Return ONNX Runtime as it is ordinarily used: one session of `threads` threads, texts sorted by tokens."""
    from sbert_mini.text.batching import batches_by_length, pad

    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    tokenizer = open_tokenizer(layout, trust=trust_tokenizer)

    def encode(texts: Sequence[str], size: int) -> FloatArray:
        tokens = tokenizer.encode(list(texts))
        vectors = np.empty((len(texts), layout.dimension), np.float32)
        for batch in batches_by_length([len(t.ids) for t in tokens], size, sys.maxsize):
            ids, mask, types = pad([tokens[i] for i in batch], layout.config.pad_token_id)
            feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
            vectors[batch] = session.run(["sentence_embedding"], feeds)[0]
        return vectors

    return encode


def _fidelity(
    encoders: Mapping[str, Encode], reference: str, other: str | None, texts: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """Return how close each one's vectors are to the reference's; `other` is another model, whose vectors are not to be."""
    exact = encoders[reference](texts, 32)
    some = texts[:256]
    figures: dict[str, dict[str, float | None]] = {}
    for label, encode in encoders.items():
        cosine = np.sum(encode(texts, 32) * exact, axis=1) if label != other else None
        batched = np.concatenate([encode(some[i : i + 32], 32) for i in range(0, len(some), 32)])
        alone = np.concatenate([encode([text], 1) for text in some])
        figures[label] = {
            "cosine_mean": float(cosine.mean()) if cosine is not None else None,
            "cosine_min": float(cosine.min()) if cosine is not None else None,
            "alone_to_batch_min": float(np.sum(batched * alone, axis=1).min()),
        }
    return figures


def _processes(
    path: Path,
    name: str,
    labels: Container[str],
    peer_name: str | None,
    peer: str | None,
    texts: Sequence[str],
    threads: int,
    rounds: int,
    folder: Path,
    options: Sequence[str],
) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the cold start of whole processes, and the peak memory of processes that encode all texts.

    `options` are those of `sbmini encode` that the model needs.
    """
    sbmini = [sys.executable, "-m", "sbert_mini"]
    environment = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    lines, vectors = folder / "texts.txt", folder / "vectors.npy"
    lines.write_text("".join(" ".join(text.split()) + "\n" for text in texts), "utf-8")
    ours = 'sbmini encode "one sentence"'
    commands = {
        ours: [*sbmini, "encode", "one sentence", "-m", str(path), *options],
        "sbmini --help": [*sbmini, "--help"],
    }
    encoding = {
        f"{name} ({kind})": [
            *sbmini, "encode", "-i", str(lines), "-o", str(vectors), "-m", str(path), "--graph", kind, "-q", *options,
        ]
        for kind in GRAPH_FILES
        if f"{name} ({kind})" in labels
    }  # fmt: skip
    if peer_name is not None and peer is not None:
        script = [sys.executable, "-c", _PEER_START, str(registry.resolve(peer, offline=True))]
        commands["a script that does the same with sentence-transformers"] = script
        encoding[peer_name] = [*script, str(lines)]
    peaks: dict[str, list[float]] = {label: [] for label in commands}

    def run(label: str) -> float:
        elapsed_s, peak = process(commands[label], environment)
        peaks[label].append(peak)
        return elapsed_s

    for command in commands.values():  # once unmeasured: files in the page cache, bytecode compiled
        process(command, environment)
    seconds = alternate({label: partial(run, label) for label in commands}, rounds)
    other = list(commands)[-1] if peer_name is not None else None
    cold = {
        label: {
            "seconds": summary(values),
            "peak_bytes": summary(peaks[label]),
            "times_faster": median_ratio(seconds[other], values) if other and label == ours else None,
            "share_of_memory": median_ratio(peaks[label], peaks[other]) if other and label == ours else None,
        }
        for label, values in seconds.items()
    }
    return cold, {label: process(command, environment)[1] for label, command in encoding.items()}


def _latency(
    encoders: Mapping[str, Encode], peer: str | None, texts: Sequence[str], rounds: int
) -> dict[str, dict[str, Any]]:
    latencies: dict[str, list[list[float]]] = {label: [] for label in encoders}
    for encode in encoders.values():
        encode(texts[:8], 1)
    for _ in range(rounds):
        for label, encode in encoders.items():
            latencies[label].append([1000 * timed(partial(encode, [text], 1)) for text in texts])
    medians = {label: [float(np.percentile(r, 50)) for r in values] for label, values in latencies.items()}
    return {
        label: {
            "p50_ms": summary(medians[label]),
            "p99_ms": summary([float(np.percentile(r, 99)) for r in latencies[label]]),
            "times_faster": median_ratio(medians[peer], medians[label]) if peer else None,
        }
        for label in encoders
    }


def _rates(
    into: dict[str, dict[str, Any]],
    key: str,
    encoders: Mapping[str, Encode],
    texts: Sequence[str],
    size: int,
    peer: str | None,
    rounds: int,
) -> None:
    # One text at a time is slow for every contestant: a part of the texts says as much.
    texts = texts[: max(len(texts) // 4, 64)] if size == 1 else texts
    for encode in encoders.values():
        encode(texts[: 2 * size], size)

    def rate(label: str) -> float:
        return len(texts) / timed(partial(encoders[label], texts, size))

    measured = alternate({label: partial(rate, label) for label in encoders}, rounds)
    for label, values in measured.items():
        into[label][key] = {
            "texts_per_s": summary(values),
            "times_faster": median_ratio(values, measured[peer]) if peer else None,
        }


def _roofline(
    layout: ModelLayout, texts: Sequence[str], by_batch: Mapping[str, Any], threads: int, *, trust_tokenizer: bool
) -> dict[str, Any] | None:
    try:
        import torch
    except ModuleNotFoundError:
        return None
    torch.set_num_threads(threads)
    lengths = open_tokenizer(layout, trust=trust_tokenizer).encode(list(texts)).lengths
    flops = float(np.mean([flops_per_text(layout.config, n) for n in lengths]))
    inner, columns = layout.config.hidden_size, layout.config.intermediate_size
    a, b = torch.randn(_ROWS, inner), torch.randn(inner, columns)
    rates = {
        "fp32": _best_rate(lambda: torch.mm(a, b), 2 * _ROWS * inner * columns),
        "int8": int8_rate(layout, threads),
    }
    best = {label: max(e["texts_per_s"]["median"] for e in sizes.values()) for label, sizes in by_batch.items()}
    return {
        "flops_per_text": flops,
        "tokens_per_text": float(np.mean(lengths)),
        "fp32_flops_per_s": rates["fp32"],
        "int8_flops_per_s": rates["int8"],
        "how": f"torch {torch.__version__}, ({_ROWS}, {inner}) x ({inner}, {columns}), best of 5 x 0.2 s, {threads} threads",
        "models": {
            label: {
                "limit_texts_per_s": (
                    limit := rates[
                        "int8" if label.endswith(("(int8)", "(int8, ONNX Runtime)", f"({_DYNAMIC})")) else "fp32"
                    ]
                    / flops
                ),
                "share": value / limit,
            }
            for label, value in best.items()
        },
    }


def int8_rate(layout: ModelLayout, threads: int) -> float:
    """Return the int8 operations a second that torch's matrix product reaches in the shape of a feed-forward layer."""
    import torch

    torch.set_num_threads(threads)
    inner, columns = layout.config.hidden_size, layout.config.intermediate_size
    a8 = torch.randint(-100, 100, (_ROWS, inner), dtype=torch.int8)
    b8 = torch.randint(-100, 100, (inner, columns), dtype=torch.int8)
    return _best_rate(lambda: torch._int_mm(a8, b8), 2 * _ROWS * inner * columns)


def _best_rate(run: Callable[[], object], operations: int) -> float:
    run()
    once = max(timed(run), 1e-6)
    repeats = max(int(0.2 / once), 1)

    def block() -> None:
        for _ in range(repeats):
            run()

    return max(operations * repeats / timed(block) for _ in range(5))
