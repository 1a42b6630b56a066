"""The loss and the outputs of a task."""

import pytest
import torch

import sbert_mini
from sbert_mini.encoder.module import load
from sbert_mini.errors import UsageError
from sbert_mini.training.examples import Examples
from sbert_mini.training.objective import Objective
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task


def test_objectives_are_the_published_losses(make_model):

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


def test_without_a_margin_it_is_the_documented_default(make_model):
    u, v = torch.randn(2, 7, 28, generator=torch.Generator().manual_seed(0))
    task = Task(TaskConfig("t", "siamese", "cosine-embedding"), Examples((("a", "b"),) * 7, (0.0,) * 7))
    loss = Objective(task, sbert_mini.load(make_model(seed=6)))([u, v], task.targets(task.train))
    torch.testing.assert_close(loss, torch.nn.CosineEmbeddingLoss(margin=0.5)(u, v, -torch.ones(7)))


def test_label_shares_give_the_posterior_of_the_other_shares(make_model):
    """Labels drawn 3 to 1, regardless of the text: trained for equal shares, the outputs become equal."""
    rows = tuple((f"w{i % 7} w{i % 5}",) for i in range(40))
    labels = tuple("b" if i % 4 else "a" for i in range(40))
    model = load(make_model(seed=1), device="cpu")
    odds = {}
    for shares in ((), (0.5, 0.5), (0.9, 0.1)):
        task = Task(
            TaskConfig("t", "single", "cross-entropy", label_shares=shares, head_dropout=0.0), Examples(rows, labels)
        )
        objective = Objective(task, model)
        vectors = torch.zeros(40, model.get_embedding_dimension())  # the head's bias is all that can be learnt
        optimizer = torch.optim.LBFGS(objective.parameters(), max_iter=50)

        def closure(objective=objective, optimizer=optimizer, vectors=vectors, task=task):
            optimizer.zero_grad()
            loss = objective([vectors], task.targets(task.train))
            loss.backward()
            return loss

        optimizer.step(closure)
        odds[shares] = objective.outputs([vectors])[0].softmax(dim=0).tolist()
    assert odds[()] == pytest.approx([0.25, 0.75], abs=1e-3)
    assert odds[0.5, 0.5] == pytest.approx([0.5, 0.5], abs=1e-3)
    assert odds[0.9, 0.1] == pytest.approx([0.9, 0.1], abs=1e-3)


def test_label_shares_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="label_shares is for the loss cross-entropy"):
        TaskConfig("t", "siamese", "cosent", label_shares=(0.5, 0.5))
    with pytest.raises(UsageError, match="1 together"):
        TaskConfig("t", "single", "cross-entropy", label_shares=(0.5, 0.6))
    rows = Examples((("x",), ("y",)), ("a", "b"))
    with pytest.raises(UsageError, match="3 shares for 2 labels"):
        Task(TaskConfig("t", "single", "cross-entropy", label_shares=(0.2, 0.2, 0.6)), rows)
