"""Principal components against NumPy's eigenvectors."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from sbert_mini.errors import InputError, UsageError
from sbert_mini.search.reduction import FORMAT, Reduction, fit


@pytest.mark.parametrize("whiten", [False, True])
def test_a_reduction_is_that_of_the_covariance(tmp_path, rng, whiten):
    x = (rng.standard_normal((500, 13)) @ rng.standard_normal((13, 13)) + rng.standard_normal(13)).astype(np.float32)
    values, directions = np.linalg.eigh(np.cov(x.T, bias=True))
    expected = (x - x.mean(0)) @ directions[:, ::-1][:, :5]
    if whiten:
        expected /= np.sqrt(values[::-1][:5])
    reduction = fit(x, 5, whiten=whiten)
    got = reduction.apply(x, normalize=False)
    np.testing.assert_allclose(np.abs(got), np.abs(expected), atol=2e-3 * np.abs(expected).max())
    assert reduction.explained == pytest.approx(values[::-1][:5].sum() / values.sum(), abs=1e-4)
    reduction.save(tmp_path / "pca.safetensors")
    again = Reduction.load(tmp_path / "pca.safetensors")
    np.testing.assert_array_equal(again.apply(x), reduction.apply(x))
    np.testing.assert_allclose(np.linalg.norm(again.apply(x), axis=1), 1, atol=1e-5)
    assert (again.whitened, again.dimension) == (whiten, 5)
    np.testing.assert_array_equal(
        np.concatenate(list(again.blocks(np.tile(x, (9, 1))))), np.tile(again.apply(x), (9, 1))
    )


def test_reductions_that_cannot_be_are_errors(tmp_path, rng):
    x = rng.standard_normal((20, 7)).astype(np.float32)
    with pytest.raises(UsageError, match="from 1 to the 7"):
        fit(x, 8)
    with pytest.raises(InputError, match="more than 5 rows"):
        fit(x[:5], 5)
    with pytest.raises(InputError, match="finite"):
        fit(np.where(np.arange(20)[:, None] == 3, np.inf, x).astype(np.float32), 3)
    with pytest.raises(UsageError, match=r"\(rows, 7\); found \(20, 6\)"):
        fit(x, 3).apply(x[:, :6])
    (tmp_path / "x.safetensors").write_bytes(os.urandom(64))
    with pytest.raises(InputError, match="cannot be read as a reduction"):
        Reduction.load(tmp_path / "x.safetensors")


def test_what_is_no_reduction_or_no_table_is_refused(tmp_path):
    save_file({"matrix": np.eye(2, dtype=np.float32)}, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"weights\.safetensors is no reduction: make one with 'sbmini reduce fit'"):
        Reduction.load(tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"the shape \(rows, dim\); found \(7,\)"):
        fit(np.zeros(7, np.float32), 1)


def test_a_reduction_of_many_rows_is_fitted_on_a_sample(rng):
    x = (rng.standard_normal((6007, 2)) * [3, 1] + [5, 7]).astype(np.float32)  # 2,000 of them are drawn
    drawn = fit(x, 1, seed=3)
    np.testing.assert_allclose(np.abs(drawn.matrix), [[1, 0]], atol=0.05)
    np.testing.assert_allclose(drawn.mean, [5, 7], atol=0.3)
    assert drawn.variance[0] == pytest.approx(9, rel=0.15)
    np.testing.assert_array_equal(fit(x, 1, seed=3).mean, drawn.mean)
    assert fit(x, 1, seed=4).mean.tolist() != drawn.mean.tolist() != fit(x[:2000], 1).mean.tolist()


MATRIX, MEAN, VARIANCE = np.eye(3, 5, dtype=np.float32), np.zeros(5, np.float32), np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"matrix": MATRIX[0]}, r"must have the shapes \(dim, full_dim\), .* found \(5,\), \(5,\), \(3,\)"),
        ({"matrix": MATRIX.T.copy()}, "must have the shapes"),
        ({"matrix": np.eye(9, 5, dtype=np.float32), "variance": np.ones(9, np.float32)}, "must have the shapes"),
        ({"matrix": np.zeros((0, 5), np.float32), "variance": np.zeros(0, np.float32)}, "must have the shapes"),
        ({"mean": np.array(1, np.float32)}, "must have the shapes"),
        ({"mean": MEAN[:4].copy()}, "must have the shapes"),
        ({"variance": MEAN}, "must have the shapes"),
        ({"mean": MEAN.astype(np.float16)}, "its tensors must be F32; found F16, F32"),
        ({"matrix": MATRIX.astype(np.int64)}, "its tensors must be F32; found F32, I64"),
        ({"matrix": MATRIX * np.float32("nan")}, "a tensor holds NaN or infinity"),
        ({"mean": None}, "it holds no tensor 'mean'"),
    ],
)
def test_tensors_that_do_not_fit_each_other_are_refused(tmp_path, change, message):
    tensors = {"matrix": MATRIX, "mean": MEAN, "variance": VARIANCE} | change
    metadata = {"format": FORMAT, "explained": 0.5, "whitened": False}
    file = tmp_path / "x.safetensors"
    save_file({k: v for k, v in tensors.items() if v is not None}, file, {"sbert_mini": json.dumps(metadata)})
    with pytest.raises(InputError, match=rf"x\.safetensors is damaged: .*{message}"):
        Reduction.load(file)
