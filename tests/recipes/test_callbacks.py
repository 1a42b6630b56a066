"""How a run tells of itself: a bar on a terminal, a log that the first process writes."""

import os
import pty
import re
import select
import sys

import pytest
from transformers import TrainerControl, TrainerState

from sbert_mini.recipes.callbacks import LogCallback, ProgressCallback


def test_the_bar_begins_where_the_run_goes_on_and_shows_the_loss(monkeypatch):
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        told, state, control = ProgressCallback(bar=True), TrainerState(max_steps=8, global_step=2), TrainerControl()
        told.on_train_begin(None, state, control)
        state.global_step = 6
        told.on_log(None, state, control, logs={"eval_mean": 0.5})
        told.on_log(None, state, control, logs={"loss": 0.123456})
        told.on_step_end(None, state, control)
        told.on_train_end(None, state, control)
        told.close()  # a second time does nothing
        terminal.flush()
        shown = ""
        while "75%" not in shown:  # a read may give a part of what was written
            assert select.select([ours], [], [], 60)[0], shown
            shown += os.read(ours, 65536).decode()
    os.close(ours)
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split("\r|\n", shown)]
    assert any(re.match(r"training .*2/8 25%", line) for line in lines), lines
    assert any(re.match(r"loss 0\.123 .*6/8 75%", line) for line in lines), lines


def test_without_a_bar_nothing_is_drawn_and_figures_are_told(caplog, capsys):
    caplog.set_level("INFO", logger="sbert_mini")
    told, state, control = ProgressCallback(bar=False), TrainerState(max_steps=8, global_step=2), TrainerControl()
    told.on_train_begin(None, state, control)
    told.on_log(None, state, control, logs={"loss": 0.5})
    told.on_evaluate(None, state, control, metrics={"eval_sts_pearson": 0.25, "eval_mean": None, "epoch": 1.0})
    told.on_step_end(None, state, control)
    told.on_train_end(None, state, control)
    assert caplog.messages == ["step 2 of 8: sts pearson 0.2500, mean undefined"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("first", [True, False])
def test_the_first_process_writes_the_log(tmp_path, first):
    state = TrainerState(global_step=3, is_world_process_zero=first)
    LogCallback(tmp_path / "run" / "log.jsonl").on_log(None, state, TrainerControl(), logs={"loss": 0.5})
    assert (tmp_path / "run").exists() is first
    if first:
        assert (tmp_path / "run" / "log.jsonl").read_text() == '{"step": 3, "loss": 0.5}\n'
