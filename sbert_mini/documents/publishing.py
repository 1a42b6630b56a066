"""New rows, and the rows that they replace -> one generation of an index."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sbert_mini.errors import InputError
from sbert_mini.search.columns import Schema
from sbert_mini.search.compaction import build_new
from sbert_mini.search.deletion import publish_without
from sbert_mini.search.encoding import EncodingOptions, IndexCounts, PassageEncoder, encoded_blocks
from sbert_mini.search.kinds import SearchKind
from sbert_mini.search.segment import SegmentWriter, StoredRow
from sbert_mini.search.store import LongTextRule, ModelIdentity, Store, publish
from sbert_mini.search.word_writer import write_generation


@dataclass(frozen=True)
class Generation:
    """What a new generation is made with.

    Attributes:
        path: the index directory, whose lock is held.
        old: the generation before; None for a new index.
        model: of the index.
        kind: how its vectors are searched.
        rule: what happens to long texts.
        schema: the columns; it notes the values of the rows before they are written.
        threads: for FAISS and the index of words.
    """

    path: Path
    old: Store | None
    model: ModelIdentity
    kind: SearchKind
    rule: LongTextRule
    schema: Schema
    threads: int


def publish_rows(
    new: Generation,
    rows: Iterable[StoredRow],
    gone: list[int],
    encoder: PassageEncoder,
    options: EncodingOptions,
    counts: IndexCounts,
    on_block: Callable[[int], None],
) -> None:
    """Write rows into a new segment, and publish the generation that has it and lacks some older rows.

    Args:
        new: the generation.
        rows: the rows; their values are noted in the schema as they come.
        gone: the numbers of the rows that the generation lacks; complete once all rows are taken.
        encoder: encodes the rows' passages.
        options: how they are encoded.
        counts: filled in.
        on_block: called with the number of rows written so far.

    Raises:
        InputError: no row would be left.
    """
    old = new.old
    number = 1 if old is None else old.generation + 1
    first_row = 0 if old is None else int(old.manifest["next_row"])
    segments = new.path / "segments"
    with SegmentWriter(segments, f"{number:06d}", new.model.dimension, new.schema, first_row) as segment:
        for block in encoded_blocks(rows, encoder, new.model.prompt, new.rule, options, counts):
            segment.write(block.rows, block.vectors, spans=block.spans)
            on_block(segment.rows)
        if segment.rows + (0 if old is None else old.rows) == len(gone):
            raise InputError(no_row_left(new.path, is_new=old is None))
    counts.rows, counts.replaced = segment.rows, len(gone)
    lost = np.array(sorted(gone), dtype=np.int64)
    if not segment.rows:
        if old is not None and len(lost):
            publish_without(old, lost, new.threads)
        return
    entries = [*([] if old is None else old.manifest["segments"]), segment.entry]
    deleted = lost if old is None else np.concatenate([old.deleted, lost])
    build_new(new.path, entries[-1], new.model.dimension, new.kind, new.threads)
    write_generation(new.path, number, entries, deleted, old, new.threads)
    publish(
        *(new.path, number, new.model, entries, first_row + segment.rows, deleted, new.kind),
        columns=new.schema.described(),
        long_texts=new.rule if old is None else old.long_texts,
    )


def no_row_left(path: Path, *, is_new: bool) -> str:
    """Return why an index without any row is not made."""
    if is_new:
        return "the folders hold no text to index"
    return f"no row would be left in the index; remove the directory {path} instead"
