"""All levels, compilers and processors give the same bits; what chooses between engines."""

import itertools
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from sbert_mini import Embedder
from sbert_mini.model.registry import resolve
from sbert_mini.runtime import trial
from sbert_mini.runtime.engine import OnnxEngine, describe_backend, open_engine
from sbert_mini.runtime.graphs import find
from sbert_mini.runtime.native import NativeEngine
from sbert_mini.runtime.native_library import levels
from sbert_mini.text.tokens import Tokens
from tests.native import golden

HERE = levels()
pytestmark = pytest.mark.skipif(not HERE, reason="no native code: not compiled")
SMALL = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}


def random_tokens(count, longest, seed):
    rng = np.random.default_rng(seed)
    lengths = np.minimum(rng.geometric(0.06, count) + 1, longest)
    return [
        Tokens([101, *rng.integers(1000, 20000, n - 2).tolist(), 102][:n], [0] * n, False) for n in lengths.tolist()
    ]


def compare(converted, tokens, names):
    engines = [NativeEngine(converted, name) for name in names]
    for begin in range(0, len(tokens), 32):
        batch = tokens[begin : begin + 32]
        expected = engines[-1].run(batch)
        assert np.isfinite(expected).all()
        for engine in engines[:-1]:
            np.testing.assert_array_equal(engine.run(batch), expected, err_msg=engine.level)


def test_levels_give_the_same_bits():
    converted = find(resolve("sbert-mini-fast"))
    compare(converted, random_tokens(300, 256, 1), [name for name in HERE if name != "portable"])
    compare(converted, random_tokens(12, 40, 2), HERE)


@pytest.mark.long
def test_levels_give_the_same_bits_on_10_000_texts():
    converted = find(resolve("sbert-mini"))
    compare(converted, random_tokens(10_000, 512, 3), [name for name in HERE if name != "portable"])
    compare(converted, random_tokens(500, 512, 4), HERE)


@pytest.mark.long
@pytest.mark.parametrize(
    ("compiler", "emulator", "flags"),
    [
        ("g++", "", ()),
        ("g++", "", ("-DPLAIN", "-O1")),
        ("clang++", "", ()),
        ("aarch64-linux-gnu-g++", "qemu-aarch64-static", ()),
    ],
    ids=["gcc", "gcc without SSE2", "clang", "ARM"],
)
def test_compilers_and_processors_give_the_golden_bits(compiler, emulator, flags):
    absent = golden.missing([tool for tool in (compiler, emulator) if tool])
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)}")
    lines, by_level, code = golden.lines_of(compiler, emulator, flags)
    assert lines == golden.EXPECTED.read_text("utf-8")
    assert code == 0, by_level


