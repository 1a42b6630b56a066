"""The card adds up what the starting model and the run were trained on."""

from dataclasses import replace

import pytest
from recipe_folder import folder_with, pairs

from sbert_mini.evaluation.sets import TRAINED_ON, card_metadata
from sbert_mini.recipes.card import write_card
from sbert_mini.recipes.plan import Fit, prepare


@pytest.mark.parametrize(("earlier", "sts13"), [("sts13: 7\n  sts12: 1", 10), ("sts12: 1", 3), ("sts13: many", 3)])
def test_rows_of_sets_are_added_to_those_of_the_starting_model(tmp_path, earlier, sts13):
    recipe = folder_with(tmp_path, ("[train]", '[data]\nevaluation = "sets"\n[train]'))
    (tmp_path / "sets").mkdir()
    rows = "".join(f"{a}\t{b}\t{score}\n" for a, b, score in pairs(3))
    (tmp_path / "sets" / "sts13.tsv").write_text("sentence1\tsentence2\tscore\n" + rows)
    (tmp_path / "start" / "README.md").write_text(f"---\nlicense: mit\n{TRAINED_ON}:\n  {earlier}\n---\n# start\n")
    plan = prepare(recipe)
    (tmp_path / "out").mkdir()
    fit = Fit(tmp_path / "out", 2, {}, (), 0)
    write_card(tmp_path / "out", plan, fit, start=tmp_path / "start", teachers=(), seed=0, threads=1)
    metadata = card_metadata(tmp_path / "out")
    assert metadata[TRAINED_ON]["sts13"] == sts13
    assert metadata[TRAINED_ON].get("sts12") == (1 if "sts12" in earlier else None)
    assert metadata["license"] == "mit"


def test_names_in_a_card_are_text(tmp_path):
    recipe = folder_with(tmp_path)
    strange = "x|y `z` <script>alert(1)</script> [a](javascript:1)\\n---\\ninjected: true\\n---\\x1b"
    (tmp_path / "start" / "README.md").write_text(f'---\nlicense: "{strange}"\ndatasets: ["{strange}"]\n---\n# start\n')
    plan = prepare(recipe)
    out = tmp_path / "<b>out | `x`"
    out.mkdir()
    plan = replace(plan, output=out)
    fit = Fit(out, 2, {"<i>figure|`": 0.5, "mean": None}, (), 0)
    write_card(out, plan, fit, start=tmp_path / "start", teachers=(), seed=0, threads=1)
    metadata = card_metadata(out)
    assert "injected" not in metadata
    assert metadata["datasets"][-1].startswith("x|y `z` <script>")
    body = (out / "README.md").read_text().rpartition("\n---\n")[2]
    assert not any(tag in body for tag in ("<script", "<b>", "<i>", "](java", "\x1b"))
    assert sum(line.startswith("| &lt;i>figure\\|\\` |") for line in body.splitlines()) == 1
