"""The parts of the fitter against independent programs: surgery, optimizer, losses, schedules, heads, checks, recipes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sbert_mini.errors import CorruptModelError, InputError, ModelNotFoundError, UsageError
from sbert_mini.model.heads import HeadConfig, read_head
from sbert_mini.recipes.recipe import read_recipe
from sbert_mini.runtime.predictor import Predictor, siamese_features
from sbert_mini.training import checks, losses, surgery
from sbert_mini.training.adamw import AdamW
from sbert_mini.training.examples import Examples, TokenizedTexts, read_examples
from sbert_mini.training.heads import Head
from sbert_mini.training.schedule import BundleSampler, ExampleStream, Schedule, shares, whole_sizes
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Objective, Task

# --- gradient surgery -------------------------------------------------------------------------------------------------


def algorithm_1(gradients, orders):
    """Yu et al. 2020, algorithm 1, word by word on vectors."""
    total = np.zeros_like(gradients[0])
    for i, order in enumerate(orders):
        g = gradients[i].copy()
        for j in order:
            if j == i:
                continue
            if g @ gradients[j] < 0:
                g -= (g @ gradients[j]) / (gradients[j] @ gradients[j]) * gradients[j]
        total += g
    return total


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


class Net(nn.Module):
    def __init__(self, *, sparse):
        super().__init__()
        torch.manual_seed(3)
        self.table = nn.Embedding(13, 5, padding_idx=0, sparse=sparse)
        self.layer = nn.Linear(5, 3)
        self.double()

    def forward(self, ids):
        return self.layer(self.table(ids)).pow(2).sum()


@pytest.mark.parametrize("sparse", [False, True])
def test_the_buffer_holds_what_autograd_gives_and_adds_micro_batches_up(sparse):
    net, reference = Net(sparse=sparse), Net(sparse=False)
    parameters = list(net.parameters())
    buffer = surgery.GradientBuffer(parameters, 3, [net.table.weight] if sparse else [])
    batches = [[[1, 2], [3, 0]], [[4, 2]], [[5, 5], [1, 6]]]
    for _ in range(2):  # twice: nothing of the first step may be left in the second
        rows = []
        for task, micro in enumerate(batches):
            for ids in micro:
                with buffer.capture(task):
                    net(torch.tensor(ids)).backward()
            total = sum(reference(torch.tensor(ids)) for ids in micro)
            grads = torch.autograd.grad(total, list(reference.parameters()))
            rows.append(torch.cat([g.flatten() for g in grads]))
        expected = torch.stack(rows)
        assert all(p.grad is None for p in parameters)
        torch.testing.assert_close(buffer.gram(), expected @ expected.T)
        weights = torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64)
        buffer.combine(weights)
        combined = torch.cat([(p.grad.to_dense() if p.grad.is_sparse else p.grad).flatten() for p in parameters])
        torch.testing.assert_close(combined, weights @ expected)
        for p in parameters:
            p.grad = None


def test_a_dense_gradient_of_a_table_is_refused():
    net = Net(sparse=False)
    buffer = surgery.GradientBuffer(list(net.parameters()), 1, [net.table.weight])
    with pytest.raises(UsageError, match="sparse=True"), buffer.capture(0):
        net(torch.tensor([1])).backward()


# --- the optimizer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoupled", [True, False])
@pytest.mark.parametrize("eps", [1e-8, 1e-6, 1e-2])
@pytest.mark.parametrize("decay", [0.0, 0.01, 0.3])
def test_adamw_and_adam_are_torchs_over_200_steps(decoupled, eps, decay):
    shapes = [(41, 7), (13,), (1,), (), (3, 5, 2)]
    rng = torch.Generator().manual_seed(1)
    ours = [nn.Parameter(torch.randn(s, generator=rng, dtype=torch.float64)) for s in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    options = {"lr": 0.01, "betas": (0.85, 0.99), "eps": eps, "weight_decay": decay}
    one = AdamW(ours, decoupled=decoupled, **options)
    other = (torch.optim.AdamW if decoupled else torch.optim.Adam)(theirs, foreach=False, **options)
    for step in range(200):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=rng, dtype=torch.float64) * (10 if step % 50 == 0 else 0.1)
            q.grad = p.grad.clone()
        one.step()
        other.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-12)


def test_blocks_and_strides_change_nothing(monkeypatch):
    from sbert_mini.training import adamw

    monkeypatch.setattr(adamw, "_BLOCK", 17)
    p, q = (nn.Parameter(torch.arange(23 * 11, dtype=torch.float64).reshape(23, 11).T / 100) for _ in range(2))
    assert not p.is_contiguous()
    r = nn.Parameter(p.detach().contiguous())
    optimizers = [AdamW([p], lr=0.1), torch.optim.AdamW([q], lr=0.1, foreach=False), AdamW([r], lr=0.1)]
    for _ in range(5):
        gradient = torch.randn(11, 23, dtype=torch.float64)
        for parameter in (p, q, r):
            parameter.grad = gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(p, q, rtol=0, atol=1e-12)
    torch.testing.assert_close(r, q, rtol=0, atol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_rows_that_no_batch_touched_are_skipped_and_decayed_exactly(decay):
    torch.manual_seed(2)
    tables = [nn.Embedding(31, 5, sparse=sparse, dtype=torch.float64) for sparse in (True, False)]
    tables[1].load_state_dict(tables[0].state_dict())
    ours = AdamW(tables[0].parameters(), lr=0.05, weight_decay=decay)
    theirs = torch.optim.AdamW(tables[1].parameters(), lr=0.05, weight_decay=decay, foreach=False)
    for step in range(40):
        ids = torch.randint(0, 10 + step // 4, (3, 4))
        for table, optimizer in zip(tables, (ours, theirs), strict=True):
            optimizer.zero_grad()
            (table(ids) ** 3).sum().backward()
            optimizer.step()
        if step == 20:  # through a state dict, as a checkpoint does
            again = AdamW(tables[0].parameters(), lr=0.05, weight_decay=decay)
            again.load_state_dict(ours.state_dict())
            ours = again
    torch.testing.assert_close(tables[0].weight, tables[1].weight, rtol=0, atol=1e-12)
    (state,) = ours.state.values()
    assert len(state["rows"]) < 31
    assert state["rows"].dtype == torch.long


def test_what_the_optimizer_refuses():
    p = nn.Parameter(torch.zeros(3))
    for options, match in (({"lr": -1}, "lr"), ({"betas": (0.9, 1.0)}, "betas"), ({"eps": float("nan")}, "eps")):
        with pytest.raises(UsageError, match=match):
            AdamW([p], **options)
    table = nn.Embedding(3, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(UsageError, match="use AdamW"):
        AdamW(table.parameters(), decoupled=False, weight_decay=0.1).step()


# --- losses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [-0.3, 0.0, 0.5])
def test_cosine_embedding_loss_is_torchs(margin):
    u, v = torch.randn(2, 29, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    u.requires_grad_()
    labels = (torch.arange(29) % 3 == 0).double()
    ours = losses.CosineEmbeddingLoss(margin).compute_loss_from_embeddings([u, v], labels)
    (gradient,) = torch.autograd.grad(ours, u)
    theirs = nn.CosineEmbeddingLoss(margin=margin)(u, v, 2 * labels - 1)
    (expected,) = torch.autograd.grad(theirs, u)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradient, expected)


def test_a_graded_pair_counts_for_both_terms_in_proportion():
    u, v = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
    found = losses.CosineEmbeddingLoss(0.2).compute_loss_from_embeddings([u, v], torch.tensor([0.75]))
    assert found.item() == pytest.approx(0.75 * 0.4 + 0.25 * 0.4)
    with pytest.raises(UsageError, match=r"in \[0, 1\]"):
        losses.CosineEmbeddingLoss().compute_loss_from_embeddings([u, v], torch.tensor([-1.0]))
    with pytest.raises(UsageError, match="found 3 columns"):
        losses.CosineEmbeddingLoss().compute_loss_from_embeddings([u, v, v], torch.tensor([1.0]))


def test_a_scheduled_margin_goes_from_start_to_end():
    linear, cosine = losses.ScheduledMargin(0.8, 0.2), losses.ScheduledMargin(0.8, 0.2, "cosine")
    for progress, straight, curved in (
        (0, 0.8, 0.8),
        (0.25, 0.65, 0.8 - 0.6 * (1 - np.cos(np.pi / 4)) / 2),
        (1, 0.2, 0.2),
    ):
        linear.advance(progress)
        cosine.advance(progress)
        assert (linear.value, cosine.value) == (pytest.approx(straight), pytest.approx(curved))


def test_a_margin_follows_the_hard_negatives_and_is_kept():
    loss = losses.CosineEmbeddingLoss(losses.HardNegativeMargin(0.5, quantile=0.5, rate=0.1))
    u = torch.eye(4)[[0, 0, 0, 0]]
    v = torch.tensor([[0.9, 0.43589, 0, 0], [0.7, 0.71414, 0, 0], [0.5, 0.86603, 0, 0], [1.0, 0, 0, 0]])
    labels = torch.tensor([0.0, 0.0, 0.0, 1.0])
    loss.eval()
    loss.compute_loss_from_embeddings([u, v], labels)
    assert loss.margin.value == 0.5  # not moved by an evaluation
    loss.train()
    loss.compute_loss_from_embeddings([u, v], labels)
    assert loss.margin.value == pytest.approx(0.9 * 0.5 + 0.1 * 0.7, abs=1e-4)  # the median of the dissimilar pairs
    again = losses.HardNegativeMargin(0.1)
    again.load_state(json.loads(json.dumps(loss.margin.state())))
    assert again.value == loss.margin.value
    for _ in range(500):
        loss.margin.observe(torch.tensor([0.99]))
    assert loss.margin.value == 0.9  # no higher than `high`
    by_epoch = losses.HardNegativeMargin(0.5, quantile=1.0, rate=1.0, every="epoch")
    by_epoch.observe(torch.tensor([0.1, 0.3]))
    by_epoch.observe(torch.tensor([0.2]))
    resumed = losses.HardNegativeMargin(0.5, quantile=1.0, rate=1.0, every="epoch")
    resumed.load_state(by_epoch.state())
    for margin in (by_epoch, resumed):
        assert margin.value == 0.5
        margin.end_epoch()
        assert margin.value == pytest.approx(0.3)


# --- schedules --------------------------------------------------------------------------------------------------------


def test_shares_by_hand():
    assert shares("round-robin", [100, 400], 0, 3) == [0.5, 0.5]
    assert shares("proportional", [100, 400], 0, 3) == pytest.approx([0.2, 0.8])
    assert shares("square-root", [100, 400], 0, 3) == pytest.approx([1 / 3, 2 / 3])
    assert shares("annealed", [100, 400], 0, 3) == pytest.approx([0.2, 0.8])
    last = [100**0.2, 400**0.2]
    assert shares("annealed", [100, 400], 2, 3) == pytest.approx([x / sum(last) for x in last])
    with pytest.raises(UsageError, match="the schedule must be one of"):
        shares("random", [1], 0, 1)


@given(wanted=st.lists(st.floats(0.01, 1), min_size=1, max_size=6), floor=st.integers(1, 4), spare=st.integers(0, 40))
def test_whole_sizes_add_up_keep_the_floor_and_stay_near(wanted, floor, spare):
    wanted = [w / sum(wanted) for w in wanted]
    budget = floor * len(wanted) + spare
    sizes = whole_sizes(wanted, budget, floor)
    assert sum(sizes) == budget
    assert min(sizes) >= floor
    if all(w * budget >= floor for w in wanted):
        assert all(abs(size - w * budget) < 1 + 1e-9 for size, w in zip(sizes, wanted, strict=True))


def test_sizes_that_cannot_be():
    with pytest.raises(UsageError, match="a step of 5 examples cannot hold at least 2 of each of 3 tasks"):
        whole_sizes([1 / 3] * 3, 5, 2)


def test_a_dynamic_schedule_goes_half_way_to_what_tasks_lack_and_replays():
    schedule = Schedule("dynamic", {"a": 900, "b": 10}, 20, 1, floor=3)
    assert schedule.sizes_at(0) == (10, 10)
    assert schedule.reallocate({"a": 0.1, "b": 0.3}, 5) == (8, 12)  # half way from ½, ½ to ¼, ¾: 7.5, 12.5
    assert (schedule.sizes_at(4), schedule.sizes_at(5)) == ((10, 10), (8, 12))
    assert schedule.reallocate({"a": 0.0, "b": 1.0}, 9) == (4, 16)
    for batch in range(10, 20):
        schedule.reallocate({"a": 0.0, "b": 1.0}, batch)
    assert schedule.sizes_at(99) == (3, 17)  # the floor
    again = Schedule("dynamic", {"a": 900, "b": 10}, 20, 1, floor=3)
    again.load_state(json.loads(json.dumps(schedule.state())))
    assert again.history == schedule.history
    with pytest.raises(UsageError, match="a lack of at least 0 is needed for each of a, b"):
        schedule.reallocate({"a": 1.0}, 3)
    still = Schedule("round-robin", {"a": 900, "b": 10}, 20, 1)
    assert still.reallocate({"a": 0.0, "b": 1.0}, 5) == (10, 10)


@settings(max_examples=30)
@given(count=st.integers(1, 300), size=st.integers(1, 17), seed=st.integers(0, 99), by_length=st.booleans())
def test_a_stream_gives_each_example_once_a_pass(count, size, seed, by_length):
    lengths = np.random.default_rng(seed).integers(3, 40, count) if by_length else None
    stream = ExampleStream(count, lengths, (seed,))
    taken = [i for _ in range(3 * (count // size + 1)) for i in stream.take(size)]
    passes = len(taken) // count
    for number in range(passes):
        assert sorted(taken[number * count : (number + 1) * count]) == list(range(count))
    again = ExampleStream(count, lengths, (seed,))
    assert taken == [i for _ in range(3 * (count // size + 1)) for i in again.take(size)]


def test_batches_are_of_like_length_and_hold_no_text_twice():
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 60, 1000)
    stream = ExampleStream(1000, lengths, (1,))
    batches = [stream.take(10) for _ in range(100)]
    padded = sum(lengths[b].max() * 10 for b in batches)
    assert padded / lengths.sum() < 1.1
    keys = [(int(i % 100), 1000 + i) for i in range(1000)]  # every text of the first column ten times
    stream = ExampleStream(1000, lengths, (1,), keys)
    taken = [stream.take(10) for _ in range(100)]
    assert sorted(i for b in taken for i in b) == list(range(1000))
    clean = sum(len({keys[i][0] for i in b}) == 10 for b in taken)
    assert clean >= 97  # the last batches of a pool may have nothing else left


def test_bundles_replay_from_seed_epoch_and_history():
    def sampler():
        schedule = Schedule("dynamic", {"a": 50, "b": 20}, 10, 2, floor=2)
        return BundleSampler(schedule, [50, 20], [None, None], 8, 5, [None, None])

    first = sampler()
    first.set_epoch(1)
    drawn = []
    for number, batch in enumerate(first):
        drawn.append(batch)
        if number == 3:
            first.schedule.reallocate({"a": 0.0, "b": 1.0}, first.next_batch)
    assert [len([t for t, _ in b if t == 0]) for b in drawn] == [5] * 4 + [3] * 4  # 2.5, the remainder to the first
    second = sampler()
    second.schedule.load_state(first.schedule.state())
    second.set_epoch(1)
    assert list(second) == drawn
    second.set_epoch(0)
    assert list(second) != drawn


def test_annealed_sizes_change_with_the_epoch():
    schedule = Schedule("annealed", {"a": 1000, "b": 10}, 40, 5, floor=1)
    sampler = BundleSampler(schedule, [1000, 10], [None, None], 3, 0, [None, None])
    sizes = []
    for epoch in range(5):
        sampler.set_epoch(epoch)
        list(sampler)
        sizes.append(schedule.sizes_at(epoch * 3)[1])
    assert sizes == sorted(sizes)
    assert sizes[0] == 1
    assert sizes[-1] > 8


# --- tasks and heads --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", ["single", "siamese", "pair"])
@pytest.mark.parametrize(("kind", "hidden"), [("classification", 0), ("classification", 11), ("regression", 0)])
def test_a_head_says_the_same_with_and_without_torch(make_model, structure, kind, hidden):
    path = make_model(seed=4)
    labels = ("no", "yes", "maybe") if kind == "classification" else ()
    torch.manual_seed(1)
    head = Head(HeadConfig("task", structure, kind, 28, labels, low=1, high=5, hidden=hidden, dropout=0.5)).eval()
    with torch.no_grad():
        head.output.bias.normal_()
    head.save(path)
    predictor = Predictor(path, graph="fp32")
    pairs = [("the cat sleeps", "a dog runs"), ("red house", "blue house"), ("bread", "dough rises")]
    inputs = [a for a, _ in pairs] if structure == "single" else pairs
    if structure == "pair":
        vectors = [torch.from_numpy(predictor.embedder.encode_pairs(pairs))]
    else:
        columns = [inputs] if structure == "single" else list(zip(*pairs, strict=True))
        vectors = [torch.from_numpy(predictor.embedder.encode(list(c))) for c in columns]
    with torch.no_grad():
        logits = Head.load(path, "task")(*vectors).double()
    for row, found in zip(logits, predictor.predict(inputs), strict=True):
        if kind == "regression":
            assert found.score == pytest.approx(1 + 4 * torch.sigmoid(row[0]).item(), abs=1e-5)
        else:
            expected = row.softmax(dim=-1).tolist()
            assert list(found.probabilities) == list(labels)
            assert list(found.probabilities.values()) == pytest.approx(expected, abs=1e-5)
            assert found.label == labels[int(np.argmax(expected))]


def test_a_similarity_head_and_its_features(make_model):
    path = make_model(seed=4)
    Head(HeadConfig("sim", "siamese", "similarity", 28, low=0, high=5)).save(path)
    predictor = Predictor(path, "sim", graph="fp32")
    same, other = predictor.predict([("the cat", "the cat"), ("the cat", "bread rises")])
    assert (same.cosine, same.score) == (pytest.approx(1, abs=1e-5), pytest.approx(5, abs=1e-4))
    assert other.score == pytest.approx(5 * max(other.cosine, 0))
    u, v = np.array([[1.0, -2.0]]), np.array([[3.0, 5.0]])
    assert siamese_features(u, v).tolist() == [[1, -2, 3, 5, 2, 7, 3, -10]]
    with pytest.raises(UsageError, match="the head 'sim' reads two texts an input"):
        predictor.predict(["one"])
    with pytest.raises(ModelNotFoundError, match="has no head 'other'; it has: sim"):
        Predictor(path, "other")


def test_a_damaged_head_is_an_error(make_model):
    path = make_model(seed=4)
    head = Head(HeadConfig("t", "single", "classification", 28, ("a", "b")))
    head.save(path)
    assert read_head(path, "t")[0] == head.config
    text = (path / "heads" / "t" / "config.json").read_text()
    for old, new, match in (
        ('"format": 1', '"format": 2', "is not of format 1"),
        ('"dimension": 28', '"dimension": 29', r"must have the shape \(2, 29\); found \(2, 28\)"),
        ('"single"', '"double"', "structure must be one of"),
    ):
        (path / "heads" / "t" / "config.json").write_text(text.replace(old, new))
        with pytest.raises(CorruptModelError, match=match):
            read_head(path, "t")


def test_pairs_are_one_input_and_a_forged_separator_is_none(make_model):
    from sbert_mini import Embedder

    path = make_model(seed=5)
    embedder = Embedder(path, graph="fp32")
    pair, forged = embedder.encode_pairs([("the cat", "a dog")]), embedder.encode(["the cat [SEP] a dog"])
    assert np.abs(pair - forged).max() > 1e-3
    from sbert_mini.encoder.bert import MiniBert
    from sbert_mini.encoder.pooling import pool
    from sbert_mini.model.layout import read_layout
    from sbert_mini.text.batching import pad
    from sbert_mini.text.tokenizer import open_tokenizer

    arrays = [torch.from_numpy(a) for a in pad(open_tokenizer(read_layout(path)).encode([("the cat", "a dog")]), 0)]
    assert arrays[2].sum() > 0  # segment ids
    states = MiniBert.from_pretrained(path)(*arrays).last_hidden_state
    expected = torch.nn.functional.normalize(pool(states, arrays[1], "mean"), dim=-1).detach().numpy()
    np.testing.assert_allclose(pair, expected, atol=1e-5)
    with pytest.raises(UsageError, match="cannot be read in pieces"):
        embedder.encode_pairs([("a", "b")], truncation="chunk")
    with pytest.raises(UsageError, match="pair 0 is a str"):
        embedder.encode_pairs(["ab"])


def test_tasks_check_what_they_are_given():
    def task(loss="cross-entropy", structure="single", texts=(("a",), ("b",)), labels=("1", "2"), **options):
        return Task(TaskConfig("t", structure, loss, **options), Examples(texts, labels))

    assert task(texts=(("a",), ("b",), ("c",)), labels=("10", "9", "x")).labels == ("9", "10", "x")
    for make, kind, match in (
        (lambda: task(structure="siamese"), UsageError, "has 2 texts a row; the train rows have 1"),
        (lambda: task(labels=None), UsageError, "needs labels, and the train rows have none"),
        (lambda: task(labels=("2", "2")), InputError, "needs at least two labels; found \\('2',\\)"),
        (
            lambda: task("cosent", "siamese", (("a", "b"),), (7.0,), high=5.0),
            InputError,
            r"7.0 is outside \[0.0, 5.0\]",
        ),
        (
            lambda: TaskConfig("t", "single", "cosent"),
            UsageError,
            "cosent is for the structures siamese; found 'single'",
        ),
        (lambda: TaskConfig("a b", "single", "cross-entropy"), UsageError, "letters, digits"),
        (lambda: TaskConfig("t", "single", "hinge"), UsageError, "task.loss must be one of"),
        (
            lambda: TaskConfig("t", "siamese", "cosent", metric="accuracy"),
            UsageError,
            "has pearson, spearman; found 'accuracy'",
        ),
    ):
        with pytest.raises(kind, match=match):
            make()
    config = TaskConfig("t", "single", "cross-entropy", labels=("a", "b"))
    with pytest.raises(InputError, match="task 't', dev row 2: the label 'c' is not one of 'a', 'b'"):
        Task(config, Examples((("x",),), ("a",)), Examples((("x",), ("y",)), ("a", "c")))


def test_a_ranking_loss_takes_positive_rows_only():
    rows = (("a", "b"), ("c", "d"), ("e", "f"))
    config = TaskConfig("t", "siamese", "multiple-negatives-ranking")
    kept = Task(config, Examples(rows, (1.0, 0.0, 1.0)), Examples(rows, (0.0, 0.0, 1.0))).trained()
    assert kept.dev.texts == (rows[2],)
    assert kept.train.texts == (rows[0], rows[2])
    assert kept.train.counts == {"dropped: label below 1": 1}


def test_objectives_are_the_published_losses(make_model):
    import sbert_mini

    model = sbert_mini.load(make_model(seed=6))
    u, v, w = torch.randn(3, 7, 28, generator=torch.Generator().manual_seed(0))
    texts3, texts2 = tuple((f"a{i}", f"b{i}", f"c{i}") for i in range(7)), tuple((f"a{i}", f"b{i}") for i in range(7))
    scores = tuple(i / 6 * 5 for i in range(7))

    def value(loss, vectors, structure, texts, labels=None, **options):
        task = Task(TaskConfig("t", structure, loss, **options), Examples(texts, labels))
        return Objective(task, model)(vectors, task.targets(task.train)).item()

    cos = torch.nn.functional.cosine_similarity
    found = value("multiple-negatives-ranking", [u, v], "siamese", texts2)
    logits = 20 * cos(u[:, None], v[None], dim=-1)
    assert found == pytest.approx(torch.nn.functional.cross_entropy(logits, torch.arange(7)).item(), abs=1e-4)
    found = value("triplet", [u, v, w], "triplet", texts3, triplet_margin=0.3)
    assert found == pytest.approx((cos(u, w) - cos(u, v) + 0.3).clamp_min(0).mean().item(), abs=1e-5)
    found = value("cosine-mse", [u, v], "siamese", texts2, scores, high=5.0)
    assert found == pytest.approx(((cos(u, v) - torch.tensor(scores) / 5) ** 2).mean().item(), abs=1e-5)
    found = value("cosent", [u, v], "siamese", texts2, scores, high=5.0)
    s = 20 * cos(u, v)
    pairs = [s[i] - s[j] for i in range(7) for j in range(7) if scores[i] < scores[j]]
    assert found == pytest.approx(torch.logsumexp(torch.stack([torch.tensor(0.0), *pairs]), 0).item(), abs=1e-4)


# --- examples and checks ----------------------------------------------------------------------------------------------


def test_examples_are_read_with_the_line_of_what_is_wrong(tmp_path):
    (tmp_path / "a.csv").write_text('x,y,grade\n"a, b",c,1.5\nd,e,2\n')
    held = read_examples([tmp_path / "a.csv"] * 2, ["x", "y"], "grade", graded=True)
    assert held.texts == (("a, b", "c"), ("d", "e")) * 2
    assert held.labels == (1.5, 2.0) * 2
    assert read_examples([tmp_path / "a.csv"], ["x"], "grade").labels == ("1.5", "2")
    (tmp_path / "course.csv").write_text("\tid\tsentence\tsentiment\n0\tk\t a film , she said\t3\n")
    held = read_examples([tmp_path / "course.csv"], ["sentence"], "sentiment")
    assert (held.texts, held.labels) == (((" a film , she said",),), ("3",))
    for content, match in (
        ("x,y,grade\na,b,c\n", "a.csv, line 2: the score must be a finite number, and is 'c'"),
        ("x,y,grade\na,,1\n", "a.csv, line 2: 'y' must be a text"),
        ("x,z,grade\na,b,1\n", "there is no column 'y'; the columns are x, z, grade"),
        ("x,y,grade\n", "there is no row"),
    ):
        (tmp_path / "a.csv").write_text(content)
        with pytest.raises(InputError, match=re.escape(match)):
            read_examples([tmp_path / "a.csv"], ["x", "y"], "grade", graded=True)


def test_tokenized_texts_are_the_tokenizers(minilm):
    from sbert_mini.model.layout import read_layout
    from sbert_mini.text.tokenizer import open_tokenizer

    tokenizer = open_tokenizer(read_layout(minilm))
    inputs = ["a cat", ("one text", "and another one"), "word " * 400]
    held = TokenizedTexts(inputs, tokenizer)
    assert held.truncated == 1
    for number, tokens in enumerate(tokenizer.encode(inputs)):
        assert held[number].ids.tolist() == tokens.ids
        assert held[number].type_ids.tolist() == tokens.type_ids
        assert held.lengths[number] == len(tokens.ids)


def test_overlap_is_unordered_and_normalised():
    dev = [("A cat, asleep.", "The dog"), ("x", "y")]
    rows = [("the DOG!", "a cat asleep"), ("a cat asleep", "a dog"), ("x", "z")]
    assert checks.overlap(rows, dev) == [True, False, False]
    assert checks.normalized("Is C# hard?") != checks.normalized("is c++ hard")
    assert checks.normalized("👍") != checks.normalized("👎")
    assert checks.normalized("कि") != checks.normalized("की")
    assert checks.normalized("  Café—au lait ") == "café au lait"
    assert checks.overlap([("X", "q", "Y"), ("q", "x", "y")], dev) == [True, False]  # anchor with either of the others
    counted = checks.overlap_counts({"t": Examples(tuple(rows))}, {"sts12": dev, "sts13": [("p", "q")]})
    assert counted == {"sts12": {"t": 1}}


def test_findings_say_what_is_odd():
    train = Examples((("a [SEP] b",), ("good",), ("Good!",), ("bad",)), ("1", "1", "0", "1"))
    said = [f.text for f in checks.findings("t", train, Examples((("BAD",),), ("1",)), ["0", "1", "2"])]
    assert said == [
        "1 texts hold [SEP], [CLS] or the like; they are read as text and never as the special token",
        "1 of 4 rows repeat an earlier row's texts",
        "1 texts stand with different labels",
        "labels: 0 25.0%, 1 75.0%, 2 0.0%",
        "no row is labelled 2",
        "dev: every row is labelled 1: a model that always says so has an accuracy of 1",
        "1 train rows stand in the dev set too; drop_overlap = true leaves them out",
    ]


def test_leakage_of_the_real_data_is_what_their_readme_counts(data):
    held = read_examples([data / "nli_train.tsv.gz"], ["premise", "hypothesis"], None)
    from sbert_mini.evaluation.sets import find_set

    sick = find_set(data, "sickr")
    rows = list(zip(sick.first, sick.second, strict=True))
    (count,) = checks.overlap_counts({"nli": held}, {"sickr": rows})["sickr"].values()
    assert count == pytest.approx(4420, abs=30)


# --- recipes ----------------------------------------------------------------------------------------------------------

GOOD = """[model]
output = "out"

