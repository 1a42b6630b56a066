"""Texts -> windows of vectors: the options of a call, tokenizing on threads, batches of texts of like length, and counts."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypedDict, TypeVar, Unpack

import numpy as np

from sbert_mini.cosine import unit_rows
from sbert_mini.errors import CorruptModelError, TextTooLongError, UsageError
from sbert_mini.model.layout import ModelLayout
from sbert_mini.progress import Counted, ProgressBar, bar_over, expected
from sbert_mini.runtime import arguments
from sbert_mini.runtime.choices import TRUNCATIONS, Truncation
from sbert_mini.runtime.engine import Engine
from sbert_mini.runtime.reading import prompt_text, tokens_around, words_in
from sbert_mini.shapes import FloatArray, IntArray
from sbert_mini.text.batching import batches_by_length
from sbert_mini.text.limits import window_of
from sbert_mini.text.tokenizer import TextTokenizer
from sbert_mini.text.tokens import TokenBatch, Tokens
from sbert_mini.text.words import Words

WINDOW = 2048
"""Texts that are sorted by length together; three windows are in memory at a time, however many texts there are.

A window of long texts (`limits.WINDOW_BYTES`), or of long vectors, has fewer.
"""
_VECTOR_BYTES = 1 << 28
"""Of the vectors of a window."""
_SPLIT_BYTES, _TOKEN_BYTES = 1 << 29, 72
"""What the pieces of one text that is split may take, with their vectors, and what a token of it takes."""

log = logging.getLogger("sbert_mini")


@dataclass
class EncodeCounts:
    """What an encode call met, filled in while it runs.

    Attributes:
        texts: texts encoded.
        tokens: tokens computed, special tokens included.
        truncated: texts longer than the model reads: cut (`truncation="warn"`) or split (`"chunk"`).
        unknown: texts of which the model knows no word: emoji, scripts that its vocabulary lacks. Their vectors say no more than
            how many words there are.
        empty: texts of which nothing is left to read: blanks, control characters and the like. They have one vector.
    """

    texts: int = 0
    tokens: int = 0
    truncated: int = 0
    unknown: int = 0
    empty: int = 0


class PairOptions(TypedDict, total=False):
    """The options of every encode call. All are optional, and `plan_texts` has their defaults.

    Attributes:
        batch_size: the most texts that are computed together; 32 by default.
        show_progress_bar: draw a progress bar on stderr.
        truncation: what happens to a text of more than `max_seq_length` tokens: `warn` (the default) cuts it and says how many
            were cut, `error` refuses it, `chunk` splits it and averages the pieces' vectors by their tokens.
        counts: filled in, if given.
        waits: returns whether the next text would have to be waited for: those before it are then computed at once.
    """

    batch_size: int
    show_progress_bar: bool
    truncation: Truncation
    counts: EncodeCounts | None
    waits: Callable[[], bool] | None


class EncodeOptions(PairOptions, total=False):
    """The options of a call that encodes texts.

    Attributes:
        normalize_embeddings: scale each vector to length 1; True by default. False is for models that do not do so themselves.
        truncate_dim: keep this many first components (for models trained so), then normalise again.
        prompt_name: the name of one of the model's prompts, put before each text.
        prompt: the prompt itself; wins over `prompt_name`.
    """

    normalize_embeddings: bool
    truncate_dim: int | None
    prompt_name: str | None
    prompt: str | None


class StreamOptions(EncodeOptions, total=False):
    """The options of a call that yields vectors as it reads texts.

    Attributes:
        window: texts that are sorted by length together; one window is tokenized while the one before is computed.
        max_tokens: the most tokens of a batch, padding included; None for what suits what computes.
        warn_of_unknown: False to count unknown words and not to report them.
        warn_of_cut: False to count texts that are cut and not to report them.
    """

    window: int
    max_tokens: int | None
    warn_of_unknown: bool
    warn_of_cut: bool


@dataclass(frozen=True)
class EncodePlan:
    """The checked options of an encode call.

    Attributes:
        prefix: the prompt, put before each text.
        batch_size: the most texts of a batch.
        dimension: components kept.
        normalize: whether vectors are normalised again after components were cut.
        truncation: what happens to a text that is too long.
        window: texts of a window.
        max_tokens: the most tokens of a batch, padding included.
        around: special tokens and prompt tokens of each text.
        most_tokens: the most tokens of a text that is split.
        counts: filled in.
        show_progress_bar: whether a bar is drawn.
        warn_of_unknown: whether unknown words are reported.
        warn_of_cut: whether texts that are cut are reported.
        items: what is encoded: `texts` or `pairs`.
        waits: returns whether the next text would have to be waited for; None for never.
    """

    prefix: str
    batch_size: int
    dimension: int
    normalize: bool
    truncation: Truncation
    window: int
    max_tokens: int
    around: int
    most_tokens: int
    counts: EncodeCounts
    show_progress_bar: bool = False
    warn_of_unknown: bool = True
    warn_of_cut: bool = True
    items: Literal["texts", "pairs"] = "texts"
    waits: Callable[[], bool] | None = None


def plan_texts(
    layout: ModelLayout,
    tokenizer: TextTokenizer,
    tokens_per_batch: int,
    *,
    batch_size: int = 32,
    show_progress_bar: bool = False,
    normalize_embeddings: bool = True,
    truncate_dim: int | None = None,
    prompt_name: str | None = None,
    prompt: str | None = None,
    truncation: Truncation = "warn",
    counts: EncodeCounts | None = None,
    window: int = WINDOW,
    max_tokens: int | None = None,
    warn_of_unknown: bool = True,
    warn_of_cut: bool = True,
    waits: Callable[[], bool] | None = None,
) -> EncodePlan:
    """Return the plan of an encode call, its options checked.

    Args:
        layout: of the model.
        tokenizer: of the model.
        tokens_per_batch: for `max_tokens=None`.
        batch_size, show_progress_bar, normalize_embeddings, truncate_dim, prompt_name, prompt, truncation, counts, waits: see
            `EncodeOptions`.
        window, max_tokens, warn_of_unknown, warn_of_cut: see `StreamOptions`.

    Raises:
        UsageError: an option is invalid.
        UnsupportedModelError: the model leaves its prompt out of the pooling.
    """
    size = arguments.integer(batch_size, "batch_size")
    window = arguments.integer(window, "window")
    tokens = tokens_per_batch if max_tokens is None else arguments.integer(max_tokens, "max_tokens")
    if truncation not in TRUNCATIONS:
        raise UsageError(f"truncation must be warn, error or chunk (an index also has passages); found {truncation!r}")
    dimension = check_dimension(layout, truncate_dim)
    if not normalize_embeddings and not layout.normalize:
        raise UsageError(
            "normalize_embeddings must be True here: this model does not normalise by itself, and its graph does. "
            "sbert_mini.load(model).encode(texts) gives its vectors as they are"
        )
    prefix = prompt_text(layout, prompt_name, prompt)
    around = tokens_around(tokenizer, prefix)
    room = max(tokenizer.max_seq_length - around, 1)
    return EncodePlan(
        prefix=prefix,
        batch_size=size,
        dimension=dimension,
        normalize=bool(normalize_embeddings),
        truncation=truncation,
        window=window,
        max_tokens=tokens,
        around=around,
        most_tokens=_SPLIT_BYTES // (_TOKEN_BYTES + 4 * layout.dimension // room),
        counts=EncodeCounts() if counts is None else counts,
        show_progress_bar=show_progress_bar,
        warn_of_unknown=warn_of_unknown,
        warn_of_cut=warn_of_cut,
        waits=waits,
    )


def plan_pairs(
    layout: ModelLayout,
    tokenizer: TextTokenizer,
    tokens_per_batch: int,
    *,
    batch_size: int = 32,
    show_progress_bar: bool = False,
    truncation: Truncation = "warn",
    counts: EncodeCounts | None = None,
    waits: Callable[[], bool] | None = None,
) -> EncodePlan:
    """Return the plan of a call that encodes pairs, its options checked.

    Raises:
        UsageError: an option is invalid; `chunk` is, because a pair cannot be read in pieces.
    """
    if truncation == "chunk":
        raise UsageError("a pair cannot be read in pieces: truncation must be warn or error here")
    if truncation not in ("warn", "error"):
        raise UsageError(f"truncation must be warn or error for pairs; found {truncation!r}")
    return EncodePlan(
        prefix="",
        batch_size=arguments.integer(batch_size, "batch_size"),
        dimension=layout.dimension,
        normalize=True,
        truncation=truncation,
        window=WINDOW,
        max_tokens=tokens_per_batch,
        around=tokenizer.special_tokens(pair=True),
        most_tokens=0,
        counts=EncodeCounts() if counts is None else counts,
        show_progress_bar=show_progress_bar,
        items="pairs",
        waits=waits,
    )


def check_dimension(layout: ModelLayout, truncate_dim: int | None) -> int:
    """Return how many components a call keeps; None keeps the model's own number.

    Raises:
        UsageError: `truncate_dim` is not from 1 to the model's dimension.
    """
    if truncate_dim is None:
        return layout.output_dimension
    dimension = arguments.integer(truncate_dim, "truncate_dim", None)
    if not 1 <= dimension <= layout.dimension:
        raise UsageError(
            f"truncate_dim must be from 1 to {layout.dimension}, the model's dimension; found {dimension}",
            "truncate_dim",
        )
    return dimension


def check_texts(texts: Iterable[str]) -> Iterable[str]:
    """Return several texts, each checked when it is read.

    Raises:
        UsageError: these are not several texts; or, while they are read, one is not a string.
        InputError: while they are read: one is not valid Unicode.
    """
    several = arguments.texts_of(texts)
    return _counted_as(several, (arguments.check_text(text, position) for position, text in enumerate(several)))


def check_pairs(pairs: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    """Return pairs of texts, each checked when it is read (`arguments.pairs_of`)."""
    return _counted_as(pairs, arguments.pairs_of(pairs))


T = TypeVar("T")


def _counted_as(source: Iterable[Any], items: Iterable[T]) -> Counted[T]:
    """Return items with the count of `source`, from which they are made one by one."""
    return (
        Counted(items, source.total, source.done) if isinstance(source, Counted) else Counted(items, expected(source))
    )


@dataclass(frozen=True)
class TokenWindow:
    """Some consecutive texts, tokenized.

    Attributes:
        texts: how many.
        pieces: their tokens; a text that was split has several.
        owners: the text that each piece belongs to, (pieces,).
        truncated: positions of the texts that are longer than the model reads.
        unknown: texts of which the model knows no word.
        empty: texts of which nothing is read.
    """

    texts: int
    pieces: TokenBatch
    owners: IntArray
    truncated: list[int]
    unknown: int
    empty: int


def tokenize_window(texts: Sequence[Any], first: int, tokenizer: TextTokenizer, plan: EncodePlan) -> TokenWindow:
    """Return texts, or pairs of texts, as tokens.

    Args:
        texts: the texts, or pairs.
        first: the position of the first among all texts, for an error.
        tokenizer: of the model.
        plan: of the call.

    Raises:
        TextTooLongError: a text is too long, and the plan's `truncation` is `error`.
        UsageError: the prompt leaves no room for a text that is to be split.
    """
    prompted = [plan.prefix + text for text in texts] if plan.prefix else texts
    tokens = tokenizer.encode(prompted)
    truncated = np.flatnonzero(tokens.truncated).tolist()
    if truncated and plan.truncation == "error":
        item, way_out = plan.items[:-1], " or splitting ('chunk')" if plan.items == "texts" else ""
        raise TextTooLongError(
            f"{item} {first + truncated[0]} (counted from 0) is longer than {tokenizer.max_seq_length} tokens, which is all "
            f"that the model reads: shorten it, or allow truncation ('warn'){way_out}"
        )
    pieces, owners = tokens, np.arange(len(texts), dtype=np.int64)
    if truncated and plan.truncation == "chunk":
        groups = [
            _split(text, first + position, tokenizer, plan) if t.truncated else [t]
            for position, (text, t) in enumerate(zip(texts, tokens, strict=True))
        ]
        pieces = TokenBatch.of([piece for group in groups for piece in group])
        owners = np.repeat(owners, [len(group) for group in groups])
    read = np.zeros(len(texts), np.int64)
    unknown = np.zeros(len(texts), np.int64)
    np.add.at(read, owners, pieces.lengths - plan.around)
    np.add.at(unknown, owners, pieces.counts_of(tokenizer.unknown_id))
    empty = read <= 0
    return TokenWindow(
        len(texts), pieces, owners, truncated, int(np.sum(~empty & (unknown >= read))), int(np.sum(empty))
    )


def _split(text: str, number: int, tokenizer: TextTokenizer, plan: EncodePlan) -> list[Tokens]:
    """Return the pieces of a text.

    Raises:
        TextTooLongError: they would take too much memory.
        UsageError: the prompt leaves no room for the text.
    """
    pieces = tokenizer.windows(text, plan.prefix, plan.most_tokens)
    if pieces is None:
        raise TextTooLongError(
            f"text {number} (counted from 0) has more than {plan.most_tokens:,} tokens, the most that 'chunk' reads of one text: "
            "split it into several texts, or index its passages (truncation='passages')"
        )
    return pieces


def join_pieces(window: TokenWindow, vectors: FloatArray, plan: EncodePlan) -> FloatArray:
    """Return one vector a text: the mean of its pieces' vectors by their tokens, cut to the components that are kept.

    Shapes:
        vectors: (pieces, dim); the result: (texts, plan.dimension).
    """
    if len(window.pieces) > window.texts:
        weights = np.maximum(window.pieces.lengths - 2, 1).astype(np.float32)
        sums = np.zeros((window.texts, vectors.shape[1]), np.float32)
        np.add.at(sums, window.owners, vectors * weights[:, None])
        vectors = unit_rows(sums)
    if plan.dimension < vectors.shape[1]:
        vectors = np.ascontiguousarray(vectors[:, : plan.dimension])
        vectors = unit_rows(vectors) if plan.normalize else vectors
    return vectors


@dataclass(frozen=True)
class EncodedWindow:
    """The vectors of some consecutive texts.

    Attributes:
        vectors: one a text, (texts, dim).
        words: returns what the model reads of each text.
    """

    vectors: FloatArray
    words: Callable[[], list[Words]]


class TextStream:
    """Texts -> windows of vectors. One window is tokenized while the one before is computed.

    Args:
        layout: of the model.
        tokenizer: of the model.
        engine: what computes.
        threads: that tokenize and compute.
    """

    def __init__(self, layout: ModelLayout, tokenizer: TextTokenizer, engine: Engine, threads: int) -> None:
        self._layout = layout
        self._tokenizer = tokenizer
        self._engine = engine
        self._threads = threads

    def __repr__(self) -> str:
        return f"TextStream({str(self._layout.path)!r}, engine={self._engine.name!r}, threads={self._threads})"

    def of_texts(self, texts: Iterable[str], **options: Unpack[StreamOptions]) -> Iterator[EncodedWindow]:
        """Return the windows of some texts, which are checked as they are read.

        Raises:
            UsageError: an option is invalid.
        """
        arguments.check_options(options, StreamOptions)
        plan = plan_texts(self._layout, self._tokenizer, self._engine.tokens_per_batch, **options)
        return self._windows(check_texts(texts), plan)

    def of_pairs(self, pairs: Iterable[tuple[str, str]], **options: Unpack[PairOptions]) -> Iterator[EncodedWindow]:
        """Return the windows of some pairs of texts, which are checked as they are read.

        Raises:
            UsageError: an option is invalid.
        """
        arguments.check_options(options, PairOptions)
        plan = plan_pairs(self._layout, self._tokenizer, self._engine.tokens_per_batch, **options)
        return self._windows(check_pairs(pairs), plan)

    def _windows(self, items: Iterable[Any], plan: EncodePlan) -> Iterator[EncodedWindow]:
        """Yield the vectors of checked texts or pairs in order, reading them as it goes.

        Raises:
            TextTooLongError: a text is too long, and the plan's `truncation` is `error`.
            CorruptModelError: a vector is not finite.
        """
        progress = bar_over("encoding", items) if plan.show_progress_bar else None
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="sbmini")
        try:
            yield from self._computed(iter(items), plan, pool, progress)
            _warn(plan, self._tokenizer.max_seq_length)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            if progress is not None:
                progress.close()

    def _computed(
        self, source: Iterator[Any], plan: EncodePlan, pool: ThreadPoolExecutor, progress: ProgressBar | None
    ) -> Iterator[EncodedWindow]:
        rows = min(plan.window, max(_VECTOR_BYTES // (4 * self._layout.dimension), 1))

        def read(first: int) -> Future[TokenWindow] | None:
            texts = window_of(source, rows, waits=plan.waits)
            if not texts:
                return None
            if first == 0 and len(texts) < rows:  # the only window: nothing is computed beside it
                tokenized: Future[TokenWindow] = Future()
                tokenized.set_result(tokenize_window(texts, first, self._tokenizer, plan))
                return tokenized
            return pool.submit(tokenize_window, texts, first, self._tokenizer, plan)

        computing: deque[tuple[TokenWindow, FloatArray, list[Future[None]]]] = deque()
        first, tokenized, paused = 0, read(0), False
        while tokenized is not None or computing:
            if tokenized is not None:
                window = tokenized.result()
                first += window.texts
                paused = plan.waits is not None and plan.waits()
                # queued before this window's batches, so that it is ready when they are done
                tokenized = None if paused else read(first)
                computing.append((window, *self._start(pool, window, plan)))
            if len(computing) == 2 or tokenized is None:
                window, vectors, runs = computing.popleft()
                for run in runs:
                    run.result()
                encoded = self._finished(window, vectors, plan)
                if progress is not None:
                    progress.advance(window.texts)
                yield encoded
            if paused and not computing:
                tokenized, paused = read(first), False

    def _start(
        self, pool: ThreadPoolExecutor, window: TokenWindow, plan: EncodePlan
    ) -> tuple[FloatArray, list[Future[None]]]:
        """Begin to compute a window; return where its pieces' vectors will be, and what to wait for."""
        vectors = np.empty((len(window.pieces), self._layout.dimension), np.float32)

        def run(positions: IntArray, threads: int = 1) -> None:
            vectors[positions] = self._engine.run(window.pieces.take(positions), threads)

        batches = batches_by_length(window.pieces.lengths, plan.batch_size, plan.max_tokens)
        if len(batches) == 1 and self._engine.divides_batches:  # computed here, by all threads together
            run(batches[0], self._threads)
            return vectors, []
        return vectors, [pool.submit(run, positions) for positions in batches]

    def _finished(self, window: TokenWindow, vectors: FloatArray, plan: EncodePlan) -> EncodedWindow:
        """Return a window that is computed, and count it."""
        if not np.isfinite(vectors).all():
            raise CorruptModelError(
                f"{self._layout.path} gave a vector that holds NaN or infinity: its weights overflow"
            )
        counts = plan.counts
        counts.texts += window.texts
        counts.tokens += len(window.pieces.ids)
        counts.truncated += len(window.truncated)
        counts.unknown += window.unknown
        counts.empty += window.empty

        def words() -> list[Words]:
            groups: list[list[Tokens]] = [[] for _ in range(window.texts)]
            for owner, piece in zip(window.owners.tolist(), window.pieces, strict=True):
                groups[owner].append(piece)
            return [words_in(group, self._tokenizer, plan.around) for group in groups]

        return EncodedWindow(join_pieces(window, vectors, plan), words)


