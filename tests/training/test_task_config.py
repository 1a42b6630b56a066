"""The rules of a task: what `TaskConfig` refuses, a recipe refuses with the same words after its file and line."""

import re
import subprocess
import sys

import pytest

from sbert_mini.errors import UsageError
from sbert_mini.recipes.reader import read_recipe
from sbert_mini.training.task_config import LOSSES, STRUCTURES, TaskConfig

RULES = [
    ({"name": "a b"}, "task.name must be 1 to 200 letters, digits, - and _"),
    ({"name": "a" * 201}, "task.name must be 1 to 200 letters, digits, - and _"),
    ({"name": "train_a"}, "must not begin with train_; found 'train_a'"),
    (
        {"structure": "siames"},
        "task.structure must be one of single, siamese, triplet, pair, pair+siamese; found 'siames'",
    ),
    ({"loss": "hinge"}, "task.loss must be one of cross-entropy, regression"),
    ({"loss": "triplet"}, "task.loss: triplet is for the structures triplet; found 'siamese'"),
    (
        {"metric": "accuracy"},
        "task.metric: a task of the loss cosent has pearson, spearman, average_precision; found 'accuracy'",
    ),
    ({"labels": ("a", "b", "a")}, "task.labels: 'a' is named twice"),
    ({"label_shares": (0.5, 0.5)}, "task.label_shares is for the loss cross-entropy; found cosent"),
    ({"loss": "cross-entropy", "label_shares": (0.5, 0.6)}, "must be above 0, and 1 together; found [0.5, 0.6]"),
    ({"low": 5.0, "high": 5.0}, "task.high must be above task.low = 5.0; found 5.0"),
    ({"low": float("nan")}, "task.low must be finite; found nan"),
    ({"positive": float("inf")}, "task.positive must be finite; found inf"),
    ({"hidden": -1}, "task.hidden must be at least 0; found -1"),
    ({"head_dropout": 1.5}, "task.head_dropout must be at most 0.95; found 1.5"),
    ({"head_dropout": -0.5}, "task.head_dropout must be at least 0; found -0.5"),
    ({"weight": -1.0}, "task.weight must be at least 0; found -1.0"),
    ({"scale": -1.0}, "task.scale must be at least 0; found -1.0"),
    ({"triplet_margin": -1.0}, "task.triplet_margin must be at least 0; found -1.0"),
    ({"mini_batch_size": 0}, "task.mini_batch_size must be at least 1; found 0"),
    ({"vector_weight": -1.0}, "task.vector_weight must be at least 0; found -1.0"),
    ({"similarity_weight": -1.0}, "task.similarity_weight must be at least 0; found -1.0"),
    ({"dimensions": (0,)}, "task.dimensions are at least 1, and for the losses"),
    ({"loss": "cross-entropy", "dimensions": (4,)}, "found [4] for cross-entropy"),
    ({"adapter_size": 10}, "task.adapter_size: it must be a multiple of adapter_heads = 4, and the task have a head"),
    ({"loss": "multiple-negatives-ranking", "adapter_size": 8}, "found 8 for multiple-negatives-ranking"),
    ({"adapter_size": -4}, "task.adapter_size must be at least 0; found -4"),
    ({"adapter_heads": 0}, "task.adapter_heads must be at least 1; found 0"),
]


def toml(value):
    """Return a value as TOML has it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


@pytest.mark.parametrize(("changed", "text"), RULES)
def test_the_python_api_and_a_recipe_refuse_alike(tmp_path, changed, text):
    given = {"name": "t", "structure": "siamese", "loss": "cosent", **changed}
    with pytest.raises(UsageError, match=re.escape(text)) as by_python:
        TaskConfig(**given)
    assert by_python.value.parameter in changed
    keys = "".join(f"{key} = {toml(value)}\n" for key, value in given.items())
    file = tmp_path / "r.toml"
    file.write_text(f'[model]\noutput = "out"\n[train]\nsteps = 1\n[[task]]\ntrain = "a.csv"\ndev = "b.csv"\n{keys}')
    line = 8 + list(given).index(by_python.value.parameter)
    with pytest.raises(UsageError) as by_recipe:
        read_recipe(file)
    assert str(by_recipe.value).startswith(f"{file}, line {line}: {by_python.value}")


def test_every_row_of_the_table_makes_a_task():
    for loss, spec in LOSSES.items():
        for structure in spec.structures:
            assert structure in STRUCTURES
            config = TaskConfig("t", structure, loss)
            assert config.has_dev_figure is (bool(spec.metrics) and structure not in spec.unmeasured)
            assert config.main_metric == (spec.metrics[0] if spec.metrics else "none")


def test_the_rules_need_no_torch():
    code = "import sys, sbert_mini.training.task_config, sbert_mini.recipes.recipe; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
