"""New rows, and the rows that they replace -> one generation of an index."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from sbert_mini.errors import InputError
from sbert_mini.search.encoding import EncodingOptions, IndexCounts, PassageEncoder, RowBlock, encoded_blocks
from sbert_mini.search.merging import Generation, publish_change
from sbert_mini.search.segment import StoredRow


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
    old_rows = 0 if new.old is None else new.old.rows

    def check(rows: int) -> None:
        if rows + old_rows == len(gone):
            raise InputError(no_row_left(new.path, is_new=new.old is None))

    def told() -> Iterator[RowBlock]:
        written = 0
        for block in encoded_blocks(rows, encoder, new.model.prompt, new.rule, options, counts):
            yield block
            written += len(block.rows)
            on_block(written)

    counts.rows = publish_change(new, told(), gone, check)
    counts.replaced = len(gone)


def no_row_left(path: Path, *, is_new: bool) -> str:
    """Return why an index without any row is not made."""
    if is_new:
        return "the folders hold no text to index"
    return f"no row would be left in the index; remove the directory {path} instead"
