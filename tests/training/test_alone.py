"""What several processes exchange is, for one alone, what it has."""

import torch

from sbert_mini.training import processes


def test_a_process_alone_exchanges_nothing():
    values, layer = torch.tensor([[1.0, 2.0]]), torch.nn.Linear(2, 1)
    before = layer.weight.clone()
    assert (processes.count(), processes.number()) == (1, 0)
    assert processes.gather(values) is values
    processes.average([values])
    processes.add(values)
    processes.agree([layer])
    processes.wait()
    processes.leave()
    assert values.tolist() == [[1.0, 2.0]]
    assert torch.equal(layer.weight, before)
    assert processes.everyone("said") == ["said"]
