"""A progress bar on stderr, and lines beside it."""

import operator
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_live: "list[ProgressBar]" = []  # the bars that are drawn now


class Counted(Generic[T]):
    """Items that come one by one, of which it is known how many there are.

    Args:
        items: the items.
        total: how many there are, those done before included; None where that is not known.
        done: how many were done before.
    """

    def __init__(self, items: Iterable[T], total: int | None, done: int = 0) -> None:
        self._items = items
        self.total = total
        self.done = done

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __length_hint__(self) -> int:
        return NotImplemented if self.total is None else max(self.total - self.done, 0)


def expected(items: Iterable[Any]) -> int | None:
    """Return how many items there are; None where that is not known."""
    count = operator.length_hint(items, -1)
    return None if count < 0 else count


def bar_over(description: str, items: Iterable[Any]) -> "ProgressBar":
    """Return a bar that counts items; that of `Counted` ones starts where they do."""
    if isinstance(items, Counted):
        return ProgressBar(description, items.total, items.done)
    return ProgressBar(description, expected(items))


def print_line(text: str) -> None:
    """Print a line on stderr, above the bar where one is drawn."""
    if _live:
        _live[-1].print(text)
    else:
        print(text, file=sys.stderr, flush=True)


def close_bars() -> None:
    """Take all bars away."""
    for bar in list(_live):
        bar.close()


class ProgressBar:
    """A bar with a count, the share, the rate, the time taken and the time left. A context manager.

    Args:
        description: what is being done.
        total: how many there are; None where that is not known.
        completed: how many are done at the start.
    """

    def __init__(self, description: str, total: int | None, completed: int = 0) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=Console(stderr=True),
            redirect_stdout=False,  # data go there
        )
        self._total, self._first, self._start = total, completed, time.monotonic()
        self._done = completed
        self._task = self._bar.add_task(description, total=total, completed=completed, state="", left="")
        self._show()
        self._bar.start()
        _live.append(self)

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def advance(self, count: int) -> None:
        """Count so many more."""
        self.move_to(self._done + count)

    def move_to(self, completed: int, total: int | None = None) -> None:
        """Say how many are done, and how many there are, where that was not known."""
        self._done = completed
        self._total = self._total if total is None else total
        self._show()

    def describe(self, description: str) -> None:
        """Say what is being done."""
        self._bar.update(self._task, description=description)

    def print(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        if self in _live:
            _live.remove(self)
            self._bar.stop()

    def _show(self) -> None:
        rate = (self._done - self._first) / max(time.monotonic() - self._start, 1e-3)
        state, left = f"{self._done:,}", ""
        if self._total is not None:
            state += f"/{self._total:,} {min(100 * self._done // max(self._total, 1), 100)}%"
        if rate > 0:
            state += f" {rate:,.0f}/s" if rate >= 10 else f" {rate:.2g}/s"
            if self._total is not None:
                left = f"{_clock(max(self._total - self._done, 0) / rate)} left"
        self._bar.update(self._task, completed=self._done, total=self._total, state=state, left=left)


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
