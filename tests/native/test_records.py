"""A record that a stranger made names no folder and no file outside the model directory."""

import contextlib
import json
import shutil

import pytest

from sbert_mini import Embedder
from sbert_mini.errors import SbertMiniError
from sbert_mini.model.registry import resolve


@pytest.mark.parametrize("fingerprint", ["../../outside", "/outside", 7, [], None, "A" * 64, "0" * 65])
def test_a_fingerprint_that_is_no_checksum_is_not_used(tmp_path, converted_model, monkeypatch, fingerprint):
    model, cache = shutil.copytree(converted_model(), tmp_path / "model"), tmp_path / "some" / "cache"
    (model / "model.safetensors").unlink()  # the graph alone, as a package carries a model
    monkeypatch.setenv("SBMINI_CACHE_DIR", str(cache))
    if fingerprint == "/outside":
        fingerprint = f"{tmp_path}/o"
    file = model / "onnx" / "sbmini.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "fingerprint": fingerprint}))
    (model / "onnx" / "ranges.json").unlink(missing_ok=True)
    before = sorted(tmp_path.iterdir())
    with contextlib.suppress(SbertMiniError):
        Embedder(model, threads=1).encode(["a cat"], precision="int8")
    assert [path for path in sorted(tmp_path.iterdir()) if path not in before] in ([], [tmp_path / "some"])


@pytest.mark.parametrize("name", ["../../other.onnx", "model.onnx", 7, None])
def test_a_graph_of_another_name_is_not_used(tmp_path, name, caplog):
    from sbert_mini.runtime.graph_record import read_record

    model = shutil.copytree(resolve("sbert-mini-fast"), tmp_path / "model")
    graph, file = model / "onnx" / "model_int8.onnx", model / "onnx" / "sbmini.json"
    shutil.copy(graph, tmp_path / "other.onnx")
    shutil.copy(graph, model / "onnx" / "model.onnx")
    assert read_record(file.parent) is not None
    record = json.loads(file.read_text())
    record["graphs"]["int8"]["file"] = name
    file.write_text(json.dumps(record))
    assert read_record(file.parent) is None
    assert "of another version" in caplog.text
