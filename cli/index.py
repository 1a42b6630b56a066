"""`sbmini index`: make, change and check an index of texts."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sbert_mini.errors import CorruptIndexError, UsageError

from . import options
from .notes import note, progress_wanted, quiet_notes
from .rejects import Rejects

if TYPE_CHECKING:
    from sbert_mini.search.writer import IndexWriter
    from sbert_mini.text.records import ReadCounts, Record

app = typer.Typer(help="Make, change and check an index of texts.", no_args_is_help=True, rich_markup_mode=None)

Input = Annotated[
    Path,
    typer.Option(
        "--input", "-i", help="A file of rows: txt, csv, tsv, jsonl or parquet; - for stdin.", show_default=False
    ),
]


@app.command(
    "create",
    epilog="""Examples:

  sbmini index create notes.index -i notes.txt

  sbmini index create news.index -i news.csv --text-column body
""",
)
def create(
    directory: options.IndexDirectory,
    input: Input,
    model: options.Model = None,
    graph: options.GraphOption = options.Graph.INT8,
    input_format: options.InputFormat = None,
    text_column: options.TextColumn = None,
    id_column: options.IdColumn = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", help="A text put before each text; by default the model's for documents.", show_default=False
        ),
    ] = None,
    truncation: options.Truncation = options.TruncationChoice.WARN,
    on_error: options.OnError = options.OnErrorChoice.FAIL,
    rejects: options.RejectsFile = None,
    batch_size: options.BatchSize = 32,
    threads: options.Threads = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a new index of a file's rows, in a directory that is absent or empty.

    A row keeps all its columns. Its id is the id column's value; without such a column it is made of the row's content, and
    rows of the same content are stored once (and counted).
    """
    quiet_notes(quiet)
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.search.writer import IndexWriter
    from sbert_mini.text.records import ReadCounts, read_records

    embedder = Embedder(model, graph=graph.value, threads=threads, offline=offline)
    with Rejects(on_error is options.OnErrorChoice.SKIP, rejects, _beside(directory)) as taken:
        writer = IndexWriter(
            directory,
            embedder,
            batch_size=batch_size,
            truncation=truncation.value,
            show_progress_bar=progress_wanted(quiet),
        )
        read = ReadCounts()
        records: Iterable[Record] = read_records(
            input,
            format=input_format,
            text_column=text_column,
            id_column=id_column,
            counts=read,
            on_reject=taken.take,
        )
        if taken.take is not None and truncation is options.TruncationChoice.ERROR:
            before = embedder.document_prompt() if prompt is None else prompt
            records = embedder.short_enough(records, before, taken.take)
        writer.create(records, prompt=prompt)
        _tell(read, writer, directory)
    raise typer.Exit(taken.exit_code())


@app.command(
    "add",
    epilog="""Example:

  sbmini index add news.index -i today.csv --text-column body
""",
)
def add(
    directory: options.IndexDirectory,
    input: Input,
    model: options.Model = None,
    input_format: options.InputFormat = None,
    text_column: options.TextColumn = None,
    id_column: options.IdColumn = None,
    truncation: options.Truncation = options.TruncationChoice.WARN,
    on_error: options.OnError = options.OnErrorChoice.FAIL,
    rejects: options.RejectsFile = None,
    batch_size: options.BatchSize = 32,
    threads: options.Threads = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
) -> None:
    """Add a file's rows to an index.

    An id that is in the index already is an error, and nothing is added; a row without an id of its own that is in the index
    already is counted and not stored again. The index's own model and prompt are used.
    """
    settings = (
        input_format,
        text_column,
        id_column,
        truncation,
        on_error,
        rejects,
        batch_size,
        threads,
        offline,
        quiet,
    )
    _change(lambda writer, records: writer.add(records), directory, input, model, *settings)


@app.command(
    "update",
    epilog="""Example:

  sbmini index update news.index -i corrected.csv --id-column url
""",
)
def update(
    directory: options.IndexDirectory,
    input: Input,
    model: options.Model = None,
    input_format: options.InputFormat = None,
    text_column: options.TextColumn = None,
    id_column: options.IdColumn = None,
    truncation: options.Truncation = options.TruncationChoice.WARN,
    on_error: options.OnError = options.OnErrorChoice.FAIL,
    rejects: options.RejectsFile = None,
    batch_size: options.BatchSize = 32,
    threads: options.Threads = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
) -> None:
    """Put each row of a file in the place of the one with its id, or add it where there is none."""
    settings = (
        input_format,
        text_column,
        id_column,
        truncation,
        on_error,
        rejects,
        batch_size,
        threads,
        offline,
        quiet,
    )
    _change(lambda writer, records: writer.update(records), directory, input, model, *settings)


