"""What computes an int8 graph: native code against ONNX Runtime, and no damage from bad input; torch on a device."""

import ctypes
import re
import shutil
import threading
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from sbert_mini import Embedder
from sbert_mini.errors import CorruptModelError, UsageError
from sbert_mini.model.onnx_file import OnnxFile
from sbert_mini.model.registry import resolve
from sbert_mini.native.library import Array
from sbert_mini.runtime import native
from sbert_mini.runtime.engine import OnnxEngine, open_engine
from sbert_mini.runtime.fingerprint import file_sha256
from sbert_mini.runtime.graphs import find
from sbert_mini.runtime.native import NativeEngine
from sbert_mini.runtime.native_library import LEVELS, levels, library
from sbert_mini.text.tokens import Tokens

HERE = levels()
needs_native = pytest.mark.skipif(not HERE, reason="no native code: not compiled")
each_level = pytest.mark.parametrize("level", HERE)
each_fast_level = pytest.mark.parametrize("level", [name for name in HERE if name != "portable"])
models = pytest.mark.parametrize("name", ["sbert-mini", "sbert-mini-fast"])


def tokens_of(lengths, seed=0):
    """Random texts of so many tokens each, as the tokenizer would give them."""
    rng = np.random.default_rng(seed)
    return [Tokens([101, *rng.integers(1000, 20000, n - 2).tolist(), 102], [0] * n, False) for n in lengths]


def cosine(a, b):
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@cache
def one_by_one(name, texts):
    """The tokens of some texts, and their vectors by ONNX Runtime."""
    tokens = Embedder(name).tokenizer.encode(list(texts))
    engine = OnnxEngine(find(resolve(name)))
    return tokens, np.concatenate([engine.run([t]) for t in tokens])


@needs_native
@models
@each_fast_level
def test_it_gives_onnx_runtimes_vectors(name, level, passages):
    tokens, expected = one_by_one(name, tuple(row[key] for key in ("title", "text") for row in passages[:70]))
    ours = NativeEngine(find(resolve(name)), level)
    found = np.concatenate([ours.run(tokens[i : i + 32]) for i in range(0, len(tokens), 32)])
    assert found.shape == expected.shape
    # rounding to bytes makes much of a small difference: single texts differ by more than the mean
    assert cosine(found, expected).mean() > 0.999
    assert cosine(found, expected).min() > 0.995
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


@needs_native
@each_fast_level
def test_every_length_and_place_in_a_batch_gives_the_same_bits(level):
    """Texts of 2 to 256 tokens: every remainder of rows, tiles and keys; in batches, alone, and in another order."""
    engine = NativeEngine(find(resolve("sbert-mini-fast")), level)
    tokens = tokens_of([*range(2, 80), 95, 96, 97, 127, 128, 129, 255, 256])
    alone = np.concatenate([engine.run([t]) for t in tokens])
    assert np.isfinite(alone).all()
    np.testing.assert_array_equal(engine.run(tokens), alone)
    np.testing.assert_array_equal(engine.run(tokens[::-1])[::-1], alone)
    expected = OnnxEngine(find(resolve("sbert-mini-fast")))
    theirs = np.concatenate([expected.run([t]) for t in tokens])
    assert cosine(alone, theirs).mean() > 0.999


@needs_native
def test_segments_of_pairs_are_read():
    engine, other = NativeEngine(find(resolve("sbert-mini"))), OnnxEngine(find(resolve("sbert-mini")))
    (text,) = tokens_of([12])
    pair = Tokens(text.ids, [0] * 6 + [1] * 6, False)
    one, two = engine.run([text]), engine.run([pair])
    assert cosine(one, two)[0] < 0.9999
    assert cosine(two, other.run([pair]))[0] > 0.999