def test_rounding_and_subnormal_numbers_are_as_always_whatever_the_process_has_set():
    """Libraries that are compiled with -ffast-math switch subnormal numbers off in the thread that loads them."""
    import ctypes

    import torch

    engine = NativeEngine(find(resolve("sbert-mini-fast")))
    tokens = random_tokens(5, 40, 3)
    expected = engine.run(tokens)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers")
    upward = 0x800 if os.uname().machine == "x86_64" else 0x400000
    library = ctypes.CDLL(None)
    try:
        library.fesetround(upward)
        found = engine.run(tokens)
        assert library.fegetround() == upward  # and they are as they were
    finally:
        library.fesetround(0)
        torch.set_flush_denormal(False)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("pooling", ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean"])
def test_poolings_and_projections_are_those_of_torch(make_model, pooling):
    """Nearly: PyTorch has float weights. ONNX Runtime's graph has the same bytes."""
    dense = {"kind": "Dense", "in_features": 64, "out_features": 13, "bias": True}
    modules = [{"kind": "Pooling", "embedding_dimension": 64, "pooling_mode": pooling}, dense]
    path = make_model(modules=modules, seed=3, **SMALL)
    texts = ["the cat sleeps", "a dog runs. the cat sleeps and sleeps", "x"]
    exact, graph = (Embedder(path, backend=backend).encode(texts) for backend in ("torch", "onnx"))
    for level in HERE:
        found = Embedder(path, backend=level).encode(texts)
        assert found.shape == exact.shape
        assert (found * graph).sum(axis=1).min() > 0.999, level
        assert (found * exact).sum(axis=1).min() > 0.95, level


@pytest.mark.parametrize("level", HERE)
def test_threads_that_share_a_batch_give_the_same_bits(converted_model, level):
    """Sizes whose blocks of 64 columns fall to the threads unevenly; of 16 threads some have no column."""
    sizes = {"hidden_size": 390, "num_attention_heads": 5, "intermediate_size": 700, "num_hidden_layers": 2}
    engine = NativeEngine(find(converted_model(seed=4, **sizes)), level)
    tokens = [Tokens([i % 30 for i in range(n)], [0] * n, False) for n in (23, 1, 17)]
    expected = engine.run(tokens)
    for threads in (2, 3, 5, 16, 1000):
        engine._batches_alone = 0
        np.testing.assert_array_equal(engine.run(tokens, threads), expected)


def test_one_thread_computes_while_others_use_the_processors():
    engine = NativeEngine(find(resolve("sbert-mini-fast")))
    tokens = random_tokens(1, 20, 5)
    expected = engine.run(tokens)
    engine._batches_alone = 2
    for left in (1, 0):
        np.testing.assert_array_equal(engine.run(tokens, 2), expected)
        assert engine._batches_alone == left


@pytest.mark.parametrize(
    "shape",
    [
        {"hidden_size": 66, "num_attention_heads": 3},
        {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 300},
        {"num_hidden_layers": 12},
        {"hidden_act": "relu"},
        {"hidden_act": "gelu_new"},
    ],
    ids=["heads of 22", "of 64", "12 layers", "relu", "gelu_tanh"],
)
def test_token_vectors_are_those_of_the_float_encoder(make_model, shape):
    import torch

    converted = find(make_model(seed=5, **{**SMALL, "max_position_embeddings": 512, **shape}))
    encoder = open_engine(converted, "torch")._encoder
    longest = 512 if shape.get("num_attention_heads") == 3 else 70
    tokens = [Tokens([2, *(5 + i % 50 for i in range(n - 2)), 3], [0] * n, False) for n in (3, 6, 19, longest)]
    by_level = [NativeEngine(converted, level).run_tokens(tokens) for level in HERE]
    for number, text in enumerate(tokens):
        with torch.no_grad():
            ids = torch.tensor([text.ids])
            expected = encoder(ids, torch.ones_like(ids), torch.zeros_like(ids)).last_hidden_state[0].numpy()
        rows = by_level[0][number]
        assert rows.shape == expected.shape == (len(text.ids), converted.layout.config.hidden_size)
        cosines = (rows * expected).sum(axis=1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(expected, axis=1)
        assert cosines.mean() > 0.99
        assert cosines.min() > 0.97
        for others in by_level[1:]:
            np.testing.assert_array_equal(others[number], rows)
    assert NativeEngine(converted).run_tokens([]) == []


def test_the_faster_of_two_wins_a_trial():
    """With a clock of our own: each run takes as long as it says."""
    now = itertools.count().__next__() * 0.0

    def clock():
        return now

    def taking(*seconds):
        turns = itertools.cycle(seconds)

        def run():
            nonlocal now
            now += next(turns)

        return run

    assert trial.faster({"native": taking(0.010), "onnx": taking(0.011)}, clock) == "native"
    assert trial.faster({"native": taking(0.011), "onnx": taking(0.010)}, clock) == "onnx"
    assert (
        trial.faster({"native": taking(5.0, 0.001), "onnx": taking(0.002)}, clock) == "native"
    )  # the first run is not timed
    began = now
    trial.faster({"native": taking(0.001), "onnx": taking(0.001)}, clock)
    assert 0.05 <= now - began < 0.06
    trial.faster({"native": taking(1.0), "onnx": taking(2.0)}, clock)  # ends after two rounds


def test_a_trial_is_kept_in_the_cache_and_made_again_where_it_is_damaged(make_model, tmp_path, monkeypatch):
    monkeypatch.setenv("SBMINI_CACHE_DIR", str(tmp_path))
    converted = find(make_model(**SMALL))
    native, config = NativeEngine(converted, "portable"), converted.layout.config
    assert trial.recorded("portable", config) is None
    winner = trial.faster_of(native, lambda: OnnxEngine(converted), config)
    (file,) = (tmp_path / "trials").iterdir()
    word = file.read_bytes()
    assert word in (b"native", b"onnx")
    assert (winner is native) == (word == b"native")
    for word, kind in ((b"onnx", OnnxEngine), (b"native", NativeEngine)):
        file.write_bytes(word)
        assert trial.recorded("portable", config) == word.decode()
        assert isinstance(trial.faster_of(native, lambda: OnnxEngine(converted), config), kind)
    for damage in (b"", b"natives", b"\xff" * 100_000, b"native\n"):
        file.write_bytes(damage)
        assert trial.recorded("portable", config) is None
    trial.faster_of(native, lambda: OnnxEngine(converted), config)
    assert trial.recorded("portable", config) in ("native", "onnx")
    assert trial.recorded("neon_dotprod", config) is None


def test_what_runs_and_why_is_told(sbmini, monkeypatch):
    layout = find(resolve("sbert-mini-fast")).layout
    backend, reason = describe_backend(layout)
    assert backend == HERE[-1]
    assert reason == f"the fastest that this processor has of {', '.join(HERE)}"
    monkeypatch.setenv("SBMINI_BACKEND", "portable")
    assert describe_backend(layout) == ("portable", "SBMINI_BACKEND asks for it")
    done = sbmini("models", "info", "sbert-mini-fast", "--json")
    assert '"backend": "portable"' in done.stdout
    done = sbmini("encode", "a cat", "-m", "sbert-mini-fast")
    assert done.returncode == 0


WITHOUT = """
import sys
sys.modules["onnxruntime"] = None
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "onnxruntime" else find_spec(name, *rest)
from sbert_mini import Embedder
from sbert_mini.errors import MissingExtraError
print(Embedder("sbert-mini-fast").encode("a cat").shape)
for options in ({"backend": "onnx"}, {"graph": "fp32"}):
    try:
        Embedder(sys.argv[1], **options)
    except MissingExtraError as error:
        print(error)
"""


def test_without_onnx_runtime_int8_graphs_are_computed_and_the_rest_names_the_extra(make_model, tmp_path):
    path = shutil.copytree(make_model(**SMALL), tmp_path / "model")
    find(path)
    done = subprocess.run([sys.executable, "-c", WITHOUT, str(path)], capture_output=True, text=True, timeout=600)
    shape, *errors = done.stdout.splitlines()
    assert shape == "(384,)", done.stderr
    assert len(errors) == 2
    for error in errors:
        assert "needs the package onnxruntime, which is not installed: pip install 'sbert-mini[onnx]'" in error
