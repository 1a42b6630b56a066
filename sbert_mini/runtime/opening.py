"""A model directory -> what computes its vectors: a graph or weights, an engine, a tokenizer."""

from dataclasses import dataclass
from pathlib import Path

from sbert_mini.errors import UsageError
from sbert_mini.model.choices import Graph
from sbert_mini.runtime.choices import Backend
from sbert_mini.runtime.engine import Engine, open_engine
from sbert_mini.runtime.graph import Adapter
from sbert_mini.runtime.graphs import ConvertedModel, find
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
    trust, read_only = options.trust_tokenizer, options.read_only
    converted = find(path, options.graph, options.adapter, trust_tokenizer=trust, read_only=read_only)
    engine = open_engine(converted, "onnx" if options.adapter is not None else options.backend, options.device)
    return converted, engine, open_tokenizer(converted.layout, trust=trust)
