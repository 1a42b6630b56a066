"""Which of two engines is faster on this machine: timed once, for 50 ms, and kept in the cache.

Nobody has timed some levels of native code beside ONNX Runtime. There the first use of a model tries both. The cache has a file a
kind of model, `trials/<digest>`, with one word. A file that holds anything else is as good as none.
"""

import platform
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sbert_mini.errors import SbertMiniError, UsageError
from sbert_mini.files.durable import write_durably
from sbert_mini.model.layout import BertConfig
from sbert_mini.model.registry import cache_dir
from sbert_mini.runtime.fingerprint import sha256_of
from sbert_mini.text.tokens import Tokens
from sbert_mini.version import __version__

if TYPE_CHECKING:
    from sbert_mini.runtime.engine import Engine

Winner = Literal["native", "onnx"]
UNTIMED = ("portable", "neon_dotprod")
"""Levels that are not known to be faster than ONNX Runtime."""
TRIAL_S = 0.05
_LENGTHS = (8, 16, 24, 32)
"""Tokens of the texts that are tried."""


def faster_of(native: "Engine", open_onnx: Callable[[], "Engine"], config: BertConfig) -> "Engine":
    """Return the faster of two engines on this machine; from the cache, if it was tried before.

    Args:
        native: an engine of native code, with a `level`.
        open_onnx: opens the other one.
        config: the model's sizes.
    """
    level = str(getattr(native, "level", ""))
    winner = recorded(level, config)
    if winner is not None:
        return native if winner == "native" else open_onnx()
    try:
        engines: dict[Winner, Engine] = {"native": native, "onnx": open_onnx()}
    except SbertMiniError:  # it cannot be used here
        return native
    batch = [
        Tokens([i % config.vocab_size for i in range(n)], [0] * n, False)
        for n in (min(n, config.max_position_embeddings) for n in _LENGTHS)
    ]
    winner = faster({name: lambda e=engine: e.run(batch) for name, engine in engines.items()})  # type: ignore[misc]
    with suppress(OSError, UsageError):  # without a cache it is tried again
        file = _file(level, config)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_durably(file, winner.encode())
    return engines[winner]


def faster(
    runs: Mapping[Winner, Callable[[], object]],
    clock: Callable[[], float] = time.perf_counter,
    limit_s: float = TRIAL_S,
) -> Winner:
    """Return the name of what takes the least time: the fastest of at least two runs each, in turns, for `limit_s` in all."""
    for run in runs.values():  # once untimed: the first run takes memory
        run()
    fastest: dict[Winner, float] = {}
    start, rounds = clock(), 0
    while rounds < 2 or clock() - start < limit_s:
        for name, run in runs.items():
            begin = clock()
            run()
            fastest[name] = min(clock() - begin, fastest.get(name, float("inf")))
        rounds += 1
    return min(fastest, key=lambda name: fastest[name])


def recorded(level: str, config: BertConfig) -> Winner | None:
    """Return the winner of an earlier trial of such a model on this machine; None where there was none."""
    try:
        word = _file(level, config).read_bytes()[:20]
    except (OSError, UsageError):
        return None
    return "native" if word == b"native" else "onnx" if word == b"onnx" else None


def _file(level: str, config: BertConfig) -> Path:
    """Return where the cache has the winner for a machine, the versions of both engines, a level and a model's sizes."""
    try:
        other = version("onnxruntime")
    except PackageNotFoundError:
        other = ""
    sizes = (config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.num_attention_heads)
    parts = (platform.machine(), platform.node(), __version__, other, level, *sizes)
    return cache_dir() / "trials" / sha256_of(*(str(part).encode() for part in parts))[:32]
