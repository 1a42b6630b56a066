"""Task heads on disk: what they are, and their weights.

A model directory may hold `heads/<task>/`: `config.json` (`HeadConfig`), where the head has weights `model.safetensors`, and
where the task has projected attention layers of its own (`encoder.adapters`) `adapter.safetensors`. Other tools do not look
there. A head reads the model's sentence vectors, of length 1, times √dim:

| structure | what is encoded | what the head reads |
| --- | --- | --- |
| `single` | the text | x |
| `pair` | both texts as one input, `[CLS] a [SEP] b [SEP]` | x |
| `siamese` | each text by itself | u, v, abs(u - v), u * v, side by side |
| `pair+siamese` | both texts as one input, and each by itself | x, u, v, abs(u - v), u * v, side by side |

| kind | what it gives |
| --- | --- |
| `classification` | a probability a label: `softmax(W x + b)` |
| `regression` | a score: `low + (high - low) · sigmoid(w · x + b)` |
| `similarity` | a score: `low + (high - low) · max(cos(u, v), 0)`, and the cosine; it has no weights |

With `hidden`, `x` is first replaced by `GELU(W₁ x + b₁)`.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.errors import CorruptModelError, ModelNotFoundError, UsageError
from sbert_mini.files.json_files import HEAD_CONFIG, HEAD_FORMAT
from sbert_mini.files.json_schema import check
from sbert_mini.files.names import TASK
from sbert_mini.model.choices import HEAD_KINDS, HEAD_STRUCTURES
from sbert_mini.model.layout import HEADS_FOLDER, head_folder, read_json, read_layout
from sbert_mini.model.weights import read_tensors
from sbert_mini.shapes import AnyArray

FORMAT = 1
WEIGHTS = "model.safetensors"
ADAPTER = "adapter.safetensors"


@dataclass(frozen=True)
class HeadConfig:
    """What a head is, as `config.json` says it.

    Attributes:
        task: its name; the folder's.
        structure: one of `choices.HEAD_STRUCTURES`.
        kind: one of `choices.HEAD_KINDS`.
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
        if self.structure not in HEAD_STRUCTURES or self.kind not in HEAD_KINDS:
            raise UsageError(
                f"a head's structure must be one of {', '.join(HEAD_STRUCTURES)} and its kind one of "
                f"{', '.join(HEAD_KINDS)}; found {self.structure!r} and {self.kind!r}"
            )
        if self.kind == "classification" and len(self.labels) < 2:
            raise UsageError(
                f"a classification needs at least two labels; the head {self.task!r} has {len(self.labels)}"
            )
        if len(set(self.labels)) != len(self.labels):
            raise UsageError(f"the labels of the head {self.task!r} must differ; found {', '.join(self.labels)}")
        if self.adapter_size and (self.adapter_heads < 1 or self.adapter_size % self.adapter_heads):
            raise UsageError(
                f"adapter_size must be a multiple of adapter_heads; found {self.adapter_size} and {self.adapter_heads}"
            )
        if self.kind == "similarity" and self.structure != "siamese":
            raise UsageError("a similarity compares two texts, each encoded by itself: its structure is siamese")

    @property
    def inputs(self) -> int:
        """Components that the head reads."""
        return self.dimension * {"siamese": 4, "pair+siamese": 5}.get(self.structure, 1)

    @property
    def outputs(self) -> int:
        """Numbers that its last layer gives; 0 for a similarity."""
        return {"classification": len(self.labels), "regression": 1, "similarity": 0}[self.kind]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the names and shapes of its weights."""
        if not self.outputs:
            return {}
        last = self.hidden or self.inputs
        shapes: dict[str, tuple[int, ...]] = {"output.weight": (self.outputs, last), "output.bias": (self.outputs,)}
        if self.hidden:
            shapes |= {"hidden.weight": (self.hidden, self.inputs), "hidden.bias": (self.hidden,)}
        return shapes

    def write(self, folder: Path) -> None:
        """Write `config.json` into `folder`, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=2, sort_keys=True, ensure_ascii=False)
        (folder / "config.json").write_text(text + "\n", "utf-8")


def head_names(model: Path) -> list[str]:
    """Return the names of a model directory's heads, sorted."""
    folders = (file.parent.name for file in (model / HEADS_FOLDER).glob("*/config.json"))
    return sorted(name for name in folders if TASK.allows(name))


def read_head(model: Path, task: str) -> tuple[HeadConfig, dict[str, AnyArray]]:
    """Return a head of a model directory and its weights.

    Raises:
        ModelNotFoundError: the model has no such head; the text says which it has.
        CorruptModelError: a file of it is damaged, or of another format.
    """
    names = head_names(model)
    if task not in names:
        raise ModelNotFoundError(f"{model} has no head {task!r}; it has: {', '.join(names) or 'none'}")
    folder = head_folder(model, task)
    data = read_json(folder / "config.json", HEAD_FORMAT)
    known = {field.name for field in fields(HeadConfig)}
    needed = known - {"adapter_size", "adapter_heads"}  # which came later
    if data.pop("format", None) != FORMAT or not needed <= set(data) <= known:
        raise CorruptModelError(f"{folder / 'config.json'} is not of format {FORMAT}")
    check(data, HEAD_CONFIG, folder / "config.json", CorruptModelError)
    try:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        config = HeadConfig(**values)
    except UsageError as error:
        raise CorruptModelError(f"{folder / 'config.json'}: {error}") from error
    if config.task != task:
        raise CorruptModelError(
            f"{folder / 'config.json'} must have the name of its folder, {task!r}, as task; found {config.task!r}"
        )
    shapes = config.shapes()
    weights = dict(read_tensors(folder / WEIGHTS)) if shapes else {}
    for name, shape in shapes.items():
        shape_there = weights[name].shape if name in weights else "nothing"
        if shape_there != shape:
            raise CorruptModelError(f"{folder / WEIGHTS}: {name} must have the shape {shape}; found {shape_there}")
        if not np.isfinite(weights[name]).all():
            raise CorruptModelError(f"{folder / WEIGHTS}: {name} holds NaN or infinity")
    return config, weights


def read_adapter(model: Path, config: HeadConfig) -> dict[str, AnyArray]:
    """Return the weights of a task's projected attention layers, under `encoder.adapters.ProjectedAttention`'s names.

    Raises:
        CorruptModelError: the file is missing or damaged, or does not fit the encoder.
    """
    file = head_folder(model, config.task) / ADAPTER
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
