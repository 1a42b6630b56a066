"""A stranger's index names a kind, or brings a FAISS file: readers train what is fast, and FAISS reads what fits its segment."""

import logging

import numpy as np
import pytest
from indexes import make
from test_faiss_file import sealed
from test_store import resealed

from sbert_mini import IndexWriter, SearchIndex
from sbert_mini.errors import CorruptIndexError
from sbert_mini.files.durable import read_sealed_json, write_sealed_json
from sbert_mini.files.json_files import FAISS_RECORD
from sbert_mini.search import faiss_file
from sbert_mini.search.faiss_threads import faiss_with
from sbert_mini.search.kinds import LARGE_ROWS, automatic, is_fast_to_train, kind_of

COUNT = 1100


@pytest.fixture
def index(tmp_path, converted_model, numbered_records, clustered_vectors):
    """An index that is searched exactly, and its vectors."""
    faiss_file._warn_of_training.cache_clear()
    make(tmp_path / "my.index", converted_model, numbered_records[:COUNT], clustered_vectors[:COUNT], kind="exact")
    return tmp_path / "my.index", np.ascontiguousarray(clustered_vectors[:COUNT])


def test_automatic_kinds_are_fast_to_train():
    for rows in (60_000, 1_000_000, LARGE_ROWS, 10 * LARGE_ROWS):
        assert is_fast_to_train(automatic(rows), rows, 384)
        assert is_fast_to_train(kind_of("auto", rows, 128), rows, 384)


@pytest.mark.parametrize(
    ("kind", "fast"),
    [
        *(
            (kind, True)
            for kind in ("SQ8", "Flat", "HNSW32", "HNSW32_SQ8", "HNSW64,Flat", "IVF64,SQ8", "PCAW64,IVF64,RaBitQ")
        ),
        *((kind, True) for kind in ("SQ8,RFlat", "IVF64_HNSW32,Flat", "SQ4,Refine(SQ8)")),
        *(
            (kind, False)
            for kind in ("PQ48", "HNSW32_PQ48", "OPQ48_48,PQ48", "PRQ4x8x8", "RQ8x8", "IMI2x8,SQ8", "NSG32")
        ),
        *(
            (kind, False)
            for kind in ("HNSW512", "HNSW65_SQ8", "IVF513,SQ8", "IVF64,PQ48", "LSQ8x8", "ITQ64,LSH", "x", "")
        ),
    ],
)
def test_readers_train_kinds_whose_cost_is_known(kind, fast):
    assert is_fast_to_train(kind, 10_000, 384) is fast


def test_readers_train_no_components_of_long_vectors():
    assert is_fast_to_train("PCA64,SQ8", 10_000, 4096)
    assert not is_fast_to_train("PCA64,SQ8", 10_000, 4097)


@pytest.mark.parametrize("kind", ["HNSW32_PQ14", "PRQ2x2x4", "OPQ14_28,PQ14", "IMI2x4,SQ8", "NSG16"])
def test_a_slow_kind_of_a_strangers_manifest_is_not_trained(index, kind, caplog):
    path, vectors = index
    _, expected = SearchIndex(path).nearest(vectors[:20], 5)
    resealed(path, lambda manifest: manifest.update(kind={"factory": kind, "pca": None}))
    with caplog.at_level(logging.WARNING, "sbert_mini"):
        for _ in range(2):
            opened = SearchIndex(path)
            np.testing.assert_array_equal(opened.nearest(vectors[:20], 5)[1], expected)
            opened.prepare()
            assert opened.segment_kinds == ["exact"]
    assert not list((path / "faiss").iterdir())
    (record,) = caplog.records
    assert f"'sbmini index compact {path}' makes the file, and 'sbmini index verify {path}'" in record.message


@pytest.mark.long
def test_compaction_makes_the_file_that_a_reader_does_not(index):
    path, vectors = index
    resealed(path, lambda manifest: manifest.update(kind={"factory": "PQ14", "pca": None}))
    assert SearchIndex(path).segment_kinds == ["PQ14"]
    generation = IndexWriter(path).compact().generation
    assert generation == 1
    assert {file.name for file in (path / "faiss").iterdir()} == {"000001.faiss", "000001.json"}
    opened = SearchIndex(path)
    assert opened.nearest(vectors[:20], 1)[1][:, 0].tolist() == list(range(20))
    assert opened.segment_kinds == ["PQ14"]


@pytest.mark.long
def test_a_damaged_file_of_a_slow_kind_is_left_and_its_rows_are_searched_exactly(index, caplog):
    path, vectors = index
    resealed(path, lambda manifest: manifest.update(kind={"factory": "PQ14", "pca": None}))
    IndexWriter(path).compact()
    (path / "faiss" / "000001.faiss").write_bytes(b"nonsense")
    opened = SearchIndex(path)
    assert opened.nearest(vectors[:20], 1)[1][:, 0].tolist() == list(range(20))
    assert "the FAISS file is not used: " in caplog.text
    assert opened.verify()


def made(kind, vectors):
    """Return a FAISS index."""
    faiss = faiss_with()
    index = faiss.index_factory(vectors.shape[1], kind, faiss.METRIC_L2)
    index.train(vectors)
    index.add(vectors)
    return index


