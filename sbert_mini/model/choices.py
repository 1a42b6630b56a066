"""The choices of a model, each list once. Imports nothing heavy, so that a command line starts fast."""

from typing import Literal, TypeAlias, get_args

Graph: TypeAlias = Literal["int8", "fp32"]
"""The graphs of the torch-free runtime."""
PoolingMode: TypeAlias = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean"]
HeadStructure: TypeAlias = Literal["single", "siamese", "pair", "pair+siamese"]
HeadKind: TypeAlias = Literal["classification", "regression", "similarity"]

GRAPHS: tuple[Graph, ...] = get_args(Graph)
POOLING_MODES: tuple[PoolingMode, ...] = get_args(PoolingMode)
"""In the order in which sentence-transformers concatenates them."""
HEAD_STRUCTURES: tuple[HeadStructure, ...] = get_args(HeadStructure)
JOINED: tuple[HeadStructure, ...] = ("pair", "pair+siamese")
"""Structures that read two texts as one input, `[CLS] a [SEP] b [SEP]`."""
HEAD_KINDS: tuple[HeadKind, ...] = get_args(HeadKind)
