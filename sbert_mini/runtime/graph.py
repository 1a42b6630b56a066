"""A BERT encoder's weights -> an ONNX graph, written node by node. Needs the package `onnx`; no torch.

One graph takes `input_ids`, `attention_mask`, `token_type_ids` (int64, (batch, seq)) and gives `token_embeddings`
(batch, seq, hidden) and `sentence_embedding` (batch, dim): pooled, projected and normalised to length 1. It is written with
ONNX Runtime's fused operators (domain `com.microsoft`), so that opening it needs no optimisation pass, and it runs in
ONNX Runtime only.

**int8.** Every matrix product of the layers is computed as uint8 x int8. Weights have one scale an output column,
activations one scale and zero point a product, fixed when the graph is built (`runtime.quantization`): so a text's vector
does not depend on the texts that it is batched with. Where it helps, activations are first divided by a factor a channel
that the weights are multiplied with (SmoothQuant). The word embeddings are stored as int8 with one scale a word piece.
Embedding sums, LayerNorm, softmax, GELU, attention products and pooling stay in float32.

Constants bear the names of the weights that they were made from (`<name>`, or `<name>/q`, `<name>/scale` and a product's
`<product>/smooth`), so that the weights can be read back (`model.int8_weights`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sbert_mini.errors import MissingExtraError
from sbert_mini.model.layout import QUANTIZED, SCALE, SMOOTH, ModelLayout
from sbert_mini.model.weights import read_dense_weights
from sbert_mini.shapes import AnyArray, FloatArray

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 21
IR_VERSION = 10
TOKENS, SENTENCE = "token_embeddings", "sentence_embedding"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
WORDS = "embeddings.word_embeddings.weight"
_MS = "com.microsoft"


@dataclass(frozen=True)
class ActivationScale:
    """How the input of one matrix product becomes uint8: `clip(round(x / smooth / scale) + zero_point, 0, 255)`.

    Attributes:
        scale: the step between two neighbouring numbers.
        zero_point: the number that stands for 0.
        smooth: a factor a channel, (in_features,), or None for none; the weights' rows are multiplied with it.
    """

    scale: float
    zero_point: int
    smooth: FloatArray | None = None


@dataclass(frozen=True)
class Adapter:
    """A task's projected attention layers (`encoder.adapters`), for a graph of its own.

    Attributes:
        task: whose they are.
        heads: of the narrow attention.
        weights: under `ProjectedAttention`'s names.
    """

    task: str
    heads: int
    weights: Mapping[str, AnyArray]


def product_names(layers: int) -> list[str]:
    """Return the names of the inputs that are quantized: `<layer>.<qkv|attention|wide|narrow>`.

    `qkv` feeds query, key and value; `attention` the output projection; `wide` and `narrow` the feed-forward products.
    """
    return [f"{layer}.{kind}" for layer in range(layers) for kind in ("qkv", "attention", "wide", "narrow")]


def quantize_columns(weight: FloatArray) -> tuple[AnyArray, FloatArray]:
    """Return `(q, scale)` with `weight ≈ q · scale`, q int8 in [-127, 127], one scale a column.

    Shapes:
        weight, q: (in_features, out_features); scale: (out_features,).
    """
    largest = np.abs(weight).max(axis=0)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale


class _Builder:
    """Collects nodes and constants."""

    def __init__(self) -> None:
        try:
            import onnx
        except ModuleNotFoundError as error:
            raise MissingExtraError("converting a model to ONNX", "onnx", "train") from error
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any, name: str = "") -> str:
        array = np.ascontiguousarray(value)
        name = name or f"constant_{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(array.reshape(np.shape(value)), name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, dtype=np.int64))

    def node(self, kind: str, *inputs: str, output: str = "", domain: str = "", **attributes: Any) -> str:
        output = output or f"{kind}_{len(self.nodes)}"
        made = self.onnx.helper.make_node(
            kind, list(inputs), [output], name=f"node_{len(self.nodes)}", domain=domain, **attributes
        )
        self.nodes.append(made)
        return output

    def cast(self, x: str, kind: str) -> str:
        return self.node("Cast", x, to=getattr(self.onnx.TensorProto, kind))


def build(
    weights: Mapping[str, AnyArray],
    layout: ModelLayout,
    scales: Mapping[str, ActivationScale] | None = None,
    *,
    expose: bool = False,
    adapter: Adapter | None = None,
) -> "ModelProto":
    """Return the ONNX model of an encoder.

    Args:
        weights: under `BertModel`'s names, as `model.weights.read_bert_weights` returns them.
        layout: the model directory's description: sizes, pooling, projections.
        scales: for each of `product_names`, how it becomes uint8; None for a float32 graph.
        expose: whether the inputs of the matrix products are outputs of the graph too, under `product_names`.
        adapter: projected attention layers to run beside the encoder's, in float32.

    Raises:
        MissingExtraError: the package `onnx` is not installed.
    """
    b = _Builder()
    config = layout.config
    epsilon = float(config.layer_norm_eps)
    chosen = scales or {}

    def weight(name: str) -> FloatArray:
        return np.asarray(weights[name], dtype=np.float32)

    def linear(name: str) -> tuple[FloatArray, FloatArray]:
        return weight(f"{name}.weight").T, weight(f"{name}.bias")

    def named(name: str) -> str:
        return b.constant(weight(name), name)

    def layer_norm(name: str) -> tuple[str, str]:
        return named(f"{name}.weight"), named(f"{name}.bias")

    def quantized(x: str, key: str) -> str:
        scale = chosen[key]
        if scale.smooth is not None:
            x = b.node("Mul", x, b.constant((1 / scale.smooth).astype(np.float32), f"{key}{SMOOTH}"))
        return b.node("QuantizeLinear", x, b.constant(np.float32(scale.scale)), b.constant(np.uint8(scale.zero_point)))

    def product(x8: str, key: str, name: str, *, bias: bool) -> str:
        scale, (matrix, _) = chosen[key], linear(name)
        if scale.smooth is not None:
            matrix = matrix * scale.smooth[:, None]
        q, column_scale = quantize_columns(matrix)
        inputs = [x8, b.constant(q, f"{name}.weight{QUANTIZED}"), b.constant(np.float32(scale.scale))]
        inputs += [b.constant(column_scale, f"{name}.weight{SCALE}"), b.constant(np.uint8(scale.zero_point))]
        if bias:
            inputs += ["", named(f"{name}.bias")]
        return b.node("MatMulIntegerToFloat", *inputs, domain=_MS)

    def activation(x: str, bias: str) -> str:
        if config.activation == "relu":
            return b.node("Relu", b.node("Add", x, bias))
        kind = {"gelu": "BiasGelu", "gelu_tanh": "FastGelu"}[config.activation]
        return b.node(kind, x, bias, domain=_MS)

    def add_and_norm(x: str, residual: str, name: str, bias: str) -> str:
        inputs = (x, residual, *layer_norm(name), bias)
        return b.node("SkipLayerNormalization", *inputs, domain=_MS, epsilon=epsilon)

    mask = b.cast("attention_mask", "INT32")
    lengths = b.node("ReduceSum", mask, b.integers(1), keepdims=0)  # (batch,); padding is to the right
    if scales is None:
        word = b.node("Gather", named(WORDS), "input_ids")  # (batch, seq, hidden)
    else:
        q, row_scale = quantize_columns(weight(WORDS).T)
        word = b.cast(b.node("Gather", b.constant(q.T, f"{WORDS}{QUANTIZED}"), "input_ids"), "FLOAT")
        word = b.node("Mul", word, b.node("Gather", b.constant(row_scale[:, None], f"{WORDS}{SCALE}"), "input_ids"))
    types = named("embeddings.token_type_embeddings.weight")
    word = b.node("Add", word, b.node("Gather", types, "token_type_ids"))
    seq = b.node("Shape", "input_ids", start=1, end=2)
    positions = named("embeddings.position_embeddings.weight")
    position = b.node("Slice", positions, b.integers(0), seq, b.integers(0))  # (seq, hidden)
    norm = layer_norm("embeddings.LayerNorm")
    x = b.node("SkipLayerNormalization", word, position, *norm, domain=_MS, epsilon=epsilon)

    exposed = []

    def expose_as(x: str, name: str) -> None:
        if expose:
            exposed.append(b.node("Identity", x, output=name))

    def matrix_and_bias(adapter: Adapter, name: str) -> tuple[str, str]:
        held = (np.asarray(adapter.weights[f"{name}.{kind}"], np.float32) for kind in ("weight", "bias"))
        matrix, bias = held
        return b.constant(matrix.T), b.constant(bias)

    down = up = ("", "")
    if adapter is not None:
        down, up = matrix_and_bias(adapter, "down"), matrix_and_bias(adapter, "up")

    def beside(x: str, layer: int) -> str | None:
        if adapter is None:
            return None
        narrow = b.node("Add", b.node("MatMul", x, down[0]), down[1])
        parts = []
        for part in ("query", "key", "value"):
            matrix, bias = matrix_and_bias(adapter, f"layer.{layer}.{part}")
            parts.append(b.node("Add", b.node("MatMul", narrow, matrix), bias))
        joined = b.node("MultiHeadAttention", *parts, "", lengths, domain=_MS, num_heads=adapter.heads)
        return b.node("BiasGelu", b.node("MatMul", joined, up[0]), up[1], domain=_MS)

    for layer in range(config.num_hidden_layers):
        prefix = f"encoder.layer.{layer}."
        extra = beside(x, layer)
        parts = [f"{prefix}attention.self.{part}" for part in ("query", "key", "value")]
        expose_as(x, f"{layer}.qkv")
        heads = config.num_attention_heads
        if scales is None:
            projections = [linear(part) for part in parts]
            joined = b.constant(np.concatenate([matrix for matrix, _ in projections], axis=1))
            biases = b.constant(np.concatenate([bias for _, bias in projections]))
            attended = b.node("Attention", x, joined, biases, lengths, domain=_MS, num_heads=heads)
        else:
            x8 = quantized(x, f"{layer}.qkv")
            query, key, value = (product(x8, f"{layer}.qkv", part, bias=True) for part in parts)
            attended = b.node("MultiHeadAttention", query, key, value, "", lengths, domain=_MS, num_heads=heads)

        def dense(name: str, x: str, key: str) -> tuple[str, str]:
            if scales is None:
                return b.node("MatMul", x, b.constant(linear(name)[0])), named(f"{name}.bias")
            return product(quantized(x, key), key, name, bias=False), named(f"{name}.bias")

        expose_as(attended, f"{layer}.attention")
        projected, bias = dense(f"{prefix}attention.output.dense", attended, f"{layer}.attention")
        x = add_and_norm(projected, x, f"{prefix}attention.output.LayerNorm", bias)
        expose_as(x, f"{layer}.wide")
        wide, bias = dense(f"{prefix}intermediate.dense", x, f"{layer}.wide")
        activated = activation(wide, bias)
        expose_as(activated, f"{layer}.narrow")
        narrow, bias = dense(f"{prefix}output.dense", activated, f"{layer}.narrow")
        residual = x if extra is None else b.node("Add", x, extra)
        x = add_and_norm(narrow, residual, f"{prefix}output.LayerNorm", bias)

    tokens = b.node("Identity", x, output=TOKENS)
    _sentence_head(b, tokens, layout)

    helper, proto = b.onnx.helper, b.onnx.TensorProto
    hidden = config.hidden_size
    outputs = [
        helper.make_tensor_value_info(TOKENS, proto.FLOAT, ["batch", "seq", hidden]),
        helper.make_tensor_value_info(SENTENCE, proto.FLOAT, ["batch", layout.dimension]),
        *(helper.make_tensor_value_info(name, proto.FLOAT, ["batch", "seq", None]) for name in exposed),
    ]
    graph = helper.make_graph(
        b.nodes,
        "bert",
        [helper.make_tensor_value_info(name, proto.INT64, ["batch", "seq"]) for name in INPUTS],
        outputs,
        b.constants,
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(_MS, 1)],
        ir_version=IR_VERSION,
        producer_name="sbert-mini",
    )


def _sentence_head(b: _Builder, tokens: str, layout: ModelLayout) -> None:
    """Add pooling, projections and the normalisation, as `encoder.pooling` defines them."""
    mask = b.cast("attention_mask", "FLOAT")  # (batch, seq)
    pooled = []
    for mode in layout.pooling:
        if mode == "cls":
            pooled.append(b.node("Gather", tokens, b.constant(np.int64(0)), axis=1))
            continue
        if mode == "max":
            lowest = b.constant(np.float32(np.finfo(np.float32).min))
            seen = b.node("Unsqueeze", b.cast("attention_mask", "BOOL"), b.integers(2))
            pooled.append(b.node("ReduceMax", b.node("Where", seen, tokens, lowest), b.integers(1), keepdims=0))
            continue
        share = mask
        if mode == "weightedmean":
            seq = b.node("Squeeze", b.node("Shape", "input_ids", start=1, end=2), b.integers(0))
            one = b.constant(np.int64(1))
            share = b.node("Mul", mask, b.cast(b.node("Range", one, b.node("Add", seq, one), one), "FLOAT"))
        total = b.node("Squeeze", b.node("MatMul", b.node("Unsqueeze", share, b.integers(1)), tokens), b.integers(1))
        amount = b.node("Max", b.node("ReduceSum", share, b.integers(1), keepdims=1), b.constant(np.float32(1e-9)))
        pooled.append(b.node("Div", total, b.node("Sqrt", amount) if mode == "mean_sqrt_len_tokens" else amount))
    x = pooled[0] if len(pooled) == 1 else b.node("Concat", *pooled, axis=-1)
    for layer in layout.dense:
        matrix, bias = read_dense_weights(layer)
        x = b.node("MatMul", x, b.constant(matrix.T))
        if bias is not None:
            x = b.node("Add", x, b.constant(bias))
        if layer.activation != "identity":
            kind = {"tanh": "Tanh", "relu": "Relu", "gelu": "Gelu"}[layer.activation]
            x = b.node(kind, x)
    length = b.node("Max", b.node("ReduceL2", x, b.integers(1), keepdims=1), b.constant(np.float32(1e-12)))
    b.node("Div", x, length, output=SENTENCE)