def wide_storage(vectors):
    """An HNSW index whose vectors have another number of components."""
    faiss = faiss_with()
    whole = made("HNSW8", vectors)
    index = faiss.downcast_index(whole)
    storage = faiss.IndexFlatL2(500)
    storage.add(np.ones((len(vectors), 500), np.float32))
    index.storage, index.own_fields = storage, False
    return index, storage, whole  # which hold the memory


def wide_quantizer(vectors):
    """Inverted lists whose centres have another number of components."""
    faiss = faiss_with()
    whole = made("IVF4,Flat", vectors)
    index = faiss.downcast_index(whole)
    quantizer = faiss.IndexFlatL2(500)
    quantizer.add(np.ones((4, 500), np.float32))
    index.quantizer, index.own_fields = quantizer, False
    return index, quantizer, whole


def other_transform(vectors):
    """A transform that takes another number of components than the index."""
    faiss = faiss_with()
    transform = faiss.LinearTransform(20, 28, False)
    faiss.copy_array_to_vector(np.ones(20 * 28, np.float32), transform.A)
    transform.is_trained = True
    inner = made("SQ8", vectors)
    index = faiss.IndexPreTransform(transform, inner)
    index.d, index.ntotal = 28, len(vectors)
    return index, transform, inner


@pytest.mark.parametrize(
    ("kind", "crafted", "message"),
    [
        ("HNSW8", wide_storage, "1100 rows of 500, not 1100 of 28"),
        ("IVF4,Flat", wide_quantizer, "4 rows of 500, not 4 of 28"),
        ("SQ8", other_transform, "a transform takes 20 components, and gets 28"),
    ],
)
def test_parts_of_other_sizes_are_damage(index, caplog, kind, crafted, message):
    path, vectors = index
    IndexWriter(path).compact(kind=kind)
    _, expected = SearchIndex(path).nearest(vectors[:20], 1)
    index, *_parts = crafted(vectors)
    sealed(path, faiss_with().serialize_index(index).tobytes())
    unmapped(path)
    np.testing.assert_array_equal(SearchIndex(path).nearest(vectors[:20], 1)[1], expected)
    assert message in caplog.text or "cannot be read by this FAISS" in caplog.text  # later ones compare some


def unmapped(path):
    """Let the record of a FAISS file say that it is not mapped."""
    record = path / "faiss" / "000001.json"
    write_sealed_json(record, read_sealed_json(record, FAISS_RECORD, CorruptIndexError) | {"lists_start": None})


def test_a_file_larger_than_any_of_its_kind_is_not_read(index, caplog, monkeypatch):
    path, vectors = index
    IndexWriter(path).compact(kind="SQ8")
    monkeypatch.setattr("sbert_mini.search.faiss_index._LEAST_LIMIT", 0)
    monkeypatch.setattr("sbert_mini.search.faiss_index._A_ROW", 32)
    monkeypatch.setattr("sbert_mini.search.faiss_index._A_COMPONENT", 0)
    sealed(path, (path / "faiss" / "000001.faiss").read_bytes() + bytes(10_000))
    SearchIndex(path).nearest(vectors[:2], 1)
    assert "more than 1100 rows of 28 take" in caplog.text


def test_faiss_takes_no_more_memory_for_a_part_than_its_file_has_bytes(index, monkeypatch):
    path, vectors = index
    IndexWriter(path).compact(kind="SQ8")
    faiss, limits = faiss_with(), []
    read = faiss.deserialize_index
    before = faiss.get_deserialization_vector_byte_limit()
    monkeypatch.setattr(
        faiss,
        "deserialize_index",
        lambda data: (limits.append(faiss.get_deserialization_vector_byte_limit()), read(data))[1],
    )
    SearchIndex(path).nearest(vectors[:2], 1)
    assert limits == [1 << 20]
    assert faiss.get_deserialization_vector_byte_limit() == before


@pytest.mark.parametrize("kind", ["IVF4,Flat", "HNSW16"])
def test_vectors_whose_squares_may_overflow_are_not_given_to_faiss(index, monkeypatch, kind):
    monkeypatch.setattr("sbert_mini.search.faiss_file._GREATEST", 0.01)
    with pytest.raises(CorruptIndexError, match=r"in 000001 a component of a vector is not below 0\.01"):
        IndexWriter(index[0]).compact(kind=kind)


@pytest.mark.parametrize("number", [COUNT, 2**40, 2**63 - 1])
def test_a_row_that_faiss_proposes_and_the_segment_lacks_is_damage(index, caplog, number):
    path, vectors = index
    IndexWriter(path).compact(kind="IVF4,Flat")
    _, expected = SearchIndex(path).nearest(vectors[:20], 1)
    faiss = faiss_with()
    crafted = faiss.index_factory(28, "IVF4,Flat", faiss.METRIC_L2)
    crafted.train(vectors)
    numbers = np.arange(COUNT)
    numbers[:20] = number
    crafted.add_with_ids(vectors, numbers)
    sealed(path, faiss.serialize_index(crafted).tobytes())
    unmapped(path)
    for options in ({}, {"filter": "n < 900"}):
        caplog.clear()
        sealed(path, faiss.serialize_index(crafted).tobytes())
        unmapped(path)
        np.testing.assert_array_equal(SearchIndex(path).nearest(vectors[:20], 1, **options)[1], expected)
        assert options or "names a row that its segment does not have" in caplog.text
