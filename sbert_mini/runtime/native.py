"""The int8 graph computed by code of our own (`sbert_mini/native`), on every processor that a C++ compiler knows.

It reads the constants of the same file and multiplies with the same scales as ONNX Runtime does, so the vectors of the two are
as near to the float32 ones, and nearly the same (mean cosine above 0.999). It is faster because what lies between two products
stays in the processor's cache, and nothing is padded. Its own vectors are the same on every processor, to the last bit. What it
does not know is left to ONNX Runtime (`engine.open_engine`).
What it computes with is in its own memory: the file may be replaced or truncated while a model is open.
"""

import ctypes
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sbert_mini.errors import CorruptModelError, UnsupportedModelError
from sbert_mini.model.choices import POOLING_MODES, Graph
from sbert_mini.model.int8_weights import PRODUCTS
from sbert_mini.model.layout import QUANTIZED, SCALE, SMOOTH, BertConfig, ModelLayout, SizesDifferError
from sbert_mini.model.onnx_file import OnnxFile
from sbert_mini.native.library import NO_MEMORY, Array
from sbert_mini.runtime.graph import WORDS
from sbert_mini.runtime.graphs import ConvertedModel, start_check
from sbert_mini.runtime.native_library import LEVELS, NOTHING, levels, library
from sbert_mini.shapes import AnyArray, FloatArray
from sbert_mini.text.tokens import TokenBatch, Tokens

GREATEST_ID = 2**31 - 1
LARGEST = 32_768
"""Of a size: sums of so many products of bytes stay within 32 bits."""
MOST_PARTS = 8
"""Poolings, and projections after them."""
TOKENS = 512
"""Tokens of a batch."""
MOST_THREADS = 16
"""That compute a batch together."""
ALONE = 100
"""Batches that one thread computes after threads had to wait for each other: other programs use the processors."""
_WAITS, _STARTS_S = 1.5, 0.0005
"""Threads waited where a batch took longer than so many times its processor seconds, and the time that threads need to start."""
NORMS = ("attention.output.LayerNorm", "output.LayerNorm")
ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "tanh", "identity")
"""By their numbers in native code."""
_BLOCK, _HEAD_BLOCK, _LANES = 64, 32, 16
"""To what multiples rows, heads and the rows of projections are padded with zeros (encoder.h)."""


def why_not(layout: ModelLayout, graph: Graph = "int8") -> str | None:
    """Return why this model is not computed by native code here, or None where it can be."""
    config = layout.config
    if library() is None:
        return "it was not compiled when sbert-mini was installed"
    if graph != "int8":
        return "it computes int8 graphs alone"
    heads = config.num_attention_heads * _padded_size(config.head_dim, _HEAD_BLOCK)
    projections = [layer.out_features for layer in layout.dense]
    if max(config.hidden_size, config.intermediate_size, heads, *projections, 0) > LARGEST:
        return f"no size may be above {LARGEST}"
    if len(layout.pooling) > MOST_PARTS or len(projections) > MOST_PARTS:
        return f"a model may have {MOST_PARTS} poolings and {MOST_PARTS} projections at most"
    return None


