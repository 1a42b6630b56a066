"""Rows -> blocks of rows with their vectors: encoded, whole or in passages, or given by the caller."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, Unpack

import numpy as np

from sbert_mini.errors import InputError, UsageError
from sbert_mini.progress import ProgressBar, expected
from sbert_mini.runtime import arguments
from sbert_mini.runtime.choices import LONG_TEXTS, LongTexts
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.runtime.stream import EncodeCounts, RowT, StreamOptions
from sbert_mini.search.segment import StoredRow
from sbert_mini.search.store import LongTextRule
from sbert_mini.shapes import FloatArray, IntArray
from sbert_mini.text.passages import PassageSize, PassageSplitter, Span, passage_size
from sbert_mini.text.tokenizer import TextTokenizer

NEW_INDEX: LongTexts = "passages"
"""What a new index does with long texts, unless the caller says otherwise (EXPERIMENTS.md)."""
_BLOCK_ROWS = 4096


class PassageEncoder(Protocol):
    """What encodes passages: an `Embedder`, or something that asks one."""

    @property
    def tokenizer(self) -> TextTokenizer:
        """The model's."""

    def encode_records(
        self, records: Iterable[RowT], **options: Unpack[StreamOptions]
    ) -> Iterator[tuple[list[RowT], FloatArray]]:
        """Yield records with the vectors of their texts; see `Embedder.encode_records`."""


@dataclass
class IndexCounts:
    """Counts of a change of an index, updated while it runs.

    Attributes:
        records: records read.
        rows: rows stored.
        replaced: rows among them that took the place of one with the same id.
        repeated: rows without an id of their own that were the same, in every column, as one before; stored once.
        resumed: passages whose vectors an interrupted creation had computed.
        unchanged: rows of an update that were stored already, with the same text and columns; left as they are.
        split: rows whose text was split into passages.
        passages: passages of those rows.
        encoding: counts of the encoding; a passage counts as a text.
    """

    records: int = 0
    rows: int = 0
    replaced: int = 0
    repeated: int = 0
    resumed: int = 0
    unchanged: int = 0
    split: int = 0
    passages: int = 0
    encoding: EncodeCounts = field(default_factory=EncodeCounts)


@dataclass(frozen=True)
class VectorsById:
    """Vectors that lie in another order than the rows that they are of.

    Attributes:
        vectors: of length 1.
        places: the rows' ids -> where their vectors lie.

    Shapes:
        vectors: (rows, dim).
    """

    vectors: FloatArray
    places: Mapping[str, int]


@dataclass(frozen=True)
class RowBlock:
    """Some rows with their vectors, as `SegmentWriter.write` takes them.

    Attributes:
        rows: the rows.
        vectors: their vectors, (vectors, dim).
        spans: their passages, (vectors, 3); None where each row has one vector.
    """

    rows: list[StoredRow]
    vectors: FloatArray
    spans: IntArray | None = None


@dataclass(frozen=True)
class EncodingOptions:
    """How the caller wants rows to be encoded.

    Attributes:
        truncation: a text longer than the model reads: `warn`, `error` and `chunk` as in `Embedder.encode`; `passages` splits it
            into passages, each with a vector of its own. None for what the index notes, and for a new one `NEW_INDEX`.
        passage_tokens: the most word pieces of a passage; None for what the index notes, else for as many as the model reads.
        overlap: word pieces that passages share; None for what the index notes, else for the usual number.
        batch_size: see `Embedder.encode`.
        show_progress_bar: draw a progress bar on stderr.
        parts: where passages divide a row's text in any case: a row -> consecutive parts of its text, each of which is split by
            itself; None for the whole text.
    """

    truncation: LongTexts | None = None
    passage_tokens: int | None = None
    overlap: int | None = None
    batch_size: int = 32
    show_progress_bar: bool = False
    parts: Callable[[StoredRow], Sequence[Span]] | None = None

    def rule(self, noted: LongTextRule | None, embedder: Embedder, prompt: str) -> LongTextRule:
        """Return what happens to long texts.

        Args:
            noted: the rule of the index; None for a new index.
            embedder: the model.
            prompt: put before each text.

        Raises:
            UsageError: an option is unknown, or does not fit the model or the other options.
        """
        truncation = self.truncation or (NEW_INDEX if noted is None else noted.truncation)
        if truncation not in LONG_TEXTS:
            raise UsageError(f"truncation must be {', '.join(LONG_TEXTS)} or None; found {truncation!r}")
        values = {"passage_tokens": self.passage_tokens, "overlap": self.overlap}
        tokens, overlap = (None if n is None else arguments.integer(n, name, 0) for name, n in values.items())
        if truncation != "passages":
            for name, value in values.items():
                if value is not None:
                    shown = name.replace("overlap", "the overlap")
                    raise UsageError(f"{shown} is for truncation='passages', and truncation is {truncation!r}", shown)
            return LongTextRule(truncation)
        if noted is not None and noted.truncation == "passages":
            tokens = noted.tokens if tokens is None else tokens
            overlap = noted.overlap if overlap is None else overlap
        size = passage_size(embedder.tokenizer, prompt, tokens, overlap)
        return LongTextRule(truncation, size.tokens, size.overlap)


