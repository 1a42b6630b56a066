"""The audit of a model: associations against a model that has them by construction, hubness against its definition."""

import numpy as np
import pytest

from sbert_mini.errors import UsageError
from sbert_mini.evaluation import audit
from sbert_mini.evaluation.tables import TABLES


class Leaning:
    """Encodes sentences of women and of occupations held by women alike, the others otherwise."""

    model_name = "leaning"

    def encode(self, texts):
        words = {
            "she",
            "woman",
            "her",
            *audit.WOMENS,
            *(w for t in audit.PLEASANT for w in t.lower().strip(".").split()),
        }
        first = [bool(words & set(text.lower().strip(".").split())) for text in texts]
        return np.array([[1.0, 0.0] if x else [0.0, 1.0] for x in first], np.float32)


def test_a_model_that_has_associations_shows_them():
    found = audit.audit(Leaning())
    occupations = found["associations"]["occupations"]
    assert occupations["effect_size"] > 1.5
    assert occupations["she_minus_he"]["nurse"] > 0 > occupations["she_minus_he"]["engineer"]
    assert found["hubness"] is None
    tables = TABLES["audit"](found)
    assert [table.title for table in tables] == ["leaning: occupations", "leaning: groups"]
    assert tables[0].rows[0][1].startswith("+")


def test_hubness_counts_who_is_a_neighbour_of_whom():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table = vectors @ vectors.T
    np.fill_diagonal(table, -9)
    counts = np.bincount(np.argsort(-table, axis=1)[:, :10].ravel(), minlength=60)
    found = audit.hubness_of(vectors)
    assert found["greatest"] == counts.max()
    assert found["never"] == np.mean(counts == 0)
    assert found["skewness"] == pytest.approx(np.mean((counts - 10) ** 3) / counts.std() ** 3)
    with pytest.raises(UsageError, match="more than 10 distinct texts; found 9"):
        audit.hubness_of(vectors[:9])


def test_the_command_audits_a_model_by_name(sbmini_here, make_model):
    path = make_model(seed=3)
    done = sbmini_here("bench", "audit", "-m", path, "--json", "--offline", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert '"she_minus_he"' in done.stdout
