"""Shares of a step: worked by hand, and by the laws that they follow; through the trainer, from its own log."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import sentences, trainer_on

from sbert_mini.training.config import FitterConfig
from sbert_mini.training.examples import Examples
from sbert_mini.training.schedule import Schedule
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task


def test_what_lacks_more_gets_more_by_hand():
    # Half of the way from 0.5 and 0.5 to 0.9 and 0.1: 0.7 and 0.3 of 12, 2 each being fixed: 6.4 and 1.6 of 8, so 6 and 2.
    schedule = Schedule("dynamic", {"a": 10, "b": 10}, 12, 1, floor=2)
    assert schedule.reallocate({"a": 0.9, "b": 0.1}, 3) == (8, 4)
    assert schedule.sizes_at(2) == (6, 6)
    assert schedule.sizes_at(3) == (8, 4)


@given(lacks=st.lists(st.floats(0.01, 1), min_size=2, max_size=4), worse=st.integers(0, 3), more=st.floats(0, 1))
def test_a_task_that_falls_behind_gets_no_smaller_share(lacks, worse, more):
    names = [f"t{i}" for i in range(len(lacks))]
    # 36 is divided alike among two, three and four: what is left of a budget would go to the earlier tasks at the start.
    worse %= len(lacks)

    def sizes(values):
        schedule = Schedule("dynamic", dict.fromkeys(names, 10), 36, 1, floor=3)
        return schedule.reallocate(dict(zip(names, values, strict=True)), 0)

    before = sizes(lacks)
    after = sizes([x + more if i == worse else x for i, x in enumerate(lacks)])
    assert sum(before) == sum(after) == 36
    assert min(*before, *after) >= 3
    assert after[worse] >= before[worse]
    highest, lowest = lacks.index(max(lacks)), lacks.index(min(lacks))
    assert before[highest] >= before[lowest]


def ranking(name, rows):
    rows = tuple(rows)
    return Task(TaskConfig(name, "siamese", "multiple-negatives-ranking"), Examples(rows), Examples(rows))


def test_the_batch_moves_to_the_task_with_the_lower_dev_figure(tmp_path):
    texts = sorted(set(sentences(40, 1)))[:12]
    good = ranking("good", zip(texts, texts, strict=True))  # each is nearest to itself: accuracy 1
    bad = ranking("bad", zip(texts, [*texts[1:], texts[0]], strict=True))  # another row's positive is nearer: 0
    config = FitterConfig(batch_size=8, schedule="dynamic", floor=1)
    trainer = trainer_on(tmp_path, [good, bad], config, max_steps=2, eval_strategy="steps", eval_steps=1)
    trainer.train()
    assert [line["eval_good_accuracy"] for line in trainer.state.log_history if "eval_mean" in line] == [1, 1]
    assert [line["eval_bad_accuracy"] for line in trainer.state.log_history if "eval_mean" in line] == [0, 0]
    assert [change.sizes for change in trainer.schedule.history[:2]] == [(4, 4), (2, 6)]


def test_without_dev_figures_the_batch_moves_to_the_task_whose_loss_falls_less(tmp_path):
    texts = sentences(40, 1)
    label = ["x" if "cat" in text else "y" for text in texts]
    learnt = Task(
        TaskConfig("learnt", "single", "cross-entropy", head_dropout=0.0),
        Examples(tuple(("the cat",) if x == "x" else ("red bread",) for x in label), tuple(label)),
    )
    torn = Task(  # one text with both labels: a loss of at least ln 2
        TaskConfig("torn", "single", "cross-entropy", head_dropout=0.0),
        Examples((("the dog",),) * 40, ("x", "y") * 20),
    )
    config = FitterConfig(batch_size=24, schedule="dynamic", floor=1, steps_per_epoch=4, head_learning_rate=0.05)
    trainer = trainer_on(tmp_path, [learnt, torn], config, max_steps=9)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss_torn" in line]
    lacks = []
    for name in ("learnt", "torn"):
        first, second = (math.fsum(line[f"loss_{name}"] for line in lines[s : s + 4]) for s in (0, 4))
        lacks.append(min(second / first, 1))
    assert lacks[0] < 0.8 * lacks[1], "the test needs a loss that falls"
    change = trainer.schedule.history[-1]
    assert change.batch == 8
    assert change.sizes[1] > change.sizes[0]
    assert change.sizes[1] == pytest.approx(24 * (0.25 + 0.5 * lacks[1] / sum(lacks)), abs=1)
