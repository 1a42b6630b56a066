"""`sbmini index`: make, change and check an index of texts."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbert_mini.errors import CorruptIndexError, UsageError
from sbert_mini.runtime.choices import LongTexts
from sbert_mini.scale.address import FORM

from . import options
from .amounts import amount
from .notes import Interrupted, counted, note, note_input, progress_wanted, quiet_notes
from .rejects import Rejects, rejects_beside

if TYPE_CHECKING:
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.search.encoding import VectorsById
    from sbert_mini.search.index import SearchIndex
    from sbert_mini.search.writer import IndexWriter
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
        help="The number of principal components that FAISS stores (whitened: --kind PCAW128,SQ8).",
        show_default=False,
    ),
]

ColumnTypes = Annotated[
    list[str] | None,
    typer.Option(
        "--column-type",
        metavar="NAME=TYPE",
        help="A column's type: integer, number, boolean or text; by default inferred from the values. Repeatable.",
        show_default=False,
    ),
]

MANY_SEGMENTS = 16


@dataclass(frozen=True)
class _RowOptions:
    """The rows of some files that go into an index: the options that `create`, `add` and `update` share."""

    directory: Path
    input: list[Path]
    reading: dict[str, Any]
    vectors: Path | None
    column_types: dict[str, str]
    truncation: LongTexts | None
    passage_tokens: int | None
    overlap: int | None
    on_error: options.OnErrorAction
    rejects: Path | None
    batch_size: int
    quiet: bool


app = typer.Typer(help="Create, change and check an index of texts.", no_args_is_help=True, rich_markup_mode=None)

Input = Annotated[
    list[Path],
    typer.Option(
        "--input",
        "-i",
        callback=options.matching_files,
        help="A file of rows: txt, csv, tsv, jsonl, json or parquet, or a pattern; - for stdin. "
        "Several (-i A -i B) are read in order as one.",
        show_default=False,
    ),
]


@app.command(
    "create",
    epilog="""Examples:

  sbmini index create notes.index -i notes.txt

  sbmini index create news.index -i news.csv --text-column body

  sbmini index create manuals.index -i manuals.jsonl --passage-tokens 128 --overlap 16

  sbmini index create news.index -i news.csv --text-column body --resume

  sbmini index create news.index -i news.csv --text-column body --overwrite

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
    delimiter: options.Delimiter = None,
    max_row_bytes: options.MaxRowBytes = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", help="A prefix of each text; by default the model's prompt for documents.", show_default=False
        ),
    ] = None,
    column_type: ColumnTypes = None,
    vectors: Vectors = None,
    kind: Kind = "auto",
    pca: Pca = None,
    truncation: options.LongTexts = None,
    passage_tokens: options.PassageTokens = None,
    overlap: options.Overlap = None,
    on_error: options.OnError = "fail",
    rejects: options.IndexRejectsFile = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted creation: what it encoded is not encoded again.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace an index, in one step: it is searched until the new one is whole."),
    ] = False,
    batch_size: options.BatchSize = 32,
    threads: options.Threads = None,
    offline: options.Offline = False,
    trust_tokenizer: options.TrustTokenizer = False,
    quiet: options.Quiet = False,
) -> None:
    """Create an index of a file's rows, in a directory that is absent or empty.

    After Ctrl-C or a crash the vectors that were computed lie beside the index, in INDEX.partial, and the same command with
    --resume continues. Rows whose text has changed since are encoded.

    A row keeps all its columns. Its id is the value of the id column. Without an id column the id is computed from the row's
    content; rows with the same content are stored once, and counted. For filters each column has one type: the narrowest type
    that reproduces all values exactly (so 007 and 1.10 are text), or the type that --column-type names. A row of BEIR's corpus
    (_id, title and text, no id) has its title joined with its text, and a note says so; --text-column text takes the text alone.

    A text that is longer than the model reads is stored in passages, cut at the borders of paragraphs, sentences or words, each
    with a vector of its own. A search returns the row, and names the passage that is closest. --truncation has the other ways.

    Up to 50,000 vectors are searched exactly. Larger indexes use inverted lists of 1-bit vectors (RaBitQ); the number of lists
    per query is set so that a search finds 98.5 % of the nearest neighbours. All hits are scored with the full vectors. Other
    values of --kind are FAISS factory strings, such as SQ8 for 8-bit vectors, or HNSW32_SQ8 for an index that is mostly read.
    "IVF," without a number selects a suitable number of lists.
    """
    reading = options.reading(input_format, text_column, text_separator, id_column, max_row_bytes, delimiter)
    rows = _RowOptions(
        *(directory, input, reading, vectors, _column_types(column_type), truncation, passage_tokens, overlap),
        *(on_error, rejects, batch_size, quiet),
    )
    quiet_notes(quiet)
    opening = {"graph": graph, "threads": threads, "offline": offline, "trust_tokenizer": trust_tokenizer}
    how = {"prompt": prompt, "kind": kind, "pca": pca, "overwrite": overwrite}
    _create(rows, model, opening, how, resume=resume)


