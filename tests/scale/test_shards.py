"""Shards of vectors that anybody may have made: what does not fit is one error with the file."""

import numpy as np
import pytest

from sbert_mini.errors import InputError
from sbert_mini.scale.shards import read_shards

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def vectors_of(rows, dim=3, kind=None):
    flat = pa.array(np.arange(rows * dim, dtype=np.float32), kind or pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, dim)


def test_shards_are_read_in_the_order_of_their_names(tmp_path, monkeypatch):
    monkeypatch.setattr("sbert_mini.scale.shards._BLOCK_BYTES", 25)  # two rows at a time
    for name, first, rows in (("b", 5, 4), ("a", 0, 5)):
        ids = pa.array([f"id {first + i}" for i in range(rows)])
        pq.write_table(
            pa.table({"id": ids, "vector": vectors_of(rows), "truncated": [False] * rows}), tmp_path / f"{name}.parquet"
        )
    given = read_shards(tmp_path, tmp_path / "v.npy")
    assert dict(given.places) == {f"id {i}": i for i in range(9)}
    expected = np.arange(15, dtype=np.float32).reshape(5, 3)
    np.testing.assert_array_equal(given.vectors, np.concatenate([expected, expected[:4]]))


IDS = ["a", "b", "c"]
NULL = pa.array([[1.0, 2.0, 3.0], None, [1.0, 2.0, 3.0]], pa.list_(pa.float32(), 3))
PART = pa.array([[1.0, None, 3.0]] * 3, pa.list_(pa.float32(), 3))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": IDS}, "it must hold id, a string, and vector"),
        ({"vector": vectors_of(3)}, "it must hold id, a string, and vector"),
        ({"id": [["a"], ["b"], ["c"]], "vector": vectors_of(3)}, "it must hold id, a string"),
        ({"id": [1, 2, 3], "vector": vectors_of(3)}, "it must hold id, a string"),
        ({"id": IDS, "vector": vectors_of(3, kind=pa.float64())}, "a list of float32 of a fixed size"),
        ({"id": IDS, "vector": pa.array([[1.0], [2.0], [3.0]])}, "a list of float32 of a fixed size"),
        ({"id": IDS, "vector": NULL}, "an id, a vector or a component is null"),
        ({"id": IDS, "vector": PART}, "an id, a vector or a component is null"),
        ({"id": ["a", None, "c"], "vector": vectors_of(3)}, "an id, a vector or a component is null"),
        ({"id": ["a", "b", "a"], "vector": vectors_of(3)}, "holds the id 'a', which stands in a row before"),
        ({"id": ["a", "c", "c"], "vector": vectors_of(3)}, "holds the id 'c', which stands in a row before"),
        ({"id": pa.array([], pa.string()), "vector": vectors_of(0)}, "holds no Parquet shard with a row"),
    ],
)
def test_another_table_is_refused(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=message) as caught:
        read_shards(tmp_path, tmp_path / "v.npy")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"nonsense", b"PAR1" + b"\0" * 40 + b"PAR1"])
def test_a_file_that_is_no_parquet_is_refused(tmp_path, data):
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.parquet cannot be read as a Parquet shard: ") as caught:
        read_shards(tmp_path, tmp_path / "v.npy")
    assert "\n" not in str(caught.value)


def test_shards_of_different_sizes_are_refused(tmp_path):
    pq.write_table(pa.table({"id": ["a"], "vector": vectors_of(1)}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": ["b"], "vector": vectors_of(1, 4)}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet holds vectors of 4 components, and others 3"):
        read_shards(tmp_path, tmp_path / "v.npy")