@needs_native
def test_several_threads_at_once():
    engine, tokens = NativeEngine(find(resolve("sbert-mini-fast"))), tokens_of([5, 40, 130, 9])
    expected, found = engine.run(tokens), {}

    def work(number):
        found[number] = [engine.run(tokens) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for results in found.values():
        for result in results:
            np.testing.assert_array_equal(result, expected)
    assert len(found) == 4


@needs_native
def test_ids_and_lengths_out_of_range_are_refused_and_read_nothing():
    engine = NativeEngine(find(resolve("sbert-mini-fast")))
    for bad in (
        Tokens([101, 5_000_000, 102], [0] * 3, False),
        Tokens([101, -1, 102], [0] * 3, False),
        Tokens([101, 2000, 102], [0, 2, 0], False),
        Tokens([101] * 2000, [0] * 2000, False),
        Tokens([], [], False),
    ):
        with pytest.raises(CorruptModelError, match="do not belong together"):
            engine.run([*tokens_of([4]), bad])


@needs_native
def test_an_embedder_computes_natively_unless_told_otherwise():
    text = "a kernel of wheat"
    vectors = {}
    for backend, name in ((None, HERE[-1]), ("native", HERE[-1]), *((n, n) for n in HERE), ("onnx", "ONNX Runtime")):
        embedder = Embedder("sbert-mini", backend=backend)
        assert name in embedder.backend
        vectors[backend] = embedder.encode(text)
    for name in ("native", *HERE):
        np.testing.assert_array_equal(vectors[None], vectors[name])
    assert vectors[None] @ vectors["onnx"] > 0.999


@needs_native
def test_a_variable_chooses_the_backend_where_no_argument_does(monkeypatch):
    monkeypatch.setenv("SBMINI_BACKEND", "portable")
    assert Embedder("sbert-mini-fast").backend == "native, portable"
    assert Embedder("sbert-mini-fast", backend="native").backend == f"native, {HERE[-1]}"
    monkeypatch.setenv("SBMINI_BACKEND", "onnx")
    assert Embedder("sbert-mini-fast").backend == "ONNX Runtime"
    monkeypatch.setenv("SBMINI_BACKEND", "abacus")
    with pytest.raises(UsageError, match=r"SBMINI_BACKEND must be one of native, portable, .*; found 'abacus'"):
        Embedder("sbert-mini-fast")


def test_what_cannot_compute_is_refused():
    with pytest.raises(UsageError, match=r"backend must be one of native, portable, .*, onnx, torch; found 'cuda'"):
        Embedder("sbert-mini", backend="cuda")
    for name in LEVELS[1:]:
        if name not in HERE:
            with pytest.raises(UsageError, match=f"backend {name} does not compute this model here"):
                Embedder("sbert-mini", backend=name)
    with pytest.raises(UsageError, match="computes on the CPU alone, not on cuda"):
        Embedder("sbert-mini", backend="onnx", device="cuda")
    with pytest.raises(UsageError, match="the device 'abacus' cannot be used"):
        Embedder("sbert-mini", device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="the device 'cuda' cannot be used"):
            Embedder("sbert-mini", device="cuda")


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_torch_gives_the_float_vectors(make_model, passages, pooling):
    """What a GPU would compute, here on the CPU."""
    path = make_model(modules=[{"kind": "Pooling", "embedding_dimension": 28, "pooling_mode": pooling}])
    texts = [row["title"] for row in passages[:40]]
    embedder = Embedder(path, backend="torch")
    assert embedder.backend == "torch on cpu, float32"
    np.testing.assert_allclose(embedder.encode(texts), Embedder(path, graph="fp32").encode(texts), atol=2e-6)


def test_torch_reads_a_model_that_travels_as_an_int8_graph(passages):
    texts = [row["title"] for row in passages[:20]]
    vectors = Embedder("sbert-mini-fast", backend="torch").encode(texts)
    assert cosine(vectors, Embedder("sbert-mini-fast", backend="onnx").encode(texts)).mean() > 0.997


@needs_native
def test_what_native_code_does_not_know_is_left_to_onnx_runtime(make_model):
    converted = find(make_model(), "fp32")
    assert "int8" in native.why_not(converted.layout, "fp32")
    assert isinstance(open_engine(converted), OnnxEngine)
    with pytest.raises(UsageError, match="does not compute this model here: it computes int8 graphs alone"):
        open_engine(converted, "native")
    config = converted.layout.config
    for layout, why in (
        (replace(converted.layout, bert=replace(config, intermediate_size=32_769)), "above 32768"),
        (replace(converted.layout, bert=replace(config, hidden_size=1025, num_attention_heads=1025)), "above 32768"),
        (replace(converted.layout, pooling=("mean",) * 9), "8 poolings"),
    ):
        assert why in native.why_not(layout)


def test_without_the_library_onnx_runtime_computes(monkeypatch):
    monkeypatch.setattr(native, "library", lambda: None)
    assert Embedder("sbert-mini").backend == "ONNX Runtime"
    with pytest.raises(UsageError, match="not compiled"):
        Embedder("sbert-mini", backend="native")


SHAPES = {
    "heads of 32": {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 192},
    "of 64": {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 192},
    "of 96": {"hidden_size": 192, "num_attention_heads": 2, "intermediate_size": 192},
    "of 26, as TinyBERT": {"hidden_size": 78, "num_attention_heads": 3, "intermediate_size": 311},
    "of 7": {"hidden_size": 35, "num_attention_heads": 5, "intermediate_size": 101},
    "of 1": {"hidden_size": 3, "num_attention_heads": 3, "intermediate_size": 1},
    "12 layers": {"hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 256, "num_hidden_layers": 12},
    "tanh": {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 192, "hidden_act": "gelu_new"},
    "relu": {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 192, "hidden_act": "relu"},
}


@pytest.mark.long
@needs_native
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_models_of_other_sizes(make_model, shape):
    """A vocabulary of 60, texts of one token and of all that there are positions for: against ONNX Runtime."""
    converted = find(make_model(**{"num_hidden_layers": 2, "max_position_embeddings": 512, "seed": 4, **shape}))
    rng = np.random.default_rng(1)
    tokens = [Tokens(rng.integers(0, 60, n).tolist(), [0] * n, False) for n in (3, 17, 9, 1, 512, 96, 1)]
    theirs = np.concatenate([OnnxEngine(converted).run([t]) for t in tokens])
    for level in HERE:
        assert cosine(NativeEngine(converted, level).run(tokens), theirs).min() > 0.998, level


def embedding_model(make_model, epsilon, spread):
    """A model whose rows of embeddings are all 1 but for a part by position, of this deviation."""
    from safetensors.torch import load_file, save_file

    path = make_model(
        hidden_size=64, num_attention_heads=2, intermediate_size=128, num_hidden_layers=1, layer_norm_eps=epsilon
    )
    file = path / "model.safetensors"
    weights = load_file(file)
    torch.manual_seed(3)
    for name, weight in weights.items():
        if name.endswith("word_embeddings.weight"):
            weight.fill_(1)
        elif name.endswith("position_embeddings.weight"):
            weight.copy_(spread * torch.randn(weight.shape))
        elif "token_type_embeddings" in name:
            weight.zero_()
        elif name.endswith("embeddings.LayerNorm.bias"):
            weight.copy_(torch.linspace(-1, 1, 64))
    save_file(weights, file, metadata={"format": "pt"})
    return path


@needs_native
@each_level
@pytest.mark.parametrize("spread", [0.0, 0.001, 0.1])
def test_a_constant_row_through_layer_norm_is_its_bias_and_epsilon_is_in_the_root(make_model, level, spread):
    """LayerNorm of a row without spread is 0 / sqrt(0 + epsilon) * weight + bias; with a small one epsilon decides."""
    path = embedding_model(make_model, 1e-4, spread)
    engine = NativeEngine(find(path), level)
    tokens = [Tokens([2, *range(9, 9 + n), 3], [0] * (n + 2), False) for n in (1, 5, 17)]
    found = engine.run(tokens)
    assert np.isfinite(found).all()
    exact = OnnxEngine(find(path, "fp32"))
    expected = np.concatenate([exact.run([t]) for t in tokens])
    assert cosine(found, expected).min() > 0.999
    if spread == 0:  # every token has the same row, so every text has the same vector
        np.testing.assert_allclose(found, np.broadcast_to(found[:1], found.shape), atol=1e-6)


SIZES = {
    "layers": 1, "hidden": 64, "intermediate": 128, "heads": 2, "vocabulary": 7, "positions": 5, "types": 2, "activation": 0,
}  # fmt: skip


@needs_native
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 0) for name in SIZES if name != "activation"),
        *((name, -1) for name in SIZES),
        ("layers", 1001),
        ("hidden", 32_769),
        ("intermediate", 32_769),
        ("heads", 3),  # does not divide 64
        ("activation", 3),  # tanh is for projections
        *((name, (1 << 24) + 1) for name in ("vocabulary", "positions", "types")),
    ],
)
def test_a_size_out_of_range_is_refused_where_all_others_fit(name, value):
    """By the C++ code itself, before it takes memory: each size alone."""
    functions, model = library(), ctypes.c_void_p()
    shapes = [(7, 64), (7,), (2, 64), (5, 64), (64,), (64,)]
    kept = [np.zeros(shape, np.float32 if i else np.int8) for i, shape in enumerate(shapes)]
    arrays = [Array.of(array) for array in kept]
    assert functions.sbmini_open(*SIZES.values(), 1e-12, *arrays, ctypes.byref(model)) == 0
    assert model.value
    functions.sbmini_close(model)
    status = functions.sbmini_open(*{**SIZES, name: value}.values(), 1e-12, *arrays, ctypes.byref(model))
    assert functions.sbmini_error(status) == b"a size is outside the range that native code computes"
    assert model.value is None


