"""Rows are added with the index's own model; another one is refused, and nothing changes."""

import pytest
from conftest import one_error

from sbert_mini import SearchIndex


def test_an_index_of_another_model_than_the_default(sbmini_here, converted_model, tmp_path):
    own, other = converted_model(seed=1), converted_model(seed=2)
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "text": "the cat"}\n')
    (tmp_path / "more.jsonl").write_text('{"id": "b", "text": "a dog"}\n')
    assert sbmini_here("index", "create", "i", "-i", "rows.jsonl", "-m", own).returncode == 0
    for verb in ("add", "update"):
        one_error(sbmini_here("index", verb, "i", "-i", "more.jsonl", "-m", other), 1, str(own), str(other))
    assert [row.id for row in SearchIndex(tmp_path / "i").rows()] == ["a"]
    assert sbmini_here("index", "add", "i", "-i", "more.jsonl").returncode == 0
    assert sbmini_here("index", "update", "i", "-i", "more.jsonl", "-m", own).returncode == 0
    index = SearchIndex(tmp_path / "i")
    assert [row.id for row in index.rows()] == ["a", "b"]
    assert index.search("a dog", k=1)[0].cosine == pytest.approx(1, abs=1e-6)
