"""Many spans of a file in one call, against the file's bytes; by native code and without it."""

import ctypes
import os

import numpy as np
import pytest

from sbert_mini.native.library import Array
from sbert_mini.search import spans
from sbert_mini.search.spans import read_spans

SIZE = 9973


@pytest.fixture
def content(rng):
    return rng.integers(0, 256, SIZE, dtype=np.uint8)


@pytest.fixture(params=["native", "python"])
def handle(request, tmp_path, content, monkeypatch):
    if request.param == "python":
        monkeypatch.setattr(spans, "library", lambda: None)
    elif spans.library() is None:
        pytest.skip("no native code: not compiled")
    file = tmp_path / "file"
    file.write_bytes(content.tobytes())
    handle = os.open(file, os.O_RDONLY)
    yield handle
    os.close(handle)


@pytest.mark.parametrize("size", [1, 7, 1536])
@pytest.mark.parametrize("count", [0, 1, 211])
def test_spans_are_the_bytes_of_the_file(handle, content, rng, size, count):
    starts = rng.integers(0, SIZE - size + 1, count)
    starts[:2] = (SIZE - size, 0)[: len(starts)]  # the ends of the file
    out = np.zeros(count * size, np.uint8)
    assert read_spans(handle, starts, size, out)
    expected = [content[start : start + size] for start in starts.tolist()]
    np.testing.assert_array_equal(out.reshape(count, size), np.array(expected, np.uint8).reshape(count, size))


@pytest.mark.parametrize("start", [SIZE - 6, SIZE, 2**40, -1])
def test_a_span_beyond_the_file_is_not_read(handle, start):
    assert not read_spans(handle, np.array([0, start]), 7, np.zeros(14, np.uint8))


def test_a_closed_file_is_not_read(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    handle = os.open(tmp_path / "file", os.O_WRONLY)  # which cannot be read
    try:
        if spans.library() is not None:
            assert not read_spans(handle, np.array([0]), 7, np.zeros(7, np.uint8))
    finally:
        os.close(handle)


@pytest.mark.parametrize("out", [np.zeros(13, np.uint8), np.zeros(14, np.int8), np.zeros(28, np.uint8)[::2]])
def test_another_output_is_refused(handle, out):
    with pytest.raises(ValueError, match="14 contiguous bytes are needed for 2 spans of 7"):
        read_spans(handle, np.array([0, 1]), 7, out)


@pytest.mark.skipif(spans.library() is None, reason="no native code: not compiled")
def test_native_code_checks_its_arguments(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    starts, out = np.array([0, 3]), np.zeros(8, np.uint8)
    nothing, short = Array(None, 2), Array(out.ctypes.data, 7)
    unaligned = Array(starts.ctypes.data + 1, 1)
    with (tmp_path / "file").open("rb") as file:
        read = spans.library().sbmini_read_spans
        given = (file.fileno(), Array.of(starts), 4, Array.of(out))
        assert read(*given) == 0
        assert out.tobytes() == b"01233456"
        for place, wrong in (
            (1, nothing),
            (1, unaligned),
            (1, Array(starts.ctypes.data, -1)),
            (2, 0),
            (2, 2**62),
            (3, short),
        ):
            arguments = [*given[:place], wrong, *given[place + 1 :]]
            assert read(*arguments) != 0, (place, wrong)
        with pytest.raises(ctypes.ArgumentError):
            read(file.fileno(), starts, 4, out)
