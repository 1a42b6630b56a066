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

from sbert_mini.runtime.graph import INPUTS, ActivationScale, product_names, quantize_columns
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


class _Activations:
    """What calibration keeps of one product's input: each channel's range over all tokens, and a sample of tokens."""

    def __init__(self, rows: Sequence[FloatArray]) -> None:
        self.low = np.min([row.min(axis=0) for row in rows], axis=0)
        self.high = np.max([row.max(axis=0) for row in rows], axis=0)
        total = sum(len(row) for row in rows)
        every = max(total // SAMPLED_ROWS, 1)
        # Every text's first and last token ([CLS], [SEP]) carry the outliers: they come in their true share or more.
        self.sample = np.concatenate([row[np.r_[0 : len(row) : every, len(row) - 1]] for row in rows])


def collect(session: Any, tokenizer: TextTokenizer, texts: Sequence[str], layers: int) -> dict[str, _Activations]:
    """Return what the float32 graph (built with `expose=True`) feeds into each product for the texts."""
    names = product_names(layers)
    rows: dict[str, list[FloatArray]] = {name: [] for name in names}
    for tokens in tokenizer.encode(texts):
        arrays = pad([tokens], tokenizer.pad_id)
        for name, value in zip(names, session.run(names, dict(zip(INPUTS, arrays, strict=True))), strict=True):
            rows[name].append(value[0])
    return {name: _Activations(kept) for name, kept in rows.items()}


def choose_scale(seen: _Activations, weight: FloatArray) -> ActivationScale:
    """Return the scale, among all `STRENGTHS` and `CLIPS`, with the smallest squared error of the product.

    Shapes:
        weight: (in_features, out_features).
    """
    exact = seen.sample @ weight
    largest = np.maximum(np.maximum(-seen.low, seen.high), 1e-5)
    rows = np.maximum(np.abs(weight).max(axis=1), 1e-5)
    best, best_error = ActivationScale(1.0, 0), np.inf
    for strength in STRENGTHS:
        smooth = (largest**strength / rows ** (1 - strength)).astype(np.float32) if strength else None
        if smooth is not None:
            smooth = (smooth / np.exp(np.log(smooth).mean())).astype(np.float32)
        factor = np.float32(1) if smooth is None else smooth
        x = seen.sample / factor
        low, high = float((seen.low / factor).min()), float((seen.high / factor).max())
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
