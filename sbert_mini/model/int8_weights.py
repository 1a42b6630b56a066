"""The weights that an int8 graph computes with, for model directories that travel with the graph alone. No torch.

The graph (`runtime.graph`) names its constants after the weights that they were made from: `<name>`, or `<name>/q` and
`<name>/scale` with `weight ≈ q · scale`, and `<layer>.<product>/smooth`, a factor a channel that activations are multiplied with
and weights were divided by. What comes back is what the graph multiplies with: a model of these weights differs from it by the
rounding of activations alone.
"""

from pathlib import Path

import numpy as np

from sbert_mini.errors import CorruptModelError
from sbert_mini.model.layout import QUANTIZED, SCALE, SMOOTH, BertConfig
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


def read_int8_weights(file: Path, config: BertConfig) -> dict[str, AnyArray]:
    """Return an int8 graph's weights under `BertModel`'s names, float32; those of other names are left out.

    Args:
        file: the graph.
        config: the sizes that its constants must have.

    Raises:
        CorruptModelError: the file is damaged, does not name its weights, or has them in other sizes.
    """
    weights: dict[str, AnyArray] = {}
    with OnnxFile(file) as graph:
        config.check_constants({name: constant.shape for name, constant in graph.constants.items()})
        for name in config.parameter_shapes():
            if name in graph.constants:
                weights[name] = graph.read(name)
            elif {f"{name}{QUANTIZED}", f"{name}{SCALE}"} <= graph.constants.keys():
                # (in, out); words: (vocabulary, hidden)
                matrix = graph.read(f"{name}{QUANTIZED}").astype(np.float32) * graph.read(f"{name}{SCALE}")
                weights[name] = _unsmoothed(name, matrix, graph).T if name.startswith("encoder.") else matrix
    if not weights:
        raise CorruptModelError(
            f"{file} does not name its weights: an earlier version made it; take a directory that holds model.safetensors"
        )
    return {name: np.ascontiguousarray(array) for name, array in weights.items()}


def _unsmoothed(name: str, matrix: AnyArray, graph: OnnxFile) -> AnyArray:
    layer, _, rest = name.removeprefix("encoder.layer.").removesuffix(".weight").partition(".")
    smooth = f"{layer}.{PRODUCTS[rest]}{SMOOTH}"
    if smooth not in graph.constants:
        return matrix
    if graph.constants[smooth].shape != (len(matrix),):
        raise CorruptModelError(
            f"{smooth} must have the shape ({len(matrix)},) in the int8 graph; found {graph.constants[smooth].shape}"
        )
    return matrix * graph.read(smooth)[:, None]
