"""Gradient surgery in the trainer: the orders that Algorithm 1 draws, each step its own, and several processes as one."""

import itertools
import math
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import algorithm_1
from safetensors.torch import load_file, save_file
from small_tasks import one_step, sentences, trainer_on

from sbert_mini.errors import UsageError
from sbert_mini.training import surgery
from sbert_mini.training.config import FitterConfig
from sbert_mini.training.examples import Examples
from sbert_mini.training.surgery import Surgeon, pcgrad_weights, projection_orders
from sbert_mini.training.surgery_rules import OWN_RULES
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task

GRADIENTS = np.array([[1.0, 0.2, 0.0], [-0.6, 0.8, 0.3], [-0.5, -0.9, 0.7]])  # each conflicts with each
GRAM = torch.from_numpy(GRADIENTS @ GRADIENTS.T)


def steps(seeds_and_steps):
    return {
        tuple(np.round(Surgeon("pcgrad", seed).weights(GRAM, step).numpy() @ GRADIENTS, 9) + 0.0)
        for seed, step in seeds_and_steps
    }


def test_every_order_of_algorithm_1_comes_up_over_seeds_and_over_steps():
    others = [[1, 2], [0, 2], [0, 1]]
    possible = {
        tuple(np.round(algorithm_1(GRADIENTS, orders), 9) + 0.0)
        for orders in itertools.product(*map(itertools.permutations, others))
    }
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


@pytest.mark.long
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


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-12)])
@given(seed=st.integers(0, 2**32 - 1), tasks=st.integers(2, 5))
def test_pcgrad_is_algorithm_1_on_vectors(dtype, tolerance, seed, tasks):
    rng = np.random.default_rng(seed)
    gradients = rng.normal(size=(tasks, 7)).astype(dtype) * rng.uniform(0.1, 10, (tasks, 1)).astype(dtype)
    orders = surgery.projection_orders(tasks, seed, 3)
    expected = algorithm_1(gradients.astype(np.float64), orders)
    rows = torch.from_numpy(gradients)
    weights = surgery.pcgrad_weights(rows @ rows.T, orders)
    found = (weights.to(rows.dtype) @ rows).numpy()
    # in parts of the gradients' lengths, times what their coefficients grow to
    scale = float(weights.abs() @ rows.double().norm(dim=1)) * max(1.0, float(weights.abs().max()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


@given(seed=st.integers(0, 2**31 - 1), tasks=st.integers(2, 6))
def test_pcgrad_is_torchjds_under_the_same_permutations(seed, tasks):
    from torchjd.aggregation import PCGradWeighting

    generator = torch.Generator().manual_seed(seed)
    jacobian = torch.randn(tasks, 5, generator=generator, dtype=torch.float64)
    gram = jacobian @ jacobian.T
    torch.manual_seed(seed)
    expected = PCGradWeighting()(gram)
    torch.manual_seed(seed)
    orders = [torch.randperm(tasks).tolist() for _ in range(tasks)]
    torch.testing.assert_close(surgery.pcgrad_weights(gram, orders), expected, rtol=1e-10, atol=1e-10)


def test_a_gradient_is_never_projected_on_itself():
    # Projected on g₁ and then on g₀ itself, g₀ = (1, 0) would lose what it has left along its first direction.
    gradients = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.3, -1.0]], dtype=torch.float64)
    gram = gradients @ gradients.T
    with_itself = [[1, 0, 2], [2, 1, 0], [2, 0, 1]]
    without = [[j for j in order if j != i] for i, order in enumerate(with_itself)]
    assert torch.equal(surgery.pcgrad_weights(gram, with_itself), surgery.pcgrad_weights(gram, without))


@given(seed=st.integers(0, 10_000))
def test_two_tasks_never_conflict_with_the_step(seed):
    g = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 3)))
    step = surgery.pcgrad_weights(g @ g.T, [[1], [0]]) @ g
    assert ((g @ step) >= -1e-12).all()


