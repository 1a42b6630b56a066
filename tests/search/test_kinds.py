"""Kinds of FAISS index: which one fits the number of rows, which are refused, and that each one finds its rows."""

import numpy as np
import pytest
from indexes import make

from sbert_mini import IndexWriter, SearchIndex
from sbert_mini.errors import UsageError
from sbert_mini.search.kinds import AUTOMATIC, EXACT, automatic, check_kind, kind_of, lists_for
from sbert_mini.text.records import Record


def test_the_kind_goes_by_the_number_of_rows():
    assert [automatic(n) for n in (1, 50_000, 50_001)] == ["exact", "exact", "IVF512,RaBitQ"]
    assert automatic(10**6) == "IVF2048,RaBitQ"
    assert automatic(3 * 10**7).endswith("RaBitQ")
    assert lists_for(10**6) == 2048
    assert kind_of("IVF,SQ8", 10**6) == "IVF2048,SQ8"
    assert kind_of("IVF256,SQ8", 900) == EXACT  # too few to train
    assert kind_of("IVF256,SQ8", 5000) == EXACT
    assert kind_of(AUTOMATIC, 30_000) == EXACT
    assert kind_of(AUTOMATIC, 30_000, 64) == "PCA64,SQ8"


@pytest.mark.parametrize(
    ("kind", "pca", "message"),
    [
        (
            "Nonsense",
            None,
            r"must be auto, exact, or a FAISS factory string such as SQ8, .* FAISS does not know 'Nonsense'",
        ),
        ("PQ9", None, r"does not know 'PQ9': The dimension of the vector \(d\) should be a multiple of"),
        ("PQ99999999999", None, "the number after PQ .* must be at most 1024; found 99999999999"),
        ("HNSW0_SQ8", None, "the number after HNSW in the kind 'HNSW0_SQ8' must be at least 2; found 0"),
        ("PCA8,HNSW1", None, "the number after HNSW .* must be at least 2; found 1"),
        ("NSG4", None, "the number after NSG .* must be at least 8; found 4"),
        ("IVF16,PQ0", None, "the number after PQ .* must be at least 1; found 0"),
        ("HNSW1000000,Flat", None, "the number after HNSW .* must be at most 512; found 1000000"),
        ("RR100000,Flat", None, "the number after RR .* must be at most 1024; found 100000"),
        ("LSQ48x8", None, "the number after LSQ .* must be at most 16; found 48"),
        ("PQ4x99", None, "the number after x .* must be at most 16; found 99"),
        ("Refine(" * 15 + "SQ8", None, "of at most 100 characters"),
        ("auto", 28, "below the 28"),
        ("auto", 0, "pca must be at least 1 and below the 28"),
    ],
)
def test_a_kind_that_cannot_be_is_refused_before_anything_is_made(
    tmp_path, converted_model, numbered_records, clustered_vectors, kind, pca, message
):
    with pytest.raises(UsageError, match=message) as refused:
        make(tmp_path / "index", converted_model, numbered_records, clustered_vectors, kind=kind, pca=pca)
    assert not any(part in str(refused.value) for part in ("faiss::", ".cpp", "Error", "failed", "C++", "\n"))
    assert not (tmp_path / "index").exists()


WIDE_ROWS = 1500


@pytest.fixture(scope="module")
def wide_vectors():
    v = np.random.default_rng(0).normal(size=(2 * WIDE_ROWS, 384)).astype("f4")
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def records(start, stop):
    return [Record(f"r {i}", id=str(i), columns={"n": i}) for i in range(start, stop)]


def files(path):
    return {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file() and p.name != "LOCK"}


@pytest.mark.parametrize("kind", ["SQ8", "PQ16x4", "PQ32x4fs", "LSH", "NSG16", "PCA64,PQ16x4"])
def test_a_rows_own_vector_finds_it(tmp_path, default_embedder, wide_vectors, kind):
    index = IndexWriter(tmp_path / "i", default_embedder).create(
        records(0, WIDE_ROWS), vectors=wide_vectors[:WIDE_ROWS], kind=kind
    )
    assert index.segment_kinds == [kind]
    for options in ({}, {"filter": "n < 1000"}):
        assert [hits[0].id for hits in index.search(wide_vectors[:3], 1, **options)] == ["0", "1", "2"]


@pytest.mark.parametrize("kind", ["IDMap,Flat", "IVF16(RCQ2x4),SQ8"])
def test_a_kind_that_cannot_be_searched_changes_nothing(tmp_path, default_embedder, wide_vectors, kind):
    path, writer = tmp_path / "i", IndexWriter(tmp_path / "i", default_embedder)
    with pytest.raises(UsageError, match="FAISS"):
        writer.create(records(0, WIDE_ROWS), vectors=wide_vectors[:WIDE_ROWS], kind=kind)
    assert not path.exists()
    writer.create(records(0, WIDE_ROWS), vectors=wide_vectors[:WIDE_ROWS], kind="SQ8")
    before = files(path)
    with pytest.raises(UsageError, match="FAISS"):
        IndexWriter(path).compact(kind=kind)
    assert files(path) == before
    index = SearchIndex(path)
    assert (index.generation, index.kind.factory, index.search(wide_vectors[:1], 1)[0][0].id) == (1, "SQ8", "0")


def test_an_addition_that_cannot_be_searched_changes_nothing(tmp_path, default_embedder, wide_vectors):
    path, writer = tmp_path / "i", IndexWriter(tmp_path / "i", default_embedder)
    writer.create(records(0, 10), vectors=wide_vectors[:10], kind="IDMap,Flat")  # so few rows are searched exactly
    before = files(path)
    with pytest.raises(UsageError, match="FAISS"):
        writer.add(records(10, WIDE_ROWS), vectors=wide_vectors[10:WIDE_ROWS])
    assert files(path) == before
    assert len(SearchIndex(path)) == 10


def test_a_kind_in_other_letters_than_ascii_is_refused():
    with pytest.raises(UsageError, match="which is ASCII, of at most 100 characters; found 'SQ８'"):
        check_kind("SQ８", 28)
