"""The only import of ONNX Runtime, an extra: without telemetry, and with a limit of the memory that its operators take.

Since 1.32 it sends telemetry unless that is switched off before the import. A graph may come from anybody, and a small file can
ask for a large product: one arena of a limited size serves all sessions of a process.
"""

import os
import threading
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from sbert_mini.errors import MissingExtraError

_arena_lock = threading.Lock()


def has_onnxruntime() -> bool:
    """Return whether ONNX Runtime is installed."""
    return find_spec("onnxruntime") is not None


def import_onnxruntime(what: str, module: str = "onnxruntime") -> Any:
    """Return a module of ONNX Runtime, its telemetry switched off where the environment does not say otherwise.

    Raises:
        MissingExtraError: it is not installed; `what`, a noun phrase, needs it.
    """
    if not has_onnxruntime():
        raise MissingExtraError(what, "onnxruntime", "onnx")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return import_module(module)


def arena_bytes() -> int:
    """Return the most memory that the operators of all sessions take at a time.

    512 MiB, and 64 MiB a processor for as many batches at once: a batch of 512 tokens of a BERT of 24 layers takes 40 MB.
    """
    return (512 + 64 * (os.cpu_count() or 1)) << 20


def session_options(onnxruntime: Any) -> Any:
    """Return options of a session whose operators share one arena of `arena_bytes`; weights lie outside of it.

    Args:
        onnxruntime: the module, as `import_onnxruntime` returns it.
    """
    with _arena_lock:
        _register_arena(onnxruntime)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    return options


@cache
def _register_arena(onnxruntime: Any) -> None:
    cpu = (onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT)
    limits = {"max_mem": arena_bytes(), "arena_extend_strategy": 0}
    limits |= {"initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
    onnxruntime.create_and_register_allocator(onnxruntime.OrtMemoryInfo("Cpu", *cpu), onnxruntime.OrtArenaCfg(limits))
