"""`sbmini cluster`: groups of similar rows, with names."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from sbert_mini.errors import UsageError
from sbert_mini.text.shown import fitted

from . import options
from .amounts import amount
from .notes import counted, note, note_input, progress_wanted, quiet_notes
from .printing import json_text, print_json, print_text, visible_in_line

if TYPE_CHECKING:
    from sbert_mini.atlas.labels import Label
    from sbert_mini.atlas.rows import Rows
    from sbert_mini.shapes import FloatArray, IntArray

EXAMPLE = """Examples:

  sbmini cluster notes.index

  sbmini cluster answers.csv --text-column answer --threshold 0.6 --min-size 10 --html groups.html

  sbmini cluster tickets.jsonl --jsonl | jq -r '[.size, .name] | @tsv'

  sbmini cluster january.csv --text-column body --save groups.safetensors
  sbmini cluster february.csv --text-column body --assign-to groups.safetensors --rows february.groups.jsonl
"""
_CHARACTERS = 100

Source = Annotated[
    Path,
    typer.Argument(metavar="SOURCE", help="An index, a file of rows, or a .npy file of vectors.", show_default=False),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        help="The lowest cosine of a row and its group's centre, in (0, 1]. [default: 0.7; with --assign-to the groups' own]",
        show_default=False,
    ),
]
MinSize = Annotated[int, typer.Option("--min-size", min=1, help="Rows of the smallest group.")]
Top = Annotated[int, typer.Option("--top", min=1, help="The highest number of groups in the table.")]
AsJsonLines = Annotated[bool, typer.Option("--jsonl", help="One JSON object per group, of all groups.")]
Html = Annotated[Path | None, typer.Option("--html", help="Write a page with all groups, too.", show_default=False)]
RowsFile = Annotated[
    Path | None,
    typer.Option(
        "--rows",
        help="Write each row's group into this file of JSON lines, too; - for stdout, in place of the groups.",
        show_default=False,
    ),
]
Save = Annotated[
    Path | None,
    typer.Option("--save", help="Keep the groups in this .safetensors file, for --assign-to.", show_default=False),
]
AssignTo = Annotated[
    Path | None,
    typer.Option("--assign-to", help="Put the rows into the groups of a file of --save.", show_default=False),
]


def cluster(
    context: typer.Context,
    source: Source,
    threshold: Threshold = None,
    min_size: MinSize = 5,
    top: Top = 20,
    as_json_lines: AsJsonLines = False,
    html: Html = None,
    rows_file: RowsFile = None,
    save: Save = None,
    assign_to: AssignTo = None,
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
    """Find groups of similar rows, the largest first, and name them by their words.

    From the row with the most neighbours on, each row that no centre reaches becomes a centre; a row joins the nearest centre
    whose cosine to it is --threshold or more. Rows that no centre reaches are in no group, and a group has --min-size rows or
    more. Nothing is drawn at random. A group's name are its words by class TF-IDF; its most central texts are marked +, its most
    outlying ones -. Vectors of a .npy file have no texts, so no names. Beyond 50,000 rows a row is compared with those of the
    nearest inverted lists, and vectors are held in 16 bits. With --assign-to no group is made.
    """
    reading = options.reading(input_format, text_column, text_separator, id_column, max_row_bytes, delimiter)
    quiet_notes(quiet)
    _check(options.given(context), assign_to, save, html, rows_file)
    from sbert_mini.atlas.clusters import THRESHOLD, check_threshold, find_groups
    from sbert_mini.atlas.group_file import GroupFile
    from sbert_mini.atlas.labels import labels_of

    least = None if threshold is None else check_threshold(threshold)
    loaded = None if assign_to is None else GroupFile.load(assign_to)
    bar = progress_wanted(quiet)
    opening = {"graph": graph, "threads": threads, "offline": offline, "trust_tokenizer": trust_tokenizer}
    encoding = {"truncation": truncation, "batch_size": batch_size, "show_progress_bar": bar}
    rows = _rows(source, reading, model, opening, encoding)
    if loaded is None:
        least = THRESHOLD if least is None else least
        found = find_groups(rows.vectors, threshold=least, min_size=min_size, show_progress_bar=bar)
        numbers, cosines, centres = found.numbers, found.cosines, rows.vectors[found.centres]
    else:
        numbers, cosines = loaded.assigned(rows, least)
    labels = labels_of(numbers, cosines, [""] * len(rows.ids) if rows.texts is None else rows.texts)
    names = [label.name for label in labels] if loaded is None else list(loaded.names)
    if loaded is None and save is not None and least is not None:
        GroupFile(centres, tuple(names), least, rows.fingerprint, rows.prompt).save(save)
    if html is not None:
        _write_page(html, source, labels, rows)
    if rows_file is not None:
        _write_rows(rows_file, rows, numbers, cosines, names)
    if rows_file is None or str(rows_file) != "-":
        _print(labels, names, rows, None if as_json_lines else top)
    inside = int((numbers >= 0).sum())
    groups = sum(label.size > 0 for label in labels)
    note(f"{amount(len(rows.ids), 'row')}: {inside} in {amount(groups, 'group')}, {len(rows.ids) - inside} in none")


def _check(given: list[str], assign_to: Path | None, save: Path | None, html: Path | None, rows: Path | None) -> None:
    """Refuse options that do not go together, and names of files that cannot be written."""
    from sbert_mini.atlas.group_file import check_suffix

    if assign_to is not None and "min_size" in given:
        raise UsageError("--min-size is for new groups: --assign-to takes those that there are")
    if assign_to is not None and save is not None:
        raise UsageError("--save keeps new groups: --assign-to makes none")
    for option, file in (("--save", save), ("--html", html)):
        if file is not None and file.exists() and not file.is_file():
            raise UsageError(f"{option} must be a regular file, and {str(file)!r} is none")
    if save is not None:
        check_suffix(save, "--save")
    if rows is not None and str(rows) != "-":
        options.check_json_lines("--rows", rows)


def _rows(
    source: Path, reading: dict[str, Any], model: str | None, opening: dict[str, Any], encoding: dict[str, Any]
) -> "Rows":
    """Return the rows of an index, of a file of vectors, or of a file of texts, which are encoded."""
    from sbert_mini.atlas.rows import rows_of_index, rows_of_records, rows_of_vectors

    is_vectors = source.suffix.lower() == ".npy"
    if source.is_dir() or is_vectors:
        options.check_no_input_options(reading)
        if model is not None:
            raise UsageError(f"--model is for a file of texts: {source} has vectors")
        return rows_of_vectors(source) if is_vectors else rows_of_index(source)
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.text.records import ReadCounts, read_records

    read = ReadCounts()
    records = read_records([source], counts=read, **reading)
    embedder = Embedder(model, **opening)
    bar = bool(encoding["show_progress_bar"])
    rows = rows_of_records(counted(records, [source], reading.get("format"), bar=bar), embedder, **encoding)
    note_input(read, "left out")
    return rows


def _print(labels: "list[Label]", names: list[str], rows: "Rows", top: int | None) -> None:
    """Print a table of the first groups, or, with None, a JSON object a group."""
    if top is None:
        for number, (label, name) in enumerate(zip(labels, names, strict=False), start=1):
            examples = {
                kind: [_fields(rows, place) for place in getattr(label, kind)] for kind in ("central", "outlying")
            }
            print_json({"group": number, "name": name, "size": label.size, "words": list(label.words), **examples})
        return
    shown = [(number, label) for number, label in enumerate(labels, start=1) if label.size][:top]
    for number, label in shown:
        print_text(f"{number:3d}  {label.size:9,d}  {visible_in_line(names[number - 1] or 'no words')}")
        for mark, places in (("+", label.central), ("-", label.outlying)):
            for place in places:
                text = rows.ids[place] if rows.texts is None else " ".join(rows.texts[place].split())
                print_text(f"{'':16}{mark} {fitted(visible_in_line(text), _CHARACTERS)}")
    if len(labels) > len(shown):
        note(f"{amount(len(labels) - len(shown), 'group is', 'groups are')} not shown: --top shows more, --jsonl all")


def _fields(rows: "Rows", place: int) -> dict[str, str]:
    return {"id": rows.ids[place], **({} if rows.texts is None else {"text": rows.texts[place]})}


def _write_page(file: Path, source: Path, labels: "list[Label]", rows: "Rows") -> None:
    from sbert_mini.atlas.pages import groups_page
    from sbert_mini.files.durable import write_durably

    named = {place for label in labels for place in (*label.central, *label.outlying)}
    texts = {place: rows.ids[place] if rows.texts is None else rows.texts[place] for place in named}
    write_durably(file, groups_page(f"Groups of {source.name}", labels, texts, len(rows.ids)).encode())


def _write_rows(file: Path, rows: "Rows", numbers: "IntArray", cosines: "FloatArray", names: list[str]) -> None:
    """Write a JSON line a row: its id, its group from 1 and the group's name, null for none, and the cosine to its centre."""

    def lines() -> Iterator[str]:
        for identity, number, cosine in zip(rows.ids, numbers.tolist(), cosines.tolist(), strict=True):
            group = (number + 1, names[number], round(cosine, 6)) if number >= 0 else (None, None, None)
            row = dict(zip(("id", "group", "name", "cosine"), (identity, *group), strict=True))
            yield json.dumps(row, ensure_ascii=False)

    with ExitStack() as stack:
        stream = sys.stdout if str(file) == "-" else _opened(stack, file)
        for line in lines():
            stream.write((json_text(line) if stream is sys.stdout else line) + "\n")


def _opened(stack: ExitStack, file: Path) -> IO[str]:
    from sbert_mini.files.durable import replacing

    part = file if file.exists() and not file.is_file() else stack.enter_context(replacing(file))
    return stack.enter_context(part.open("w", encoding="utf-8", errors="backslashreplace", newline="\n"))