def encoded_blocks(
    rows: Iterable[StoredRow],
    embedder: PassageEncoder,
    prompt: str,
    rule: LongTextRule,
    options: EncodingOptions,
    counts: IndexCounts,
) -> Iterator[RowBlock]:
    """Yield rows with their vectors, block by block, reading the rows as it goes.

    Args:
        rows: the rows of one segment, in their order.
        embedder: the model.
        prompt: put before each text, or each passage.
        rule: what happens to long texts.
        options: of the call.
        counts: filled in.
    """
    encode = partial(embedder.encode_records, batch_size=options.batch_size, prompt=prompt, counts=counts.encoding)
    total = expected(rows)
    progress = ProgressBar("encoding", total) if options.show_progress_bar else None
    try:
        for block in _encoded(rows, embedder.tokenizer, encode, rule, options, counts):
            yield block
            if progress is not None:
                progress.advance(len(block.rows))
    finally:
        if progress is not None:
            progress.close()


def _encoded(
    rows: Iterable[StoredRow],
    tokenizer: TextTokenizer,
    encode: Callable[..., Iterator[tuple[list[Any], FloatArray]]],
    rule: LongTextRule,
    options: EncodingOptions,
    counts: IndexCounts,
) -> Iterator[RowBlock]:
    """Yield rows with their vectors; `encode` is `encode_records` with what all windows share."""
    if rule.truncation != "passages":
        for block, vectors in encode(rows, truncation=rule.truncation):
            yield RowBlock(block, vectors)
        return
    assert rule.tokens is not None and rule.overlap is not None  # noqa: S101, PT018
    splitter = PassageSplitter(tokenizer, PassageSize(rule.tokens, rule.overlap))
    for passages, vectors in encode(_passages(rows, splitter, counts, options.parts)):
        spans = np.array([(p.position, p.start, p.end) for p in passages], np.int64)
        yield RowBlock([p.row for p in passages if p.is_first], vectors, spans)


@dataclass(frozen=True, slots=True)
class _Passage:
    """A part of a row's text; `position` counts the rows."""

    row: StoredRow
    position: int
    start: int
    end: int
    is_first: bool

    @property
    def text(self) -> str:
        return self.row.text[self.start : self.end]


def _passages(
    rows: Iterable[StoredRow],
    splitter: PassageSplitter,
    counts: IndexCounts,
    parts: Callable[[StoredRow], Sequence[Span]] | None,
) -> Iterator[_Passage]:
    for position, row in enumerate(rows):
        spans = splitter.spans(row.text) if parts is None else splitter.spans_in_parts(row.text, parts(row))
        if len(spans) > 1:
            counts.split += 1
            counts.passages += len(spans)
        for number, (start, end) in enumerate(spans):
            yield _Passage(row, position, start, end, number == 0)


def given_blocks(
    accepted: Iterable[tuple[int, StoredRow]],
    ready: FloatArray | VectorsById,
    dimension: int,
    counts: IndexCounts,
) -> Iterator[RowBlock]:
    """Yield rows with their vectors out of those that the caller gives, block by block.

    Args:
        accepted: the rows to store, with their records' positions.
        ready: one vector a record.
        dimension: components of a vector.
        counts: of the records read so far.

    Raises:
        InputError: there are more or fewer vectors than records, a row has none, or one is not of length 1.
    """
    vectors, position_of = (ready.vectors, ready.places) if isinstance(ready, VectorsById) else (ready, None)
    vectors = arguments.array_of(vectors, "vectors")
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise InputError(f"the vectors must have the shape (rows, {dimension}); found {vectors.shape}")
    positions: list[int] = []
    pending: list[StoredRow] = []

    def block() -> FloatArray:
        block_vectors = np.asarray(vectors[positions], dtype=np.float32)
        lengths = np.linalg.norm(block_vectors.astype(np.float64), axis=1)
        wrong = np.flatnonzero(~(np.abs(lengths - 1) < arguments.LENGTH_TOLERANCE))
        if len(wrong):
            first = int(wrong[0])
            raise InputError(f"vector {positions[first] + 1} has the length {lengths[first]:.4f}; it must be 1")
        positions.clear()
        return arguments.rescaled(block_vectors, lengths)

    used = 0
    for position, row in accepted:
        vector = position if position_of is None else position_of.get(row.id, -1)
        if vector < 0:
            raise InputError(f"the row {row.id!r} has no vector")
        if vector >= len(vectors):
            raise InputError(f"there are {len(vectors)} vectors, and more rows than that")
        positions.append(vector)
        pending.append(row)
        used += 1
        if len(positions) == _BLOCK_ROWS:
            yield RowBlock(pending, block())
            pending = []
    rows = counts.records if position_of is None else used + counts.repeated
    if rows < len(vectors):
        raise InputError(
            f"there are {len(vectors)} vectors, and {rows} rows{'' if position_of is None else ' of their ids'}"
        )
    if positions:
        yield RowBlock(pending, block())
