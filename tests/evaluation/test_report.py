"""A training run's record and its report: against the log, the saved model and scikit-learn; pairs in both orders."""

import json
import shutil

import numpy as np
import pytest
from conftest import one_error
from sklearn.metrics import confusion_matrix
from workshop import PHASES, changed, train

from sbert_mini.errors import InputError, UsageError
from sbert_mini.evaluation.report import pictures
from sbert_mini.evaluation.tables import training
from sbert_mini.recipes.plan import prepare
from sbert_mini.recipes.reader import read_recipe
from sbert_mini.recipes.record import _phase, thinned, training_record
from sbert_mini.runtime.predictor import Predictor
from sbert_mini.training.examples import OTHER_ORDER, Examples

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_long_log_is_thinned_to_means_of_neighbours():
    lines = [{"step": i, "loss": i / 2, **({"cosine": 1.0} if i % 4 == 0 else {})} for i in range(1, 10)]
    found = thinned(lines, 5)
    assert found["step"] == [1.5, 3.5, 5.5, 7.5, 9.0]
    assert found["loss"] == [0.75, 1.75, 2.75, 3.75, 4.5]
    assert found["cosine"] == [None, 1.0, None, 1.0, None]
    assert thinned(lines, 9)["step"] == list(range(1, 10))


_REPORTED = []
"""The folder of a run with its report, once it was made: it is copied for each test."""