def joined(blocks: Iterable[FloatArray], dimension: int) -> FloatArray:
    """Return blocks of vectors as one array; without any block, an array of no rows. Shapes: each (some, dimension)."""
    arrays = list(blocks)
    return np.concatenate(arrays) if arrays else np.empty((0, dimension), np.float32)


def _warn(plan: EncodePlan, max_seq_length: int) -> None:
    """Report what was cut, and what the model does not know."""
    counts, items = plan.counts, plan.items
    if counts.truncated and plan.truncation == "warn" and plan.warn_of_cut:
        way_out = " (truncation='chunk' reads them whole)" if items == "texts" else ""
        log.warning(
            "%d of %d %s were longer than %d tokens, and were cut%s",
            *(counts.truncated, counts.texts, items, max_seq_length, way_out),
            extra={"parameter": "truncation='chunk'"},
        )
    if not plan.warn_of_unknown:
        return
    if counts.unknown:
        log.warning(
            "%d of %d %s hold no word that the model knows: their vectors say nothing of what they mean",
            *(counts.unknown, counts.texts, items),
        )
    if counts.empty:
        log.warning(
            "%d of %d %s hold nothing that the model reads: all have one vector", counts.empty, counts.texts, items
        )


class HasText(Protocol):
    """A row with a text to encode: a `Record`, or another."""

    @property
    def text(self) -> str:
        """The text."""


RowT = TypeVar("RowT", bound=HasText)


def join_records(
    records: Iterable[RowT], encode: Callable[[Iterable[str]], Iterator[EncodedWindow]]
) -> Iterator[tuple[list[RowT], EncodedWindow]]:
    """Yield each window of records with what `encode` makes of their texts, reading them as it goes.

    Args:
        records: the records, in any ordered iterable.
        encode: takes texts and yields their vectors in order (`Embedder.encode_windows`, with its options bound).
    """
    pending: list[RowT] = []

    def texts() -> Iterator[str]:
        for record in records:
            pending.append(record)
            yield record.text

    def joined(windows: Iterator[EncodedWindow]) -> Iterator[tuple[list[RowT], EncodedWindow]]:
        for window in windows:
            size = len(window.vectors)
            yield pending[:size], window
            del pending[:size]

    return joined(encode(_counted_as(records, texts())))
