"""Static models: sums of token vectors by native code and by NumPy, in every batch, and what they refuse."""

import numpy as np
import pytest

from sbert_mini import Embedder
from sbert_mini.errors import CorruptModelError, UnsupportedModelError, UsageError
from sbert_mini.model.layout import read_layout
from sbert_mini.model.token_table import TokenTable, find_table, read_table
from sbert_mini.native.library import Array
from sbert_mini.runtime import table_engine
from sbert_mini.runtime.engine import describe_backend
from sbert_mini.text.tokens import Tokens

TEXTS = ["The cat sleeps.", "dog", "the dog. the dog. the cat", "zebra", "sss sleep", "", "\u200b"]
needs_native = pytest.mark.skipif(table_engine.library() is None, reason="no native code: not compiled")


def by_hand(path, embedder, text):
    """The mean of the text's own tokens' vectors, scaled to length 1, in float64."""
    rows = read_table(find_table(path)).floats().astype(np.float64)
    total = rows[embedder.tokenizer.encode([text])[0].ids[1:-1]].sum(axis=0)
    return total / max(np.linalg.norm(total), 1e-12)


@pytest.fixture(params=["native", "NumPy"])
def each_way(request, monkeypatch):
    if request.param == "NumPy":
        monkeypatch.setattr(table_engine, "library", lambda: None)
    elif table_engine.library() is None:
        pytest.skip("no native code: not compiled")
    return request.param


def test_a_vector_is_the_scaled_sum_of_the_texts_own_tokens(static_model, each_way):
    path = static_model()
    embedder = Embedder(path, threads=1)
    assert embedder.backend == f"{each_way}, a table"
    expected = np.array([by_hand(path, embedder, text) for text in TEXTS])
    vectors = embedder.encode(TEXTS)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors[:5], axis=1), 1, atol=1e-6)
    assert not vectors[5:].any()


@needs_native
def test_the_bits_depend_on_no_batch_and_no_number_of_threads(static_model):
    path = static_model(dimension=34)
    one, three = Embedder(path, threads=1), Embedder(path, threads=3)
    several = [" ".join(np.random.default_rng(i).choice(["the", "cat", "dogs", "."], 3 + i % 5)) for i in range(97)]
    expected = np.stack([one.encode(text) for text in several])
    for embedder, size in ((one, 7), (three, 1), (three, 32)):
        assert embedder.encode(several, batch_size=size).tobytes() == expected.tobytes()


@needs_native
@pytest.mark.parametrize("dimension", [2, 22, 64])
def test_packed_and_float_rows_give_the_same_bits(static_model, dimension):
    file = find_table(static_model(dimension=dimension))
    engine = table_engine.TableEngine(file, {2, 3})
    tokens = [Tokens([2, *range(4, 4 + n), 3], [0] * (n + 2), False) for n in range(8)]
    packed = engine.run(tokens)
    engine._table = TokenTable(engine._table.floats(), None)
    assert engine.run(tokens).tobytes() == packed.tobytes()


def test_options_of_other_models_work_too(static_model):
    path = static_model(limit=6)
    embedder = Embedder(path, threads=1)
    whole = embedder.encode(TEXTS[:3])
    cut = embedder.encode(TEXTS[:3], truncate_dim=5)
    np.testing.assert_allclose(cut, whole[:, :5] / np.linalg.norm(whole[:, :5], axis=1, keepdims=True), atol=1e-6)
    long = "the cat the dog the dog"
    np.testing.assert_allclose(embedder.encode(long), embedder.encode("the cat the dog"), atol=1e-6)
    np.testing.assert_allclose(
        embedder.encode(long, truncation="chunk"), by_hand(path, Embedder(static_model()), long), atol=0.2
    )
    assert embedder.encode(TEXTS[:2], precision="int8").dtype == np.int8
    assert Embedder(path, graph="fp32").encode("cat").tobytes() == embedder.encode("cat").tobytes()


def test_what_has_no_meaning_is_one_error(static_model):
    path = static_model()
    for options, text in (({"backend": "onnx"}, "not the backend onnx"), ({"device": "cuda"}, "on the CPU alone")):
        with pytest.raises(UsageError, match=text):
            Embedder(path, **options)
    with pytest.raises(UsageError, match="graph must be one of"):
        Embedder(path, graph="int4")
    from sbert_mini.runtime.graphs import find

    with pytest.raises(UnsupportedModelError, match="it has no encoder"):
        find(path)


def test_a_changed_table_does_not_match_its_record(static_model):
    path = static_model()
    file = path / "token_vectors.safetensors"
    data = bytearray(file.read_bytes())
    data[-30] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptModelError, match="does not match its checksum"):
        Embedder(path)


def test_the_fingerprint_follows_the_table_and_the_tokenizer(static_model):
    one, same, other = (Embedder(static_model(seed=seed, space="a" * 64)) for seed in (0, 0, 1))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert one.space == other.space == "a" * 64
    plain = Embedder(static_model())
    assert plain.space == plain.fingerprint


def test_a_tokenizer_of_more_words_than_the_table_is_refused(static_model, each_way):
    path = static_model()
    (path / "vocab.txt").write_text((path / "vocab.txt").read_text() + "zebra\n")
    with pytest.raises(CorruptModelError, match="ids up to 13, and its vocab_size is 13"):
        Embedder(path)
    engine = table_engine.TableEngine(find_table(path), ())
    for ids in ([13], [-1], [1 << 40]):
        with pytest.raises(CorruptModelError, match="do not belong together"):
            engine.run([Tokens(ids, [0], False)])


@needs_native
def test_native_code_checks_its_arguments(static_model):
    def call(rows=(3, 4), scales=3, ids=(0, 2), offsets=(0, 1, 2), out=(2, 8)):
        arrays = [
            np.zeros(rows, np.uint8),
            np.zeros(scales, np.float32),
            np.array(ids, np.int32),
            np.array(offsets, np.int64),
            np.zeros(out, np.float32),
        ]
        status = loaded.sbmini_table_packed(*map(Array.of, arrays))
        return loaded.sbmini_error(status).decode() if status else ""

    def floats(dim, **change):
        arrays = {
            "rows": np.zeros(12, np.float32),
            "ids": np.zeros(1, np.int32),
            "offsets": np.array([0, 1]),
            "out": np.zeros(4, np.float32),
        } | change
        rows, *others = map(Array.of, arrays.values())
        return loaded.sbmini_table_floats(rows, dim, *others)

    loaded = table_engine.library()
    assert call() == ""
    assert call(ids=(), offsets=(0,), out=(0, 8)) == ""
    for change in (
        {"rows": (3, 0)},
        {"scales": 2},
        {"scales": 0},
        {"ids": (0, 3)},
        {"ids": (0, -1)},
        {"offsets": (0, 2, 1)},
        {"offsets": (0, 3, 2)},
        {"offsets": (1, 1, 2)},
        {"offsets": (0, 1)},
        {"offsets": ()},
        {"out": (2, 7)},
    ):
        assert call(**change), change
    assert floats(4) == 0
    for dim in (0, -1, 5, 1 << 40):
        assert floats(dim) != 0
    assert loaded.sbmini_table_packed(*[Array(None, 0)] * 5) != 0


def test_a_static_model_says_what_computes_it(static_model, each_way):
    backend, reason = describe_backend(read_layout(static_model()))
    assert backend == each_way.lower()
    assert reason
