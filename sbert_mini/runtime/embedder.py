"""Texts -> sentence vectors, without torch."""

import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from sbert_mini.cosine import as_cosines
from sbert_mini.errors import (
    CorruptModelError,
    ModelMismatchError,
    TextTooLongError,
    UnsupportedModelError,
    UsageError,
)
from sbert_mini.model import registry
from sbert_mini.progress import Counted, bar_over, expected
from sbert_mini.runtime import arguments
from sbert_mini.runtime.conversion import Graph, find, find_ranges, open_tokenizer
from sbert_mini.runtime.engine import Backend, open_engine, thread_count
from sbert_mini.runtime.graph import Adapter
from sbert_mini.runtime.npy import NpyWriter
from sbert_mini.runtime.precision import Precision, check_precision, quantize_vectors
from sbert_mini.shapes import AnyArray, FloatArray, IntArray
from sbert_mini.text.batching import batches_by_length, pad
from sbert_mini.text.records import Record, Reject
from sbert_mini.text.tokenizer import Tokens
from sbert_mini.text.words import Words

Truncation: TypeAlias = Literal["warn", "error", "chunk"]
WINDOW = 2048
"""Texts that are sorted by length together; three windows are in memory at a time, however many texts there are."""
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")

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
    around: int
    warn_of_unknown: bool = True


@dataclass(frozen=True)
class _Window:
    """Some consecutive texts, tokenized. `owners[i]` is the text that `pieces[i]` belongs to (several, when chunked)."""

    texts: int
    pieces: list[Tokens]
    owners: IntArray
    truncated: list[int]
    unknown: int
    empty: int


