"""The torch-free runtime against torch, and the promises about its vectors."""

import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import threading
import time

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import quantize_embeddings

import sbert_mini
from sbert_mini import Embedder
from sbert_mini.encoder.bert import MiniBert
from sbert_mini.encoder.pooling import SentenceHead
from sbert_mini.errors import CorruptModelError, TextTooLongError, UnsupportedModelError, UsageError
from sbert_mini.model.layout import ModelLayout, read_layout
from sbert_mini.runtime import graphs
from sbert_mini.runtime.choices import PRECISIONS
from sbert_mini.runtime.engine import OnnxEngine, thread_count
from sbert_mini.runtime.graph import ActivationScale, build, quantize_columns
from sbert_mini.runtime.native import NativeEngine
from sbert_mini.runtime.npy import NpyWriter
from sbert_mini.runtime.precision import quantize_vectors
from sbert_mini.runtime.quantization import Activations, calibration_texts, choose_scale
from sbert_mini.runtime.stream import EncodeCounts
from sbert_mini.text.batching import pad
from sbert_mini.text.tokenizer import TextTokenizer


def cosine(a, b):
    return np.sum(a * b, axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def run(path, feeds, outputs):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(outputs, feeds)


@pytest.mark.parametrize(
    ("pooling", "act"),
    [
        ("mean", "gelu"),
        ("cls", "gelu_new"),
        ("max", "relu"),
        ("weightedmean", "gelu"),
        ("mean_sqrt_len_tokens", "gelu"),
        (["cls", "mean"], "gelu"),
    ],
)
def test_fp32_graph_equals_torch(make_model, rng, pooling, act):
    modules = [
        {"kind": "Pooling", "embedding_dimension": 28, "pooling_mode": pooling},
        {"kind": "Dense", "in_features": 28 * (2 if isinstance(pooling, list) else 1), "out_features": 11,
         "activation_function": "torch.nn.modules.activation.Tanh"},
        {"kind": "Normalize"},
    ]  # fmt: skip
    layout = read_layout(make_model(modules=modules, hidden_act=act))
    converted = graphs.find(layout.path, "fp32")
    ids = rng.integers(0, 60, (3, 17))
    mask = np.array([[1] * n + [0] * (17 - n) for n in (17, 2, 9)])
    types = rng.integers(0, 2, (3, 17))
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    tokens, sentence = run(converted.file, feeds, ["token_embeddings", "sentence_embedding"])
    batch = {name: torch.from_numpy(array) for name, array in feeds.items()}
    with torch.no_grad():
        hidden = MiniBert.from_pretrained(layout.path)(**batch).last_hidden_state
        expected = SentenceHead(layout)(hidden, batch["attention_mask"])
    seen = mask.astype(bool)
    np.testing.assert_allclose(tokens[seen], hidden.numpy()[seen], atol=2e-5)
    np.testing.assert_allclose(sentence, expected.numpy(), atol=1e-5)


def test_the_int8_arithmetic_is_the_one_described(rng):
    # One product, computed as `ActivationScale` and `quantize_columns` say, in integers, by NumPy.
    weight = rng.standard_normal((13, 7)).astype(np.float32)
    x = rng.standard_normal((5, 13)).astype(np.float32) * 3
    scale = ActivationScale(0.05, 117, rng.uniform(0.5, 2, 13).astype(np.float32))
    q, columns = quantize_columns(weight * scale.smooth[:, None])
    assert q.dtype == np.int8
    assert np.abs(q * columns - weight * scale.smooth[:, None]).max() <= columns.max() / 2 + 1e-6
    x8 = np.clip(np.rint(x / scale.smooth / scale.scale) + scale.zero_point, 0, 255).astype(np.int64)
    by_hand = (x8 - scale.zero_point) @ q.astype(np.int64) * scale.scale * columns
    inside = np.abs(x / scale.smooth) < 117 * 0.05
    assert inside.mean() > 0.7
    clipped = np.clip(x / scale.smooth, -117 * 0.05, 138 * 0.05) * scale.smooth
    assert cosine(by_hand, clipped @ weight).min() > 0.999


def test_chosen_scales_follow_the_data(rng):
    weight = rng.standard_normal((32, 16)).astype(np.float32)
    plain = rng.standard_normal((300, 32)).astype(np.float32)
    spiked = plain.copy()
    spiked[:, 3] *= 60  # one channel of outliers, as BERT has
    for x in (plain, spiked):
        seen = Activations(every=2)
        seen.add(x)
        scale = choose_scale(seen, weight)
        smooth = 1 if scale.smooth is None else scale.smooth
        x8 = np.clip(np.rint(x / smooth / scale.scale) + scale.zero_point, 0, 255)
        q, columns = quantize_columns(weight * (1 if scale.smooth is None else smooth[:, None]))
        y = ((x8 - scale.zero_point) * scale.scale) @ (q * columns)
        error = np.square(y - x @ weight).mean() / np.square(x @ weight).mean()
        assert error < 1e-3
    assert scale.smooth is not None
    assert scale.smooth.argmax() == 3


def test_real_model_int8_is_close_to_fp32_and_fp32_to_sentence_transformers(embedder, exact_embedder, minilm, passages):
    texts = [row["title"] for row in passages]
    theirs = SentenceTransformer(str(minilm), local_files_only=True).encode(texts)
    exact, int8 = exact_embedder.encode(texts), embedder.encode(texts)
    assert exact.shape == int8.shape == (240, 384)
    assert int8.dtype == exact.dtype == np.float32
    assert (1 - cosine(exact, theirs)).max() <= 1e-6
    assert cosine(int8, exact).mean() >= 0.996
    np.testing.assert_allclose(np.linalg.norm(int8, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(("name", "least"), [("embedder", 0.9999), ("exact_embedder", 0.999999)])
def test_a_vector_does_not_depend_on_its_batch(request, passages, name, least):
    model = request.getfixturevalue(name)
    texts = [row["title"] for row in passages[:48]] + [row["text"] for row in passages[:16]]
    order = np.random.default_rng(0).permutation(len(texts))
    alone = np.stack([model.encode(texts[i]) for i in order])
    in_batches = np.concatenate([model.encode([texts[i] for i in order[j : j + 32]]) for j in (0, 32)])
    tokens = model.tokenizer.encode([texts[i] for i in order])
    padded = np.concatenate([model._engine.run(tokens[j : j + 32]) for j in (0, 32)])  # short beside long
    assert cosine(alone, in_batches).min() >= least
    assert cosine(alone, padded).min() >= least


def test_processors_that_need_the_other_int8_kernel_get_the_same_vectors(embedder, passages):
    texts = [row["title"] for row in passages[:32]]
    tokens = embedder.tokenizer.encode(texts)
    one, other = (OnnxEngine(embedder._converted, wide_int8=wide).run(tokens) for wide in (None, True))
    assert cosine(one, other).min() >= 0.9999
    assert cosine(NativeEngine(embedder._converted).run(tokens), other).min() >= 0.998


def test_sts_quality_of_the_int8_graph(embedder, exact_embedder, data):
    import gzip

    from scipy.stats import spearmanr

    with gzip.open(data / "stsb_test.tsv.gz", "rt", encoding="utf-8") as stream:
        rows = [line.rstrip("\n").split("\t") for line in stream][1:]
    gold = [float(row[0]) for row in rows]
    found = {}
    for name, model in (("int8", embedder), ("fp32", exact_embedder)):
        a, b = (model.encode([row[column] for row in rows]) for column in (1, 2))
        found[name] = 100 * spearmanr(np.sum(a * b, axis=1), gold).statistic
    assert found["fp32"] == pytest.approx(82.03, abs=0.05)  # published
    assert found["int8"] >= found["fp32"] - 0.3


def test_order_and_number_survive_windows_threads_and_batches(embedder, passages):
    texts = [row["title"] for row in passages] + ["", "x"]
    expected = embedder.encode(texts)
    blocks = list(embedder.encode_stream(iter(texts), batch_size=3, window=7, max_tokens=40))
    assert [len(b) for b in blocks] == [7] * (242 // 7) + [242 % 7]
    assert cosine(np.concatenate(blocks), expected).min() >= 0.9999
    one = Embedder(embedder.path, threads=1).encode(texts)
    np.testing.assert_allclose(one, expected, atol=1e-3)


def test_single_texts_lists_iterators_and_nothing(embedder):
    single = embedder.encode("a cat")
    assert single.shape == (384,)
    np.testing.assert_array_equal(embedder.encode(["a cat"])[0], single)
    np.testing.assert_array_equal(embedder.encode(t for t in ["a cat"])[0], single)
    assert embedder.encode([]).shape == (0, 384)
    with pytest.raises(UsageError, match="text 1 is a int"):
        embedder.encode(["a", 5])
    with pytest.raises(UsageError, match="one string was given"):
        embedder.encode_stream("hello")


def test_reading_stays_a_few_windows_ahead(embedder):
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield f"text {read}"

    stream = embedder.encode_stream(endless(), window=4)
    for blocks in range(1, 6):
        assert next(stream).shape == (4, 384)
        assert read <= 4 * (blocks + 3)
    stream.close()
    deadline = time.monotonic() + 600
    while any(t.name.startswith("sbmini") for t in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [t for t in threading.enumerate() if t.name.startswith("sbmini")]


def test_truncation_is_told_refused_or_avoided(embedder, caplog):
    long = " ".join(f"bread{i} dough" for i in range(300))
    counts = EncodeCounts()
    with caplog.at_level(logging.WARNING):
        cut = embedder.encode(["short", long, "also short"], counts=counts)
    assert "1 of 3 texts were longer than 256 tokens, and were cut" in caplog.text
    assert (counts.texts, counts.truncated) == (3, 1)
    with pytest.raises(TextTooLongError, match=r"text 1 \(counted from 0\) is longer than 256 tokens"):
        embedder.encode(["short", long], truncation="error")
    chunked = embedder.encode(["short", long, "also short"], truncation="chunk")
    np.testing.assert_allclose(chunked[[0, 2]], cut[[0, 2]], atol=1e-3)
    windows = embedder.tokenizer.windows(long)
    parts = np.concatenate([embedder._engine.run([w]) for w in windows])
    by_hand = np.sum(parts * np.array([[len(w.ids) - 2] for w in windows]), axis=0)
    assert cosine(chunked[1], by_hand) >= 0.9999
    assert cosine(chunked[1], cut[1]) < 0.9999


def test_truncated_dimensions_are_unit_vectors_of_the_first_components(exact_embedder):
    whole, part = exact_embedder.encode(["a cat"]), exact_embedder.encode(["a cat"], truncate_dim=31)
    np.testing.assert_allclose(part[0], whole[0, :31] / np.linalg.norm(whole[0, :31]), atol=1e-6)
    raw = exact_embedder.encode(["a cat"], truncate_dim=31, normalize_embeddings=False)
    np.testing.assert_allclose(raw[0], whole[0, :31], atol=1e-6)
    for wrong in (385, 0):
        with pytest.raises(UsageError, match=f"from 1 to 384.*found {wrong}"):
            exact_embedder.encode(["a"], truncate_dim=wrong)


def test_prompts(make_model):
    path = make_model()
    (path / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "cat ", "passage": "dog "}, "default_prompt_name": None})
    )
    model = Embedder(path)
    for named, literal in (("encode_query", "cat a tree"), ("encode_document", "dog a tree"), ("encode", "a tree")):
        np.testing.assert_array_equal(getattr(model, named)(["a tree"]), model.encode([literal]))
    np.testing.assert_array_equal(model.encode("a tree", prompt="red "), model.encode("red a tree"))
    np.testing.assert_array_equal(model.encode_query("a tree", prompt=""), model.encode("a tree"))
    with pytest.raises(UsageError, match="no prompt named 'task'; it has: query, passage"):
        model.encode("a", prompt_name="task")
    with pytest.raises(UsageError, match="normalize_embeddings"):
        model.encode("a", normalize_embeddings=False)


def test_a_prompt_outside_the_pooling_is_refused_not_ignored(make_model):
    pooling = {"kind": "Pooling", "embedding_dimension": 28, "pooling_mode": "mean", "include_prompt": False}
    model = Embedder(make_model(modules=[pooling]))
    assert model.encode("a cat").shape == (28,)
    with pytest.raises(UnsupportedModelError, match="prompt"):
        model.encode("a cat", prompt="the ")


@pytest.mark.parametrize("kind", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarity_equals_sentence_transformers(make_model, rng, kind):
    path = make_model(modules=[{"kind": "Pooling", "embedding_dimension": 28, "pooling_mode": "mean"}])
    (path / "config_sentence_transformers.json").write_text(json.dumps({"similarity_fn_name": kind}))
    a, b = rng.standard_normal((3, 28)).astype(np.float32), rng.standard_normal((5, 28)).astype(np.float32)
    theirs = SentenceTransformer(str(path), local_files_only=True).similarity(a, b).numpy()
    np.testing.assert_allclose(Embedder(path).similarity(a, b), theirs, atol=1e-4)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precisions_equal_sentence_transformers(rng, precision):
    vectors = rng.standard_normal((150, 19)).astype(np.float32)
    theirs = quantize_embeddings(vectors, precision)
    ours = quantize_vectors(vectors, precision)
    assert ours.dtype == theirs.dtype
    # the top of each range is 255 here, and wraps around or is one step lower there
    top = vectors == vectors.max(axis=0) if precision in ("int8", "uint8") else np.zeros(ours.shape, bool)
    assert np.abs(ours[~top].astype(int) - theirs[~top].astype(int)).max() <= (1 if top.any() else 0)


def test_precision_keeps_given_ranges_and_refuses_nonsense(rng):
    vectors = np.array([[-2.0, 0.5], [0.0, 9.0]], np.float32)
    ranges = np.array([[-1, 0], [1, 1]], np.float32)
    np.testing.assert_array_equal(quantize_vectors(vectors, "uint8", ranges), [[0, 127], [127, 255]])
    np.testing.assert_array_equal(quantize_vectors(vectors, "ubinary"), [[0b01000000], [0b01000000]])
    with pytest.raises(UsageError, match="int4"):
        quantize_vectors(vectors, "int4")
    with pytest.raises(UsageError, match=r"\(2, 2\)"):
        quantize_vectors(vectors, "int8", ranges[:, :1])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=6), st.integers(1, 9))
def test_npy_file_is_what_numpy_reads(tmp_path_factory, sizes, dimension):
    path = tmp_path_factory.mktemp("npy") / "v.npy"
    blocks = [np.random.default_rng(n).standard_normal((n, dimension)).astype(np.float32) for n in sizes]
    with NpyWriter(path, dimension) as writer:
        for block in blocks:
            writer.write(block)
    np.testing.assert_array_equal(
        np.load(path, allow_pickle=False), np.concatenate([np.empty((0, dimension), np.float32), *blocks])
    )


def test_npy_file_appears_whole_or_not_at_all(tmp_path, embedder):
    path = tmp_path / "v.npy"
    path.write_bytes(b"before")

    def failing():
        yield "one"
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="the disk went away"):
        embedder.encode_to_npy(failing(), path)
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["v.npy"]
    assert embedder.encode_to_npy(["one", "two"], path) == (2, 384)
    np.testing.assert_array_equal(np.load(path), embedder.encode(["one", "two"]))


