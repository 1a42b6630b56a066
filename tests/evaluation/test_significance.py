"""The bootstrap of means: against scipy's, and its laws."""

import numpy as np
import pytest
from scipy import stats

from sbert_mini.evaluation.significance import compare, interval, resampled_means


def test_intervals_and_p_values_are_scipy_s(rng):
    first = rng.beta(2, 3, 211)
    second = np.clip(first + rng.normal(0.02, 0.15, 211), 0, 1)
    intervals, (comparison,) = compare({"a": first, "b": second}, resamples=20_000, seed=1)
    for name, values in (("a", first), ("b", second)):
        theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=2).confidence_interval
        assert intervals[name] == pytest.approx((theirs.low, theirs.high), abs=0.003)
    paired = stats.bootstrap((first - second,), np.mean, n_resamples=20_000, method="percentile", rng=3)
    bounds = paired.confidence_interval
    assert comparison.interval == pytest.approx((bounds.low, bounds.high), abs=0.002)
    assert comparison.difference == pytest.approx(np.mean(first) - np.mean(second))
    assert comparison.p == pytest.approx(stats.ttest_rel(first, second).pvalue, abs=0.01)


def test_a_resample_draws_every_query_alike(rng):
    """Means have the variance of a mean of n draws, and the same draws serve all rows."""
    values = rng.normal(size=(2, 97))
    means = resampled_means(np.stack([*values, values[0] - values[1]]), 20_000, 5)
    assert means.shape == (3, 20_000)
    np.testing.assert_allclose(means[2], means[0] - means[1], atol=1e-12)
    np.testing.assert_allclose(means[:2].std(1), values.std(1) / np.sqrt(97), rtol=0.03)
    alone = resampled_means(values[:1], 20_000, 5)[0]  # the draws do not depend on the other rows
    np.testing.assert_allclose(means[0], alone, atol=1e-12)
    assert not np.allclose(means[0], resampled_means(values[:1], 20_000, 6)[0])


def test_equal_methods_do_not_differ(rng):
    values = rng.uniform(size=53)
    _, (same, other, _) = compare({"a": values, "b": values.copy(), "c": values - 0.5}, resamples=500, seed=0)
    assert (same.difference, same.interval, same.p) == (0, (0, 0), 1)
    assert other.interval == pytest.approx((0.5, 0.5))
    assert other.p == pytest.approx(2 / 501)
    assert interval(np.array([np.nan, np.nan, 1.0])) is None


def test_the_p_value_of_methods_that_do_not_differ_is_below_a_twentieth_that_often(rng):
    """The test's level, over 300 pairs of methods whose true difference is 0."""
    below = 0
    for seed in range(300):
        a, b = rng.uniform(size=(2, 101))
        below += compare({"a": a, "b": b}, resamples=400, seed=seed)[1][0].p < 0.05
    assert 5 <= below <= 30