def _create(
    rows: _RowOptions, model: str | None, opening: dict[str, Any], how: dict[str, Any], *, resume: bool
) -> None:
    """Open the model, let `IndexWriter.create` write the rows, and say what is kept where that does not end."""
    kept = None if rows.vectors is not None else _kept_vectors(rows.directory, resume)
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.search.writer import IndexWriter

    embedder = Embedder(model, **opening)
    prompt = embedder.document_prompt() if how["prompt"] is None else how["prompt"]
    change = partial(IndexWriter.create, **how, resume=kept is not None)
    try:
        _write(rows, embedder, prompt, rows.truncation, change)
    except KeyboardInterrupt:
        if kept is None or not kept.exists():
            raise
        state = "the index is as it was" if (rows.directory / "CURRENT").exists() else "no index was made"
        text = f"{state}; {kept} keeps what was encoded, and the same command with --resume continues"
        raise Interrupted(text) from None
    except Exception:
        if kept is not None and kept.exists():
            note(f"{kept} keeps what was encoded; the same command with --resume takes it from there")
        raise


def _kept_vectors(directory: Path, resume: bool) -> Path:
    """Return the folder that keeps vectors until an index is whole.

    Raises:
        UsageError: an interrupted command left it, and this one does not resume.
    """
    from sbert_mini.search.journal import journal_folder

    folder = journal_folder(directory)
    if folder.exists() and not resume:
        raise UsageError(
            f"{folder} keeps what an interrupted command encoded: go on with --resume, or delete that folder"
        )
    return folder


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
    delimiter: options.Delimiter = None,
    max_row_bytes: options.MaxRowBytes = None,
    truncation: options.LongTexts = None,
    passage_tokens: options.PassageTokens = None,
    overlap: options.Overlap = None,
    on_error: options.OnError = "fail",
    rejects: options.IndexRejectsFile = None,
    batch_size: options.BatchSize = 32,
    threads: options.Threads = None,
    offline: options.Offline = False,
    trust_tokenizer: options.TrustTokenizer = False,
    quiet: options.Quiet = False,
) -> None:
    """Add a file's rows to an index.

    If an id is already in the index, that is an error and nothing is added. A row without an id that is already in the index is
    counted, and not stored again. The index's own model, prompt and way with long texts are used.
    """
    rows = _RowOptions(
        directory,
        input,
        options.reading(input_format, text_column, text_separator, id_column, max_row_bytes, delimiter),
        vectors,
        _column_types(column_type),
        truncation,
        passage_tokens,
        overlap,
        on_error,
        rejects,
        batch_size,
        quiet,
    )
    from sbert_mini.search.writer import IndexWriter

    _change(rows, IndexWriter.add, model, threads, offline, trust_tokenizer)


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
    delimiter: options.Delimiter = None,
    max_row_bytes: options.MaxRowBytes = None,
    truncation: options.LongTexts = None,
    passage_tokens: options.PassageTokens = None,
    overlap: options.Overlap = None,
    on_error: options.OnError = "fail",
    rejects: options.IndexRejectsFile = None,
    batch_size: options.BatchSize = 32,
    threads: options.Threads = None,
    offline: options.Offline = False,
    trust_tokenizer: options.TrustTokenizer = False,
    quiet: options.Quiet = False,
) -> None:
    """Replace the rows that have the ids of a file's rows; add the rows with new ids.

    A row that is stored already with the same text and columns is not encoded again, and stays as it is; the last line counts the
    rows that were added, changed and unchanged.
    """
    rows = _RowOptions(
        directory,
        input,
        options.reading(input_format, text_column, text_separator, id_column, max_row_bytes, delimiter),
        vectors,
        _column_types(column_type),
        truncation,
        passage_tokens,
        overlap,
        on_error,
        rejects,
        batch_size,
        quiet,
    )
    from sbert_mini.search.writer import IndexWriter

    _change(rows, IndexWriter.update, model, threads, offline, trust_tokenizer)


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
        bool, typer.Option("--yes", "-y", help="Do not ask for confirmation, on a terminal, before --filter deletes.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print how many rows would be deleted, and delete none.")
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Delete rows by their ids, or those that meet a condition.

    An id that is not in the index is an error, and nothing is deleted. On a terminal --filter asks first. 'sbmini index compact'
    frees the space of deleted rows.
    """
    if sum((bool(ids), ids_from is not None, filter is not None)) != 1:
        raise UsageError("name the ids to delete, or a file of them with --ids-from, or a --filter; one of the three")
    quiet_notes(quiet)
    from sbert_mini.search.writer import IndexWriter
    from sbert_mini.text.records import read_records

    rows = 0

    def confirm(count: int) -> bool:
        nonlocal rows
        rows = count
        if dry_run:
            return False
        ask = filter is not None and not yes and sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
        return not ask or typer.confirm(f"delete {amount(count, 'row')}?", err=True)

    writer = IndexWriter(directory)
    if filter is not None:
        deleted = writer.delete(filter=filter, filter_timeout_s=filter_timeout, confirm=confirm)
    else:
        named = ids or (record.text for record in read_records(ids_from or "-", format="txt"))
        deleted = writer.delete(named, confirm=confirm)
    if dry_run:
        note(f"{amount(rows, 'row')} would be deleted from {directory}")
    else:
        note(f"{amount(deleted, 'row')} deleted from {directory}")


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
    """Write an index's rows into one segment, without the deleted and replaced ones.

    Searches continue meanwhile. The old segments are removed when no process reads them any more: at once, or by the next command
    that changes the index.
    """
    quiet_notes(quiet)
    from sbert_mini.progress import ProgressBar
    from sbert_mini.search.writer import IndexWriter

    with ProgressBar("rows", None) if progress_wanted(quiet) else nullcontext() as bar:
        on_progress = None if bar is None else bar.move_to
        index = IndexWriter(directory, threads=threads).compact(kind=kind, pca=pca, on_progress=on_progress)
    note(f"{directory}: {amount(len(index), 'row')} in 1 segment, {', '.join(index.segment_kinds)}")


@app.command(
    "push",
    epilog="""Example:

  sbmini index push news.index milvus://127.0.0.1:19530/news

  sbmini search milvus://127.0.0.1:19530/news "interest rates" --filter "year >= 2020"
