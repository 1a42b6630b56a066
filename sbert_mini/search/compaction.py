"""An index's rows in one segment, without those that were deleted or replaced."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.search.columns import Schema
from sbert_mini.search.kinds import EXACT, SearchKind, kind_of
from sbert_mini.search.nearest import build
from sbert_mini.search.segment import Segment, SegmentWriter, remove_cache, remove_segment, segment_folder
from sbert_mini.search.store import Store, publish
from sbert_mini.search.word_writer import write_generation
from sbert_mini.shapes import AnyArray


def compact_segments(
    old: Store, kind: SearchKind, threads: int, on_progress: Callable[[int, int], None] | None
) -> None:
    """Publish a generation that holds the same rows in one segment, searched by `kind`, where there is something to gain.

    Args:
        old: the generation before. The caller holds the write lock.
        kind: the new kind of index.
        threads: for FAISS.
        on_progress: called with the rows written so far and the number of all rows.

    Raises:
        CorruptIndexError: a stored block does not match its checksum.
        UsageError: FAISS cannot make or search this kind.
    """
    whole = len(old.segments) == 1 and not len(old.deleted) and old.segments[0].is_current
    if whole and kind == old.kind:  # but for its FAISS file, which a reader does not make of every kind
        build(old.path, old.manifest["segments"][0], old.model.dimension, kind.factory, kind.pca, threads)
        return
    generation, next_row = old.generation + 1, old.manifest["next_row"]
    if whole:
        entry = old.manifest["segments"][0]
        build(old.path, entry, old.model.dimension, kind.factory, kind.pca, threads)
    else:
        entry = _merge(old, f"{generation:06d}", on_progress)
        build_new(old.path, entry, old.model.dimension, kind, threads)
    write_generation(old.path, generation, [entry], np.empty(0, np.int64), old, threads)
    rule = old.long_texts
    publish(old.path, generation, old.model, [entry], next_row, None, kind, columns=old.columns, long_texts=rule)
    if whole and kind_of(kind.factory, old.segments[0].vectors, kind.pca) == EXACT:
        remove_cache(old.path, old.segments[0].name)


def _merge(old: Store, name: str, on_progress: Callable[[int, int], None] | None) -> dict[str, Any]:
    """Write the rows of all segments into a new one, and return its entry for the manifest."""
    with SegmentWriter(old.path / "segments", name, old.model.dimension, Schema(old.columns)) as merged:
        report = None if on_progress is None else lambda: on_progress(merged.rows, old.rows)
        for segment in old.segments:
            copy_rows(merged, segment, old.model.dimension, old.present_rows(segment), report)
    return merged.entry


def copy_rows(
    target: SegmentWriter,
    segment: Segment,
    dimension: int,
    rows: AnyArray | None,
    on_block: Callable[[], object] | None = None,
    *,
    renumbered: bool = False,
) -> None:
    """Write rows of a segment into another one, with their numbers, vectors and passages.

    Args:
        target: the other segment.
        segment: the segment.
        dimension: components of a vector.
        rows: which rows, (rows,) bool; None for all.
        on_block: called after each block of some thousand vectors.
        renumbered: give them the other segment's next numbers instead of their own.

    Raises:
        CorruptIndexError: a stored block does not match its checksum.
    """
    for block, vector_positions, vectors in segment.row_blocks(dimension, rows):
        stored = [segment.row(position) for position in block.tolist()]
        spans = None
        if segment.passages is not None:
            spans = segment.passages.spans[vector_positions]
            spans[:, 0] = target.rows + np.searchsorted(block, spans[:, 0])
        target.write(stored, vectors, None if renumbered else segment.row_ids[block], spans)
        if on_block is not None:
            on_block()


def build_new(path: Path, entry: Mapping[str, Any], dimension: int, kind: SearchKind, threads: int) -> None:
    """Make and try a new segment's FAISS file; where FAISS cannot, remove the segment, which no generation names."""
    try:
        build(path, entry, dimension, kind.factory, kind.pca, threads)
    except BaseException:
        remove_cache(path, entry["name"])
        remove_segment(segment_folder(path, entry))
        raise