@pytest.fixture
def reported(workshop, tmp_path_factory):
    """A run of two phases with its report."""
    if not _REPORTED:
        changed(workshop, ("steps = 60", ""), ("every = 7", "every = 3\ntrain_rows = 15"))
        (workshop / "recipe.toml").write_text((workshop / "recipe.toml").read_text() + "\n" + PHASES)
        done = train(workshop, "--report", "out", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["output"].endswith("trained")
        _REPORTED.append(shutil.copytree(workshop, tmp_path_factory.mktemp("reported") / "run"))
    return shutil.copytree(_REPORTED[0], workshop, dirs_exist_ok=True)


def test_the_report_tells_what_the_log_and_the_saved_model_say(reported):
    out = reported / "out"
    found = json.loads((out / "training.json").read_text())
    assert found["command"].startswith("sbmini train recipe.toml")
    assert found["start_trained_on"] == ["snli"]
    assert [(p["number"], p["encoder"], p["steps"]) for p in found["phases"]] == [(1, "frozen", 3), (2, "trained", 3)]
    for number, phase in enumerate(found["phases"], start=1):
        log = (reported / "trained.run" / f"phase-{number}" / "log.jsonl").read_text().splitlines()
        lines = [json.loads(line) for line in log]
        told = [line for line in lines if "eval_mean" in line]
        assert [e["step"] for e in phase["evaluations"]] == [line["step"] for line in told]
        for entry, line in zip(phase["evaluations"], told, strict=True):
            assert entry["figures"] == {k.removeprefix("eval_"): v for k, v in line.items() if k.startswith("eval_")}
        steps = [line for line in lines if "loss" in line]
        assert phase["curves"]["loss_mood"] == [round(line["loss_mood"], 6) for line in steps]
        assert phase["resources"]["seconds"] == pytest.approx(sum(line["seconds"] for line in steps))
        assert phase["resources"]["peak_mb"] == max(line["peak_mb"] for line in steps)
    rows = [line.split(",") for line in (reported / "mood-dev.csv").read_text().splitlines()[1:]]
    gold = [label for _, label in rows]
    said = [
        p.label for p in Predictor(reported / "trained", "mood", graph="fp32").predict([t.strip('"') for t, _ in rows])
    ]
    mood = found["predictions"]["mood"]
    assert mood["counts"] == confusion_matrix(gold, said, labels=mood["labels"]).tolist()
    assert mood["accuracy"] == pytest.approx(np.mean([a == b for a, b in zip(gold, said, strict=True)]))
    assert len(found["predictions"]["sts"]["gold"]) == len(found["predictions"]["sts"]["predicted"]) == 80
    names = {
        "training-figures.png", "training-losses.png", "training-resources.png", "training-surgery.png",
        "training-layers.png", "confusion-mood.png", "confusion-same.png", "scores-sts.png", "histogram-same.png",
    }  # fmt: skip
    assert {p.name for p in out.iterdir()} == names | {"training.json", "report.md", "report.html"}
    assert all((out / name).read_bytes().startswith(PNG) for name in names)
    text, page = (out / "report.md").read_text(), (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(names)
    assert "http" not in page.replace("http-equiv", "")
    for part in (
        "was itself trained on snli",
        "Confusions of mood",
        "What int8 changes in the heads",
        "Against the start",
        "mood by class",
        "steps in conflict",
        "peak memory of the process",
    ):
        assert part in text
        assert part in page
    best = max(found["phases"][1]["evaluations"], key=lambda e: e["figures"]["mean"])
    assert f"| trained, step {best['step']} | {best['figures']['mood_accuracy']:.4f} |" in text


def test_the_report_of_a_run_that_is_over_is_made_without_training(reported):
    before = (reported / "trained" / "model.safetensors").stat().st_mtime_ns
    (reported / "out" / "training.json").unlink()
    done = train(reported, "--resume", "--report", "out", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads((reported / "out" / "training.json").read_text())
    best = record["saved"]
    found = {"output": str(reported / "trained"), "steps": best["step"], "resumed_from": best["step"], "overlap": {}}
    assert json.loads(done.stdout) == {**found, "figures": best["figures"], "start": record["start_comparison"]}
    assert "is trained already" in done.stderr
    assert (reported / "out" / "training.json").is_file()
    assert (reported / "trained" / "model.safetensors").stat().st_mtime_ns == before
    one_error(
        train(reported, "--resume", "--report", "out", "--seed", "5", "-q"), 2, "is not what this recipe, seed and"
    )
    one_error(train(reported, "--dry-run", "--report", "out", "-q"), 2, "--dry-run makes none")
    (reported / "file").write_text("")
    one_error(train(reported, "--report", "file", "-q"), 2, "the report folder file is a file")


def test_a_record_needs_a_model_and_a_whole_log(reported):
    plan = prepare(read_recipe(reported / "recipe.toml"))
    log = reported / "trained.run" / "phase-2" / "log.jsonl"
    log.write_text(log.read_text()[:-9])
    with pytest.raises(InputError, match=r"phase-2/log.jsonl cannot be read"):
        training_record(plan)
    with pytest.raises(UsageError, match="is no trained model"):
        training_record(prepare(read_recipe(reported / "recipe.toml"), output=reported / "other"))


def test_what_a_run_is_held_against_stands_beside_it_and_what_it_lacks_is_not_drawn(reported):
    found = json.loads((reported / "out" / "training.json").read_text())
    best = max(found["phases"][1]["evaluations"], key=lambda e: e["figures"]["mean"])["figures"]
    held = {"mood_accuracy": best["mood_accuracy"] - 0.25, "mean": best["mean"] + 0.5}
    found["reference"] = {"name": "theirs", "figures": held, "notes": ["With ten times the data."]}
    table = next(t for t in training(found) if t.title == "The saved model")
    assert table.rows[1][0] == "theirs"
    assert table.rows[2][1:] == ("+0.2500", "", "", "-0.5000")
    assert table.notes[-1] == "With ten times the data."
    bare = {
        **found,
        "predictions": {},
        "start_comparison": None,
        "tasks": [{**t, "metric": None} for t in found["tasks"]],
    }
    bare["phases"] = [{**p, "evaluations": [], "curves": {}, "gradients": {}} for p in found["phases"]]
    assert pictures("training", bare) == {}
    assert [t.title for t in training(bare)] == ["Tasks", "What it cost"]


def test_pairs_are_read_in_both_orders_after_the_drops(workshop):
    examples = Examples((("a", "b"), ("c", "d")), ("0", "1"), counts={"read": 2}).in_both_orders()
    assert examples.texts == (("a", "b"), ("b", "a"), ("c", "d"), ("d", "c"))
    assert examples.labels == ("0", "0", "1", "1")
    assert examples.counts == {"read": 2, OTHER_ORDER: 2}
    plain = prepare(read_recipe(workshop / "recipe.toml"))
    changed(workshop, ("dev_limit = 20", "dev_limit = 20\ndrop_overlap = true\nboth_orders = true"))
    both = prepare(read_recipe(workshop / "recipe.toml"))
    task = both.tasks[1]
    assert len(task.train) == 2 * (len(plain.tasks[1].train) - task.train.counts["dropped: in the dev set"])
    assert {row[::-1] for row in task.train.texts} == set(task.train.texts)
    repeats = [[f.text for f in plan.findings if f.task == "same" and "repeat" in f.text] for plan in (plain, both)]
    assert [bool(found) for found in repeats] == [bool(repeats[0])] * 2
    changed(
        workshop,
        (
            'loss = "cross-entropy"\ntrain = "mood.csv"',
            'loss = "cross-entropy"\nboth_orders = true\ntrain = "mood.csv"',
        ),
    )
    one_error(train(workshop, "--dry-run", "-q"), 2, "task.both_orders is for pairs")


def test_ablations_are_collected_into_means_and_spreads_and_other_steps_are_refused(tmp_path):
    from benchmarks import ablations

    def keep(arm, seed, steps, **figures):
        run = {"seed": seed, "steps": steps, "figures": figures}
        (tmp_path / ablations.file_name(arm, seed)).write_text(json.dumps(run))

    for seed, sts in ((1, 0.7), (2, 0.8), (3, 0.9)):
        keep("PCGrad", seed, 500, sst=0.4, quora=0.8, sts=sts)
        keep("three models, one a task", seed, 500, sst=0.4, quora=0.8, sts=sts)
    keep("CoSENT", 2, 150, sts=0.5)
    groups = ablations.collected(tmp_path)
    assert list(groups) == ["surgery", "losses"]
    found = groups["surgery"]["arms"]["PCGrad"]["figures"]
    assert found["sts"] == {"mean": pytest.approx(0.8), "std": pytest.approx(0.1)}
    assert found["model_acc"]["mean"] == pytest.approx((0.4 + 0.8 + 0.9) / 3)
    made = ablations.tables({"groups": groups, "note": "not clean"})
    table = "\n".join(table.markdown() for table in made)
    assert "| PCGrad | 3 | 0.4000 ± 0.0000 | 0.8000 ± 0.0000 | 0.8000 ± 0.1000 | 0.7000 ± 0.0167 |" in table
    assert "| three models, one a task | 3 | 0.4000 ± 0.0000 | 0.8000 ± 0.0000 | 0.8000 ± 0.1000 |  |" in table
    assert "| CoSENT | 1 | 0.5000 |" in table
    assert ablations.picture(groups).startswith(PNG)
    keep("CoSENT", 3, 90, sts=0.5)
    with pytest.raises(SystemExit, match="'CoSENT' of another number of steps: delete them"):
        ablations.collected(tmp_path)


def test_depths_and_pairs_are_named_as_the_log_has_them():
    """With LoRA the lowest depth is 1; a task's name may hold an underscore."""
    lines = [
        {"step": 2, "loss": 1.0, "cosine_sts_b/x": 0.5, "conflict_sts_b/x": 0.5, "cosine_sts_b/x_depth_1": -0.2,
         "cosine_sts_b/x_depth_10": 0.1, "loss_sts_b": 3.0, "seconds": 2.0},
        {"step": 4, "loss": 1.0, "cosine_sts_b/x": 0.1, "conflict_sts_b/x": 1.0},
    ]  # fmt: skip
    phase = {"number": 1, "encoder": "trained", **_phase(lines)}
    assert phase["gradients"] == {
        "sts_b/x": {"conflict": 0.75, "cosine": pytest.approx(0.3), "depths": {"1": -0.2, "10": 0.1}}
    }
    absent = dict.fromkeys(("prepared_seconds", "examples_per_second", "peak_mb"))
    assert phase["resources"] == {"seconds": 2.0, **absent}
    result = {
        "model": "m", "start": "s", "start_trained_on": [], "seed": 0, "trained_by": None, "surgery": "pcgrad",
        "schedule": "dynamic", "batch_size": 8, "tasks": [], "phases": [phase], "saved": {"step": 4, "figures": {}},
        "predictions": {},
    }  # fmt: skip
    table = next(t for t in training(result) if t.title == "Gradients against each other")
    assert table.rows == (("1: sts_b and x", "75.0 %", "+0.3000", "-0.2000 (depth 1)"),)
    assert set(pictures("training", result)) >= {"training-layers.png", "training-surgery.png"}