""",
)
def push(
    directory: options.IndexDirectory,
    address: Annotated[str, typer.Argument(help=f"{FORM}.", show_default=False)],
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Rows per request.")] = 1000,
    quiet: options.Quiet = False,
) -> None:
    """Make a Milvus collection equal to an index, by the rows' ids.

    The collection is created if there is none. Rows that are no longer in the index are removed. The same command completes an
    interrupted push, without duplicates. At the end the server's row count must equal the index's. A row has one vector in
    Milvus: the vectors of its passages are averaged. Credentials go into the environment variable SBMINI_MILVUS_TOKEN
    (user:password, or an API key).
    """
    quiet_notes(quiet)
    from sbert_mini.progress import ProgressBar
    from sbert_mini.scale import milvus
    from sbert_mini.search.index import SearchIndex

    index = SearchIndex(directory)
    with ProgressBar("rows", len(index)) if progress_wanted(quiet) else nullcontext() as bar:
        counts = milvus.push(index, address, batch_rows=batch_size, on_progress=None if bar is None else bar.move_to)
    removed = f", {amount(counts.removed, 'row')} that the index does not hold removed" if counts.removed else ""
    note(f"{amount(counts.rows, 'row')} -> {address}{removed}")


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
    note(f"{directory} is sound: {amount(len(index), 'row')}, generation {index.generation}")


def _change(
    rows: _RowOptions,
    change: "Callable[..., SearchIndex]",
    model: str | None,
    threads: int | None,
    offline: bool,
    trust_tokenizer: bool,
) -> None:
    """Open an index's model, or the one that is named, and let `change`, a method of `IndexWriter`, write the rows."""
    options.check_trust(trust_tokenizer, model)
    quiet_notes(rows.quiet)
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.search.index import SearchIndex

    index = SearchIndex(rows.directory, threads=threads, offline=offline)
    if model is None:
        embedder = index.embedder()
    else:
        opening: dict[str, Any] = {"threads": threads, "offline": offline, "trust_tokenizer": trust_tokenizer}
        named = Embedder(model, graph=index.model.graph, **opening)  # type: ignore[arg-type]
        embedder = index.check_model(named)
    _write(rows, embedder, index.model.prompt, rows.truncation or index.long_texts.truncation, change)


