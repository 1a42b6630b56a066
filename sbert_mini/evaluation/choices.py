"""The choices of a measurement, each list once. Imports nothing heavy, so that a command line starts fast."""

from typing import Literal, TypeAlias, get_args

Pooling: TypeAlias = Literal["all", "mean", "wmean"]
"""How the subsets of a set become one figure; see `sts`."""
OwnRuntime: TypeAlias = Literal["int8", "fp32", "torch"]
"""What runs one of our models; see `contestants`."""
PEER_RUNTIME: Literal["sentence-transformers"] = "sentence-transformers"
"""What runs a peer."""
PEER_MODEL = "all-MiniLM-L6-v2"
"""The model of sentence-transformers that our models are compared with."""

POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
OWN_RUNTIMES: tuple[OwnRuntime, ...] = get_args(OwnRuntime)
