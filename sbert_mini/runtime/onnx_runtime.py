"""The only import of ONNX Runtime, an extra. Since 1.32 it sends telemetry unless that is switched off before the import."""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from sbert_mini.errors import MissingExtraError


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