@app.command(
    "delete",
    epilog="""Examples:

  sbmini index delete news.index https://example.org/1

  sbmini index delete news.index --ids-from gone.txt
""",
)
def delete(
    directory: options.IndexDirectory,
    ids: Annotated[list[str] | None, typer.Argument(help="The ids.", show_default=False)] = None,
    ids_from: Annotated[
        Path | None, typer.Option("--ids-from", help="A text file, one id a line; - for stdin.", show_default=False)
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Delete rows by their ids. An id that is not in the index is an error, and nothing is deleted."""
    if bool(ids) == (ids_from is not None):
        raise UsageError("name the ids to delete, or a file of them with --ids-from; one of the two")
    quiet_notes(quiet)
    from sbert_mini.search import writer
    from sbert_mini.text.records import read_records

    identities = ids or (record.text for record in read_records(ids_from or "-", format="txt"))
    count = writer.delete(directory, identities)
    note(f"{count} rows deleted from {directory}")


@app.command(
    "info",
    epilog="""Example:

  sbmini index info news.index --json
""",
)
def info(
    directory: options.IndexDirectory,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say what an index holds: rows, generation, model, segments, bytes."""
    from sbert_mini.search.index import SearchIndex

    index = SearchIndex(directory)
    found = {
        "rows": len(index),
        "generation": index.generation,
        "created": index.created,
        **{
            f"model_{key}" if key in ("name", "fingerprint") else key: value for key, value in vars(index.model).items()
        },
        "segments": index.segments,
        "deleted_rows_kept": index.deleted_rows,
        "bytes": sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()),
    }
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    for key, value in found.items():
        print(f"{key.replace('_', ' '):<20}{value!r}" if key == "prompt" else f"{key.replace('_', ' '):<20}{value}")


@app.command(
    "verify",
    epilog="""Example:

  sbmini index verify news.index && cp -r news.index /backup/
""",
)
def verify(directory: options.IndexDirectory, quiet: options.Quiet = False) -> None:
    """Check every stored byte of an index against its checksums; exit code 1 if any is damaged."""
    quiet_notes(quiet)
    from sbert_mini.search.index import SearchIndex

    index = SearchIndex(directory)
    damage = index.verify()
    if damage:
        raise CorruptIndexError(f"{len(damage)} damaged: " + "; ".join(damage))
    note(f"{directory} is sound: {len(index)} rows, generation {index.generation}")


def _change(
    change: "Callable[[IndexWriter, Iterable[Record]], object]",
    directory: Path,
    input: Path,
    model: str | None,
    input_format: str | None,
    text_column: str | None,
    id_column: str | None,
    truncation: options.TruncationChoice,
    on_error: options.OnErrorChoice,
    rejects: Path | None,
    batch_size: int,
    threads: int | None,
    offline: bool,
    quiet: bool,
) -> None:
    """Open the index's model and let `change` write the records."""
    quiet_notes(quiet)
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.search.index import SearchIndex
    from sbert_mini.search.writer import IndexWriter
    from sbert_mini.text.records import ReadCounts, read_records

    index = SearchIndex(directory, threads=threads, offline=offline)
    if model is None:
        embedder = index.embedder()
    else:
        named = Embedder(model, graph=index.model.graph, threads=threads, offline=offline)  # type: ignore[arg-type]
        embedder = index.check_model(named)
    with Rejects(on_error is options.OnErrorChoice.SKIP, rejects, _beside(directory)) as taken:
        writer = IndexWriter(
            directory,
            embedder,
            batch_size=batch_size,
            truncation=truncation.value,
            show_progress_bar=progress_wanted(quiet),
        )
        read = ReadCounts()
        records: Iterable[Record] = read_records(
            input,
            format=input_format,
            text_column=text_column,
            id_column=id_column,
            counts=read,
            on_reject=taken.take,
        )
        if taken.take is not None and truncation is options.TruncationChoice.ERROR:
            records = embedder.short_enough(records, index.model.prompt, taken.take)
        change(writer, records)
        _tell(read, writer, directory)
    raise typer.Exit(taken.exit_code())


def _beside(directory: Path) -> Path:
    return directory.with_name(directory.name + ".rejects.jsonl")


def _tell(read: "ReadCounts", writer: "IndexWriter", directory: Path) -> None:
    counts = writer.counts
    if read.blank:
        note(f"{read.blank} blank lines were not stored")
    if counts.repeated:
        note(f"{counts.repeated} rows were the same as an earlier one, and are stored once")
    replaced = f" ({counts.replaced} of them in the place of older ones)" if counts.replaced else ""
    note(f"{counts.rows} rows{replaced} -> {directory}")
