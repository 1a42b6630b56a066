"""Small model directories that would take any time or memory, or end in a traceback: each is one error."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sbert_mini import Embedder, IndexWriter, SearchIndex
from sbert_mini.errors import CorruptModelError, ModelNotFoundError
from sbert_mini.evaluation import figures
from sbert_mini.files.json_files import HEAD_CONFIG, SENTENCE_TRANSFORMERS_CONFIG, TOKENIZER
from sbert_mini.files.json_schema import check
from sbert_mini.model.heads import HeadConfig, read_head
from sbert_mini.model.layout import read_layout
from sbert_mini.model.registry import resolve_noted
from sbert_mini.runtime.predictor import Predictor
from sbert_mini.text.markdown import plain
from sbert_mini.text.records import Record


def test_a_word_has_a_bounded_length():
    model = {"unk_token": "[UNK]", "continuing_subword_prefix": "##", "vocab": {}}
    check({"model": {**model, "max_input_chars_per_word": 200}}, TOKENIZER, "x", CorruptModelError)
    with pytest.raises(CorruptModelError, match="from 1 to 200; found 10000"):
        check({"model": {**model, "max_input_chars_per_word": 10_000}}, TOKENIZER, "x", CorruptModelError)


def test_a_models_prompt_has_a_bounded_length():
    check({"prompts": {"a": "\n" * 4096}}, SENTENCE_TRANSFORMERS_CONFIG, "x", CorruptModelError)
    with pytest.raises(CorruptModelError, match="at most 4,096 characters"):
        check({"prompts": {"a": "a" * 4097}}, SENTENCE_TRANSFORMERS_CONFIG, "x", CorruptModelError)


def test_each_pooling_once(make_model):
    path = make_model(modules=[{"kind": "Pooling", "pooling_mode": ["mean", "max"]}])
    assert read_layout(path).pooling == ("mean", "max")
    (path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": ["mean"] * 2000}))
    with pytest.raises(CorruptModelError, match="each pooling once; found 2000"):
        read_layout(path)


@pytest.mark.parametrize("value", [1e300, 3e38, float("nan")])
def test_weights_that_overflow_are_not_converted(make_model, value):
    path = make_model()
    tensors = load_file(path / "model.safetensors")
    name = "encoder.layer.0.intermediate.dense.weight"
    tensors[name] = np.full(tensors[name].shape, value, np.float64)
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(CorruptModelError, match="holds NaN, infinity or a number above"):
        Embedder(path, threads=1)


def test_a_head_with_nan_or_great_bounds_is_refused(make_model):
    path = make_model()
    config = HeadConfig("mood", "single", "regression", 28)
    config.write(path / "heads" / "mood")
    weights = {"output.weight": np.full((1, 28), np.nan, np.float32), "output.bias": np.zeros(1, np.float32)}
    save_file(weights, path / "heads" / "mood" / "model.safetensors")
    with pytest.raises(CorruptModelError, match="holds NaN or infinity"):
        read_head(path, "mood")
    data = {**json.loads((path / "heads" / "mood" / "config.json").read_text()), "high": 10**308}
    with pytest.raises(CorruptModelError, match="high must be a number"):
        check(data, HEAD_CONFIG, "x", CorruptModelError)


def test_a_pair_head_and_truncated_vectors(converted_model):
    path = converted_model()
    (path / "config_sentence_transformers.json").write_text(json.dumps({"truncate_dim": 8}))
    HeadConfig("same", "pair", "regression", 8).write(path / "heads" / "same")
    weights = {"output.weight": np.ones((1, 8), np.float32), "output.bias": np.zeros(1, np.float32)}
    save_file(weights, path / "heads" / "same" / "model.safetensors")
    with pytest.raises(CorruptModelError, match="reads pairs, whose vectors have all 28 components"):
        Predictor(path, "same", threads=1)


@pytest.mark.parametrize(
    "name",
    ["/proc/self/cwd", "/dev/fd", "/sys", "/net/host/x", "/home/../proc/self/cwd", "/dev/shm/../fd"],  # noqa: S108
)
def test_no_folder_of_the_system_is_opened_for_an_index(name):
    with pytest.raises(ModelNotFoundError, match="is the system's"):
        resolve_noted(name, None)


def test_a_model_that_an_index_names_is_never_converted_in_place(tmp_path, converted_model):
    model = converted_model()
    IndexWriter(tmp_path / "x", Embedder(model, threads=1)).create([Record("the cat", "a")])
    assert SearchIndex(tmp_path / "x", threads=1).search("the cat", 1)
    shutil.rmtree(model / "onnx")
    with pytest.raises(ModelNotFoundError, match=r"pass -m .* to convert it"):
        SearchIndex(tmp_path / "x", threads=1).search("the cat", 1)
    assert not (model / "onnx").exists()


def test_bare_addresses_are_no_links():
    for text in ("www.evil.example", "https://evil.example/x", "WWW.evil.example", "a@evil.example"):
        line = plain(text)
        assert "www." not in line.lower()
        assert "://" not in line
        assert "@" not in line


def test_names_in_pictures_are_no_formulas():
    gold, name = np.array([1.0, 2.0, 3.0]), r"$\q$"
    assert figures.scatter(name, gold, {name: gold})
    sets = [{"set": name, "spearman": 50.0, "spearman_interval": None}]
    assert figures.sts_bars({"models": [{"model": name, "runtime": "x", "sets": sets}]})
