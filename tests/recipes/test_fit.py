"""A plan carried out by two processes, and one that its own model refuses."""

import json
import socket

import pytest
import torch
from conftest import tiny_model
from launch import Forked
from recipe_folder import SMALL, folder_with
from safetensors.torch import load_file

from sbert_mini.errors import UsageError
from sbert_mini.recipes.fit import fit
from sbert_mini.recipes.plan import prepare
from sbert_mini.recipes.reader import read_recipe
from sbert_mini.recipes.settings import computing_threads, training_arguments
from sbert_mini.training import processes
from sbert_mini.training.setup import check_arguments

TAUGHT = (
    '[[task]]\nname = "s"\nstructure = "single"\nloss = "distillation"\nteacher = "teacher"\ntrain = "train.tsv"\n'
    'text = "sentence1"\n'
)
"""A second task."""
DEV_ROWS = 300
"""More than the 256 texts of a batch: the processes share the batches of an evaluation."""


def test_what_the_fitter_refuses_is_said_in_its_own_words(tmp_path):
    plan = prepare(folder_with(tmp_path, more="dimensions = [33]\n"))
    with pytest.raises(UsageError) as error:
        fit(plan, offline=True)
    assert str(error.value) == "task 't': dimensions must be at most the model's 32; found 33"


def fitted(folder, name):
    """Train by the recipe of a folder; return what it gave and what it told."""
    progress = []
    with computing_threads(1):
        done = fit(
            prepare(read_recipe(folder / "r.toml"), output=folder / name), offline=True, on_progress=progress.append
        )
    return {"steps": done.steps, "figures": dict(done.figures), "progress": progress}


def fit_as_one_of_several(folder, rank):
    """What one of the processes does."""
    told = {**fitted(folder, "both"), "processes": processes.count()}
    arguments = training_arguments(prepare(read_recipe(folder / "r.toml")).phases[0], 0)
    with pytest.raises(UsageError, match="a batch of 15 examples cannot be shared by 2 processes: name a multiple"):
        check_arguments(arguments, 15, is_sharded=False)
    (folder / f"{rank}.json").write_text(json.dumps(told))
    processes.leave()


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
    alone = fitted(tmp_path, "alone")
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
