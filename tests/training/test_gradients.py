"""Gradients of tasks of which one does not touch the table of words; tables where flat gradients are asked for."""

import pytest
import torch
from torch import nn

from sbert_mini.errors import UsageError
from sbert_mini.training.gradients import GradientBuffer


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