@needs_native
def test_a_graph_without_names_is_left_to_onnx_runtime(make_model):
    """As versions wrote them whose records are still taken."""
    wide = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}
    converted = find(make_model(**wide))
    expected = OnnxEngine(converted).run(tokens := [Tokens([2, 7, 9, 3], [0] * 4, False)])
    graph = onnx.load(converted.file)
    new = {c.name: f"c{i}" for i, c in enumerate(graph.graph.initializer)}
    for constant in graph.graph.initializer:
        constant.name = new[constant.name]
    for node in graph.graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
    converted.file.write_bytes(graph.SerializeToString())
    renamed = replace(converted, sha256=file_sha256(converted.file))
    engine = open_engine(renamed)
    assert isinstance(engine, OnnxEngine)
    np.testing.assert_allclose(engine.run(tokens), expected, atol=1e-6)
    with pytest.raises(UsageError, match="not a graph that this version wrote"):
        open_engine(renamed, "native")


@needs_native
def test_damage_anywhere_is_told_by_the_checksum(make_model):
    wide = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}
    converted = find(make_model(**wide))
    whole, rng = converted.file.read_bytes(), np.random.default_rng(3)
    head = whole.find(b"embeddings.word_embeddings.weight")  # the nodes stand before the constants
    for place in [*rng.integers(0, head, 60).tolist(), *rng.integers(0, len(whole), 20).tolist()]:
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        converted.file.write_bytes(data)
        with pytest.raises(CorruptModelError, match="does not match its checksum"):
            NativeEngine(converted)