# --- conversion -----------------------------------------------------------------------------------------------------


def test_a_model_is_converted_once_and_told_so(make_model, caplog):
    path = make_model()
    with caplog.at_level(logging.WARNING):
        first = graphs.find(path, "int8")
    assert caplog.text.count("converting") == 1
    assert first.file == path / "onnx" / "model_int8.onnx"
    times = {f.name: f.stat().st_mtime_ns for f in (path / "onnx").iterdir()}
    assert set(times) == {"model.onnx", "model_int8.onnx", "ranges.json", "sbmini.json"}
    assert graphs.find(path, "fp32").fingerprint == first.fingerprint
    assert times == {f.name: f.stat().st_mtime_ns for f in (path / "onnx").iterdir()}
    assert caplog.text.count("converting") == 1
    graph = onnx.load(first.file).graph
    assert [o.name for o in graph.output] == ["token_embeddings", "sentence_embedding"]
    assert [i.name for i in graph.input] == ["input_ids", "attention_mask", "token_type_ids"]


def test_conversion_gives_the_same_bytes_again(make_model):
    path = make_model()
    first = graphs.find(path, "int8").file.read_bytes()
    shutil.rmtree(path / "onnx")
    assert graphs.find(path, "int8").file.read_bytes() == first


@pytest.mark.parametrize(
    "change",
    ["weights", pytest.param("one bias", marks=pytest.mark.long), "tokenizer", "tokenizer settings", "pooling"],
)
def test_a_changed_model_is_converted_again(make_model, change):
    modules = [{"kind": "Pooling", "embedding_dimension": 28, "pooling_mode": "mean"}]
    sizes = {"hidden_size": 280, "num_hidden_layers": 2, "vocab_size": 16_000}  # 19 MB: more than a sample would cover
    path = make_model(modules=modules, **(sizes if change == "one bias" else {}))
    before, vector = graphs.find(path), Embedder(path).encode("the cat")
    if change == "weights":
        model = MiniBert.from_pretrained(path)
        with torch.no_grad():
            model.encoder.layer[2].output.dense.bias[3] += 5
        model.save_pretrained(path)
    elif change == "one bias":
        model = MiniBert.from_pretrained(path)
        with torch.no_grad():
            model.encoder.layer[1].output.dense.bias[7] += 9
        model.save_pretrained(path)
    elif change == "tokenizer settings":
        (path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "model_max_length": 31}))
    elif change == "tokenizer":
        words = (path / "vocab.txt").read_text().replace("cat", "cow")
        (path / "vocab.txt").write_text(words)
    else:
        (path / "1_Pooling" / "config.json").write_text(json.dumps({"embedding_dimension": 28, "pooling_mode": "cls"}))
    after = graphs.find(path)
    assert after.fingerprint != before.fingerprint
    if change == "tokenizer settings":
        vector = Embedder(path).encode("THE CAT")
    assert not np.allclose(Embedder(path).encode("the cat"), vector, atol=1e-3)


