"""The only import of ONNX Runtime. Since 1.32 it sends telemetry unless that is switched off before the import."""

import os
from importlib import import_module
from typing import Any


def import_onnxruntime(module: str = "onnxruntime") -> Any:
    """Return a module of ONNX Runtime, its telemetry switched off where the environment does not say otherwise."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return import_module(module)
