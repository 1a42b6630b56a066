"""FAISS files: a cache that is checked, mapped read-only and made anew."""

import json
import shutil

import numpy as np
import pytest
from conftest import replace
from indexes import ROWS, make

from sbert_mini import IndexWriter, SearchIndex
from sbert_mini.errors import CorruptIndexError
from sbert_mini.files.durable import read_sealed_json, write_sealed_json
from sbert_mini.files.json_files import FAISS_RECORD
from sbert_mini.search.checksums import file_checksums
from sbert_mini.search.faiss_index import inverted_lists
from sbert_mini.search.faiss_threads import faiss_with
from sbert_mini.search.segment import VECTOR_BLOCK_BYTES
from sbert_mini.text.records import Record


def test_the_faiss_file_is_a_cache(tmp_path, converted_model, numbered_records, clustered_vectors, caplog):
    make(tmp_path / "index", converted_model, numbered_records, clustered_vectors, kind="SQ8")
    folder = tmp_path / "index" / "faiss"
    _, expected = SearchIndex(tmp_path / "index").nearest(clustered_vectors[:5], 5)
    for damage in (shutil.rmtree, lambda folder: replace(folder / "000001.faiss", b"nonsense")):
        damage(folder)
        for noted in (damage is not shutil.rmtree, False):
            caplog.clear()
            np.testing.assert_array_equal(
                SearchIndex(tmp_path / "index").nearest(clustered_vectors[:5], 5)[1], expected
            )
            assert ("making the FAISS file anew" in caplog.text) == noted


def test_damaged_lists_that_are_mapped_are_made_anew_before_a_search_uses_them(
    tmp_path, converted_model, numbered_records, clustered_vectors, rng, caplog
):
    make(tmp_path / "index", converted_model, numbered_records, clustered_vectors, kind="IVF32,SQ8")
    _, expected = SearchIndex(tmp_path / "index").nearest(clustered_vectors[:50], 5)
    file = tmp_path / "index" / "faiss" / "000001.faiss"
    start = json.loads((file.with_suffix(".json")).read_text().rsplit("\n", 2)[0])["lists_start"]
    data = bytearray(file.read_bytes())
    assert 0 < start < VECTOR_BLOCK_BYTES < len(data)
    np.testing.assert_array_less(len(data) - start - 1, ROWS * (28 + 8))
    for position in rng.integers(VECTOR_BLOCK_BYTES, len(data), 400):  # behind the block that holds the start
        data[position] ^= 255
    replace(file, data)
    index = SearchIndex(tmp_path / "index")
    index.prepare()
    (damage,) = index.verify()
    assert "does not match its checksum" in damage
    assert "making the FAISS file anew" not in caplog.text
    np.testing.assert_array_equal(index.nearest(clustered_vectors[:50], 5)[1], expected)
    assert caplog.text.count("making the FAISS file anew") == 1
    assert index.verify() == []
    data[start - 5] ^= 1  # what stands before the lists is checked when it is opened, and the file made anew
    replace(file, data)
    index = SearchIndex(tmp_path / "index")
    index.prepare()
    assert index.verify() == []


def test_only_the_lists_that_a_search_looks_into_are_read(
    tmp_path, converted_model, numbered_records, clustered_vectors
):
    for kind in ("IVF32,SQ8", "PCA12,IVF32,SQ8", "IVF32,RaBitQ"):
        folder = tmp_path / kind
        index = make(folder, converted_model, numbered_records, clustered_vectors, kind=kind)
        (search,) = index._segment_searches()
        lists = search._open().lists
        probes = inverted_lists(search._open().index).nprobe
        lists.check(clustered_vectors[:1])
        assert np.count_nonzero(~lists._unchecked) == probes < 32
        index.nearest(clustered_vectors, 3)
        assert not lists._unchecked.any()


