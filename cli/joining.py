"""`sbmini index merge`: several indexes as one."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from . import options
from .amounts import amount
from .notes import note, progress_wanted, quiet_notes

EXAMPLE = """Examples:

  sbmini index merge all.index monday.index tuesday.index

  sbmini index merge all.index old.index new.index --on-conflict last
"""
Inputs = Annotated[
    list[Path], typer.Argument(metavar="INDEX...", help="The indexes to merge, two or more.", show_default=False)
]
OnConflict = Annotated[
    Literal["error", "first", "last"],
    typer.Option(
        "--on-conflict", help="An id in several indexes: an error, or the row of the first or last one is taken."
    ),
]


def merge(
    directory: Annotated[Path, typer.Argument(metavar="OUT", help="The new index directory.", show_default=False)],
    inputs: Inputs,
    on_conflict: OnConflict = "error",
    threads: options.Threads = None,
    quiet: options.Quiet = False,
) -> None:
    """Make a new index of the rows of several indexes of one model. Nothing is encoded again.

    The indexes must have the same model, graph and prompt, and a column must have one type in all of them. They are not changed.
    The kind of search, and what happens to long texts that are added later, are those of the first one.
    """
    quiet_notes(quiet)
    from sbert_mini.progress import ProgressBar
    from sbert_mini.search.joining import JoinCounts, merge_indexes

    counts = JoinCounts()
    with ProgressBar("rows", None) if progress_wanted(quiet) else nullcontext() as bar:
        on_progress = None if bar is None else bar.move_to
        merge_indexes(
            *(directory, inputs), on_conflict=on_conflict, counts=counts, threads=threads, on_progress=on_progress
        )
    if counts.left_out:
        note(f"{amount(counts.left_out, 'row was', 'rows were')} left out: another index has one with the same id")
    note(f"{amount(counts.rows, 'row')} -> {directory}")
