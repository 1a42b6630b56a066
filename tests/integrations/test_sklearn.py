"""The vectorizer by scikit-learn's own checks, and in its pipelines."""

import pickle
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from blocks import PAGE, run_block
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator

from sbert_mini.errors import UsageError
from sbert_mini.integrations.sklearn import SbertMiniVectorizer

TEXTS = ["a dog runs", "a cat sleeps", "rain falls", "it snows"]


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_valid_tag_types,
    ],
)
def test_a_check_that_applies(check):
    """Those that need no numbers; `check_estimator` leaves them out for an estimator of texts."""
    check("SbertMiniVectorizer", SbertMiniVectorizer())


def test_the_checks_that_the_library_selects():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)
        results = check_estimator(SbertMiniVectorizer(threads=1), on_fail=None)
    assert "failed" not in {result["status"] for result in results}


def test_vectors_names_and_frames(default_embedder):
    expected = default_embedder.encode(TEXTS, truncate_dim=8)
    vectorizer = SbertMiniVectorizer(truncate_dim=8, threads=2)
    with pytest.raises(NotFittedError):
        vectorizer.transform(TEXTS)
    for form in (TEXTS, np.array(TEXTS), pd.Series(TEXTS), pd.DataFrame({"text": TEXTS}), np.array(TEXTS)[:, None]):
        np.testing.assert_array_equal(vectorizer.fit_transform(form), expected)
    frame = vectorizer.set_output(transform="pandas").transform(pd.Series(TEXTS, index=list("wxyz")))
    assert (
        list(frame.columns) == list(vectorizer.get_feature_names_out()) == [f"sbertminivectorizer{i}" for i in range(8)]
    )
    assert list(frame.index) == list("wxyz")
    for wrong, said in ((pd.DataFrame({"a": TEXTS, "b": TEXTS}), "found 2 columns"), ("a dog", "one string")):
        with pytest.raises(UsageError, match=said):
            vectorizer.transform(wrong)


def test_pipelines_clones_and_pickles():
    labels = [0, 0, 1, 1]
    pipeline = make_pipeline(SbertMiniVectorizer(threads=1), LogisticRegression(C=100))
    assert pipeline.fit(TEXTS, labels).score(TEXTS, labels) == 1
    again = pickle.loads(pickle.dumps(pipeline))  # noqa: S301
    np.testing.assert_array_equal(again.predict(TEXTS), pipeline.predict(TEXTS))
    copied = clone(pipeline)
    assert not hasattr(copied[0], "embedder_")
    assert copied[0].get_params() == pipeline[0].get_params()
    columns = ColumnTransformer(
        [("t", SbertMiniVectorizer(truncate_dim=8, threads=1), "text")], remainder="passthrough"
    )
    assert columns.fit_transform(pd.DataFrame({"text": TEXTS, "n": [1, 2, 3, 4]})).shape == (4, 9)


def test_the_blocks_of_the_documents(tmp_path):
    assert "'wet'" in run_block("integrations.sklearn", tmp_path)
    assert "Yeast" in run_block("duckdb", tmp_path)


def test_every_adapter_that_is_shown_exists():
    shown = set(re.findall(r"sbert_mini\.integrations\.(\w+)", PAGE.read_text("utf-8")))
    there = {path.stem for path in (PAGE.parents[1] / "sbert_mini" / "integrations").glob("[a-z]*.py")}
    assert shown == there


def test_no_adapter_imports_torch():
    for path in (PAGE.parents[1] / "sbert_mini" / "integrations").glob("*.py"):
        assert not re.search(r"import (torch|transformers|sentence_transformers)", path.read_text("utf-8"))