class NativeEngine:
    """An int8 graph, opened by native code. Several threads may call `run` at the same time; each computes in its own thread.

    Args:
        converted: the graph on disk, for which `why_not` gives None.
        level: one of `native_library.levels()`; None for the fastest.

    Raises:
        CorruptModelError: the file does not match its checksum, or has other sizes than `config.json` gives.
        UnsupportedModelError: it is not a graph that this version wrote.
        ValueError: this processor does not have the level.
    """

    def __init__(self, converted: ConvertedModel, level: str | None = None) -> None:
        available = levels()
        if level is not None and level not in available:
            raise ValueError(f"this processor has no {level}; it has {', '.join(available)}")
        self._library: Any = library()
        self._file = converted.file
        self.level = available[-1] if level is None else level
        self._dimension = converted.layout.dimension
        self._hidden = converted.layout.config.hidden_size
        self._model: int | None = None
        self._batches_alone = 0
        self.tokens_per_batch = TOKENS
        self.divides_batches = True
        finish_check = start_check(converted)  # beside the packing
        failure: Exception | None = None
        try:
            with OnnxFile(converted.file) as graph:
                self._open(graph, converted.layout)
        except MemoryError:
            raise
        except Exception as error:  # whatever damage leads to: the checksum tells
            failure = error
        finish_check()
        if isinstance(failure, SizesDifferError):
            raise CorruptModelError(f"{converted.file}: {failure}") from failure
        if failure is not None:
            raise UnsupportedModelError(
                f"{converted.file} is not a graph that this version wrote: {failure!r}"
            ) from failure

    def __repr__(self) -> str:
        return f"NativeEngine({str(self._file)!r}, level={self.level!r})"

    @property
    def name(self) -> str:
        """What computes, for people."""
        return f"native, {self.level}"

    def __del__(self) -> None:
        if getattr(self, "_model", None) is not None:
            self._library.sbmini_close(self._model)

    def run(self, tokens: Sequence[Tokens], threads: int = 1) -> FloatArray:
        """Return the sentence vectors of a batch, (batch, dim), each of length 1, whatever the threads: the same bits.

        Args:
            tokens: of the texts.
            threads: how many compute the batch together: for one batch alone, because several run side by side with less waiting.
        """
        if threads > 1 and self._batches_alone > 0:
            self._batches_alone -= 1
            threads = 1
        if threads == 1:
            return self._encode(tokens, None)
        began, used = time.perf_counter(), time.thread_time()
        vectors = self._encode(tokens, None, threads)
        if time.perf_counter() - began > _WAITS * (time.thread_time() - used) + _STARTS_S:
            self._batches_alone = ALONE
        return vectors

    def run_tokens(self, tokens: Sequence[Tokens]) -> list[FloatArray]:
        """Return the vectors of each text's tokens, (seq, hidden), as the encoder's last layer gives them."""
        batch = TokenBatch.of(tokens)
        rows = np.empty((len(batch.ids), self._hidden), np.float32)
        self._encode(batch, rows)
        return np.split(rows, batch.offsets[1:-1]) if len(batch) else []

    def _encode(self, tokens: Sequence[Tokens], token_vectors: FloatArray | None, threads: int = 1) -> FloatArray:
        batch = TokenBatch.of(tokens)
        if batch.ids.dtype != np.int32 and np.abs(batch.ids).max(initial=0) > GREATEST_ID:
            raise _unknown_tokens(f"an id is above {GREATEST_ID:,}")
        ids, types, offsets = (a.astype(np.int32, copy=False) for a in (batch.ids, batch.type_ids, batch.offsets))
        vectors = np.empty((len(tokens), self._dimension), np.float32)
        arrays = map(Array.of, (ids, types, offsets, vectors))
        last = NOTHING if token_vectors is None else Array.of(token_vectors)
        options = LEVELS.index(self.level), min(threads, MOST_THREADS)
        status = self._library.sbmini_encode(self._model, *options, *arrays, last)
        if status == NO_MEMORY:
            raise MemoryError(f"no memory for a batch of {offsets[-1]} tokens")
        if status:
            raise _unknown_tokens(self._text(status))
        return vectors

    def _text(self, status: int) -> str:
        return str(self._library.sbmini_error(status), "ascii")

    def _check(self, status: int) -> None:
        if status == NO_MEMORY:
            raise MemoryError("no memory for the model")
        if status:
            raise ValueError(self._text(status))

    def _open(self, graph: OnnxFile, layout: ModelLayout) -> None:
        """Check all sizes, then read the constants one by one: the library packs the weights into memory of its own."""
        config = layout.config
        config.check_constants({name: constant.shape for name, constant in graph.constants.items()})
        hidden, width = config.hidden_size, _padded_size(config.hidden_size, _BLOCK)
        words = _read(graph, f"{WORDS}{QUANTIZED}", np.int8, config.vocab_size, hidden)
        self._words = _padded(words, config.vocab_size, width)  # not copied by the library
        scales = _floats(graph, f"{WORDS}{SCALE}", config.vocab_size, 1)
        rows = [
            _padded(_floats(graph, f"embeddings.{name}.weight", count, hidden), count, width)
            for name, count in (
                ("token_type_embeddings", config.type_vocab_size),
                ("position_embeddings", config.max_position_embeddings),
            )
        ]
        norm = [_padded(_floats(graph, f"embeddings.LayerNorm.{part}", hidden), width) for part in ("weight", "bias")]
        model = ctypes.c_void_p()
        status = self._library.sbmini_open(
            config.num_hidden_layers,
            hidden,
            config.intermediate_size,
            config.num_attention_heads,
            config.vocab_size,
            config.max_position_embeddings,
            config.type_vocab_size,
            ACTIVATIONS.index(config.activation),
            config.layer_norm_eps,
            *map(Array.of, (self._words, scales, *rows, *norm)),
            ctypes.byref(model),
        )
        self._model = model.value
        self._check(status)
        products = {node.inputs[1]: node.inputs for node in graph.nodes if node.kind == "MatMulIntegerToFloat"}
        for layer in range(config.num_hidden_layers):
            self._set_products(graph, products, layer, config)
            for which, name in enumerate(NORMS):
                prefix = f"encoder.layer.{layer}.{name}"
                weight, bias = (
                    _padded(_floats(graph, f"{prefix}.{part}", hidden), width) for part in ("weight", "bias")
                )
                self._check(self._library.sbmini_set_norm(self._model, layer, which, Array.of(weight), Array.of(bias)))
        self._set_head(graph, layout)

    def _set_products(
        self, graph: OnnxFile, products: Mapping[str, Sequence[str]], layer: int, config: BertConfig
    ) -> None:
        for number, (kind, (rows, columns)) in enumerate(_product_sizes(config).items()):
            names = [f"encoder.layer.{layer}.{name}" for name, product in PRODUCTS.items() if product == kind]
            parts = [
                (
                    _read(graph, f"{name}.weight{QUANTIZED}", np.int8, rows, columns),
                    _floats(graph, f"{name}.weight{SCALE}", columns),
                    _floats(graph, f"{name}.bias", columns),
                )
                for name in names
            ]
            weight, scales, bias = (
                _joined([_product_part(array, kind, config, of_weight=i == 0) for array in arrays])
                for i, arrays in enumerate(zip(*parts, strict=True))
            )
            inputs = products[f"{names[0]}.weight{QUANTIZED}"]
            scale, zero_point = float(_floats(graph, inputs[2])), int(_read(graph, inputs[4], np.uint8))
            smooth = f"{layer}.{kind}{SMOOTH}"
            with np.errstate(all="ignore"):  # of a damaged scale: its vectors are wrong
                factor = np.full(rows, 1 / scale, np.float32)
                if smooth in graph.constants:
                    factor = (_floats(graph, smooth, rows) / np.float32(scale)).astype(np.float32)
            factor = _by_heads(factor, 0, config) if kind == "attention" else _padded(factor, len(weight))
            status = self._library.sbmini_set_product(
                self._model,
                layer,
                number,
                *weight.shape,
                *map(Array.of, (weight, scales, bias)),
                scale,
                zero_point,
                Array.of(factor),
            )
            self._check(status)

    def _set_head(self, graph: OnnxFile, layout: ModelLayout) -> None:
        """Hand over the poolings, and the projections after them: the float products of the graph, in its order."""
        poolings = np.array([POOLING_MODES.index(mode) for mode in layout.pooling], np.int32)
        self._check(self._library.sbmini_set_poolings(self._model, Array.of(poolings)))
        products = [node for node in graph.nodes if node.kind == "MatMul" and node.inputs[1] in graph.constants]
        biases = {node.inputs[0]: node.inputs[1] for node in graph.nodes if node.kind == "Add"}
        if len(products) != len(layout.dense):
            raise ValueError(f"{len(products)} projections, not {len(layout.dense)}")
        for node, layer in zip(products, layout.dense, strict=True):
            rows, columns = layer.in_features, layer.out_features
            weight = np.ascontiguousarray(_floats(graph, node.inputs[1], rows, columns).T)
            bias = _floats(graph, biases[node.outputs[0]], columns) if layer.bias else np.zeros(columns, np.float32)
            weight = _padded(weight, columns, _padded_size(rows, _LANES))
            bias = _padded(bias, _padded_size(columns, _LANES))
            arrays, activation = map(Array.of, (weight, bias)), ACTIVATIONS.index(layer.activation)
            self._check(self._library.sbmini_add_projection(self._model, rows, columns, *arrays, activation))


