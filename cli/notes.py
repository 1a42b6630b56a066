"""What goes to stderr beside errors: notes and progress. stdout is for data."""

import io
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sbert_mini.errors import InputError
from sbert_mini.progress import Counted, print_line

from .amounts import amount
from .printing import visible_in_line

if TYPE_CHECKING:
    from sbert_mini.text.records import ReadCounts

T = TypeVar("T")
OPTION_OF = {
    "truncate_dim": "--dim",
    "truncation='chunk'": "--truncation chunk",
    "min_score": "--min-score",
    "threshold": "--threshold",
    "min_size": "--min-size",
    "passage_tokens": "--passage-tokens",
    "the overlap": "--overlap",
    "the delimiter": "--delimiter",
    "pca": "--pca",
    "dim": "--dim",
    "resume=True": "--resume",
    "threads": "--threads",
    "set SBMINI_DATA": "set SBMINI_DATA, or name the folder with --data",
}
"""What is called otherwise in Python -> how the command line calls it."""


def in_options(text: str, parameter: str | None) -> str:
    """Return a text in which a parameter's name in Python is replaced by its option's."""
    return text if parameter is None else text.replace(parameter, OPTION_OF.get(parameter, parameter), 1)


class ClosedOutput(io.TextIOBase):
    """Stands for a standard output that is closed: writing to it is an error."""

    def writable(self) -> bool:
        """Return that data may be meant for it."""
        return True

    def write(self, text: str) -> int:  # noqa: ARG002
        """Raise `InputError`."""
        raise InputError("standard output is closed, and the command's data go there: redirect it to a file or a pipe")


class NoteHandler(logging.Handler):
    """Prints what is logged as lines on stderr, above a progress bar where one is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line."""
        try:
            text = in_options(record.getMessage(), getattr(record, "parameter", None))
            print_line(visible_in_line(f"sbmini: {text}"))
        except OSError:  # the terminal is gone
            self.handleError(record)


class Interrupted(Exception):  # noqa: N818
    """Ctrl-C in the middle of something of which a part is kept; the text says how to go on."""


def quiet_notes(quiet: bool) -> None:
    """Silence notes and warnings, or let them through."""
    logging.getLogger("sbert_mini").setLevel(logging.ERROR if quiet else logging.INFO)


def note(text: str) -> None:
    """Print a line on stderr unless --quiet is on."""
    logging.getLogger("sbert_mini").info(text)


def note_input(read: "ReadCounts", blank: str) -> None:
    """Print what was read in another way than each row as it stands, if there is something.

    Args:
        read: counts of an input.
        blank: what became of its blank lines.
    """
    if read.blank:
        note(f"{amount(read.blank, 'blank line was', 'blank lines were')} {blank}")
    if read.titled:
        rows = amount(read.titled, "row is", "rows are")
        note(
            f"{rows} in BEIR's layout (_id, title, text): each title was joined with its text; --text-column text takes the "
            "text alone"
        )


def progress_wanted(quiet: bool) -> bool:
    """Return whether a progress bar should be drawn: stderr is a terminal that can, and --quiet is off."""
    return not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def counted(records: Iterable[T], files: Sequence[Path] | None, named_format: str | None, *, bar: bool) -> Iterable[T]:
    """Return the records of files with their number beside them, where a bar will be drawn and they can be counted."""
    if not bar or not files:
        return records
    from sbert_mini.text.counting import count_rows

    counts = [count_rows(file, named_format) for file in files]
    return Counted(records, None if None in counts else sum(count or 0 for count in counts))
