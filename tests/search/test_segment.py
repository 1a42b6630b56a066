"""A segment: rows by id and by position, and its damage."""

import numpy as np
import pytest

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
