"""Training removes nothing that it did not make, and says in one line what stands in its way."""

import json

import pytest
from conftest import tiny_model
from small_tasks import trainer_on

from sbert_mini.errors import UsageError
from sbert_mini.evaluation.report import check_folder
from sbert_mini.files import outputs
from sbert_mini.recipes.fit import fit
from sbert_mini.recipes.plan import prepare
from sbert_mini.recipes.reader import read_recipe
from sbert_mini.recipes.run_folder import newest_checkpoint
from sbert_mini.training.averaging import soup
from sbert_mini.training.checkpoints import STATE, is_checkpoint
from sbert_mini.training.examples import Examples
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task

RECIPE = (
    '[model]\nstart = "start"\noutput = "out"\n[train]\nsteps = 2\nbatch_size = 4\n[[task]]\nname = "t"\n'
    'structure = "siamese"\nloss = "cosent"\ntrain = "train.tsv"\nlabel = "score"\n'
)


@pytest.fixture
def plan(tmp_path, monkeypatch):
    (tmp_path / "start").mkdir()
    tiny_model(tmp_path / "start", hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    (tmp_path / "train.tsv").write_text("sentence1\tsentence2\tscore\nthe cat\ta dog\t0\nred\tblue\t1\n")
    (tmp_path / "r.toml").write_text(RECIPE)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def make(output=None):
        return prepare(read_recipe(tmp_path / "r.toml"), output=output)

    return make


def everything(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("out.part/thesis.txt", r"out\.part is in the way, and was not made by sbmini"),
        ("out.run/checkpoint-important/thesis.txt", "holds checkpoint-important, and was not made by sbmini"),
        ("out.run/checkpoint-2/thesis.txt", "holds checkpoint-2, and was not made by sbmini"),
        ("out.run/phase-1/model/thesis.txt", "holds phase-1, and was not made by sbmini"),
        ("out.run", "the folder for checkpoints, is a file"),
        ("out", "out is a file"),
        ("out/thesis.txt", "out exists already and is not empty: name another output$"),
        ("out/modules.json", "out exists already: name another output, or delete it"),
    ],
)
def test_what_stands_in_the_way_is_named_and_stays(plan, tmp_path, file, text):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("mine")
    before = everything(tmp_path)
    with pytest.raises(UsageError, match=text):
        fit(plan())
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["checkpoint-2/thesis.txt", "checkpoint-2.part/thesis.txt", "phase-1/model/x", "phase-1/checkpoint-1/x"]
)
def test_in_a_folder_of_an_earlier_run_too(plan, tmp_path, name):
    file = tmp_path / "out.run" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    (tmp_path / "out.run" / "run.json").write_text(json.dumps({"recipe": RECIPE, "seed": 0}))
    with pytest.raises(UsageError, match="is in the way, and was not made by sbmini"):
        fit(plan())
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("/", "a name of its own; found /"),
        (".", "is the working directory, or holds it"),
        ("..", "is the working directory, or holds it"),
        ("../train.tsv/model", "train.tsv is a file"),
        ("/proc/nothing/model", "cannot be made"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_training(plan, output, text):
    from pathlib import Path

    with pytest.raises(UsageError, match=text):
        fit(plan(Path(output)))


def test_a_run_makes_the_folders_above_and_leaves_what_others_put_beside_its_checkpoints(plan, tmp_path):
    note = tmp_path / "deep" / "out.run" / "checkpoint-important" / "thesis.txt"
    note.parent.mkdir(parents=True)
    note.write_text("mine")
    (tmp_path / "deep" / "out.run" / "run.json").write_text(json.dumps({"recipe": RECIPE, "seed": 0}))
    done = fit(plan(tmp_path / "deep" / "out"))
    assert (done.output / "modules.json").is_file()
    assert not outputs.is_made(done.output)
    assert note.read_text() == "mine"
    assert newest_checkpoint(tmp_path / "deep" / "out.run") is None


def test_old_checkpoints_make_way_and_others_files_do_not(tmp_path):
    rows = tuple((f"the cat {a}", f"the dog {a}") for a in "abcdefgh")
    task = Task(TaskConfig("t", "siamese", "cosent"), Examples(rows, (0.0, 1.0) * 4))
    for name in ("checkpoint-1x", "checkpoint-0", "checkpoint-best"):
        (tmp_path / "run" / name).mkdir(parents=True)
    trainer = trainer_on(tmp_path, [task], save_strategy="steps", save_steps=1, save_total_limit=2)
    trainer.train()
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["checkpoint-0", "checkpoint-1x", "checkpoint-3", "checkpoint-4", "checkpoint-best"]
    assert is_checkpoint(tmp_path / "run" / "checkpoint-4")
    (tmp_path / "run" / "checkpoint-3" / STATE).unlink()
    again = trainer_on(tmp_path, [task], save_strategy="steps", save_steps=3)
    with pytest.raises(UsageError, match="checkpoint-3 is in the way"):
        again.train()


def test_an_unfinished_folder_of_ours_is_replaced(tmp_path):
    part = outputs.new_part(tmp_path / "x")
    (part / "half").write_text("half")
    again = outputs.new_part(tmp_path / "x")
    assert [path.name for path in again.iterdir()] == [outputs.MARK]
    outputs.finish(again, tmp_path / "x")
    assert list((tmp_path / "x").iterdir()) == []
    assert not part.exists()


def test_a_soup_removes_nothing_either(tmp_path):
    models = [tmp_path / "1", tmp_path / "2"]
    for model in models:
        model.mkdir()
        tiny_model(model, num_hidden_layers=1)
    (tmp_path / "soup.part").mkdir()
    (tmp_path / "soup.part" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"soup\.part is in the way"):
        soup(models, tmp_path / "soup")
    assert (tmp_path / "soup.part" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["report.md", "report.html", "sts.json", "sts-mine.png", "training-losses.png"])
def test_a_report_overwrites_no_file_of_another(tmp_path, name):
    (tmp_path / name).write_text('{"mine": true}')
    with pytest.raises(UsageError, match=f"{name} is no file of a report"):
        check_folder(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / "holiday.png").write_bytes(b"")
    (tmp_path / "notes.md").write_text("")
    check_folder(tmp_path)


def test_a_soup_makes_the_folders_above(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        tiny_model(tmp_path / name, hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    soup([tmp_path / "a", tmp_path / "b"], tmp_path / "new" / "folder" / "soup")
    assert (tmp_path / "new" / "folder" / "soup" / "config.json").is_file()
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["soup"]
