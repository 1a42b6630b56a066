"""Small segments are merged as the index changes: which ones, and that rows, numbers, passages, words and readers stay."""

import numpy as np
import pytest
from indexes import make

from sbert_mini import Embedder, IndexWriter, SearchIndex
from sbert_mini.errors import CorruptIndexError
from sbert_mini.search.merging import FACTOR, FLOOR, MOST, first_merged
from sbert_mini.text.records import Record


@pytest.mark.parametrize(
    ("sizes", "first"),
    [
        ([5], 0),
        ([FLOOR, 1], 0),
        ([FLOOR + 1, 1], 1),
        ([20_000, 3, 1], 1),
        ([20_000, 200, 200, 200, 100, 29], 1),  # 100 and 29 are of the next level together, and the fourth there
        ([20_000, 200, 200, 200, 100, 28], 4),
        ([4000, 4000, 4000, 4000], 3),  # together they are too many
        ([2000, 2000, 2000, 2000], 0),
        ([100, 5000], 1),
        ([1, 1, 1, 5000], 0),
        ([0, 0, 3], 0),
    ],
)
def test_which_segments_are_merged(sizes, first):
    assert first_merged(sizes) == first


def test_few_segments_are_left_and_rows_are_rarely_written_again():
    sizes, written = [50_000], 0
    for _ in range(20_000):
        sizes.append(1)
        first = first_merged(sizes)
        sizes[first:] = [sum(sizes[first:])]
        written += sizes[-1]
        assert len(sizes) <= 2 + (FACTOR - 1) * 4 + 20_000 // (MOST // FACTOR)
        assert sizes[0] == 50_000
        assert max(sizes[1:]) <= MOST
    assert written < 100 * 20_000


def test_rows_numbers_words_and_open_readers_stay(tmp_path, converted_model):
    path = tmp_path / "index"
    embedder = Embedder(converted_model(), threads=1)
    writer = IndexWriter(path, embedder)
    base = [Record(f"the cat {i}", str(i), {"n": i}) for i in range(FLOOR + 40)]
    writer.create(base)
    expected = {row.id: (row.text, row.columns["n"]) for row in base}
    readers = []
    for i in range(6):
        added, changed, gone = f"new {i}", str(3 * i), str(100 + i)
        writer.add([Record(f"a dog {i}", added, {"n": -i})])
        writer.update([Record(f"a tree {i}", changed, {"n": 7})])
        IndexWriter(path).delete([gone])
        expected[added], expected[changed] = (f"a dog {i}", -i), (f"a tree {i}", 7)
        del expected[gone]
        if i == 2:
            readers = [SearchIndex(path), dict(expected)]
    index = SearchIndex(path)
    assert (index.segments, index.generation, index.deleted_rows) == (2, 19, 12)
    for opened, rows in ((index, expected), readers):
        assert {row.id: (row.text, row.columns["n"]) for row in opened.rows()} == rows
        assert opened.verify() == []
        assert {hit.id for hit in opened.search("a dog", 200, by="words")} >= {
            i for i, row in rows.items() if "dog" in row[0]
        }
        assert len(opened.search("tree 2", 500, by="meaning")) == len(rows)
        assert set(opened.matching("n = 7").tolist()) <= set(range(FLOOR + 40 + 12))
    numbers = np.concatenate([segment.row_ids for segment in index._store.segments])
    assert (np.diff(numbers) > 0).all()
    assert int(numbers[-1]) == FLOOR + 40 + 11
    best = index.search("a tree 5", 3, by="words")
    assert best[0].id == "15"
    del readers, opened, index
    writer.add([Record("last", "last", {"n": 0})])
    assert len(list((path / "segments").iterdir())) == 2
    assert sorted(row.id for row in IndexWriter(path).compact().rows()) == sorted([*expected, "last"])


def test_passages_are_kept(tmp_path, converted_model):
    embedder = Embedder(converted_model(), threads=1)
    writer = IndexWriter(tmp_path / "index", embedder, passage_tokens=4, overlap=0)
    writer.create([Record("the cat. a dog. the tree. a cat and a dog.", "long"), Record("the cat", "short")])
    writer = IndexWriter(tmp_path / "index", embedder)
    before = {
        row.id: vectors.tolist()
        for rows, block in SearchIndex(writer.path).row_blocks()
        for row, vectors in zip(rows, block, strict=True)
    }
    writer.add([Record("a dog. the tree. a cat. the dog. a tree.", "next")])
    index = writer.update([Record("a tree", "short")])
    assert (index.segments, index.deleted_rows, len(index)) == (1, 0, 3)
    assert index.vectors > 3
    for identity in ("long", "next"):
        row = index.get(identity)
        hit = next(hit for hit in index.search(row.text, 3, by="meaning") if hit.id == identity)
        assert 0 <= hit.start < hit.end < len(row.text)
    np.testing.assert_allclose(index.vector("long"), before["long"], atol=1e-6)
    assert index.verify() == []


def test_segments_without_rows_are_left_out_and_large_ones_stay(
    tmp_path, converted_model, numbered_records, clustered_vectors
):
    path = tmp_path / "index"
    index = make(path, converted_model, numbered_records, clustered_vectors, kind="SQ8")
    faiss = (path / "faiss" / "000001.faiss").stat().st_ino
    writer = IndexWriter(path, index.embedder())
    index = writer.add([Record("a dog", f"new {i}", {"n": -i}) for i in range(200)], vectors=-clustered_vectors[:200])
    assert (index.segments, index.segment_kinds) == (2, ["SQ8", "exact"])
    assert IndexWriter(path).delete([f"new {i}" for i in range(200)]) == 200
    index = SearchIndex(path)
    assert (index.segments, index.deleted_rows, len(index)) == (1, 0, len(numbered_records))
    assert (path / "faiss" / "000001.faiss").stat().st_ino == faiss
    assert index.verify() == []
    index = writer.add([Record("a dog", "one more", {"n": 0})], vectors=-clustered_vectors[:1])
    assert int(index._store.segments[-1].row_ids[0]) == len(numbered_records) + 200  # no number is given again


def test_a_damaged_segment_is_not_merged(tmp_path, converted_model):
    path = tmp_path / "index"
    embedder = Embedder(converted_model(), threads=1)
    IndexWriter(path, embedder).create([Record("the cat", "a", {"n": 1}), Record("a dog", "b", {"n": 2})])
    file = path / "segments" / "000001" / "vectors.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptIndexError, match="does not match its checksum"):
        IndexWriter(path, embedder).add([Record("a tree", "c", {"n": 3})])
    assert SearchIndex(path).generation == 1
    assert [p.name for p in (path / "segments").iterdir()] == ["000001"]
