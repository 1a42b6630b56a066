"""A text's cosine with itself is 1, in each path; what is handed out lies in [-1, 1], and bounds are reached up to rounding."""

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbert_mini import Embedder, IndexWriter
from sbert_mini.cosine import TOLERANCE, as_cosines, reaches
from sbert_mini.evaluation.sts import cosines, spearman
from sbert_mini.runtime.stream import join_records
from sbert_mini.search.dedup import _Kept
from sbert_mini.text.records import Record


@pytest.fixture(scope="module")
def questions(passages):
    """Texts of many lengths, all different."""
    sentences = [s.strip() for p in passages for s in p["text"].split(".") if len(s) > 10]
    return list(dict.fromkeys(sentences))[:300]


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
def test_a_text_alone_and_in_a_batch_has_the_cosine_one(minilm, questions, backend, graph):
    if backend == "native" and not Embedder(minilm).backend.startswith("native"):
        pytest.skip("this processor has no instructions that native code needs")
    model = Embedder(minilm, graph=graph, threads=2, backend=backend)
    some = questions[:96]
    together, again = model.encode(some), model.encode(some[::-1])[::-1]
    alone = np.concatenate([model.encode([text]) for text in some[:12]])
    bound = 1e-4 if (backend, graph) == ("onnx", "int8") else TOLERANCE  # its scales are fixed, its sums are not
    for a, b in ((together, again), (alone, together[:12])):
        assert np.abs((a.astype(np.float64) * b).sum(axis=1) - 1).max() <= bound
    np.testing.assert_array_equal(np.diag(model.similarity(together, together)), 1)
    np.testing.assert_array_equal(model.similarity_pairwise(together, together), 1)


@pytest.mark.parametrize("options", [{}, {"kind": "SQ8"}, {"kind": "SQ8", "pca": 64}, {"kind": "HNSW16"}])
@pytest.mark.parametrize("given_as", [None, np.float16, np.float64])
def test_each_row_finds_itself_at_one_whatever_stores_it(default_embedder, questions, tmp_path, options, given_as):
    # Enough rows for FAISS: 300 sentences with four numbers each, whose vectors are drawn where they are given.
    texts = [f"{text} {i}" for text in questions[:275] for i in range(4)]
    vectors = np.random.default_rng(5).normal(size=(len(texts), 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    some = range(0, len(texts), 50)
    vectors[list(some)] = default_embedder.encode([texts[i] for i in some])
    records = (Record(text, id=str(i)) for i, text in enumerate(texts))
    index = IndexWriter(tmp_path / "x", default_embedder).create(
        records, vectors=vectors.astype(given_as or np.float32), **options
    )
    for i, hits in zip(some, index.search([texts[i] for i in some], 2, min_score=1), strict=True):
        assert [(hit.id, hit.score) for hit in hits] == [(str(i), 1.0)]
    scores, _ = index.nearest(vectors[:64], 20)
    assert scores.max() == 1
    assert scores.min() >= -1


@pytest.mark.parametrize("exact_rows", [50_000, 300])
def test_equal_pairs_are_near_at_the_threshold_one(default_embedder, questions, monkeypatch, exact_rows):
    monkeypatch.setattr("sbert_mini.search.dedup.EXACT_ROWS", exact_rows)  # above, inverted lists of half precision
    more = [f"{q}, part {i}" for i in range(2) for q in questions]
    rows = [*(Record(f"{q}?") for q in more), *(Record(f"{q} ?") for q in more)]
    judge, verdicts = _Kept(default_embedder.dimension), []
    for block, window in join_records(rows, partial(default_embedder.encode_windows, window=200)):
        verdicts += judge.judge(block, window.vectors, window.words(), 1.0)
    near = [v for v in verdicts if v.of is not None]
    assert len(near) == len(more)
    assert {v.score for v in near} == {1.0}
    assert all(v.of.text == v.record.text.replace(" ?", "?") for v in near)


def test_the_order_of_equal_pairs_is_undefined(default_embedder, questions):
    vectors = default_embedder.encode(questions[:40])
    found = cosines(vectors, vectors)
    assert set(found.tolist()) == {1.0}
    assert spearman(found, np.arange(40)) is None


def test_the_commands_find_equal_texts_at_the_bound_one(sbmini, tmp_path):
    lines = "Hello, world!\nHello , world !\nBread is baked.\nBread is baked .\n"
    assert sbmini("dedup", "--threshold", 1, "-q", stdin=lines).stdout == "Hello, world!\nBread is baked.\n"
    sbmini("index", "create", "x.index", "-i", "-", "-q", stdin=lines)
    for query in ("Hello, world!", "Hello , world !"):
        hits = sbmini("search", "x.index", query, "-q", "--min-score", 1).stdout.splitlines()
        assert [line.split("\t")[0] for line in hits] == ["1.0000"] * 2
        assert hits[0].split("\t")[2] == query  # of equal ones the query's own text first
    done = sbmini("search", "x.index", "bread", "--min-score", "nan")
    assert (done.returncode, done.stderr) == (
        2,
        "sbmini: error: --min-score must be a finite number; found float nan\n",
    )
    done = sbmini("dedup", "--threshold", "nan", stdin=lines)
    assert (done.returncode, done.stderr) == (
        2,
        "sbmini: error: --threshold must be a finite number; found float nan\n",
    )
    (tmp_path / "p.csv").write_text("sentence1,sentence2,score\na cat,a cat,1\na dog,a dog,2\nbread,bread,3\n")
    done = sbmini("bench", "sts", "--pairs", "p.csv", "-q", "--resamples", 100)
    assert "undefined, since the model gives all pairs the same cosine" in done.stdout
