"""`sbmini predict` of files: every format, gold answers, names of labels, and rows without an answer."""

import csv
import json
import shutil

import numpy as np
import pytest
from conftest import one_error, run_here, tiny_converted_model
from pyarrow import parquet
from safetensors.numpy import save_file
from sklearn.metrics import accuracy_score, f1_score
from small_tasks import sentences

from sbert_mini.model.heads import HeadConfig
from sbert_mini.runtime.predictor import Predictor

TEXTS = sentences(30, 5)
GOLD = [str(i % 3) for i in range(30)]
ROWS = [
    {"id": str(i), "text": t, "label": g, "note": f'a, "b" {i}'}
    for i, (t, g) in enumerate(zip(TEXTS, GOLD, strict=True))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    (folder / "model").mkdir()
    tiny_converted_model(folder / "model")
    rng = np.random.default_rng(0)
    mood = HeadConfig("mood", "single", "classification", 28, ("0", "1", "2"), columns=("text",))
    same = HeadConfig("same", "siamese", "similarity", 28, columns=("text", "note"))
    for head in (mood, same):
        head.write(folder / "model" / "heads" / head.task)
    weights = {"output.weight": rng.normal(size=(3, 28)).astype(np.float32), "output.bias": np.zeros(3, np.float32)}
    save_file(weights, folder / "model" / "heads" / "mood" / "model.safetensors")
    with (folder / "in.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    return Predictor(folder / "model", "mood", threads=1).predict(TEXTS)


def predict(folder, *arguments, task="mood"):
    return run_here(folder, "predict", "-m", "model", "-t", task, "-i", "in.csv", "--threads", "1", *arguments)


def rows_of(file):
    if file.suffix == ".parquet":
        return parquet.read_table(file).to_pylist()
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_text().splitlines()]
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t" if file.suffix == ".tsv" else ","))


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_file_has_all_columns_and_the_predictions(folder, expected, suffix):
    done = predict(folder, "-o", f"out.{suffix}")
    assert done.returncode == 0, done.stderr
    found = rows_of(folder / f"out.{suffix}")
    assert [str(row["id"]) for row in found] == [row["id"] for row in ROWS]
    assert [row["note"] for row in found] == [row["note"] for row in ROWS]
    assert [str(row["predicted"]) for row in found] == [p.label for p in expected]
    assert [float(row["probability"]) for row in found] == pytest.approx(
        [max(p.probabilities.values()) for p in expected]
    )
    if suffix == "jsonl":
        assert found[3]["probabilities"] == pytest.approx(expected[3].probabilities)
    predicted = [p.label for p in expected]
    accuracy = accuracy_score(GOLD, predicted)
    assert f"Accuracy {accuracy:.4f}, macro F1 {f1_score(GOLD, predicted, average='macro'):.4f}." in done.stdout
    counts = [sum(g == "1" and p == label for g, p in zip(GOLD, predicted, strict=True)) for label in "012"]
    assert ["gold", "1", *map(str, counts)] in [line.split() for line in done.stdout.splitlines()]


def test_labels_have_names_and_an_improbable_one_is_no_answer(folder, expected):
    names = [f"--label-name={n}={name}" for n, name in zip("012", ("bad", "so-so", "good"), strict=True)]
    least = float(np.median([max(p.probabilities.values()) for p in expected]))
    done = predict(folder, "-o", "named.csv", "--min-probability", str(least), "--abstain-label", "?", *names)
    assert done.returncode == 0, done.stderr
    found = [row["predicted"] for row in rows_of(folder / "named.csv")]
    name_of = {"0": "bad", "1": "so-so", "2": "good"}
    assert found == [name_of[p.label] if max(p.probabilities.values()) >= least else "?" for p in expected]
    answered = [p != "?" for p in found]
    right = [name_of[g] == p for g, p, a in zip(GOLD, found, answered, strict=True) if a]
    assert f"Accuracy {np.mean(right):.4f}" in done.stdout
    assert f"{sum(answered)} of 30 rows are answered, and these alone count" in done.stdout


def test_without_an_output_the_lines_are_as_before_and_figures_go_to_stderr(folder, expected):
    done = predict(folder)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0] == {
        "id": "0",
        "text": TEXTS[0],
        "label": expected[0].label,
        "probabilities": lines[0]["probabilities"],
    }
    assert "Accuracy " in done.stderr
    assert "Accuracy " not in predict(folder, "-q").stderr


