"""Compaction: rows, ids, numbers and order stay, and open readers keep their files."""

import subprocess
import sys

import numpy as np
import pytest
from indexes import make

from sbert_mini import IndexWriter, SearchIndex
from sbert_mini.errors import UsageError
from sbert_mini.search.kinds import SearchKind
from sbert_mini.search.store import stored_bytes
from sbert_mini.text.records import Record


def test_compaction_keeps_rows_ids_numbers_and_order(tmp_path, converted_model, numbered_records, clustered_vectors):
    path = tmp_path / "index"
    index = make(path, converted_model, numbered_records, clustered_vectors, kind="SQ8")
    writer = IndexWriter(path, index.embedder())
    writer.add([Record("a dog", f"new {i}", {"n": -i}) for i in range(30)], vectors=-clustered_vectors[30:60])
    writer.update([Record("a tree", str(i), {"n": i}) for i in range(7)], vectors=-clustered_vectors[100:107])
    IndexWriter(path).delete([str(i) for i in range(50, 230)])
    before = SearchIndex(path)
    rows, found = list(before.rows()), before.nearest(clustered_vectors[:9], 13, exact=True)
    size = stored_bytes(path)
    after = IndexWriter(path).compact()
    assert (len(after), after.segments, after.deleted_rows, after.generation) == (2851, 1, 0, 5)
    assert list(after.rows()) == rows
    for one, other in zip(found, after.nearest(clustered_vectors[:9], 13, exact=True), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert after.get("3").text == "a tree"
    assert after.get("60") is None
    assert after.verify() == []
    # `before` reads on, and what it reads stays until it is gone
    assert list(before.rows()) == rows
    np.testing.assert_array_equal(before.nearest(clustered_vectors[:9], 13, exact=True)[1], found[1])
    assert {f.name for f in (path / "segments").iterdir()} == {"000001", "000003", "000005"}
    del before, index, writer
    assert IndexWriter(path).delete(["30"]) == 1
    assert [folder.name for folder in (path / "segments").iterdir()] == ["000005"]
    assert sorted(file.name for file in (path / "faiss").iterdir()) == ["000005.faiss", "000005.json"]
    assert stored_bytes(path) < size
    added = IndexWriter(path, after.embedder()).add([Record("x", "last")], vectors=clustered_vectors[:1])
    assert added.nearest(clustered_vectors[:1], 1)[1][0, 0] in (0, 3038)  # numbers go on where they were


def test_compaction_changes_the_kind(tmp_path, converted_model, numbered_records, clustered_vectors):
    path = tmp_path / "index"
    make(path, converted_model, numbered_records, clustered_vectors)
    index = IndexWriter(path).compact(kind="HNSW16", pca=16)
    assert (index.kind, index.segment_kinds, index.generation) == (SearchKind("HNSW16", 16), ["PCA16,HNSW16"], 2)
    assert IndexWriter(path).compact().generation == 2  # nothing to gain
    with pytest.raises(UsageError, match="does not know"):
        IndexWriter(path).compact(kind="Nonsense")
    with pytest.raises(UsageError, match=r"^pca goes with a kind: name it too, such as kind='auto' \(--kind auto\)$"):
        IndexWriter(path).compact(pca=20)
    assert SearchIndex(path).generation == 2


READER = """
import sys
from sbert_mini import IndexWriter, SearchIndex
index = SearchIndex(sys.argv[1])
print(len(index), flush=True)
sys.stdin.readline()
segment = index._store.segments[0]
print(len(list(index.rows())), index.nearest(segment.vectors_at(segment.row_ids[:1], 28), 5)[1].shape[1])
"""


def test_another_process_keeps_what_it_opened(tmp_path, converted_model, numbered_records, clustered_vectors):
    path = tmp_path / "index"
    make(path, converted_model, numbered_records, clustered_vectors, kind="IVF32,SQ8")
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert reader.stdout.readline() == "3001\n"
        IndexWriter(path).delete(filter="n > 9")
        assert len(IndexWriter(path).compact()) == 10
        assert {f.name for f in (path / "segments").iterdir()} == {"000001", "000003"}
        out, _ = reader.communicate("\n", timeout=600)
        assert out == "3001 5\n"
    finally:
        reader.kill()
    IndexWriter(path).delete(["3"])
    assert {f.name for f in (path / "segments").iterdir()} == {"000003"}


def test_compaction_reports_its_rows_and_removes_the_faiss_file_of_an_exact_kind(
    tmp_path, converted_model, numbered_records, clustered_vectors
):
    path = tmp_path / "index"
    index = make(path, converted_model, numbered_records, clustered_vectors, kind="SQ8")
    index = IndexWriter(path, index.embedder()).add([Record("a dog", "dog")], vectors=-clustered_vectors[:1])
    written = []
    IndexWriter(path).compact(on_progress=lambda rows, of: written.append((rows, of)))
    assert written == [(3001, 3002), (3002, 3002)]
    assert [file.name for file in (path / "faiss").iterdir() if file.name.startswith("000003")] != []
    index = IndexWriter(path).compact(kind="exact")
    assert (index.segment_kinds, [file.name for file in (path / "faiss").glob("000003*")]) == (["exact"], [])
