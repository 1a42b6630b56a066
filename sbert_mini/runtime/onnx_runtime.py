"""The only import of ONNX Runtime. Since 1.32 it sends telemetry unless that is switched off before the import."""

import os
from typing import Any


def import_onnxruntime() -> Any:
    """Return the module `onnxruntime`, its telemetry switched off where the environment does not say otherwise."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime
