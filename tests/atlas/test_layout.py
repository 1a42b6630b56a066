"""Places of rows: the same for the same seed, near for similar rows, and for any number of rows."""

import numpy as np
import pytest
from indexes import unit

from sbert_mini.atlas import layout
from sbert_mini.errors import InputError

pytest.importorskip("openTSNE")


@pytest.fixture(scope="module")
def bundles():
    random = np.random.default_rng(5)
    owners = np.repeat(np.arange(4), 30)
    return unit(np.eye(8)[owners] + 0.05 * random.standard_normal((120, 8))), owners


@pytest.fixture(scope="module")
def placed(bundles):
    return layout.places(bundles[0])


def test_the_same_rows_have_the_same_places(bundles, placed):
    assert np.array_equal(layout.places(bundles[0]), placed)


def test_groups_are_those_of_the_vectors(bundles, placed):
    numbers = layout.groups(placed)
    assert numbers.max() >= 3
    for group in range(int(numbers.max()) + 1):
        assert len(set(bundles[1][numbers == group])) == 1
    sizes = np.bincount(numbers[numbers >= 0])
    assert (np.diff(sizes) <= 0).all()
    trust, rows = layout.trustworthiness(bundles[0], placed)
    assert rows == 120
    assert 0.8 < trust <= 1


def test_neighbours_are_the_nearest_other_rows(bundles):
    vectors = bundles[0]
    rows, distances = layout.neighbours(vectors, 3)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2)
    assert np.array_equal(rows, np.argsort(-cosines, axis=1)[:, :3])
    assert (np.diff(distances) >= 0).all()


@pytest.mark.parametrize("rows", [1, 2, 7, 9])
def test_few_and_equal_rows_have_places(rows):
    places = layout.places(np.tile(np.eye(1, 5, dtype=np.float32), (rows, 1)))
    assert places.shape == (rows, 2)
    assert np.isfinite(places).all()
    assert (layout.groups(places) == -1).all()


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(InputError, match="no row"):
        layout.places(np.empty((0, 4), np.float32))
    with pytest.raises(InputError, match="NaN"):
        layout.places(np.full((3, 4), np.nan, np.float32))
