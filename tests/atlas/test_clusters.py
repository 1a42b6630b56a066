"""Groups of rows around a centre, beside their definition computed by brute force."""

import numpy as np
import pytest

from sbert_mini.atlas import clusters
from sbert_mini.atlas.clusters import assign, blocks_of, compact, find_groups
from sbert_mini.errors import InputError, UsageError


def bundles(sizes, dimension=23, noise=0.05, seed=3):
    """Vectors of length 1 around a direction each, and some of no direction; mixed."""
    random = np.random.default_rng(seed)
    directions = np.linalg.qr(random.normal(size=(dimension, len(sizes))))[0].T
    rows = [directions[i] + noise * random.normal(size=(size, dimension)) for i, size in enumerate(sizes)]
    owners = np.repeat(np.arange(len(sizes)), sizes)
    mixed = random.permutation(len(owners))
    vectors = np.concatenate(rows)[mixed]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), owners[mixed]


def by_definition(vectors, threshold, min_size):
    """The groups as the module's docstring defines them, row by row, as sets of rows by their centre."""
    cosines = vectors @ vectors.T
    density = (cosines >= threshold).sum(axis=1)
    centres = []
    for row in sorted(range(len(vectors)), key=lambda row: (-density[row], row)):
        if density[row] >= min_size and not any(cosines[row, centre] >= threshold for centre in centres):
            centres.append(row)

    def joined():
        members = {centre: set() for centre in centres}
        for row in range(len(vectors)):
            near = [(cosines[row, centre], centre) for centre in centres if cosines[row, centre] >= threshold]
            if near:
                members[max(near)[1]].add(row)
        return members

    members = joined()
    while any(len(rows) < min_size for rows in members.values()):
        centres = [centre for centre in centres if len(members[centre]) >= min_size]
        members = joined()
    return members


def as_sets(groups):
    return {int(c): set(np.flatnonzero(groups.numbers == i).tolist()) for i, c in enumerate(groups.centres)}


@pytest.mark.parametrize(
    ("threshold", "min_size", "noise"), [(0.7, 5, 0.15), (0.5, 2, 0.3), (0.95, 3, 0.05), (0.3, 1, 0.4)]
)
def test_groups_are_those_of_the_definition(threshold, min_size, noise):
    vectors, _ = bundles([29, 17, 11, 3, 1], noise=noise)
    groups = find_groups(vectors, threshold=threshold, min_size=min_size)
    assert as_sets(groups) == by_definition(vectors, threshold, min_size)


def test_the_largest_group_is_the_first_and_every_row_is_near_its_centre():
    vectors, owners = bundles([7, 31, 13, 2])
    groups = find_groups(vectors, threshold=0.8, min_size=5)
    assert np.bincount(groups.numbers[groups.numbers >= 0]).tolist() == [31, 13, 7]
    assert [set(owners[groups.numbers == i]) for i in range(3)] == [{1}, {2}, {0}]
    assert (owners[groups.numbers < 0] == 3).all()
    inside = groups.numbers >= 0
    cosines = np.einsum("rd,rd->r", vectors[inside], vectors[groups.centres[groups.numbers[inside]]])
    assert np.allclose(groups.cosines[inside], cosines, atol=1e-6)
    assert groups.cosines[inside].min() >= 0.8
    assert not groups.cosines[~inside].any()


def test_many_rows_are_grouped_in_lists_and_in_half_precision(monkeypatch):
    vectors, _ = bundles([211, 101, 53, 29], noise=0.05)
    exact = find_groups(vectors, threshold=0.8)
    monkeypatch.setattr(clusters, "EXACT_ROWS", 97)
    halves = compact(blocks_of(vectors), *vectors.shape)
    assert halves.dtype == np.float16
    found = find_groups(halves, threshold=0.8)
    assert np.array_equal(found.numbers, exact.numbers)
    assert np.array_equal(found.numbers, find_groups(halves, threshold=0.8).numbers)


def test_new_rows_join_the_nearest_group_that_reaches_them():
    vectors, owners = bundles([37, 19])
    groups = find_groups(vectors[:40], threshold=0.8)
    numbers, cosines = assign(vectors[40:], vectors[groups.centres], 0.8)
    of_group = [owners[groups.centres[i]] for i in range(2)]
    assert [of_group[number] for number in numbers] == owners[40:].tolist()
    assert cosines.min() >= 0.8
    away = -vectors[groups.centres[:1]]
    assert assign(away, vectors[groups.centres], 0.8)[0].tolist() == [-1]
    assert assign(vectors[:2], vectors[:0], 0.8)[0].tolist() == [-1, -1]


def test_rows_that_no_group_takes_are_in_none():
    vectors, _ = bundles([1, 1, 1])
    groups = find_groups(vectors, threshold=0.9, min_size=2)
    assert groups.numbers.tolist() == [-1, -1, -1]
    assert len(groups.centres) == 0
    assert len(find_groups(vectors[:0]).numbers) == 0


def test_vectors_are_brought_to_length_1_and_must_be_finite():
    vectors = np.array([[3, 4], [0, 0], [0.1, 0]], np.float32)
    assert np.allclose(compact([vectors[:2], vectors[2:]], 3, 2), [[0.6, 0.8], [0, 0], [1, 0]])
    with pytest.raises(InputError, match="row 3 holds NaN"):
        compact([vectors[:2], np.array([[np.nan, 1]])], 3, 2)
    with pytest.raises(InputError, match="there are 2 vectors, not 3"):
        compact([vectors[:2]], 3, 2)
    with pytest.raises(InputError, match="more vectors than 1"):
        compact([vectors[:2]], 1, 2)


@pytest.mark.parametrize("options", [{"threshold": 0}, {"threshold": 1.1}, {"threshold": "x"}, {"min_size": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        find_groups(np.eye(3, dtype=np.float32), **options)
