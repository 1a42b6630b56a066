"""The optimizer's corners: a closure, and sparse gradients of what is no table."""

import pytest
import torch

from sbert_mini.errors import UsageError
from sbert_mini.training.adamw import AdamW


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
