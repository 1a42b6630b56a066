"""`sbmini encode`: texts -> vectors."""

import itertools
import os
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbert_mini.errors import InputError, UsageError

from . import options
from .notes import Interrupted, counted, note, progress_wanted, quiet_notes
from .rejects import Rejects

if TYPE_CHECKING:
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.runtime.job import EncodeSettings
    from sbert_mini.runtime.stream import EncodeCounts
    from sbert_mini.text.records import Record

EXAMPLE = """Examples:

  sbmini encode "one sentence"

  sbmini encode -i sentences.txt -o vectors.npy

  sbmini encode -i news.csv --text-column body -o news.parquet --resume

  cut -f2 table.tsv | sbmini encode -o vectors.jsonl

  sbmini encode --engine ray --workers 8 -i "corpus/*.jsonl.gz" -o vectors/ --resume
"""


class Engine(StrEnum):
    """What encodes."""

    LOCAL = "local"
    RAY = "ray"


def encode(
    texts: Annotated[list[str] | None, typer.Argument(help="The texts themselves.", show_default=False)] = None,
    input: options.InputFiles = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A .npy, .jsonl, .csv, .tsv or .parquet file; by default JSON lines on stdout.",
            show_default=False,
        ),
    ] = None,
    model: options.Model = None,
    graph: options.GraphOption = options.Graph.INT8,
    precision: options.PrecisionOption = options.PrecisionChoice.FLOAT32,
    dim: Annotated[
        int | None,
        typer.Option("--dim", min=1, help="Keep this many first components, and normalise again.", show_default=False),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="A text put before each text.", show_default=False)
    ] = None,
    input_format: options.InputFormat = None,
    text_column: options.TextColumns = None,
    text_separator: options.TextSeparator = None,
    id_column: options.IdColumn = None,
    max_row_bytes: options.MaxRowBytes = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run of the same command, if there is one.")
    ] = False,
    truncation: options.Truncation = options.TruncationChoice.WARN,
    on_error: options.OnError = options.OnErrorChoice.FAIL,
    rejects: options.RejectsFile = None,
    batch_size: options.BatchSize = 32,
    threads: options.Threads = None,
    engine: Annotated[
        Engine, typer.Option("--engine", help="ray: many files, on many processes or machines, into Parquet shards.")
    ] = Engine.LOCAL,
    address: Annotated[
        str | None,
        typer.Option(
            "--address", help="Address of a Ray cluster; by default Ray runs on this machine alone.", show_default=False
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="With --engine ray: processes, each with a model.")
    ] = 1,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
) -> None:
    """Encode texts as vectors of length 1.

    The texts are the arguments, or the rows of a file, or the lines of stdin. Rows keep their columns, and values their types;
    "text" and, where there is an id, "id" are added where no column has that name, and "embedding" (in CSV and TSV e0, e1 ...).
    A .npy file holds an array of shape (texts, dim). Memory stays small however long the input, and a run that is interrupted
    goes on where it was with --resume.

    int8 and uint8 values lie in ranges of the model, so that a text has the same values in every file; they are written into
    OUTPUT.ranges.npy. --dim has ranges of its own.

    With --engine ray an --input is a file, folder, or pattern in quotes, and --output a folder, which all nodes must see under
    the same paths. Its Parquet shards hold "id" (without an id column the file and line), "vector" and "truncated", in no order;
    blank lines of plain text have no row. --resume leaves out the ids that are written. --threads is of each worker; workers are
    dealt out evenly over the nodes.
    """
    reading = options.reading(input_format, text_column, text_separator, id_column, max_row_bytes)
    if engine is Engine.RAY:
        _on_ray(
            texts, input, output, precision, on_error, input_format, address, workers, 1 if threads is None else threads,
            resume=resume, offline=offline, quiet=quiet, settings={
                "model": model, "graph": graph.value, "dim": dim, "prompt": prompt, "truncation": truncation.value,
                "batch_size": batch_size, **{key: value for key, value in reading.items() if key != "format"},
            },
        )  # fmt: skip
        return
    if address is not None or workers > 1:
        raise UsageError("--address and --workers go with --engine ray")
    to_stdout = output is None or str(output) == "-"
    if texts and input:
        raise UsageError("texts were given both as arguments and with --input; give one of the two")
    if texts:
        options.check_no_input_options(reading)
    if any(not text.strip() for text in texts or []):
        raise UsageError("one of the texts is empty")
    if not texts and not input:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("no text was given: name texts, or --input FILE, or pipe them in")
        input = [Path("-")]
    if to_stdout and resume:
        raise UsageError("--resume needs an --output file")
    quiet_notes(quiet)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's BLAS has nothing to do here, and starts its threads

    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.runtime.job import EncodeJob, EncodeSettings, output_kind
    from sbert_mini.runtime.stream import EncodeCounts
    from sbert_mini.text.records import ReadCounts, Record, read_records

    if output is not None and not to_stdout:
        output_kind(output)
        for file in input or []:
            if file.exists() and output.exists() and file.samefile(output):
                raise UsageError(f"the output would replace the input, {file}")
    counts, read = EncodeCounts(), ReadCounts()
    settings = EncodeSettings(
        precision=precision.value, dim=dim, prompt=prompt, truncation=truncation.value, batch_size=batch_size
    )
    default = None if output is None or to_stdout else output.with_name(output.name + ".rejects.jsonl")
    with Rejects(on_error is options.OnErrorChoice.SKIP, rejects, default, input) as taken:
        records: Iterable[Record] = (
            read_records(input, counts=read, on_reject=taken.take, **reading)
            if input
            else (Record(text) for text in texts or [])
        )
        records = _at_least_one(records)
        embedder = Embedder(model, graph=graph.value, threads=threads, offline=offline)
        if taken.take is not None and truncation is options.TruncationChoice.ERROR:
            records = embedder.short_enough(records, prompt, taken.take)
        if output is None or to_stdout:
            _to_stdout(records, embedder, settings, counts)
        else:
            progress = progress_wanted(quiet) and bool(input)
            job = EncodeJob(output, embedder, settings, resume=resume, show_progress_bar=progress, counts=counts)
            if job.done:
                note(f"going on after {job.done} texts")
            try:
                rows = job.run(counted(records, input, input_format, bar=progress))
            except KeyboardInterrupt:
                if job.done:
                    raise Interrupted(
                        f"{job.done} texts are kept in {job.folder}; the same command with --resume goes on after them"
                    ) from None
                raise
            note(f"{rows} texts -> {output}")
    if read.blank:
        note(f"{read.blank} blank lines were not encoded")
    if counts.truncated and truncation is options.TruncationChoice.CHUNK:
        note(f"{counts.truncated} of {counts.texts} texts were read in pieces")
    raise typer.Exit(taken.exit_code())