class Embedder:
    """A sentence-embedding model that runs without torch.

    Method names and arguments are those of `SentenceTransformer`. Three defaults differ, on purpose: vectors have length 1
    (`normalize_embeddings=True`), a text that is longer than the model reads is reported, and the products are computed in
    int8 unless `graph="fp32"`.

    A text's vector does not depend on the texts that it is encoded with: the cosine between a text alone and in a batch is
    at least 0.9999 (int8) and 0.999999 (fp32). In bfloat16 on a GPU it may be less: nothing is promised there.

    Args:
        model: a model directory, a built-in name or a hub id (`sbert_mini.model.registry`); None for the default.
        graph: which graph computes: `int8`, or `fp32`.
        threads: for everything, tokenizing included; None for `engine.thread_count`'s choice.
        offline: open no socket.
        device: None or `cpu`; or a device of torch (`cuda`, `cuda:1`, `mps`), where the model's float weights compute, in
            bfloat16 if the GPU can: `graph` is then of no account. A GPU wants a larger `batch_size` than 32: try 512.
        backend: what computes: `native` (code of our own for int8 on x86-64: the better one of `avx512_vnni` and `amx_int8` that
            the processor has), `onnx` (ONNX Runtime) or `torch` (float weights); None for native code where it can compute the
            model, else ONNX Runtime. Their vectors are nearly the same.
        adapter: a task's projected attention layers, which then alter the vectors (`runtime.predictor.Predictor` passes them).

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
        self._reopened_with = {"device": device, "backend": backend, "adapter": adapter}
        self.threads = thread_count(threads)
        self.model_name = registry.name_of(model)
        self._converted = find(registry.resolve(model, offline=offline), graph, adapter)
        self._engine = open_engine(self._converted, "onnx" if adapter is not None else backend, device)
        self._tokenizer = open_tokenizer(self._converted.layout)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles and copies open the model again: the same directory, graph, number of threads and backend."""
        options = {"graph": self.graph, "threads": self.threads, **self._reopened_with}
        return _reopened, (type(self), self.path, self.model_name, self.fingerprint, options)

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

    def get_sentence_embedding_dimension(self) -> int:
        """Return `dimension`, under sentence-transformers' older name."""
        return self.dimension

    def __repr__(self) -> str:
        return (
            f"Embedder({self.model_name!r}, graph={self.graph!r}, threads={self.threads}, dimension={self.dimension}, "
            f"max_seq_length={self.max_seq_length}, backend={self.backend!r})"
        )

    def tokenize(self, texts: str | Iterable[str]) -> dict[str, IntArray]:
        """Return what the model reads of each text: `input_ids`, `attention_mask` and `token_type_ids`, padded.

        Shapes:
            each: (texts, seq), `seq` the longest text's tokens, at most `max_seq_length`.

        Raises:
            UsageError: these are no texts.
        """
        several = [str(texts)] if arguments.is_one_text(texts) else arguments.texts_of(texts)
        checked = [arguments.check_text(text, position) for position, text in enumerate(several)]
        padded = pad(self._tokenizer.encode(checked), self._tokenizer.pad_id)
        return dict(zip(("input_ids", "attention_mask", "token_type_ids"), padded, strict=True))

    def words_of(self, texts: Sequence[str], *, prompt: str | None = None) -> list[Words]:
        """Return what the model reads of each text, as far as it tells texts from each other.

        Args:
            texts: the texts.
            prompt: put before each; None for the model's own default prompt.
        """
        prefix = self._prompt(None, prompt)
        around = self._around(prefix)
        return [self._words([tokens], around) for tokens in self._tokenizer.encode([prefix + text for text in texts])]

    def _around(self, prefix: str) -> int:
        """Return how many tokens of an encoded text are special ones or the prompt's."""
        return len(self._tokenizer.encode([prefix])[0].ids)

    def _words(self, pieces: Sequence[Tokens], around: int) -> Words:
        special = self._tokenizer.special_ids
        prompt = around - self._tokenizer.special_tokens()
        own = [[i for i in piece.ids if i not in special][prompt:] for piece in pieces]
        unknown = [
            piece.unknown[len(piece.unknown) - ids.count(self._tokenizer.unknown_id) :]
            for piece, ids in zip(pieces, own, strict=True)
        ]
        return Words(tuple(itertools.chain(*own)), tuple(itertools.chain(*unknown)))

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
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
    ) -> AnyArray:
        """Return one vector a text, in the order of the texts.

        Args:
            texts: the texts, in any ordered iterable (`runtime.arguments`); a single string gives a single vector. An iterator is
                read as it is encoded.
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
            convert_to_numpy: as sentence-transformers has it; True, since results are arrays.
            convert_to_tensor: False.

        Shapes:
            the result: (texts, dim), or (dim,) for a single string; float32 unless `precision` says otherwise.

        Raises:
            UsageError: an argument cannot be meant.
            TextTooLongError: a text is too long, and `truncation` is `error`.
        """
        check_precision(precision)
        arguments.numpy_only(convert_to_numpy=convert_to_numpy, convert_to_tensor=convert_to_tensor)
        single = arguments.is_one_text(texts)
        batch = [str(texts)] if single else texts
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
        dimension = self.dimension if truncate_dim is None else int(truncate_dim)
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

    def encode_queries(self, texts: Iterable[str]) -> tuple[FloatArray, list[Words]]:
        """Return `encode_query(texts)`, and what the model reads of each text. For search, which reports unknown words itself.

        Shapes:
            the first result: (texts, dim).
        """
        options = self._with_prompt({}, ("query",))
        blocks = list(self.encode_stream_with_words(texts, warn_of_unknown=False, **options))
        vectors = [block for block, _ in blocks] or [np.empty((0, self.dimension), np.float32)]
        return np.concatenate(vectors), [words for _, words_of in blocks for words in words_of()]

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

        Such vectors are for the task heads that were trained on them (`model.heads`), not for comparing with others.

        Args:
            pairs: the pairs: tuples, lists or arrays of two strings, or an array of two columns.
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
        _check_truncation(truncation)
        whole = self._converted.layout.dimension
        size = arguments.integer(batch_size, "batch_size")
        stream = self._stream(
            Counted(arguments.pairs_of(pairs), expected(pairs)),
            _Plan(
                *("", size, whole, True, truncation, WINDOW, self._engine.tokens_per_batch),
                around=self._tokenizer.special_tokens(pair=True),
            ),
            counts if counts is not None else EncodeCounts(),
            show_progress_bar,
            pairs=True,
        )
        blocks = [block for block, _ in stream]
        return np.concatenate(blocks) if blocks else np.empty((0, whole), np.float32)

    def similarity(self, a: AnyArray, b: AnyArray) -> FloatArray:
        """Return how similar each vector of `a` is to each of `b`; larger is closer.

        The model's own similarity: the cosine in [-1, 1] or the inner product, or minus the Euclidean or Manhattan distance.

        Shapes:
            a: (texts, dim) or (dim,); b: (others, dim) or (dim,); the result: (texts, others).

        Raises:
            UsageError: they are not vectors of one length.
        """
        x, y = _comparable(a, b)
        kind = self._converted.layout.similarity
        if kind == "euclidean":
            squares = np.square(x).sum(1)[:, None] + np.square(y).sum(1)[None] - 2 * (x @ y.T)
            return np.asarray(-np.sqrt(np.maximum(squares, 0)), dtype=np.float32)
        if kind == "manhattan":
            return np.stack([-np.abs(row - y).sum(axis=1) for row in x]).astype(np.float32)
        if kind == "cosine":
            return np.asarray(as_cosines(_unit(x) @ _unit(y).T), dtype=np.float32)
        return np.asarray(x @ y.T, dtype=np.float32)

    def similarity_pairwise(self, a: AnyArray, b: AnyArray) -> FloatArray:
        """Return how similar each vector of `a` is to the one of `b` in its place: the diagonal of `similarity`.

        Shapes:
            a, b: (texts, dim) or (dim,); the result: (texts,).

        Raises:
            UsageError: they are not as many, or not vectors of one length.
        """
        x, y = _comparable(a, b)
        if len(x) != len(y):
            raise UsageError(f"as many vectors are needed on either side; found {len(x)} and {len(y)}")
        kind = self._converted.layout.similarity
        if kind == "euclidean":
            return np.asarray(-np.linalg.norm(x - y, axis=1), dtype=np.float32)
        if kind == "manhattan":
            return np.asarray(-np.abs(x - y).sum(axis=1), dtype=np.float32)
        if kind == "cosine":
            return np.asarray(as_cosines(np.sum(_unit(x) * _unit(y), axis=1)), dtype=np.float32)
        return np.asarray(np.sum(x * y, axis=1), dtype=np.float32)

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
        keep = options.get("truncate_dim")
        dimension = self.dimension if keep is None else arguments.integer(keep, "truncate_dim", None)
        blocks = self.encode_stream(texts, **options)
        with NpyWriter(path, dimension) as writer:
            for block in blocks:
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
        stream = self.encode_stream_with_words(
            texts,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            prompt_name=prompt_name,
            prompt=prompt,
            truncation=truncation,
            counts=counts,
            window=window,
            max_tokens=max_tokens,
        )
        return (vectors for vectors, _ in stream)

    def encode_stream_with_words(
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
        warn_of_unknown: bool = True,
    ) -> Iterator[tuple[FloatArray, Callable[[], list[Words]]]]:
        """Yield what `encode_stream` yields, each block with a function that returns its texts' `Words`.

        With `warn_of_unknown=False` unknown words are counted and not reported.
        """
        size = arguments.integer(batch_size, "batch_size")
        window = arguments.integer(window, "window")
        tokens = self._engine.tokens_per_batch if max_tokens is None else arguments.integer(max_tokens, "max_tokens")
        _check_truncation(truncation)
        whole = self._converted.layout.dimension
        keep = self.dimension if truncate_dim is None else arguments.integer(truncate_dim, "truncate_dim", None)
        if not 1 <= keep <= whole:
            raise UsageError(
                f"truncate_dim must be from 1 to {whole}, the model's dimension; found {keep}", "truncate_dim"
            )
        if not normalize_embeddings and not self._converted.layout.normalize:
            raise UsageError(
                "normalize_embeddings must be True here: this model does not normalise by itself, and its graph does. "
                "sbert_mini.load(model).encode(texts) gives its vectors as they are"
            )
        prefix = self._prompt(prompt_name, prompt)
        plan = _Plan(
            prefix=prefix,
            batch_size=size,
            keep=keep,
            normalize=bool(normalize_embeddings),
            truncation=truncation,
            window=window,
            max_tokens=tokens,
            around=self._around(prefix),
            warn_of_unknown=warn_of_unknown,
        )
        several = arguments.texts_of(texts)
        return self._stream(several, plan, counts if counts is not None else EncodeCounts(), show_progress_bar)

    def _prompt(self, name: str | None, prompt: str | None) -> str:
        layout = self._converted.layout
        for what, value in (("prompt_name", name), ("prompt", prompt)):
            if value is not None and not isinstance(value, str):
                raise UsageError(f"{what} must be a string or None; found {type(value).__name__} {value!r}")
        if prompt is None:
            name = name or layout.default_prompt_name
            if name is not None and name not in layout.prompts:
                known = ", ".join(layout.prompts) or "none"
                raise UsageError(f"the model has no prompt named {name!r}; it has: {known}")
            prompt = layout.prompts[name] if name is not None else ""
        if arguments.holds_half_a_character(prompt):
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
    ) -> Iterator[tuple[FloatArray, Callable[[], list[Words]]]]:
        source = iter(texts)
        progress = bar_over("encoding", texts) if show_progress_bar else None
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="sbmini")

        def tokenize(first: int, batch: list[Any]) -> _Window:
            return self._tokenize(first, batch, plan)

        def read(first: int) -> Future[_Window] | None:
            batch = list(itertools.islice(source, plan.window))
            if not pairs:
                for offset, text in enumerate(batch):
                    arguments.check_text(text, first + offset)
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
            counts.unknown += window.unknown
            counts.empty += window.empty
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
                    done = computing.popleft()
                    yield finish(*done), partial(self._words_of_window, done[0], plan.around)
            if counts.truncated and plan.truncation == "warn":
                log.warning(
                    "%d of %d texts were longer than %d tokens, and were cut (truncation='chunk' reads them whole)",
                    counts.truncated,
                    counts.texts,
                    self.max_seq_length,
                    extra={"parameter": "truncation='chunk'"},
                )
            if plan.warn_of_unknown:
                _warn_of_unknown(counts, "pairs" if pairs else "texts")
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
        own = np.zeros(len(texts), np.int64)
        unknown = np.zeros(len(texts), np.int64)
        np.add.at(own, owners, [len(piece.ids) - plan.around for piece in pieces])
        np.add.at(unknown, owners, [piece.ids.count(self._tokenizer.unknown_id) for piece in pieces])
        empty = own <= 0
        return _Window(
            len(texts), pieces, owners, truncated, int(np.sum(~empty & (unknown >= own))), int(np.sum(empty))
        )

    def _words_of_window(self, window: _Window, around: int) -> list[Words]:
        groups: list[list[Tokens]] = [[] for _ in range(window.texts)]
        for owner, piece in zip(window.owners.tolist(), window.pieces, strict=True):
            groups[owner].append(piece)
        return [self._words(group, around) for group in groups]

    def _compute(
        self, pool: ThreadPoolExecutor, window: _Window, plan: _Plan
    ) -> tuple[_Window, FloatArray, list[Future[None]]]:
        vectors = np.empty((len(window.pieces), self._converted.layout.dimension), np.float32)

        def run(positions: IntArray) -> None:
            vectors[positions] = self._engine.run([window.pieces[i] for i in positions])

        lengths = [len(piece.ids) for piece in window.pieces]
        batches = batches_by_length(lengths, plan.batch_size, plan.max_tokens)
        return window, vectors, [pool.submit(run, positions) for positions in batches]


