"""A text's cosine with itself is 1, in each path; what is handed out lies in [-1, 1], and bounds are reached up to rounding."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbert_mini import Embedder
from sbert_mini.cosine import TOLERANCE, as_cosines, reaches
from sbert_mini.evaluation.sts import cosines, spearman


def test_cosines_by_hand():
    given_ = np.array([1.0000006, 0.9999994, 0.9999985, 0.5, 0.0, -0.9999994, -1.0000006, np.nan], np.float32)
    found = as_cosines(given_)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([1, 1, 0.9999985, 0.5, 0, -1, -1, np.nan], np.float32))
    assert reaches(1.0, 1.0)
    assert reaches(0.8999995, 0.9)
    assert not reaches(0.899998, 0.9)
    assert reaches(np.array([0.3, 0.1]), 0.2).tolist() == [True, False]


@given(st.floats(-1.125, 1.125, width=32))
def test_cosines_lie_in_their_range_and_are_off_by_no_more_than_the_tolerance(value):
    found = float(as_cosines(np.float32(value)))
    assert -1 <= found <= 1
    assert abs(found - min(max(value, -1), 1)) <= 1.01 * TOLERANCE
    assert math.copysign(1, found) == math.copysign(1, value) or found == 0


PATHS = [("native", "int8"), ("onnx", "int8"), ("onnx", "fp32"), ("torch", "fp32")]


@pytest.mark.parametrize(("backend", "graph"), PATHS)
def test_a_text_alone_and_in_a_batch_has_the_cosine_one(minilm, passage_sentences, backend, graph):
    if backend == "native" and not Embedder(minilm).backend.startswith("native"):
        pytest.skip("no native code: not compiled")
    model = Embedder(minilm, graph=graph, threads=2, backend=backend)
    some = passage_sentences[:96]
    together, again = model.encode(some), model.encode(some[::-1])[::-1]
    alone = np.concatenate([model.encode([text]) for text in some[:12]])
    bound = 1e-4 if (backend, graph) == ("onnx", "int8") else TOLERANCE  # its scales are fixed, its sums are not
    for a, b in ((together, again), (alone, together[:12])):
        assert np.abs((a.astype(np.float64) * b).sum(axis=1) - 1).max() <= bound
    np.testing.assert_array_equal(np.diag(model.similarity(together, together)), 1)
    np.testing.assert_array_equal(model.similarity_pairwise(together, together), 1)


def test_the_order_of_equal_pairs_is_undefined(default_embedder, passage_sentences):
    vectors = default_embedder.encode(passage_sentences[:40])
    found = cosines(vectors, vectors)
    assert set(found.tolist()) == {1.0}
    assert spearman(found, np.arange(40)) is None


def test_the_commands_find_equal_texts_at_the_bound_one(sbmini_here, tmp_path):
    lines = "Hello, world!\nHello , world !\nBread is baked.\nBread is baked .\n"
    assert sbmini_here("dedup", "--threshold", 1, "-q", stdin=lines).stdout == "Hello, world!\nBread is baked.\n"
    sbmini_here("index", "create", "x.index", "-i", "-", "-q", stdin=lines)
    for query in ("Hello, world!", "Hello , world !"):
        hits = sbmini_here("search", "x.index", query, "-q", "--min-score", 1, "--by", "meaning").stdout.splitlines()
        assert [line.split("\t")[0] for line in hits] == ["1.0000"] * 2
        assert hits[0].split("\t")[2] == query  # of equal ones the query's own text first
    done = sbmini_here("search", "x.index", "bread", "--min-score", "nan")
    assert (done.returncode, done.stderr) == (
        2,
        "sbmini: error: --min-score must be a finite number; found float nan\n",
    )
    done = sbmini_here("dedup", "--threshold", "nan", stdin=lines)
    assert (done.returncode, done.stderr) == (
        2,
        "sbmini: error: --threshold must be a finite number; found float nan\n",
    )
    (tmp_path / "p.csv").write_text("sentence1,sentence2,score\na cat,a cat,1\na dog,a dog,2\nbread,bread,3\n")
    done = sbmini_here("bench", "sts", "--pairs", "p.csv", "-q", "--resamples", 100)
    assert "undefined, since the model gives all pairs the same cosine" in done.stdout
