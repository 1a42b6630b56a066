"""Columns of rows -> what a map's points can be coloured by."""

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sbert_mini.atlas.map_page import Coloring
from sbert_mini.shapes import IntArray

VALUES = 20
"""The most values of a column that have a colour; the others are "other values"."""
_RANGES = 6
_DIFFERENT = 0.2
"""A column of texts with more different values than this share of its rows is no category."""


def group_coloring(numbers: IntArray, names: Sequence[str]) -> Coloring:
    """Return the colours of groups: `names` by number; rows of none (-1) are "no group". Shapes: numbers: (rows,)."""
    return Coloring(
        "groups", [*(name or "no words" for name in names), "no group"], np.where(numbers < 0, len(names), numbers)
    )


def colorings_of(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Coloring], list[str]]:
    """Return the colourings by the columns of some rows, and the names of the columns that have none.

    A column of at most 20 values has a colour each; numbers of more values have ranges with equally many rows; of other columns
    the 20 most frequent values have a colour. A column whose values are nearly all different, or all the same, has none.
    """
    columns = dict.fromkeys(name for row in rows for name in row)
    made, without = [], []
    for name in columns:
        found = _coloring(name, [row.get(name) for row in rows])
        if found is None:
            without.append(name)
        else:
            made.append(found)
    return made, without


def _coloring(name: str, values: Sequence[Any]) -> Coloring | None:
    plain = [
        value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values
    ]
    counts = Counter(value for value in plain if value is not None)
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(counts) > VALUES and len(numbers) == sum(counts.values()):
        return _ranges(name, values)
    if len(counts) < 2 or len(counts) > max(VALUES, _DIFFERENT * len(values)):
        return None
    shown = sorted(counts, key=lambda value: (-counts[value], value))[:VALUES]
    places = {value: place for place, value in enumerate(shown)}
    codes = np.array([len(shown) if value is None else places.get(value, len(shown)) for value in plain], np.int64)
    return Coloring(name, [*shown, "other values or none"], codes)


def _ranges(name: str, values: Sequence[Any]) -> Coloring:
    numbers = np.array([np.nan if value is None else value for value in values], np.float64)
    known = np.isfinite(numbers)
    borders = np.unique(np.quantile(numbers[known], np.linspace(0, 1, _RANGES + 1)))
    codes = np.clip(np.searchsorted(borders, numbers, side="right") - 1, 0, max(len(borders) - 2, 0))
    names = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(borders)] or [f"{borders[0]:g}"]
    return Coloring(name, [*names, "none"], np.where(known, codes, len(names)))
