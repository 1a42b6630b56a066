"""scikit-learn: texts -> vectors as a step of a pipeline."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.errors import MissingExtraError, UsageError
from sbert_mini.runtime import arguments
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.shapes import FloatArray

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise MissingExtraError("the adapter for scikit-learn", "scikit-learn", "bench") from error


class SbertMiniVectorizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Sentence vectors as features. Nothing is learned: `fit` opens the model.

    Args:
        model: a name or a directory; None for the default model.
        truncate_dim: components to keep; None for all.
        prompt: put before each text; None for the model's own one.
        batch_size: texts that are computed together.
        threads: see `Embedder`.

    Attributes:
        embedder_: the open model. A pickle holds its directory and fingerprint, not its weights.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        truncate_dim: int | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        threads: int | None = None,
    ) -> None:
        self.model = model
        self.truncate_dim = truncate_dim
        self.prompt = prompt
        self.batch_size = batch_size
        self.threads = threads

    def fit(self, X: Any, y: Any = None) -> "SbertMiniVectorizer":  # noqa: ARG002, N803
        """Open the model, and return this.

        Raises:
            UsageError: `X` does not hold texts.
        """
        texts_in(X)
        self.embedder_ = Embedder(self.model, threads=self.threads)
        return self

    def transform(self, X: Any) -> FloatArray:  # noqa: N803
        """Return the vectors of texts: a list, an array or a column, or a frame or an array of one column.

        Shapes: the result: (texts, dim).

        Raises:
            UsageError: `X` does not hold texts.
        """
        check_is_fitted(self)
        return self.embedder_.encode(
            texts_in(X), truncate_dim=self.truncate_dim, prompt=self.prompt, batch_size=self.batch_size
        )

    @property
    def _n_features_out(self) -> int:
        """How many features there are: the base class names them."""
        return self.embedder_.dimension if self.truncate_dim is None else self.truncate_dim

    def __sklearn_tags__(self) -> Any:
        """Return that the input is texts in one dimension, and that nothing is learned."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        tags.requires_fit, tags.target_tags.required = True, False
        return tags


def texts_in(value: Any) -> Iterable[str]:
    """Return the texts of a list, an array or a column, or of a frame or an array of one column.

    Raises:
        UsageError: it holds no texts, or several columns.
    """
    if getattr(value, "ndim", 1) == 2:
        table = np.asarray(value, dtype=object)
        if table.shape[1] != 1:
            raise UsageError(f"X must have one column of texts; found {table.shape[1]} columns")
        value = table[:, 0]
    return arguments.texts_of(value, "X")
