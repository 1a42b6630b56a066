"""The int8 graph computed by code of our own (`sbert_mini/native`), for processors with AVX-512 VNNI, or AMX beside it.

It reads the constants of the same file and multiplies with the same scales as ONNX Runtime does, so the vectors of the two are
as near to the float32 ones, and nearly the same (mean cosine above 0.9995). It is faster because what lies between two products
stays in the processor's cache, and nothing is padded. What it does not know is left to ONNX Runtime (`engine.open_engine`).
The word embeddings stay mapped: whoever replaces the file must rename another one into its place, as this package does.
"""

import ctypes
import importlib.machinery
import itertools
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.errors import CorruptModelError, UnsupportedModelError
from sbert_mini.model.choices import Graph
from sbert_mini.model.int8_weights import PRODUCTS, QUANTIZED, SCALE, SMOOTH
from sbert_mini.model.layout import BertConfig, ModelLayout
from sbert_mini.model.onnx_file import OnnxFile, read_onnx
from sbert_mini.runtime.graph import WORDS
from sbert_mini.runtime.graphs import ConvertedModel, start_check
from sbert_mini.shapes import AnyArray, FloatArray
from sbert_mini.text.tokenizer import Tokens

LEVELS = ("none", "avx512_vnni", "amx_int8")
"""What the processor can do, by the number that `sbmini_level` gives."""
NO_MEMORY = 1
LARGEST = 32_768
"""Of a size: sums of so many products of bytes stay within 32 bits."""
TOKENS = 512
"""Tokens of a batch."""
_LAYER = re.compile(r"encoder\.layer\.([0-9]{1,9})\.intermediate\.dense\.bias")
NORMS = ("attention.output.LayerNorm", "output.LayerNorm")


@cache
def library() -> Any | None:
    """Return the compiled library, or None where it was not compiled."""
    folder = Path(__file__).parents[1] / "native"
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        file = folder / f"_encoder{suffix}"
        if file.is_file():
            try:
                found = ctypes.CDLL(str(file))
            except OSError:
                return None
            number, real, pointer = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
            found.sbmini_level.argtypes, found.sbmini_level.restype = [], number
            found.sbmini_open.argtypes = [*[number] * 7, real, *[pointer] * 6]
            found.sbmini_open.restype = pointer
            found.sbmini_close.argtypes, found.sbmini_close.restype = [pointer], None
            found.sbmini_set_product.argtypes = [
                *(pointer, number, number, number, number),
                *(pointer, pointer, pointer, real, number, pointer),
            ]
            found.sbmini_set_norm.argtypes = [pointer, number, number, pointer, pointer]
            found.sbmini_encode.argtypes = [pointer, number, pointer, pointer, pointer, number, pointer]
            for function in (found.sbmini_set_product, found.sbmini_set_norm, found.sbmini_encode):
                function.restype = number
            return found
    return None


