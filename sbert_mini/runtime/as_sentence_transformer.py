"""The names of `SentenceTransformer` that code for it uses, on an object that runs without torch.

Evaluators and utilities of sentence-transformers, and frameworks that take its models, take such an object too. What it
cannot do is refused by name.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from sbert_mini.errors import MissingExtraError, UsageError
from sbert_mini.model.layout import ModelLayout
from sbert_mini.runtime import arguments, reading, similarity
from sbert_mini.runtime.opening import OpeningOptions
from sbert_mini.runtime.reading import DOCUMENT_PROMPTS, QUERY_PROMPTS, with_prompt
from sbert_mini.shapes import AnyArray, FloatArray, IntArray
from sbert_mini.text.tokenizer import TextTokenizer

_ABSENT = (
    {"fit", "train", "half", "bfloat16", "float", "to", "cpu", "cuda", "eval", "forward", "parameters", "state_dict"}
    | {"preprocess", "evaluate", "save", "save_pretrained", "save_to_hub", "push_to_hub", "transformers_model"}
    | {"start_multi_process_pool", "stop_multi_process_pool", "encode_multi_process", "set_pooling_include_prompt"}
)
"""Names that `SentenceTransformer` has, which are refused with the way out."""


class AsSentenceTransformer:
    """What `SentenceTransformer` offers beside `encode`, for a subclass that encodes."""

    dimension: int
    tokenizer: TextTokenizer
    encode: Callable[..., AnyArray]
    _layout: ModelLayout
    _options: OpeningOptions

    if not TYPE_CHECKING:  # a type checker would take any name for one that there is

        def __getattr__(self, name: str) -> NoReturn:
            """Refuse a name; those of `SentenceTransformer` with the way out."""
            kind = type(self).__name__
            if name in _ABSENT:
                raise AttributeError(
                    f"{kind} has no {name!r}: it only computes vectors, on the device that it was opened for. "
                    "sbert_mini.load(model) returns the SentenceTransformer"
                )
            raise AttributeError(f"{kind!r} object has no attribute {name!r}")

    def __call__(self, input: str | Iterable[str]) -> AnyArray:  # the name that frameworks pass
        """Return `encode(input)`, for frameworks that take a function from texts to vectors."""
        return self.encode(input)

    @property
    def max_seq_length(self) -> int:
        """The longest text in tokens, special tokens included."""
        return self.tokenizer.max_seq_length

    def get_max_seq_length(self) -> int:
        """Return `max_seq_length`."""
        return self.max_seq_length

    def get_embedding_dimension(self) -> int:
        """Return `dimension`, under the two names that sentence-transformers has for it."""
        return self.dimension

    get_sentence_embedding_dimension = get_embedding_dimension

    @property
    def prompts(self) -> dict[str, str]:
        """The model's prompts by name."""
        return dict(self._layout.prompts)

    @property
    def device(self) -> str:
        """What computes, as torch names devices: `cpu` unless the model was opened for another."""
        return self._options.device or "cpu"

    @property
    def similarity_fn_name(self) -> str:
        """The similarity that the model was trained for: `cosine`, `dot`, `euclidean` or `manhattan`."""
        return self._layout.similarity

    @property
    def model_card_data(self) -> "NoCard":
        """What evaluators report their figures to; they are not kept."""
        return NoCard()

    def tokenize(self, texts: str | Iterable[str]) -> dict[str, IntArray]:
        """Return what the model reads of each text: `input_ids`, `attention_mask` and `token_type_ids`, padded.

        Shapes: each: (texts, seq), `seq` the longest text's tokens, at most `max_seq_length`.
        """
        several = [str(texts)] if arguments.is_one_text(texts) else list(arguments.texts_of(texts))
        checked = [arguments.check_text(text, position) for position, text in enumerate(several)]
        return reading.padded_tokens(checked, self.tokenizer)

    def similarity(self, a: AnyArray, b: AnyArray) -> FloatArray:
        """Return the model's own similarity of each vector of `a` to each of `b`, (texts, others): `similarity.similarity`.

        The result is a tensor where one of them is.
        """
        return _like(a, b, similarity.similarity(a, b, self._layout.similarity))

    def similarity_pairwise(self, a: AnyArray, b: AnyArray) -> FloatArray:
        """Return the model's own similarity of each vector of `a` to the one of `b` in its place, (texts,).

        The result is a tensor where one of them is.
        """
        return _like(a, b, similarity.similarity_pairwise(a, b, self._layout.similarity))

    def encode_query(self, texts: str | Iterable[str], **options: Any) -> AnyArray:
        """Return `encode(texts)` with the model's prompt named `query`, if it has one and no other is asked for."""
        return self.encode(texts, **with_prompt(options, self._layout, QUERY_PROMPTS))

    def encode_document(self, texts: str | Iterable[str], **options: Any) -> AnyArray:
        """Return `encode(texts)` with the model's prompt named `document`, `passage` or `corpus`, the first that it has."""
        return self.encode(texts, **with_prompt(options, self._layout, DOCUMENT_PROMPTS))

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of one query as a list: `encode_query`, as LangChain and others call it.

        Raises:
            UsageError: `text` is not one string.
        """
        if not arguments.is_one_text(text):
            raise UsageError(
                f"embed_query takes one text; found a {type(text).__name__}: embed_documents takes several"
            )
        return self.encode_query(text).tolist()

    def embed_documents(self, texts: Iterable[str]) -> list[list[float]]:
        """Return the vectors of documents as lists, in order: `encode_document`, as LangChain and others call it.

        Raises:
            UsageError: `texts` is one string.
        """
        return self.encode_document(arguments.texts_of(texts)).tolist()


class NoCard:
    """Takes the figures that an evaluator reports to a model's card, and keeps none."""

    def set_evaluation_metrics(self, *_: Any, **__: Any) -> None:
        """Do nothing: there is no card."""


