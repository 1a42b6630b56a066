"""`sbmini encode`: texts -> vectors."""

import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbert_mini.errors import InputError, UsageError

from . import options
from .notes import note, progress_wanted, quiet_notes

if TYPE_CHECKING:
    from sbert_mini.text.records import Record

EXAMPLE = """Examples:

  sbmini encode "one sentence"                          JSON lines on stdout

  sbmini encode -i sentences.txt -o vectors.npy         a NumPy file, streamed

  cut -f2 table.tsv | sbmini encode -o vectors.jsonl    texts from a pipe, one a line
"""


def encode(
    texts: Annotated[list[str] | None, typer.Argument(help="The texts themselves.", show_default=False)] = None,
    input: options.InputFile = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="A .npy or .jsonl file; by default JSON lines on stdout.", show_default=False
        ),
    ] = None,
    model: options.Model = None,
    graph: options.GraphOption = options.Graph.INT8,
    dim: Annotated[
        int | None,
        typer.Option("--dim", min=1, help="Keep this many first components, and normalise again.", show_default=False),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="A text put before each text.", show_default=False)
    ] = None,
    input_format: options.InputFormat = None,
    text_column: options.TextColumn = None,
    truncation: options.Truncation = options.TruncationChoice.WARN,
    batch_size: options.BatchSize = 32,
    threads: options.Threads = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
) -> None:
    """Encode texts as vectors of length 1.

    The texts are the arguments, or the lines of a file, or of stdin. JSON lines hold "text" and "embedding", and "id" where
    the input has one; a .npy file holds float32 of shape (texts, dim), and stays small in memory however long the input.
    """
    kind = _kind(output)
    if texts and input is not None:
        raise UsageError("texts were given both as arguments and with --input; give one of the two")
    if any(not text.strip() for text in texts or []):
        raise UsageError("one of the texts is empty")
    if not texts and input is None:
        if sys.stdin.isatty():
            raise UsageError("no text was given: name texts, or --input FILE, or pipe them in")
        input = Path("-")
    quiet_notes(quiet)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's BLAS has nothing to do here, and starts its threads

    from sbert_mini.runtime.embedder import Embedder, EncodeCounts
    from sbert_mini.text.records import ReadCounts, Record, read_records

    read = ReadCounts()
    records: Iterable[Record] = (
        read_records(input, format=input_format, text_column=text_column, counts=read)
        if input is not None
        else (Record(text) for text in texts or [])
    )
    records = _at_least_one(records)
    embedder = Embedder(model, graph=graph.value, threads=threads, offline=offline)
    counts = EncodeCounts()
    pending: list[Record] = []

    def passing() -> Iterator[str]:
        for record in records:
            if kind == "jsonl":
                pending.append(record)
            yield record.text

    settings: dict[str, Any] = {
        "batch_size": batch_size,
        "truncate_dim": dim,
        "prompt": prompt,
        "truncation": truncation.value,
        "show_progress_bar": progress_wanted(quiet) and input is not None,
        "counts": counts,
    }
    if kind == "npy" and output is not None:
        embedder.encode_to_npy(passing(), output, **settings)
    else:
        from .streams import json_lines

        with json_lines(output) as write:
            for block in embedder.encode_stream(passing(), **settings):
                for record, vector in zip(pending, block, strict=False):
                    write(
                        {"id": record.id, "text": record.text} if record.id is not None else {"text": record.text},
                        vector,
                    )
                del pending[: len(block)]
    if read.blank:
        note(f"{read.blank} blank lines were not encoded")
    if output is not None:
        note(f"{counts.texts} texts -> {output}")


def _kind(output: Path | None) -> str:
    if output is None or str(output) == "-":
        return "jsonl"
    kind = output.suffix.lower().removeprefix(".")
    if kind not in ("npy", "jsonl"):
        raise UsageError(f"--output must end in .npy or .jsonl; found {str(output)!r}")
    return kind


def _at_least_one(records: "Iterable[Record]") -> "Iterable[Record]":
    """Return the records, having made sure, before anything slow is done, that there is one."""
    iterator = iter(records)
    first = next(iterator, None)
    if first is None:
        raise InputError("there is no text to encode")
    return itertools.chain([first], iterator)