[train]
steps = 10

[[task]]
name = "one"
structure = "single"
loss = "cross-entropy"
train = "a.csv"

[[task]]
name = "two"
structure = "siamese"
loss = "cosine-embedding"
train = ["a.csv", "b.csv"]
dev = "c.csv"

[task.margin]
rule = "scheduled"
"""


def test_a_recipe_is_read(tmp_path):
    (tmp_path / "r.toml").write_text(GOOD)
    recipe = read_recipe(tmp_path / "r.toml")
    assert (recipe.train.steps, recipe.train.surgery, recipe.model.start) == (10, "pcgrad", "sbert-mini")
    one, two = recipe.tasks
    assert (one.text_columns(), two.text_columns()) == (["text"], ["sentence1", "sentence2"])
    assert (two.files("train"), two.margin.rule, one.margin) == (["a.csv", "b.csv"], "scheduled", None)
    assert recipe.resolve("x.csv") == tmp_path / "x.csv"
    json.dumps(recipe.to_json())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("steps = 10", "stepz = 10", "line 5: there is no key train.stepz (did you mean steps?)"),
        ("steps = 10", "steps = 0", "line 5: train.steps must be at least 1; found 0"),
        ("steps = 10", 'steps = "10"', "line 5: train.steps must be a whole number; found '10'"),
        ("steps = 10", "steps = true", "line 5: train.steps must be a whole number; found true"),
        ("steps = 10", "", "line 4: train.steps or train.epochs is needed"),
        ("steps = 10", "steps = 10\nepochs = 2", "line 4: train.steps or train.epochs is needed"),
        ("steps = 10", 'steps = 10\nsurgery = "pcgard"', "(did you mean pcgrad?)"),
        (
            "steps = 10",
            "steps = 10\nbatch_size = 6",
            "line 6: train.batch_size: 6 examples cannot hold train.floor = 4",
        ),
        ('output = "out"', "", "line 1: model.output is missing"),
        ("[model]", "[models]", "line 1: there is no table or key 'models' (did you mean model?)"),
        ('name = "two"', 'name = "one"', "line 14: task.name: two tasks are called 'one'"),
        ('structure = "siamese"', 'structure = "siames"', "line 15: task.structure must be one of single, siamese"),
        ('dev = "c.csv"', "dev = 3", "line 18: task.dev must be a string or a list of strings; found 3"),
        ('rule = "scheduled"', 'role = "scheduled"', "line 21: there is no key task.margin.role (did you mean rule?)"),
        ('train = "a.csv"', "", "line 7: task.train is missing"),
        ("[[task]]", "[task]", "not TOML"),
        ('loss = "cross-entropy"', 'loss = "hinge"', "line 10: task.loss must be one of cross-entropy, regression"),
        ('loss = "cross-entropy"', 'loss = "cosent"', "line 10: task.loss: cosent is for the structures siamese"),
        ('dev = "c.csv"', 'dev = "c.csv"\nmetric = "accuracy"', "has pearson, spearman; found 'accuracy'"),
        ('dev = "c.csv"', "head_dropout = 1.5", "line 18: task.head_dropout must be at most 0.95; found 1.5"),
        ('train = "a.csv"', "train = []", "line 11: task.train names no file"),
        ("steps = 10", "epochs = inf", "line 5: train.epochs must be finite"),
        ('name = "two"', 'name = "my task"', "line 14: task.name is made of letters"),
        (
            'rule = "scheduled"',
            'rule = "fixed"\nvalue = 5.0',
            "line 22: task.margin.value must be at most 1; found 5.0",
        ),
        ('dev = "c.csv"', 'labels = ["a", "b", "a"]', "line 18: task.labels: 'a' is named twice"),
        ("steps = 10", "steps = 10\nsave_every = 3", "line 6: train.save_every is for runs without a dev file"),
        ("steps = 10", "epochs = 0", "line 5: train.epochs must be at least 0.001; found 0"),
        (
            "steps = 10",
            "steps = 10\n[data]\ndrop_evaluation = true",
            "line 7: data.drop_evaluation needs data.evaluation",
        ),
        ("steps = 10", "steps = = 10", "not TOML"),
    ],
)
def test_a_mistake_in_a_recipe_is_named_with_its_line(tmp_path, old, new, said):
    (tmp_path / "r.toml").write_text(GOOD.replace(old, new, 1))
    with pytest.raises(UsageError, match=re.escape(said)):
        read_recipe(tmp_path / "r.toml")


def test_environment_variables_in_paths(tmp_path, monkeypatch):
    (tmp_path / "r.toml").write_text('[data]\nfolder = "$SBMINI_TEST_FOLDER/x"\n' + GOOD)
    recipe = read_recipe(tmp_path / "r.toml")
    with pytest.raises(UsageError, match="names the environment variable SBMINI_TEST_FOLDER, which is not set"):
        recipe.resolve("a.csv")
    monkeypatch.setenv("SBMINI_TEST_FOLDER", "/there")
    assert recipe.resolve("a.csv") == Path("/there/x/a.csv")
    assert recipe.resolve("a.csv", in_data=False) == tmp_path / "a.csv"


def test_a_recipes_choices_are_those_of_the_parts():
    from sbert_mini.recipes import recipe
    from sbert_mini.training import trainer

    assert (*surgery.RULES, "none") == recipe.SURGERY
    choices = {f.name: f.metadata["choices"] for f in recipe.fields(recipe.OptimizerPart)}
    assert choices["name"] == trainer.OPTIMIZERS


def test_every_recipe_that_ships_is_sound():
    folder = Path(__file__).parent.parent / "sbert_mini" / "examples" / "recipes"
    files = sorted(folder.glob("*.toml"))
    assert len(files) >= 6
    for file in files:
        recipe = read_recipe(file)
        assert file.read_text("utf-8").startswith("# ")
        for part in recipe.tasks:
            TaskConfig(part.name, part.structure, part.loss, metric=part.metric)