def test_four_tasks_may_conflict_with_the_step_which_is_why_nothing_else_is_claimed():
    found = 0
    for seed in range(400):
        g = torch.from_numpy(np.random.default_rng(seed).normal(size=(4, 3)))
        step = surgery.pcgrad_weights(g @ g.T, surgery.projection_orders(4, 0, seed)) @ g
        found += bool(((g @ step) < -1e-9).any())
    assert found > 0


def test_without_conflict_every_rule_adds_up():
    g = torch.tensor([[1.0, 0.0, 0.2], [0.0, 2.0, 0.1]], dtype=torch.float64)
    gram, orders = g @ g.T, [[1], [0]]
    assert surgery.pcgrad_weights(gram, orders).tolist() == [1, 1]
    norms = g.norm(dim=1)
    torch.testing.assert_close(surgery.normalized_pcgrad_weights(gram, orders), norms.mean() / norms)
    assert surgery.GradVac()(gram, orders).tolist() == [1, 1]
    assert surgery.Surgeon("sum").weights(gram, 0).tolist() == [1, 1]
    assert surgery.Surgeon("mean").weights(gram, 0).tolist() == [0.5, 0.5]


def test_normalized_pcgrad_does_not_care_how_long_a_gradient_is():
    g = torch.from_numpy(np.random.default_rng(5).normal(size=(3, 6)))
    orders = surgery.projection_orders(3, 1, 1)
    first = surgery.normalized_pcgrad_weights(g @ g.T, orders) @ g
    scaled = g * torch.tensor([[100.0], [1.0], [0.01]], dtype=torch.float64)
    second = surgery.normalized_pcgrad_weights(scaled @ scaled.T, orders) @ scaled
    torch.testing.assert_close(first / first.norm(), second / second.norm())


def test_gradvac_with_still_targets_of_zero_is_pcgrad_and_with_moving_ones_reaches_them():
    g = torch.from_numpy(np.random.default_rng(8).normal(size=(4, 6)))
    orders = surgery.projection_orders(4, 2, 2)
    torch.testing.assert_close(surgery.GradVac(beta=0)(g @ g.T, orders), surgery.pcgrad_weights(g @ g.T, orders))
    vaccine = surgery.GradVac(beta=0)
    vaccine.targets = torch.full((2, 2), 0.6, dtype=torch.float64)
    pair = torch.tensor([[1.0, 0.0], [-0.2, 1.0]], dtype=torch.float64)
    coefficients = []
    for order in ([[1], []], [[], [0]]):  # one task at a time, so that the altered gradient can be seen
        weights = vaccine(pair @ pair.T, order)
        coefficients.append(weights - torch.tensor([0.0, 1.0] if order[0] else [1.0, 0.0], dtype=torch.float64))
    for i, j in ((0, 1), (1, 0)):
        altered = coefficients[i] @ pair
        assert torch.cosine_similarity(altered, pair[j], dim=0).item() == pytest.approx(0.6)


def test_gradvac_is_torchjds_under_the_same_permutations():
    from torchjd.aggregation import GradVacWeighting

    ours, theirs = surgery.GradVac(beta=0.5), GradVacWeighting(beta=0.5)
    for seed in range(5):
        g = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, 5)))
        torch.manual_seed(seed)
        expected = theirs(g @ g.T)
        torch.manual_seed(seed)
        others = [[j for j in range(3) if j != i] for i in range(3)]
        orders = [[rest[n] for n in torch.randperm(2).tolist()] for rest in others]
        torch.testing.assert_close(ours(g @ g.T, orders), expected, rtol=1e-5, atol=1e-5)


def test_any_torchjd_weighting_is_a_rule_and_others_are_checked():
    from torchjd.aggregation import MGDAWeighting

    g = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 5)))
    found = surgery.Surgeon(MGDAWeighting()).weights(g @ g.T, 0)
    torch.testing.assert_close(found, MGDAWeighting()(g @ g.T))
    with pytest.raises(UsageError, match="a weight for each of 3 tasks; found \\(2,\\)"):
        surgery.Surgeon(lambda gram: torch.ones(2)).weights(g @ g.T, 0)
    with pytest.raises(UsageError, match="the surgery must be one of pcgrad"):
        surgery.Surgeon("pcgard")


