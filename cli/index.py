"""`sbmini index`: make an index of texts."""

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .notes import note, progress_wanted, quiet_notes

app = typer.Typer(help="Make and inspect indexes of texts.", no_args_is_help=True, rich_markup_mode=None)

EXAMPLE = """Examples:

  sbmini index create notes.index -i notes.txt

  sbmini index create news.index -i news.csv --text-column body --id-column url
"""


@app.callback()
def _group() -> None:
    pass


@app.command("create", epilog=EXAMPLE)
def create(
    directory: options.IndexDirectory,
    input: Annotated[
        Path,
        typer.Option("--input", "-i", help="A file of texts: txt, csv, tsv or jsonl; - for stdin.", show_default=False),
    ],
    model: options.Model = None,
    graph: options.GraphOption = options.Graph.INT8,
    input_format: options.InputFormat = None,
    text_column: options.TextColumn = None,
    id_column: options.IdColumn = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="A text put before each text.", show_default=False)
    ] = None,
    truncation: options.Truncation = options.TruncationChoice.WARN,
    batch_size: options.BatchSize = 32,
    threads: options.Threads = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a new index of a file's texts, in a directory that is absent or empty.

    A row keeps all its columns. Its id is the id column's value; without such a column it is made of the row's content, and
    rows of the same content are stored once (and counted).
    """
    quiet_notes(quiet)
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.search.writer import IndexCounts, IndexWriter
    from sbert_mini.text.records import ReadCounts, read_records

    read, counts = ReadCounts(), IndexCounts()
    records = read_records(input, format=input_format, text_column=text_column, id_column=id_column, counts=read)
    embedder = Embedder(model, graph=graph.value, threads=threads, offline=offline)
    if prompt is None:
        prompt = next((embedder.prompts[n] for n in ("document", "passage", "corpus") if n in embedder.prompts), "")
    writer = IndexWriter(
        directory,
        embedder,
        batch_size=batch_size,
        truncation=truncation.value,
        show_progress_bar=progress_wanted(quiet),
        counts=counts,
    )
    writer.create(records, prompt=prompt)
    if read.blank:
        note(f"{read.blank} blank lines were not stored")
    if counts.repeated:
        note(f"{counts.repeated} rows were the same as an earlier one, and are stored once")
    note(f"{counts.rows} rows -> {directory}")
