"""The plugin of llm."""

import pytest

pytest.importorskip("llm")

import llm
from blocks import PAGE

from sbert_mini import Embedder
from sbert_mini.integrations import llm as plugin


@pytest.fixture
def registered():
    llm.get_embedding_models()  # loads the plugins that are installed
    if not any(found is plugin for found in llm.plugins.pm.get_plugins()):
        llm.plugins.pm.register(plugin)


def test_models_are_found_by_their_names(registered):
    expected = Embedder(threads=1).embed_documents(["a dog", "a cat"])
    model = llm.get_embedding_model("sbert-mini")
    assert list(model.embed_multi(["a dog", "a cat"])) == expected
    assert list(model.embed("a dog")) == expected[0]
    assert {"sbert-mini", "sbert-mini-fast"} <= {model.model_id for model in llm.get_embedding_models()}


def test_the_entry_point_is_the_plugin():
    settings = (PAGE.parents[1] / "pyproject.toml").read_text("utf-8")
    assert '[project.entry-points.llm]\nsbert_mini = "sbert_mini.integrations.llm"' in settings