def result_form(
    opened_for: str | None,
    *,
    convert_to_numpy: bool = True,
    convert_to_tensor: bool = False,
    output_value: str | None = "sentence_embedding",
    device: Any = None,
    pool: Any = None,
    chunk_size: int | None = None,
) -> Callable[[AnyArray], Any]:
    """Return what makes the result that a caller of `SentenceTransformer.encode` asks for of an array of vectors.

    Args:
        opened_for: the model's device.
        convert_to_numpy: True for a NumPy array; False for a list of tensors, one a text.
        convert_to_tensor: True for one tensor; wins over `convert_to_numpy`.
        output_value: `sentence_embedding`: there is no other.
        device: None, or the device that the model was opened for.
        pool, chunk_size: None: several processes are not used.

    Raises:
        UsageError: another output, another device or several processes are asked for.
    """
    if output_value != "sentence_embedding":
        raise UsageError(
            f"output_value must be 'sentence_embedding'; found {output_value!r}: sbert_mini.load(model) returns a "
            "SentenceTransformer, which has the vectors of tokens",
            "output_value",
        )
    if device is not None and str(device) != (opened_for or "cpu"):
        raise UsageError(
            f"device must be that of the model, {opened_for or 'cpu'!r}; found {str(device)[:60]!r}: "
            "Embedder(model, device=...) opens a model for another",
            "device",
        )
    for name, value in (("pool", pool), ("chunk_size", chunk_size)):
        if value is not None:
            raise UsageError(f"{name} must be None: threads of one process compute, Embedder(model, threads=...)", name)
    if convert_to_tensor:
        return _tensor
    return _array if convert_to_numpy else _tensors


def _array(vectors: AnyArray) -> AnyArray:
    return vectors


def _tensor(vectors: AnyArray) -> Any:
    """Return a tensor of torch with the array's values.

    Raises:
        MissingExtraError: torch is not installed.
    """
    try:
        from sbert_mini.encoder.tensors import tensor_of
    except ImportError as error:
        raise MissingExtraError("a tensor", "torch", "train") from error
    return tensor_of(vectors)


def _tensors(vectors: AnyArray) -> Any:
    """Return one tensor a vector, in a list; the tensor itself for a single vector."""
    return _tensor(vectors) if vectors.ndim == 1 else list(_tensor(vectors))


def _like(a: Any, b: Any, result: FloatArray) -> Any:
    """Return the array, as a tensor where `a` or `b` is one."""
    return _tensor(result) if any(hasattr(value, "detach") for value in (a, b)) else result