def test_a_mapped_faiss_file_is_read_only_by_construction(
    tmp_path, converted_model, numbered_records, clustered_vectors
):
    index = make(tmp_path / "index", converted_model, numbered_records, clustered_vectors, kind="IVF32,SQ8")
    (search,) = index._segment_searches()
    assert not any("add" in name or "remove" in name for name in dir(search))
    more = [Record("a dog", f"new {i}", {"n": -i}) for i in range(2000)]
    grown = IndexWriter(tmp_path / "index", index.embedder()).add(more, vectors=clustered_vectors[:2000])
    assert (len(grown), grown.segments, grown.segment_kinds) == (5001, 2, ["IVF32,SQ8", "IVF32,SQ8"])
    assert len(index) == ROWS


@pytest.fixture
def small(tmp_path, converted_model, numbered_records, clustered_vectors):
    """An index with a FAISS file, with the vectors of its 1,100 rows."""
    make(tmp_path / "index", converted_model, numbered_records[:1100], clustered_vectors[:1100], kind="SQ8")
    return tmp_path / "index", clustered_vectors[:1100]


def sealed(path, data):
    """Put another FAISS file into an index, all checksums right."""
    file, record = path / "faiss" / "000001.faiss", path / "faiss" / "000001.json"
    replace(file, data)  # threads of FAISS that read lists ahead may still hold the old one mapped
    described = read_sealed_json(record, FAISS_RECORD, CorruptIndexError)
    write_sealed_json(record, described | {"file": file_checksums(file)})


def test_a_file_of_other_vectors_is_made_anew(tmp_path, converted_model, numbered_records, small, caplog):
    path, vectors = small
    make(tmp_path / "other", converted_model, numbered_records[:1100], -vectors[::-1], kind="SQ8")
    for file in (tmp_path / "other" / "faiss").iterdir():
        shutil.copy(file, path / "faiss" / file.name)
    assert "belongs to other vectors" in SearchIndex(path).verify()[0]
    assert SearchIndex(path).nearest(vectors[:9], 1)[1][:, 0].tolist() == list(range(9))
    assert "belongs to other vectors" in caplog.text
    assert SearchIndex(path).verify() == []


@pytest.mark.parametrize(
    ("data_of", "message"),
    [
        (lambda faiss, vectors: b"nonsense", "has 8 bytes, which is too few"),
        (lambda faiss, vectors: b"IxSQ" + serialized(faiss, vectors)[4:99], "cannot be read by this FAISS"),
        (lambda faiss, vectors: serialized(faiss, vectors[:5]), "5 rows of 28, not 1100 of 28 as its segment"),
        (lambda faiss, vectors: serialized(faiss, vectors[:, :20]), "1100 rows of 20, not 1100 of 28 as its segment"),
    ],
)
def test_a_sealed_file_that_does_not_fit_is_made_anew(small, caplog, data_of, message):
    path, vectors = small
    sealed(path, data_of(faiss_with(), np.ascontiguousarray(vectors)))
    assert SearchIndex(path).nearest(vectors[:9], 1)[1][:, 0].tolist() == list(range(9))
    assert message in caplog.text
    caplog.clear()
    assert SearchIndex(path).nearest(vectors[:9], 1)[1][:, 0].tolist() == list(range(9))
    assert caplog.text == ""


def serialized(faiss, vectors):
    index = faiss.index_factory(vectors.shape[1], "SQ8", faiss.METRIC_L2)
    index.train(np.ascontiguousarray(vectors))
    index.add(np.ascontiguousarray(vectors))
    return faiss.serialize_index(index).tobytes()


def test_an_index_that_cannot_keep_its_faiss_file_is_searched(small, caplog):
    path, vectors = small
    shutil.rmtree(path / "faiss")
    (path / "faiss").touch()
    for _ in range(2):
        caplog.clear()
        assert SearchIndex(path).nearest(vectors[:9], 1)[1][:, 0].tolist() == list(range(9))
        assert "was not kept: " in caplog.text
