"""The C functions check what they are given by themselves: sizes, layers, kinds, arrays, tokens; each error has a text."""

import subprocess
import sys

import pytest

from sbert_mini.runtime import table_engine
from sbert_mini.runtime.native_library import LEVELS, SIGNATURES, library
from sbert_mini.search import spans
from sbert_mini.text import wordpiece

pytestmark = pytest.mark.skipif(library() is None, reason="no native code: not compiled")

SETUP = """
import ctypes, gc
import numpy as np
from sbert_mini.native.library import Array
from sbert_mini.runtime.native_library import LEVELS, NOTHING, levels, library

lib, keep = library(), []


def at(*shape, dtype=np.float32):
    keep.append(np.zeros(shape, dtype))
    return Array.of(keep[-1])


def said(status):
    return lib.sbmini_error(status).decode()


good = dict(layers=1, hidden=64, intermediate=128, heads=2, vocabulary=3, positions=5, types=2, activation=0)
shapes = [(3, 64), (3,), (2, 64), (5, 64), (64,), (64,)]


def opened(epsilon=1e-12, arrays=None, **change):
    model = ctypes.c_void_p(7)
    arrays = arrays or [at(*shape, dtype=np.float32 if i else np.int8) for i, shape in enumerate(shapes)]
    status = lib.sbmini_open(*{**good, **change}.values(), epsilon, *arrays, ctypes.byref(model))
    assert bool(model.value) == (status == 0)
    return said(status), model


def product(model, layer, kind, rows, columns, zero=3, **change):
    given = {"weight": at(rows, columns, dtype=np.int8), "scales": at(columns), "bias": at(columns), "factor": at(rows)}
    weight, scales, bias, factor = {**given, **change}.values()
    return said(lib.sbmini_set_product(model, layer, kind, rows, columns, weight, scales, bias, 1.0, zero, factor))


def norm(model, layer, which, weight=None):
    return said(lib.sbmini_set_norm(model, layer, which, weight or at(64), at(64)))


def poolings(model, *numbers):
    keep.append(np.array(numbers, np.int32))
    return said(lib.sbmini_set_poolings(model, Array.of(keep[-1])))


def projection(model, rows=64, columns=3, activation=4, **change):
    given = {"weight": at(columns, -(-rows // 16) * 16), "bias": at(-(-columns // 16) * 16)}
    weight, bias = {**given, **change}.values()
    return said(lib.sbmini_add_projection(model, rows, columns, weight, bias, activation))


def complete():
    _, model = opened()
    for kind, (rows, columns) in enumerate([(64, 192), (64, 64), (64, 128), (128, 64)]):
        assert product(model, 0, kind, rows, columns) == "done"
    assert norm(model, 0, 0) == norm(model, 0, 1) == poolings(model, 2) == "done"
    return model


def encode(model, ids=(1,), types=(0,), offsets=(0, 1), level=None, threads=1, **change):
    given = {"ids": ids, "types": types, "offsets": offsets}
    arrays = {}
    for name, values in given.items():
        keep.append(np.array(values, np.int32))
        arrays[name] = Array.of(keep[-1])
    arrays["vectors"] = at(max(len(offsets) - 1, 0), 64)
    arrays["token_vectors"] = NOTHING
    level = LEVELS.index(levels()[-1]) if level is None else level
    return said(lib.sbmini_encode(model, level, threads, *{**arrays, **change}.values()))


SIZE = "a size is outside the range that native code computes"
ARRAY = "an array is absent, not aligned, or has another length than the sizes ask for"
LAYER, KIND = "the model has no such layer", "there is no such product or norm, or it has another size"
TOKEN = "an id or a segment is not in the model's vocabulary"
LENGTH = "a text is empty, or has more tokens than the model has positions"
"""


