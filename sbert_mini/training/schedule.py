"""How many examples of each task an optimizer step holds, and which.

A step holds a sub-batch of every task. `Schedule` shares a fixed number of examples out among the tasks; `BundleSampler` draws
them. Both depend on the seed, the epoch and the schedule's history alone, so that a resumed run draws what an uninterrupted one
would.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbert_mini.errors import UsageError
from sbert_mini.shapes import IntArray

SCHEDULES = ("round-robin", "proportional", "square-root", "annealed", "dynamic")
POOL = 50
"""Batches that are sorted by length together."""


def shares(schedule: str, sizes: Sequence[int], epoch: int, epochs: int) -> list[float]:
    """Return each task's share of a step's examples; they sum to 1.

    With Nᵢ the examples of task i, its share is proportional to `Nᵢ^α`:

    * `round-robin`, and `dynamic` at its start: α = 0, all alike.
    * `proportional`: α = 1.
    * `square-root`: α = ½.
    * `annealed`: `α = 1 - 0.8 (e - 1) / (E - 1)` in epoch e of E, from proportional towards alike.

    Args:
        schedule: one of `SCHEDULES`.
        sizes: examples of each task.
        epoch: from 0.
        epochs: of the whole training; with one, `annealed` is proportional.

    Source: Stickland and Murray 2019 (arXiv 1902.02671), section 3.2. Differs from it: there a step holds one task, drawn with
    these probabilities; here each step holds every task, in these proportions.
    """
    if schedule not in SCHEDULES:
        raise UsageError(f"the schedule must be one of {', '.join(SCHEDULES)}; found {schedule!r}")
    annealed = 1 - 0.8 * min(epoch / (epochs - 1), 1.0) if epochs > 1 else 1.0
    alpha = {"proportional": 1.0, "square-root": 0.5, "annealed": annealed}.get(schedule, 0.0)
    powers = [n**alpha for n in sizes]
    return [p / math.fsum(powers) for p in powers]


def whole_sizes(targets: Sequence[float], budget: int, floor: int) -> list[int]:
    """Return whole numbers near `targets · budget` that sum to `budget`, none below `floor`.

    By the largest remainder, ties to the earlier task.

    Raises:
        UsageError: the floors alone exceed the budget.
    """
    tasks = len(targets)
    if floor * tasks > budget:
        raise UsageError(f"a step of {budget} examples cannot hold at least {floor} of each of {tasks} tasks")
    free = budget - floor * tasks
    exact = [max(share * budget - floor, 0.0) for share in targets]
    total = math.fsum(exact) or 1.0
    exact = [x * free / total for x in exact]
    whole = [math.floor(x) for x in exact]
    order = sorted(range(tasks), key=lambda i: (whole[i] - exact[i], i))
    for i in itertools.islice(itertools.cycle(order), free - sum(whole)):
        whole[i] += 1
    return [floor + n for n in whole]


@dataclass(frozen=True)
class Change:
    """The sizes of the sub-batches from a step on.

    Attributes:
        batch: the batch, counted from 0 over the whole training, from which they hold.
        sizes: examples of each task.
        reason: why, for people.
    """

    batch: int
    sizes: tuple[int, ...]
    reason: str = ""


class Schedule:
    """The sizes of each step's sub-batches, with their history.

    Args:
        kind: one of `SCHEDULES`.
        examples: of each task, by name.
        budget: examples of a step, all tasks together.
        epochs: of the whole training, for `annealed`.
        floor: the fewest examples of a task in a step; at least 1.
        unit: every size is a multiple of it (the number of processes).

    Raises:
        UsageError: the kind is unknown, or the budget too small.
    """

    def __init__(
        self, kind: str, examples: Mapping[str, int], budget: int, epochs: int, floor: int = 1, unit: int = 1
    ) -> None:
        self.kind, self.tasks, self.budget, self.epochs, self.floor = kind, list(examples), budget, epochs, floor
        self.unit = unit
        self._examples = list(examples.values())
        first = self._sizes(shares(kind, self._examples, 0, epochs))
        self.history: list[Change] = [Change(0, tuple(first), kind)]

    def _sizes(self, targets: Sequence[float]) -> list[int]:
        sizes = whole_sizes(targets, self.budget // self.unit, math.ceil(self.floor / self.unit))
        return [size * self.unit for size in sizes]

    def sizes_at(self, batch: int) -> tuple[int, ...]:
        """Return the sizes of a batch, counted from 0 over the whole training."""
        return next(change.sizes for change in reversed(self.history) if change.batch <= batch)

    def start_epoch(self, epoch: int, batch: int) -> None:
        """Set the sizes for an epoch where they depend on it. Calling it again for the same epoch changes nothing."""
        if self.kind != "annealed":
            return
        sizes = tuple(self._sizes(shares(self.kind, self._examples, epoch, self.epochs)))
        if sizes != self.sizes_at(batch):
            self.history.append(Change(batch, sizes, f"epoch {epoch + 1}"))

    def reallocate(self, lacks: Mapping[str, float], batch: int) -> tuple[int, ...]:
        """Move the sizes of a `dynamic` schedule half way to where each task's share is proportional to what it lacks.

        A task's lack is how far it is from its goal: 1 - (its dev figure), or its loss against where it began. The half step
        keeps one noisy evaluation from turning everything over.

        Args:
            lacks: at least 0, by task; where all are 0 nothing changes.
            batch: from which the new sizes hold.

        Returns: the sizes in force from there on.

        Raises:
            UsageError: a task is missing, or a lack is not a number.

        Source: De La Cruz, Musa and Ndotu ("dynamic batch allocation") name the idea; this rule is this project's.
        """
        if set(lacks) != set(self.tasks) or not all(math.isfinite(x) and x >= 0 for x in lacks.values()):
            raise UsageError(f"a lack of at least 0 is needed for each of {', '.join(self.tasks)}; found {dict(lacks)}")
        total = math.fsum(lacks.values())
        before = self.sizes_at(batch)
        if self.kind != "dynamic" or total == 0:
            return before
        targets = [
            0.5 * size / self.budget + 0.5 * lacks[t] / total for t, size in zip(self.tasks, before, strict=True)
        ]
        sizes = tuple(self._sizes(targets))
        if sizes != before:
            reason = ", ".join(f"{task} lacks {lacks[task]:.3f}" for task in self.tasks)
            self.history.append(Change(batch, sizes, reason))
        return sizes

    def state(self) -> list[dict[str, Any]]:
        """Return the history, as JSON holds it."""
        return [{"batch": c.batch, "sizes": list(c.sizes), "reason": c.reason} for c in self.history]

    def load_state(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Restore a history from `state()`."""
        self.history = [Change(int(c["batch"]), tuple(c["sizes"]), str(c["reason"])) for c in state]


