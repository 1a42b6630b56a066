"""Shares of a step: worked by hand, and by the laws that they follow; through the trainer, from its own log."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tasks import arguments, model_of, sentences, tasks, trainer_on

from sbert_mini.errors import UsageError
from sbert_mini.training.config import FitterConfig
from sbert_mini.training.examples import Examples
from sbert_mini.training.schedule import BundleSampler, ExampleStream, Schedule, shares, whole_sizes
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task
from sbert_mini.training.trainer import MultiTaskTrainer


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


def test_shares_by_hand():
    assert shares("round-robin", [100, 400], 0, 3) == [0.5, 0.5]
    assert shares("proportional", [100, 400], 0, 3) == pytest.approx([0.2, 0.8])
    assert shares("square-root", [100, 400], 0, 3) == pytest.approx([1 / 3, 2 / 3])
    assert shares("annealed", [100, 400], 0, 3) == pytest.approx([0.2, 0.8])
    last = [100**0.2, 400**0.2]
    assert shares("annealed", [100, 400], 2, 3) == pytest.approx([x / sum(last) for x in last])
    with pytest.raises(UsageError, match="the schedule must be one of"):
        shares("random", [1], 0, 1)


@given(wanted=st.lists(st.floats(0.01, 1), min_size=1, max_size=6), floor=st.integers(1, 4), spare=st.integers(0, 40))
def test_whole_sizes_add_up_keep_the_floor_and_stay_near(wanted, floor, spare):
    wanted = [w / sum(wanted) for w in wanted]
    budget = floor * len(wanted) + spare
    sizes = whole_sizes(wanted, budget, floor)
    assert sum(sizes) == budget
    assert min(sizes) >= floor
    if all(w * budget >= floor for w in wanted):
        assert all(abs(size - w * budget) < 1 + 1e-9 for size, w in zip(sizes, wanted, strict=True))


def test_sizes_that_cannot_be():
    with pytest.raises(UsageError, match="a step of 5 examples cannot hold at least 2 of each of 3 tasks"):
        whole_sizes([1 / 3] * 3, 5, 2)


def test_a_dynamic_schedule_goes_half_way_to_what_tasks_lack_and_replays():
    schedule = Schedule("dynamic", {"a": 900, "b": 10}, 20, 1, floor=3)
    assert schedule.sizes_at(0) == (10, 10)
    assert schedule.reallocate({"a": 0.1, "b": 0.3}, 5) == (8, 12)  # half way from ½, ½ to ¼, ¾: 7.5, 12.5
    assert (schedule.sizes_at(4), schedule.sizes_at(5)) == ((10, 10), (8, 12))
    assert schedule.reallocate({"a": 0.0, "b": 1.0}, 9) == (4, 16)
    for batch in range(10, 20):
        schedule.reallocate({"a": 0.0, "b": 1.0}, batch)
    assert schedule.sizes_at(99) == (3, 17)  # the floor
    again = Schedule("dynamic", {"a": 900, "b": 10}, 20, 1, floor=3)
    again.load_state(json.loads(json.dumps(schedule.state())))
    assert again.history == schedule.history
    with pytest.raises(UsageError, match="a lack of at least 0 is needed for each of a, b"):
        schedule.reallocate({"a": 1.0}, 3)
    still = Schedule("round-robin", {"a": 900, "b": 10}, 20, 1)
    assert still.reallocate({"a": 0.0, "b": 1.0}, 5) == (10, 10)


@settings(max_examples=30)
@given(count=st.integers(1, 300), size=st.integers(1, 17), seed=st.integers(0, 99), by_length=st.booleans())
def test_a_stream_gives_each_example_once_a_pass(count, size, seed, by_length):
    lengths = np.random.default_rng(seed).integers(3, 40, count) if by_length else None
    stream = ExampleStream(count, lengths, (seed,))
    taken = [i for _ in range(3 * (count // size + 1)) for i in stream.take(size)]
    passes = len(taken) // count
    for number in range(passes):
        assert sorted(taken[number * count : (number + 1) * count]) == list(range(count))
    again = ExampleStream(count, lengths, (seed,))
    assert taken == [i for _ in range(3 * (count // size + 1)) for i in again.take(size)]


def test_batches_are_of_like_length_and_hold_no_text_twice():
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 60, 1000)
    stream = ExampleStream(1000, lengths, (1,))
    batches = [stream.take(10) for _ in range(100)]
    padded = sum(lengths[b].max() * 10 for b in batches)
    assert padded / lengths.sum() < 1.1
    keys = [(int(i % 100), 1000 + i) for i in range(1000)]  # every text of the first column ten times
    stream = ExampleStream(1000, lengths, (1,), keys)
    taken = [stream.take(10) for _ in range(100)]
    assert sorted(i for b in taken for i in b) == list(range(1000))
    clean = sum(len({keys[i][0] for i in b}) == 10 for b in taken)
    assert clean >= 97  # the last batches of a pool may have nothing else left


def test_bundles_replay_from_seed_epoch_and_history():
    def sampler():
        schedule = Schedule("dynamic", {"a": 50, "b": 20}, 10, 2, floor=2)
        return BundleSampler(schedule, [50, 20], [None, None], 8, 5, [None, None])

    first = sampler()
    first.set_epoch(1)
    drawn = []
    for number, batch in enumerate(first):
        drawn.append(batch)
        if number == 3:
            first.schedule.reallocate({"a": 0.0, "b": 1.0}, first.next_batch)
    assert [len([t for t, _ in b if t == 0]) for b in drawn] == [5] * 4 + [3] * 4  # 2.5, the remainder to the first
    second = sampler()
    second.schedule.load_state(first.schedule.state())
    second.set_epoch(1)
    assert list(second) == drawn
    second.set_epoch(0)
    assert list(second) != drawn


def test_annealed_sizes_change_with_the_epoch():
    schedule = Schedule("annealed", {"a": 1000, "b": 10}, 40, 5, floor=1)
    sampler = BundleSampler(schedule, [1000, 10], [None, None], 3, 0, [None, None])
    sizes = []
    for epoch in range(5):
        sampler.set_epoch(epoch)
        list(sampler)
        sizes.append(schedule.sizes_at(epoch * 3)[1])
    assert sizes == sorted(sizes)
    assert sizes[0] == 1
    assert sizes[-1] > 8


def test_a_dynamic_schedule_moves_with_the_figures(make_model, tmp_path):
    model = model_of(make_model)
    args = arguments(tmp_path, max_steps=6, eval_strategy="steps", eval_steps=2)
    trainer = MultiTaskTrainer(model, args, tasks(), FitterConfig(batch_size=30, schedule="dynamic", floor=2))
    trainer.train()
    history = trainer.schedule.history
    assert history[0].sizes == (10, 10, 10)
    assert len(history) > 1
    assert all(sum(change.sizes) == 30 and min(change.sizes) >= 2 for change in history)
    last = [e for e in trainer.state.log_history if "loss" in e][-1]
    assert last["examples_mood"] == trainer.schedule.sizes_at(5)[0]
