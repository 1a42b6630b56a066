"""A model directory -> the graphs of the torch-free runtime, made once and found again.

    onnx/model.onnx        float32
    onnx/model_int8.onnx   int8
    onnx/sbmini.json       what they were made from, their checksums, and the model's fingerprint

They go into the model directory where it is writable and holds no `onnx/model.onnx` of another tool, else into the user's
cache. The record tells when the directory's weights, tokenizer or pooling are no longer those that the graphs were made
from; then they are made again. A directory without weights (as a package may ship it) is taken at its record's word.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from sbert_mini import __version__
from sbert_mini.durable import write_durably
from sbert_mini.encoder.checkpoint import read_bert_weights, weight_files
from sbert_mini.errors import CorruptModelError, UsageError
from sbert_mini.layout import ModelLayout, read_json, read_layout
from sbert_mini.models import cache_dir
from sbert_mini.text.tokenizer import TextTokenizer

Graph: TypeAlias = Literal["int8", "fp32"]
GRAPH_FILES: Mapping[Graph, str] = {"fp32": "model.onnx", "int8": "model_int8.onnx"}
RECORD = "sbmini.json"
FORMAT = 1
_SAMPLES, _SAMPLE_BYTES, _HEADER_BYTES = 64, 4096, 65536

log = logging.getLogger("sbert_mini")


@dataclass(frozen=True)
class ConvertedModel:
    """A graph on disk.

    Attributes:
        layout: the model directory's description.
        graph: which graph it is.
        file: the ONNX file.
        sha256: the file's checksum, in hexadecimal.
        fingerprint: sha256 over the model's weights, tokenizer, pooling and greatest length; the same for both graphs.
    """

    layout: ModelLayout
    graph: Graph
    file: Path
    sha256: str
    fingerprint: str


def _sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _sampled_sha256(path: Path) -> str:
    """Return a checksum of a file's size, beginning and 64 places: cheap, and different after any training step."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        size = handle.seek(0, os.SEEK_END)
        digest.update(size.to_bytes(8, "little"))
        handle.seek(0)
        digest.update(handle.read(_HEADER_BYTES))
        for place in range(_SAMPLES):
            handle.seek(size * place // _SAMPLES)
            digest.update(handle.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _description(layout: ModelLayout) -> bytes:
    parts: dict[str, Any] = {
        "config": layout.config.to_json(),
        "max_seq_length": layout.max_seq_length,
        "pooling": layout.pooling,
        "include_prompt": layout.include_prompt,
        "dense": [{**asdict(layer), "path": layer.path.name} for layer in layout.dense],
    }
    return json.dumps(parts, sort_keys=True).encode()


def _tokenizer_file(path: Path) -> Path:
    for name in ("tokenizer.json", "vocab.txt"):
        if (path / name).is_file():
            return path / name
    raise CorruptModelError(f"{path} has neither tokenizer.json nor vocab.txt")


def _has_weights(path: Path) -> bool:
    return any(path.glob("*.safetensors"))


def source_digests(layout: ModelLayout) -> dict[str, str]:
    """Return checksums of what a graph is made from; `weights` is left out where the directory holds none."""
    sources = {
        "tokenizer": _sha256(_tokenizer_file(layout.path).read_bytes()),
        "description": _sha256(_description(layout)),
    }
    if _has_weights(layout.path):
        files = weight_files(layout.path) + [file for layer in layout.dense for file in weight_files(layer.path)]
        sources["weights"] = _sha256(*(_sampled_sha256(file).encode() for file in files))
    return sources


def _fingerprint(layout: ModelLayout) -> str:
    files = weight_files(layout.path) + [file for layer in layout.dense for file in weight_files(layer.path)]
    return _sha256(
        *(file_sha256(file).encode() for file in files),
        file_sha256(_tokenizer_file(layout.path)).encode(),
        _description(layout),
    )


def _read_record(folder: Path, sources: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the folder's record if its graphs were made from these sources."""
    if not (folder / RECORD).is_file():
        return None
    record = dict(read_json(folder / RECORD))
    made_from = record.get("source", {})
    if record.get("format") != FORMAT or any(made_from.get(key) != value for key, value in sources.items()):
        return None
    return record


def find(path: str | Path, kind: Graph = "int8") -> ConvertedModel:
    """Return the graph `kind` of the model directory `path`, converting the model first if it has none.

    Raises:
        UsageError: `kind` is unknown.
        MissingExtraError: it must be converted, and the package `onnx` is not installed.
        UnsupportedModelError: the directory holds a model that this package does not run.
        CorruptModelError: a file is missing or damaged.
    """
    if kind not in GRAPH_FILES:
        raise UsageError(f"graph must be one of {', '.join(sorted(GRAPH_FILES))}; found {kind!r}")
    layout = read_layout(path)
    sources = source_digests(layout)
    cached = cache_dir() / "graphs" / _sha256(json.dumps(sources, sort_keys=True).encode())[:32]
    for folder in (layout.path / "onnx", cached):
        record = _read_record(folder, sources)
        if record is not None and kind in record["graphs"]:
            break
    else:
        if "weights" not in sources:
            weight_files(layout.path)  # raises: says what is missing, or that a pickle is refused
        folder = _target(layout.path, cached)
        log.warning("converting %s to ONNX, once, into %s", layout.path, folder)
        record = convert(layout, folder)
    entry = record["graphs"][kind]
    file = folder / entry["file"]
    if not file.is_file() or file.stat().st_size != entry["bytes"]:
        found = f"{file.stat().st_size} bytes" if file.is_file() else "nothing"
        raise CorruptModelError(
            f"{file} must hold {entry['bytes']} bytes, and holds {found}: delete {folder / RECORD}, and it is made again"
        )
    return ConvertedModel(layout, kind, file, entry["sha256"], record["fingerprint"])


def _target(path: Path, cached: Path) -> Path:
    folder = path / "onnx"
    foreign = not (folder / RECORD).is_file() and any((folder / name).exists() for name in GRAPH_FILES.values())
    if foreign:
        return cached
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return cached


def convert(layout: ModelLayout, folder: Path) -> dict[str, Any]:
    """Write both graphs and their record into `folder`, replacing older ones, and return the record.

    The same directory gives the same bytes. int8 scales come from `quantization.calibration_texts`.
    """
    import onnxruntime

    from sbert_mini.runtime import graph, quantization

    folder.mkdir(parents=True, exist_ok=True)
    weights = read_bert_weights(layout.path, layout.config)
    tokenizer = TextTokenizer.from_directory(layout.path, layout.max_seq_length, layout.config.pad_token_id)
    layers = layout.config.num_hidden_layers

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    exposed = graph.build(weights, layout, expose=True).SerializeToString()
    session = onnxruntime.InferenceSession(exposed, options, providers=["CPUExecutionProvider"])
    del exposed
    activations = quantization.collect(session, tokenizer, quantization.calibration_texts(), layers)
    del session
    scales = {
        name: quantization.choose_scale(activations.pop(name), _product_weight(weights, name))
        for name in graph.product_names(layers)
    }

    written: dict[str, dict[str, Any]] = {}
    for kind, chosen in (("fp32", None), ("int8", scales)):
        data = graph.build(weights, layout, chosen).SerializeToString(deterministic=True)
        file = GRAPH_FILES[kind]  # type: ignore[index]
        write_durably(folder / file, data)
        written[kind] = {"file": file, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    record = {
        "format": FORMAT,
        "sbert_mini": __version__,
        "fingerprint": _fingerprint(layout),
        "source": source_digests(layout),
        "graphs": written,
    }
    write_durably(folder / RECORD, (json.dumps(record, indent=2, sort_keys=True) + "\n").encode())
    return record


def _product_weight(weights: Mapping[str, Any], name: str) -> Any:
    layer, _, kind = name.partition(".")
    parts = {
        "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
        "attention": ("attention.output.dense",),
        "wide": ("intermediate.dense",),
        "narrow": ("output.dense",),
    }[kind]
    matrices = [np.asarray(weights[f"encoder.layer.{layer}.{part}.weight"], np.float32).T for part in parts]
    return np.concatenate(matrices, axis=1)
