"""A change of an index -> its next generation: new rows go into one segment, together with the small segments at the end.

Each change makes a segment, and a search looks into each. So a writer takes the last segments into the new one where they are
small: those of up to `FLOOR` vectors at once, larger ones where `FACTOR` of about the same size have come together. A row is
written again once a level, of which there are few, and never by a change of one row where its segment holds `MOST` vectors or
more. Rows of the merged segments that were deleted or replaced are left out. The others keep their numbers, and their order.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.search.columns import Schema
from sbert_mini.search.compaction import build_new, copy_rows
from sbert_mini.search.encoding import RowBlock
from sbert_mini.search.kinds import SearchKind
from sbert_mini.search.segment import Segment, SegmentWriter
from sbert_mini.search.store import LongTextRule, ModelIdentity, Store, publish
from sbert_mini.search.word_writer import write_generation
from sbert_mini.shapes import IntArray

FLOOR, FACTOR, MOST = 128, 4, 10_000
"""Segments of up to FLOOR vectors are always merged; of larger ones FACTOR of one level; never into more than MOST vectors."""


@dataclass(frozen=True)
class Generation:
    """What a new generation is made with.

    Attributes:
        path: the index directory, whose lock is held.
        old: the generation before; None for a new index.
        model: of the index.
        kind: how its vectors are searched.
        rule: what happens to long texts that are added to a new index.
        schema: the columns; it notes the values of the rows before they are written.
        threads: for FAISS and the index of words.
        replaces: for a new index, the present generation of the one whose place it takes; None for an empty directory.
    """

    path: Path
    old: Store | None
    model: ModelIdentity
    kind: SearchKind
    rule: LongTextRule
    schema: Schema
    threads: int
    replaces: Store | None = None

    @property
    def number(self) -> int:
        """The generation's number."""
        before = self.old or self.replaces
        return 1 if before is None else before.generation + 1

    @property
    def first_row(self) -> int:
        """The number of its first new row."""
        before = self.old or self.replaces
        return 0 if before is None else int(before.manifest["next_row"])


def first_merged(sizes: Sequence[int]) -> int:
    """Return which segments become one: those from this position to the end; the number of segments for none, or the last.

    Args:
        sizes: vectors of the segments, in their order; the last one is the new one, if there is one.
    """
    first = len(sizes) - 1
    total = sizes[first]
    while True:
        run, size = first, total
        while run > 0 and _level(sizes[run - 1]) <= _level(total) and size + sizes[run - 1] <= MOST:
            run -= 1
            size += sizes[run]
        if first - run < (1 if _level(total) == 0 else FACTOR - 1):
            return first
        first, total = run, size


def _level(size: int) -> int:
    """Return the level of a segment: 0 for up to `FLOOR` vectors, and one more for each `FACTOR` times as many."""
    level, most = 0, FLOOR
    while size > most:
        level, most = level + 1, most * FACTOR
    return level


def publish_change(
    new: Generation,
    blocks: Iterable[RowBlock],
    gone: Sequence[int],
    check: Callable[[int], None] | None = None,
) -> int:
    """Write new rows, merge small segments with them, and publish the generation, which lacks some older rows.

    Returns the number of new rows. Where nothing changes, nothing is published.

    Args:
        new: the generation.
        blocks: the new rows.
        gone: the numbers of the older rows that the generation lacks; complete once all blocks are taken.
        check: called with the number of new rows before the generation is published; it may raise.

    Raises:
        CorruptIndexError: a row of a segment that is merged does not match its checksum; nothing is changed then.
    """
    rest = iter(blocks)
    head, vectors = [], 0
    for block in rest:
        head.append(block)
        vectors += len(block.vectors)
        if vectors > MOST:
            break
    segments = [] if new.old is None else new.old.segments
    entry, merged, rows = None, [], 0
    if vectors > MOST:  # too large to be merged with others
        entry, rows = _written(new, [], chain(head, rest), gone, check)
    else:
        rows = sum(len(block.rows) for block in head)
        if check is not None:
            check(rows)
        if not rows and not gone:
            new.schema.finish()
            return 0
        merged = _to_merge(segments, _lost(new.old, gone), vectors)
        if rows or merged:
            entry, rows = _written(new, merged, head, gone)
    _publish(new, entry, merged, _lost(new.old, gone), rows)
    return rows


def _lost(old: Store | None, gone: Sequence[int]) -> IntArray:
    """Return the numbers of all rows of the old segments that the new generation lacks, ascending."""
    rows = np.array(gone, dtype=np.int64)
    return np.unique(rows if old is None else np.concatenate([old.deleted, rows]))


def _positions(segment: Segment, rows: IntArray) -> IntArray:
    """Return the positions in a segment of those of some rows that are in it."""
    positions, here = segment.positions_of_rows(rows)
    return positions[here]


def _to_merge(segments: Sequence[Segment], lost: IntArray, vectors: int) -> list[Segment]:
    """Return the last segments, which are to become one with so many new vectors; none where that gains nothing."""
    left = [segment.rows - len(_positions(segment, lost)) for segment in segments]
    sizes = [-(-s.vectors * rows // s.rows) for s, rows in zip(segments, left, strict=True)]
    if vectors:
        sizes.append(vectors)
    first = first_merged(sizes) if sizes else 0
    return list(segments[first:]) if first < len(sizes) - 1 else []


def _written(
    new: Generation,
    merged: Sequence[Segment],
    blocks: Iterable[RowBlock],
    gone: Sequence[int],
    check: Callable[[int], None] | None = None,
) -> tuple[dict[str, Any] | None, int]:
    """Write the generation's segment: the rows that are left of older ones, and the new rows.

    Returns its entry in the manifest, None where it has no row, and the number of new rows.
    """
    rows = 0
    with SegmentWriter(new.path / "segments", f"{new.number:06d}", new.model.dimension, new.schema) as target:
        for segment in merged:
            present = np.ones(segment.rows, dtype=bool)
            present[_positions(segment, _lost(new.old, gone))] = False
            copy_rows(target, segment, new.model.dimension, present)
        older = target.rows
        for block in blocks:
            spans = block.spans
            if spans is not None:
                spans = spans + np.array([older, 0, 0])
            numbers = np.arange(len(block.rows), dtype=np.int64) + new.first_row + rows
            target.write(block.rows, block.vectors, numbers, spans)
            rows += len(block.rows)
        if check is not None:
            check(rows)
    return (target.entry if target.rows else None), rows


def _publish(
    new: Generation, entry: dict[str, Any] | None, merged: Sequence[Segment], lost: IntArray, rows: int
) -> None:
    """Publish the generation: the segments that were not merged and still have rows, and the new one."""
    old = new.old
    entries, deleted = [], []
    if old is not None:
        names = {segment.name for segment in merged}
        for segment, old_entry in zip(old.segments, old.manifest["segments"], strict=True):
            positions = _positions(segment, lost)
            if segment.name not in names and len(positions) < segment.rows:
                entries.append(old_entry)
                deleted.append(segment.row_ids[positions])
    if entry is not None:
        build_new(new.path, entry, new.model.dimension, new.kind, new.threads)
        entries.append(entry)
    numbers = np.concatenate([*deleted, np.empty(0, np.int64)])
    write_generation(new.path, new.number, entries, numbers, old, new.threads)
    publish(
        *(new.path, new.number, new.model, entries, new.first_row + rows, numbers, new.kind),
        columns=new.schema.described(),
        long_texts=new.rule if old is None else old.long_texts,
    )
