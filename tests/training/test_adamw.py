"""The optimizers against torch's."""

import pytest
import torch
from torch import nn

from sbert_mini.errors import UsageError
from sbert_mini.training.adamw import AdamW


@pytest.mark.parametrize(
    ("decoupled", "eps", "decay"),
    [
        (True, 1e-8, 0.01),
        (True, 1e-6, 0.0),
        (True, 1e-2, 0.3),
        (False, 1e-8, 0.3),
        (False, 1e-6, 0.01),
        (False, 1e-2, 0.0),
    ],
)
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


def test_a_closure_is_run_with_gradients_and_its_loss_is_returned():
    x = torch.nn.Parameter(torch.tensor([3.0]))
    optimizer = AdamW([x], lr=0.1, weight_decay=0.0)

    def closure():
        loss = (x**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9.0
    assert x.item() == pytest.approx(2.9)  # the first step is lr long: m / (1 - β₁) over √(v / (1 - β₂)) is 1


def test_a_sparse_gradient_is_for_a_table():
    x = torch.nn.Parameter(torch.zeros(5))
    x.grad = torch.sparse_coo_tensor(torch.tensor([[1]]), torch.tensor([1.0]), (5,), check_invariants=True)
    with pytest.raises(UsageError, match=r"tables of two dimensions; found \(5,\)"):
        AdamW([x]).step()
