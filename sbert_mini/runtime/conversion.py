"""A model directory -> the graphs of the torch-free runtime, made once and found again.

    onnx/model.onnx        float32
    onnx/model_int8.onnx   int8
    onnx/sbmini.json       what they were made from, their checksums, and the model's fingerprint
    onnx/ranges.json       the ranges of the vectors' components, for 8-bit vectors, and the fingerprint of the model they are of

They go into the model directory where it is writable and holds no `onnx/model.onnx` of another tool, else into the user's
cache; graphs of a model in the Hugging Face cache go into ours. The record tells when the directory's weights, tokenizer or
pooling are no longer those that the graphs were made from; then they are made again, and so they are where a graph is missing.
A task with projected attention layers has graphs of its own, in `heads/<task>/onnx/`.
A directory without safetensors (as a package may ship it) is taken at its record's word. It may hold the int8 graph alone: the
other one is then made of the weights that this graph computes with (`model.int8_weights`), in the cache.
"""

import hashlib
import json
import logging
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from sbert_mini.errors import CorruptModelError, UsageError
from sbert_mini.files.durable import write_durably
from sbert_mini.model.layout import ModelLayout, read_layout
from sbert_mini.model.registry import cache_dir
from sbert_mini.model.weights import read_bert_weights, weight_files
from sbert_mini.runtime import graph
from sbert_mini.runtime.onnx_runtime import import_onnxruntime
from sbert_mini.runtime.precision import ComponentRanges, measure_ranges
from sbert_mini.shapes import FloatArray
from sbert_mini.text.tokenizer import TextTokenizer
from sbert_mini.version import __version__

Graph: TypeAlias = Literal["int8", "fp32"]
GRAPH_FILES: Mapping[Graph, str] = {"fp32": "model.onnx", "int8": "model_int8.onnx"}
RECORD = "sbmini.json"
RANGES = "ranges.json"
FORMAT = 1
_SHA256 = re.compile("[0-9a-f]{64}")  # it becomes a folder's name in the cache

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


def start_check(converted: ConvertedModel) -> Callable[[], None]:
    """Begin to compare a graph with its checksum, on a thread. What is returned waits for the end of it.

    Raises:
        CorruptModelError: from what is returned: the file is another than the record says.
    """
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(file_sha256(converted.file)), daemon=True)
    thread.start()

    def finish() -> None:
        thread.join()
        if found != [converted.sha256]:
            raise CorruptModelError(
                f"{converted.file} does not match its checksum: it is damaged. Delete the folder {converted.file.parent}, "
                "and the graphs are made again from the model's weights"
            )

    return finish


def _description(layout: ModelLayout) -> bytes:
    parts: dict[str, Any] = {
        "config": layout.config.to_json(),
        "max_seq_length": layout.max_seq_length,
        "pooling": layout.pooling,
        "include_prompt": layout.include_prompt,
        "lowercase": layout.lowercase,
        "dense": [{**asdict(layer), "path": layer.path.name} for layer in layout.dense],
    }
    return json.dumps(parts, sort_keys=True).encode()


def _tokenizer_digest(layout: ModelLayout) -> str:
    path = layout.encoder_path
    if (path / "tokenizer.json").is_file():
        return file_sha256(path / "tokenizer.json")
    if (path / "vocab.txt").is_file():  # with it, the settings decide how texts are split
        settings = path / "tokenizer_config.json"
        return _sha256((path / "vocab.txt").read_bytes(), settings.read_bytes() if settings.is_file() else b"")
    raise CorruptModelError(f"{path} has neither tokenizer.json nor vocab.txt")


def _files(layout: ModelLayout) -> list[Path]:
    return weight_files(layout.encoder_path) + [file for layer in layout.dense for file in weight_files(layer.path)]


def _stat(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_size, found.st_mtime_ns]


def source_digests(layout: ModelLayout) -> dict[str, str]:
    """Return checksums of what a graph is made from, the weights excepted."""
    return {"tokenizer": _tokenizer_digest(layout), "description": _sha256(_description(layout))}


def _is_fresh(record: Mapping[str, Any], sources: Mapping[str, str], layout: ModelLayout, folder: Path) -> bool:
    """Return whether the record's graphs were made from what the model directory holds now.

    Weights of the size and time of change that were recorded are taken as the same. Others are read whole; where they are
    the same all the same (a copy of the directory), the record is brought up to date, if it can be.
    """
    source = record["source"]
    if any(source.get(key) != value for key, value in sources.items()):
        return False
    if folder.parent == layout.path and not _has_safetensors(layout):
        return True  # as a package may ship it: the record is taken at its word
    files = _files(layout)
    stats = [_stat(file) for file in files]
    if stats == source["weight_stats"]:
        return True
    if [file_sha256(file) for file in files] != source["weights"]:
        return False
    source["weight_stats"] = stats
    with suppress(OSError):
        _write_record(folder, record)
    return True


