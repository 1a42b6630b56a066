"""Names of recipes and models in them: built-in ones win over what lies in a folder, and ./NAME is a path."""

import pytest

from sbert_mini.errors import UsageError
from sbert_mini.recipes.plan import prepare
from sbert_mini.recipes.reader import read_recipe
from sbert_mini.recipes.recipe import built_in, find_recipe
from sbert_mini.recipes.run_folder import _differences

RECIPE = (
    '[model]\nstart = "sbert-mini"\noutput = "out"\n[train]\nsteps = 2\nbatch_size = 4\n[[task]]\nname = "t"\n'
    'structure = "siamese"\nloss = "cosent"\ntrain = "train.tsv"\nlabel = "score"\n'
)


def test_a_built_in_name_wins_and_a_path_is_a_path(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    assert find_recipe("paraphrase") == built_in()["paraphrase"]
    assert caplog.text == ""
    (tmp_path / "paraphrase").write_text(RECIPE)
    assert find_recipe("paraphrase") == built_in()["paraphrase"]
    assert "paraphrase is the built-in recipe; ./paraphrase means what lies here under that name" in caplog.text
    assert find_recipe("./paraphrase").read_text() == RECIPE
    with pytest.raises(
        UsageError, match=r"no recipe 'paraphrases': it is no file, and not one of .*multitask, paraphrase"
    ):
        find_recipe("paraphrases")
    with pytest.raises(UsageError, match="it is a folder"):
        find_recipe(str(tmp_path))


def test_the_paths_of_a_built_in_recipe_are_those_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = read_recipe(find_recipe("paraphrase"))
    assert recipe.resolve("train.csv") == tmp_path / "train.csv"
    assert recipe.resolve(recipe.model.output, in_data=False) == tmp_path / "paraphrase-model"


def test_a_folder_beside_the_recipe_does_not_hide_a_built_in_model(tmp_path):
    (tmp_path / "train.tsv").write_text("sentence1\tsentence2\tscore\nthe cat\ta dog\t0\nred\tblue\t1\n")
    (tmp_path / "r.toml").write_text(RECIPE)
    recipe = read_recipe(tmp_path / "r.toml")
    assert [f.text for f in prepare(recipe).findings if not f.task] == []
    (tmp_path / "sbert-mini").mkdir()
    assert recipe.local_model("sbert-mini") == "sbert-mini"
    assert recipe.local_model("./sbert-mini") == tmp_path / "sbert-mini"
    (said,) = [f.text for f in prepare(recipe).findings if not f.task]
    assert (
        said
        == "sbert-mini is the built-in model, and ./sbert-mini in the recipe means the folder of that name beside it"
    )


def test_what_another_run_was_made_with_is_said_by_name():
    now = {"recipe": "a = 1\nb = 2\n", "seed": 3, "data": "d", "start": "f" * 64, "processes": 1}
    names = {"start": "sbert-mini", "teachers": ""}
    assert _differences({**now, "names": names}, now, names) == []
    before = {**now, "start": "e" * 64, "names": {"start": "all-MiniLM-L6-v2", "teachers": ""}}
    (said,) = _differences(before, now, names)
    assert said == "the starting model all-MiniLM-L6-v2, and this run starts from sbert-mini"
    before = {**now, "seed": 4, "recipe": "a = 1\nb = 5\n", "processes": 2}
    assert _differences(before, now, names) == [
        "another recipe (line 2 was `b = 5`, and is `b = 2`)",
        "seed 4, and this run has seed 3",
        "2 processes, and this run has 1",
    ]


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("steps = 2", "steps = true", "line 5: train.steps must be a whole number; found true"),
        ('train = "train.tsv"', "train = [true]", r"found \[true\]"),
        ("batch_size = 4", "batch_size = {a = true}", r"found {a = true}"),
    ],
)
def test_values_are_spelt_as_a_recipe_spells_them(tmp_path, old, new, text):
    assert old in RECIPE
    (tmp_path / "r.toml").write_text(RECIPE.replace(old, new))
    with pytest.raises(UsageError, match=text):
        read_recipe(tmp_path / "r.toml")


def test_show_prints_the_built_in_one_and_a_file(tmp_path, sbmini_here):
    (tmp_path / "paraphrase").write_text("# mine\n")
    done = sbmini_here("recipes", "show", "paraphrase")
    assert done.stdout == built_in()["paraphrase"].read_text("utf-8")
    assert "./paraphrase means what lies here" in done.stderr
    assert sbmini_here("recipes", "show", "./paraphrase").stdout == "# mine\n"
