"""BERT weights on disk <-> arrays under one set of names. Safetensors, or else our own int8 graph; no pickle, no torch.

The names are those of Hugging Face's `BertModel` (`embeddings.word_embeddings.weight`,
`encoder.layer.0.attention.self.query.weight`, ...). Older spellings are read too: a `bert.` prefix (a model with a task
head on top) and `LayerNorm.gamma`/`LayerNorm.beta` (checkpoints converted from TensorFlow).
"""

import json
import logging
from pathlib import Path

import numpy as np

from sbert_mini.errors import CorruptModelError
from sbert_mini.files.json_files import WEIGHTS_INDEX
from sbert_mini.files.names import WEIGHTS as WEIGHTS_FILE
from sbert_mini.files.names import path_in
from sbert_mini.files.reading import check_regular
from sbert_mini.model.int8_weights import read_int8_weights
from sbert_mini.model.layout import GRAPH_FILES, GRAPH_RECORD, GRAPHS_FOLDER, BertConfig, DenseLayer, read_json
from sbert_mini.shapes import AnyArray

log = logging.getLogger("sbert_mini")

WEIGHTS = "model.safetensors"
INT8_GRAPH, INT8_RECORD = (Path(GRAPHS_FOLDER) / name for name in (GRAPH_FILES["int8"], GRAPH_RECORD))
_TOLD: set[Path] = set()
"""Directories whose missing weights were told of: once a process."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


def weight_files(path: Path) -> list[Path]:
    """Return the files that hold the weights of the model directory `path`: safetensors, one or several shards; where there are
    none, this package's own int8 graph.

    Raises:
        CorruptModelError: there is none; where a pickle lies instead, the text says how to convert it.
    """
    if (path / WEIGHTS).is_file():
        return [path / WEIGHTS]
    index = path / f"{WEIGHTS}.index.json"
    if index.is_file():
        shards = read_json(index, WEIGHTS_INDEX)["weight_map"]
        files = sorted({path_in(path, name, WEIGHTS_FILE, index, CorruptModelError) for name in shards.values()})
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise CorruptModelError(f"{index} names {', '.join(missing)}, not found beside it")
        return files
    if (path / INT8_GRAPH).is_file() and (
        path / INT8_RECORD
    ).is_file():  # another tool's graph does not name its weights
        return [path / INT8_GRAPH]
    pickles = sorted(file for pattern in _PICKLES for file in path.glob(pattern))
    if pickles:
        source, target = str(pickles[0]), str(path / WEIGHTS)
        raise CorruptModelError(
            f"{path} holds its weights as {pickles[0].name}, a format that can run code when it is loaded, and is refused. "
            'Where you trust the file, convert it once: python -c "import torch; from safetensors.torch import save_file; '
            f'save_file({{k: v.clone() for k, v in torch.load({source!r}, weights_only=True).items()}}, {target!r})"'
        )
    raise CorruptModelError(f"{path} has no {WEIGHTS}")


def read_tensors(file: Path) -> dict[str, AnyArray]:
    """Return every tensor of a safetensors file; bfloat16 becomes float32.

    Raises:
        CorruptModelError: the file is truncated or not safetensors.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import load_file

    try:
        with safe_open(check_regular(file), framework="numpy") as handle:
            names = list(handle.keys())
            kinds = {handle.get_slice(name).get_dtype() for name in names}
        return _read_bfloat16(file) if "BF16" in kinds else load_file(file)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CorruptModelError(f"{file} cannot be read as safetensors: {error}") from error


def _read_bfloat16(file: Path) -> dict[str, AnyArray]:
    # NumPy has no bfloat16: it is the upper half of a float32.
    raw = check_regular(file).read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    tensors: dict[str, AnyArray] = {}
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "|u1", "I8": "|i1"}
    for name, entry in json.loads(raw[8:start]).items():
        if name == "__metadata__":
            continue
        low, high = entry["data_offsets"]
        data = raw[start + low : start + high]
        if entry["dtype"] == "BF16":
            flat = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            flat = np.frombuffer(data, kinds[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def canonical_name(name: str) -> str:
    """Return the name that a checkpoint's parameter has in `BertModel`."""
    name = name.removeprefix("bert.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def read_bert_weights(path: str | Path, config: BertConfig) -> dict[str, AnyArray]:
    """Return the encoder's weights of a model directory, under `BertModel`'s names, in the dtype that they are stored in.

    The pooler is included where it is stored. Weights that are not the encoder's (a task head) are left out.

    Raises:
        CorruptModelError: a weight is missing, or its shape is not the one that `config.json` asks for.
    """
    path = Path(path)
    stored: dict[str, AnyArray] = {}
    for file in weight_files(path):
        if file.suffix == INT8_GRAPH.suffix:
            if path.resolve() not in _TOLD:
                log.warning(
                    "%s has no %s: its weights are read back from its int8 graph, rounded as they are there",
                    path,
                    WEIGHTS,
                )
                _TOLD.add(path.resolve())
            tensors = read_int8_weights(file, config)
        else:
            tensors = read_tensors(file)
        stored.update({canonical_name(name): array for name, array in tensors.items()})
    shapes = config.parameter_shapes(pooler="pooler.dense.weight" in stored)
    missing = sorted(set(shapes) - set(stored))
    if missing:
        raise CorruptModelError(
            f"{path} lacks {len(missing)} of the {len(shapes)} weights that its config.json asks for, among them "
            f"{missing[0]}"
        )
    for name, shape in shapes.items():
        if stored[name].shape != shape:
            raise CorruptModelError(
                f"{path}: {name} has the shape {stored[name].shape}, and config.json asks for {shape}"
            )
    return {name: stored[name] for name in shapes}


def read_dense_weights(layer: DenseLayer) -> tuple[AnyArray, AnyArray | None]:
    """Return `(weight, bias)` of a projection, float32; the bias is None where the layer has none.

    Shapes:
        weight: (out_features, in_features); bias: (out_features,).

    Raises:
        CorruptModelError: they are missing or misshapen.
    """
    tensors = {name: array for file in weight_files(layer.path) for name, array in read_tensors(file).items()}
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (layer.out_features, layer.in_features)}
    if layer.bias:
        shapes["linear.bias"] = (layer.out_features,)
    for name, shape in shapes.items():
        if name not in tensors or tensors[name].shape != shape:
            actual = tensors[name].shape if name in tensors else "nothing"
            raise CorruptModelError(f"{layer.path}: {name} must have the shape {shape}; found {actual}")
    weight = tensors["linear.weight"].astype(np.float32)
    return weight, tensors["linear.bias"].astype(np.float32) if layer.bias else None
