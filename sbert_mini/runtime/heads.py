"""Task heads on disk, and their use without torch.

A model directory may hold `heads/<task>/`: `config.json` (`HeadConfig`), where the head has weights `model.safetensors`, and
where the task has projected attention layers of its own (`encoder.adapters`) `adapter.safetensors`. Other tools do not look
there. A head reads the model's sentence vectors, of length 1, times √dim:

| structure | what is encoded | what the head reads |
| --- | --- | --- |
| `single` | the text | x |
| `pair` | both texts as one input, `[CLS] a [SEP] b [SEP]` | x |
| `siamese` | each text by itself | u, v, abs(u - v), u * v, side by side |

| kind | what it gives |
| --- | --- |
| `classification` | a probability a label: `softmax(W x + b)` |
| `regression` | a score: `low + (high - low) · sigmoid(w · x + b)` |
| `similarity` | a score: `low + (high - low) · max(cos(u, v), 0)`, and the cosine; it has no weights |

With `hidden`, `x` is first replaced by `GELU(W₁ x + b₁)`.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.cosine import as_cosines
from sbert_mini.encoder.checkpoint import read_tensors
from sbert_mini.errors import CorruptModelError, ModelNotFoundError, UsageError
from sbert_mini.layout import read_json, read_layout
from sbert_mini.runtime import arguments
from sbert_mini.runtime.conversion import Graph
from sbert_mini.runtime.embedder import Embedder, EncodeCounts, Truncation
from sbert_mini.runtime.graph import Adapter
from sbert_mini.shapes import AnyArray, FloatArray

STRUCTURES = ("single", "siamese", "pair")
KINDS = ("classification", "regression", "similarity")
FORMAT = 1
WEIGHTS = "model.safetensors"
ADAPTER = "adapter.safetensors"


@dataclass(frozen=True)
class HeadConfig:
    """What a head is, as `config.json` says it.

    Attributes:
        task: its name; the folder's.
        structure: one of `STRUCTURES`.
        kind: one of `KINDS`.
        dimension: components of the sentence vector.
        labels: the labels, in the order of the outputs; of `classification`.
        low: the least score; of `regression` and `similarity`.
        high: the greatest score.
        hidden: components of the hidden layer; 0 for none.
        dropout: before each linear layer, in training.
        columns: how the training data call the texts.
        adapter_size: components of the task's projected attention layers; 0 for none: then the vectors are the model's.
        adapter_heads: their attention's heads.
    """

    task: str
    structure: str
    kind: str
    dimension: int
    labels: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0
    hidden: int = 0
    dropout: float = 0.0
    columns: tuple[str, ...] = ()
    adapter_size: int = 0
    adapter_heads: int = 0

    def __post_init__(self) -> None:
        if self.structure not in STRUCTURES or self.kind not in KINDS:
            raise UsageError(
                f"a head's structure must be one of {', '.join(STRUCTURES)} and its kind one of {', '.join(KINDS)}; found "
                f"{self.structure!r} and {self.kind!r}"
            )
        if self.kind == "classification" and len(self.labels) < 2:
            raise UsageError(
                f"a classification needs at least two labels; the head {self.task!r} has {len(self.labels)}"
            )
        if self.kind == "similarity" and self.structure != "siamese":
            raise UsageError("a similarity compares two texts, each encoded by itself: its structure is siamese")

    @property
    def inputs(self) -> int:
        """Components that the head reads."""
        return self.dimension * (4 if self.structure == "siamese" else 1)

    @property
    def outputs(self) -> int:
        """Numbers that its last layer gives; 0 for a similarity."""
        return {"classification": len(self.labels), "regression": 1, "similarity": 0}[self.kind]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the names and shapes of its weights."""
        if not self.outputs:
            return {}
        last = self.hidden or self.inputs
        found: dict[str, tuple[int, ...]] = {"output.weight": (self.outputs, last), "output.bias": (self.outputs,)}
        if self.hidden:
            found |= {"hidden.weight": (self.hidden, self.inputs), "hidden.bias": (self.hidden,)}
        return found

    def write(self, folder: Path) -> None:
        """Write `config.json` into `folder`, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=2, sort_keys=True, ensure_ascii=False)
        (folder / "config.json").write_text(text + "\n", "utf-8")


def head_names(model: Path) -> list[str]:
    """Return the names of a model directory's heads, sorted."""
    return sorted(file.parent.name for file in (model / "heads").glob("*/config.json"))