class ExampleStream:
    """A task's examples, each once a pass and pass after pass, in batches of like length.

    A pass is a permutation, read in pools of `POOL` batches that are sorted by length; a batch is a run of neighbours in the
    pool, drawn at random.

    Args:
        count: how many examples there are, 1 or more.
        lengths: tokens of each example; None for batches that do not care for length.
        seed: of this stream; everything that it gives follows from it.
        keys: for each example the numbers of its texts: where given, no text stands twice in a batch (for in-batch negatives),
            unless the pool holds no other.
    """

    def __init__(
        self, count: int, lengths: IntArray | None, seed: Sequence[int], keys: Sequence[tuple[int, ...]] | None = None
    ) -> None:
        self._count, self._lengths, self._keys = count, lengths, keys
        self._rng = np.random.default_rng(list(seed))
        self._pass: list[int] = []
        self._pool: list[int] = []

    def take(self, size: int) -> list[int]:
        """Return the next `size` examples' numbers. A task of fewer examples gives some of them more than once."""
        taken: list[int] = []
        while len(taken) < size:
            if not self._pool:
                self._fill(size)
            taken += self._draw(size - len(taken), taken)
        return taken

    def _fill(self, size: int) -> None:
        capacity = POOL * size
        if not self._pass:
            self._pass = self._rng.permutation(self._count).tolist()
        self._pool, self._pass = self._pass[:capacity], self._pass[capacity:]
        if self._lengths is not None:
            lengths = self._lengths
            self._pool.sort(key=lambda i: lengths[i])

    def _draw(self, size: int, already: Sequence[int]) -> list[int]:
        runs = max(len(self._pool) // size, 1)
        start = size * int(self._rng.integers(runs))
        if self._keys is None:
            drawn = self._pool[start : start + size]
            del self._pool[start : start + size]
            return drawn
        seen = {key for i in already for key in self._keys[i]}
        positions: list[int] = []
        for position in [*range(start, len(self._pool)), *range(start - 1, -1, -1)]:
            keys = self._keys[self._pool[position]]
            if seen.isdisjoint(keys):
                seen.update(keys)
                positions.append(position)
                if len(positions) == size:
                    break
        if not positions:  # what is left shares texts with what is taken
            positions = list(range(min(size, len(self._pool))))
        drawn = [self._pool[position] for position in positions]
        for position in sorted(positions, reverse=True):
            del self._pool[position]
        return drawn


class BundleSampler:
    """Batches for a DataLoader: each a list of (task, example) that holds a sub-batch of every task.

    Args:
        schedule: the sizes.
        lengths: tokens of each example, a task each; None to leave length out of account.
        counts: examples of each task.
        batches: of an epoch.
        seed: of the draws.
        keys: see `ExampleStream`; None for a task that does not mind.
    """

    def __init__(
        self,
        schedule: Schedule,
        counts: Sequence[int],
        lengths: Sequence[IntArray | None],
        batches: int,
        seed: int,
        keys: Sequence[Sequence[tuple[int, ...]] | None],
    ) -> None:
        self.schedule, self.batches, self.seed = schedule, batches, seed
        self._counts, self._lengths, self._keys = counts, lengths, keys
        self.epoch = 0
        self.produced = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is of, from 0."""
        self.epoch = epoch
        self.produced = 0

    @property
    def next_batch(self) -> int:
        """The number of the next batch, counted from 0 over the whole training."""
        return self.epoch * self.batches + self.produced

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        self.produced = 0
        streams = [
            ExampleStream(count, lengths, (self.seed, self.epoch, task), keys)
            for task, (count, lengths, keys) in enumerate(zip(self._counts, self._lengths, self._keys, strict=True))
        ]
        self.schedule.start_epoch(self.epoch, self.next_batch)
        while self.produced < self.batches:
            sizes = self.schedule.sizes_at(self.next_batch)
            self.produced += 1
            yield [(task, i) for task, (s, size) in enumerate(zip(streams, sizes, strict=True)) for i in s.take(size)]
