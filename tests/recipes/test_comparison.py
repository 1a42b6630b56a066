"""A trained model beside its start: what decides, and where a worse model goes."""

import json

import numpy as np
import pytest
from conftest import one_error, run_here, tiny_model
from recipe_folder import SMALL, folder_with, pairs, write_table
from sklearn.metrics import accuracy_score

from sbert_mini.encoder.module import load
from sbert_mini.recipes.comparison import compare_with_start
from sbert_mini.recipes.plan import prepare
from sbert_mini.recipes.record import saved_fit
from sbert_mini.recipes.run_folder import is_finished
from sbert_mini.training.answers import figures_of, is_binary, start_answers
from sbert_mini.training.examples import Examples
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task

KEEP = '[evaluation]\nkeep = "not-worse"\n'


def graded_by_the_start(folder, *changes, more=""):
    """A recipe whose dev grades are the start's own cosines: no other model is as good."""
    recipe = folder_with(folder, *changes, more=more, rows=20, dev_rows=40)
    rows = pairs(60)[20:]
    model = load(folder / "start", device="cpu")
    u, v = (model.encode([row[i] for row in rows], normalize_embeddings=True) for i in (0, 1))
    cosines = np.sum(u * v, axis=1)
    grades = 4 * (cosines - cosines.min()) / np.ptp(cosines)
    write_table(folder / "dev.tsv", [(a, b, g) for (a, b, _), g in zip(rows, grades, strict=True)])
    write_table(folder / "train.tsv", [(a, b, 4 - c) for a, b, c in pairs(20)])
    return recipe


def other_model(folder):
    folder.mkdir()
    tiny_model(folder, seed=4, **SMALL)
    return folder


def test_a_model_that_is_not_as_good_is_worse_and_the_start_itself_is_not(tmp_path):
    plan = prepare(graded_by_the_start(tmp_path))
    found = compare_with_start(plan, other_model(tmp_path / "other"), offline=True)
    assert found.verdict == "worse"
    assert found.tasks[0].gains["spearman"].start == pytest.approx(1)
    assert plan.place_of(found) == plan.output
    same = compare_with_start(plan, tmp_path / "start", offline=True)
    assert same.verdict == "undecided"
    assert same.mean.difference == pytest.approx(0, abs=1e-6)
    assert "could" not in same.text


def test_without_dev_rows_there_is_no_comparison(tmp_path):
    plan = prepare(folder_with(tmp_path))
    assert compare_with_start(plan, tmp_path / "start") is None


def test_a_worse_model_goes_beside_its_place_and_the_run_ends_with_4(tmp_path):
    more = '[optimizer]\nlearning_rate = 1.0\nwarmup = 0\ndecay = "constant"\n' + KEEP
    recipe = graded_by_the_start(tmp_path, more=more)
    done = run_here(tmp_path, "train", "r.toml", "--threads", "1", "--offline")
    assert done.returncode == 4, done.stderr
    assert "worse than the start by " in done.stderr
    assert "out is not made; the weights are in " in done.stderr
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.worse" / "modules.json").is_file()
    assert "worse than the start" in (tmp_path / "out.worse" / "README.md").read_text()
    plan = prepare(recipe)
    assert is_finished(plan)
    assert saved_fit(plan).output == plan.worse
    one_error(run_here(tmp_path, "train", "r.toml", "--offline", "-q"), 2, "out.worse exists already")


def test_a_recipe_without_the_key_keeps_every_model(tmp_path):
    more = '[optimizer]\nlearning_rate = 1.0\nwarmup = 0\ndecay = "constant"\n'
    graded_by_the_start(tmp_path, more=more)
    done = run_here(tmp_path, "train", "r.toml", "--threads", "1", "--offline", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["start"]["verdict"] == "worse"
    assert found["output"] == str(tmp_path / "out")
    assert (tmp_path / "out" / "modules.json").is_file()


def vectors(count, seed):
    x = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_the_start_answers_labels_of_texts_by_logistic_regression():
    train, dev = vectors(200, 1), vectors(60, 2)
    labels = [tuple("no" if x[0] < 0 else "yes" for x in part) for part in (train, dev)]
    texts = [tuple((str(i),) for i in range(len(part))) for part in (train, dev)]
    task = Task(TaskConfig("t", "single", "cross-entropy"), *map(Examples, texts, labels))
    answers = start_answers(task, [dev], [train], labels[0])
    assert accuracy_score(labels[1], answers.predicted) > 0.95
    assert set(figures_of(task, answers)) == {"accuracy", "macro_f1", "calibration_error"}


def test_the_start_answers_two_labels_of_pairs_by_a_threshold_whatever_they_are_called():
    u, v = vectors(80, 1), vectors(80, 2)
    near = np.sum(u * v, axis=1) > 0.1
    texts = tuple((f"a{i}", f"b{i}") for i in range(80))
    for names in (("0", "1"), ("same", "other")):  # of the second, the near pairs have the first label
        labels = tuple(names[int(x)] if names[0] == "0" else names[int(not x)] for x in near)
        task = Task(TaskConfig("t", "pair", "cross-entropy"), Examples(texts, labels), Examples(texts, labels))
        assert is_binary(task)
        answers = start_answers(task, [u, v], [], [])
        figures = {name: figure(np.ones((1, 80)))[0] for name, figure in figures_of(task, answers).items()}
        assert figures["average_precision"] == pytest.approx(1)
        assert figures["accuracy"] > 0.95


def test_the_start_answers_rankings_and_scores_by_cosine():
    u, v = vectors(12, 1), vectors(12, 2)
    texts = tuple((f"a{i}", f"b{i}") for i in range(12))
    ranked = Task(TaskConfig("t", "siamese", "multiple-negatives-ranking"), Examples(texts), Examples(texts))
    cosines = u @ v.T
    rank = (cosines >= np.diag(cosines)[:, None]).sum(axis=1)
    figures = figures_of(ranked, start_answers(ranked, [u, v], [], []))
    assert figures["mrr"](np.ones((1, 12)))[0] == pytest.approx(np.mean(1 / rank))
    assert figures["recall_at_5"](np.ones((1, 12)))[0] == pytest.approx(np.mean(rank <= 5))
    graded = Examples(texts, (0.0, 1.0) * 6)
    scored = Task(TaskConfig("t", "siamese", "cosent"), graded, graded)
    answers = start_answers(scored, [u, v], [], [])
    assert answers.scores == pytest.approx(np.diag(cosines), abs=1e-6)
    assert "average_precision" in figures_of(scored, answers)