def test_scores_beside_gold_ones_are_correlated(folder):
    done = predict(folder, "-o", "scores.csv", "--gold", "id", task="same")
    assert done.returncode == 0, done.stderr
    found = rows_of(folder / "scores.csv")
    scores = [float(row["predicted"]) for row in found]
    assert [float(row["cosine"]) for row in found] == pytest.approx(scores, abs=1e-6) or min(scores) == 0
    expected = np.corrcoef(np.arange(30), scores)[0, 1]
    assert f"{expected:.4f}" in done.stdout


def test_a_column_that_does_not_fit_is_no_gold_unless_it_is_named(folder):
    assert "Accuracy" not in predict(folder, "-o", "x.csv", "--label-name", "0=zero", "-q", "--gold", "label").stderr
    one_error(predict(folder, "-q", "--gold", "note"), 1, "in.csv, line 2: the label", "is not one of 0, 1, 2")
    one_error(predict(folder, "-q", "--gold", "nowhere"), 1, "there is no column 'nowhere'")


def test_mistakes_are_told_and_leave_no_file(folder):
    one_error(predict(folder, "-q", "-o", "in.csv"), 2, "the output would replace the input")
    one_error(predict(folder, "-q", "-o", "x.txt"), 2, "the output must end in")
    one_error(predict(folder, "-q", "--label-name", "9=x"), 2, "--label-name takes LABEL=NAME")
    one_error(predict(folder, "-q", "--label-name", "0=1"), 2, "are called '1'")
    one_error(predict(folder, "-q", "--abstain-label", "none"), 2, "--min-probability, which is not given")
    one_error(predict(folder, "-q", "--min-probability", "0.5", task="same"), 2, "gives scores")
    one_error(predict(folder, "-q", "--gold", "note", "-o", "never.csv"), 1, "is not one of")
    assert not (folder / "never.csv").exists()
    assert not list(folder.glob("*.part"))


def test_columns_are_checked_before_a_model_is_opened(folder):
    """The model cannot be opened: without the check that would be the error."""
    (folder / "model2").mkdir()
    shutil.copytree(folder / "model" / "heads", folder / "model2" / "heads")
    (folder / "model2" / "config.json").write_text("{}")
    (folder / "semi.csv").write_text("text;label\na cat;1\n")
    (folder / "plain.txt").write_text("a cat\n")
    base = ["predict", "-m", "./model2", "-t", "mood"]
    for arguments, code, said in (
        (["-i", "in.csv", "--columns", "body"], 1, "in.csv: there is no column 'body'; the columns are id, text"),
        (["-i", "in.csv", "--gold", "right"], 1, "in.csv: there is no column 'right'"),
        (["-i", "in.csv", "--columns", "text,note"], 2, "--columns must name 1 column; found text, note"),
        (["-i", "semi.csv"], 1, "give --delimiter ';'"),
        (["-i", "plain.txt", "--gold", "label"], 2, "plain.txt is plain text"),
        (["-i", "in.csv", "--label-name", "7=x"], 2, "--label-name takes LABEL=NAME"),
    ):
        one_error(run_here(folder, *base, *arguments), code, said)
    done = run_here(folder, "predict", "-m", "model", "-t", "mood", "-i", "semi.csv", "--delimiter", ";")
    assert json.loads(done.stdout)["text"] == "a cat"
