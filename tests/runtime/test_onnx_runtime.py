"""ONNX Runtime is imported with its telemetry switched off, before it can start."""

import os
import subprocess
import sys
from pathlib import Path

import sbert_mini


def test_the_onnx_backend_leaves_no_trace(tmp_path):
    code = """
import os, sys
from sbert_mini import Embedder
assert "onnxruntime" not in sys.modules and "ORT_DISABLE_TELEMETRY" not in os.environ
Embedder("sbert-mini-fast", backend="onnx", threads=1, offline=True).encode(["a cat"])
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert [path for path in tmp_path.rglob("*") if "icrosoft" in path.name or "onnxruntime" in path.name] == []


def test_it_is_imported_in_one_place():
    package = Path(sbert_mini.__file__).parent
    importing = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "import onnxruntime\n" in path.read_text("utf-8")
    }
    assert importing == {"runtime/onnx_runtime.py"}
