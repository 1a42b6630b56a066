"""The int8 graph computed by code of our own (`sbert_mini/native`), for processors with AVX-512 VNNI, or AMX beside it.

It reads the constants of the same file and multiplies with the same scales as ONNX Runtime does, so the vectors of the two are
as near to the float32 ones, and nearly the same (mean cosine above 0.9995). It is faster because what lies between two products
stays in the processor's cache, and nothing is padded. What it does not know is left to ONNX Runtime (`engine.open_engine`).
What it computes with is in its own memory: the file may be replaced or truncated while a model is open.
"""

import ctypes
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from sbert_mini.errors import CorruptModelError, UnsupportedModelError
from sbert_mini.model.choices import Graph
from sbert_mini.model.int8_weights import PRODUCTS
from sbert_mini.model.layout import QUANTIZED, SCALE, SMOOTH, BertConfig, ModelLayout, SizesDifferError
from sbert_mini.model.onnx_file import OnnxFile
from sbert_mini.native.library import NO_MEMORY, Array, Signatures, load
from sbert_mini.runtime.graph import WORDS
from sbert_mini.runtime.graphs import ConvertedModel, start_check
from sbert_mini.shapes import AnyArray, FloatArray
from sbert_mini.text.tokens import TokenBatch, Tokens

LEVELS = ("none", "avx512_vnni", "amx_int8")
"""What the processor can do, by the number that `sbmini_level` gives."""
GREATEST_ID = 2**31 - 1
LARGEST = 32_768
"""Of a size: sums of so many products of bytes stay within 32 bits."""
TOKENS = 512
"""Tokens of a batch."""
NORMS = ("attention.output.LayerNorm", "output.LayerNorm")


_INT, _FLOAT, _MODEL = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
_SIGNATURES: Signatures = {
    "sbmini_level": (_INT, []),
    "sbmini_error": (ctypes.c_char_p, [_INT]),
    "sbmini_open": (_INT, [*[_INT] * 7, _FLOAT, *[Array] * 6, ctypes.POINTER(_MODEL)]),
    "sbmini_close": (None, [_MODEL]),
    "sbmini_set_product": (_INT, [_MODEL, *[_INT] * 4, *[Array] * 3, _FLOAT, _INT, Array]),
    "sbmini_set_norm": (_INT, [_MODEL, _INT, _INT, Array, Array]),
    "sbmini_encode": (_INT, [_MODEL, _INT, *[Array] * 4]),
}
"""Each function of the library: what it returns, and its arguments."""


@cache
def library() -> Any | None:
    """Return the compiled library, or None where it was not compiled."""
    return load(_SIGNATURES)


def level() -> int:
    """Return the best of `LEVELS` that can be had here, by its number."""
    loaded = library()
    return int(loaded.sbmini_level()) if loaded is not None else 0


def why_not(layout: ModelLayout, graph: Graph = "int8") -> str | None:
    """Return why this model is not computed by native code here, or None where it can be."""
    config = layout.config
    if library() is None:
        return "it was not compiled when sbert-mini was installed"
    if level() == 0:
        return "this processor has no AVX-512 VNNI"
    if graph != "int8":
        return "it computes int8 graphs alone"
    if config.activation != "gelu":
        return f"it does not know the activation {config.activation}"
    if tuple(layout.pooling) != ("mean",) or layout.dense:
        return "it knows no other pooling than the mean of all tokens, and no layers after it"
    sizes = (config.hidden_size, config.intermediate_size, config.hidden_size // config.num_attention_heads)
    if max(sizes) > LARGEST:
        return f"no size may be above {LARGEST}"
    if sizes[0] % 64 or sizes[1] % 64 or sizes[2] % 32:
        return "hidden sizes must be multiples of 64, and those of heads of 32"
    return None


class NativeEngine:
    """An int8 graph, opened by native code. Several threads may call `run` at the same time; each computes in its own thread.

    Args:
        converted: the graph on disk, for which `why_not` gives None.
        wanted: one of `LEVELS` by its number, at most `level()`; None for that.

    Raises:
        CorruptModelError: the file does not match its checksum, or has other sizes than `config.json` gives.
        UnsupportedModelError: it is not a graph that this version wrote.
        ValueError: `wanted` is more than this processor has.
    """

    def __init__(self, converted: ConvertedModel, wanted: int | None = None) -> None:
        if wanted is not None and not 1 <= wanted <= level():
            raise ValueError(f"this processor has no {LEVELS[wanted]}")
        self._library: Any = library()
        self._file = converted.file
        self._level = level() if wanted is None else wanted
        self._dimension = converted.layout.config.hidden_size
        self._model: int | None = None
        self.tokens_per_batch = TOKENS
        finish_check = start_check(converted)  # beside the packing
        failure: Exception | None = None
        try:
            with OnnxFile(converted.file) as graph:
                self._open(graph, converted.layout.config)
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
        return f"NativeEngine({str(self._file)!r}, level={LEVELS[self._level]!r})"

    @property
    def name(self) -> str:
        """What computes, for people."""
        return f"native, {LEVELS[self._level]}"

    def __del__(self) -> None:
        if getattr(self, "_model", None) is not None:
            self._library.sbmini_close(self._model)

    def run(self, tokens: Sequence[Tokens]) -> FloatArray:
        """Return the sentence vectors of a batch, (batch, dim), each of length 1."""
        batch = TokenBatch.of(tokens)
        if batch.ids.dtype != np.int32 and np.abs(batch.ids).max(initial=0) > GREATEST_ID:
            raise _unknown_tokens(f"an id is above {GREATEST_ID:,}")
        ids, types, offsets = (a.astype(np.int32, copy=False) for a in (batch.ids, batch.type_ids, batch.offsets))
        vectors = np.empty((len(tokens), self._dimension), np.float32)
        arrays = map(Array.of, (ids, types, offsets, vectors))
        status = self._library.sbmini_encode(self._model, self._level, *arrays)
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

    def _open(self, graph: OnnxFile, config: BertConfig) -> None:
        """Check all sizes, then read the constants one by one: the library packs the weights into memory of its own."""
        config.check_constants({name: constant.shape for name, constant in graph.constants.items()})
        hidden = config.hidden_size
        self._words = _read(
            graph, f"{WORDS}{QUANTIZED}", np.int8, config.vocab_size, hidden
        )  # not copied by the library
        embeddings = (
            _floats(graph, f"{WORDS}{SCALE}", config.vocab_size, 1),
            _floats(graph, "embeddings.token_type_embeddings.weight", config.type_vocab_size, hidden),
            _floats(graph, "embeddings.position_embeddings.weight", config.max_position_embeddings, hidden),
            _floats(graph, "embeddings.LayerNorm.weight", hidden),
            _floats(graph, "embeddings.LayerNorm.bias", hidden),
        )
        model = ctypes.c_void_p()
        status = self._library.sbmini_open(
            config.num_hidden_layers,
            hidden,
            config.intermediate_size,
            config.num_attention_heads,
            config.vocab_size,
            config.max_position_embeddings,
            config.type_vocab_size,
            config.layer_norm_eps,
            *map(Array.of, (self._words, *embeddings)),
            ctypes.byref(model),
        )
        self._model = model.value
        self._check(status)
        products = {node.inputs[1]: node.inputs for node in graph.nodes if node.kind == "MatMulIntegerToFloat"}
        for layer in range(config.num_hidden_layers):
            self._set_products(graph, products, layer, config)
            for which, name in enumerate(NORMS):
                norm = (_floats(graph, f"encoder.layer.{layer}.{name}.{part}", hidden) for part in ("weight", "bias"))
                weight, bias = norm
                self._check(self._library.sbmini_set_norm(self._model, layer, which, Array.of(weight), Array.of(bias)))

    def _set_products(
        self, graph: OnnxFile, products: Mapping[str, Sequence[str]], layer: int, config: BertConfig
    ) -> None:
        hidden, wide = config.hidden_size, config.intermediate_size
        sizes = {  # in the order of encoder.h
            "qkv": (hidden, hidden),
            "attention": (hidden, hidden),
            "wide": (hidden, wide),
            "narrow": (wide, hidden),
        }
        for number, (kind, (rows, columns)) in enumerate(sizes.items()):
            names = [f"encoder.layer.{layer}.{name}" for name, product in PRODUCTS.items() if product == kind]
            weights = [_read(graph, f"{name}.weight{QUANTIZED}", np.int8, rows, columns) for name in names]
            weight = weights[0] if len(weights) == 1 else np.concatenate(weights, axis=1)
            scales = np.concatenate([_floats(graph, f"{name}.weight{SCALE}", columns) for name in names])
            bias = np.concatenate([_floats(graph, f"{name}.bias", columns) for name in names])
            inputs = products[f"{names[0]}.weight{QUANTIZED}"]
            scale, zero_point = float(_floats(graph, inputs[2])), int(_read(graph, inputs[4], np.uint8))
            smooth = f"{layer}.{kind}{SMOOTH}"
            with np.errstate(all="ignore"):  # of a damaged scale: its vectors are wrong
                factor = np.full(rows, 1 / scale, np.float32)
                if smooth in graph.constants:
                    factor = (_floats(graph, smooth, rows) / np.float32(scale)).astype(np.float32)
            status = self._library.sbmini_set_product(
                self._model,
                layer,
                number,
                rows,
                weight.shape[1],
                *map(Array.of, (weight, scales, bias)),
                scale,
                zero_point,
                Array.of(factor),
            )
            self._check(status)


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
