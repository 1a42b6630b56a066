"""`sbmini dedup`: rows without their near-duplicates."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from . import options
from .notes import note, progress_wanted, quiet_notes

if TYPE_CHECKING:
    from sbert_mini.text.records import Record

EXAMPLE = """Examples:

  sbmini dedup -i notes.txt > kept.txt

  sbmini dedup -i news.csv --text-column body --threshold 0.95 -o kept.jsonl --duplicates dropped.jsonl

  sbmini dedup -i notes.txt --duplicates - -o /dev/null | jq -r '[.score, .text, .of.text] | @tsv'
"""


def dedup(
    input: options.InputFiles = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Where kept rows go, as they are read; by default stdout.", show_default=False
        ),
    ] = None,
    duplicates: Annotated[
        Path | None,
        typer.Option(
            "--duplicates",
            help="Where a JSON line for each other row goes: which kept row it repeats, and why; - for stdout.",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float, typer.Option("--threshold", help="The least cosine of near-duplicates, in (0, 1].")
    ] = 0.9,
    model: options.Model = None,
    graph: options.GraphOption = options.Graph.INT8,
    input_format: options.InputFormat = None,
    text_column: options.TextColumns = None,
    text_separator: options.TextSeparator = None,
    id_column: options.IdColumn = None,
    max_row_bytes: options.MaxRowBytes = None,
    truncation: options.Truncation = options.TruncationChoice.WARN,
    batch_size: options.BatchSize = 32,
    threads: options.Threads = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
) -> None:
    """Keep the first of rows that say nearly the same, and tell which row each other one repeats.

    Kept rows are written as they are read: lines of text for plain text, else JSON lines. A row repeats the kept row that it is
    nearest to, where both texts are the same apart from case and blanks ("same text") or their cosine is --threshold or more
    ("near"). What a cosine means depends on the model: see its card ('sbmini models'). Beyond 50,000 kept rows a row is held
    against those in the likeliest inverted lists alone.
    """
    reading = options.reading(input_format, text_column, text_separator, id_column, max_row_bytes)
    quiet_notes(quiet)
    from sbert_mini.errors import UsageError
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.search.dedup import deduplicate
    from sbert_mini.text.records import STANDARD_INPUT, ReadCounts, inputs, read_records

    files = input or [Path(STANDARD_INPUT)]
    if duplicates is not None and str(duplicates) == "-" and output is None:
        raise UsageError("kept rows and duplicates would both go to stdout: give --output too")
    plain = all(kind == "txt" for _, kind in inputs(files, input_format))
    embedder = Embedder(model, graph=graph.value, threads=threads, offline=offline)
    read = ReadCounts()
    counts = {"kept": 0, "same text": 0, "near": 0}
    with ExitStack() as stack:
        kept_stream = _opened(stack, output)
        other_stream = None if duplicates is None else _opened(stack, None if str(duplicates) == "-" else duplicates)
        records = read_records(files, counts=read, **reading)
        for verdict in deduplicate(
            records,
            embedder,
            threshold=threshold,
            batch_size=batch_size,
            truncation=truncation.value,
            show_progress_bar=progress_wanted(quiet),
        ):
            counts[verdict.reason or "kept"] += 1
            if verdict.of is None:
                print(verdict.record.text if plain else _json(_row(verdict.record)), file=kept_stream)
            elif other_stream is not None:
                told = {"reason": verdict.reason, "score": round(verdict.score or 0.0, 6), "of": _place(verdict.of)}
                print(_json(_place(verdict.record) | told), file=other_stream)
    if read.blank:
        note(f"{read.blank} blank lines were left out")
    note(
        f"{sum(counts.values())} rows, {counts['kept']} kept; {counts['same text']} had the same text as a kept one, "
        f"{counts['near']} were near one"
    )


@contextmanager
def _replacing(file: Path) -> Iterator[TextIO]:
    """Open a file for writing that takes its place once all is written."""
    if file.exists() and not file.is_file():  # /dev/null, a pipe
        with file.open("w", encoding="utf-8") as stream:
            yield stream
        return
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as stream:
            yield stream
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _opened(stack: ExitStack, file: Path | None) -> TextIO:
    return sys.stdout if file is None else stack.enter_context(_replacing(file))


def _row(record: "Record") -> dict[str, Any]:
    identity = {} if record.id is None else {"id": record.id}
    return {**identity, "text": record.text, **record.columns}


def _place(record: "Record") -> dict[str, Any]:
    return {"line": record.line, "id": record.id, "text": record.text}


def _json(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)