def test_a_copied_model_is_not_converted_again(make_model, tmp_path, caplog):
    path = make_model()
    before = graphs.find(path)
    shutil.copytree(path, tmp_path / "copy", copy_function=shutil.copyfile)  # other times of change
    caplog.clear()
    assert graphs.find(tmp_path / "copy").fingerprint == before.fingerprint
    assert "converting" not in caplog.text


def test_a_missing_or_unreadable_graph_is_made_again(make_model, caplog):
    path = make_model()
    expected = graphs.find(path).file.read_bytes()
    for damage in (
        (path / "onnx" / "model_int8.onnx").unlink,
        lambda: (path / "onnx" / "model.onnx").write_bytes(b"short"),
        lambda: (path / "onnx" / "sbmini.json").write_text(""),
        lambda: (path / "onnx" / "sbmini.json").write_text("[]"),
    ):
        damage()
        caplog.clear()
        assert graphs.find(path).file.read_bytes() == expected
        assert "is missing, damaged" in caplog.text
        assert "converting" in caplog.text


def test_modules_in_another_order_are_refused(make_model):
    dense = {"kind": "Dense", "in_features": 28, "out_features": 11}
    pooling = {"kind": "Pooling", "embedding_dimension": 28, "pooling_mode": "mean"}
    for modules in ([pooling, {"kind": "Normalize"}, dense], [dense, pooling], [pooling, pooling]):
        named = [{**m, "path": i} for i, m in enumerate(modules)]
        with pytest.raises(UnsupportedModelError, match="the order that is run is Pooling, Dense, Normalize"):
            Embedder(make_model(modules=named))


