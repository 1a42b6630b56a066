"""A trained task head, used without torch: texts or pairs -> labels or scores. `model.heads` describes what a head is."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.cosine import as_cosines
from sbert_mini.errors import CorruptModelError, ModelNotFoundError, UsageError
from sbert_mini.model.choices import JOINED, Graph
from sbert_mini.model.heads import head_names, read_adapter, read_head
from sbert_mini.model.layout import read_layout
from sbert_mini.model.registry import resolve
from sbert_mini.runtime import arguments
from sbert_mini.runtime.choices import Truncation
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.runtime.graph import Adapter
from sbert_mini.runtime.stream import EncodeCounts
from sbert_mini.shapes import FloatArray


@dataclass(frozen=True)
class Prediction:
    """The output of a head for one text or pair.

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
        trust_tokenizer: see `Embedder`.

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
        trust_tokenizer: bool = False,
    ) -> None:
        path = resolve(model, offline=offline)
        names = head_names(path)
        if task is None:
            if not names:
                raise ModelNotFoundError(f"{path} has no heads: `sbmini train` makes models that have")
            if len(names) > 1:
                raise UsageError(f"the model has several heads, name one of {', '.join(names)}")
            task = names[0]
        self.config, self._weights = read_head(path, task)
        options: dict[str, Any] = {"threads": threads, "offline": offline, "trust_tokenizer": trust_tokenizer}
        self.embedder = Embedder(path, graph, adapter=self._adapter(path), **options)
        if self.config.dimension != self.embedder.dimension:
            raise CorruptModelError(
                f"the head {task!r} reads vectors of {self.config.dimension} components, and the model gives "
                f"{self.embedder.dimension}"
            )
        whole = read_layout(path).dimension
        if self.config.structure in JOINED and self.config.dimension != whole:
            raise CorruptModelError(
                f"the head {task!r} reads pairs, whose vectors have all {whole} components of the model; it is made for "
                f"{self.config.dimension}"
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
        """Return the head's prediction for each input; the arguments are those of `predict_stream`."""
        return list(self.predict_stream(inputs, batch_size=batch_size, truncation=truncation, counts=counts))

    def predict_stream(
        self,
        inputs: Iterable[str] | Iterable[tuple[str, str]],
        *,
        batch_size: int = 32,
        truncation: Truncation = "warn",
        counts: EncodeCounts | None = None,
        waits: Callable[[], bool] | None = None,
    ) -> Iterator[Prediction]:
        """Yield the head's prediction for each input, reading the inputs as it goes.

        Args:
            inputs: texts, or pairs of texts where `texts_each` is 2, in any ordered iterable; several of them.
            batch_size: the most texts that are computed together.
            truncation: as in `Embedder.encode`; pairs through one encoder cannot be read in pieces (`chunk`).
            counts: filled in, if given.
            waits: as in `Embedder.encode_stream`.

        Raises:
            UsageError: texts are given where pairs are needed, or the other way round.
        """
        kind = "pairs of texts" if self.texts_each == 2 else "texts"
        if isinstance(inputs, np.ndarray) and inputs.ndim == 2 and self.texts_each == 2:
            inputs = list(arguments.pairs_of(inputs, "inputs"))
        several = self._checked(arguments.items_of(inputs, "inputs", kind))
        options: dict[str, Any] = {"batch_size": batch_size, "truncation": truncation, "counts": counts, "waits": waits}
        return (prediction for block in self._features(several, options) for prediction in self._outputs(*block))

    def _checked(self, inputs: Iterable[Any]) -> Iterator[Any]:
        """Return the inputs, of which each is checked when it is read."""

        def with_as_many_texts() -> Iterator[Any]:
            for item in inputs:
                if isinstance(item, str) == (self.texts_each == 2):
                    needed = "two texts" if self.texts_each == 2 else "one text"
                    raise UsageError(f"the head {self.config.task!r} reads {needed} an input")
                yield item

        return arguments.pairs_of(with_as_many_texts(), "inputs") if self.texts_each == 2 else with_as_many_texts()

    def _features(
        self, inputs: Iterator[Any], options: dict[str, Any]
    ) -> Iterator[tuple[FloatArray, FloatArray | None]]:
        """Yield what the head reads, (block, features), and the cosines of a siamese head, (block,), by blocks of inputs."""
        scale = np.float32(math.sqrt(self.config.dimension))
        if self.config.structure == "single":
            yield from ((vectors * scale, None) for vectors in self.embedder.encode_stream(inputs, **options))
        elif self.config.structure == "pair":
            yield from ((vectors * scale, None) for vectors in self.embedder.encode_pairs_stream(inputs, **options))
        elif self.config.structure == "pair+siamese":
            yield from ((features, None) for features in self._of_pairs_and_texts(inputs, scale, options))
        else:
            texts = (text for pair in inputs for text in pair)
            rest = np.empty((0, self.embedder.dimension), np.float32)
            for window in self.embedder.encode_stream(texts, **options):
                vectors = np.concatenate([rest, window])
                whole = len(vectors) // 2 * 2  # the first text of a pair may end a window
                rest = vectors[whole:]
                u, v = vectors[0:whole:2], vectors[1:whole:2]
                yield siamese_features(u * scale, v * scale), as_cosines(np.sum(u * v, axis=1))

    def _of_pairs_and_texts(
        self, pairs: Iterator[Any], scale: np.float32, options: dict[str, Any]
    ) -> Iterator[FloatArray]:
        """Yield the vectors of pairs as one input beside the Siamese features of their texts, (block, 5 dim)."""
        read: deque[tuple[str, str]] = deque()  # pairs whose vectors have not come yet

        def remembered() -> Iterator[tuple[str, str]]:
            for pair in pairs:
                read.append(pair)
                yield pair

        own: dict[str, Any] = {name: options[name] for name in ("batch_size", "truncation")}
        own |= {"warn_of_unknown": False, "warn_of_cut": False}  # the pairs are reported
        for x in self.embedder.encode_pairs_stream(remembered(), **options):
            texts = (text for pair in [read.popleft() for _ in x] for text in pair)
            vectors = np.concatenate(list(self.embedder.encode_stream(texts, **own))) * scale
            yield np.concatenate([x * scale, siamese_features(vectors[0::2], vectors[1::2])], axis=-1)

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
        if not np.isfinite(z).all():
            raise CorruptModelError(f"the head {config.task!r} gave NaN or infinity: its weights overflow")
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
