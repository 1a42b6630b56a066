"""Recipes: what is read, and the line of what is wrong."""

import json
import re
from pathlib import Path

import pytest
from recipe_folder import TOML

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
        (
            "steps = 10",
            "steps = 10\n[optimizer]\nlearning_rate = 1" + "0" * 400,
            "learning_rate is too large: a number of 401 digits",
        ),
        (
            "steps = 10",
            "steps = 10\n[optimizer]\nwarmup = 100",
            "line 7: optimizer.warmup must be at most 1; found 100",
        ),
        ("steps = 10", "steps = 0", "line 5: train.steps must be at least 1; found 0"),
        ("steps = 10", 'steps = "10"', "line 5: train.steps must be a whole number; found '10'"),
        ("steps = 10", "steps = true", "line 5: train.steps must be a whole number; found true"),
        ("steps = 10", "", "line 4: train.steps or train.epochs is needed"),
        ("steps = 10", "steps = 10\nepochs = 2", "line 4: train.steps or train.epochs is needed"),
        ("steps = 10", 'steps = 10\nsurgery = "pcgard"', "(did you mean pcgrad?)"),
        ("steps = 10", 'steps = 10\nsurgery = "torchjd:upgrad"', "(did you mean torchjd:UPGrad?)"),
        (
            "steps = 10",
            'steps = 10\nsurgery = "torchjd:NashMTL"',
            "line 6: train.surgery: torchjd:NashMTL cannot be used here",
        ),
        (
            "steps = 10",
            "steps = 10\nbatch_size = 6",
            "line 6: train.batch_size: 6 examples cannot hold floor = 4",
        ),
        ('output = "out"', "", "line 1: model.output is missing"),
        (
            "[train]",
            "dropout = 0\n[regularization]\nr_drop = 1.0\n[train]",
            "model.dropout is 0, and R-Drop (regularization.r_drop) compares two dropout masks",
        ),
        ("[model]", "[models]", "line 1: there is no table or key 'models' (did you mean model?)"),
        ('name = "two"', 'name = "one"', "line 14: task.name: two tasks are called 'one'"),
        ('structure = "siamese"', 'structure = "siames"', "line 15: task.structure must be one of single, siamese"),
        ('dev = "c.csv"', "dev = 3", "line 18: task.dev must be a string or a list of strings; found 3"),
        ('rule = "scheduled"', 'role = "scheduled"', "line 21: there is no key task.margin.role (did you mean rule?)"),
        ('train = "a.csv"', "", "line 7: task.train is missing"),
        ("[[task]]", "[task]", "not TOML"),
        ('loss = "cross-entropy"', 'loss = "hinge"', "line 10: task.loss must be one of cross-entropy, regression"),
        ('loss = "cross-entropy"', 'loss = "cosent"', "line 10: task.loss: cosent is for the structures siamese"),
        (
            'dev = "c.csv"',
            'dev = "c.csv"\nmetric = "accuracy"',
            "has pearson, spearman, average_precision; found 'accuracy'",
        ),
        ('dev = "c.csv"', "head_dropout = 1.5", "line 18: task.head_dropout must be at most 0.95; found 1.5"),
        ('train = "a.csv"', "train = []", "line 11: task.train names no file"),
        ("steps = 10", "epochs = inf", "line 5: train.epochs must be finite"),
        ('name = "two"', 'name = "my task"', "line 14: task.name must be 1 to 200 letters"),
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


TASK = TOML[TOML.index("[[task]]") :]


HEAD = TOML[: TOML.index("[[task]]")]


FROZEN = '[[phase]]\nencoder = "frozen"\nsteps = 2\n'


def refused(folder, text):
    """Return the error of a recipe, without the file's name."""
    (folder / "r.toml").write_text(text)
    with pytest.raises(UsageError) as error:
        read_recipe(folder / "r.toml")
    return str(error.value).removeprefix(f"{folder / 'r.toml'}, ")


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("[train]\nsteps = 2\nbatch_size = 16\nlog_every = 1\n", "", "line 1: [train] must be a table"),
        ("[[task]]", "[task]", "line 8: [[task]] is written with two brackets"),
        (TASK, "", "line 1: at least one [[task]] is needed (with two brackets)"),
        ("[[task]]", "[data]\nevaluation = 's'\ndrop_evaluation = ['sts12', 'sts1']\n[[task]]",
         "line 10: data.drop_evaluation: there is no set 'sts1' (did you mean sts1"),
        ("[[task]]", "[evaluation]\npatience = 2\n[[task]]", "line 9: evaluation.patience needs a task with a dev file"),
        ("high = 4.0", "high = 4.0\ntext = ['a']", "line 15: task.text: the structure siamese has 2 columns of text; found 1"),
        ("high = 4.0", "high = 4.0\ntrust_tokenizer = true", "line 15: task.trust_tokenizer is for a teacher's"),
        ("high = 4.0", "high = 4.0\nmetric = 'spearman'", "line 15: task.metric needs task.dev"),
        ("high = 4.0", "high = 4.0\n[task.margin]\nvalue = 0.3", "task.margin is for the loss cosine-embedding; found cosent"),
        ("high = 4.0", "high = 4.0\n[regularization]\nsmart = 1.0\ntasks = ['u']",
         "line 17: regularization.tasks: there is no task 'u'"),
    ],
)  # fmt: skip
def test_what_a_recipe_lacks_or_mistakes_is_named(tmp_path, old, new, text):
    changed = TOML.replace(old, new)
    assert changed != TOML
    if text.endswith("[train] must be a table"):
        changed = "train = 2\n" + changed
    assert text in refused(tmp_path, changed)


def test_where_all_phases_are_frozen_what_is_for_the_encoder_is_refused(tmp_path):
    """One frozen phase leaves such tables out, for a later one."""
    text = HEAD.replace("steps = 2\n", "") + TASK.replace('"cosent"', '"regression"') + FROZEN
    (tmp_path / "r.toml").write_text(text)
    assert len(read_recipe(tmp_path / "r.toml").phases) == 1
    said = refused(tmp_path, text + "[lora]\nrank = 2\n")
    assert said == "line 17: lora needs an encoder that is trained, and it is frozen"
    (tmp_path / "r.toml").write_text(text + '[[phase]]\nencoder = "trained"\nsteps = 2\n[lora]\nrank = 2\n')
    assert [part.lora is None for part in read_recipe(tmp_path / "r.toml").in_phases()] == [True, False]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"the recipe .*gone\.toml cannot be read: No such file"):
        read_recipe(tmp_path / "gone.toml")
    (tmp_path / "r.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(UsageError, match=r"the recipe .*r\.toml cannot be read: .*0xe9 in position 5"):
        read_recipe(tmp_path / "r.toml")


def test_another_surgery_is_noted_in_the_text_of_the_recipe(tmp_path):
    (tmp_path / "r.toml").write_text(GOOD)
    recipe = read_recipe(tmp_path / "r.toml").with_surgery("torchjd:PCD")
    assert recipe.fitter().surgery == "torchjd:PCD"
    assert recipe.text == f"{GOOD.rstrip()}\n# train.surgery was replaced by torchjd:PCD\n"
    with pytest.raises(UsageError, match=r"train.surgery must be one of .* .did you mean torchjd:PCD"):
        recipe.with_surgery("torchjd:PCC")
