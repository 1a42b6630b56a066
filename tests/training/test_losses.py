"""What a loss is given, and what it comes to: by NumPy, and by hand."""

import json

import numpy as np
import pytest
import torch
from small_tasks import one_step, sentences, trainer_on
from torch import nn

from sbert_mini.errors import UsageError
from sbert_mini.training import losses
from sbert_mini.training.config import FitterConfig
from sbert_mini.training.examples import Examples
from sbert_mini.training.losses import CosineEmbeddingLoss, HardNegativeMargin
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task


def at_cosines(*cosines):
    """Return u and v, (pairs, 2), of these cosines."""
    u = torch.tensor([[1.0, 0.0]]).expand(len(cosines), 2)
    c = torch.tensor(cosines)
    return [u, torch.stack([c, (1 - c * c).sqrt()], dim=1)]


def test_the_margin_follows_the_dissimilar_pairs_alone():
    margin = HardNegativeMargin(0.5, quantile=0.5, rate=0.1, low=-1.0, high=1.0)
    loss = CosineEmbeddingLoss(margin).train()
    loss.compute_loss_from_embeddings(at_cosines(0.9, 0.2, 0.4, 0.8), torch.tensor([1.0, 0.0, 0.0, 1.0]))
    assert margin.value == pytest.approx(0.9 * 0.5 + 0.1 * 0.3)
    loss.compute_loss_from_embeddings(at_cosines(-0.9, 0.9), torch.tensor([1.0, 1.0]))
    assert margin.value == pytest.approx(0.48)  # similar pairs, however far apart, do not move it
    loss.compute_loss_from_embeddings(at_cosines(0.9, -0.2), torch.tensor([0.8, 0.2]))
    assert margin.value == pytest.approx(0.9 * 0.48 + 0.1 * -0.2)


def test_scores_are_scaled_between_low_and_high(tmp_path):
    pairs = tuple(zip(sentences(8, 2), sentences(8, 3), strict=True))
    scores = (1.0, 2.0, 3.0, 4.0, 5.0, 1.5, 2.5, 4.5)
    task = Task(TaskConfig("t", "siamese", "cosine-mse", low=1.0, high=5.0), Examples(pairs, scores))
    assert task.targets(task.train).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0, 0.125, 0.375, 0.875]
    trainer = trainer_on(tmp_path, [task])
    u, v = (trainer.model.encode([row[i] for row in pairs]) for i in (0, 1))
    cosine = np.sum(u * v, axis=1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1)
    expected = np.mean((cosine - (np.array(scores) - 1) / 4) ** 2)
    assert float(one_step(trainer)) == pytest.approx(expected, rel=1e-5)


def graded(name, weight, seed):
    pairs = tuple(zip(sentences(8, seed), sentences(8, seed + 1), strict=True))
    config = TaskConfig(name, "siamese", "cosine-mse", high=5.0, weight=weight)
    return Task(config, Examples(pairs, tuple(float(i % 6) for i in range(8))))


def test_a_weight_of_2_is_the_loss_doubled(tmp_path):
    def step(*weights):
        given = [graded(f"t{i}", weight, 10 * i) for i, weight in enumerate(weights)]
        trainer = trainer_on(
            tmp_path, given, FitterConfig(batch_size=8 * len(given), surgery="sum", optimizer="torch-adamw")
        )
        loss = float(one_step(trainer))
        found = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
        return loss, found

    (one, gradient), (two, doubled) = step(1.0), step(2.0)
    assert two == pytest.approx(2 * one, rel=1e-6)
    for name, tensor in gradient.items():
        torch.testing.assert_close(doubled[name], 2 * tensor, rtol=1e-5, atol=1e-7, msg=name)
    # Of two tasks the weighted one alone counts twice: g(2, 1) - g(1, 1) is the first one's own gradient.
    (both, plain), (more, weighted) = step(1.0, 1.0), step(2.0, 1.0)
    assert more - both == pytest.approx(one, rel=1e-4)
    for name, tensor in gradient.items():
        torch.testing.assert_close(weighted[name] - plain[name], tensor, rtol=1e-3, atol=1e-6, msg=name)


def by_numpy(columns, scale=20.0):
    """Return the ranking loss of anchors, positives and hard negatives: each anchor against all of both."""
    unit = [c / np.linalg.norm(c, axis=1, keepdims=True) for c in columns]
    logits = scale * unit[0] @ np.concatenate(unit[1:]).T
    return float(np.mean(np.log(np.sum(np.exp(logits), axis=1)) - np.diag(logits)))


@pytest.mark.parametrize("loss", ["multiple-negatives-ranking", "cached-multiple-negatives-ranking"])
def test_a_hard_negative_adds_to_the_loss_what_numpy_says(tmp_path, loss):
    texts = sorted(set(sentences(60, 5)))[:18]
    rows = tuple(zip(texts[:6], texts[6:12], texts[12:], strict=True))
    with_negatives = Task(TaskConfig("t", "triplet", loss, mini_batch_size=4), Examples(rows))
    without = Task(TaskConfig("t", "siamese", loss, mini_batch_size=4), Examples(tuple(row[:2] for row in rows)))
    found, expected = [], []
    for task, columns in ((with_negatives, 3), (without, 2)):
        trainer = trainer_on(tmp_path, [task], FitterConfig(batch_size=6))
        vectors = [trainer.model.encode([row[i] for row in rows]).astype(np.float64) for i in range(columns)]
        expected.append(by_numpy(vectors))
        found.append(float(one_step(trainer)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert expected[0] > expected[1] + 0.1


@pytest.mark.parametrize("loss", ["multiple-negatives-ranking", "cached-multiple-negatives-ranking"])
def test_no_text_is_its_own_rows_negative(tmp_path, loss):
    texts = sorted(set(sentences(60, 5)))
    rows = tuple((texts[i], texts[20 + i % 6]) for i in range(12))  # each positive stands twice
    trainer = trainer_on(tmp_path, [Task(TaskConfig("t", "siamese", loss), Examples(rows))], FitterConfig(batch_size=4))
    sampler = trainer.get_train_dataloader().batch_sampler
    for epoch in range(16):
        sampler.set_epoch(epoch)
        positives = [rows[number][1] for _, number in next(iter(sampler))]
        assert len(set(positives)) == 4


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
