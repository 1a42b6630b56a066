"""What a run costs does not depend on an average that is taken at evaluations alone, and needs no such evaluation."""

from recipe_folder import folder_with

from sbert_mini.recipes.estimates import describe, estimate
from sbert_mini.recipes.plan import prepare


def test_an_average_of_checkpoints_needs_no_evaluation_in_the_trial(tmp_path):
    recipe = folder_with(tmp_path, ("[train]", '[average]\nkind = "checkpoints"\n[train]'), dev_rows=4)
    plan = prepare(recipe)
    (cost,) = estimate(plan)
    assert (cost.encoder, cost.steps) == ("trained", 2)
    assert 0 < cost.seconds_a_step < cost.seconds
    told = describe(plan, [cost])
    assert told["parameters"] == sum(p.numel() for p in plan.start.load().parameters())
    assert [(task["train_rows"], task["dev_rows"], task["examples_a_batch"]) for task in told["tasks"]] == [(20, 4, 16)]
