"""`sbmini index`: make, change and check an index of texts."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbert_mini.errors import CorruptIndexError, UsageError
from sbert_mini.runtime.choices import Truncation

from . import options
from .notes import counted, note, progress_wanted, quiet_notes
from .rejects import Rejects

if TYPE_CHECKING:
    from sbert_mini.search.index import SearchIndex
    from sbert_mini.search.writer import IndexWriter, VectorsById
    from sbert_mini.shapes import FloatArray
    from sbert_mini.text.records import ReadCounts, Record

Vectors = Annotated[
    Path | None,
    typer.Option(
        "--vectors",
        help="The rows' vectors, made with this model: a .npy file of 'sbmini encode', in the rows' order, or a folder of "
        "'sbmini encode --engine ray', by their ids. By default the texts are encoded.",
        show_default=False,
    ),
]
Kind = Annotated[
    str,
    typer.Option("--kind", help="How rows are searched: auto (by their number), exact, or a FAISS factory string."),
]
Pca = Annotated[
    int | None,
    typer.Option(
        "--pca",
        min=1,
        help="Principal components that FAISS sees (whitened ones: --kind PCAW128,SQ8).",
        show_default=False,
    ),
]

ColumnTypes = Annotated[
    list[str] | None,
    typer.Option(
        "--column-type",
        metavar="NAME=TYPE",
        help="A column's type: integer, number, boolean or text; by default its values tell. Repeat it for more columns.",
        show_default=False,
    ),
]

MANY_SEGMENTS = 16

app = typer.Typer(help="Make, change and check an index of texts.", no_args_is_help=True, rich_markup_mode=None)

Input = Annotated[
    list[Path],
    typer.Option(
        "--input",
        "-i",
        help="A file of rows: txt, csv, tsv, jsonl or parquet; - for stdin. Several (-i A -i B) are read in order as one.",
        show_default=False,
    ),
]


@app.command(
    "create",
    epilog="""Examples:

  sbmini index create notes.index -i notes.txt

  sbmini index create news.index -i news.csv --text-column body

  sbmini encode -i news.csv --text-column body -o news.npy

  sbmini index create news.index -i news.csv --text-column body --vectors news.npy --kind HNSW32_SQ8
""",
)
def create(
    directory: options.IndexDirectory,
    input: Input,
    model: options.Model = None,
    graph: options.GraphOption = "int8",
    input_format: options.InputFormat = None,
    text_column: options.TextColumns = None,
    text_separator: options.TextSeparator = None,
    id_column: options.IdColumn = None,
    max_row_bytes: options.MaxRowBytes = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", help="A text put before each text; by default the model's for documents.", show_default=False
        ),
    ] = None,
    column_type: ColumnTypes = None,
    vectors: Vectors = None,
    kind: Kind = "auto",
    pca: Pca = None,
    truncation: options.Truncation = "warn",
    on_error: options.OnError = "fail",
    rejects: options.RejectsFile = None,
    batch_size: options.BatchSize = 32,
    threads: options.Threads = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a new index of a file's rows, in a directory that is absent or empty.

    A row keeps all its columns. Its id is the id column's value; without such a column it is made of the row's content, and rows
    of the same content are stored once (and counted). For filters a column has one type: the narrowest from which all values read
    back unchanged (so 007 and 1.10 are text), or the one that --column-type names.

    Up to 50,000 rows are searched exactly, more through inverted lists of 1-bit vectors (RaBitQ), as many of which are looked
    into as finds 98.5 % of the neighbours; all hits are scored with the whole vectors. Another --kind is any FAISS factory
    string ("IVF," without a number takes a fitting one): SQ8 for 8-bit vectors, HNSW32_SQ8 for an index that is mostly read.
    """
    reading = options.reading(input_format, text_column, text_separator, id_column, max_row_bytes)
    quiet_notes(quiet)
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.search.writer import IndexWriter
    from sbert_mini.text.records import ReadCounts, read_records

    embedder = Embedder(model, graph=graph, threads=threads, offline=offline)
    with Rejects(on_error == "skip", rejects, _beside(directory), input) as taken:
        writer = IndexWriter(
            directory,
            embedder,
            batch_size=batch_size,
            truncation=truncation,
            show_progress_bar=progress_wanted(quiet),
            on_reject=taken.take,
        )
        read = ReadCounts()
        records: Iterable[Record] = read_records(input, counts=read, on_reject=taken.take, **reading)
        if taken.take is not None and truncation == "error":
            before = embedder.document_prompt() if prompt is None else prompt
            records = embedder.short_enough(records, before, taken.take)
        with _given_vectors(vectors, on_error) as given:
            index = writer.create(
                counted(records, input, input_format, bar=progress_wanted(quiet)),
                prompt=prompt,
                vectors=given,
                kind=kind,
                pca=pca,
                column_types=_column_types(column_type),
            )
        _tell(read, writer, directory, index.segments)
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
    column_type: ColumnTypes = None,
    vectors: Vectors = None,
    model: options.Model = None,
    input_format: options.InputFormat = None,
    text_column: options.TextColumns = None,
    text_separator: options.TextSeparator = None,
    id_column: options.IdColumn = None,
    max_row_bytes: options.MaxRowBytes = None,
    truncation: options.Truncation = "warn",
    on_error: options.OnError = "fail",
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
        options.reading(input_format, text_column, text_separator, id_column, max_row_bytes),
        truncation,
        on_error,
        rejects,
        batch_size,
        threads,
        offline,
        quiet,
    )
    _change(
        lambda writer, records, given: writer.add(records, vectors=given, column_types=_column_types(column_type)),
        directory,
        input,
        vectors,
        model,
        *settings,
    )


