"""8-bit vectors: the ranges are the model's, so that a text has the same bytes wherever it stands."""

import copy
import json
import shutil

import numpy as np
import pytest

from sbert_mini import Embedder, IndexWriter, SearchIndex
from sbert_mini.errors import UsageError
from sbert_mini.model import registry
from sbert_mini.runtime import graphs
from sbert_mini.runtime.precision import ComponentRanges, measure_ranges, quantize_vectors, restore_vectors
from sbert_mini.runtime.quantization import calibration_texts


@pytest.mark.parametrize("precision", ["int8", "uint8"])
@pytest.mark.parametrize("dim", [None, 7])
def test_a_text_has_the_same_values_alone_and_in_any_company(default_embedder, passages, precision, dim):
    texts = [row["text"] for row in passages[:41]]
    together = default_embedder.encode(texts, precision=precision, truncate_dim=dim)
    assert together.dtype == precision
    for i in (0, 5, 40):
        alone = default_embedder.encode(texts[i], precision=precision, truncate_dim=dim)
        # ONNX Runtime's sums depend on the batch in the last digit, and a value at the edge of a step may then change
        assert (alone != together[i]).sum() <= (0 if default_embedder.backend.startswith("native") else 1)
    exact = default_embedder.encode(texts, truncate_dim=dim)
    np.testing.assert_array_equal(quantize_vectors(exact, precision, default_embedder.component_ranges(dim)), together)


def test_ranges_that_are_given_win_and_bad_dimensions_are_refused(default_embedder):
    ranges = np.stack([np.full(384, -1), np.full(384, 1)]).astype(np.float32)
    expected = np.trunc((default_embedder.encode("a cat") + 1) / np.float32(2 / 255) - 128)
    np.testing.assert_allclose(default_embedder.encode("a cat", precision="int8", ranges=ranges), expected, atol=1)
    for dim in (0, 385):
        with pytest.raises(UsageError, match=f"from 1 to 384, the model's dimension; found {dim}"):
            default_embedder.component_ranges(dim)


def test_measured_ranges_are_mean_and_deviations_rounded_outwards():
    vectors = np.array([[0.6, 0.8], [0.8, 0.6], [0.6, 0.8], [0.8, 0.6]], np.float32)
    ranges = measure_ranges(vectors)  # mean 0.7, deviation 0.1: 0.7 - 0.45 and 0.7 + 0.45
    np.testing.assert_allclose(ranges.low, [0.25, 0.25], atol=3e-4)
    np.testing.assert_allclose(ranges.high, [1.15, 1.15], atol=3e-4)
    assert (ranges.low < 0.25).all()
    assert (ranges.high > 1.15).all()
    np.testing.assert_allclose(ranges.growth, [(1 / 0.6 + 1 / 0.8) / 2, 1], atol=1e-4)
    np.testing.assert_allclose(
        ranges.of(2), [[0.25, 0.25], [1, 1]], atol=3e-4
    )  # no component is longer than its vector
    np.testing.assert_allclose(ranges.of(1), [[0.25 * 1.4583], [1]], atol=1e-3)
    np.testing.assert_allclose(ranges.of(1, normalized=False), [[0.25], [1]], atol=3e-4)
    constant = measure_ranges(np.full((5, 1), 0.5, np.float32))
    assert constant.low < 0.5 < constant.high


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_restored_vectors_lie_within_a_step_of_the_exact_ones(rng, precision):
    vectors = rng.uniform(-0.7, 0.9, (53, 11)).astype(np.float32)
    ranges = np.stack([np.full(11, -0.7), np.linspace(0.9, 1.9, 11)]).astype(np.float32)
    step = (ranges[1] - ranges[0]) / 255
    error = restore_vectors(quantize_vectors(vectors, precision, ranges), ranges) - vectors
    assert (np.abs(error) <= 1.01 * step).all()
    assert np.abs(error.mean()) < 0.1 * step.mean()
    ends = restore_vectors(quantize_vectors(ranges, precision, ranges), ranges)
    assert ((ends >= ranges[0]) & (ends <= ranges[1])).all()
    with pytest.raises(UsageError, match="int8 or uint8; found float32"):
        restore_vectors(vectors, ranges)
    with pytest.raises(UsageError, match=r"\(2, 11\)"):
        restore_vectors(quantize_vectors(vectors, precision, ranges), ranges[:, :3])


def test_what_lies_outside_the_ranges_gets_the_nearest_value_and_does_not_wrap_around():
    vectors = np.array([[-9, -1.01], [-1.01, 0.25], [1.01, 1.5], [9, 99]], np.float32)
    ranges = np.array([[-1, -1], [1, 1]], np.float32)
    np.testing.assert_array_equal(
        quantize_vectors(vectors, "int8", ranges), np.array([[-128, -128], [-128, 31], [127, 127], [127, 127]], np.int8)
    )
    np.testing.assert_array_equal(
        quantize_vectors(vectors, "uint8", ranges), np.array([[0, 0], [0, 159], [255, 255], [255, 255]], np.uint8)
    )


