"""A segment: rows by id and by position, and its damage."""

import numpy as np
import pytest
from indexes import make

from sbert_mini import Embedder, IndexWriter, SearchIndex
from sbert_mini.errors import (
    CorruptIndexError,
    CorruptModelError,
)
from sbert_mini.search.segment import SegmentWriter
from sbert_mini.text.records import Record


def test_rows_are_found_by_id_however_their_digests_fall(tmp_path, converted_model):
    records = [Record("the cat", f"id {i}", {"n": i}) for i in range(500)]
    index = IndexWriter(tmp_path / "index", Embedder(converted_model())).create(records)
    assert [index.get(r.id).columns["n"] for r in records] == list(range(500))
    assert index.get("id 500") is None


def test_a_damaged_row_is_an_error_when_it_is_read(copied_index):
    rows = copied_index / "segments" / "000001" / "rows.jsonl"
    data = bytearray(rows.read_bytes())
    data[1000] ^= 1
    rows.write_bytes(data)
    index = SearchIndex(copied_index)
    with pytest.raises(CorruptIndexError, match=r"rows\.jsonl: block 0 .* does not match"):
        index.search("bread", 3)
    rows.write_bytes(data[:-3])
    with pytest.raises(CorruptIndexError, match=r"must hold 95382 bytes, and holds 95379"):
        SearchIndex(copied_index)


def test_nan_vectors_are_not_stored(tmp_path):
    with (
        pytest.raises(CorruptModelError, match="NaN"),
        SegmentWriter(tmp_path, "000001", 3, 0) as segment,
    ):
        segment.write([], np.array([[1, np.nan, 0]], np.float32))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", [1, 2, 4])  # one run; as many runs as are mapped; fewer, which are read
def test_vectors_are_read_at_any_positions_and_checked(
    tmp_path, converted_model, numbered_records, clustered_vectors, step
):
    path = tmp_path / "index"
    make(path, converted_model, numbered_records, clustered_vectors, kind="exact")
    positions = np.arange(0, 3001, step)
    segment = SearchIndex(path)._store.segments[0]
    for threads in (1, 3):
        np.testing.assert_array_equal(segment.vectors_at(positions, 28, threads), clustered_vectors[positions])
    file = path / "segments" / "000001" / "vectors.npy"
    data = bytearray(file.read_bytes())
    data[-28 * 4 * 600] ^= 1
    file.write_bytes(data)
    segment = SearchIndex(path)._store.segments[0]
    early = positions[positions < 1000]
    np.testing.assert_array_equal(segment.vectors_at(early, 28), clustered_vectors[early])
    with pytest.raises(CorruptIndexError, match=r"vectors\.npy: block \d+ of 32768 bytes does not match"):
        segment.vectors_at(positions, 28)