def _reopened(kind: type[Embedder], path: Path, name: str, fingerprint: str, options: dict[str, Any]) -> Embedder:
    """Return the embedder that a pickle or a copy stands for.

    Raises:
        ModelMismatchError: the directory holds another model now.
    """
    embedder = kind(path, **options)
    if embedder.fingerprint != fingerprint:
        raise ModelMismatchError(
            f"{path} holds another model now (fingerprint {embedder.fingerprint[:12]}) than the one that was pickled or copied "
            f"({fingerprint[:12]}): open it with Embedder({str(path)!r})"
        )
    embedder.model_name = name
    return embedder


def _check_truncation(truncation: str) -> None:
    if truncation not in ("warn", "error", "chunk"):
        raise UsageError(f"truncation must be warn, error or chunk; found {truncation!r}")


def _warn_of_unknown(counts: EncodeCounts, what: str) -> None:
    if counts.unknown:
        log.warning(
            "%d of %d %s hold no word that the model knows: their vectors say nothing of what they mean",
            counts.unknown,
            counts.texts,
            what,
        )
    if counts.empty:
        log.warning(
            "%d of %d %s hold nothing that the model reads: all have one vector", counts.empty, counts.texts, what
        )


def _comparable(a: Any, b: Any) -> tuple[FloatArray, FloatArray]:
    """Return vectors to compare, one each or several, as (rows, dim)."""
    x, y = (np.atleast_2d(np.asarray(arguments.array_of(v, name), np.float32)) for v, name in ((a, "a"), (b, "b")))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise UsageError(
            f"a and b must be vectors of as many components; found the shapes {np.shape(a)} and {np.shape(b)}"
        )
    return x, y


def _unit(vectors: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)
