"""Gradient surgery in the trainer: the orders that Algorithm 1 draws, each step its own, and several processes as one."""

import itertools
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from small import sentences, trainer_on

from sbert_mini.training.config import FitterConfig
from sbert_mini.training.examples import Examples
from sbert_mini.training.surgery import Surgeon, pcgrad_weights, projection_orders
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task

GRADIENTS = np.array([[1.0, 0.2, 0.0], [-0.6, 0.8, 0.3], [-0.5, -0.9, 0.7]])  # each conflicts with each
GRAM = torch.from_numpy(GRADIENTS @ GRADIENTS.T)


def algorithm_1(orders):
    """Yu et al. 2020, algorithm 1, on the vectors."""
    total = np.zeros(3)
    for i, order in enumerate(orders):
        g = GRADIENTS[i].copy()
        for j in order:
            if g @ GRADIENTS[j] < 0:
                g -= (g @ GRADIENTS[j]) / (GRADIENTS[j] @ GRADIENTS[j]) * GRADIENTS[j]
        total += g
    return tuple(np.round(total, 9))


def steps(seeds_and_steps):
    return {
        tuple(np.round(Surgeon("pcgrad", seed).weights(GRAM, step).numpy() @ GRADIENTS, 9) + 0.0)
        for seed, step in seeds_and_steps
    }


def test_every_order_of_algorithm_1_comes_up_over_seeds_and_over_steps():
    others = [[1, 2], [0, 2], [0, 1]]
    possible = {algorithm_1(orders) for orders in itertools.product(*map(itertools.permutations, others))}
    assert len(possible) == 8
    assert steps((seed, 0) for seed in range(100)) == possible
    assert steps((7, step) for step in range(100)) == possible


def test_the_tasks_permuted_the_weights_are_permuted():
    for permutation in itertools.permutations(range(3)):
        place = list(permutation)
        orders = [[1, 2], [2, 0], [0, 1]]
        moved = [[place.index(j) for j in orders[i]] for i in place]
        found = pcgrad_weights(GRAM[place][:, place], moved)
        torch.testing.assert_close(found, pcgrad_weights(GRAM, orders)[place])


def conflicting():
    """Three tasks on the same pairs whose scores contradict each other."""
    pairs = tuple(zip(sentences(24, 2), sentences(24, 3), strict=True))
    grades = [float(i % 6) for i in range(24)]
    scores = {"up": grades, "down": [5 - x for x in grades], "turned": [grades[(7 * i + 3) % 24] for i in range(24)]}
    return [
        Task(TaskConfig(name, "siamese", "cosent", high=5.0), Examples(pairs, tuple(values)))
        for name, values in scores.items()
    ]


def test_each_step_is_projected_in_its_own_order(tmp_path):
    given = conflicting()
    trainer = trainer_on(tmp_path, given, FitterConfig(batch_size=12), max_steps=8, learning_rate=1e-5)
    trainer.train()
    names = [task.config.name for task in given]
    matters = 0
    for line in (line for line in trainer.state.log_history if "weight_up" in line):
        norms = torch.tensor([line[f"grad_norm_{name}"] for name in names], dtype=torch.float64)
        cosine = torch.eye(3, dtype=torch.float64)
        for i, j in itertools.combinations(range(3), 2):
            cosine[i, j] = cosine[j, i] = line[f"cosine_{names[i]}/{names[j]}"]
        gram = cosine * norms[:, None] * norms[None]
        weights = torch.tensor([line[f"weight_{name}"] for name in names], dtype=torch.float64)
        own = pcgrad_weights(gram, projection_orders(3, 3, line["step"] - 1))
        torch.testing.assert_close(weights, own, rtol=1e-5, atol=1e-6)
        matters += not torch.allclose(own, pcgrad_weights(gram, projection_orders(3, 3, 0)), rtol=1e-3)
    assert matters, "the test needs steps in which the order matters"


OPTIONS = {"max_steps": 3, "learning_rate": 0.05, "adam_epsilon": 1.0, "max_grad_norm": 0, "weight_decay": 0.0}
"""With an epsilon of 1 Adam takes steps in proportion to the gradients, as SGD does: rounding is not turned into signs."""


def train_once(folder):
    trainer = trainer_on(folder, conflicting(), FitterConfig(batch_size=24, optimizer="torch-adamw"), **OPTIONS)
    begun = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.train()
    return trainer, begun


def test_two_processes_take_the_steps_of_one_with_conflicts_in_both(tmp_path):
    alone, begun = train_once(tmp_path)
    lines = [line for line in alone.state.log_history if "weight_up" in line]
    assert any(line["conflict_up/down"] and not math.isclose(line["weight_up"], 1) for line in lines), (
        "it needs conflicts"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    paths = [os.environ.get("PYTHONPATH", ""), str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    command = [sys.executable, __file__, str(tmp_path), str(tmp_path / "two.safetensors")]
    children = [
        subprocess.Popen(
            command,
            env={
                **os.environ,
                **shared,
                "RANK": rank,
                "LOCAL_RANK": rank,
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        said = [child.communicate(timeout=600)[1] for child in children]
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children] == [0, 0], said
    together, one = load_file(tmp_path / "two.safetensors"), alone.model.state_dict()
    assert set(together) == set(one)
    moved = max(float((tensor - begun[name]).abs().max()) for name, tensor in one.items())
    assert moved > 1e-3
    for name, tensor in one.items():
        torch.testing.assert_close(together[name], tensor, rtol=0, atol=1e-6, msg=name)


if __name__ == "__main__":
    from sbert_mini.training import processes

    trained, _ = train_once(Path(sys.argv[1]))
    assert processes.count() == 2
    if processes.number() == 0:
        save_file({name: t.contiguous() for name, t in trained.model.state_dict().items()}, sys.argv[2])
    processes.wait()
    processes.leave()
