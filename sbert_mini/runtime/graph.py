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
from sbert_mini.model.int8_weights import MATRICES
from sbert_mini.model.layout import QUANTIZED, SCALE, SMOOTH, BertConfig, ModelLayout
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
    return [f"{layer}.{kind}" for layer in range(layers) for kind in MATRICES]


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
            raise MissingExtraError("converting a model to ONNX", "onnx", "onnx") from error
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


class _Encoder:
    """Writes the nodes of a BERT encoder.

    Args:
        builder: takes the nodes.
        weights: under `BertModel`'s names.
        config: the encoder's sizes.
        scales: for each of `product_names`, how it becomes uint8; None for float32 products.
        adapter: projected attention layers beside the encoder's, or None.
        expose: whether the inputs of the products become outputs, whose names are then in `exposed`.
    """

    def __init__(
        self,
        builder: _Builder,
        weights: Mapping[str, AnyArray],
        config: BertConfig,
        scales: Mapping[str, ActivationScale] | None,
        adapter: Adapter | None,
        *,
        expose: bool,
    ) -> None:
        self._builder = builder
        self._weights = weights
        self._config = config
        self._epsilon = float(config.layer_norm_eps)
        self._scales = scales
        self._adapter = adapter
        self._expose = expose
        self.exposed: list[str] = []
        self._lengths = ""
        self._down, self._up = ("", ""), ("", "")

    def write(self) -> str:
        """Add all nodes, and return the name of the token vectors, (batch, seq, hidden)."""
        b = self._builder
        mask = b.cast("attention_mask", "INT32")
        self._lengths = b.node("ReduceSum", mask, b.integers(1), keepdims=0)  # (batch,); padding is to the right
        x = self._embeddings()
        if self._adapter is not None:
            self._down, self._up = (self._adapter_matrix(self._adapter, name) for name in ("down", "up"))
        for layer in range(self._config.num_hidden_layers):
            x = self._layer(x, layer)
        return b.node("Identity", x, output=TOKENS)

    def _embeddings(self) -> str:
        b = self._builder
        if self._scales is None:
            word = b.node("Gather", self._named(WORDS), "input_ids")  # (batch, seq, hidden)
        else:
            q, row_scale = quantize_columns(self._weight(WORDS).T)
            word = b.cast(b.node("Gather", b.constant(q.T, f"{WORDS}{QUANTIZED}"), "input_ids"), "FLOAT")
            word = b.node("Mul", word, b.node("Gather", b.constant(row_scale[:, None], f"{WORDS}{SCALE}"), "input_ids"))
        types = self._named("embeddings.token_type_embeddings.weight")
        word = b.node("Add", word, b.node("Gather", types, "token_type_ids"))
        seq = b.node("Shape", "input_ids", start=1, end=2)
        positions = self._named("embeddings.position_embeddings.weight")
        position = b.node("Slice", positions, b.integers(0), seq, b.integers(0))  # (seq, hidden)
        norm = self._layer_norm("embeddings.LayerNorm")
        return b.node("SkipLayerNormalization", word, position, *norm, domain=_MS, epsilon=self._epsilon)

    def _layer(self, x: str, layer: int) -> str:
        b, prefix = self._builder, f"encoder.layer.{layer}."
        beside = None if self._adapter is None else self._projected_attention(self._adapter, x, layer)
        self._expose_as(x, f"{layer}.qkv")
        attended = self._self_attention(x, layer)
        self._expose_as(attended, f"{layer}.attention")
        projected, bias = self._dense(f"{prefix}attention.output.dense", attended, f"{layer}.attention")
        x = self._add_and_norm(projected, x, f"{prefix}attention.output.LayerNorm", bias)
        self._expose_as(x, f"{layer}.wide")
        activated = self._activation(*self._dense(f"{prefix}intermediate.dense", x, f"{layer}.wide"))
        self._expose_as(activated, f"{layer}.narrow")
        narrow, bias = self._dense(f"{prefix}output.dense", activated, f"{layer}.narrow")
        residual = x if beside is None else b.node("Add", x, beside)
        return self._add_and_norm(narrow, residual, f"{prefix}output.LayerNorm", bias)

    def _self_attention(self, x: str, layer: int) -> str:
        b, heads = self._builder, self._config.num_attention_heads
        parts = [f"encoder.layer.{layer}.attention.self.{part}" for part in ("query", "key", "value")]
        if self._scales is None:
            projections = [self._linear(part) for part in parts]
            joined = b.constant(np.concatenate([matrix for matrix, _ in projections], axis=1))
            biases = b.constant(np.concatenate([bias for _, bias in projections]))
            return b.node("Attention", x, joined, biases, self._lengths, domain=_MS, num_heads=heads)
        key, scale = f"{layer}.qkv", self._scales[f"{layer}.qkv"]
        x8 = self._quantized(x, key, scale)
        products = [self._product(x8, scale, part, bias=True) for part in parts]
        return b.node("MultiHeadAttention", *products, "", self._lengths, domain=_MS, num_heads=heads)

    def _projected_attention(self, adapter: Adapter, x: str, layer: int) -> str:
        b = self._builder
        narrow = b.node("Add", b.node("MatMul", x, self._down[0]), self._down[1])
        parts = []
        for part in ("query", "key", "value"):
            matrix, bias = self._adapter_matrix(adapter, f"layer.{layer}.{part}")
            parts.append(b.node("Add", b.node("MatMul", narrow, matrix), bias))
        joined = b.node("MultiHeadAttention", *parts, "", self._lengths, domain=_MS, num_heads=adapter.heads)
        return b.node("BiasGelu", b.node("MatMul", joined, self._up[0]), self._up[1], domain=_MS)

    def _adapter_matrix(self, adapter: Adapter, name: str) -> tuple[str, str]:
        matrix, bias = (np.asarray(adapter.weights[f"{name}.{kind}"], np.float32) for kind in ("weight", "bias"))
        return self._builder.constant(matrix.T), self._builder.constant(bias)

    def _dense(self, name: str, x: str, key: str) -> tuple[str, str]:
        """Return the product of `x` with a weight, and the name of the bias, which is not added yet."""
        if self._scales is None:
            product = self._builder.node("MatMul", x, self._builder.constant(self._linear(name)[0]))
        else:
            scale = self._scales[key]
            product = self._product(self._quantized(x, key, scale), scale, name, bias=False)
        return product, self._named(f"{name}.bias")

    def _quantized(self, x: str, key: str, scale: ActivationScale) -> str:
        b = self._builder
        if scale.smooth is not None:
            x = b.node("Mul", x, b.constant((1 / scale.smooth).astype(np.float32), f"{key}{SMOOTH}"))
        return b.node("QuantizeLinear", x, b.constant(np.float32(scale.scale)), b.constant(np.uint8(scale.zero_point)))

    def _product(self, x8: str, scale: ActivationScale, name: str, *, bias: bool) -> str:
        b, (matrix, _) = self._builder, self._linear(name)
        if scale.smooth is not None:
            matrix = matrix * scale.smooth[:, None]
        q, column_scale = quantize_columns(matrix)
        inputs = [x8, b.constant(q, f"{name}.weight{QUANTIZED}"), b.constant(np.float32(scale.scale))]
        inputs += [b.constant(column_scale, f"{name}.weight{SCALE}"), b.constant(np.uint8(scale.zero_point))]
        if bias:
            inputs += ["", self._named(f"{name}.bias")]
        return b.node("MatMulIntegerToFloat", *inputs, domain=_MS)

    def _activation(self, x: str, bias: str) -> str:
        b, activation = self._builder, self._config.activation
        if activation == "relu":
            return b.node("Relu", b.node("Add", x, bias))
        return b.node({"gelu": "BiasGelu", "gelu_tanh": "FastGelu"}[activation], x, bias, domain=_MS)

    def _add_and_norm(self, x: str, residual: str, name: str, bias: str) -> str:
        inputs = (x, residual, *self._layer_norm(name), bias)
        return self._builder.node("SkipLayerNormalization", *inputs, domain=_MS, epsilon=self._epsilon)

    def _expose_as(self, x: str, name: str) -> None:
        if self._expose:
            self.exposed.append(self._builder.node("Identity", x, output=name))

    def _weight(self, name: str) -> FloatArray:
        return np.asarray(self._weights[name], dtype=np.float32)

    def _linear(self, name: str) -> tuple[FloatArray, FloatArray]:
        return self._weight(f"{name}.weight").T, self._weight(f"{name}.bias")

    def _named(self, name: str) -> str:
        return self._builder.constant(self._weight(name), name)

    def _layer_norm(self, name: str) -> tuple[str, str]:
        return self._named(f"{name}.weight"), self._named(f"{name}.bias")


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
    encoder = _Encoder(b, weights, layout.config, scales, adapter, expose=expose)
    _sentence_head(b, encoder.write(), layout)

    helper, proto = b.onnx.helper, b.onnx.TensorProto
    hidden = layout.config.hidden_size
    outputs = [
        helper.make_tensor_value_info(TOKENS, proto.FLOAT, ["batch", "seq", hidden]),
        helper.make_tensor_value_info(SENTENCE, proto.FLOAT, ["batch", layout.dimension]),
        *(helper.make_tensor_value_info(name, proto.FLOAT, ["batch", "seq", None]) for name in encoder.exposed),
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
