"""Rows -> training and dev rows, with no text on both sides. No torch."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbert_mini.errors import InputError
from sbert_mini.training.checks import normalized, row_key

SHARE, LEAST, MOST = 0.2, 10, 2000
"""Dev rows: this share of all, at least and at most so many."""


@dataclass(frozen=True)
class Split:
    """Which rows are dev rows.

    Attributes:
        dev: whether each row is one.
        groups: groups of rows that share a text.
        shared: texts of the second column that stand on both sides, where the groups could not be kept whole; else 0.
    """

    dev: tuple[bool, ...]
    groups: int
    shared: int = 0


def split_rows(texts: Sequence[Sequence[str]], labels: Sequence[Any] | None, seed: int = 0) -> Split:
    """Return a split by groups: rows that share a text, directly or through others, stay together.

    Where nearly all rows hang together in one group, rows are kept together by their first text alone.

    Args:
        texts: each row's texts.
        labels: each row's label; classes are shared evenly among the two sides.
        seed: of what is drawn.

    Raises:
        InputError: there are too few rows or groups to split.
    """
    wanted = min(max(round(SHARE * len(texts)), LEAST), MOST)
    if len(texts) < 2 * LEAST:
        raise InputError(
            f"at least {2 * LEAST} rows are needed, so that some can be held back to measure on; found {len(texts)}"
        )
    groups = _groups([[normalized(text) for text in row] for row in texts])
    shared = 0
    dev = _drawn(groups, labels, wanted, seed)
    if sum(dev) < wanted / 2 and len(texts[0]) > 1:
        firsts = [normalized(row[0]) for row in texts]
        dev = _drawn(firsts, labels, wanted, seed)
        sides = [{normalized(row[1]) for row, d in zip(texts, dev, strict=True) if d is side} for side in (True, False)]
        shared = len(sides[0] & sides[1])
    if sum(dev) < wanted / 2 or all(dev):
        raise InputError("nearly all rows share one text: no rows can be held back to measure on")
    return Split(tuple(dev), len(set(groups)), shared)


def _groups(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the number of each row's group: rows that are joined by equal texts."""
    parent = list(range(len(rows)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    seen: dict[str, int] = {}
    for number, row in enumerate(rows):
        for text in row:
            first = seen.setdefault(text, number)
            parent[root(number)] = root(first)
    return [root(number) for number in range(len(rows))]


def _drawn(groups: Sequence[Any], labels: Sequence[Any] | None, wanted: int, seed: int) -> list[bool]:
    """Draw whole groups until there are as many dev rows as wanted; groups of each label in its share of the rows."""
    members = defaultdict(list)
    for number, group in enumerate(groups):
        members[group].append(number)
    of_label = defaultdict(list)
    for rows in members.values():
        of_label[labels[rows[0]] if labels is not None else None].append(rows)
    if len(of_label) > len(groups) // 5:  # grades with many values
        of_label = {None: list(members.values())}  # type: ignore[assignment]
    rng, dev = np.random.default_rng(seed), [False] * len(groups)
    for several in of_label.values():
        quota = wanted * sum(map(len, several)) / len(groups)
        taken = 0
        for index in rng.permutation(len(several)).tolist():
            rows = several[index]
            if taken + len(rows) <= quota + 0.5 and len(several) > 1:
                taken += len(rows)
                for row in rows:
                    dev[row] = True
    return dev


def row_notes(texts: Sequence[Sequence[str]], labels: Sequence[Any] | None) -> list[str]:
    """Return what a person should know of the rows before they are split, in words: repeated rows, contradicting labels."""
    notes = []
    keys = [row_key(row) for row in texts]
    repeated = len(keys) - len(set(keys))
    if repeated:
        notes.append(f"{repeated:,} of {len(keys):,} rows repeat an earlier row's texts")
    if labels is not None:
        several = defaultdict(set)
        for key, label in zip(keys, labels, strict=True):
            several[key].add(label)
        if torn := sum(len(found) > 1 for found in several.values()):
            unit, end = "text" if len(texts[0]) == 1 else "pair", "" if torn == 1 else "s"
            notes.append(f"{torn:,} {unit}{end} stand{'s' if torn == 1 else ''} with contradicting labels")
        counts = Counter(labels)
        if len(counts) <= 20:
            shown = ", ".join(
                f"{_shown(label)} {count:,} ({count / len(labels):.1%})" for label, count in sorted(counts.items())
            )
            notes.append(f"labels: {shown}")
        if len(counts) == 1:
            notes.append(f"every row has the label {_shown(labels[0])}: there is nothing to learn from it")
    return notes


def _shown(label: Any) -> str:
    return f"{label:g}" if isinstance(label, float) else str(label)