def read_head(model: Path, task: str) -> tuple[HeadConfig, dict[str, AnyArray]]:
    """Return a head of a model directory and its weights.

    Raises:
        ModelNotFoundError: the model has no such head; the text says which it has.
        CorruptModelError: a file of it is damaged, or of another format.
    """
    names = head_names(model)
    if task not in names:
        raise ModelNotFoundError(f"{model} has no head {task!r}; it has: {', '.join(names) or 'none'}")
    folder = model / "heads" / task
    data = read_json(folder / "config.json")
    known = {field.name for field in fields(HeadConfig)}
    needed = known - {"adapter_size", "adapter_heads"}  # which came later
    if data.pop("format", None) != FORMAT or not needed <= set(data) <= known:
        raise CorruptModelError(f"{folder / 'config.json'} is not of format {FORMAT}")
    try:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        config = HeadConfig(**values)
    except (UsageError, TypeError) as error:
        raise CorruptModelError(f"{folder / 'config.json'}: {error}") from error
    shapes = config.shapes()
    weights = dict(read_tensors(folder / WEIGHTS)) if shapes else {}
    for name, shape in shapes.items():
        found = weights[name].shape if name in weights else "nothing"
        if found != shape:
            raise CorruptModelError(f"{folder / WEIGHTS}: {name} must have the shape {shape}; found {found}")
    return config, weights


def read_adapter(model: Path, config: HeadConfig) -> dict[str, AnyArray]:
    """Return the weights of a task's projected attention layers, under `encoder.adapters.ProjectedAttention`'s names.

    Raises:
        CorruptModelError: the file is missing or damaged, or does not fit the encoder.
    """
    file = model / "heads" / config.task / ADAPTER
    weights = dict(read_tensors(file))
    bert = read_layout(model).config
    hidden, size = bert.hidden_size, config.adapter_size
    shapes: dict[str, tuple[int, ...]] = {"down.weight": (size, hidden), "down.bias": (size,)}
    shapes |= {"up.weight": (hidden, size), "up.bias": (hidden,)}
    for layer in range(bert.num_hidden_layers):
        for part in ("query", "key", "value"):
            shapes |= {f"layer.{layer}.{part}.weight": (size, size), f"layer.{layer}.{part}.bias": (size,)}
    if {name: array.shape for name, array in weights.items()} != shapes:
        raise CorruptModelError(
            f"{file} does not hold projected attention layers of {size} components for this encoder"
        )
    return weights


@dataclass(frozen=True)
class Prediction:
    """What a head says of one text or pair.

    Attributes:
        label: the most probable label; None where the head gives scores.
        probabilities: label -> probability; empty where it gives scores.
        score: the score; None where it gives labels.
        cosine: of the two vectors, for a similarity; else None.
    """

    label: str | None
    probabilities: dict[str, float]
    score: float | None
    cosine: float | None


