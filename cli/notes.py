"""What goes to stderr beside errors: notes and progress. stdout is for data."""

import io
import logging
import os
import sys

from sbert_mini.errors import InputError


class ClosedOutput(io.TextIOBase):
    """Stands for a standard output that is closed: writing to it is an error."""

    def writable(self) -> bool:
        """Return that data may be meant for it."""
        return True

    def write(self, text: str) -> int:  # noqa: ARG002
        """Raise `InputError`."""
        raise InputError("standard output is closed, and the command's data go there: redirect it to a file or a pipe")


class Interrupted(Exception):  # noqa: N818
    """Ctrl-C in the middle of something of which a part is kept; the text says how to go on."""


def quiet_notes(quiet: bool) -> None:
    """Silence notes and warnings, or let them through."""
    logging.getLogger("sbert_mini").setLevel(logging.ERROR if quiet else logging.INFO)


def note(text: str) -> None:
    """Print a line on stderr unless --quiet is on."""
    logging.getLogger("sbert_mini").info(text)


def progress_wanted(quiet: bool) -> bool:
    """Return whether a progress bar should be drawn: stderr is a terminal that can, and --quiet is off."""
    return not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
