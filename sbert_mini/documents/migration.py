"""An index -> the same rows with another model (`sbmini index migrate`): it is encoded again, and changes in one step."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from sbert_mini.documents.sync import parts_of_row
from sbert_mini.errors import InputError
from sbert_mini.progress import Counted
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.search.columns import Schema
from sbert_mini.search.compaction import build_new
from sbert_mini.search.encoding import EncodingOptions, IndexCounts, encoded_blocks
from sbert_mini.search.generation import stored_rows
from sbert_mini.search.index import SearchIndex
from sbert_mini.search.journal import MIGRATING, Journal, JournalingEncoder, journal_folder, remove_journal
from sbert_mini.search.kinds import check_kind
from sbert_mini.search.segment import SegmentWriter, StoredRow
from sbert_mini.search.store import LongTextRule, ModelIdentity, Store, publish, require_index, sweep, write_lock
from sbert_mini.search.word_writer import write_generation
from sbert_mini.search.writer import model_identity


def migrate_index(
    path: str | Path,
    embedder: Embedder,
    *,
    prompt: str | None = None,
    passage_tokens: int | None = None,
    overlap: int | None = None,
    batch_size: int = 32,
    show_progress_bar: bool = False,
    counts: IndexCounts | None = None,
) -> SearchIndex:
    """Encode an index's rows with another model, and return the index, opened.

    Rows keep their ids, numbers, columns and order, and what a sync knows of its files. Until all rows are encoded, searches go
    on with the old model; then the index changes in one step. A reader that has it open keeps the old generation, with its model,
    until it opens the index again. The write lock is held all the time: another writer is refused.

    The vectors lie beside the index, in INDEX.migrating, until they are in it: after an error, Ctrl-C or a crash the same call
    continues. Where the index was made with this model and prompt already, nothing is done.

    Args:
        path: the index directory.
        embedder: the new model.
        prompt: put before each text from now on; None for the model's own prompt for documents, if it has one.
        passage_tokens, overlap: of passages, where the index has them; None for as long as the new model reads.
        batch_size: see `Embedder.encode`.
        show_progress_bar: draw a progress bar on stderr.
        counts: filled in, if given.

    Raises:
        IndexNotFoundError: there is no index.
        IndexLockedError: another process is writing there.
        InputError: a migration to another model was begun, and did not end.
        UsageError: the index's kind of search does not fit the new model, or an option does not.
        CorruptIndexError: a stored row does not match its checksum; the index is left as it was.
    """
    path, counts = Path(path), IndexCounts() if counts is None else counts
    require_index(path)
    with write_lock(path), closing(Store(path)) as old:
        model = model_identity(embedder, prompt)
        options = EncodingOptions(
            *(old.long_texts.truncation, passage_tokens, overlap, batch_size, show_progress_bar), parts=parts_of_row
        )
        rule = options.rule(None, embedder, model.prompt)
        if not _is_made_with(old, model, rule):
            check_kind(old.kind.factory, model.dimension, old.kind.pca)
            _migrate(old, embedder, model, rule, options, counts)
            old.close()
            sweep(path)
        remove_journal(path, MIGRATING)
    index = SearchIndex(path, threads=embedder.threads)
    index.prepare()
    return index


def _is_made_with(old: Store, model: ModelIdentity, rule: LongTextRule) -> bool:
    """Return whether an index has the vectors that a migration would make."""
    same = ("fingerprint", "graph", "dimension", "prompt")
    return rule == old.long_texts and all(getattr(model, name) == getattr(old.model, name) for name in same)


def _migrate(
    old: Store,
    embedder: Embedder,
    model: ModelIdentity,
    rule: LongTextRule,
    options: EncodingOptions,
    counts: IndexCounts,
) -> None:
    """Publish the generation with the new vectors."""
    generation, next_row = old.generation + 1, int(old.manifest["next_row"])
    journal = Journal(old.path, model, rule.truncation, MIGRATING)
    if journal.is_of_others:
        raise InputError(
            f"{journal_folder(old.path, MIGRATING)} was left by a migration to another model, or with another prompt: run that "
            "one, or delete the folder"
        )
    schema = Schema(old.columns)
    numbers = np.concatenate([s.row_ids if (m := old.present_rows(s)) is None else s.row_ids[m] for s in old.segments])
    with closing(journal):
        journal.open()
        encoder = JournalingEncoder(embedder, journal)
        with SegmentWriter(old.path / "segments", f"{generation:06d}", model.dimension, schema) as segment:
            rows: Iterator[StoredRow] = stored_rows(old)
            for block in encoded_blocks(Counted(rows, old.rows), encoder, model.prompt, rule, options, counts):
                of_rows = numbers[segment.rows : segment.rows + len(block.rows)]
                segment.write(block.rows, block.vectors, of_rows, block.spans)
        counts.rows, counts.resumed = segment.rows, journal.taken
    build_new(old.path, segment.entry, model.dimension, old.kind, embedder.threads)
    nothing = np.empty(0, np.int64)
    write_generation(old.path, generation, [segment.entry], nothing, old, embedder.threads)
    publish(
        *(old.path, generation, model, [segment.entry], next_row, nothing, old.kind),
        columns=old.columns,
        long_texts=rule,
    )
