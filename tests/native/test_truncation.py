"""A graph that is truncated or rewritten in place under a running process: no signal, and the same vectors."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from sbert_mini.errors import CorruptModelError
from sbert_mini.model.onnx_file import OnnxFile
from sbert_mini.model.registry import resolve

CHILD = """
import os, sys
import numpy as np
from sbert_mini import Embedder
model, backend, how = sys.argv[1:]
file = model + "/onnx/model_int8.onnx"
texts = [f"word {i} and a kernel of wheat that rises {'again ' * i}" for i in range(50)]
embedder = Embedder(model, backend=backend, offline=True, threads=2)
if how == "empty":
    os.truncate(file, 0)
elif how == "half":
    os.truncate(file, os.path.getsize(file) // 2)
else:
    with open(file, "r+b") as stream:
        stream.write(bytes(os.path.getsize(file)))
np.save(model + "/vectors.npy", embedder.encode(texts))
"""


@pytest.mark.parametrize("how", ["empty", "half", "zeros"])
@pytest.mark.parametrize("backend", ["native", "onnx"])
def test_encoding_goes_on_with_the_same_vectors(tmp_path, backend, how):
    from sbert_mini import Embedder
    from sbert_mini.runtime.native_library import levels

    if backend == "native" and not levels():
        pytest.skip("no native code: not compiled")
    model = shutil.copytree(resolve("sbert-mini-fast"), tmp_path / "model")
    texts = [f"word {i} and a kernel of wheat that rises {'again ' * i}" for i in range(50)]
    expected = Embedder("sbert-mini-fast", backend=backend, threads=2).encode(texts)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(model), backend, how], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    np.testing.assert_array_equal(np.load(model / "vectors.npy"), expected)


def test_a_file_that_is_truncated_while_it_is_read_is_refused(tmp_path):
    file = shutil.copy(resolve("sbert-mini-fast") / "onnx" / "model_int8.onnx", tmp_path)
    graph = OnnxFile(file)
    os.truncate(file, 1000)
    with pytest.raises(CorruptModelError, match="truncated while it was read"):
        graph.read("encoder.layer.3.output.LayerNorm.bias")


def test_a_file_that_is_changed_while_it_is_read_is_refused(tmp_path):
    file = shutil.copy(resolve("sbert-mini-fast") / "onnx" / "model_int8.onnx", tmp_path)
    graph = OnnxFile(file)
    os.utime(file, ns=(0, 0))
    with pytest.raises(CorruptModelError, match="was changed while it was read"):
        graph.__exit__(None, None, None)
