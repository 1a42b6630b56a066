"""`sbmini encode`: texts -> vectors."""

import itertools
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from sbert_mini.errors import InputError, UsageError
from sbert_mini.runtime.choices import Truncation

from . import options
from .notes import Interrupted, counted, note, note_input, progress_wanted, quiet_notes
from .printing import json_text
from .rejects import Rejects, rejects_beside

if TYPE_CHECKING:
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.runtime.job import EncodeSettings
    from sbert_mini.runtime.stream import EncodeCounts
    from sbert_mini.text.arrivals import Arrivals
    from sbert_mini.text.records import ReadCounts, Record

EXAMPLE = """Examples:

  sbmini encode "one sentence"

  sbmini encode -i sentences.txt -o vectors.npy

  sbmini encode -i news.csv --text-column body -o news.parquet --resume

  sbmini encode -i news.csv --text-column body --keep-columns id,year -o news.jsonl

  cut -f2 table.tsv | sbmini encode -o vectors.jsonl

  sbmini encode --engine ray --workers 8 -i "corpus/*.jsonl.gz" -o vectors/ --resume
"""


Engine: TypeAlias = Literal["local", "ray"]
"""What encodes."""
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="A .npy, .jsonl, .csv, .tsv or .parquet file; by default JSON lines on stdout.",
        show_default=False,
    ),
]
Dim = Annotated[
    int | None,
    typer.Option(
        "--dim", min=1, help="Keep only the first components, this many, and normalise again.", show_default=False
    ),
]
Prompt = Annotated[str | None, typer.Option("--prompt", help="A text put before each text.", show_default=False)]
KeepColumns = Annotated[
    str | None,
    typer.Option(
        "--keep-columns",
        metavar="NAMES",
        help="The columns that stand beside the vectors, separated by commas. [default: all]",
        show_default=False,
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue an interrupted run of the same command, if there is one.")
]
EngineOption = Annotated[
    Engine, typer.Option("--engine", help="ray: many files, on many processes or machines, into Parquet shards.")
]
Workers = Annotated[int, typer.Option("--workers", min=1, help="With --engine ray: processes, each with a model.")]
Address = Annotated[
    str | None,
    typer.Option(
        "--address", help="Address of a Ray cluster; by default Ray runs on this machine alone.", show_default=False
    ),
]


def encode(
    texts: Annotated[list[str] | None, typer.Argument(help="The texts themselves.", show_default=False)] = None,
    input: options.InputFiles = None,
    output: Output = None,
    model: options.Model = None,
    graph: options.GraphOption = "int8",
    precision: options.PrecisionOption = "float32",
    dim: Dim = None,
    prompt: Prompt = None,
    keep_columns: KeepColumns = None,
    input_format: options.InputFormat = None,
    text_column: options.TextColumns = None,
    text_separator: options.TextSeparator = None,
    id_column: options.IdColumn = None,
    delimiter: options.Delimiter = None,
    max_row_bytes: options.MaxRowBytes = None,
    resume: Resume = False,
    truncation: options.Truncation = "warn",
    on_error: options.OnError = "fail",
    rejects: options.RejectsFile = None,
    batch_size: options.BatchSize = 32,
    threads: options.Threads = None,
    engine: EngineOption = "local",
    address: Address = None,
    workers: Workers = 1,
    offline: options.Offline = False,
    trust_tokenizer: options.TrustTokenizer = False,
    quiet: options.Quiet = False,
) -> None:
    """Encode texts as vectors of length 1.

    The texts are the arguments, the rows of a file, or the lines of stdin. Rows keep their columns, or those of --keep-columns,
    and values their types.
    The output adds "embedding" (in CSV and TSV e0, e1 ...), and, if no column has that name, "text" and the row's "id" if it has
    one. A .npy file holds an array of shape (texts, dim). Memory stays small for inputs of any length. Without an --output each
    line that arrives in a pipe is answered at once. --resume continues an
    interrupted run.

    int8 and uint8 values are quantized with fixed ranges of the model, so a text has the same values in every file. The ranges
    are written into OUTPUT.ranges.npy. --dim has its own ranges.

    With --engine ray an --input is a file, folder, or quoted pattern, and --output is a folder. All nodes must see them under
    the same paths. The Parquet shards hold "id" (without an id column the file and line), "vector" and "truncated", in no
    defined order. Blank lines of plain text have no row. --resume skips the ids that are already written. --threads counts the
    threads of each worker; by default they share the cores. Workers are spread evenly over the nodes.
    """
    reading = options.reading(input_format, text_column, text_separator, id_column, max_row_bytes, delimiter)
    settings: dict[str, Any] = {"dim": dim, "prompt": prompt, "truncation": truncation, "batch_size": batch_size}
    quiet_notes(quiet)
    if engine == "ray":
        others = precision != "float32" or on_error == "skip" or rejects is not None
        others = others or keep_columns is not None or bool(input_format or delimiter)
        paths, folder = _checked_for_ray(texts, input, output, others=others)
        bulk = {"model": model, "graph": graph, "trust_tokenizer": trust_tokenizer, **settings, **reading}
        _on_ray(paths, folder, bulk, address, workers, threads, resume=resume, offline=offline, quiet=quiet)
        return
    if address is not None or workers > 1:
        raise UsageError("--address and --workers go with --engine ray")
    input = options.checked_input(texts, input, reading)
    output = _checked_output(output, input, resume=resume)
    settings |= {"precision": precision, "columns": options.names_in("--keep-columns", keep_columns)}
    opening = {
        "model": model,
        "graph": graph,
        "threads": threads,
        "offline": offline,
        "trust_tokenizer": trust_tokenizer,
    }
    with Rejects(on_error == "skip", rejects, None if output is None else rejects_beside(output), input) as taken:
        read, counts = _encode(
            texts or [], input, output, settings, reading, opening, taken, resume=resume, quiet=quiet
        )
    _tell(read, counts, truncation)
    raise typer.Exit(taken.exit_code())


def _encode(
    texts: list[str],
    input: list[Path] | None,
    output: Path | None,
    settings: dict[str, Any],
    reading: dict[str, Any],
    opening: dict[str, Any],
    taken: Rejects,
    *,
    resume: bool,
    quiet: bool,
) -> "tuple[ReadCounts, EncodeCounts]":
    """Encode texts, or the rows of files, into a file or to stdout, and return what was met."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's BLAS has nothing to do here, and starts its threads
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.runtime.job import EncodeSettings
    from sbert_mini.runtime.stream import EncodeCounts
    from sbert_mini.text.arrivals import Arrivals
    from sbert_mini.text.records import ReadCounts, Record, read_records

    counts, read, job_settings, arrivals = EncodeCounts(), ReadCounts(), EncodeSettings(**settings), Arrivals()
    rows: Iterable[Record] = (Record(text) for text in texts)
    if input:
        watched = arrivals if output is None else None  # a file is written in whole windows
        rows = read_records(input, counts=read, on_reject=taken.take, arrivals=watched, **reading)
    records = _at_least_one(rows)
    embedder = Embedder(**opening)
    if taken.take is not None and job_settings.truncation == "error":
        records = embedder.short_enough(records, job_settings.prompt, taken.take)
    if output is None:
        _to_stdout(records, embedder, job_settings, counts, arrivals)
    else:
        bar = progress_wanted(quiet) and bool(input)
        rows = counted(records, input, reading.get("format"), bar=bar)
        _to_file(rows, output, embedder, job_settings, counts, resume=resume, bar=bar)
    return read, counts


def _tell(read: "ReadCounts", counts: "EncodeCounts", truncation: Truncation) -> None:
    note_input(read, "not encoded")
    if counts.truncated and truncation == "chunk":
        note(f"{counts.truncated} of {counts.texts} texts were read in pieces")


def _checked_output(output: Path | None, input: list[Path] | None, *, resume: bool) -> Path | None:
    """Return the file to write; None for stdout.

    Raises:
        UsageError: a run to stdout is to be resumed; or the file is of an unknown format, or in the place of an input.
    """
    if output is None or str(output) == "-":
        if resume:
            raise UsageError("--resume needs an --output file")
        return None
    from sbert_mini.runtime.job import output_kind

    output_kind(output)
    for file in input or []:
        if file.exists() and output.exists() and file.samefile(output):
            raise UsageError(f"the output would replace the input, {file}")
    return output


def _to_file(
    records: "Iterable[Record]",
    output: Path,
    embedder: "Embedder",
    settings: "EncodeSettings",
    counts: "EncodeCounts",
    *,
    resume: bool,
    bar: bool,
) -> None:
    from sbert_mini.runtime.job import EncodeJob

    job = EncodeJob(output, embedder, settings, resume=resume, show_progress_bar=bar, counts=counts)
    if job.done:
        note(f"going on after {job.done} texts")
    try:
        rows = job.run(records)
    except KeyboardInterrupt:
        if job.done:
            raise Interrupted(
                f"{job.done} texts are kept in {job.folder}; the same command with --resume goes on after them"
            ) from None
        raise
    note(f"{rows} texts -> {output}")


def _checked_for_ray(
    texts: list[str] | None, input: list[Path] | None, output: Path | None, *, others: bool
) -> tuple[list[Path], Path]:
    """Return the input and output of --engine ray.

    Raises:
        UsageError: one of them is missing, or options are given that do not go with it (`others`).
    """
    if texts or not input or output is None:
        raise UsageError("--engine ray needs --input (files, folders or patterns) and --output (a folder)")
    if others:
        raise UsageError(
            "--engine ray goes without --precision, --keep-columns, --on-error skip, --rejects, --input-format and --delimiter"
        )
    return input, output


def _on_ray(
    input: list[Path],
    output: Path,
    settings: dict[str, Any],
    address: str | None,
    workers: int,
    threads: int | None,
    *,
    resume: bool,
    offline: bool,
    quiet: bool,
) -> None:
    from sbert_mini.scale.bulk import BulkSettings, encode_files, threads_each
    from sbert_mini.text.records import files_at

    files = [file for path in input for file in files_at(path)]
    threads = threads_each(workers, threads)
    started = f"{_counted(len(files), 'file')}, {_counted(workers, 'worker')} of {_counted(threads, 'thread')}"
    counts = encode_files(
        files,
        output,
        BulkSettings(**settings),
        address=address,
        workers=workers,
        threads=threads,
        resume=resume,
        offline=offline,
        show_progress_bar=progress_wanted(quiet),
        on_start=lambda: note(started),
    )
    earlier = f" ({counts.kept} of them from an earlier run)" if counts.kept else ""
    note(f"{_counted(counts.rows, 'text')}{earlier} -> {_counted(counts.shards, 'shard')} in {output}")
    if counts.truncated:
        note(f"{_counted(counts.truncated, 'text')} longer than the model reads, marked by 'truncated'")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _to_stdout(
    records: "Iterable[Record]",
    embedder: "Embedder",
    settings: "EncodeSettings",
    counts: "EncodeCounts",
    arrivals: "Arrivals",
) -> None:
    from sbert_mini.runtime.job import OutputRows, json_line
    from sbert_mini.runtime.precision import quantize_vectors

    eight_bits = settings.precision in ("int8", "uint8")
    ranges = embedder.component_ranges(settings.dim) if eight_bits else None
    rows = OutputRows("jsonl", embedder.dimension, settings.columns)
    windows = embedder.encode_records(
        records,
        batch_size=settings.batch_size,
        truncate_dim=settings.dim,
        prompt=settings.prompt,
        truncation=settings.truncation,
        counts=counts,
        waits=arrivals.waits,
    )
    for encoded, block in windows:
        for record, vector in zip(encoded, quantize_vectors(block, settings.precision, ranges), strict=True):
            sys.stdout.write(json_text(json_line(rows.of(record), vector)))
        sys.stdout.flush()


def _at_least_one(records: "Iterable[Record]") -> "Iterable[Record]":
    """Return the records, having made sure, before anything slow is done, that there is one."""
    iterator = iter(records)
    first = next(iterator, None)
    if first is None:
        raise InputError("there is no text to encode")
    return itertools.chain([first], iterator)
