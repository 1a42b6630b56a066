"""A progress bar on stderr."""

from types import TracebackType


class ProgressBar:
    """A bar with a count, the time taken and the time left. A context manager.

    Args:
        description: what is being done.
        total: how many there are; None where that is not known.
        completed: how many are done at the start.
    """

    def __init__(self, description: str, total: int | None, completed: int = 0) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(description, total=total, completed=completed)
        self._bar.start()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def advance(self, count: int) -> None:
        """Count so many more."""
        self._bar.advance(self._task, count)

    def move_to(self, completed: int, total: int | None = None) -> None:
        """Say how many are done, and how many there are, where that was not known."""
        self._bar.update(self._task, completed=completed, total=total)

    def describe(self, description: str) -> None:
        """Say what is being done."""
        self._bar.update(self._task, description=description)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()
