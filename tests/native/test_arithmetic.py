"""Each level's product against exact integers, and its functions of floats against float64, with bounds."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from sbert_mini.native.library import Array
from sbert_mini.runtime.native_library import LEVELS, levels, library

pytestmark = pytest.mark.skipif(library() is None, reason="no native code: not compiled")
each_level = pytest.mark.parametrize("level", levels())
GELU, GELU_TANH, RELU, TANH, IDENTITY, SOFTMAX, NORM = 0, 1, 2, 3, 4, 8, 9
erfc = np.vectorize(math.erfc)


def multiply(level, x, weight):
    sums = np.full((len(x), weight.shape[1]), -1, np.int32)
    arrays = map(Array.of, (np.ascontiguousarray(x), np.ascontiguousarray(weight), sums))
    status = library().sbmini_multiply(LEVELS.index(level), *x.shape, weight.shape[1], *arrays)
    assert status == 0, library().sbmini_error(status)
    return sums


def apply(level, function, x, epsilon=0.0):
    x = np.ascontiguousarray(np.atleast_2d(x), np.float32)
    y = np.full_like(x, np.nan)
    status = library().sbmini_apply(LEVELS.index(level), function, *x.shape, epsilon, Array.of(x), Array.of(y))
    assert status == 0, library().sbmini_error(status)
    return y


@each_level
@pytest.mark.parametrize("columns", [1, 2, 15, 17, 61, 64, 67, 131])
@pytest.mark.parametrize("inner", [1, 3, 4, 5, 61, 64, 67, 127, 257])
def test_a_product_is_exact_in_every_shape(level, inner, columns):
    rng = np.random.default_rng(1000 * inner + columns)
    for rows in (1, 2, 3, 5, 6, 7, 16, 17, 31, 32, 37):
        x = rng.integers(0, 256, (rows, inner), dtype=np.uint8)
        weight = rng.integers(-128, 128, (inner, columns), dtype=np.int8)
        np.testing.assert_array_equal(multiply(level, x, weight), x.astype(np.int64) @ weight.astype(np.int64))


@each_level
@pytest.mark.parametrize("byte", [0, 1, 127, 128, 255])
@pytest.mark.parametrize("weight", [-128, -127, -1, 127])
def test_extreme_bytes_do_not_overflow(level, byte, weight):
    """All of one sign, and signs in turns: sums of 16 bits would saturate at 2 * 255 * 127."""
    inner, rows, columns = 1536, 7, 19
    x = np.full((rows, inner), byte, np.uint8)
    for signs in (np.ones(inner, int), np.where(np.arange(inner) % 3 == 0, -1, 1)):
        w = np.repeat(np.clip(signs * weight, -128, 127)[:, None], columns, axis=1).astype(np.int8)
        np.testing.assert_array_equal(multiply(level, x, w), x.astype(np.int64) @ w.astype(np.int64))


@each_level
def test_the_longest_product_stays_within_32_bits(level):
    x, w = np.full((1, 32_768), 255, np.uint8), np.full((32_768, 1), -128, np.int8)
    assert multiply(level, x, w)[0, 0] == -255 * 128 * 32_768
    assert multiply(level, x, np.full_like(w, 127))[0, 0] == 255 * 127 * 32_768


def everywhere():
    """Numbers of every size and sign, and dense ones where activations bend."""
    powers = np.ldexp(np.linspace(1, 2, 97, dtype=np.float64), np.arange(-126, 127, 3)[:, None]).ravel()
    dense = np.linspace(-9, 9, 400 * 97)
    return np.concatenate([-powers, np.zeros(97), powers, dense]).astype(np.float32).reshape(-1, 97)


def gelu_tail(a):
    return a * erfc(a / math.sqrt(2)) / 2


def gelu_tanh_tail(a):
    return a / (1 + np.exp(2 * math.sqrt(2 / math.pi) * (a + 0.044715 * a**3)))


@each_level
@pytest.mark.parametrize(
    ("function", "tail", "bound"),
    [(GELU, gelu_tail, 2.6e-5), (GELU_TANH, gelu_tanh_tail, 3.4e-5), (RELU, np.zeros_like, 1e-38)],
    ids=["gelu", "tanh", "relu"],
)
def test_activations_are_within_their_bounds(level, function, tail, bound):
    """And the rounding of Phi: 2^-23 of the argument."""
    x = everywhere()
    exact = x.astype(np.float64)
    with np.errstate(over="ignore"):
        exact = np.where(exact > 0, exact, 0) - tail(np.minimum(np.abs(exact), 40))
    error = np.abs(apply(level, function, x) - exact) - np.abs(x.astype(np.float64)) * 2**-23
    assert error.max() < bound


@each_level
def test_the_hyperbolic_tangent_is_within_4e_7(level):
    x = everywhere()
    assert np.abs(apply(level, TANH, x) - np.tanh(x.astype(np.float64))).max() < 4e-7
    np.testing.assert_array_equal(apply(level, IDENTITY, x), x)


@each_level
@pytest.mark.parametrize("columns", [1, 2, 15, 16, 17, 31, 48, 127, 512])
@pytest.mark.parametrize("spread", [0.01, 1, 30, 1000])
def test_softmax_is_within_one_in_a_million_and_the_rounding_of_its_arguments(level, columns, spread):
    x = (np.random.default_rng(columns).standard_normal((11, columns)) * spread).astype(np.float32)
    most = x.max(axis=1, keepdims=True)
    below = x.astype(np.float64) - most
    exact = np.exp(below) / np.exp(below).sum(axis=1, keepdims=True)
    found = apply(level, SOFTMAX, x)
    bound = exact * (1e-6 + (np.abs(x) + np.abs(most)) * 2**-22) + 3e-38  # below 2^-125 it is that
    assert (np.abs(found - exact) <= bound).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)


@each_level
@pytest.mark.parametrize("columns", [1, 3, 16, 17, 78, 384, 1024])
@pytest.mark.parametrize(
    ("around", "spread", "epsilon"), [(0, 1, 1e-12), (5, 0.1, 1e-5), (-300, 40, 1e-12), (0, 1e-8, 1e-5)]
)
def test_layer_norm_is_within_the_rounding_of_the_mean(level, columns, around, spread, epsilon):
    x = (around + spread * np.random.default_rng(columns).standard_normal((5, columns))).astype(np.float32)
    rows = x.astype(np.float64)
    centred = rows - rows.mean(axis=1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + epsilon)
    bound = 4e-6 + 4 * 2**-24 * np.abs(rows).max(axis=1, keepdims=True) / deviation
    assert (np.abs(apply(level, NORM, x, epsilon) - centred / deviation) <= bound).all()


@each_level
def test_what_is_no_number_does_no_harm(level):
    """NaN and infinity give some number or NaN, never a signal."""
    odd = np.array([[np.nan, np.inf, -np.inf, 1.0, -0.0, 1e-45, 3e38, -3e38]], np.float32)
    for function in (GELU, GELU_TANH, RELU, TANH, IDENTITY, SOFTMAX, NORM):
        apply(level, function, odd)


@pytest.mark.parametrize("row", [0, 1], ids=["gelu", "gelu_tanh"])
def test_gelu_is_exact_beyond_the_ends_of_its_polynomial(row):
    """Q(1) = 1 / sqrt(8): Phi is 0 and 1 there."""
    source = (Path(__file__).parents[2] / "sbert_mini" / "native" / "activation.h").read_text("utf-8")
    numbers = [
        float.fromhex(text) for text in re.findall(r"-?0x1[.0-9a-f]*p[-+]\d+(?=f[,}])", source.partition("PHI[2]")[2])
    ]
    assert sum(np.reshape(numbers, (2, 9))[row]) == pytest.approx(8**-0.5, abs=3e-8)
