"""What a recipe comes to: steps of epochs, sets that are not there, rows that are all left out."""

import pytest
from recipe_folder import folder_with, pairs, write_table

from sbert_mini.errors import InputError
from sbert_mini.recipes.plan import prepare


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"epochs": 1}, 2),  # 20 rows are 2 batches of 16
        ({"epochs": 2.5}, 5),
        ({"epochs": 0.1}, 1),
        ({"epochs": 3, "gradient_accumulation": 2}, 3),
        ({"epochs": 3, "batch_size": 7}, 9),  # 3 batches
        ({"epochs": 3, "batch_size": 7, "gradient_accumulation": 2}, 6),  # 2 steps of at most 2 batches
    ],
)
def test_epochs_are_steps(tmp_path, changes, steps):
    keys = {"batch_size": 16, **changes}
    text = "".join(f"{key} = {value}\n" for key, value in keys.items())
    plan = prepare(folder_with(tmp_path, ("steps = 2\nbatch_size = 16\n", text)))
    assert plan.steps == steps
    assert plan.phases[0].arguments["max_steps"] == steps


def test_a_folder_without_sets_is_refused(tmp_path):
    recipe = folder_with(tmp_path, ("[train]", '[data]\nevaluation = "sets"\n[train]'))
    (tmp_path / "sets").mkdir()
    with pytest.raises(InputError, match=r"data\.evaluation: .*/sets holds none of sts12, sts13"):
        prepare(recipe)


def test_a_task_whose_rows_all_stand_in_the_dev_set_is_refused(tmp_path):
    recipe = folder_with(tmp_path, more="drop_overlap = true\n", dev_rows=5)
    prepare(recipe)
    write_table(tmp_path / "dev.tsv", pairs(20))
    with pytest.raises(InputError, match="task 't': no train row is left"):
        prepare(recipe)


@pytest.mark.parametrize(("share", "steps"), [(0, 0), (0.01, 1), (0.5, 20), (0.999, 40), (1, 40)])
def test_warmup_is_a_share_of_the_steps(tmp_path, share, steps):
    optimizer = f"[optimizer]\nwarmup = {share}\n[[task]]"
    plan = prepare(folder_with(tmp_path, ("steps = 2\n", "steps = 40\n"), ("[[task]]", optimizer)))
    assert plan.phases[0].arguments["warmup_steps"] == steps


@pytest.mark.parametrize(("steps", "told"), [(2, True), (3, False)])
def test_an_annealed_schedule_of_one_epoch_is_told(tmp_path, steps, told):
    recipe = folder_with(tmp_path, ("steps = 2", f'steps = {steps}\nschedule = "annealed"'))
    found = [f.text for f in prepare(recipe).findings if "annealed" in f.text]
    assert found == (["2 steps are at most an epoch of 2: the schedule annealed stays proportional"] if told else [])


def test_training_has_dropout_unless_the_recipe_says_otherwise(tmp_path):
    for change, expected in (((), 0.1), ((('output = "out"', 'output = "out"\ndropout = 0'),), 0.0)):
        encoder = prepare(folder_with(tmp_path, *change)).start.load(offline=True)[0].model
        assert encoder.config.hidden_dropout_prob == expected
        assert encoder.config.attention_probs_dropout_prob == expected
