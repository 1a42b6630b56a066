"""The rows of an open generation: against a list of the rows, and brute force over it."""

import numpy as np
import pytest
from indexes import make

from sbert_mini import IndexWriter, SearchIndex
from sbert_mini.errors import InputError, UsageError
from sbert_mini.search.deletion import publish_without, rows_to_delete
from sbert_mini.search.generation import allowed_rows, matching_rows, row_blocks, row_of, stored_rows
from sbert_mini.search.store import Store, write_lock
from sbert_mini.text.records import Record

REPLACED, DELETED = (1, 7, 11), (0, 5, 2900)


@pytest.fixture
def path(tmp_path, converted_model, numbered_records, clustered_vectors):
    """Two segments: three rows of the first are replaced, three are deleted."""
    path = tmp_path / "index"
    index = make(path, converted_model, numbered_records, clustered_vectors)
    rows = [Record("a tree", str(i), {"n": -i}) for i in REPLACED]
    IndexWriter(path, index.embedder()).update(rows, vectors=clustered_vectors[:3])
    IndexWriter(path).delete([str(i) for i in DELETED])
    return path


@pytest.fixture
def present(numbered_records):
    """The numbers and ids of the rows that are left, in order, with their column n."""
    gone = {*REPLACED, *DELETED}
    first = [(i, record.id, record.columns["n"]) for i, record in enumerate(numbered_records) if i not in gone]
    return first + [(len(numbered_records) + i, str(row), -row) for i, row in enumerate(REPLACED)]


def test_rows_and_vectors_are_those_that_are_left(path, present, clustered_vectors):
    store = Store(path)
    assert [(row.id, row.columns["n"]) for row in stored_rows(store)] == [(i, n) for _, i, n in present]
    blocks = list(row_blocks(store))
    assert [row.id for rows, _ in blocks for row in rows] == [identity for _, identity, _ in present]
    vectors = np.concatenate([clustered_vectors, clustered_vectors[:3]])[[number for number, *_ in present]]
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), vectors)
    assert row_of(store, "7").text == "a tree"
    assert row_of(store, "5") is None
    assert row_of(store, "nobody") is None


@pytest.mark.parametrize(
    ("filter", "test"),
    [("n > 2000", lambda n: n > 2000), ("n < 0", lambda n: n < 0), ("n < 12 and n <> 3", lambda n: n < 12 and n != 3)],
)
def test_a_filter_allows_the_rows_that_are_left_and_meet_it(path, present, filter, test):
    store = Store(path)
    expected = [number for number, _, n in present if test(n)]
    assert matching_rows(store, filter, None).tolist() == expected
    masks = allowed_rows(store, filter, None)
    assert [len(mask) for mask in masks] == [segment.rows for segment in store.segments]
    assert sum(int(mask.sum()) for mask in masks) == len(expected)
    everything = allowed_rows(store, None, None)
    assert [everything[0].sum(), everything[1]] == [3001 - 6, None]


def test_a_deletion_is_a_generation_without_the_rows(path, present):
    with write_lock(path):
        old = Store(path)
        rows = rows_to_delete(old, ["3", "7", "3"], "n >= 2990", None, 1)
        expected = [number for number, identity, n in present if identity in ("3", "7") or n >= 2990]
        assert rows.tolist() == expected
        publish_without(old, rows, 1)
    after = SearchIndex(path)
    assert (len(after), after.generation) == (len(present) - len(expected), old.generation + 1)
    assert after.get("7") is None
    for wrong, filter, error, message in (
        (["7"], None, InputError, "the id '7' is not in the index; nothing was deleted"),
        ([], None, UsageError, "no id was given, and no filter"),
        ([], "n is not null", InputError, f"these are all {len(after)} rows of the index; remove the directory"),
    ):
        with pytest.raises(error, match=message):
            rows_to_delete(Store(path), wrong, filter, None, 1)
    assert SearchIndex(path).generation == after.generation
