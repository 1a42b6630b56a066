"""Runs that another one is not gone on with, runs that are not over, and processes that only follow."""

import pytest
from conftest import tiny_model
from recipe_folder import SMALL, folder_with

from sbert_mini.errors import InputError, UsageError
from sbert_mini.recipes.fit import fit
from sbert_mini.recipes.plan import prepare
from sbert_mini.recipes.record import saved_fit
from sbert_mini.recipes.run_folder import is_finished, open_run, run_notes
from sbert_mini.training.checkpoints import STATE

TAUGHT = (
    '[[task]]\nname = "s"\nstructure = "single"\nloss = "distillation"\nteacher = "teacher"\ntrain = "train.tsv"\n'
    'text = "sentence1"\n'
)


def begun(plan):
    """Begin a run of a plan, up to a checkpoint."""
    open_run(plan, 0)
    (plan.run / "checkpoint-1").mkdir()
    (plan.run / "checkpoint-1" / STATE).write_text("{}")


def test_a_recipe_that_differs_in_its_last_line_break_is_another_one(tmp_path):
    begun(prepare(folder_with(tmp_path)))
    open_run(prepare(folder_with(tmp_path)), 0, resume=True)
    with pytest.raises(UsageError, match="were made with another recipe: give what they were made with"):
        open_run(prepare(folder_with(tmp_path, ("high = 4.0\n", "high = 4.0"))), 0, resume=True)


def test_another_teacher_is_named(tmp_path):
    for name, seed in (("teacher", 1), ("other", 2)):
        (tmp_path / name).mkdir()
        tiny_model(tmp_path / name, seed=seed, **SMALL)
    begun(prepare(folder_with(tmp_path, more=TAUGHT)))
    recipe = folder_with(tmp_path, ('"teacher"', '"other"'), more=TAUGHT)
    with pytest.raises(UsageError, match=r"another teacher than .*/other \(before: .*/teacher\)"):
        open_run(prepare(recipe), 0, resume=True)
    with pytest.raises(UsageError, match=r"another teacher than none \(before: .*/teacher\)"):
        open_run(prepare(folder_with(tmp_path)), 0, resume=True)


def test_a_plan_without_a_model_is_not_finished(tmp_path):
    plan = prepare(folder_with(tmp_path))
    open_run(plan, 0)
    assert not is_finished(plan)
    plan.output.mkdir()
    (plan.output / "modules.json").write_text("[]")
    assert is_finished(plan)
    assert not is_finished(plan, seed=1)


def test_a_process_that_only_follows_writes_nothing(tmp_path, monkeypatch):
    plan = prepare(folder_with(tmp_path))
    monkeypatch.setenv("RANK", "1")
    open_run(plan, 0)
    assert not plan.run.exists()
    monkeypatch.setenv("RANK", "0")
    open_run(plan, 0)
    assert run_notes(plan.run)["seed"] == 0


def test_a_run_without_dev_files_saved_the_weights_of_its_last_step(tmp_path):
    plan = prepare(folder_with(tmp_path))
    with pytest.raises(InputError, match=r"the log .*log\.jsonl cannot be read"):
        saved_fit(plan)
    plan.run.mkdir()
    (plan.run / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    fit = saved_fit(plan)
    assert (fit.steps, fit.figures, fit.resumed_from) == (2, {}, 2)


def test_a_fit_says_the_step_that_it_went_on_from_and_0_for_a_fresh_run(tmp_path):
    done = fit(prepare(folder_with(tmp_path)))
    assert (done.steps, done.resumed_from) == (2, 0)
