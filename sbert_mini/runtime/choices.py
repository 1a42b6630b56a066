"""The choices of an encode call, each list once. Imports nothing heavy, so that a command line starts fast."""

from typing import Literal, TypeAlias, get_args

Backend: TypeAlias = Literal[
    "native", "portable", "avx2", "avx_vnni", "avx512_vnni", "amx_int8", "neon_dotprod", "onnx", "torch"
]
"""What computes. `native` is the fastest that the processor has of the six after it. `torch` computes with float weights."""
Precision: TypeAlias = Literal["float32", "int8", "uint8", "binary", "ubinary"]
"""The values of a vector: 32, 8 or 1 bits a component."""
Truncation: TypeAlias = Literal["warn", "error", "chunk"]
"""What happens to a text that is longer than the model reads: cut with a warning, refused, or split into pieces."""
LongTexts: TypeAlias = Literal["warn", "error", "chunk", "passages"]
"""What happens to such a text in an index: one of the above, or it is split into passages, each with a vector of its own."""

BACKENDS: tuple[Backend, ...] = get_args(Backend)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
TRUNCATIONS: tuple[Truncation, ...] = get_args(Truncation)
LONG_TEXTS: tuple[LongTexts, ...] = get_args(LongTexts)
