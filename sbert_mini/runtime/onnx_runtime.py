"""The one place where ONNX Runtime is imported: from 1.32 on it sends telemetry unless it is told not to before that."""

import os
from typing import Any


def import_onnxruntime() -> Any:
    """Return the module `onnxruntime`, its telemetry switched off where the environment does not say otherwise."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime
