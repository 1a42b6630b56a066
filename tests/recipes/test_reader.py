"""Recipes that cannot be read, or ask for what does not fit, are refused with their line."""

import pytest
from recipe_folder import TOML

from sbert_mini.errors import UsageError
from sbert_mini.recipes.reader import read_recipe

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
