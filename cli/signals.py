"""What Ctrl-C, SIGTERM and SIGHUP do: an exception that cleans up, or, where there is nothing to clean up, the end."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from sbert_mini.files import system

_REPEAT_S = 0.5
_first: int | None = None


def end_at_once() -> None:
    """Let a signal end the process without a traceback. One that the caller ignores (nohup) stays ignored."""
    system.stop_repeating()
    _handle(_end)


def raise_interrupts() -> None:
    """Let a signal raise KeyboardInterrupt in the main thread. One that the caller ignores (nohup) stays ignored.

    The exception can arrive anywhere, and code that expects none there may drop it (a destructor) or raise another one
    (an import). It is therefore raised again until it is being handled, and `came` tells what any exception is due to.
    """
    global _first  # noqa: PLW0603
    _first = None
    _handle(_raise)


@contextmanager
def cancelling() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt once in the block, and end nothing: whoever asks a person may ask again."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def came() -> bool:
    """Return whether a signal came since `raise_interrupts`."""
    return _first is not None


def exit_code() -> int:
    """Return 128 + the number of the signal that came first."""
    return 128 + (_first or signal.SIGINT)


def _handle(handler: object) -> None:
    for number in system.ENDING_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)  # type: ignore[arg-type]


def _raise(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    global _first  # noqa: PLW0603
    _first = number
    for other in {*system.ENDING_SIGNALS} - {
        signal.SIGINT
    }:  # they come in pairs: the second must not stop the cleaning up
        signal.signal(other, signal.SIG_IGN)
    sys.unraisablehook = _report_but_interrupts
    system.repeat(_raise_again, _REPEAT_S)
    raise KeyboardInterrupt


def _raise_again(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    if sys.exc_info()[0] is None:  # else the first one is being handled
        raise KeyboardInterrupt


def _report_but_interrupts(unraisable: "sys.UnraisableHookArgs") -> None:
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):  # which will be raised again
        sys.__unraisablehook__(unraisable)


def _end(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    os._exit(128 + number)
