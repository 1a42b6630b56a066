"""A model directory -> what computes its vectors: a graph, weights or a table, an engine, a tokenizer."""

from dataclasses import dataclass
from pathlib import Path

from sbert_mini.errors import UsageError
from sbert_mini.model.choices import Graph
from sbert_mini.model.layout import ModelLayout, read_layout
from sbert_mini.model.token_table import TableFile
from sbert_mini.runtime.choices import Backend
from sbert_mini.runtime.engine import Engine, open_engine, requested_backend
from sbert_mini.runtime.graph import Adapter
from sbert_mini.runtime.graphs import ConvertedModel, check_kind, find
from sbert_mini.text.tokenizer import TextTokenizer, open_tokenizer


@dataclass(frozen=True)
class OpeningOptions:
    """How a model is opened. Pickles and copies open it again with the same options.

    Attributes:
        graph, device, backend, adapter, trust_tokenizer, read_only: see `Embedder`.
    """

    graph: Graph
    device: str | None
    backend: Backend | None
    adapter: Adapter | None
    trust_tokenizer: bool
    read_only: bool = False

    def __post_init__(self) -> None:
        if self.adapter is not None and (self.backend not in (None, "onnx") or self.device not in (None, "cpu")):
            raise UsageError("a task's projected attention layers are computed by onnx, on the CPU, alone")


def open_model(path: Path, options: OpeningOptions) -> tuple[ConvertedModel, Engine, TextTokenizer]:
    """Return the graph of a model directory, what computes it, and the model's tokenizer.

    Raises:
        MissingExtraError: the model must be converted first without `onnx`, or a device needs torch, which is not installed.
        UnsupportedModelError: the directory holds a model that is not a BERT encoder, or a tokenizer that is not BERT's.
        UsageError: the backend is unknown or cannot compute this model here, or there is no such device.
        CorruptModelError: a file of the model is damaged.
    """
    layout = read_layout(path)
    if layout.table is not None:
        return _open_table(layout, layout.table, options)
    trust, read_only = options.trust_tokenizer, options.read_only
    converted = find(layout, options.graph, options.adapter, trust_tokenizer=trust, read_only=read_only)
    engine = open_engine(converted, "onnx" if options.adapter is not None else options.backend, options.device)
    return converted, engine, open_tokenizer(converted.layout, trust=trust)


def _open_table(
    layout: ModelLayout, table: TableFile, options: OpeningOptions
) -> tuple[ConvertedModel, Engine, TextTokenizer]:
    """Return a static model: its table, what computes it, and its tokenizer."""
    from sbert_mini.runtime.table_engine import TableEngine, check_backend, model_of

    check_kind(options.graph)
    if options.adapter is not None:
        layout.require_encoder()
    check_backend(layout, options.backend or requested_backend(), options.device)
    tokenizer = open_tokenizer(layout, trust=options.trust_tokenizer)
    converted = model_of(layout, table, options.graph, read_only=options.read_only)
    return converted, TableEngine(table, tokenizer.special_ids), tokenizer
