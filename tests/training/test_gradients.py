"""Gradients of several tasks, captured and combined."""

import pytest
import torch
from torch import nn

from sbert_mini.errors import UsageError
from sbert_mini.training.gradients import GradientBuffer


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
    buffer = GradientBuffer(parameters, 3, [net.table.weight] if sparse else [])
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
    buffer = GradientBuffer(list(net.parameters()), 1, [net.table.weight])
    with pytest.raises(UsageError, match="sparse=True"), buffer.capture(0):
        net(torch.tensor([1])).backward()


def test_a_task_that_looks_nothing_up_adds_nothing_to_the_table():
    """With w = (1, 2), g₁ = (1, 1) and rows 0 and 2 of the table, and g₂ = (3, 0) alone: G = [[2 + 4, 3], [3, 9]]."""
    w, table = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Embedding(4, 2, sparse=True)
    buffer = GradientBuffer([w, table.weight], 2, [table.weight])
    with buffer.capture(0):
        (w.sum() + table(torch.tensor([0, 2])).sum()).backward()
    with buffer.capture(1):
        (3 * w[0]).backward()
    assert buffer.gram().tolist() == [[6.0, 3.0], [3.0, 9.0]]
    buffer.combine(torch.tensor([2.0, 10.0]))
    assert w.grad.tolist() == [32.0, 2.0]
    assert table.weight.grad.to_dense().tolist() == [[2.0, 2.0], [0.0, 0.0], [2.0, 2.0], [0.0, 0.0]]


def test_gradients_of_tables_are_not_flat():
    table = nn.Embedding(4, 2, sparse=True)
    with pytest.raises(UsageError, match="the gradients of tables are sparse"):
        GradientBuffer([table.weight], 2, [table.weight]).gradients()
