"""`sbmini train`, `recipes` and `predict` as commands."""

import json
import subprocess
import sys

from conftest import one_error
from workshop import RECIPE, fitted, train

import sbert_mini


def test_torch_is_not_loaded_by_predict(workshop):
    (workshop / "recipe.toml").write_text(RECIPE.replace("steps = 60", "steps = 2").replace("every = 7", "every = 2"))
    fitted(workshop)
    script = (
        "import sys; from sbert_mini.runtime.predictor import Predictor\n"
        "print(Predictor(sys.argv[1], 'mood').predict(['the cat'])[0].label)\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'scipy', 'sklearn', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    sbert_mini.Embedder(workshop / "trained")
    done = subprocess.run([sys.executable, "-c", script, str(workshop / "trained")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_dry_run_and_mistakes(workshop):
    done = train(workshop, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["steps"] == 60
    assert [t["name"] for t in found["tasks"]] == ["mood", "same", "sts"]
    assert found["tasks"][0]["dropped"] == {"in the dev set": 10}
    assert found["memory_bytes"] > 0
    assert "labels: bad" in done.stderr
    assert not (workshop / "trained.run").exists()
    assert found["surgery"] == "pcgrad"
    replaced = train(workshop, "--dry-run", "--surgery", "torchjd:UPGrad")
    assert "60 steps of 24 examples, surgery torchjd:UPGrad" in replaced.stdout
    one_error(train(workshop, "--dry-run", "--surgery", "pcgard"), 2, "(did you mean pcgrad?)")
    for old, new, code, said in (
        ("steps = 60", "stepz = 60", 2, "recipe.toml, line 8: there is no key train.stepz (did you mean steps?)"),
        ("mood.csv", "gone.csv", 1, "gone.csv cannot be opened"),
        ('"grade"', '"grades"', 1, "there is no column 'grades'"),
        ('start = "start"', 'start = "nowhere"', 1, "there is no model 'nowhere'"),
        ("high = 5", "high = 4", 1, "the score 5.0 is outside [0.0, 4.0]"),
        ("[model]", '[data]\nfolder = "$SBMINI_DATA_X"\n[model]', 2, "SBMINI_DATA_X, which is not set"),
    ):
        (workshop / "recipe.toml").write_text(RECIPE.replace(old, new, 1))
        done = train(workshop, "--dry-run", "-q")
        one_error(done, code, said)
    (workshop / "recipe.toml").write_text(RECIPE)
    (workshop / "trained").mkdir()
    (workshop / "trained" / "notes.txt").touch()
    (workshop / "mood.csv").rename(workshop / "gone.csv")  # the output is checked before data are read
    one_error(train(workshop, "--dry-run", "-q"), 2, "trained exists already and is not empty")
    (workshop / "gone.csv").rename(workshop / "mood.csv")
    (workshop / "trained" / "notes.txt").unlink()
    (workshop / "recipe.toml").write_text(RECIPE.replace("steps = 60", 'steps = 60\nreport_to = ["nowhere"]'))
    one_error(train(workshop, "-q"), 2, "sentence-transformers refuses these settings", "nowhere")


def test_recipes_that_ship_are_listed_and_shown(sbmini_here):
    done = sbmini_here("recipes", "list")
    names = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert {"paraphrase", "sentiment", "search", "multitask", "cs224n-paper", "simcse-supervised"} <= set(names)
    for name in names:
        assert "[[task]]" in sbmini_here("recipes", "show", name).stdout
    one_error(sbmini_here("recipes", "show", "none"), 2, "there is no recipe 'none'")
    one_error(sbmini_here("recipes", "show", "paraphrases"), 2, "(did you mean paraphrase?)")
    one_error(sbmini_here("encode", "a text", "-m", "sbert-mni", "--offline"), 1, "(did you mean sbert-mini?)")
