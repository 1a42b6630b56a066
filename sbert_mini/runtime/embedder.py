"""Texts -> sentence vectors, without torch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from sbert_mini.errors import ModelMismatchError
from sbert_mini.model import registry
from sbert_mini.model.choices import Graph
from sbert_mini.runtime import arguments, reading
from sbert_mini.runtime.as_sentence_transformer import AsSentenceTransformer, result_form
from sbert_mini.runtime.choices import Backend, Precision
from sbert_mini.runtime.engine import thread_count
from sbert_mini.runtime.explanation import ExplainOptions, Explanation, TokenOptions, encode_tokens, explain
from sbert_mini.runtime.graph import Adapter
from sbert_mini.runtime.graphs import find_ranges
from sbert_mini.runtime.npy import write_npy
from sbert_mini.runtime.opening import OpeningOptions, open_model
from sbert_mini.runtime.precision import check_precision, quantize_vectors
from sbert_mini.runtime.reading import QUERY_PROMPTS, prompt_text, with_prompt
from sbert_mini.runtime.stream import (
    EncodedWindow,
    EncodeOptions,
    PairOptions,
    RowT,
    StreamOptions,
    TextStream,
    check_dimension,
    join_records,
    joined,
)
from sbert_mini.shapes import AnyArray, FloatArray
from sbert_mini.text.records import Record, Reject
from sbert_mini.text.words import Words


class Embedder(AsSentenceTransformer):
    """A sentence-embedding model that runs without torch.

    Method names and arguments are those of `SentenceTransformer`, so that its evaluators and utilities take an embedder as the
    model; what it does not have is refused by name. Three defaults differ, on purpose: vectors have length 1
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
        read_only: write nothing into the model's directory: graphs and ranges that must be made go into the cache.

    Attributes:
        path, model_name: the model's directory, and its name for people.
        graph: which graph computes.
        backend: what computes, for people: native code and with which instructions, ONNX Runtime, or torch and where.
        threads: for everything.
        dimension: components of a vector, before any `truncate_dim` of a call.
        tokenizer: what makes word pieces of texts.
        fingerprint: sha256 over weights, tokenizer, pooling and greatest length: equal ones give comparable vectors.
        space: the fingerprint of the model whose vectors these may be compared with: another one's where a static model states
            it, else its own.

    Raises:
        ModelNotFoundError: the name leads nowhere.
        MissingExtraError: the model must be converted first without `onnx`, or a device needs torch, which is not installed.
        UnsupportedModelError: the directory holds a model that is neither a BERT encoder nor a static model, or a tokenizer that
            is not BERT's.
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
        read_only: bool = False,
    ) -> None:
        self._options = OpeningOptions(graph, device, backend, adapter, trust_tokenizer, read_only)
        self.threads, self.model_name = thread_count(threads), registry.name_of(model)
        path = registry.resolve(model, offline=offline)
        self._converted, self._engine, self.tokenizer = open_model(path, self._options)
        layout = self._layout = self._converted.layout
        self.path, self.graph, self.fingerprint = layout.path, self._converted.graph, self._converted.fingerprint
        self.space = (layout.table and layout.table.space) or self.fingerprint
        self.backend, self.dimension = self._engine.name, layout.output_dimension
        self._stream = TextStream(layout, self.tokenizer, self._engine, self.threads)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles and copies open the model again: the same directory, graph, number of threads and backend."""
        options = {**vars(self._options), "graph": self.graph, "threads": self.threads}
        return _reopened, (type(self), self.path, self.model_name, self.fingerprint, options)

    def __repr__(self) -> str:
        return (
            f"Embedder({self.model_name!r}, graph={self.graph!r}, threads={self.threads}, dimension={self.dimension}, "
            f"max_seq_length={self.max_seq_length}, backend={self.backend!r})"
        )

    def words_of(self, texts: Sequence[str], *, prompt: str | None = None) -> list[Words]:
        """Return what the model reads of each text, as far as it tells texts from each other; `prompt` as in `encode`."""
        return reading.words_of(texts, self._layout, self.tokenizer, prompt)

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        precision: Precision | None = "float32",
        ranges: FloatArray | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        output_value: str | None = "sentence_embedding",
        device: Any = None,
        pool: Any = None,
        chunk_size: int | None = None,
        **options: Unpack[EncodeOptions],
    ) -> AnyArray:
        """Return one vector a text, in the order of the texts.

        Args:
            texts: the texts, in any ordered iterable, which is read as it is encoded; a single string gives a single vector.
            precision: of the values; see `precision.quantize_vectors`. None is float32.
            ranges: of each component, for the precisions int8 and uint8; None for the model's own (`component_ranges`), where
                `SentenceTransformer` takes those of the call's vectors.
            convert_to_numpy, convert_to_tensor, output_value, device, pool, chunk_size: as sentence-transformers has them; see
                `as_sentence_transformer.result_form`. Tensors need torch.
            options: `batch_size`, `show_progress_bar`, `normalize_embeddings`, `truncate_dim`, `prompt_name`, `prompt`,
                `truncation`, `counts` and `waits`: see `stream.EncodeOptions`.

        Shapes: the result: (texts, dim), or (dim,) for a single string; float32 unless `precision` says otherwise.

        Raises:
            UsageError: an argument is invalid, or asks for what an embedder cannot do.
            TextTooLongError: a text is too long, and `truncation` is `error`.
            MissingExtraError: a tensor is asked for, and torch is not installed.
        """
        precision = precision or "float32"
        check_precision(precision)
        as_result = result_form(
            self._options.device,
            convert_to_numpy=convert_to_numpy,
            convert_to_tensor=convert_to_tensor,
            output_value=output_value,
            device=device,
            pool=pool,
            chunk_size=chunk_size,
        )
        single = arguments.is_one_text(texts)
        blocks, dim = self.encode_stream([str(texts)] if single else texts, **options), options.get("truncate_dim")
        vectors = joined(blocks, check_dimension(self._layout, dim))
        if precision in ("int8", "uint8") and ranges is None:
            ranges = self.component_ranges(dim, normalize_embeddings=options.get("normalize_embeddings", True))
        result = quantize_vectors(vectors, precision, ranges)
        return as_result(result[0] if single else result)

    def component_ranges(self, truncate_dim: int | None = None, *, normalize_embeddings: bool = True) -> FloatArray:
        """Return the range of each component in which vectors of the precisions int8 and uint8 are stored.

        They are the model's: measured once, on the texts that its int8 graph is calibrated with, and kept beside its graphs.
        `precision.restore_vectors` makes float32 vectors of the 8-bit ones again. The options are those of `encode`.

        Shapes: the result: (2, dim), lows and highs.
        """
        dimension = check_dimension(self._layout, truncate_dim)
        encode = partial(self.encode, truncate_dim=self._layout.dimension, prompt="", truncation="chunk")
        return find_ranges(self._converted, self.model_name, encode).of(dimension, normalized=normalize_embeddings)

    def encode_queries(self, texts: Iterable[str]) -> tuple[FloatArray, list[Words]]:
        """Return `encode_query(texts)`, (texts, dim), and what the model reads of each text, without reporting unknown words."""
        options = with_prompt({"warn_of_unknown": False}, self._layout, QUERY_PROMPTS)
        windows = list(self.encode_windows(texts, **options))
        vectors = joined((window.vectors for window in windows), self.dimension)
        return vectors, [words for window in windows for words in window.words()]

    def document_prompt(self) -> str:
        """Return the text that `encode_document` puts before each text; an empty string for none."""
        return reading.document_prompt(self._layout)

    def encode_pairs(self, pairs: Iterable[tuple[str, str]], **options: Unpack[PairOptions]) -> FloatArray:
        """Return one vector of length 1 a pair, both texts read as one input: `[CLS] a [SEP] b [SEP]`.

        Such vectors are for the task heads that were trained on them (`model.heads`), not for comparing with others.

        Args:
            pairs: the pairs: tuples, lists or arrays of two strings, or an array of two columns.
            options: see `stream.PairOptions`. A pair that is too long loses the end of its longer side (`warn`), or is refused
                (`error`); `chunk` is not for pairs. A pair counts as one text.

        Shapes: the result: (pairs, dim), float32.
        """
        return joined(self.encode_pairs_stream(pairs, **options), self._layout.dimension)

    def encode_pairs_stream(
        self, pairs: Iterable[tuple[str, str]], **options: Unpack[PairOptions]
    ) -> Iterator[FloatArray]:
        """Yield the vectors of `encode_pairs` in order, in blocks of `stream.WINDOW` rows, reading the pairs as it goes."""
        return (window.vectors for window in self._stream.of_pairs(pairs, **options))

    def encode_tokens(self, texts: str | Iterable[str], **options: Unpack[TokenOptions]) -> list[FloatArray]:
        """Return the vectors of each text's tokens, an array (seq, hidden) each: see `explanation.encode_tokens`."""
        return encode_tokens(texts, self._layout, self.tokenizer, self._engine, **options)

    def explain(self, a: str, b: str, **options: Unpack[ExplainOptions]) -> Explanation:
        """Return why two texts have their cosine, by pairs of their words: see `explanation.explain`."""
        return explain(a, b, self._layout, self.tokenizer, self._engine, self.encode_stream, **options)

    def are_longer(self, texts: Sequence[str], *, prompt: str | None = None) -> list[bool]:
        """Return which texts, with the prompt, are longer than the model reads; None for the model's own default prompt."""
        return reading.are_longer(texts, self.tokenizer, prompt_text(self._layout, None, prompt))

    def short_enough(
        self, records: Iterable[Record], prompt: str | None, on_reject: Callable[[Reject], None]
    ) -> Iterator[Record]:
        """Return the records whose text, with the prompt, the model reads whole, and hand over the others as rejects."""
        return reading.short_enough(records, self.tokenizer, prompt_text(self._layout, None, prompt), on_reject)

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
        return self._stream.of_texts(texts, **options)

    def encode_records(
        self, records: Iterable[RowT], **options: Unpack[StreamOptions]
    ) -> Iterator[tuple[list[RowT], FloatArray]]:
        """Yield records with the vectors of their texts, window by window, reading the records as it goes.

        Records may be any rows with a `text`; `short_enough` leaves out those that are too long. Options as in `encode_stream`.

        Shapes: each array: (records, dim), a row a record.
        """
        windows = join_records(records, partial(self.encode_windows, **options))
        return ((rows, window.vectors) for rows, window in windows)


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