def test_a_damaged_graph_is_refused(tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(resolve("sbert-mini-fast"), copy)
    file = copy / "onnx" / "model_int8.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)
    with pytest.raises(CorruptModelError, match="does not match its checksum"):
        Embedder(copy)


def test_the_reader_of_onnx_files_agrees_with_the_package_onnx():
    file = resolve("sbert-mini-fast") / "onnx" / "model_int8.onnx"
    expected = onnx.load(file).graph
    with OnnxFile(file) as graph:
        assert [(n.op_type, tuple(n.input), tuple(n.output)) for n in expected.node] == [
            (n.kind, n.inputs, n.outputs) for n in graph.nodes
        ]
        assert {c.name for c in expected.initializer} == set(graph.constants)
        for constant in expected.initializer:
            np.testing.assert_array_equal(graph.read(constant.name), onnx.numpy_helper.to_array(constant))


def test_no_damage_makes_the_reader_of_onnx_files_fail_in_another_way(tmp_path):
    """Cut and flipped files of a small graph: read, or refused with one kind of error."""
    source = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Add", ["x", "c"], ["y"])],
            "g",
            [onnx.helper.make_tensor_value_info("x", 1, [2])],
            [onnx.helper.make_tensor_value_info("y", 1, [2])],
            [onnx.numpy_helper.from_array(np.ones(2, np.float32), "c")],
        )
    ).SerializeToString()
    file = tmp_path / "m.onnx"
    refused = 0
    rng = np.random.default_rng(0)
    changed = [source[:n] for n in range(len(source))]
    for _ in range(500):
        data = bytearray(source)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        changed.append(bytes(data))
    for data in changed:
        file.write_bytes(data)
        try:
            with OnnxFile(file) as graph:
                for name in graph.constants:
                    graph.read(name)
        except CorruptModelError:
            refused += 1
    assert 50 < refused < len(changed)
    with pytest.raises(CorruptModelError):
        OnnxFile(Path(tmp_path / "absent.onnx"))


@needs_native
def test_the_library_asks_for_no_symbol_of_python():
    """It is loaded by ctypes alone, into any Python."""
    names = re.findall(rb"[A-Za-z_][A-Za-z0-9_]{3,}", Path(library()._name).read_bytes())
    assert b"sbmini_encode" in names
    assert not [name for name in names if re.match(rb"_?Py[A-Z_]", name)]
