"""A table becomes a recipe that can be read, edited and run again."""

import json

import pytest
from conftest import one_error, run_here, tiny_model
from recipe_folder import SMALL
from small_tasks import sentences

from sbert_mini.errors import InputError, UsageError
from sbert_mini.recipes.from_table import is_table, recipe_from_table, rules_for, score_range
from sbert_mini.recipes.plan import prepare
from sbert_mini.recipes.reader import read_recipe

NAMES = {
    "yes-no pairs": ("sentence1,sentence2,label", lambda a, b, i: f"{a},{b},{i % 2}"),
    "graded pairs": ("sentence1,sentence2,score", lambda a, b, i: f"{a},{b},{i % 6}"),
    "labelled pairs": ("sentence1,sentence2,label", lambda a, b, i: f"{a},{b},{'xyz'[i % 3]}"),
    "matching pairs": ("question,answer", lambda a, b, i: f"{a},{b}"),
    "triplets": ("anchor,positive,negative", lambda a, b, i: f"{a},{b},no {b}"),
    "labelled texts": ("text,label", lambda a, b, i: f"{a},{'xyz'[i % 3]}"),
}


def write(folder, kind, rows=60):
    header, line = NAMES[kind]
    texts = zip(sentences(rows, 1), sentences(rows, 2), strict=True)
    lines = [line(f"{a} {i}", f"{b} {i}", i) for i, (a, b) in enumerate(texts)]
    (folder / "t.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder / "t.csv"


@pytest.mark.parametrize("kind", NAMES)
def test_the_recipe_of_each_kind_of_rows_is_ready_to_train(tmp_path, kind):
    notes = []
    path = recipe_from_table(write(tmp_path, kind), tmp_path / "out", on_note=notes.append)
    assert path == tmp_path / "out.recipe" / "recipe.toml"
    assert any(f"60 rows of {kind}" in note for note in notes)
    assert any("training rows and" in note for note in notes)
    recipe = read_recipe(path)
    plan = prepare(recipe)
    assert plan.output.resolve() == (tmp_path / "out").resolve()
    (task,) = plan.tasks
    assert len(task.train) + len(task.dev) == 60
    assert recipe.evaluation.keep == "not-worse"
    assert (task.config.loss, recipe.model.encoder) == (rules_for(kind, 48).loss, rules_for(kind, 48).encoder)
    before = path.read_bytes()
    assert recipe_from_table(tmp_path / "t.csv", tmp_path / "out") == path
    assert path.read_bytes() == before


def test_an_edited_recipe_is_not_replaced(tmp_path):
    path = recipe_from_table(write(tmp_path, "yes-no pairs"), tmp_path / "out")
    path.write_text(path.read_text() + "# mine\n")
    with pytest.raises(UsageError, match=r"recipe\.toml is not what this table gives: train its recipe"):
        recipe_from_table(tmp_path / "t.csv", tmp_path / "out")
    assert path.read_text().endswith("# mine\n")


def test_names_from_a_table_are_text_in_the_recipe(tmp_path):
    file = tmp_path / 'a"\n[model].jsonl'
    name = 'lab"el\n\x7f☃'
    rows = [{"text": f"words {i}", name: "xy"[i % 2]} for i in range(40)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = read_recipe(recipe_from_table(file, tmp_path / "out", text_columns=["text"], label_column=name))
    assert recipe.tasks[0].label == name


def test_the_scale_of_scores_is_a_usual_one_where_they_fit_it():
    assert score_range([0.2, 0.9]) == (0, 1)
    assert score_range([0, 4.8]) == (0, 5)
    assert score_range([1, 4.8]) == (1, 5)
    assert score_range([-3, 40]) == (-3, 40)


def test_what_is_a_table():
    assert is_table("a.CSV")
    assert is_table("b.tsv.gz")
    assert not is_table("recipe.toml")
    assert not is_table("paraphrase")


def test_from_a_table_to_a_model_and_the_same_run_again(tmp_path):
    write(tmp_path, "yes-no pairs")
    one_error(run_here(tmp_path, "train", "t.csv", "-q"), 2, "--output (-o) is needed")
    one_error(run_here(tmp_path, "train", "none.csv", "-o", "out", "-q"), 1, "none.csv cannot be opened")
    one_error(run_here(tmp_path, "train", "r.toml", "--label-column", "x", "-q"), 2, "are for a table")
    (tmp_path / "small").mkdir()
    tiny_model(tmp_path / "small", **SMALL)
    path = recipe_from_table(tmp_path / "t.csv", tmp_path / "out")
    path.write_text(path.read_text().replace('"sbert-mini"', '"../small"'))
    done = run_here(tmp_path, "train", str(path), "--threads", "1", "--offline", "--json")
    assert done.returncode in (0, 4), done.stderr
    found = json.loads(done.stdout)
    assert found["start"]["tasks"][0]["metric"] == "average_precision"
    assert found["output"].endswith("out" if done.returncode == 0 else "out.worse")


def test_one_label_is_nothing_to_learn(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"words {i},x\n" for i in range(40)))
    with pytest.raises(InputError, match="every row has the same label, 'x'"):
        recipe_from_table(tmp_path / "t.csv", tmp_path / "out")