class Predictor:
    """A model with one of its heads, without torch.

    Args:
        model: a model directory, a built-in name or a hub id.
        task: the head's name; None where the model has one head only.
        graph: which graph computes the vectors: `int8` or `fp32`.
        threads: for everything.
        offline: open no socket.

    Raises:
        ModelNotFoundError: the model, or the head, is not there.
        CorruptModelError: a file is damaged.
        UsageError: no head is named, and the model has several.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        task: str | None = None,
        graph: Graph = "int8",
        threads: int | None = None,
        *,
        offline: bool = False,
    ) -> None:
        from sbert_mini.models import resolve

        path = resolve(model, offline=offline)
        names = head_names(path)
        if task is None:
            if not names:
                raise ModelNotFoundError(f"{path} has no heads: `sbmini train` makes models that have")
            if len(names) > 1:
                raise UsageError(f"the model has several heads, name one of {', '.join(names)}")
            task = names[0]
        self.config, self._weights = read_head(path, task)
        self.embedder = Embedder(path, graph=graph, threads=threads, offline=offline, adapter=self._adapter(path))
        if self.config.dimension != self.embedder.dimension:
            raise CorruptModelError(
                f"the head {task!r} reads vectors of {self.config.dimension} components, and the model gives "
                f"{self.embedder.dimension}"
            )

    def __repr__(self) -> str:
        return f"Predictor({self.embedder.model_name!r}, task={self.config.task!r}, kind={self.config.kind!r})"

    def _adapter(self, path: Path) -> Adapter | None:
        if not self.config.adapter_size:
            return None
        weights = read_adapter(path, self.config)
        return Adapter(self.config.task, self.config.adapter_heads, weights)

    @property
    def texts_each(self) -> int:
        """How many texts an input has: 1 or 2."""
        return 1 if self.config.structure == "single" else 2

    def predict(
        self,
        inputs: Iterable[str] | Iterable[tuple[str, str]],
        *,
        batch_size: int = 32,
        truncation: Truncation = "warn",
        counts: EncodeCounts | None = None,
    ) -> list[Prediction]:
        """Return what the head says of each input.

        Args:
            inputs: texts, or pairs of texts where `texts_each` is 2, in any ordered iterable; several of them.
            batch_size: the most texts that are computed together.
            truncation: as in `Embedder.encode`; pairs through one encoder cannot be read in pieces (`chunk`).
            counts: filled in, if given.

        Raises:
            UsageError: texts are given where pairs are needed, or the other way round.
        """
        needed = "two texts" if self.texts_each == 2 else "one text"
        kind = "pairs of texts" if self.texts_each == 2 else "texts"
        if isinstance(inputs, np.ndarray) and inputs.ndim == 2 and self.texts_each == 2:
            inputs = list(arguments.pairs_of(inputs, "inputs"))
        several = list(arguments.items_of(inputs, "inputs", kind))
        for item in several:
            if isinstance(item, str) == (self.texts_each == 2):
                raise UsageError(f"the head {self.config.task!r} reads {needed} an input")
        if self.texts_each == 2:
            several = list(arguments.pairs_of(several, "inputs"))
        return list(self._outputs(*self._features(several, batch_size, truncation, counts)))

    def _features(
        self, inputs: Sequence[Any], batch_size: int, truncation: Truncation, counts: EncodeCounts | None
    ) -> tuple[FloatArray, FloatArray | None]:
        """Return what the head reads, (inputs, features), and the cosines of a siamese head, (inputs,)."""
        scale = math.sqrt(self.config.dimension)
        options: dict[str, Any] = {"batch_size": batch_size, "truncation": truncation, "counts": counts}
        if self.config.structure == "single":
            return self.embedder.encode(list(inputs), **options) * np.float32(scale), None
        if self.config.structure == "pair":
            return self.embedder.encode_pairs(inputs, **options) * np.float32(scale), None
        vectors = self.embedder.encode([text for pair in inputs for text in pair], **options)
        u, v = vectors[0::2], vectors[1::2]
        return siamese_features(u * np.float32(scale), v * np.float32(scale)), as_cosines(np.sum(u * v, axis=1))

    def _outputs(self, x: FloatArray, cosine: FloatArray | None) -> Iterator[Prediction]:
        config, weights = self.config, self._weights
        if config.kind == "similarity":
            assert cosine is not None  # noqa: S101
            for value in cosine.tolist():
                score = config.low + (config.high - config.low) * max(value, 0.0)
                yield Prediction(None, {}, score, value)
            return
        if config.hidden:
            x = _gelu(x @ weights["hidden.weight"].T + weights["hidden.bias"])
        z = (x @ weights["output.weight"].T + weights["output.bias"]).astype(np.float64)
        if config.kind == "regression":
            for value in (1 / (1 + np.exp(-z[:, 0]))).tolist():
                yield Prediction(None, {}, config.low + (config.high - config.low) * value, None)
            return
        shifted = np.exp(z - z.max(axis=1, keepdims=True))
        for row in (shifted / shifted.sum(axis=1, keepdims=True)).tolist():
            best = int(np.argmax(row))
            yield Prediction(config.labels[best], dict(zip(config.labels, row, strict=True)), None, None)


def siamese_features(u: FloatArray, v: FloatArray) -> FloatArray:
    """Return `u, v, |u - v|, u * v` side by side. Shapes: u, v (batch, dim); the result (batch, 4 dim).

    Source: Conneau et al. 2017 (arXiv 1705.02364), section 3.1; with u * v, which Reimers and Gurevych 2019 leave out.
    """
    return np.concatenate([u, v, np.abs(u - v), u * v], axis=-1)


def _gelu(x: FloatArray) -> FloatArray:
    """Return the exact GELU. NumPy has no error function; that of the standard library is exact, and a hidden layer small."""
    erf = np.vectorize(math.erf, otypes=[np.float64])
    return np.asarray(0.5 * x * (1 + erf(x / math.sqrt(2))), dtype=np.float32)
