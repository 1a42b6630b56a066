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
