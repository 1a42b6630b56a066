"""`sbmini map`: a collection as a picture in the plane."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbert_mini.errors import InputError, UsageError

from . import options
from .amounts import amount
from .notes import counted, note, note_input, progress_wanted, quiet_notes

if TYPE_CHECKING:
    from sbert_mini.atlas.sources import Collection
    from sbert_mini.shapes import FloatArray, IntArray

EXAMPLE = """Examples:

  sbmini map notes.index -o map.html

  sbmini map vectors.npy --texts notes.txt -o map.png

  sbmini map news.csv --text-column body -o map.parquet
"""
_KINDS = (".html", ".png", ".svg", ".parquet")


def map_rows(
    source: Annotated[
        Path, typer.Argument(help="An index directory, a .npy file of vectors, or a file of texts.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A .html, .png, .svg or .parquet file.", show_default=False)
    ],
    texts: Annotated[
        Path | None, typer.Option("--texts", help="The file of texts of a .npy file's rows.", show_default=False)
    ] = None,
    title: Annotated[
        str | None, typer.Option("--title", help="The title. [default: the source's name]", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31 - 2, help="Random seed.")] = 0,
    model: options.Model = None,
    graph: options.GraphOption = "int8",
    input_format: options.InputFormat = None,
    text_column: options.TextColumns = None,
    text_separator: options.TextSeparator = None,
    id_column: options.IdColumn = None,
    delimiter: options.Delimiter = None,
    max_row_bytes: options.MaxRowBytes = None,
    threads: options.Threads = None,
    offline: options.Offline = False,
    trust_tokenizer: options.TrustTokenizer = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw a collection: rows of similar meaning lie side by side, and groups of them have names.

    A page (.html) is one file that needs nothing else: move, zoom, search for words, colour by a column, draw around rows and
    export their ids. A picture (.png, .svg) has the names of groups. A .parquet file has each row's id, place (x, y) and group,
    -1 for none. The same rows and seed give the same map on the same machine. The note at the end has the trustworthiness of the
    map for 15 neighbours, on at most 2,000 rows: 1 if rows that lie side by side are always neighbours by cosine.
    """
    reading = options.reading(input_format, text_column, text_separator, id_column, max_row_bytes, delimiter)
    quiet_notes(quiet)
    kind = output.suffix.lower()
    if kind not in _KINDS:
        raise UsageError(f"--output must end in {', '.join(_KINDS[:-1])} or {_KINDS[-1]}; found {output}")
    if output.exists() and not output.is_file():
        raise UsageError(f"--output must be a regular file, and {str(output)!r} is none")
    if texts is not None and source.suffix.lower() != ".npy":
        raise UsageError("--texts is for a .npy file: an index and a file of texts have their own")
    from sbert_mini.atlas import layout

    layout.require()
    bar = progress_wanted(quiet)
    encoding = {"graph": graph, "threads": threads, "offline": offline, "trust_tokenizer": trust_tokenizer}
    rows = _collection(source, texts, reading, {"model": model, **encoding}, bar=bar)
    from sbert_mini.progress import ProgressBar
    from sbert_mini.runtime.engine import thread_count

    with ProgressBar("steps of the map", layout.STEPS) if bar else nullcontext() as shown:
        advance = None if shown is None else shown.advance
        places = layout.places(rows.vectors, seed=seed, threads=thread_count(threads), advance=advance)
    numbers = layout.groups(places, seed=seed)
    _write(output, kind, title or source.resolve().name, rows, places, numbers)
    found = layout.trustworthiness(rows.vectors, places, seed=seed)
    trust = "" if found is None else f", trustworthiness {found[0]:.3f} (of {amount(found[1], 'row')})"
    note(f"{amount(len(rows.ids), 'row')}, {amount(int(numbers.max()) + 1, 'group')}{trust} -> {output}")


def _collection(
    source: Path, texts: Path | None, reading: dict[str, Any], encoding: dict[str, Any], *, bar: bool
) -> "Collection":
    from sbert_mini.atlas import sources

    if source.is_dir():
        return sources.of_index(source)
    if not source.exists():
        raise InputError(f"{source} does not exist: name an index, a .npy file or a file of texts")
    from sbert_mini.text.records import ReadCounts, read_records

    read = ReadCounts()
    if source.suffix.lower() == ".npy":
        records = None if texts is None else read_records([texts], counts=read, **reading)
        found = sources.of_vectors(source, records)
    else:
        from sbert_mini.runtime.embedder import Embedder

        records = read_records([source], counts=read, **reading)
        embedder = Embedder(encoding.pop("model"), **encoding)
        found = sources.of_texts(
            counted(records, [source], reading.get("format"), bar=bar), embedder, show_progress_bar=bar
        )
    note_input(read, "left out")
    return found


def _write(output: Path, kind: str, title: str, rows: "Collection", places: "FloatArray", numbers: "IntArray") -> None:
    from sbert_mini.atlas import labels
    from sbert_mini.files.durable import write_durably

    if kind == ".parquet":
        from sbert_mini.text.row_writer import writing_rows

        with writing_rows(output, "parquet", {"id": str, "x": float, "y": float, "group": int}) as writer:
            for row in zip(rows.ids, *places.astype(float).T.tolist(), numbers.tolist(), strict=True):
                writer.write(*row)
        return
    words = labels.words_of_groups(rows.texts, numbers, 3)
    named = [(group, ", ".join(found)) for group, found in enumerate(words)]
    if kind != ".html":
        from sbert_mini.atlas.picture import picture

        write_durably(output, picture(kind[1:], title, places, numbers, named))
        return
    from sbert_mini.atlas.coloring import colorings_of, group_coloring
    from sbert_mini.atlas.map_page import map_page

    colorings, without = colorings_of(rows.columns)
    if without:
        note(f"no colours for {', '.join(without)}: nearly all values are different, or all are the same")
    colorings.insert(0, group_coloring(numbers, [name for _, name in named]))
    write_durably(output, map_page(title, places, rows.ids, rows.texts, colorings, named))
