"""Sizes of a model directory: refused with one error before memory is taken, in Python and in native code."""

import json
import shutil

import pytest
from conftest import one_error

from sbert_mini import Embedder
from sbert_mini.errors import CorruptModelError
from sbert_mini.model.layout import BertConfig, read_layout
from sbert_mini.model.registry import resolve
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
def test_the_command_says_so_in_one_line(sbmini_here, copied, tmp_path, layers):
    path = copied()
    file = path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_hidden_layers": layers}))
    one_error(sbmini_here("encode", "-m", path, "a cat"), 1, "num_hidden_layers", "from 1 to 1000", f"found {layers!r}")


@pytest.mark.parametrize("backend", [None, "onnx"])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_hidden_layers", 1000, "gives 1000 layers .* has 4"),
        ("num_hidden_layers", 5, "gives 5 layers .* has 4"),
        ("vocab_size", 40_000, r"word_embeddings.*\(40000, "),
        ("intermediate_size", 640, r"intermediate.dense.weight/q of the shape \(384, 640\)"),
        ("max_position_embeddings", 4096, r"position_embeddings.*\(4096, "),
        ("type_vocab_size", 3, r"token_type_embeddings.*\(3, "),
        ("hidden_size", 768, r"\(\d+, 768\)"),
    ],
)
def test_sizes_that_the_graph_does_not_have_are_refused(copied, backend, name, value, message):
    path = copied(**{name: value})
    with pytest.raises(CorruptModelError, match=message):
        Embedder(path, backend=backend, threads=1)
