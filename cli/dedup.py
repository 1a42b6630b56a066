"""`sbmini dedup`: rows without their near-duplicates."""

import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .amounts import amount
from .notes import counted, note, note_input, progress_wanted, quiet_notes
from .printing import json_text, visible

if TYPE_CHECKING:
    from sbert_mini.search.dedup import Verdict
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
            "--output",
            "-o",
            help="The file for kept rows: a .txt (of plain text), .jsonl, .csv, .tsv or .parquet file; by default stdout.",
            show_default=False,
        ),
    ] = None,
    duplicates: Annotated[
        Path | None,
        typer.Option(
            "--duplicates",
            help="The file for duplicates, a JSON line each: which kept row it repeats, and why; - for stdout.",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float, typer.Option("--threshold", help="The lowest cosine of near-duplicates, in (0, 1].")
    ] = 0.9,
    model: options.Model = None,
    graph: options.GraphOption = "int8",
    input_format: options.InputFormat = None,
    text_column: options.TextColumns = None,
    text_separator: options.TextSeparator = None,
    id_column: options.IdColumn = None,
    delimiter: options.Delimiter = None,
    max_row_bytes: options.MaxRowBytes = None,
    truncation: options.Truncation = "warn",
    batch_size: options.BatchSize = 32,
    threads: options.Threads = None,
    offline: options.Offline = False,
    trust_tokenizer: options.TrustTokenizer = False,
    quiet: options.Quiet = False,
) -> None:
    """Keep the first of near-duplicate rows, and report which row each other one repeats.

    Kept rows keep their columns, in the same order, and values keep their types. On stdout they are lines of text for plain
    text, else JSON lines; the format of a file follows its suffix. A row is a duplicate of its nearest kept row if both texts are
    equal apart from case and blanks ("same text"), or if their cosine is --threshold or more ("near"). What a cosine means
    depends on the model: see its card ('sbmini models'). Beyond 50,000 kept rows, a row is compared only with those in the
    nearest inverted lists.
    """
    reading = options.reading(input_format, text_column, text_separator, id_column, max_row_bytes, delimiter)
    quiet_notes(quiet)
    from sbert_mini.errors import UsageError
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.search.dedup import deduplicate
    from sbert_mini.text.records import STANDARD_INPUT, ReadCounts, inputs, read_records

    files = input or [Path(STANDARD_INPUT)]
    output = None if output is not None and str(output) == "-" else output
    if duplicates is not None and str(duplicates) == "-" and output is None:
        raise UsageError("kept rows and duplicates would both go to stdout: give --output too")
    kind = _kind(output, all(kind == "txt" for _, kind in inputs(files, input_format)))
    if duplicates is not None and str(duplicates) != "-":
        options.check_json_lines("--duplicates", duplicates)
    embedder = Embedder(model, graph=graph, threads=threads, offline=offline, trust_tokenizer=trust_tokenizer)
    read = ReadCounts()
    with ExitStack() as stack:
        other_stream = None if duplicates is None else _opened(stack, None if str(duplicates) == "-" else duplicates)
        keep = stack.enter_context(_writing(_opened(stack, output), kind))
        records = read_records(files, counts=read, **reading)
        bar = progress_wanted(quiet) and not (output is None and sys.stdout.isatty())  # rows would run into it
        verdicts = deduplicate(
            counted(records, files, input_format, bar=bar),
            embedder,
            threshold=threshold,
            batch_size=batch_size,
            truncation=truncation,
            show_progress_bar=bar,
        )
        counts = _write(verdicts, keep, other_stream, several=len(files) > 1)
    note_input(read, "left out")
    note(
        f"{amount(sum(counts.values()), 'row')}, {counts['kept']} kept; {counts['same text']} had the same text as a kept one, "
        f"{amount(counts['near'], 'was', 'were')} near one"
    )


def _write(
    verdicts: "Iterable[Verdict]", keep: "Callable[[Record], None]", other_stream: IO[str] | None, *, several: bool
) -> dict[str, int]:
    """Write each row where its verdict sends it, and return how many there are of each kind."""
    from sbert_mini.text.rows import read_row

    counts = {"kept": 0, "same text": 0, "near": 0}
    for verdict in verdicts:
        counts[verdict.reason or "kept"] += 1
        if verdict.of is None:
            keep(verdict.record)
        elif other_stream is not None:
            repeated = {"reason": verdict.reason, "score": round(verdict.score or 0.0, 6)}
            row = _place(verdict.record, several) | repeated | {"of": _place(verdict.of, several)}
            if verdict.record.row is not None:
                row["row"] = read_row(verdict.record)
            other_stream.write(_json(row, other_stream))
    return counts


def _kind(output: Path | None, plain: bool) -> str:
    """Return the format of kept rows: `txt`, or one of `rows.ROW_SUFFIXES`."""
    from sbert_mini.text.rows import ROW_SUFFIXES, need_pyarrow, unknown_format

    if output is None or (
        output.exists() and not output.is_file() and not output.is_dir()
    ):  # stdout, /dev/null, a pipe
        return "txt" if plain else "jsonl"
    suffixes = {".txt": "txt", ".text": "txt", **ROW_SUFFIXES} if plain else dict(ROW_SUFFIXES)
    kind = suffixes.get(output.suffix.lower())
    if kind is None:
        raise unknown_format(output, suffixes)
    if kind == "parquet":
        need_pyarrow()
    return kind


@contextmanager
def _writing(stream: IO[str], kind: str) -> "Iterator[Callable[[Record], None]]":
    """Yield what takes a kept row. A table is written at the end: its columns are those of all rows."""
    from sbert_mini.text.rows import check_row, read_row, write_table

    rows: list[tuple[dict[str, Any], bool]] = []
    for_eyes = stream is sys.stdout and stream.isatty()  # in a pipe the lines are data

    def keep(record: "Record") -> None:
        if kind == "txt":
            stream.write((visible(record.text) if for_eyes else record.text) + "\n")
        elif kind == "jsonl":
            stream.write(_json(read_row(record), stream))
        else:
            row = read_row(record)
            check_row(row, kind, record.place)
            rows.append((row, record.typed))

    yield keep
    if kind in ("csv", "tsv", "parquet"):
        table = io.BytesIO()
        write_table(table, kind, rows)  # type: ignore[arg-type]
        stream.flush()
        stream.buffer.write(table.getbuffer())  # type: ignore[attr-defined]


@contextmanager
def _replacing(file: Path) -> Iterator[IO[str]]:
    """Open a file for writing that takes its place once all is written."""
    if file.exists() and not file.is_file():  # /dev/null, a pipe
        with file.open("w", encoding="utf-8") as stream:
            yield stream
        return
    from sbert_mini.files.durable import replacing

    with replacing(file) as part, part.open("w", encoding="utf-8", newline="\n") as stream:
        yield stream


def _opened(stack: ExitStack, file: Path | None) -> IO[str]:
    return sys.stdout if file is None else stack.enter_context(_replacing(file))


def _place(record: "Record", several: bool) -> dict[str, Any]:
    file = {"file": record.file} if several else {}
    return {
        **file,
        "line": record.line,
        "id": record.id if record.id_value is None else record.id_value,
        "text": record.text,
    }


def _json(row: dict[str, Any], stream: IO[str]) -> str:
    document = json.dumps(row, ensure_ascii=False)
    return (json_text(document) if stream is sys.stdout else document) + "\n"
