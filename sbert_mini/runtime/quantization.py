"""Fixed int8 scales for the inputs of an encoder's matrix products, from the texts of a small calibration set.

For each product `Y = X W` the candidates are combinations of

* a smoothing strength α: channel c of X is divided, and row c of W multiplied, by `s_c = max|X_c|^α / max|W_c|^(1-α)`
  (Xiao et al. 2022, SmoothQuant, arXiv 2211.10438, equation 4; here α is chosen for each product), and
* a clipping ratio of the range seen in calibration (outliers of a few tokens, such as BERT's [SEP], otherwise set the
  step for all),

and the one with the smallest mean squared error of `Y` is taken. The scales are the same for every later input, so a
text's vector does not depend on its batch, which ONNX Runtime's own dynamic scales (one a tensor and run) do.
"""

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from sbert_mini.runtime.graph import INPUTS, SENTENCE, ActivationScale, product_names, quantize_columns
from sbert_mini.shapes import FloatArray
from sbert_mini.text.batching import pad
from sbert_mini.text.tokenizer import TextTokenizer

STRENGTHS = (0.0, 0.5, 0.65, 0.8)
CLIPS = (1.0, 0.85, 0.7, 0.55)
SAMPLED_ROWS = 2048
LONG_TEXTS = 6


def calibration_texts() -> list[str]:
    """Return the texts of the collection that travels with the package: passages, their titles, and a few long joins."""
    lines = files("sbert_mini.examples").joinpath("collection.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    texts = [row["text"] for row in rows] + [row["title"] for row in rows[::2]]
    every = len(rows) // LONG_TEXTS
    return texts + [" ".join(row["text"] for row in rows[i * every : (i + 1) * every]) for i in range(LONG_TEXTS)]


class Activations:
    """What calibration keeps of one product's input: each channel's range over all tokens, and a sample of tokens.

    Args:
        every: which tokens are sampled: a text's first, each one so many later, and its last. The first and last ([CLS],
            [SEP]) carry the outliers, and come in their true share or more.
    """

    def __init__(self, every: int = 1) -> None:
        self.low: FloatArray | float = np.inf
        self.high: FloatArray | float = -np.inf
        self._every = every
        self._sampled: list[FloatArray] = []

    def add(self, rows: FloatArray) -> None:
        """Add a text's tokens, (seq, in_features)."""
        self.low = np.minimum(self.low, rows.min(axis=0))
        self.high = np.maximum(self.high, rows.max(axis=0))
        self._sampled.append(rows[np.r_[0 : len(rows) : self._every, len(rows) - 1]])

    @property
    def sample(self) -> FloatArray:
        """The sampled tokens, (tokens, in_features)."""
        return np.concatenate(self._sampled)


def collect(
    session: Any, tokenizer: TextTokenizer, texts: Sequence[str], layers: int
) -> tuple[dict[str, Activations], FloatArray]:
    """Return what the float32 graph (built with `expose=True`) feeds into each product for the texts, and their vectors.

    Shapes:
        the vectors: (texts, dim).
    """
    names = product_names(layers)
    encoded = tokenizer.encode(texts)
    every = max(sum(len(tokens.ids) for tokens in encoded) // SAMPLED_ROWS, 1)
    seen = {name: Activations(every) for name in names}
    vectors = []
    for tokens in encoded:
        arrays = pad([tokens], tokenizer.pad_id)
        *values, sentence = session.run([*names, SENTENCE], dict(zip(INPUTS, arrays, strict=True)))
        for name, value in zip(names, values, strict=True):
            seen[name].add(value[0])
        vectors.append(sentence[0])
    return seen, np.stack(vectors)


def choose_scale(seen: Activations, weight: FloatArray) -> ActivationScale:
    """Return the scale, among all `STRENGTHS` and `CLIPS`, with the smallest squared error of the product.

    Shapes:
        weight: (in_features, out_features).
    """
    sample = seen.sample
    exact = sample @ weight
    largest = np.maximum(np.maximum(np.negative(seen.low), seen.high), 1e-5)
    rows = np.maximum(np.abs(weight).max(axis=1), 1e-5)
    best, best_error = ActivationScale(1.0, 0), np.inf
    for strength in STRENGTHS:
        smooth = (largest**strength / rows ** (1 - strength)).astype(np.float32) if strength else None
        if smooth is not None:
            smooth = (smooth / np.exp(np.log(smooth).mean())).astype(np.float32)
        factor = np.float32(1) if smooth is None else smooth
        x = sample / factor
        low, high = float(np.min(seen.low / factor)), float(np.max(seen.high / factor))
        q, column_scale = quantize_columns(weight if smooth is None else weight * smooth[:, None])
        approximate_weight = q * column_scale
        for clip in CLIPS:
            reach = clip * max(-low, high)
            bottom, top = min(max(low, -reach), 0.0), max(min(high, reach), 0.0)
            scale = max((top - bottom) / 255, 1e-8)
            zero_point = int(np.clip(round(-bottom / scale), 0, 255))
            approximate = (np.clip(np.rint(x / scale) + zero_point, 0, 255) - zero_point) * scale
            error = float(np.square(approximate @ approximate_weight - exact).mean())
            if error < best_error:
                best, best_error = ActivationScale(scale, zero_point, smooth), error
    return best