def _on_ray(
    texts: list[str] | None,
    input: list[Path] | None,
    output: Path | None,
    precision: options.PrecisionChoice,
    on_error: options.OnErrorChoice,
    input_format: str | None,
    address: str | None,
    workers: int,
    threads: int,
    *,
    resume: bool,
    offline: bool,
    quiet: bool,
    settings: dict[str, Any],
) -> None:
    if texts or not input or output is None:
        raise UsageError("--engine ray needs --input (files, folders or patterns) and --output (a folder)")
    if precision is not options.PrecisionChoice.FLOAT32 or on_error is options.OnErrorChoice.SKIP or input_format:
        raise UsageError("--engine ray goes without --precision, --on-error skip and --input-format")
    quiet_notes(quiet)
    from sbert_mini.scale.bulk import BulkSettings, encode_files
    from sbert_mini.text.records import files_at

    files = [file for place in input for file in files_at(place)]
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
        on_start=lambda: note(f"{len(files)} files, {workers} workers of {threads} threads"),
    )
    kept = f" ({counts.kept} of them from an earlier run)" if counts.kept else ""
    note(f"{counts.rows} texts{kept} -> {counts.shards} shards in {output}")
    if counts.truncated:
        note(f"{counts.truncated} texts were longer than the model reads: 'truncated' is true of them")


def _to_stdout(
    records: "Iterable[Record]", embedder: "Embedder", settings: "EncodeSettings", counts: "EncodeCounts"
) -> None:
    from sbert_mini.runtime.job import OutputRows, json_line
    from sbert_mini.runtime.precision import quantize_vectors

    eight_bits = settings.precision in ("int8", "uint8")
    ranges = embedder.component_ranges(settings.dim) if eight_bits else None
    rows = OutputRows("jsonl", embedder.dimension)
    windows = embedder.encode_records(
        records,
        batch_size=settings.batch_size,
        truncate_dim=settings.dim,
        prompt=settings.prompt,
        truncation=settings.truncation,
        counts=counts,
    )
    for encoded, block in windows:
        for record, vector in zip(encoded, quantize_vectors(block, settings.precision, ranges), strict=True):
            sys.stdout.write(json_line(rows.of(record), vector))
        sys.stdout.flush()


def _at_least_one(records: "Iterable[Record]") -> "Iterable[Record]":
    """Return the records, having made sure, before anything slow is done, that there is one."""
    iterator = iter(records)
    first = next(iterator, None)
    if first is None:
        raise InputError("there is no text to encode")
    return itertools.chain([first], iterator)