def _product_sizes(config: BertConfig) -> dict[str, tuple[int, int]]:
    """Return the rows and columns of each product's matrices, in the order of encoder.h."""
    hidden, wide = config.hidden_size, config.intermediate_size
    return {"qkv": (hidden, hidden), "attention": (hidden, hidden), "wide": (hidden, wide), "narrow": (wide, hidden)}


def _product_part(array: AnyArray, kind: str, config: BertConfig, *, of_weight: bool) -> AnyArray:
    """Return a matrix of a product, or what belongs to its columns, padded as native code reads it."""
    columns = array.shape[-1]
    if kind == "qkv":
        array = _by_heads(array, array.ndim - 1, config)
    else:
        array = _padded(array, *array.shape[:-1], _padded_size(columns, _BLOCK))
    if not of_weight:
        return array
    if kind == "attention":
        return _by_heads(array, 0, config)
    return _padded(array, _padded_size(len(array), _BLOCK), array.shape[1])


def _joined(arrays: Sequence[AnyArray]) -> AnyArray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)


def _by_heads(array: AnyArray, axis: int, config: BertConfig) -> AnyArray:
    """Return an array whose axis holds all heads' components, with each head's and then the whole axis padded with zeros."""
    heads, depth = config.num_attention_heads, _padded_size(config.head_dim, _HEAD_BLOCK)
    before, after = array.shape[:axis], array.shape[axis + 1 :]
    split = array.reshape(*before, heads, config.head_dim, *after)
    merged = _padded(split, *before, heads, depth, *after).reshape(*before, heads * depth, *after)
    return _padded(merged, *before, _padded_size(heads * depth, _BLOCK), *after)


def _padded_size(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _padded(array: AnyArray, *shape: int) -> AnyArray:
    """Return an array of a shape that is not smaller, with zeros behind what there is; itself where it has the shape."""
    if array.shape == shape:
        return array
    larger = np.zeros(shape, array.dtype)
    larger[tuple(map(slice, array.shape))] = array
    return larger


def _unknown_tokens(reason: str) -> CorruptModelError:
    return CorruptModelError(
        "a batch holds an id, a segment or a length that the model does not have: its tokenizer and its weights do not "
        f"belong together ({reason})"
    )


def _floats(graph: OnnxFile, name: str, *shape: int) -> FloatArray:
    return _read(graph, name, np.float32, *shape)


def _read(graph: OnnxFile, name: str, dtype: type, *shape: int) -> AnyArray:
    """Return a constant; a ValueError where it is another one than the model needs. Its size is checked before it is read."""
    constant = graph.constants[name]
    if constant.dtype != dtype or constant.shape != shape:
        raise ValueError(f"{name} is {constant.dtype} of shape {constant.shape}, not {np.dtype(dtype)} of {shape}")
    return graph.read(name)
