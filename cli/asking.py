"""Queries that a person types, one after the other."""

import sys
from collections.abc import Callable
from contextlib import suppress

from sbert_mini.errors import SbertMiniError

from . import signals
from .printing import print_error, print_text

PROMPT = "query> "


def is_possible() -> bool:
    """Return whether a person can be asked: standard input and output are a terminal."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def ask(answer: Callable[[str], None]) -> None:
    """Ask for queries and print the answer of each, until an empty line or Ctrl-D.

    Ctrl-C cancels the line, or the query that is being answered. Arrow keys bring back earlier queries, which are kept in memory
    alone.

    Args:
        answer: prints the answer to a query. Its errors are printed, and end nothing.
    """
    with suppress(ImportError):  # Python may be built without it
        import readline  # noqa: F401  # gives `input` a history and the arrow keys
    with signals.cancelling():
        while True:
            try:
                query = input(PROMPT)
                if not query.strip():
                    return
                answer(query)
            except EOFError:
                print_text()
                return
            except KeyboardInterrupt:
                if signals.came():  # SIGTERM or SIGHUP
                    raise
                print_text()
            except SbertMiniError as error:
                print_error(f"sbmini: error: {' '.join(str(error).split())}")
