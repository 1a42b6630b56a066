"""`sbmini index list`, `get` and `export`: the rows of an index."""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from sbert_mini.errors import InputError

from . import options
from .amounts import amount
from .notes import note, quiet_notes
from .printing import print_json, print_text, visible_in_line

LIST_EXAMPLE = """Examples:

  sbmini index list notes.index

  sbmini index list news.index --filter "year >= 2020" --limit 20
"""
GET_EXAMPLE = """Example:

  sbmini index get notes.index notes/bread.md
"""
EXPORT_EXAMPLE = """Examples:

  sbmini index export notes.index -o notes.parquet

  sbmini index export notes.index -o notes.jsonl --without-vectors
"""
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="The most rows. [default: all]", show_default=False)]
Output = Annotated[Path, typer.Option("--output", "-o", help="A .jsonl or .parquet file.", show_default=False)]
WithVectors = Annotated[bool, typer.Option("--with-vectors/--without-vectors", help="Whether rows have their vectors.")]


def list_rows(
    directory: options.IndexDirectory,
    filter: options.Filter = None,
    filter_timeout: options.FilterTimeout = 60.0,
    limit: Limit = None,
    quiet: options.Quiet = False,
) -> None:
    """Print the ids of an index's rows, one a line, in the order in which they were added."""
    quiet_notes(quiet)
    from sbert_mini.search.generation import row_ids
    from sbert_mini.search.store import Store

    for identity in islice(row_ids(Store(directory), filter, filter_timeout), limit):
        print_text(visible_in_line(identity))


def get(
    directory: options.IndexDirectory,
    ids: Annotated[list[str], typer.Argument(help="The ids.", show_default=False)],
    quiet: options.Quiet = False,
) -> None:
    """Print rows by their ids, as JSON lines: id, text and columns. An id that is not in the index is an error."""
    quiet_notes(quiet)
    from sbert_mini.search.export import row_of
    from sbert_mini.search.index import SearchIndex

    index = SearchIndex(directory)
    rows = [index.get(identity) for identity in ids]
    missing = [identity for identity, row in zip(ids, rows, strict=True) if row is None]
    for row in rows:
        if row is not None:
            print_json(row_of(row))
    if missing:
        raise InputError(f"{len(missing)} of {len(ids)} ids are not in the index; the first is {missing[0]!r}")


def export(
    directory: options.IndexDirectory,
    output: Output,
    with_vectors: WithVectors = True,
    quiet: options.Quiet = False,
) -> None:
    """Write an index's rows into a file: id, text, columns, and "embedding", the vector.

    The vector of a row with several passages is their mean. The file is written in one step, in the place of an earlier one.
    """
    quiet_notes(quiet)
    from sbert_mini.search.export import export as write
    from sbert_mini.search.index import SearchIndex

    rows = write(SearchIndex(directory), output, with_vectors=with_vectors)
    note(f"{amount(rows, 'row')} -> {output}")
