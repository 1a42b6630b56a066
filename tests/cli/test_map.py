"""`sbmini map`: what it writes, of what, and what it refuses."""

import numpy as np
import pytest
from conftest import one_error

pytest.importorskip("openTSNE")


@pytest.fixture
def vectors(tmp_path):
    np.save(tmp_path / "v.npy", np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32))
    (tmp_path / "v.txt").write_text("one\ntwo\nthree\nfour\nfive\n")
    return tmp_path / "v.npy"


def test_each_kind_of_file_is_written_and_the_same_again(sbmini_here, vectors, tmp_path):
    pytest.importorskip("pyarrow")
    for kind, start in (("html", b"<!doctype html>"), ("png", b"\x89PNG"), ("svg", b"<?xml"), ("parquet", b"PAR1")):
        files = [tmp_path / f"{i}.{kind}" for i in range(2)]
        for file in files:
            done = sbmini_here("map", vectors, "--texts", tmp_path / "v.txt", "-o", file)
            assert done.returncode == 0, done.stderr
            assert "5 rows" in done.stderr
        assert files[0].read_bytes() == files[1].read_bytes()
        assert files[0].read_bytes().startswith(start)


def test_an_index_is_drawn_from_its_vectors(sbmini_here, collection_index, tmp_path):
    done = sbmini_here("map", collection_index, "-o", tmp_path / "map.html")
    assert done.returncode == 0, done.stderr
    assert "trustworthiness 0." in done.stderr


def test_wrong_input_is_one_line(sbmini_here, vectors, tmp_path):
    (tmp_path / "few.txt").write_text("one\n")
    page = tmp_path / "m.html"
    one_error(sbmini_here("map", vectors, "-o", "map.pdf"), 2, "--output must end in .html")
    few = sbmini_here("map", vectors, "-o", page, "--texts", tmp_path / "few.txt")
    one_error(few, 1, "5 vectors, and there are 1 texts")
    one_error(sbmini_here("map", tmp_path / "none", "-o", page), 1, "does not exist")
    one_error(sbmini_here("map", tmp_path, "--texts", tmp_path / "v.txt", "-o", page), 2, "--texts is for a .npy file")
