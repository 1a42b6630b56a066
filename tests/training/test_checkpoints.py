"""Checkpoints that cannot be read say which file."""

import pytest
import torch

from sbert_mini.errors import CorruptModelError
from sbert_mini.training.checkpoints import (
    OPTIMIZER,
    STATE,
    load_optimizer_and_scheduler,
    random_state,
    read_state,
    save_state,
)


def optimizer_and_schedule():
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))], lr=0.1)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1)


@pytest.mark.parametrize("content", [None, "{"])
def test_a_state_that_is_missing_or_torn(tmp_path, content):
    if content is not None:
        (tmp_path / STATE).write_text(content)
    with pytest.raises(CorruptModelError, match=f"{STATE} cannot be read"):
        read_state(tmp_path)


def test_an_optimizer_that_is_missing_or_torn(tmp_path):
    save_state(tmp_path, *optimizer_and_schedule(), {"step": 7}, [random_state()])
    assert read_state(tmp_path)["fitter"] == {"step": 7}
    load_optimizer_and_scheduler(tmp_path, *optimizer_and_schedule())
    file = tmp_path / OPTIMIZER
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(CorruptModelError, match=f"{OPTIMIZER} cannot be read"):
        load_optimizer_and_scheduler(tmp_path, *optimizer_and_schedule())
    file.unlink()
    with pytest.raises(CorruptModelError, match=f"{OPTIMIZER} cannot be read"):
        load_optimizer_and_scheduler(tmp_path, *optimizer_and_schedule())