def in_a_child(code):
    """What this is for would end the process."""
    done = subprocess.run([sys.executable, "-c", SETUP + code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_every_function_has_its_arguments_declared():
    functions = library()
    assert functions is wordpiece.library() is spans.library()
    for name, (result, arguments) in {
        **wordpiece.SIGNATURES,
        **spans.SIGNATURES,
        **table_engine.SIGNATURES,
        **SIGNATURES,
    }.items():
        assert getattr(functions, name).argtypes == arguments
        assert getattr(functions, name).restype is result
    exported = subprocess.run(["nm", "-D", "--defined-only", functions._name], capture_output=True, text=True)
    if exported.returncode == 0:
        names = {line.split()[-1] for line in exported.stdout.splitlines()}
        templates = {name for name in names if name.startswith("_ZNSt")}  # of the C++ library: visible
        assert names - templates == {*SIGNATURES, *wordpiece.SIGNATURES, *spans.SIGNATURES, *table_engine.SIGNATURES}


def test_a_size_is_in_its_range():
    in_a_child("""
for name in good:
    for value in (0, -1, -2**31, 2**31 - 1)[name == "activation":]:
        assert opened(**{name: value})[0] == SIZE, (name, value)
for change in ({"hidden": 32769}, {"heads": 3}, {"layers": 1001}, {"epsilon": float("nan")}, {"epsilon": -1.0}, {"epsilon": 2.0}):
    assert opened(**change)[0] == SIZE, change
""")


def test_arrays_have_the_length_that_the_sizes_ask_for():
    in_a_child("""
def arrays():
    return [at(*shape, dtype=np.float32 if i else np.int8) for i, shape in enumerate(shapes)]
for number in range(6):
    for change in (lambda a: Array(None, a.count), lambda a: Array(a.data, a.count - 1), lambda a: Array(a.data, a.count + 1),
                   lambda a: Array(a.data, -a.count), lambda a: Array(2**64 - 4, a.count)):
        given = arrays()
        given[number] = change(given[number])
        assert opened(arrays=given)[0] == ARRAY, number
given = arrays()
given[1] = Array(given[1].data + 1, given[1].count)
assert opened(arrays=given)[0] == ARRAY  # not aligned
assert opened(vocabulary=2**24)[0] == ARRAY  # before memory is taken
""")


def test_products_and_norms_are_the_models_and_given_once():
    in_a_child("""
said_, model = opened()
for layer in (1, -1, 2**31 - 1, -2**31):
    assert product(model, layer, 0, 64, 192) == LAYER
    assert norm(model, layer, 0) == LAYER
for kind, rows, columns in ((4, 64, 64), (-1, 64, 64), (0, 64, 64), (1, 64, 128), (0, 128, 192), (3, 64, 128)):
    assert product(model, 0, kind, rows, columns) == KIND, (kind, rows, columns)
for which in (2, -1, 2**31 - 1):
    assert norm(model, 0, which) == KIND
for zero in (256, -1):
    assert product(model, 0, 0, 64, 192, zero) == SIZE
for name in ("weight", "scales", "bias", "factor"):
    assert product(model, 0, 0, 64, 192, **{name: at(63)}) == ARRAY, name
assert norm(model, 0, 0, at(63)) == ARRAY
assert product(None, 0, 0, 64, 192) == norm(None, 0, 0) == ARRAY
assert encode(model) == "the model lacks a product, a norm or its pooling"
assert product(model, 0, 0, 64, 192) == "done"
assert product(model, 0, 0, 64, 192) == "a part of the model is given twice"
assert norm(model, 0, 1) == "done"
assert norm(model, 0, 1) == "a part of the model is given twice"
lib.sbmini_close(model)
lib.sbmini_close(None)
""")


def test_poolings_and_projections_fit_each_other():
    in_a_child("""
said_, model = opened()
assert projection(model) == KIND  # before the poolings
for numbers in ((), (2,) * 9):
    assert poolings(model, *numbers) == ARRAY
for numbers in ((5,), (-1,), (2, 2**31 - 1)):
    assert poolings(model, *numbers) == KIND
assert poolings(None, 2) == projection(None) == ARRAY
assert poolings(model, 0, 2) == "done"
assert poolings(model, 2) == "a part of the model is given twice"
assert projection(model, 64) == KIND  # of 128
for columns in (0, -1, 32769):
    assert said(lib.sbmini_add_projection(model, 128, columns, at(1), at(1), 4)) == SIZE
for activation in (-1, 5):
    assert projection(model, 128, activation=activation) == SIZE
for name in ("weight", "bias"):
    assert projection(model, 128, **{name: at(63)}) == ARRAY, name
assert projection(model, 128, 3) == "done"
assert projection(model, 128, 3) == KIND  # of 3 now
for _ in range(7):
    assert projection(model, 3, 3) == "done"
assert projection(model, 3, 3) == KIND  # there are 8
lib.sbmini_close(model)
""")


def test_the_functions_for_tests_check_their_arguments_too():
    in_a_child("""
level = LEVELS.index(levels()[-1])
def multiply(rows=2, inner=3, columns=5, level=level, **change):
    sizes = max(rows, 1), max(inner, 1), max(columns, 1)
    shapes = {"x": (sizes[0] * sizes[1], np.uint8), "w": (sizes[1] * sizes[2], np.int8), "y": (sizes[0] * sizes[2], np.int32)}
    arrays = {name: at(min(n, 10**6), dtype=dtype) for name, (n, dtype) in shapes.items()}
    return said(lib.sbmini_multiply(level, rows, inner, columns, *{**arrays, **change}.values()))
def apply(function=0, rows=2, columns=3, level=level, x=None, y=None):
    return said(lib.sbmini_apply(level, function, rows, columns, 0.0, x or at(6), y or at(6)))
assert multiply() == apply() == "done"
for value in (0, -1, 32769, 2**31 - 1, -2**31):
    assert multiply(value) == multiply(inner=value) == multiply(columns=value) == apply(columns=value) == SIZE
assert apply(rows=0) == apply(rows=2**24 + 1) == SIZE
for name in ("x", "w", "y"):
    assert multiply(**{name: at(1, dtype=np.int8)}) == ARRAY
assert apply(x=at(5)) == apply(y=at(7)) == ARRAY
for function in (-1, 5, 7, 10):
    assert apply(function) == KIND
for bad in (0, -1, 7, 2**31 - 1):
    assert multiply(level=bad) == apply(level=bad) == "this processor does not have the instructions that are asked for"
    assert lib.sbmini_peak(bad, 10) == 0
assert lib.sbmini_peak(level, 0) == lib.sbmini_peak(level, -1) == 0
assert lib.sbmini_peak(level, 10) > 0
""")


def test_levels_have_the_names_that_python_gives_them():
    assert [library().sbmini_level_name(number) for number in range(len(LEVELS))] == [n.encode() for n in LEVELS]
    assert library().sbmini_level_name(len(LEVELS)) is library().sbmini_level_name(-1) is None


def test_tokens_are_the_models():
    in_a_child("""
model = complete()
assert encode(model) == "done"
assert encode(model, (), (), (0,)) == "done"  # no text, no vector
for ids in ((3,), (-1,), (2**31 - 1,)):
    assert encode(model, ids) == TOKEN
assert encode(model, types=(2,)) == encode(model, types=(-1,)) == TOKEN
six = [1] * 6
assert encode(model, six, six, (0, 6)) == LENGTH  # of 5 positions
assert encode(model, six, six, (0, 4, 2, 6)) == LENGTH
assert encode(model, six, six, (0, 3, 3, 6)) == LENGTH
assert encode(model, six, six, (0, 2**31 - 1, -2**31, 6)) == LENGTH
assert encode(model, offsets=(1, 1)) == encode(model, offsets=(0, -1)) == LENGTH
assert encode(model, offsets=(0, 2)) == ARRAY  # of which there is one
assert encode(model, types=()) == encode(model, offsets=()) == ARRAY
assert encode(model, vectors=at(63)) == encode(None) == ARRAY
assert encode(model, token_vectors=at(63)) == ARRAY
assert encode(model, token_vectors=at(64)) == "done"
assert encode(model, offsets=(0, 2**24 + 1)) == LENGTH
for threads in (0, -1, 17, 2**31 - 1):
    assert encode(model, threads=threads) == SIZE
assert encode(model, threads=16) == "done"
for level in (0, -1, 7, 31, 32, 2**31 - 1, *(n for n, name in enumerate(LEVELS) if name not in levels())):
    assert encode(model, level=level) == "this processor does not have the instructions that are asked for"
lib.sbmini_close(model)
assert said(14) == said(-1) == "an unknown status"
""")
