"""Sizes of a model directory: refused with one error before memory is taken, in Python and in native code."""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import one_error

from sbert_mini import Embedder
from sbert_mini.errors import CorruptModelError
from sbert_mini.model.layout import BertConfig, read_layout
from sbert_mini.model.registry import resolve
from sbert_mini.runtime import native
from sbert_mini.runtime.fingerprint import source_digests

SIZES = [
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
]
ODD = [2**32 + 1, 2**32, 2**31, 20_000_000, -1, 0, True, 1.5, "6", [6], float("nan"), 10**400]


@pytest.fixture
def copied(tmp_path):
    """A copy of a shipped model, and a function that changes its config.json and brings its record up to date."""
    path = shutil.copytree(resolve("sbert-mini-fast"), tmp_path / "model")

    def change(**values):
        file = path / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
        record = path / "onnx" / "sbmini.json"
        entry = json.loads(record.read_text())
        entry["source"] |= source_digests(read_layout(path))
        record.write_text(json.dumps(entry))
        return path

    return change


@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_no_encoder_has_is_refused(name):
    config = BertConfig().to_json()
    for value in ODD:
        with pytest.raises(
            CorruptModelError, match=rf"config\.json: {name} must be a whole number from 1 to \d+; found"
        ):
            BertConfig.from_json({**config, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pad_token_id", -1),
        ("pad_token_id", 30522),
        ("pad_token_id", []),
        ("layer_norm_eps", float("nan")),
        ("layer_norm_eps", "1e-12"),
        ("hidden_dropout_prob", 1.5),
        ("attention_probs_dropout_prob", {}),
        ("initializer_range", float("inf")),
    ],
)
def test_other_numbers_are_in_their_ranges(name, value):
    with pytest.raises(CorruptModelError, match=rf"config\.json: {name} must be a .*; found"):
        BertConfig.from_json({**BertConfig().to_json(), name: value})


@pytest.mark.parametrize("layers", [2**32 + 1, 20_000_000, True, "6"])
def test_the_command_says_so_in_one_line(sbmini, copied, tmp_path, layers):
    path = copied()
    file = path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_hidden_layers": layers}))
    one_error(sbmini("encode", "-m", path, "a cat"), 1, "num_hidden_layers", "from 1 to 1000", f"found {layers!r}")


@pytest.mark.parametrize("backend", [None, "onnx"])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_hidden_layers", 1000, "gives 1000 layers .* has 4"),
        ("num_hidden_layers", 5, "gives 5 layers .* has 4"),
        ("vocab_size", 40_000, r"word_embeddings.*\(40000, "),
        ("intermediate_size", 640, r"intermediate.dense.bias of the shape \(640,\)"),
        ("max_position_embeddings", 4096, r"position_embeddings.*\(4096, "),
        ("type_vocab_size", 3, r"token_type_embeddings.*\(3, "),
        ("hidden_size", 768, r"\(\d+, 768\)"),
    ],
)
def test_sizes_that_the_graph_does_not_have_are_refused(copied, backend, name, value, message):
    path = copied(**{name: value})
    with pytest.raises(CorruptModelError, match=message):
        Embedder(path, backend=backend, threads=1)


@pytest.mark.skipif(native.library() is None, reason="no native code: not compiled")
def test_native_code_checks_ranges_by_itself():
    """In a child: what it is for would end the process."""
    code = """
import ctypes, numpy as np
from sbert_mini.runtime.native import library
lib = library()
def at(*shape, dtype=np.float32):
    array = np.zeros(shape, dtype); keep.append(array); return array.ctypes.data
keep = []
good = dict(layers=1, hidden=64, intermediate=64, heads=2, vocabulary=3, positions=5, types=2)
arrays = [at(3, 64, dtype=np.int8), at(3), at(2, 64), at(5, 64), at(64), at(64)]
def opened(**change):
    return lib.sbmini_open(*{**good, **change}.values(), 1e-12, *arrays)
for name in good:
    for value in (0, -1, -2**31, 2**31 - 1):
        assert opened(**{name: value}) is None, (name, value)
assert opened(hidden=96) is None and opened(heads=3) is None and opened(layers=1001) is None
model = opened()
def product(layer, kind, rows, columns, zero=3):
    places = (at(64, 192, dtype=np.int8), at(192), at(192)), (at(192),)
    return lib.sbmini_set_product(model, layer, kind, rows, columns, *places[0], 1.0, zero, *places[1])
def norm(layer, which): return lib.sbmini_set_norm(model, layer, which, at(64), at(64))
one = np.zeros(1, np.int32); ends = np.array([0, 1], np.int32); out = np.zeros((1, 64), np.float32)
def encode(offsets=ends, texts=1):
    level = max(1, lib.sbmini_level())
    return lib.sbmini_encode(model, level, one.ctypes.data, one.ctypes.data, offsets.ctypes.data, texts, out.ctypes.data)
assert encode() == 2  # nothing is set yet
for layer, kind, rows, columns in ((1, 0, 64, 192), (-1, 0, 64, 192), (0, 4, 64, 64), (0, -1, 64, 64), (0, 0, 64, 64),
                                   (0, 1, 64, 128), (0, 0, 128, 192), (2**31 - 1, 0, 64, 192)):
    assert product(layer, kind, rows, columns) == 2, (layer, kind, rows, columns)
assert product(0, 0, 64, 192, zero=256) == 2
assert [product(0, 0, 64, 192), *(product(0, kind, 64, 64) for kind in (1, 2, 3))] == [0, 0, 0, 0]
assert product(0, 0, 64, 192) == 2  # given once
for layer, which in ((1, 0), (-1, 0), (0, 2), (0, -1)):
    assert norm(layer, which) == 2
assert norm(0, 0) == norm(0, 1) == 0
assert encode(np.array([1, 2], np.int32)) == 2 and encode(texts=-1) == 2
assert encode() == (0 if lib.sbmini_level() else 2)
lib.sbmini_close(model)
print("sound")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout) == (0, "sound\n"), done.stderr
