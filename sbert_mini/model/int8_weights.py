"""The weights that an int8 graph computes with, for model directories that travel with the graph alone. No torch.

The graph (`runtime.graph`) names its constants after the weights that they were made from: `<name>`, or `<name>/q` and
`<name>/scale` with `weight ≈ q · scale`, and `<layer>.<product>/smooth`, a factor a channel that activations are multiplied with
and weights were divided by. What comes back is what the graph multiplies with: a model of these weights differs from it by the
rounding of activations alone.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sbert_mini.errors import CorruptModelError
from sbert_mini.model.layout import QUANTIZED, SCALE, SMOOTH
from sbert_mini.model.onnx_file import OnnxFile
from sbert_mini.shapes import AnyArray

PRODUCTS = {
    "attention.self.query": "qkv",
    "attention.self.key": "qkv",
    "attention.self.value": "qkv",
    "attention.output.dense": "attention",
    "intermediate.dense": "wide",
    "output.dense": "narrow",
}
"""A layer's matrix -> the product that it stands in."""
MATRICES = {kind: [name for name, product in PRODUCTS.items() if product == kind] for kind in PRODUCTS.values()}
"""A product -> the matrices that stand in it, side by side."""


def read_int8_weights(file: Path) -> dict[str, AnyArray]:
    """Return an int8 graph's weights under `BertModel`'s names, float32.

    Raises:
        CorruptModelError: the file is damaged, or does not name its weights.
    """
    with OnnxFile(file) as graph:
        constants = {name: graph.read(name) for name in graph.constants}
    weights: dict[str, AnyArray] = {}
    for name, array in constants.items():
        base = name.removesuffix(QUANTIZED)
        if base != name and f"{base}{SCALE}" in constants:
            matrix = array.astype(np.float32) * constants[f"{base}{SCALE}"]  # (in, out); words: (vocabulary, hidden)
            weights[base] = _unsmoothed(base, matrix, constants).T if base.startswith("encoder.") else matrix
        elif name.startswith(("embeddings.", "encoder.")) and "/" not in name:
            weights[name] = array
    if not weights:
        raise CorruptModelError(
            f"{file} does not name its weights: an earlier version made it; take a directory that holds model.safetensors"
        )
    return {name: np.ascontiguousarray(array) for name, array in weights.items()}


def _unsmoothed(name: str, matrix: AnyArray, constants: Mapping[str, AnyArray]) -> AnyArray:
    layer, _, rest = name.removeprefix("encoder.layer.").removesuffix(".weight").partition(".")
    smooth = constants.get(f"{layer}.{PRODUCTS[rest]}{SMOOTH}")
    return matrix if smooth is None else matrix * smooth[:, None]
