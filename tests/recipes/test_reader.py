"""Recipes: what is read, and the line of what is wrong."""

import json
import re
from pathlib import Path

import pytest

from sbert_mini.errors import UsageError
from sbert_mini.recipes.reader import read_recipe

GOOD = """[model]
output = "out"

[train]
steps = 10

[[task]]
name = "one"
structure = "single"
loss = "cross-entropy"
train = "a.csv"

[[task]]
name = "two"
structure = "siamese"
loss = "cosine-embedding"
train = ["a.csv", "b.csv"]
dev = "c.csv"

[task.margin]
rule = "scheduled"
"""


def test_a_recipe_is_read(tmp_path):
    (tmp_path / "r.toml").write_text(GOOD)
    recipe = read_recipe(tmp_path / "r.toml")
    assert (recipe.train.steps, recipe.train.surgery, recipe.model.start) == (10, "pcgrad", "sbert-mini")
    one, two = recipe.tasks
    assert (one.text_columns(), two.text_columns()) == (["text"], ["sentence1", "sentence2"])
    assert (two.files("train"), two.margin.rule, one.margin) == (["a.csv", "b.csv"], "scheduled", None)
    assert recipe.resolve("x.csv") == tmp_path / "x.csv"
    json.dumps(recipe.to_json())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("steps = 10", "stepz = 10", "line 5: there is no key train.stepz (did you mean steps?)"),
        ("steps = 10", "steps = 0", "line 5: train.steps must be at least 1; found 0"),
        ("steps = 10", 'steps = "10"', "line 5: train.steps must be a whole number; found '10'"),
        ("steps = 10", "steps = true", "line 5: train.steps must be a whole number; found true"),
        ("steps = 10", "", "line 4: train.steps or train.epochs is needed"),
        ("steps = 10", "steps = 10\nepochs = 2", "line 4: train.steps or train.epochs is needed"),
        ("steps = 10", 'steps = 10\nsurgery = "pcgard"', "(did you mean pcgrad?)"),
        (
            "steps = 10",
            "steps = 10\nbatch_size = 6",
            "line 6: train.batch_size: 6 examples cannot hold floor = 4",
        ),
        ('output = "out"', "", "line 1: model.output is missing"),
        ("[model]", "[models]", "line 1: there is no table or key 'models' (did you mean model?)"),
        ('name = "two"', 'name = "one"', "line 14: task.name: two tasks are called 'one'"),
        ('structure = "siamese"', 'structure = "siames"', "line 15: task.structure must be one of single, siamese"),
        ('dev = "c.csv"', "dev = 3", "line 18: task.dev must be a string or a list of strings; found 3"),
        ('rule = "scheduled"', 'role = "scheduled"', "line 21: there is no key task.margin.role (did you mean rule?)"),
        ('train = "a.csv"', "", "line 7: task.train is missing"),
        ("[[task]]", "[task]", "not TOML"),
        ('loss = "cross-entropy"', 'loss = "hinge"', "line 10: task.loss must be one of cross-entropy, regression"),
        ('loss = "cross-entropy"', 'loss = "cosent"', "line 10: task.loss: cosent is for the structures siamese"),
        ('dev = "c.csv"', 'dev = "c.csv"\nmetric = "accuracy"', "has pearson, spearman; found 'accuracy'"),
        ('dev = "c.csv"', "head_dropout = 1.5", "line 18: task.head_dropout must be at most 0.95; found 1.5"),
        ('train = "a.csv"', "train = []", "line 11: task.train names no file"),
        ("steps = 10", "epochs = inf", "line 5: train.epochs must be finite"),
        ('name = "two"', 'name = "my task"', "line 14: task.name is made of letters"),
        (
            'rule = "scheduled"',
            'rule = "fixed"\nvalue = 5.0',
            "line 22: task.margin.value must be at most 1; found 5.0",
        ),
        ('dev = "c.csv"', 'labels = ["a", "b", "a"]', "line 18: task.labels: 'a' is named twice"),
        ("steps = 10", "steps = 10\nsave_every = 3", "line 6: train.save_every is for runs without a dev file"),
        ("steps = 10", "epochs = 0", "line 5: train.epochs must be at least 0.001; found 0"),
        (
            "steps = 10",
            "steps = 10\n[data]\ndrop_evaluation = true",
            "line 7: data.drop_evaluation needs data.evaluation",
        ),
        ("steps = 10", "steps = = 10", "not TOML"),
    ],
)
def test_a_mistake_in_a_recipe_is_named_with_its_line(tmp_path, old, new, said):
    (tmp_path / "r.toml").write_text(GOOD.replace(old, new, 1))
    with pytest.raises(UsageError, match=re.escape(said)):
        read_recipe(tmp_path / "r.toml")


def test_environment_variables_in_paths(tmp_path, monkeypatch):
    (tmp_path / "r.toml").write_text('[data]\nfolder = "$SBMINI_TEST_FOLDER/x"\n' + GOOD)
    recipe = read_recipe(tmp_path / "r.toml")
    with pytest.raises(UsageError, match="names the environment variable SBMINI_TEST_FOLDER, which is not set"):
        recipe.resolve("a.csv")
    monkeypatch.setenv("SBMINI_TEST_FOLDER", "/there")
    assert recipe.resolve("a.csv") == Path("/there/x/a.csv")
    assert recipe.resolve("a.csv", in_data=False) == tmp_path / "a.csv"


def test_every_recipe_that_ships_is_sound():
    folder = Path(__file__).parents[2] / "sbert_mini" / "examples" / "recipes"
    files = sorted(folder.glob("*.toml"))
    assert len(files) >= 6
    for file in files:
        recipe = read_recipe(file)
        assert file.read_text("utf-8").startswith("# ")
        assert recipe.tasks