def test_an_old_layout_with_the_encoder_in_a_folder_is_read(make_model):
    path = make_model(modules=[{"kind": "Pooling", "embedding_dimension": 28, "pooling_mode": "cls"}])
    expected = Embedder(path, graph="fp32").encode("the cat sleeps")
    shutil.rmtree(path / "onnx")
    (path / "0_Transformer").mkdir()
    for name in ("config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"):
        (path / name).rename(path / "0_Transformer" / name)
    modules = json.loads((path / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (path / "modules.json").write_text(json.dumps(modules))
    np.testing.assert_array_equal(Embedder(path, graph="fp32").encode("the cat sleeps"), expected)
    np.testing.assert_allclose(
        sbert_mini.load(path).encode("the cat sleeps", normalize_embeddings=True), expected, atol=1e-6
    )


def test_tokenizing_starts_no_threads_of_its_own(minilm):
    script = """
import os, sys, time
from sbert_mini import Embedder
embedder = Embedder(sys.argv[1], threads=1)
before = len(os.listdir("/proc/self/task"))
embedder.encode([f"text {i} of many words" for i in range(600)])
end = time.monotonic() + 120  # a pool's ended threads leave /proc a moment later; a tokenizer's own would stay
while len(os.listdir("/proc/self/task")) > before and time.monotonic() < end:
    time.sleep(0.01)
print(before, len(os.listdir("/proc/self/task")))
"""
    environment = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run([sys.executable, "-c", script, str(minilm)], capture_output=True, text=True, env=environment)
    before, after = map(int, done.stdout.split())
    assert after <= before


def test_another_tools_graph_is_left_alone_and_the_cache_used(make_model, tmp_path, monkeypatch):
    monkeypatch.setenv("SBMINI_CACHE_DIR", str(tmp_path / "cache"))
    path = make_model()
    (path / "onnx").mkdir()
    (path / "onnx" / "model.onnx").write_bytes(b"somebody else's")
    found = graphs.find(path)
    assert found.file.is_relative_to(tmp_path / "cache" / "graphs")
    assert [f.name for f in (path / "onnx").iterdir()] == ["model.onnx"]
    assert graphs.find(path).file == found.file
    assert Embedder(path).encode("the cat").shape == (28,)


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root can write everywhere")
def test_a_directory_that_cannot_be_written_uses_the_cache(make_model, tmp_path, monkeypatch):
    monkeypatch.setenv("SBMINI_CACHE_DIR", str(tmp_path / "cache"))
    path = make_model()
    (path / "onnx").write_text("a file stands where the folder would be")
    (path / "onnx").chmod(stat.S_IRUSR)
    assert graphs.find(path).file.is_relative_to(tmp_path / "cache" / "graphs")


def test_graphs_without_weights_are_enough(make_model):
    path = make_model()
    expected = Embedder(path).encode("the cat sleeps")
    fingerprint = graphs.find(path).fingerprint
    (path / "model.safetensors").unlink()
    assert graphs.find(path).fingerprint == fingerprint
    np.testing.assert_array_equal(Embedder(path).encode("the cat sleeps"), expected)
    shutil.rmtree(path / "onnx")
    with pytest.raises(CorruptModelError, match=r"no model\.safetensors"):
        Embedder(path)


def test_a_damaged_graph_is_found(make_model, rng):
    path = make_model()
    file = graphs.find(path).file
    data = bytearray(file.read_bytes())
    for position in rng.integers(0, len(data), 12):
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        with pytest.raises(CorruptModelError, match="does not match its checksum"):
            Embedder(path)


def test_unknown_graph_and_thread_counts_are_usage_errors(make_model, monkeypatch):
    with pytest.raises(UsageError, match="'int4'"):
        Embedder(make_model(), graph="int4")
    with pytest.raises(UsageError, match=r"threads .* found '0'"):
        thread_count(0)
    monkeypatch.delenv("SBMINI_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert thread_count() == 3
    monkeypatch.setenv("SBMINI_THREADS", "5")
    assert thread_count() == 5
    assert thread_count(7) == 7
    monkeypatch.setenv("SBMINI_THREADS", "many")
    with pytest.raises(UsageError, match=r"SBMINI_THREADS .* 'many'"):
        thread_count()


def test_both_halves_agree_on_a_directory_that_training_saved(make_model, tmp_path):
    model = sbert_mini.load(
        make_model(modules=[{"kind": "Pooling", "embedding_dimension": 28, "pooling_mode": "mean"}])
    )
    model.save(str(tmp_path / "saved"))
    texts = ["the cat [SEP] sleeps", "a red house?"]
    vectors = Embedder(tmp_path / "saved", graph="fp32").encode(texts)
    assert (1 - cosine(vectors, model.encode(texts))).max() <= 1e-6


def test_calibration_covers_short_and_long_texts(minilm):
    lengths = [len(t.ids) for t in TextTokenizer.from_directory(minilm, 512).encode(calibration_texts())]
    assert len(lengths) > 300
    assert min(lengths) < 10
    assert lengths.count(512) >= 5


def test_an_int8_graph_needs_a_scale_for_each_product(make_model):
    layout: ModelLayout = read_layout(make_model())
    from sbert_mini.model.weights import read_bert_weights

    weights = read_bert_weights(layout.path, layout.config)
    with pytest.raises(KeyError, match=r"0\.qkv"):
        build(weights, layout, {})


def test_empty_batches_have_no_tokens():
    ids, mask, types = pad([], 0)
    assert ids.shape == mask.shape == types.shape == (0, 0)