@pytest.mark.parametrize("name", ["sbert-mini", "sbert-mini-fast"])
def test_shipped_ranges_are_those_of_the_calibration_texts(name):
    folder = registry.resolve(name) / "onnx"
    stored, record = (json.loads((folder / file).read_bytes()) for file in ("ranges.json", "sbmini.json"))
    assert stored["fingerprint"] == record["fingerprint"]
    measured = measure_ranges(Embedder(name, threads=2).encode(calibration_texts(), prompt=""))
    for key, array in vars(measured).items():
        np.testing.assert_allclose(stored[key], array, rtol=0.05, atol=0.004)  # other processors, other last digits


def test_conversion_writes_ranges_and_an_older_directory_gets_them_once(make_model, caplog):
    path = make_model()
    converted = graphs.find(path)
    file = path / "onnx" / "ranges.json"
    written = file.read_bytes()
    vector = Embedder(path).encode("the cat", precision="int8")
    assert "measuring" not in caplog.text
    for damage in (file.unlink, lambda: file.write_text("{}"), lambda: file.write_text("nonsense")):
        damage()
        caplog.clear()
        embedder = Embedder(path)
        embedder.encode("the cat", precision="int8")
        assert caplog.text.count("measuring the ranges") == 1
        caplog.clear()
        np.testing.assert_array_equal(
            embedder.encode("the cat", precision="int8"), Embedder(path).encode("the cat", precision="int8")
        )
        assert "measuring" not in caplog.text
    file.write_bytes(written.replace(converted.fingerprint.encode(), b"0" * 64))  # of another model
    Embedder(path).encode("the cat", precision="int8")
    assert json.loads(file.read_bytes())["fingerprint"] == converted.fingerprint
    shutil.rmtree(path / "onnx")
    np.testing.assert_array_equal(Embedder(path).encode("the cat", precision="int8"), vector)
    assert file.read_bytes() == written


def test_both_graphs_of_a_shipped_model_have_its_ranges(default_embedder):
    exact = Embedder(graph="fp32", threads=2)
    np.testing.assert_array_equal(exact.component_ranges(), default_embedder.component_ranges())


def test_ranges_cut_to_fewer_components_are_kept_in_the_unit_interval():
    ranges = ComponentRanges(np.array([-0.1, -0.2]), np.array([0.1, 0.3]), np.array([20.0, 1.0]))
    np.testing.assert_array_equal(ranges.of(1), np.array([[-1], [1]], np.float32))


def test_nothing_is_written_into_a_model_that_an_index_names(tmp_path, converted_model, monkeypatch):
    monkeypatch.setenv("SBMINI_CACHE_DIR", str(tmp_path / "cache"))
    model = converted_model()
    IndexWriter(tmp_path / "x", Embedder(model, threads=1)).create(["the cat", "a dog"])
    (model / "onnx" / "ranges.json").unlink()
    before = {file: file.stat().st_mtime_ns for file in model.rglob("*")}
    embedder = SearchIndex(tmp_path / "x", threads=1).embedder()
    for opened in (embedder, copy.copy(embedder), IndexWriter(tmp_path / "x").add(["the cat sleeps"]).embedder()):
        assert opened.component_ranges().shape == (2, opened.dimension)
        opened.encode("the cat", precision="int8")
    assert {file: file.stat().st_mtime_ns for file in model.rglob("*")} == before
    assert list((tmp_path / "cache").rglob("ranges.json"))


def test_a_read_only_model_is_converted_in_the_cache(tmp_path, make_model, monkeypatch):
    monkeypatch.setenv("SBMINI_CACHE_DIR", str(tmp_path / "cache"))
    model = make_model()
    before = sorted(model.rglob("*"))
    Embedder(model, threads=1, read_only=True).encode("the cat", precision="int8")
    assert sorted(model.rglob("*")) == before
    assert list((tmp_path / "cache").rglob("model_int8.onnx"))


def test_a_record_with_the_fingerprint_of_another_model_gives_it_no_ranges(tmp_path, converted_model, monkeypatch):
    monkeypatch.setenv("SBMINI_CACHE_DIR", str(tmp_path / "cache"))
    model, stranger = converted_model(seed=1), converted_model(seed=2)
    for path in (model, stranger):
        (path / "onnx" / "ranges.json").unlink()
    expected = Embedder(model, threads=1, read_only=True).component_ranges()
    record = stranger / "onnx" / "sbmini.json"
    own, fingerprint = graphs.find(stranger).fingerprint, graphs.find(model).fingerprint
    record.write_text(record.read_text().replace(own, fingerprint))
    monkeypatch.setenv("SBMINI_CACHE_DIR", str(tmp_path / "another cache"))
    crafted = Embedder(stranger, threads=1, read_only=True)
    assert crafted.fingerprint == fingerprint
    assert (crafted.component_ranges() != expected).any()
    np.testing.assert_array_equal(Embedder(model, threads=1, read_only=True).component_ranges(), expected)
