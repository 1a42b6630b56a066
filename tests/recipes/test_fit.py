"""A training run from a recipe: killed and resumed, and what it saves."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import one_error, run_here, tiny_model
from launch import Forked
from recipe_folder import SMALL, folder_with
from safetensors.torch import load_file
from small_tasks import sentences
from workshop import RECIPE, SBMINI, content, fitted, started, train, wait_for

import sbert_mini
from sbert_mini.encoder.module import load
from sbert_mini.errors import UnsupportedModelError, UsageError
from sbert_mini.recipes.fit import fit
from sbert_mini.recipes.plan import prepare
from sbert_mini.recipes.reader import read_recipe
from sbert_mini.recipes.settings import computing_threads, training_arguments
from sbert_mini.training import processes
from sbert_mini.training.heads import Head
from sbert_mini.training.setup import check_arguments


@pytest.mark.long
def test_killed_and_resumed_a_run_ends_in_the_same_bytes(workshop):
    whole = train(workshop, "-o", "whole", "--json")
    assert whole.returncode == 0, whole.stderr
    with started(workshop, "-o", "killed") as process:
        wait_for(
            process,
            lambda: (
                list((workshop / "killed.run").glob("checkpoint-[0-9]*"))
                and (workshop / "killed.run" / "log.jsonl").read_text().count("\n") >= 9
            ),
        )
        process.send_signal(signal.SIGKILL)
    assert not (workshop / "killed").exists()
    refused = train(workshop, "-o", "killed")
    assert refused.returncode == 2
    assert "go on with it (--resume)" in refused.stderr
    resumed = train(workshop, "-o", "killed", "--resume", "--json")
    assert resumed.returncode == 0, resumed.stderr
    found, expected = (json.loads(run.stdout.splitlines()[-1]) for run in (resumed, whole))
    assert 0 < found["resumed_from"] < 60
    assert expected["resumed_from"] == 0
    assert found["figures"] == expected["figures"]
    first, second = content(workshop / "whole"), content(workshop / "killed")
    assert set(first) == set(second)
    for name in first:
        assert first[name].replace(b"whole", b"killed") == second[name], name
    assert not list((workshop / "killed.run").glob("checkpoint-*"))


@pytest.mark.long
def test_killed_after_its_last_checkpoint_a_run_is_finished_without_another_step(workshop):
    recipe = RECIPE.replace("[optimizer]", '[optimizer]\ndecay = "constant"').replace("steps = 60", "steps = 14")
    (workshop / "recipe.toml").write_text(recipe)
    whole = fitted(workshop, "whole")
    for attempt in range(9):
        shutil.rmtree(workshop / "cut.run", ignore_errors=True)
        shutil.rmtree(workshop / "cut", ignore_errors=True)
        with started(workshop, "-o", "cut") as process:
            wait_for(process, (workshop / "cut.run" / "checkpoint-14").exists)
            process.kill()
        if not (workshop / "cut").exists():
            break
        assert attempt < 8, "the run was always over before it could be killed"
    assert fitted(workshop, "cut", resume=True).figures == whole.figures
    for name, data in content(workshop / "whole").items():
        assert data.replace(b"whole", b"cut") == content(workshop / "cut")[name], name


def test_changed_data_are_not_gone_on_with(workshop):
    run = workshop / "trained.run"
    run.mkdir()
    (run / "checkpoint-7").mkdir()
    (run / "checkpoint-7" / "fitter.json").write_text("{}")
    (run / "run.json").write_text(
        json.dumps({"recipe": RECIPE, "seed": 0, "data": "other rows", "start": "other weights"})
    )
    done = train(workshop, "--resume")
    assert done.returncode == 2
    assert "another starting model" in done.stderr
    assert "other data: rows or labels" in done.stderr


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("paraphrase", marks=pytest.mark.long),
        "sentiment",
        "search",
        pytest.param("multitask", marks=pytest.mark.long),
        "cs224n-paper",
        "simcse-unsupervised",
        pytest.param("simcse-supervised", marks=pytest.mark.long),
    ],
)
def test_every_recipe_that_ships_trains(name, tmp_path, make_model, monkeypatch):
    """On small files of the right shape, from a small model, for two steps."""
    import gzip
    import re as regex

    make_model(seed=9).rename(tmp_path / "start")
    shipped = Path(sbert_mini.__file__).parent / "examples" / "recipes" / f"{name}.toml"
    recipe = read_recipe(shipped)
    pairs = list(zip(sentences(60, 2), sentences(60, 3), strict=True))
    for part in recipe.tasks:
        texts, top = len(part.text_columns()), int(part.config.high) if part.config.loss != "cross-entropy" else 1
        labelled = part.config.loss != "multiple-negatives-ranking"
        header = [*part.text_columns(), *([part.label or "label"] if labelled else [])]
        for offset, file in [(0, f) for f in part.files("train")] + [(30, f) for f in part.files("dev")]:
            path = tmp_path / "data" / file if recipe.data.folder else tmp_path / file
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [
                [*[*pairs[i + offset], "a third text"][:texts], *([str(i % (top + 1))] if labelled else [])]
                for i in range(30)
            ]
            tab = "," if path.suffix == ".csv" and not recipe.data.folder else "\t"
            text = "".join(tab.join(row) + "\n" for row in [header, *rows]).encode()
            path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    if recipe.data.evaluation:
        (tmp_path / "data" / "sts13.tsv").write_text(
            "sentence1\tsentence2\tscore\n" + "\t".join([*pairs[0], "1"]) + "\n"
        )
    text = shipped.read_text("utf-8").replace(f'start = "{recipe.model.start}"', 'start = "start"')
    text = regex.sub(r"^(epochs|steps) = .*$", "steps = 2", text, flags=regex.MULTILINE)
    text = regex.sub(r"^max_seq_length = .*$", "max_seq_length = 32", text, flags=regex.MULTILINE)
    text = regex.sub(r"^every = .*$", "every = 2", text, flags=regex.MULTILINE)
    (tmp_path / "recipe.toml").write_text(text)
    monkeypatch.setenv("SBMINI_DATA", str(tmp_path / "data") if recipe.data.folder else str(tmp_path))
    assert fitted(tmp_path).steps in (1, 2)  # of the better weights
    if "cs224n" in name:
        from sbert_mini.evaluation.sets import trained_on

        assert "stsb_test" in trained_on(tmp_path / recipe.model.output)


@pytest.mark.long
def test_a_run_of_another_recipe_is_not_gone_on_with(workshop):
    (workshop / "recipe.toml").write_text(RECIPE.replace("steps = 60", "steps = 600"))
    with started(workshop, stderr=subprocess.PIPE) as process:
        wait_for(process, (workshop / "trained.run" / "checkpoint-7").exists)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read().decode()
    assert process.returncode == 130
    assert "--resume goes on from it" in said
    (workshop / "recipe.toml").write_text(RECIPE)
    done = train(workshop, "--resume")
    assert done.returncode == 2
    assert "another recipe (line " in done.stderr
    assert "was `steps = 600`, and is `steps = 60`" in done.stderr


def test_what_is_trained_is_a_model_with_heads_a_card_and_nothing_of_ours_in_its_layout(workshop):
    done = train(workshop, "--seed", "5")
    assert done.returncode == 0, done.stderr
    assert "mean" in done.stdout
    assert "the weights of step " in done.stderr
    model = workshop / "trained"
    assert {p.name for p in (model / "heads").iterdir()} == {"mood", "same", "sts"}
    card = (model / "README.md").read_text("utf-8")
    assert card.startswith("---\n")
    for part in ("license: mit", "- mood", "- snli", "base_model: start", "| mood | single | cross-entropy | mood | 80 |",
                 "10 (in the dev set)", "steps = 60", "mood accuracy", "not free of leakage"):  # fmt: skip
        assert part in card, part
    script = (
        "import sys; from sentence_transformers import SentenceTransformer\n"
        "model = SentenceTransformer(sys.argv[1], local_files_only=True)\n"
        "assert not any(name.startswith('sbert_mini') for name in sys.modules)\n"
        "print(model.encode(['the cat sleeps'])[0].tolist())"
    )
    plain = subprocess.run(
        [sys.executable, "-c", script, str(model)],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert plain.returncode == 0, plain.stderr
    vector = np.array(json.loads(plain.stdout))
    vector /= np.linalg.norm(vector)
    np.testing.assert_allclose(sbert_mini.Embedder(model, graph="fp32").encode("the cat sleeps"), vector, atol=1e-5)
    suffixes = {p.suffix for p in model.rglob("*") if p.is_file() and "onnx" not in p.parts}
    assert suffixes <= {".json", ".safetensors", ".md"}
    again = train(workshop)
    assert again.returncode == 2
    assert "exists already" in again.stderr

    def predict(*arguments):
        return run_here(workshop, "predict", "-m", "trained", *arguments)

    done = predict("-t", "mood", "--graph", "fp32", "the cat sleeps", "a dog")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    head = Head.load(model, "mood")
    with torch.no_grad():
        expected = head(torch.from_numpy(load(model).encode(["the cat sleeps", "a dog"]))).softmax(-1)
    for line, row in zip(lines, expected.tolist(), strict=True):
        assert list(line["probabilities"]) == ["bad", "good"]
        assert list(line["probabilities"].values()) == pytest.approx(row, abs=1e-4)
    done = predict("-t", "same", "the cat", "a dog")
    assert json.loads(done.stdout)["texts"] == ["the cat", "a dog"]
    done = predict("-t", "sts", "-i", "sts.tsv")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 80
    assert all(0 <= json.loads(line)["score"] <= 5.0001 for line in done.stdout.splitlines())
    piped = subprocess.run(
        [SBMINI, "predict", "-m", "trained", "-t", "mood"], cwd=workshop, capture_output=True, input=b"the cat\na dog\n"
    )
    assert len(piped.stdout.splitlines()) == 2
    for arguments, code, said in (
        (("-t", "same", "one"), 2, "two texts are needed; found 1"),
        (("-t", "none", "one"), 1, "it has: mood, same, sts"),
        (("one",), 2, "has several heads, name one of mood, same, sts"),
        (("-t", "sts", "-i", "sts.tsv", "--columns", "sentence1"), 2, "--columns must name 2 columns"),
        (("-t", "sts", "-i", "mood.csv"), 1, "sentence1"),
        (("-t", "mood", ""), 2, "one of the texts is empty"),
    ):
        one_error(predict(*arguments), code, said)


def test_rows_of_evaluation_sets_are_counted_and_dropped(workshop):
    held = (workshop / "sts.tsv").read_text().splitlines()
    sets = workshop / "sets"
    sets.mkdir()
    rows = [line.split("\t") for line in held[1:6]]
    lines = "".join(f"{b}\t{a.upper()}.\t{s}\n" for a, b, s in rows)
    (sets / "sts13.tsv").write_text("sentence1\tsentence2\tscore\n" + lines)
    recipe = RECIPE.replace("steps = 60", "steps = 2").replace("every = 7", "every = 2")
    (workshop / "recipe.toml").write_text('[data]\nevaluation = "sets"\n' + recipe)
    done = train(workshop, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["overlap"] == {"sts13": {"same": 5, "sts": 5}}
    from sbert_mini.evaluation.sets import trained_on

    assert set(trained_on(workshop / "trained")) == {"sts13"}
    scored = run_here(workshop, "bench", "sts", "-m", "trained", "--data", "sets", "--json")
    (model,) = json.loads(scored.stdout)["models"]
    assert model["mean_of"] == []
    assert "10 pairs" in model["sets"][0]["trained_on"]
    (workshop / "recipe.toml").write_text('[data]\nevaluation = "sets"\ndrop_evaluation = true\n' + recipe)
    done = train(workshop, "--dry-run", "--json", "-o", "another")
    assert [t["dropped"].get("in an STS set") for t in json.loads(done.stdout)["tasks"]] == [None, 5, 5]


def test_early_stopping_and_tensorboard(workshop):
    recipe = RECIPE.replace("steps = 60", 'steps = 600\nreport_to = ["tensorboard"]').replace(
        "every = 7", "every = 2\npatience = 2"
    )
    (workshop / "recipe.toml").write_text(
        recipe.replace("learning_rate = 1e-3", "learning_rate = 0.0\nhead_learning_rate = 0.0")
    )
    done = train(workshop, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 2  # the first evaluation is never bettered
    log = [json.loads(line) for line in (workshop / "trained.run" / "log.jsonl").read_text().splitlines()]
    assert max(entry["step"] for entry in log) == 6
    assert list((workshop / "trained.run").rglob("events.out.tfevents.*"))


TAUGHT = (
    '[[task]]\nname = "s"\nstructure = "single"\nloss = "distillation"\nteacher = "teacher"\ntrain = "train.tsv"\n'
    'text = "sentence1"\n'
)


DEV_ROWS = 300


def test_what_the_fitter_refuses_is_said_in_its_own_words(tmp_path):
    plan = prepare(folder_with(tmp_path, more="dimensions = [33]\n"))
    with pytest.raises(UsageError) as error:
        fit(plan, offline=True)
    assert str(error.value) == "task 't': dimensions must be at most the model's 32; found 33"


def fitted_with_notes(folder, name):
    """Train by the recipe of a folder; return what it gave and what it told."""
    progress = []
    with computing_threads(1):
        done = fit(
            prepare(read_recipe(folder / "r.toml"), output=folder / name), offline=True, on_progress=progress.append
        )
    return {"steps": done.steps, "figures": dict(done.figures), "progress": progress}


def fit_as_one_of_several(folder, rank):
    """What one of the processes does."""
    told = {**fitted_with_notes(folder, "both"), "processes": processes.count()}
    arguments = training_arguments(prepare(read_recipe(folder / "r.toml")).phases[0], 0)
    with pytest.raises(UsageError, match="a batch of 15 examples cannot be shared by 2 processes: name a multiple"):
        check_arguments(arguments, 15, is_sharded=False)
    (folder / f"{rank}.json").write_text(json.dumps(told))
    processes.leave()


@pytest.mark.long
def test_two_processes_carry_a_plan_out_as_one_does(tmp_path):
    """The first one alone computes the teacher's vectors, and writes the log, the checkpoints and the model."""
    (tmp_path / "teacher").mkdir()
    tiny_model(tmp_path / "teacher", seed=1, **SMALL)
    optimizer = (
        "[optimizer]\nlearning_rate = 1e-2\nwarmup = 0.0\nepsilon = 1e-4\n"  # so that no rounding error is a step
    )
    folder_with(tmp_path, ("[train]", f"{optimizer}[train]"), more=TAUGHT, rows=40, dev_rows=DEV_ROWS)
    port = free_port()
    shared = {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    running = [
        Forked(
            fit_as_one_of_several, tmp_path, rank,
            folder=tmp_path, name=f"said-{rank}", env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    alone = fitted_with_notes(tmp_path, "alone")
    for process in running:
        process.end()
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (first["processes"], second["processes"]) == (2, 2)
    assert first["steps"] == second["steps"] == alone["steps"]
    assert first["figures"] == second["figures"] == pytest.approx(alone["figures"], abs=1e-4)
    encoding = [[line for line in told["progress"] if "encodes 40 texts" in line] for told in (alone, first, second)]
    assert [len(lines) for lines in encoding] == [1, 1, 0]
    logs = [(tmp_path / f"{name}.run" / "log.jsonl").read_text().splitlines() for name in ("alone", "both")]
    assert len(logs[0]) == len(logs[1])
    start, one, both = (load_file(tmp_path / name / "model.safetensors") for name in ("start", "alone", "both"))
    assert max(float((start[name] - t).abs().max()) for name, t in one.items()) > 1e-3
    for name, tensor in one.items():
        torch.testing.assert_close(both[name], tensor, rtol=0, atol=1e-4, msg=name)


def free_port():
    """Return the number of a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_tokenizer_that_is_not_berts_is_trained_with_where_the_recipe_trusts_it(workshop):
    load(workshop / "start", device="cpu")[0].text_tokenizer.save(workshop / "start")
    file = workshop / "start" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    file.write_text(json.dumps({**tokenizer, "pre_tokenizer": {"type": "WhitespaceSplit"}}))
    recipe = RECIPE.replace("steps = 60", "steps = 2").replace("every = 7", "every = 2")
    (workshop / "recipe.toml").write_text(recipe)
    with pytest.raises(UnsupportedModelError, match="another pre-tokenizer"):
        fitted(workshop)
    shutil.rmtree(workshop / "trained.run", ignore_errors=True)
    (workshop / "recipe.toml").write_text(recipe.replace("[model]", "[model]\ntrust_tokenizer = true", 1))
    assert fitted(workshop).steps == 2
    text_tokenizer = load(workshop / "trained", device="cpu", trust_tokenizer=True)[0].text_tokenizer
    assert len(text_tokenizer.encode(["the cat."])[0].ids) == 4