def level() -> int:
    """Return the best of `LEVELS` that can be had here, by its number."""
    found = library()
    return int(found.sbmini_level()) if found is not None else 0


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
            self._open(read_onnx(converted.file), converted.layout.config)
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
        lengths = [len(t.ids) for t in tokens]
        offsets = np.zeros(len(tokens) + 1, np.int32)
        np.cumsum(lengths, out=offsets[1:])
        ids = np.fromiter(itertools.chain.from_iterable(t.ids for t in tokens), np.int32, int(offsets[-1]))
        types = np.fromiter(itertools.chain.from_iterable(t.type_ids for t in tokens), np.int32, int(offsets[-1]))
        vectors = np.empty((len(tokens), self._dimension), np.float32)
        status = self._library.sbmini_encode(
            self._model,
            self._level,
            _address(ids),
            _address(types),
            _address(offsets),
            len(tokens),
            _address(vectors),
        )
        if status == NO_MEMORY:
            raise MemoryError(f"no memory for a batch of {offsets[-1]} tokens")
        if status:
            raise CorruptModelError(
                "a batch holds an id, a segment or a length that the model does not have: its tokenizer and its weights do not "
                "belong together"
            )
        return vectors

    def _open(self, graph: OnnxFile, config: BertConfig) -> None:
        hidden, wide = config.hidden_size, config.intermediate_size
        constants = graph.constants
        check_constants(constants, config)

        def floats(name: str, *shape: int) -> FloatArray:
            return _expect(constants[name], name, np.float32, shape)

        words = constants[f"{WORDS}{QUANTIZED}"]
        self._words = _expect(
            words, WORDS, np.int8, (config.vocab_size, hidden)
        )  # native code reads it as long as it lives
        embeddings = (
            floats(f"{WORDS}{SCALE}", config.vocab_size, 1),
            floats("embeddings.token_type_embeddings.weight", config.type_vocab_size, hidden),
            floats("embeddings.position_embeddings.weight", config.max_position_embeddings, hidden),
            floats("embeddings.LayerNorm.weight", hidden),
            floats("embeddings.LayerNorm.bias", hidden),
        )
        self._model = self._library.sbmini_open(
            config.num_hidden_layers,
            hidden,
            wide,
            config.num_attention_heads,
            config.vocab_size,
            config.max_position_embeddings,
            config.type_vocab_size,
            config.layer_norm_eps,
            _address(self._words),
            *map(_address, embeddings),
        )
        if self._model is None:
            raise MemoryError("no memory for the model")
        model = self._model
        products = {node.inputs[1]: node for node in graph.nodes if node.kind == "MatMulIntegerToFloat"}
        sizes = {  # in the order of encoder.h
            "qkv": (hidden, hidden),
            "attention": (hidden, hidden),
            "wide": (hidden, wide),
            "narrow": (wide, hidden),
        }
        status = 0
        for layer in range(config.num_hidden_layers):
            prefix = f"encoder.layer.{layer}."
            for number, (kind, (rows, columns)) in enumerate(sizes.items()):
                names = [prefix + name for name, product in PRODUCTS.items() if product == kind]
                parts = [_expect(constants[f"{n}.weight{QUANTIZED}"], n, np.int8, (rows, columns)) for n in names]
                weight = np.ascontiguousarray(np.concatenate(parts, axis=1))
                scales = np.concatenate([floats(f"{name}.weight{SCALE}", columns) for name in names])
                bias = np.concatenate([floats(f"{name}.bias", columns) for name in names])
                inputs = products[f"{names[0]}.weight{QUANTIZED}"].inputs
                scale, zero_point = float(constants[inputs[2]]), int(constants[inputs[4]])
                smooth = f"{layer}.{kind}{SMOOTH}"
                factor = np.full(rows, 1 / scale, np.float32)
                if smooth in constants:
                    factor = (floats(smooth, rows) / np.float32(scale)).astype(np.float32)
                status = status or self._library.sbmini_set_product(
                    model,
                    layer,
                    number,
                    rows,
                    weight.shape[1],
                    _address(weight),
                    _address(scales),
                    _address(bias),
                    scale,
                    zero_point,
                    _address(factor),
                )
            for which, name in enumerate(NORMS):
                norm = floats(f"{prefix}{name}.weight", hidden), floats(f"{prefix}{name}.bias", hidden)
                status = status or self._library.sbmini_set_norm(model, layer, which, *map(_address, norm))
        if status == NO_MEMORY:
            raise MemoryError("no memory for the model")
        if status:
            raise ValueError("a size is outside the range that native code computes")


def check_constants(constants: Mapping[str, AnyArray], config: BertConfig) -> None:
    """Make sure that a graph's constants have the sizes that `config.json` gives, as far as they have names.

    Raises:
        SizesDifferError: they have not.
    """
    vocabulary, hidden, wide = config.vocab_size, config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        WORDS: (vocabulary, hidden),
        f"{WORDS}{QUANTIZED}": (vocabulary, hidden),
        "embeddings.token_type_embeddings.weight": (config.type_vocab_size, hidden),
        "embeddings.position_embeddings.weight": (config.max_position_embeddings, hidden),
    }
    layers = {int(match[1]) for name in constants if (match := _LAYER.fullmatch(name))}
    if layers and layers != set(range(config.num_hidden_layers)):
        raise SizesDifferError(
            f"config.json gives {config.num_hidden_layers} layers (num_hidden_layers), and its graph has {len(layers)}"
        )
    shapes |= {f"encoder.layer.{layer}.intermediate.dense.bias": (wide,) for layer in layers}
    for name, shape in shapes.items():
        if name in constants and constants[name].shape != shape:
            raise SizesDifferError(
                f"config.json asks for {name} of the shape {shape}, and its graph has it in {constants[name].shape}"
            )


class SizesDifferError(CorruptModelError):
    """A graph's constants have other sizes than `config.json` gives."""


def _address(array: AnyArray) -> int:
    return int(array.ctypes.data)


def _expect(array: AnyArray, name: str, dtype: type, shape: tuple[int, ...]) -> AnyArray:
    """Return a constant, in memory that C can read; a ValueError where it is another one than the model needs."""
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, not {np.dtype(dtype)} of {shape}")
    return np.require(array, dtype, ["C", "A"])