def _read_record(folder: Path) -> dict[str, Any] | None:
    """Return the folder's record, or None where there is none, or none that can be used."""
    file = folder / RECORD
    if not file.exists():
        return None
    try:
        record = json.loads(file.read_bytes())
        complete = all((folder / entry["file"]).stat().st_size == entry["bytes"] for entry in record["graphs"].values())
        digests = [record["fingerprint"], *(entry["sha256"] for entry in record["graphs"].values())]
        names = {kind: entry["file"] for kind, entry in record["graphs"].items()}
        usable = all(_SHA256.fullmatch(digest) for digest in digests) and names.items() <= GRAPH_FILES.items()
        usable = (
            usable
            and record["format"] == FORMAT
            and bool(record["graphs"])
            and set(record["graphs"]) <= set(GRAPH_FILES)
        )
        usable = usable and complete
        usable = usable and {"tokenizer", "description", "weights", "weight_stats"} <= set(record["source"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        usable = False
    if not usable:
        log.warning("%s or a graph beside it is missing, damaged or of another version", file)
    return dict(record) if usable else None


def _write_record(folder: Path, record: Mapping[str, Any]) -> None:
    write_durably(folder / RECORD, (json.dumps(record, indent=2, sort_keys=True) + "\n").encode())


def find_ranges(converted: ConvertedModel, encode: Callable[[], FloatArray]) -> ComponentRanges:
    """Return the ranges of a model's vectors: those that were made with its graphs, else new ones, which are kept.

    Args:
        converted: the model.
        encode: returns the vectors of `quantization.calibration_texts`.
    """
    folders = [converted.file.parent]
    with suppress(UsageError):  # without a home directory there is no cache
        folders.append(cache_dir() / "ranges" / converted.fingerprint[:32])
    for folder in (converted.layout.path / "onnx", *folders):
        ranges = _read_ranges(folder, converted.fingerprint, converted.layout.dimension)
        if ranges is not None:
            return ranges
    ranges = measure_ranges(encode())
    for folder in folders:
        if not _in_hub_cache(folder) and _is_writable(folder):
            _write_ranges(folder, ranges, converted.fingerprint)
            break
    return ranges


def _read_ranges(folder: Path, fingerprint: str, dimension: int) -> ComponentRanges | None:
    """Return the ranges in the folder, or None where there are none, or none of this model that can be used."""
    try:
        stored = json.loads((folder / RANGES).read_bytes())
        if stored["fingerprint"] != fingerprint:
            return None
        low, high, growth = (np.array(stored[name], np.float64) for name in ("low", "high", "growth"))
        usable = low.shape == high.shape == growth.shape == (dimension,) and bool(
            np.isfinite([low, high, growth]).all()
        )
        usable = usable and bool((low < high).all()) and bool((growth >= 1).all())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        usable = False
    if not usable:
        log.warning("%s is damaged: the ranges are measured again", folder / RANGES)
        return None
    return ComponentRanges(low, high, growth)


def _write_ranges(folder: Path, ranges: ComponentRanges, fingerprint: str) -> None:
    lists = {name: array.tolist() for name, array in vars(ranges).items()}
    data = {"fingerprint": fingerprint, **lists}
    write_durably(folder / RANGES, (json.dumps(data) + "\n").encode())


def find(path: str | Path, kind: Graph = "int8", adapter: "graph.Adapter | None" = None) -> ConvertedModel:
    """Return the graph `kind` of the model directory `path`, converting the model first if it has none.

    With `adapter`, a task's projected attention layers, it is that task's graph.

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
    place, named = layout.path, [str(layout.path.resolve())]
    if adapter is not None:
        parts = [f"{name} {array.shape}".encode() + array.tobytes() for name, array in sorted(adapter.weights.items())]
        sources["adapter"] = _sha256(str(adapter.heads).encode(), *parts)
        place, named = layout.path / "heads" / adapter.task, [*named, adapter.task]
    digest = _sha256(*(os.fsencode(name) for name in named))[:32]
    for folder in _folders(place, digest):
        record = _read_record(folder)
        if record is not None and kind in record["graphs"] and _is_fresh(record, sources, layout, folder):
            break
    else:
        weight_files(layout.encoder_path)  # raises where there is nothing to convert: says what is missing
        own = _has_safetensors(layout) and _takes_graphs(place)
        folder = place / "onnx" if own else _writable_cache(digest)
        log.warning("converting %s to ONNX, once, into %s", place, folder)
        record = convert(layout, folder, adapter, sources)
    entry = record["graphs"][kind]
    return ConvertedModel(layout, kind, folder / entry["file"], entry["sha256"], record["fingerprint"])


def _has_safetensors(layout: ModelLayout) -> bool:
    return any(layout.encoder_path.glob("*.safetensors"))


def _in_hub_cache(path: Path) -> bool:
    """Return whether the path is of the Hugging Face cache, which is shared with tools that expect their own files there."""
    return any(parent.name == "snapshots" for parent in path.parents)


def _folders(place: Path, digest: str) -> Iterator[Path]:
    """Yield where the graphs of a model may lie; a cache is looked for only when the first folder does not serve."""
    yield place / "onnx"
    with suppress(UsageError):  # without a home directory there is no cache
        yield cache_dir() / "graphs" / digest


def _takes_graphs(path: Path) -> bool:
    """Return whether graphs may be written into a model directory, and can be."""
    folder = path / "onnx"
    if _in_hub_cache(path):
        return False
    foreign = not (folder / RECORD).is_file() and any((folder / name).exists() for name in GRAPH_FILES.values())
    return not foreign and _is_writable(folder)


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _writable_cache(digest: str) -> Path:
    """Return a model's folder in the cache, made.

    Raises:
        UsageError: there is no place for a cache, or it cannot be written.
    """
    folder = cache_dir() / "graphs" / digest
    if not _is_writable(folder):
        raise UsageError(
            f"the converted model cannot be kept in {folder}, which cannot be written: set SBMINI_CACHE_DIR to a folder that can"
        )
    return folder


def convert(
    layout: ModelLayout,
    folder: Path,
    adapter: "graph.Adapter | None" = None,
    sources: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write both graphs, ranges and their record into `folder`, replacing older ones, and return the record.

    Args:
        layout: the model directory's description.
        folder: it is made.
        adapter: a task's projected attention layers, or None.
        sources: checksums of what the graphs are made from, the weights excepted; None for `source_digests`.

    The same directory gives the same bytes. int8 scales and the ranges of 8-bit vectors come from
    `quantization.calibration_texts`.
    """
    from sbert_mini.runtime import quantization

    folder.mkdir(parents=True, exist_ok=True)
    files = _files(layout)
    stats, digests = [_stat(file) for file in files], [file_sha256(file) for file in files]
    sources = dict(sources or source_digests(layout))
    weights = read_bert_weights(layout.encoder_path, layout.config)
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise CorruptModelError(f"{layout.encoder_path}: the weight {name} holds NaN or infinity")
    tokenizer = open_tokenizer(layout)
    layers = layout.config.num_hidden_layers

    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    exposed = graph.build(weights, layout, expose=True, adapter=adapter).SerializeToString()
    session = onnxruntime.InferenceSession(exposed, options, providers=["CPUExecutionProvider"])
    del exposed
    activations, vectors = quantization.collect(session, tokenizer, quantization.calibration_texts(), layers)
    del session
    scales = {
        name: quantization.choose_scale(activations.pop(name), _product_weight(weights, name))
        for name in graph.product_names(layers)
    }

    written: dict[str, dict[str, Any]] = {}
    for kind, chosen in (("fp32", None), ("int8", scales)):
        data = graph.build(weights, layout, chosen, adapter=adapter).SerializeToString(deterministic=True)
        file = GRAPH_FILES[kind]  # type: ignore[index]
        write_durably(folder / file, data)
        written[kind] = {"file": file, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    fingerprint = _sha256(json.dumps([digests, sources], sort_keys=True).encode())
    shipped = None if _has_safetensors(layout) or adapter is not None else _read_record(layout.path / "onnx")
    fingerprint = fingerprint if shipped is None else str(shipped["fingerprint"])  # it is the same model
    record = {
        "format": FORMAT,
        "sbert_mini": __version__,
        "fingerprint": fingerprint,
        "source": {**sources, "weights": digests, "weight_stats": stats},
        "graphs": written,
    }
    shipped_ranges = None if shipped is None else _read_ranges(layout.path / "onnx", fingerprint, layout.dimension)
    if shipped_ranges is not None or np.isfinite(vectors).all():
        _write_ranges(folder, shipped_ranges or measure_ranges(vectors), fingerprint)
    _write_record(folder, record)
    return record


def open_tokenizer(layout: ModelLayout) -> TextTokenizer:
    """Return the model directory's tokenizer."""
    return TextTokenizer.from_directory(
        layout.encoder_path, layout.max_seq_length, layout.config.pad_token_id, lowercase=layout.lowercase
    )


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