def _write(
    rows: _RowOptions,
    embedder: "Embedder",
    prompt: str,
    truncation: LongTexts | None,
    change: "Callable[..., SearchIndex]",
) -> None:
    """Read the rows, let `change`, a method of `IndexWriter`, write them, and end the command."""
    from sbert_mini.search.writer import IndexWriter
    from sbert_mini.text.records import ReadCounts, read_records

    skip = rows.on_error == "skip"
    with Rejects(skip, rows.rejects, rejects_beside(rows.directory), rows.input) as taken:
        writer = IndexWriter(
            rows.directory,
            embedder,
            batch_size=rows.batch_size,
            truncation=rows.truncation,
            passage_tokens=rows.passage_tokens,
            overlap=rows.overlap,
            show_progress_bar=progress_wanted(rows.quiet),
            on_reject=taken.take,
        )
        read = ReadCounts()
        records: Iterable[Record] = read_records(rows.input, counts=read, on_reject=taken.take, **rows.reading)
        if taken.take is not None and truncation == "error":
            records = embedder.short_enough(records, prompt, taken.take)
        with _given_vectors(rows.vectors, rows.on_error) as vectors:
            records = counted(records, rows.input, rows.reading.get("format"), bar=progress_wanted(rows.quiet))
            index = change(writer, records, vectors=vectors, column_types=rows.column_types)
        _tell(read, writer, rows.directory, index.segments, is_update=change is IndexWriter.update)
    raise typer.Exit(taken.exit_code())


def _column_types(options: list[str] | None) -> dict[str, str]:
    """Return the types that --column-type gives, by column."""
    types: dict[str, str] = {}
    for entry in options or []:
        name, equals, type = entry.rpartition("=")
        if not equals or not name:
            raise UsageError(f"--column-type takes NAME=TYPE, such as price=number; found {entry!r}")
        if name in types:
            raise UsageError(f"--column-type names the column {name!r} twice")
        types[name] = type
    return types


@contextmanager
def _given_vectors(path: Path | None, on_error: options.OnErrorAction) -> "Iterator[FloatArray | VectorsById | None]":
    """Yield the vectors of a .npy file, mapped, or those of a folder of shards, by their rows' ids."""
    if path is not None and on_error == "skip":
        raise UsageError("--vectors needs every row: it does not go with --on-error skip")
    if path is None or not path.is_dir():
        from sbert_mini.runtime.npy import read_vectors

        yield None if path is None else read_vectors(path)
        return
    from sbert_mini.files.durable import scratch_folder
    from sbert_mini.scale.shards import read_shards

    with scratch_folder(path) as folder:
        yield read_shards(path, folder / "vectors.npy")


def _tell(read: "ReadCounts", writer: "IndexWriter", directory: Path, segments: int, *, is_update: bool) -> None:
    counts = writer.counts
    note_input(read, "not stored")
    if counts.split:
        note(f"{amount(counts.split, 'long row was', 'long rows were')} split into {counts.passages} passages")
    if counts.resumed:
        note(f"{amount(counts.resumed, 'passage')} had been encoded by an earlier command that did not end")
    if counts.repeated:
        note(f"{amount(counts.repeated, 'row was', 'rows were')} the same as an earlier one, and stored once")
    done = amount(counts.rows, "row")
    if is_update:
        done = f"{counts.rows - counts.replaced} added, {counts.replaced} changed, {counts.unchanged} unchanged"
    note(f"{done} -> {directory}")
    if segments > MANY_SEGMENTS:
        note(f"{directory} lies in {segments} segments, and is faster in one: 'sbmini index compact {directory}'")
