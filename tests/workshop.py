"""A training run through a recipe: its files, the command, and the function that the command calls."""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

from conftest import run_here
from small_tasks import sentences

from sbert_mini.recipes.fit import fit
from sbert_mini.recipes.plan import prepare
from sbert_mini.recipes.reader import read_recipe
from sbert_mini.recipes.settings import computing_threads

SBMINI = str(Path(sys.executable).with_name("sbmini"))

RECIPE = """
[model]
start = "start"
output = "trained"
dropout = 0.1

[train]
steps = 60
batch_size = 24
schedule = "dynamic"
floor = 2
log_every = 3

[optimizer]
learning_rate = 1e-3

[evaluation]
every = 7

[[task]]
name = "mood"
structure = "single"
loss = "cross-entropy"
train = "mood.csv"
dev = "mood-dev.csv"
drop_overlap = true

[[task]]
name = "same"
structure = "pair"
loss = "cross-entropy"
train = "same.jsonl"
dev = "same.jsonl"
dev_limit = 20
hidden = 9

[[task]]
name = "sts"
structure = "siamese"
loss = "cosine-embedding"
train = "sts.tsv"
dev = "sts.tsv"
label = "grade"
low = 0
high = 5

[task.margin]
rule = "hard-negatives"
"""


PHASES = '[[phase]]\nencoder = "frozen"\nsteps = 3\n[[phase]]\nsteps = 3\nlearning_rate = 1e-4\n'


def write_workshop(folder, make_model):
    """Write a recipe, its data and a small starting model into a folder."""
    make_model(seed=9).rename(folder / "start")
    (folder / "start" / "README.md").write_text("---\nlicense: mit\ndatasets:\n- snli\n---\n# start\n")
    rows = [f'"{s}",{"good" if "cat" in s else "bad"}' for s in sentences(90, 1)]
    (folder / "mood.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    (folder / "mood-dev.csv").write_text("text,label\n" + "\n".join(rows[:10]) + "\n")
    pairs = list(zip(sentences(80, 2), sentences(80, 3), strict=True))
    lines = [json.dumps({"sentence1": a, "sentence2": b, "label": i % 2}) for i, (a, b) in enumerate(pairs)]
    (folder / "same.jsonl").write_text("\n".join(lines) + "\n")
    lines = [f"{a}\t{b}\t{i % 6}" for i, (a, b) in enumerate(pairs)]
    (folder / "sts.tsv").write_text("sentence1\tsentence2\tgrade\n" + "\n".join(lines) + "\n")
    (folder / "recipe.toml").write_text(RECIPE)


def train(folder, *arguments):
    return run_here(folder, "train", "recipe.toml", "--threads", "1", *arguments)


@contextlib.contextmanager
def started(folder, *arguments, stderr=subprocess.DEVNULL):
    """Start a training in a process of its own, which is killed in the end whatever happens."""
    whole = [SBMINI, "train", "recipe.toml", "--threads", "1", *arguments]
    with subprocess.Popen(whole, cwd=folder, stdout=subprocess.DEVNULL, stderr=stderr) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process, condition):
    """Wait until something holds; fail where the process ends before."""
    deadline = time.monotonic() + 600
    while not condition():
        assert process.poll() is None, "the run was over before it could be stopped"
        assert time.monotonic() < deadline, "the run hangs"
        time.sleep(0.002)


def fitted(folder, output=None, **options):
    """Train by the function that the command calls, in this process: starting another takes longer than training."""
    plan = prepare(read_recipe(folder / "recipe.toml"), output=folder / output if output else None)
    with computing_threads(1):
        return fit(plan, offline=True, **options)


def content(folder):
    """The bytes of every file of a model that training makes."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and "onnx" not in file.parts
    }


def changed(folder, *pairs):
    text = (folder / "recipe.toml").read_text()
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new, 1)
    (folder / "recipe.toml").write_text(text)
