"""Principal components against NumPy's eigenvectors."""

import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from sbert_mini.errors import InputError, UsageError
from sbert_mini.search.reduction import Reduction, fit


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
