"""Phases and further tables of a recipe."""

import json
import signal

import pytest
from conftest import one_error, run_here
from launch import Forked, fit_and_be_killed
from workshop import PHASES, changed, content, fitted

from sbert_mini.errors import UsageError

pytestmark = pytest.mark.usefixtures("one_thread")


TABLES = {
    "smart": "[regularization]\nsmart = 1.0\nbregman = 1.0\nsmart_radius = 0.01\n"
    '[average]\nkind = "checkpoints"\nstart = 0.0\n',
    "ema-lora": '[average]\nkind = "ema"\ndecay = 0.9\n[regularization]\nr_drop = 1.0\n[lora]\nrank = 2\n',
}


@pytest.mark.long
@pytest.mark.parametrize("name", TABLES)
def test_killed_and_resumed_with_each_rule_a_run_ends_in_the_same_bytes(workshop, name):
    changed(workshop, ("steps = 60", "steps = 8"), ("[model]", TABLES[name] + "[model]"))
    text = (workshop / "recipe.toml").read_text()
    every = next(line for line in text.splitlines() if line.startswith("every"))
    changed(workshop, (every, "every = 4"))
    fitted(workshop, "whole")
    Forked(fit_and_be_killed, workshop / "killed", 4, folder=workshop).end(-signal.SIGKILL)
    assert fitted(workshop, "killed", resume=True).resumed_from == 4
    first, second = content(workshop / "whole"), content(workshop / "killed")
    assert set(first) == set(second)
    assert [n for n in first if first[n] != second[n] and n != "README.md"] == []


def test_two_phases_train_heads_first_and_go_on_where_they_were_killed(workshop):
    changed(workshop, ("steps = 60", ""))
    (workshop / "recipe.toml").write_text((workshop / "recipe.toml").read_text() + "\n" + PHASES)
    said = []
    fitted(workshop, "whole", on_progress=said.append)
    assert any("phase 1 of 2: encoder frozen" in line for line in said)
    logs = [workshop / "whole.run" / f"phase-{n}" / "log.jsonl" for n in (1, 2)]
    assert all(log.is_file() for log in logs)
    assert not list((workshop / "whole.run").rglob("model*"))
    Forked(fit_and_be_killed, workshop / "killed", None, "phase 2 of 2", folder=workshop).end(-signal.SIGKILL)
    with pytest.raises(UsageError, match="phase-1/model of an earlier run"):
        fitted(workshop, "killed")
    assert fitted(workshop, "killed", resume=True).resumed_from == 3
    first, second = content(workshop / "whole"), content(workshop / "killed")
    assert [n for n in first if first[n] != second[n] and n != "README.md"] == []


def test_a_phase_begins_with_the_heads_of_the_one_before(workshop):
    """At rates of 0 the second phase leaves everything as it found it."""
    changed(workshop, ("steps = 60", ""))
    still = PHASES.replace("learning_rate = 1e-4", "learning_rate = 0.0\nhead_learning_rate = 0.0")
    (workshop / "recipe.toml").write_text((workshop / "recipe.toml").read_text() + "\n" + still)

    def stop(line):
        if line.startswith("phase 2 of 2"):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fitted(workshop, "killed", on_progress=stop)
    first = content(workshop / "killed.run" / "phase-1" / "model")
    fitted(workshop, "killed", resume=True)
    second = content(workshop / "killed")
    heads = [name for name in first if name.startswith("heads/") and name.endswith(".safetensors")]
    assert len(heads) == 2
    assert all(first[name] == second[name] for name in heads)


def test_dry_run_tells_the_cost_of_each_phase(workshop):
    changed(workshop, ("steps = 60", ""))
    (workshop / "recipe.toml").write_text((workshop / "recipe.toml").read_text() + "\n" + PHASES)
    done = run_here(workshop, "train", "recipe.toml", "--threads", 1, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [p["encoder"] for p in found["phases"]] == ["frozen", "trained"]
    assert found["steps"] == 6
    assert all(p["seconds_a_step"] > 0 and p["peak_bytes"] > 1e8 for p in found["phases"])
    said = run_here(workshop, "train", "recipe.toml", "--threads", 1, "--dry-run").stdout
    assert "phase 2, encoder trained: 3 steps of" in said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[model]", '[average]\nkind = "mean"\n[model]', "average.kind must be one of none, ema, checkpoints"),
        ("[model]", '[lora]\ntargets = ["keys"]\n[model]', "lora.targets must be some of query, key, value, dense;"),
        ("[model]", '[regularization]\ntasks = ["moot"]\n[model]', "there is no task 'moot' (did you mean mood?)"),
        ("[model]", '[lora]\n[model]\nencoder = "frozen"', "lora needs an encoder that is trained, and it is frozen"),
        (
            'steps = 60\nbatch_size = 24\nschedule = "dynamic"\nfloor = 2\nlog_every = 3\n',
            "batch_size = 24\n[lora]\n[[phase]]\nsteps = 3\n[[phase]]\nsteps = 3\n",
            "[lora]: one phase at most may train the encoder"),
        ("[model]", "[[phase]]\nsteps = 3\n[model]", "train.steps and train.epochs are the phases' own"),
        (
            'steps = 60\nbatch_size = 24\nschedule = "dynamic"\nfloor = 2\nlog_every = 3\n',
            'batch_size = 24\n[[phase]]\nencoder = "frozen"\n', "phase.steps or phase.epochs is needed"),
    ],
)  # fmt: skip
def test_mistakes_in_the_further_tables_are_named(workshop, old, new, said):
    changed(workshop, (old, new))
    one_error(run_here(workshop, "train", "recipe.toml", "--dry-run", "-q"), 2, "recipe.toml, line", said)


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_fsdp_and_deepspeed_are_refused_in_one_line(workshop, monkeypatch, variable):
    monkeypatch.setenv(variable, "true")
    one_error(run_here(workshop, "train", "recipe.toml", "-q"), 2, variable, "torchrun alone")
