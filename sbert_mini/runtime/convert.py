"""A model directory -> its ONNX graphs, with the scales of the int8 one and the ranges of 8-bit vectors."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.errors import CorruptModelError
from sbert_mini.files.durable import write_durably
from sbert_mini.model.choices import Graph
from sbert_mini.model.int8_weights import MATRICES
from sbert_mini.model.layout import GRAPH_FILES, ModelLayout, graphs_folder
from sbert_mini.model.weights import read_bert_weights
from sbert_mini.runtime import graph
from sbert_mini.runtime.fingerprint import (
    file_sha256,
    fingerprint_of,
    has_safetensors,
    size_and_time,
    source_digests,
    source_files,
)
from sbert_mini.runtime.graph_record import FORMAT, read_ranges, read_record, write_ranges, write_record
from sbert_mini.runtime.onnx_runtime import import_onnxruntime
from sbert_mini.runtime.precision import measure_ranges
from sbert_mini.shapes import AnyArray, FloatArray
from sbert_mini.text.tokenizer import TextTokenizer, open_tokenizer
from sbert_mini.version import __version__

GREATEST_WEIGHT = 1e9
"""The greatest number in a weight: far above that of any encoder. Sums of products of larger ones overflow."""


def convert(
    layout: ModelLayout,
    folder: Path,
    adapter: graph.Adapter | None = None,
    sources: Mapping[str, str] | None = None,
    *,
    trust_tokenizer: bool = False,
) -> dict[str, Any]:
    """Write both graphs, ranges and their record into `folder`, replacing older ones, and return the record.

    Args:
        layout: the model directory's description.
        folder: it is made.
        adapter: a task's projected attention layers, or None.
        sources: checksums of what the graphs are made from, the weights excepted; None for `source_digests`.
        trust_tokenizer: take a `tokenizer.json` that is not BERT's.

    The same directory gives the same bytes. int8 scales and the ranges of 8-bit vectors come from
    `quantization.calibration_texts`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = source_files(layout)
    stats, digests = [size_and_time(file) for file in files], [file_sha256(file) for file in files]
    sources = dict(sources or source_digests(layout))
    weights = read_bert_weights(layout.encoder_path, layout.config)
    for name, array in weights.items():
        if not (np.abs(array) <= GREATEST_WEIGHT).all():  # NaN is none of them
            raise CorruptModelError(
                f"{layout.encoder_path}: the weight {name} holds NaN, infinity or a number above {GREATEST_WEIGHT:g}"
            )
    tokenizer = open_tokenizer(layout, trust=trust_tokenizer)
    scales, vectors = _calibrated(weights, layout, adapter, tokenizer)
    written: dict[Graph, dict[str, Any]] = {}
    for kind, file in GRAPH_FILES.items():
        graph_scales = scales if kind == "int8" else None
        data = graph.build(weights, layout, graph_scales, adapter=adapter).SerializeToString(deterministic=True)
        write_durably(folder / file, data)
        written[kind] = {"file": file, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    fingerprint = fingerprint_of(digests, sources)
    shipped = None if has_safetensors(layout) or adapter is not None else read_record(graphs_folder(layout.path))
    fingerprint = fingerprint if shipped is None else str(shipped["fingerprint"])  # it is the same model
    record = {
        "format": FORMAT,
        "sbert_mini": __version__,
        "fingerprint": fingerprint,
        "source": {**sources, "weights": digests, "weight_stats": stats},
        "graphs": written,
    }
    shipped_ranges = None if shipped is None else read_ranges(graphs_folder(layout.path), fingerprint, layout.dimension)
    if shipped_ranges is not None or np.isfinite(vectors).all():
        write_ranges(folder, shipped_ranges or measure_ranges(vectors), fingerprint)
    write_record(folder, record)
    return record


def _calibrated(
    weights: Mapping[str, AnyArray], layout: ModelLayout, adapter: graph.Adapter | None, tokenizer: TextTokenizer
) -> tuple[dict[str, graph.ActivationScale], FloatArray]:
    """Return the scale of each int8 product, and the vectors, (texts, dim), of the texts that they were chosen on."""
    from sbert_mini.runtime import quantization

    layers = layout.config.num_hidden_layers
    onnxruntime = import_onnxruntime("converting a model to ONNX")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    exposed = graph.build(weights, layout, expose=True, adapter=adapter).SerializeToString()
    session = onnxruntime.InferenceSession(exposed, options, providers=["CPUExecutionProvider"])
    del exposed
    texts = quantization.calibration_texts()
    activations, vectors = quantization.collect(session, tokenizer, texts, layers)
    del session
    scales = {
        name: quantization.choose_scale(activations.pop(name), _product_weight(weights, name))
        for name in graph.product_names(layers)
    }
    return scales, vectors


def _product_weight(weights: Mapping[str, Any], name: str) -> Any:
    layer, _, kind = name.partition(".")
    names = [f"encoder.layer.{layer}.{name}.weight" for name in MATRICES[kind]]
    matrices = [np.asarray(weights[name], np.float32).T for name in names]
    return np.concatenate(matrices, axis=1)
