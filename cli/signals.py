"""What Ctrl-C, SIGTERM and SIGHUP do: an exception that cleans up, or, where there is nothing to clean up, the end."""

import os
import signal
from types import FrameType
from typing import NoReturn

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_first: int = signal.SIGINT


def end_at_once() -> None:
    """Let a signal end the process without a traceback. One that the caller ignores (nohup) stays ignored."""
    _handle(_end)


def raise_interrupts() -> None:
    """Let a signal raise KeyboardInterrupt in the main thread. One that the caller ignores (nohup) stays ignored."""
    _handle(_raise)


def exit_code() -> int:
    """Return 128 + the number of the signal that came first."""
    return 128 + _first


def _handle(handler: object) -> None:
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)  # type: ignore[arg-type]


def _raise(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    global _first  # noqa: PLW0603
    _first = number
    for other in (signal.SIGTERM, signal.SIGHUP):  # they often come in pairs: the second must not stop the cleaning up
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    os._exit(128 + number)