@app.command(
    "update",
    epilog="""Example:

  sbmini index update news.index -i corrected.csv --id-column url
""",
)
def update(
    directory: options.IndexDirectory,
    input: Input,
    column_type: ColumnTypes = None,
    vectors: Vectors = None,
    model: options.Model = None,
    input_format: options.InputFormat = None,
    text_column: options.TextColumns = None,
    text_separator: options.TextSeparator = None,
    id_column: options.IdColumn = None,
    max_row_bytes: options.MaxRowBytes = None,
    truncation: options.Truncation = "warn",
    on_error: options.OnError = "fail",
    rejects: options.RejectsFile = None,
    batch_size: options.BatchSize = 32,
    threads: options.Threads = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
) -> None:
    """Put each row of a file in the place of the one with its id, or add it where there is none."""
    settings = (
        options.reading(input_format, text_column, text_separator, id_column, max_row_bytes),
        truncation,
        on_error,
        rejects,
        batch_size,
        threads,
        offline,
        quiet,
    )
    _change(
        lambda writer, records, given: writer.update(records, vectors=given, column_types=_column_types(column_type)),
        directory,
        input,
        vectors,
        model,
        *settings,
    )


@app.command(
    "delete",
    epilog="""Examples:

  sbmini index delete news.index https://example.org/1

  sbmini index delete news.index --ids-from gone.txt

  sbmini index delete news.index --filter "year < 2010" --dry-run

  sbmini index delete news.index --filter "year < 2015"
""",
)
def delete(
    directory: options.IndexDirectory,
    ids: Annotated[list[str] | None, typer.Argument(help="The ids.", show_default=False)] = None,
    ids_from: Annotated[
        Path | None, typer.Option("--ids-from", help="A text file, one id a line; - for stdin.", show_default=False)
    ] = None,
    filter: options.Filter = None,
    filter_timeout: options.FilterTimeout = 60.0,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask, on a terminal, before --filter deletes.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many rows would be deleted, and delete none.")
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Delete rows by their ids, or those that meet a condition.

    An id that is not in the index is an error, and nothing is deleted. On a terminal --filter asks first. 'sbmini index compact'
    gives back the space of deleted rows.
    """
    if sum((bool(ids), ids_from is not None, filter is not None)) != 1:
        raise UsageError("name the ids to delete, or a file of them with --ids-from, or a --filter; one of the three")
    quiet_notes(quiet)
    from sbert_mini.search import writer
    from sbert_mini.text.records import read_records

    met = 0

    def confirm(count: int) -> bool:
        nonlocal met
        met = count
        if dry_run:
            return False
        ask = filter is not None and not yes and sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
        return not ask or typer.confirm(f"delete {_rows(count)}?", err=True)

    if filter is not None:
        deleted = writer.delete(directory, filter=filter, filter_timeout_s=filter_timeout, confirm=confirm)
    else:
        named = ids or (record.text for record in read_records(ids_from or "-", format="txt"))
        deleted = writer.delete(directory, named, confirm=confirm)
    if dry_run:
        note(f"{_rows(met)} would be deleted from {directory}")
    else:
        note(f"{_rows(deleted)} deleted from {directory}")


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"


@app.command(
    "compact",
    epilog="""Examples:

  sbmini index compact news.index

  sbmini index compact news.index --kind HNSW32_SQ8
""",
)
def compact(
    directory: options.IndexDirectory,
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind", help="Another kind from now on: auto, exact, or a FAISS factory string.", show_default=False
        ),
    ] = None,
    pca: Pca = None,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
) -> None:
    """Write an index's rows into one segment, without those that were deleted or replaced.

    Searches go on meanwhile. What the old segments took up is given back once no process reads them: at once, or by the next
    command that changes the index.
    """
    if pca is not None and kind is None:
        raise UsageError("--pca goes with --kind: name the kind too, such as --kind auto")
    quiet_notes(quiet)
    from sbert_mini.progress import ProgressBar
    from sbert_mini.search import writer

    with ProgressBar("rows", None) if progress_wanted(quiet) else nullcontext() as bar:
        told = None if bar is None else bar.move_to
        index = writer.compact(directory, kind=kind, pca=pca, threads=threads, on_progress=told)
    note(f"{directory}: {len(index)} rows in {index.segments} segment, {', '.join(index.segment_kinds)}")


@app.command(
    "push",
    epilog="""Example:

  sbmini index push news.index milvus://127.0.0.1:19530/news

  sbmini search milvus://127.0.0.1:19530/news "interest rates" --filter "year >= 2020"
""",
)
def push(
    directory: options.IndexDirectory,
    address: Annotated[str, typer.Argument(help="milvus://HOST[:PORT]/COLLECTION.", show_default=False)],
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Rows a request.")] = 1000,
    quiet: options.Quiet = False,
) -> None:
    """Bring a collection in Milvus to what an index holds, rows by their ids.

    The collection is made if there is none. Rows that the index does not hold any more are removed. A push that was broken off is
    finished by the same command, without duplicates; in the end the server's count must be the index's. A password goes into the
    variable SBMINI_MILVUS_TOKEN (user:password, or an API key).
    """
    quiet_notes(quiet)
    from sbert_mini.progress import ProgressBar
    from sbert_mini.scale import milvus
    from sbert_mini.search.index import SearchIndex

    index = SearchIndex(directory)
    with ProgressBar("rows", len(index)) if progress_wanted(quiet) else nullcontext() as bar:
        counts = milvus.push(index, address, batch_rows=batch_size, on_progress=None if bar is None else bar.move_to)
    removed = f", {counts.removed} that the index does not hold were removed" if counts.removed else ""
    note(f"{counts.rows} rows -> {address}{removed}")


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
        "kind": index.kind.factory,
        "pca": index.kind.pca,
        "segments": index.segments,
        "segment_kinds": index.segment_kinds,
        "columns": index.columns,
        "deleted_rows_kept": index.deleted_rows,
        "bytes": sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()),
    }
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    found["columns"] = ", ".join(f"{name} ({type or 'no value yet'})" for name, type in index.columns.items()) or "none"
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
    change: "Callable[[IndexWriter, Iterable[Record], FloatArray | VectorsById | None], SearchIndex]",
    directory: Path,
    input: list[Path],
    vectors: Path | None,
    model: str | None,
    reading: dict[str, Any],
    truncation: Truncation,
    on_error: options.OnErrorAction,
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
    with Rejects(on_error == "skip", rejects, _beside(directory), input) as taken:
        writer = IndexWriter(
            directory,
            embedder,
            batch_size=batch_size,
            truncation=truncation,
            show_progress_bar=progress_wanted(quiet),
            on_reject=taken.take,
        )
        read = ReadCounts()
        records: Iterable[Record] = read_records(input, counts=read, on_reject=taken.take, **reading)
        if taken.take is not None and truncation == "error":
            records = embedder.short_enough(records, index.model.prompt, taken.take)
        with _given_vectors(vectors, on_error) as given:
            changed = change(writer, counted(records, input, reading.get("format"), bar=progress_wanted(quiet)), given)
        _tell(read, writer, directory, changed.segments)
    raise typer.Exit(taken.exit_code())


def _column_types(given: list[str] | None) -> dict[str, str]:
    """Return the types that --column-type gives, by column."""
    found: dict[str, str] = {}
    for entry in given or []:
        name, equals, type = entry.rpartition("=")
        if not equals or not name:
            raise UsageError(f"--column-type takes NAME=TYPE, such as price=number; found {entry!r}")
        if name in found:
            raise UsageError(f"--column-type names the column {name!r} twice")
        found[name] = type
    return found


@contextmanager
def _given_vectors(place: Path | None, on_error: options.OnErrorAction) -> "Iterator[FloatArray | VectorsById | None]":
    """Yield the vectors of a .npy file, mapped, or those of a folder of shards, by their rows' ids."""
    if place is not None and on_error == "skip":
        raise UsageError("--vectors needs every row: it does not go with --on-error skip")
    if place is None or not place.is_dir():
        yield None if place is None else options.read_vectors(place)
        return
    from sbert_mini.files.durable import scratch_folder
    from sbert_mini.scale.bulk import read_shards

    with scratch_folder(place) as folder:
        yield read_shards(place, folder / "vectors.npy")


def _beside(directory: Path) -> Path:
    return directory.with_name(directory.name + ".rejects.jsonl")


def _tell(read: "ReadCounts", writer: "IndexWriter", directory: Path, segments: int) -> None:
    counts = writer.counts
    if read.blank:
        note(f"{read.blank} blank lines were not stored")
    if counts.repeated:
        note(f"{counts.repeated} rows were the same as an earlier one, and are stored once")
    replaced = f" ({counts.replaced} of them in the place of older ones)" if counts.replaced else ""
    note(f"{counts.rows} rows{replaced} -> {directory}")
    if segments > MANY_SEGMENTS:
        note(f"{directory} lies in {segments} segments, and is faster in one: 'sbmini index compact {directory}'")
