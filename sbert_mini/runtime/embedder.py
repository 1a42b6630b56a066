"""Texts -> sentence vectors, without torch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from sbert_mini.errors import ModelMismatchError, UsageError
from sbert_mini.model import registry
from sbert_mini.model.choices import Graph
from sbert_mini.runtime import arguments, similarity
from sbert_mini.runtime.choices import Backend, Precision
from sbert_mini.runtime.engine import open_engine, thread_count
from sbert_mini.runtime.graph import Adapter
from sbert_mini.runtime.graphs import find, find_ranges
from sbert_mini.runtime.npy import write_npy
from sbert_mini.runtime.precision import check_precision, quantize_vectors
from sbert_mini.runtime.stream import (
    DOCUMENT_PROMPTS,
    QUERY_PROMPTS,
    EncodedWindow,
    EncodeOptions,
    PairOptions,
    RowT,
    StreamOptions,
    TextStream,
    check_dimension,
    check_pairs,
    check_texts,
    join_records,
    plan_pairs,
    plan_texts,
    prompt_text,
    short_enough,
    tokens_around,
    with_prompt,
    words_in,
)
from sbert_mini.shapes import AnyArray, FloatArray, IntArray
from sbert_mini.text.batching import pad
from sbert_mini.text.records import Record, Reject
from sbert_mini.text.tokenizer import open_tokenizer
from sbert_mini.text.words import Words


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
            bfloat16 if the GPU can: `graph` is then not used. A GPU needs a larger `batch_size` than 32: try 512.
        backend: what computes: `native` (our own int8 code, by the fastest instructions that the processor has), a level of it
            (`portable`, `avx2`, `avx_vnni`, `avx512_vnni`, `amx_int8`, `neon_dotprod`), `onnx` (ONNX Runtime, an extra) or
            `torch` (float weights); None for `$SBMINI_BACKEND`, else for `native` where it can compute the model, else `onnx`.
            Every level gives the same bits; the vectors of the others are nearly equal.
        adapter: a task's projected attention layers, which then alter the vectors (`runtime.predictor.Predictor` passes them).
        trust_tokenizer: take a `tokenizer.json` that is not BERT's: its rules can hang or stop a program.

    Attributes:
        path: the model's directory.
        model_name: its name, for people.
        graph: which graph computes.
        threads: for everything.
        tokenizer: what makes word pieces of texts.
        fingerprint: sha256 over weights, tokenizer, pooling and greatest length: equal ones give comparable vectors.

    Raises:
        ModelNotFoundError: the name leads nowhere.
        MissingExtraError: the model must be converted first without `onnx`, or a device needs torch, which is not installed.
        UnsupportedModelError: the directory holds a model that is not a BERT encoder, or a tokenizer that is not BERT's.
        UsageError: `backend` is unknown or cannot compute this model here, or there is no such device.
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
        trust_tokenizer: bool = False,
    ) -> None:
        if adapter is not None and (backend not in (None, "onnx") or device not in (None, "cpu")):
            raise UsageError("a task's projected attention layers are computed by onnx, on the CPU, alone")
        self._reopened_with = {
            "device": device,
            "backend": backend,
            "adapter": adapter,
            "trust_tokenizer": trust_tokenizer,
        }
        self.threads = thread_count(threads)
        self.model_name = registry.name_of(model)
        self._converted = find(
            registry.resolve(model, offline=offline), graph, adapter, trust_tokenizer=trust_tokenizer
        )
        self._engine = open_engine(self._converted, "onnx" if adapter is not None else backend, device)
        layout = self._layout = self._converted.layout
        self.path, self.graph, self.fingerprint = layout.path, self._converted.graph, self._converted.fingerprint
        self.tokenizer = open_tokenizer(layout, trust=trust_tokenizer)
        self._stream = TextStream(self.tokenizer, self._engine, layout.dimension, self.threads, layout.path)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles and copies open the model again: the same directory, graph, number of threads and backend."""
        options = {"graph": self.graph, "threads": self.threads, **self._reopened_with}
        return _reopened, (type(self), self.path, self.model_name, self.fingerprint, options)

    @property
    def backend(self) -> str:
        """What computes, for people: native code and with which instructions, ONNX Runtime, or torch and where."""
        return self._engine.name

    @property
    def dimension(self) -> int:
        """Components of a vector, before any `truncate_dim` of a call."""
        return self._layout.output_dimension

    @property
    def max_seq_length(self) -> int:
        """The longest text in tokens, special tokens included."""
        return self.tokenizer.max_seq_length

    @property
    def prompts(self) -> dict[str, str]:
        """The model's prompts by name."""
        return dict(self._layout.prompts)

    def get_embedding_dimension(self) -> int:
        """Return `dimension`, under the two names that sentence-transformers has for it."""
        return self.dimension

    get_sentence_embedding_dimension = get_embedding_dimension

    def __repr__(self) -> str:
        return (
            f"Embedder({self.model_name!r}, graph={self.graph!r}, threads={self.threads}, dimension={self.dimension}, "
            f"max_seq_length={self.max_seq_length}, backend={self.backend!r})"
        )

    def tokenize(self, texts: str | Iterable[str]) -> dict[str, IntArray]:
        """Return what the model reads of each text: `input_ids`, `attention_mask` and `token_type_ids`, padded.

        Shapes: each: (texts, seq), `seq` the longest text's tokens, at most `max_seq_length`.
        """
        several = check_texts([str(texts)] if arguments.is_one_text(texts) else texts)
        padded = pad(self.tokenizer.encode(list(several)), self.tokenizer.pad_id)
        return dict(zip(("input_ids", "attention_mask", "token_type_ids"), padded, strict=True))

    def words_of(self, texts: Sequence[str], *, prompt: str | None = None) -> list[Words]:
        """Return what the model reads of each text, as far as it tells texts from each other; `prompt` as in `encode`."""
        prefix = prompt_text(self._layout, None, prompt)
        around = tokens_around(self.tokenizer, prefix)
        encoded = self.tokenizer.encode([prefix + text for text in texts])
        return [words_in([tokens], self.tokenizer, around) for tokens in encoded]

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        precision: Precision = "float32",
        ranges: FloatArray | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        **options: Unpack[EncodeOptions],
    ) -> AnyArray:
        """Return one vector a text, in the order of the texts.

        Args:
            texts: the texts, in any ordered iterable, which is read as it is encoded; a single string gives a single vector.
            precision: of the values; see `precision.quantize_vectors`.
            ranges: of each component, for the precisions int8 and uint8; None for the model's own (`component_ranges`), where
                `SentenceTransformer` takes those of the call's vectors.
            convert_to_numpy, convert_to_tensor: as sentence-transformers has them; True and False, since results are arrays.
            options: `batch_size`, `show_progress_bar`, `normalize_embeddings`, `truncate_dim`, `prompt_name`, `prompt`,
                `truncation` and `counts`: see `stream.EncodeOptions`.

        Shapes: the result: (texts, dim), or (dim,) for a single string; float32 unless `precision` says otherwise.

        Raises:
            UsageError: an argument is invalid.
            TextTooLongError: a text is too long, and `truncation` is `error`.
        """
        check_precision(precision)
        arguments.numpy_only(convert_to_numpy=convert_to_numpy, convert_to_tensor=convert_to_tensor)
        single = arguments.is_one_text(texts)
        blocks = list(self.encode_stream([str(texts)] if single else texts, **options))
        dim = options.get("truncate_dim")
        vectors = np.concatenate(blocks) if blocks else np.empty((0, check_dimension(self._layout, dim)), np.float32)
        if precision in ("int8", "uint8") and ranges is None:
            ranges = self.component_ranges(dim, normalize_embeddings=options.get("normalize_embeddings", True))
        result = quantize_vectors(vectors, precision, ranges)
        return result[0] if single else result

    def component_ranges(self, truncate_dim: int | None = None, *, normalize_embeddings: bool = True) -> FloatArray:
        """Return the range of each component in which vectors of the precisions int8 and uint8 are stored.

        They are the model's: measured once, on the texts that its int8 graph is calibrated with, and kept beside its graphs.
        `precision.restore_vectors` makes float32 vectors of the 8-bit ones again. The options are those of `encode`.

        Shapes: the result: (2, dim), lows and highs.
        """
        dimension = check_dimension(self._layout, truncate_dim)
        encode = partial(self.encode, truncate_dim=self._layout.dimension, prompt="", truncation="chunk")
        return find_ranges(self._converted, self.model_name, encode).of(dimension, normalized=normalize_embeddings)

    def encode_query(self, texts: str | Iterable[str], **options: Any) -> AnyArray:
        """Return `encode(texts)` with the model's prompt named `query`, if it has one and no other is asked for."""
        return self.encode(texts, **with_prompt(options, self._layout, QUERY_PROMPTS))

    def encode_queries(self, texts: Iterable[str]) -> tuple[FloatArray, list[Words]]:
        """Return `encode_query(texts)`, (texts, dim), and what the model reads of each text, without reporting unknown words."""
        windows = list(
            self.encode_windows(texts, warn_of_unknown=False, **with_prompt({}, self._layout, QUERY_PROMPTS))
        )
        vectors = [window.vectors for window in windows] or [np.empty((0, self.dimension), np.float32)]
        return np.concatenate(vectors), [words for window in windows for words in window.words()]

    def encode_document(self, texts: str | Iterable[str], **options: Any) -> AnyArray:
        """Return `encode(texts)` with the model's prompt named `document`, `passage` or `corpus`, the first that it has."""
        return self.encode(texts, **with_prompt(options, self._layout, DOCUMENT_PROMPTS))

    def document_prompt(self) -> str:
        """Return the text that `encode_document` puts before each text; an empty string for none."""
        name = with_prompt({}, self._layout, DOCUMENT_PROMPTS)["prompt_name"]
        return self._layout.prompts[name] if name is not None else ""

    def encode_pairs(self, pairs: Iterable[tuple[str, str]], **options: Unpack[PairOptions]) -> FloatArray:
        """Return one vector of length 1 a pair, both texts read as one input: `[CLS] a [SEP] b [SEP]`.

        Such vectors are for the task heads that were trained on them (`model.heads`), not for comparing with others.

        Args:
            pairs: the pairs: tuples, lists or arrays of two strings, or an array of two columns.
            options: see `stream.PairOptions`. A pair that is too long loses the end of its longer side (`warn`), or is refused
                (`error`); `chunk` is not for pairs. A pair counts as one text.

        Shapes: the result: (pairs, dim), float32.
        """
        blocks = list(self.encode_pairs_stream(pairs, **options))
        return np.concatenate(blocks) if blocks else np.empty((0, self._layout.dimension), np.float32)

    def encode_pairs_stream(
        self, pairs: Iterable[tuple[str, str]], **options: Unpack[PairOptions]
    ) -> Iterator[FloatArray]:
        """Yield the vectors of `encode_pairs` in order, in blocks of `stream.WINDOW` rows, reading the pairs as it goes."""
        arguments.check_options(options, PairOptions)
        plan = plan_pairs(self._layout, self.tokenizer, self._engine.tokens_per_batch, **options)
        return (window.vectors for window in self._stream.windows(check_pairs(pairs), plan))

    def similarity(self, a: AnyArray, b: AnyArray) -> FloatArray:
        """Return the model's own similarity of each vector of `a` to each of `b`, (texts, others): `similarity.similarity`."""
        return similarity.similarity(a, b, self._layout.similarity)

    def similarity_pairwise(self, a: AnyArray, b: AnyArray) -> FloatArray:
        """Return the model's own similarity of each vector of `a` to the one of `b` in its place, (texts,)."""
        return similarity.similarity_pairwise(a, b, self._layout.similarity)

    def are_longer(self, texts: Sequence[str], *, prompt: str | None = None) -> list[bool]:
        """Return which texts, with the prompt, are longer than the model reads; None for the model's own default prompt."""
        prefix = prompt_text(self._layout, None, prompt)
        return self.tokenizer.encode([prefix + text for text in texts]).truncated.tolist()

    def short_enough(
        self, records: Iterable[Record], prompt: str | None, on_reject: Callable[[Reject], None]
    ) -> Iterator[Record]:
        """Return the records whose text, with the prompt, the model reads whole, and hand over the others as rejects."""
        return short_enough(records, self.tokenizer, prompt_text(self._layout, None, prompt), on_reject)

    def encode_to_npy(self, texts: Iterable[str], path: str | Path, **options: Any) -> tuple[int, int]:
        """Write one float32 vector a text into the `.npy` file `path`, replacing it, and return its shape `(texts, dim)`.

        Memory stays the same however many texts there are. The file appears under its name when it is whole; where that fails
        (`OSError`), nothing is left behind. The options are those of `encode_stream`.
        """
        dimension = check_dimension(self._layout, options.get("truncate_dim"))
        return write_npy(path, dimension, self.encode_stream(texts, **options)), dimension

    def encode_stream(self, texts: Iterable[str], **options: Unpack[StreamOptions]) -> Iterator[FloatArray]:
        """Yield the texts' vectors in order, in blocks of `window` rows, reading the texts as it goes.

        Options and errors are those of `encode`, and the options `window` and `max_tokens` (`stream.StreamOptions`).
        """
        return (window.vectors for window in self.encode_windows(texts, **options))

    def encode_windows(self, texts: Iterable[str], **options: Unpack[StreamOptions]) -> Iterator[EncodedWindow]:
        """Yield what `encode_stream` yields, each block with what the model reads of its texts."""
        arguments.check_options(options, StreamOptions)
        plan = plan_texts(self._layout, self.tokenizer, self._engine.tokens_per_batch, **options)
        return self._stream.windows(check_texts(texts), plan)

    def encode_records(
        self, records: Iterable[RowT], **options: Unpack[StreamOptions]
    ) -> Iterator[tuple[list[RowT], FloatArray]]:
        """Yield records with the vectors of their texts, window by window, reading the records as it goes.

        Records may be any rows with a `text`; `short_enough` leaves out those that are too long. Options as in `encode_stream`.

        Shapes: each array: (records, dim), a row a record.
        """
        joined = join_records(records, partial(self.encode_windows, **options))
        return ((rows, window.vectors) for rows, window in joined)


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