def test_orders_depend_on_seed_and_step_alone():
    first = [surgery.projection_orders(5, 7, step) for step in range(20)]
    torch.manual_seed(0)
    assert first == [surgery.projection_orders(5, 7, step) for step in range(20)]
    assert len({str(order) for order in first}) > 15
    assert first != [surgery.projection_orders(5, 8, step) for step in range(20)]


def test_a_zero_gradient_is_passed_over():
    g = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    for rule in ("pcgrad", "pcgrad-normalized", "gradvac", "sum-normalized"):
        weights = surgery.Surgeon(rule).weights(g @ g.T, 0)
        assert torch.isfinite(weights).all(), rule


def test_normalized_gradients_add_up_to_mean_length_and_pcgrad_without_conflict_is_their_sum():
    g = torch.tensor([[3.0, 4.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.5]], dtype=torch.float64)
    expected = (5 + 1 + 0.5) / 3 * sum(row / row.norm() for row in g)
    for rule in ("sum-normalized", "pcgrad-normalized"):
        torch.testing.assert_close(surgery.Surgeon(rule).weights(g @ g.T, 3) @ g, expected)
    against = g * torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)[:, None]
    plain, projected = (
        surgery.Surgeon(rule).weights(against @ against.T, 3) for rule in ("sum-normalized", "pcgrad-normalized")
    )
    assert not torch.allclose(plain, projected)


def weighted_step(rule, weights, gradients=GRADIENTS):
    """Return the step of a rule where the tasks' losses have these factors."""
    rows = torch.from_numpy(gradients) * torch.tensor(weights, dtype=torch.float64)[:, None]
    return Surgeon(rule, seed=3, task_weights=weights).weights(rows @ rows.T, 0) @ rows


@pytest.mark.parametrize("rule", OWN_RULES)
def test_a_tasks_weight_multiplies_its_part_of_the_step(rule):
    for task in range(3):
        once, twice, thrice = (
            weighted_step(rule, [float(weight) if i == task else 1.0 for i in range(3)]) for weight in (1, 2, 3)
        )
        part = twice - once
        assert part.norm() > 0.1 * once.norm(), "the weight has no effect"
        torch.testing.assert_close(thrice - twice, part)
    torch.testing.assert_close(weighted_step(rule, [2.0] * 3), 2 * weighted_step(rule, [1.0] * 3))


def test_a_normalized_gradient_is_as_long_as_its_weight_says():
    orthogonal = np.diag([5.0, 1.0, 0.3])
    for rule in ("sum-normalized", "pcgrad-normalized"):
        found = weighted_step(rule, [2.0, 1.0, 0.5], orthogonal)
        torch.testing.assert_close(found, torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64) * (5 + 1 + 0.3) / 3)
        torch.testing.assert_close(weighted_step(rule, [0.0, 1.0, 1.0], orthogonal)[0].item(), 0.0)
        assert weighted_step(rule, [0.0, 0.0, 0.0], orthogonal).tolist() == [0, 0, 0]


def test_the_trainer_gives_the_weights_of_the_tasks_to_the_rule(tmp_path):
    def gradient(weight):
        given = [replace(task, config=replace(task.config, weight=weight)) for task in conflicting()[:1]]
        config = FitterConfig(batch_size=12, surgery="sum-normalized", length_batches=False)
        trainer = trainer_on(tmp_path, [*given, *conflicting()[1:]], config)
        one_step(trainer)
        return trainer.model[0].model.encoder.layer[0].output.dense.weight.grad.clone()

    once, twice, thrice = map(gradient, (1.0, 2.0, 3.0))
    assert (twice - once).norm() > 0.1 * once.norm()
    torch.testing.assert_close(thrice - twice, twice - once, rtol=1e-3, atol=1e-6)
