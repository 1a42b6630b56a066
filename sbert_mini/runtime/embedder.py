"""Texts -> sentence vectors, without torch."""

import itertools
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from sbert_mini import models
from sbert_mini.errors import CorruptModelError, InputError, TextTooLongError, UnsupportedModelError, UsageError
from sbert_mini.progress import ProgressBar
from sbert_mini.runtime.conversion import Graph, find, find_ranges, open_tokenizer
from sbert_mini.runtime.engine import Backend, open_engine, thread_count
from sbert_mini.runtime.graph import Adapter
from sbert_mini.runtime.npy import NpyWriter
from sbert_mini.runtime.precision import Precision, check_precision, quantize_vectors
from sbert_mini.shapes import AnyArray, FloatArray, IntArray
from sbert_mini.text.batching import batches_by_length
from sbert_mini.text.records import Record, Reject
from sbert_mini.text.tokenizer import Tokens

Truncation: TypeAlias = Literal["warn", "error", "chunk"]
WINDOW = 2048
"""Texts that are sorted by length together; three windows are in memory at a time, however many texts there are."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")

log = logging.getLogger("sbert_mini")


@dataclass
class EncodeCounts:
    """What an encode call met, filled in while it runs.

    Attributes:
        texts: texts encoded.
        tokens: tokens computed, special tokens included.
        truncated: texts longer than the model reads: cut (`truncation="warn"`) or split (`"chunk"`).
    """

    texts: int = 0
    tokens: int = 0
    truncated: int = 0


@dataclass(frozen=True)
class _Plan:
    """The checked arguments of an encode call."""

    prefix: str
    batch_size: int
    keep: int
    normalize: bool
    truncation: Truncation
    window: int
    max_tokens: int


@dataclass(frozen=True)
class _Window:
    """Some consecutive texts, tokenized. `owners[i]` is the text that `pieces[i]` belongs to (several, when chunked)."""

    texts: int
    pieces: list[Tokens]
    owners: IntArray
    truncated: list[int]


class Embedder:
    """A sentence-embedding model that runs without torch.

    Method names and arguments are those of `SentenceTransformer`. Three defaults differ, on purpose: vectors have length 1
    (`normalize_embeddings=True`), a text that is longer than the model reads is reported, and the products are computed in
    int8 unless `graph="fp32"`.

    A text's vector does not depend on the texts that it is encoded with: the cosine between a text alone and in a batch is
    at least 0.9999 (int8) and 0.999999 (fp32). In bfloat16 on a GPU it may be less: nothing is promised there.

    Args:
        model: a model directory, a built-in name or a hub id (`sbert_mini.models`); None for the default.
        graph: which graph computes: `int8`, or `fp32`.
        threads: for everything, tokenizing included; None for `engine.thread_count`'s choice.
        offline: open no socket.
        device: None or `cpu`; or a device of torch (`cuda`, `cuda:1`, `mps`), where the model's float weights compute, in
            bfloat16 if the GPU can: `graph` is then of no account. A GPU wants a larger `batch_size` than 32: try 512.
        backend: what computes: `native` (code of our own for int8 on x86-64: the better one of `avx512_vnni` and `amx_int8` that
            the processor has), `onnx` (ONNX Runtime) or `torch` (float weights); None for native code where it can compute the
            model, else ONNX Runtime. Their vectors are nearly the same.
        adapter: a task's projected attention layers, which then alter the vectors (`runtime.heads.Predictor` passes them).

    Raises:
        ModelNotFoundError: the name leads nowhere.
        MissingExtraError: the model must be converted first, and `onnx` is not installed; or a device needs torch, which is not.
        UnsupportedModelError: the directory holds a model that is not a BERT encoder.
        UsageError: `backend` is unknown, or cannot compute this model here; there is no such device.
        CorruptModelError: a file of the model is damaged.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        graph: Graph = "int8",
        threads: int | None = None,
        *,
        offline: bool = False,
        device: str | None = None,
        backend: Backend | None = None,
        adapter: Adapter | None = None,
    ) -> None:
        if adapter is not None and (backend not in (None, "onnx") or device not in (None, "cpu")):
            raise UsageError("a task's projected attention layers are computed by onnx, on the CPU, alone")
        self.threads = thread_count(threads)
        self.model_name = models.name_of(model)
        self._converted = find(models.resolve(model, offline=offline), graph, adapter)
        self._engine = open_engine(self._converted, "onnx" if adapter is not None else backend, device)
        self._tokenizer = open_tokenizer(self._converted.layout)

    @property
    def path(self) -> Path:
        """The model's directory."""
        return self._converted.layout.path

    @property
    def graph(self) -> Graph:
        """Which graph computes."""
        return self._converted.graph

    @property
    def backend(self) -> str:
        """What computes, for people: native code and with which instructions, ONNX Runtime, or torch and where."""
        return self._engine.name

    @property
    def fingerprint(self) -> str:
        """sha256 over weights, tokenizer, pooling and greatest length: equal fingerprints give comparable vectors."""
        return self._converted.fingerprint

    @property
    def dimension(self) -> int:
        """Components of a vector, before any `truncate_dim` of a call."""
        layout = self._converted.layout
        return layout.truncate_dim or layout.dimension

    @property
    def max_seq_length(self) -> int:
        """The longest text in tokens, special tokens included."""
        return self._tokenizer.max_seq_length

    @property
    def prompts(self) -> dict[str, str]:
        """The model's prompts by name."""
        return dict(self._converted.layout.prompts)

    def get_embedding_dimension(self) -> int:
        """Return `dimension`, under sentence-transformers' name."""
        return self.dimension

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        batch_size: int = 32,
        show_progress_bar: bool = False,
        precision: Precision = "float32",
        normalize_embeddings: bool = True,
        truncate_dim: int | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncation: Truncation = "warn",
        ranges: FloatArray | None = None,
        counts: EncodeCounts | None = None,
    ) -> AnyArray:
        """Return one vector a text, in the order of the texts.

        Args:
            texts: the texts; a single string gives a single vector. An iterator is read as it is encoded.
            batch_size: the most texts that are computed together.
            show_progress_bar: draw a progress bar on stderr.
            precision: of the values; see `precision.quantize_vectors`.
            normalize_embeddings: scale each vector to length 1. False is for models that do not do so themselves.
            truncate_dim: keep this many first components (for models trained so), then normalise again.
            prompt_name: the name of one of the model's prompts, put before each text.
            prompt: the prompt itself; wins over `prompt_name`.
            truncation: what happens to a text of more than `max_seq_length` tokens: `warn` cuts it and says how many
                were cut, `error` refuses it, `chunk` splits it and averages the pieces' vectors by their tokens.
            ranges: of each component, for the precisions int8 and uint8; None for the model's own (`component_ranges`), with
                which a text gets the same values in every call. (`SentenceTransformer` takes those of the call's vectors.)
            counts: filled in, if given.

        Shapes:
            the result: (texts, dim), or (dim,) for a single string; float32 unless `precision` says otherwise.

        Raises:
            UsageError: an argument cannot be meant.
            TextTooLongError: a text is too long, and `truncation` is `error`.
        """
        check_precision(precision)
        single = isinstance(texts, str)
        batch = [texts] if isinstance(texts, str) else texts
        blocks = list(
            self.encode_stream(
                batch,
                batch_size=batch_size,
                show_progress_bar=show_progress_bar,
                normalize_embeddings=normalize_embeddings,
                truncate_dim=truncate_dim,
                prompt_name=prompt_name,
                prompt=prompt,
                truncation=truncation,
                counts=counts,
            )
        )
        dimension = self.dimension if truncate_dim is None else truncate_dim
        vectors = np.concatenate(blocks) if blocks else np.empty((0, dimension), np.float32)
        if precision in ("int8", "uint8") and ranges is None:
            ranges = self.component_ranges(truncate_dim, normalize_embeddings=normalize_embeddings)
        result = quantize_vectors(vectors, precision, ranges)
        return result[0] if single else result

    def component_ranges(self, truncate_dim: int | None = None, *, normalize_embeddings: bool = True) -> FloatArray:
        """Return the range of each component in which vectors of the precisions int8 and uint8 are stored.

        They are the model's: measured once, on the texts that its int8 graph is calibrated with, and kept beside its graphs.
        `precision.restore_vectors` makes float32 vectors of the 8-bit ones again.

        Args:
            truncate_dim: see `encode`.
            normalize_embeddings: see `encode`.

        Shapes:
            the result: (2, dim), lows and highs.

        Raises:
            UsageError: `truncate_dim` is not from 1 to the model's dimension.
        """
        whole = self._converted.layout.dimension
        keep = self.dimension if truncate_dim is None else truncate_dim
        if not 1 <= keep <= whole:
            raise UsageError(f"truncate_dim must be from 1 to {whole}, the model's dimension; found {keep}")
        ranges = find_ranges(self._converted, self._calibration_vectors)
        return ranges.of(keep, normalized=normalize_embeddings)

    def _calibration_vectors(self) -> FloatArray:
        from sbert_mini.runtime.quantization import calibration_texts

        log.warning("measuring the ranges of 8-bit vectors of %s, once", self.model_name)
        whole = self._converted.layout.dimension
        return np.concatenate(
            list(self.encode_stream(calibration_texts(), truncate_dim=whole, prompt="", truncation="chunk"))
        )

    def encode_query(self, texts: str | Iterable[str], **options: Any) -> AnyArray:
        """Return `encode(texts)` with the model's prompt named `query`, if it has one and no other is asked for."""
        return self.encode(texts, **self._with_prompt(options, ("query",)))

    def encode_document(self, texts: str | Iterable[str], **options: Any) -> AnyArray:
        """Return `encode(texts)` with the model's prompt named `document`, `passage` or `corpus`, the first that it has."""
        return self.encode(texts, **self._with_prompt(options, _DOCUMENT_PROMPTS))

    def document_prompt(self) -> str:
        """Return the text that `encode_document` puts before each text; an empty string for none."""
        prompts = self._converted.layout.prompts
        return next((prompts[name] for name in _DOCUMENT_PROMPTS if name in prompts), "")

    def _with_prompt(self, options: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
        if options.get("prompt") is None and options.get("prompt_name") is None:
            options["prompt_name"] = next((name for name in names if name in self._converted.layout.prompts), None)
        return options

    def encode_pairs(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        batch_size: int = 32,
        show_progress_bar: bool = False,
        truncation: Truncation = "warn",
        counts: EncodeCounts | None = None,
    ) -> FloatArray:
        """Return one vector of length 1 a pair, both texts read as one input: `[CLS] a [SEP] b [SEP]`.

        Such vectors are for the task heads that were trained on them (`runtime.heads`), not for comparing with others.

        Args:
            pairs: the pairs.
            batch_size: the most pairs that are computed together.
            show_progress_bar: draw a progress bar on stderr.
            truncation: what happens to a pair of more than `max_seq_length` tokens: `warn` cuts the end of the longer side
                and says how many pairs were cut, `error` refuses it. `chunk` is not for pairs.
            counts: filled in, if given; a pair counts as one text.

        Shapes:
            the result: (pairs, dim), float32.

        Raises:
            UsageError: an argument cannot be meant.
            TextTooLongError: a pair is too long, and `truncation` is `error`.
        """
        if truncation == "chunk":
            raise UsageError("a pair cannot be read in pieces: truncation must be warn or error here")
        whole = self._converted.layout.dimension
        blocks = list(
            self._stream(
                pairs,
                _Plan("", batch_size, whole, True, truncation, WINDOW, self._engine.tokens_per_batch),
                counts if counts is not None else EncodeCounts(),
                show_progress_bar,
                pairs=True,
            )
        )
        return np.concatenate(blocks) if blocks else np.empty((0, whole), np.float32)

    def similarity(self, a: AnyArray, b: AnyArray) -> FloatArray:
        """Return how similar each vector of `a` is to each of `b`; larger is closer.

        The model's own similarity: the cosine in [-1, 1] or the inner product, or minus the Euclidean or Manhattan distance.

        Shapes:
            a: (texts, dim) or (dim,); b: (others, dim) or (dim,); the result: (texts, others).
        """
        x, y = (np.atleast_2d(np.asarray(v, dtype=np.float32)) for v in (a, b))
        kind = self._converted.layout.similarity
        if kind == "euclidean":
            squares = np.square(x).sum(1)[:, None] + np.square(y).sum(1)[None] - 2 * (x @ y.T)
            return np.asarray(-np.sqrt(np.maximum(squares, 0)), dtype=np.float32)
        if kind == "manhattan":
            return np.stack([-np.abs(row - y).sum(axis=1) for row in x]).astype(np.float32)
        if kind == "cosine":
            x, y = _unit(x), _unit(y)
        return np.asarray(x @ y.T, dtype=np.float32)

    def are_longer(self, texts: Sequence[str], *, prompt: str | None = None) -> list[bool]:
        """Return which texts, with the prompt, are longer than the model reads; None for the model's own default prompt."""
        prefix = self._prompt(None, prompt)
        return [tokens.truncated for tokens in self._tokenizer.encode([prefix + text for text in texts])]

    def short_enough(
        self, records: Iterable[Record], prompt: str | None, on_reject: Callable[[Reject], None]
    ) -> Iterator[Record]:
        """Yield the records whose text, with the prompt, the model reads whole, and hand over the others as rejects."""
        for record in records:
            if self.are_longer([record.text], prompt=prompt)[0]:
                why = f"the text is longer than {self.max_seq_length} tokens"
                on_reject(Reject(record.line, why, record.text[:1000], record.file))
            else:
                yield record

    def encode_to_npy(self, texts: Iterable[str], path: str | Path, **options: Any) -> tuple[int, int]:
        """Write one float32 vector a text into the `.npy` file `path`, and return its shape `(texts, dim)`.

        Memory stays the same however many texts there are. The file appears under its name when it is whole.

        Args:
            texts: the texts, of any number.
            path: the file; replaced if it exists.
            options: those of `encode_stream`.

        Raises:
            OSError: the file cannot be written; nothing is left behind.
        """
        dimension = self.dimension if options.get("truncate_dim") is None else int(options["truncate_dim"])
        with NpyWriter(path, dimension) as writer:
            for block in self.encode_stream(texts, **options):
                writer.write(block)
        return writer.rows, dimension

    def encode_stream(
        self,
        texts: Iterable[str],
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
    ) -> Iterator[FloatArray]:
        """Yield the texts' vectors in order, in blocks of `window` rows, reading the texts as it goes.

        Arguments and errors are those of `encode`, and:

        Args:
            window: texts that are sorted by length together; one window is tokenized while the one before is computed.
            max_tokens: the most tokens of a batch, padding included; None for what suits what computes.
        """
        max_tokens = self._engine.tokens_per_batch if max_tokens is None else max_tokens
        for name, value in (("batch_size", batch_size), ("window", window), ("max_tokens", max_tokens)):
            if value < 1:
                raise UsageError(f"{name} must be at least 1; found {value}")
        if truncation not in ("warn", "error", "chunk"):
            raise UsageError(f"truncation must be warn, error or chunk; found {truncation!r}")
        whole = self._converted.layout.dimension
        keep = self.dimension if truncate_dim is None else truncate_dim
        if not 1 <= keep <= whole:
            raise UsageError(f"truncate_dim must be from 1 to {whole}, the model's dimension; found {keep}")
        if not normalize_embeddings and not self._converted.layout.normalize:
            raise UsageError(
                "normalize_embeddings must be True here: this model does not normalise by itself, and its graph does. "
                "sbert_mini.load(model).encode(texts) gives its vectors as they are"
            )
        if isinstance(texts, str):
            raise UsageError("texts must be several texts, and one string was given: put it into a list, or use encode")
        plan = _Plan(
            prefix=self._prompt(prompt_name, prompt),
            batch_size=batch_size,
            keep=keep,
            normalize=normalize_embeddings,
            truncation=truncation,
            window=window,
            max_tokens=max_tokens,
        )
        return self._stream(texts, plan, counts if counts is not None else EncodeCounts(), show_progress_bar)

    def _prompt(self, name: str | None, prompt: str | None) -> str:
        layout = self._converted.layout
        if prompt is None:
            name = name or layout.default_prompt_name
            if name is not None and name not in layout.prompts:
                known = ", ".join(layout.prompts) or "none"
                raise UsageError(f"the model has no prompt named {name!r}; it has: {known}")
            prompt = layout.prompts[name] if name is not None else ""
        if _SURROGATE.search(prompt):
            raise UsageError(f"the prompt is not valid Unicode: {prompt!r} holds half a character")
        if prompt and not layout.include_prompt:
            raise UnsupportedModelError(
                "this model leaves its prompt out of the pooling, which the runtime does not do"
            )
        return prompt

    def _stream(
        self,
        texts: Iterable[str] | Iterable[tuple[str, str]],
        plan: _Plan,
        counts: EncodeCounts,
        show_progress_bar: bool,
        *,
        pairs: bool = False,
    ) -> Iterator[FloatArray]:
        source = iter(texts)
        progress = (
            ProgressBar("encoding", len(texts) if isinstance(texts, Sized) else None) if show_progress_bar else None
        )
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="sbmini")

        def tokenize(first: int, batch: list[Any]) -> _Window:
            return self._tokenize(first, batch, plan)

        def read(first: int) -> Future[_Window] | None:
            batch = list(itertools.islice(source, plan.window))
            for offset, item in enumerate(batch):
                if pairs and not (isinstance(item, tuple) and len(item) == 2):
                    raise UsageError(f"pairs must be tuples of two strings; pair {first + offset} is not one")
                for text in item if pairs else (item,):
                    _check_text(text, first + offset)
            return pool.submit(tokenize, first, batch) if batch else None

        def finish(window: _Window, vectors: FloatArray, runs: list[Future[None]]) -> FloatArray:
            for run in runs:
                run.result()
            if not np.isfinite(vectors).all():
                raise CorruptModelError(f"{self.path} gave a vector that holds NaN or infinity: its weights overflow")
            if len(window.pieces) > window.texts:
                weights = np.array([max(len(p.ids) - 2, 1) for p in window.pieces], np.float32)
                joined = np.zeros((window.texts, vectors.shape[1]), np.float32)
                np.add.at(joined, window.owners, vectors * weights[:, None])
                vectors = _unit(joined)
            if plan.keep < vectors.shape[1]:
                vectors = np.ascontiguousarray(vectors[:, : plan.keep])
                vectors = _unit(vectors) if plan.normalize else vectors
            counts.texts += window.texts
            counts.tokens += sum(len(piece.ids) for piece in window.pieces)
            counts.truncated += len(window.truncated)
            if progress is not None:
                progress.advance(window.texts)
            return vectors

        computing: deque[tuple[_Window, FloatArray, list[Future[None]]]] = deque()
        try:
            first, waiting = 0, read(0)
            while waiting is not None or computing:
                if waiting is not None:
                    window = waiting.result()
                    first += window.texts
                    waiting = read(first)  # queued before this window's batches, so that it is ready when they are done
                    computing.append(self._compute(pool, window, plan))
                if len(computing) == 2 or waiting is None:
                    yield finish(*computing.popleft())
            if counts.truncated and plan.truncation == "warn":
                log.warning(
                    "%d of %d texts were longer than %d tokens, and were cut (truncation='chunk' reads them whole)",
                    counts.truncated,
                    counts.texts,
                    self.max_seq_length,
                )
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            if progress is not None:
                progress.close()

    def _tokenize(self, first: int, texts: list[Any], plan: _Plan) -> _Window:
        prompted = [plan.prefix + text for text in texts] if plan.prefix else texts
        tokens = self._tokenizer.encode(prompted)
        truncated = [i for i, t in enumerate(tokens) if t.truncated]
        if truncated and plan.truncation == "error":
            raise TextTooLongError(
                f"text {first + truncated[0]} (counted from 0) is longer than {self.max_seq_length} tokens, which is all "
                "that the model reads: shorten it, or allow truncation ('warn') or splitting ('chunk')"
            )
        pieces, owners = tokens, np.arange(len(texts), dtype=np.int64)
        if truncated and plan.truncation == "chunk":
            groups = [
                self._tokenizer.windows(text, plan.prefix) if t.truncated else [t]
                for text, t in zip(texts, tokens, strict=True)
            ]
            pieces = [piece for group in groups for piece in group]
            owners = np.repeat(owners, [len(group) for group in groups])
        return _Window(len(texts), pieces, owners, truncated)

    def _compute(
        self, pool: ThreadPoolExecutor, window: _Window, plan: _Plan
    ) -> tuple[_Window, FloatArray, list[Future[None]]]:
        vectors = np.empty((len(window.pieces), self._converted.layout.dimension), np.float32)

        def run(positions: IntArray) -> None:
            vectors[positions] = self._engine.run([window.pieces[i] for i in positions])

        lengths = [len(piece.ids) for piece in window.pieces]
        batches = batches_by_length(lengths, plan.batch_size, plan.max_tokens)
        return window, vectors, [pool.submit(run, positions) for positions in batches]


def _check_text(text: Any, position: int) -> None:
    if not isinstance(text, str):
        raise UsageError(f"texts must be strings; text {position} is a {type(text).__name__}")
    if not text.isascii() and _SURROGATE.search(text):
        raise InputError(f"text {position} (counted from 0) is not valid Unicode: it holds half a character")


def _unit(vectors: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)
