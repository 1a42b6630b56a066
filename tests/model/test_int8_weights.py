"""A model directory that holds its int8 graph alone: what it computes, what is made of it, and training from it."""

import json
import shutil
from contextlib import suppress

import numpy as np
import onnx
import pytest
from small_tasks import sentences
from workshop import fitted

from sbert_mini import Embedder
from sbert_mini.encoder.module import load
from sbert_mini.errors import CorruptModelError
from sbert_mini.model.int8_weights import PRODUCTS, read_int8_weights
from sbert_mini.model.layout import SMOOTH, read_layout
from sbert_mini.model.weights import read_bert_weights
from sbert_mini.runtime.graphs import find
from tests.native.fuzz import seal as reseal

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = sentences(12, 4)


@pytest.fixture
def shipped(make_model, tmp_path, monkeypatch):
    """A model, and a copy of it without weights and float32 graph, as a package would ship it."""
    monkeypatch.setenv("SBMINI_CACHE_DIR", str(tmp_path / "cache"))
    model = make_model(seed=3)
    find(model)
    copy = tmp_path / "shipped"
    shutil.copytree(model, copy, ignore=shutil.ignore_patterns("*.safetensors", "model.onnx"))
    record = copy / "onnx" / "sbmini.json"
    held = json.loads(record.read_text())
    del held["graphs"]["fp32"]
    record.write_text(json.dumps(held))
    return model, copy


def test_the_int8_graph_is_used_as_it_is_and_nothing_is_written(shipped):
    model, copy = shipped
    before = sorted(copy.rglob("*"))
    np.testing.assert_array_equal(Embedder(copy).encode(TEXTS), Embedder(model).encode(TEXTS))
    assert sorted(copy.rglob("*")) == before
    assert find(copy).fingerprint == find(model).fingerprint


def test_weights_come_back_to_half_a_step(shipped, caplog):
    """A product's steps are those of the smoothed matrix, so that half a step is divided by the channel's factor, too."""
    model, copy = shipped
    config = read_layout(model).config
    weights, back = read_bert_weights(model, config), read_bert_weights(copy, config)
    assert "weights are read back from its int8 graph" in caplog.text
    caplog.clear()
    read_bert_weights(copy, config)
    assert not caplog.text  # told once a process
    assert set(back) == {name for name in weights if not name.startswith("pooler.")}
    graph = onnx.load(copy / "onnx" / "model_int8.onnx").graph
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in graph.initializer}
    smoothed = [name for name in constants if name.endswith(SMOOTH)]
    assert smoothed  # else nothing is seen of them here
    for name, array in back.items():
        step = constants.get(f"{name}/scale")
        if step is None:
            np.testing.assert_array_equal(array, weights[name])
            continue
        if name.startswith("encoder."):
            layer, _, rest = name.removeprefix("encoder.layer.").removesuffix(".weight").partition(".")
            factor = constants.get(f"{layer}.{PRODUCTS[rest]}{SMOOTH}", np.ones(array.shape[1], np.float32))
            step = step[:, None] * factor[None, :]
        assert (np.abs(array - weights[name]) <= 0.501 * step).all(), name


def test_the_float32_graph_is_made_in_the_cache_and_is_of_the_same_model(shipped):
    model, copy = shipped
    found = find(copy, "fp32")
    assert copy not in found.file.parents
    assert found.fingerprint == find(copy).fingerprint
    cosines = (Embedder(copy, graph="fp32").encode(TEXTS) * Embedder(model, graph="fp32").encode(TEXTS)).sum(axis=1)
    assert cosines.min() > 0.99
    vectors = load(copy, device="cpu").encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(vectors, Embedder(copy, graph="fp32").encode(TEXTS), atol=1e-5)


def test_training_starts_from_it(workshop, shipped):
    _, copy = shipped
    text = (workshop / "recipe.toml").read_text("utf-8")
    text = text.replace('start = "start"', f'start = "{copy}"').replace("steps = 60", "steps = 2")
    (workshop / "recipe.toml").write_text(text, "utf-8")
    output = fitted(workshop).output
    assert (output / "modules.json").is_file()
    assert (output / "model.safetensors").is_file()
    assert not (output / "onnx").exists()  # graphs are made when the model is first used


def test_a_damaged_or_foreign_graph_is_refused(shipped):
    _, copy = shipped
    config = read_layout(copy).config
    file = copy / "onnx" / "model_int8.onnx"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptModelError, match="cannot be read as ONNX"):
        read_bert_weights(copy, config)
    file.write_bytes(onnx.ModelProto(ir_version=10).SerializeToString())
    with pytest.raises(CorruptModelError, match="does not name its weights"):
        read_bert_weights(copy, config)


def test_another_tools_graph_is_no_weights_and_a_pickle_is_still_refused_as_one(shipped):
    _, copy = shipped
    (copy / "onnx" / "sbmini.json").unlink()
    with pytest.raises(CorruptModelError, match=r"has no model\.safetensors"):
        read_bert_weights(copy, read_layout(copy).config)
    (copy / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CorruptModelError, match="can run code"):
        read_bert_weights(copy, read_layout(copy).config)


INNER = "encoder.layer.0.intermediate.dense.weight"
WORDS = "embeddings.word_embeddings.weight"


def turned(file, name, shape):
    """Give a constant of a graph another shape, of as many elements, or of ones."""
    model = onnx.load(file)
    (constant,) = [c for c in model.graph.initializer if c.name == name]
    array = onnx.numpy_helper.to_array(constant)
    array = array.reshape(shape) if array.size == np.prod(shape) else np.ones(shape, array.dtype)
    constant.CopyFrom(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, file)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (f"{INNER}/q", (1, -1)),
        (f"{INNER}/q", (-1, 1)),
        (f"{INNER}/q", (-1,)),
        (f"{INNER}/scale", (-1, 1)),
        (f"{INNER}/scale", (1,)),
        (f"{INNER}/scale", ()),
        (f"{WORDS}/q", (1, -1)),
        (f"{WORDS}/scale", (-1,)),
        (f"{WORDS}/scale", (1, -1)),
        ("0.wide/smooth", (-1, 1)),
        ("0.wide/smooth", (1,)),
        ("embeddings.LayerNorm.weight", (1, -1)),
    ],
)
def test_constants_that_would_be_broadcast_are_refused(shipped, name, shape):
    """A matrix (1, n) times scales (n, 1) would take the square of the file's size."""
    model, copy = shipped
    file = copy / "onnx" / "model_int8.onnx"
    constants = {c.name: tuple(c.dims) for c in onnx.load(file).graph.initializer}
    if name not in constants:  # this product is not smoothed
        name = next(one for one in constants if one.endswith(SMOOTH))
    size = int(np.prod(constants[name]))
    turned(file, name, tuple(size if part == -1 else part for part in shape))
    config = read_layout(model).config
    with pytest.raises(CorruptModelError, match=r"of the shape|must have the shape"):
        read_int8_weights(file, config)
    reseal(copy)
    with suppress(CorruptModelError):  # ONNX Runtime may broadcast a factor
        Embedder(copy, threads=1).encode(TEXTS)
