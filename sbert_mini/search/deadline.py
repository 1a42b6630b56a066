"""How long a filter may take."""

import math
import time

from sbert_mini.errors import UsageError

TIME_LIMIT_S = 60.0


class Deadline:
    """When the evaluation of a filter must be done.

    Args:
        seconds: from now on; None for any time.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._at = math.inf if seconds is None else time.monotonic() + seconds

    def check(self) -> None:
        """Raise `UsageError` where the time is up."""
        if time.monotonic() > self._at:
            raise UsageError(
                f"the filter took longer than {self._seconds:g} seconds; allow it more time (--filter-timeout, or "
                "filter_timeout_s in Python), or write a simpler one"
            )

    def end(self) -> None:
        """Make the time up: threads that evaluate a filter whose result nobody takes any more end."""
        self._at = -math.inf
