"""What a training run notes of its steps: losses, gradients, resources."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor

from sbert_mini.evaluation.log_keys import CONFLICT, COSINE, EXAMPLES, LOSS, MARGIN, NORM, WEIGHT, by_depth
from sbert_mini.files import system
from sbert_mini.training.surgery import cosines


class Telemetry:
    """Collects the figures of steps between two lines of the log.

    Args:
        tasks: the names of the tasks that are trained.
        clock: the seconds of now.
    """

    def __init__(self, tasks: Sequence[str], clock: Callable[[], float] = time.perf_counter) -> None:
        self._tasks, self._clock = tasks, clock
        self._values: dict[str, list[float]] = {}
        self._examples, self._begun = 0, clock()
        self._prepared = 0.0

    def note_loss(self, task: str, loss: float, examples: int, margin: float | None) -> None:
        """Note a task's loss in a batch, how many examples of it the batch holds, and the loss' margin, if it has one."""
        self._note(LOSS + task, loss)
        if margin is not None:
            self._note(MARGIN + task, margin)
        self._note(EXAMPLES + task, examples)
        self._examples += examples

    def note_surgery(self, gram: Tensor, weights: Tensor) -> None:
        """Note the norms of the tasks' gradients, their cosines, which conflict, and the weights that surgery gave them.

        Shapes: gram (tasks, tasks); weights (tasks,).
        """
        for i, name in enumerate(self._tasks):
            self._note(NORM + name, math.sqrt(max(float(gram[i, i]), 0.0)))
            self._note(WEIGHT + name, float(weights[i]))
        for pair, cosine in self._cosines(gram):
            self._note(COSINE + pair, cosine)
            self._note(CONFLICT + pair, float(cosine < 0))

    def note_layers(self, grams: Mapping[int, Tensor]) -> None:
        """Note the cosines of the tasks' gradients in each depth of the encoder (`rates.depth`): depth -> Gram matrix."""
        for depth, gram in grams.items():
            for pair, cosine in self._cosines(gram):
                self._note(by_depth(pair, depth), cosine)

    def _cosines(self, gram: Tensor) -> Iterator[tuple[str, float]]:
        """Yield the cosine of each pair of gradients, but for those that are zero and have no direction."""
        table = cosines(gram)
        for i, j in itertools.combinations(range(len(self._tasks)), 2):
            if gram[i, i] > 0 and gram[j, j] > 0:
                yield f"{self._tasks[i]}/{self._tasks[j]}", float(table[i, j])

    def _note(self, key: str, value: float) -> None:
        self._values.setdefault(key, []).append(float(value))

    def take(self) -> dict[str, float]:
        """Return the means since the last call, the seconds, the examples a second and the peak memory, and begin anew.

        Seconds of preparation stand by themselves (`prepared_seconds`), where there were some.
        """
        means = {key: math.fsum(values) / len(values) for key, values in self._values.items()}
        seconds = self._clock() - self._begun
        peak = system.peak_memory_bytes() / 1024**2
        means |= {"seconds": seconds, "examples_per_second": self._examples / seconds, "peak_mb": peak}
        if self._prepared:
            means["prepared_seconds"] = self._prepared
        self._values, self._prepared = {}, 0.0
        self._examples, self._begun = 0, self._clock()
        return means

    def start_clock(self) -> None:
        """Begin to count the seconds."""
        self._begun = self._clock()

    @contextmanager
    def clock_stopped(self) -> Iterator[None]:
        """Leave the seconds inside out: those of evaluations and checkpoints."""
        stopped = self._clock()
        try:
            yield
        finally:
            self._begun += self._clock() - stopped

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Count the seconds inside by themselves: those before the first step, such as the encoding by a frozen encoder."""
        begun = self._clock()
        with self.clock_stopped():
            yield
        self._prepared += self._clock() - begun

    def state(self) -> dict[str, list[float]]:
        """Return what must be kept for a run to go on exactly, as JSON holds it."""
        return self._values

    def load_state(self, state: dict[str, list[float]]) -> None:
        """Restore from `state()`."""
        self._values = state
