"""`sbmini mine`: hard negatives for pairs of a query and a positive."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from sbert_mini.errors import InputError, UsageError

from . import options
from .amounts import amount
from .notes import counted, note, progress_wanted, quiet_notes

if TYPE_CHECKING:
    from sbert_mini.search.index import SearchIndex
    from sbert_mini.search.mining import Mined, MiningCounts, MiningOptions
    from sbert_mini.text.rows import RowFormat

EXAMPLE = """Examples:

  sbmini mine pairs.csv -o triplets.csv && sbmini train triplets.csv -o my-model

  sbmini mine pairs.csv --corpus documents.jsonl -o triplets.jsonl --num-negatives 5 --range-min 10

  sbmini mine pairs.csv --corpus my.index -o triplets.parquet --teacher minilm --absolute-margin 0.1

  sbmini mine pairs.csv -o triplets.csv --unmined unmined.jsonl
"""

OutputFormat: TypeAlias = Literal["triplet", "n-tuple", "labeled-pair"]
DEFAULT_MARGIN = 0.05

Pairs = Annotated[
    Path,
    typer.Argument(
        help="A table of pairs, a query and a positive a row: csv, tsv, jsonl, json or parquet.", show_default=False
    ),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="A .csv, .tsv, .jsonl or .parquet file.", show_default=False)
]
Corpus = Annotated[
    list[Path] | None,
    typer.Option(
        "--corpus",
        callback=options.matching_files,
        help="A file of texts to mine from beside the positives, or a pattern, or an index directory; may be repeated. "
        "[default: the positives alone]",
        show_default=False,
    ),
]
AnchorColumn = Annotated[
    str | None, typer.Option("--anchor-column", help="The column of queries. [default: found]", show_default=False)
]
PositiveColumn = Annotated[
    str | None, typer.Option("--positive-column", help="The column of positives. [default: found]", show_default=False)
]
RangeMax = Annotated[
    int | None,
    typer.Option(
        "--range-max",
        min=1,
        help="The rank before which nearest texts are looked at. [default: range-min + 10 * num-negatives]",
        show_default=False,
    ),
]
AbsoluteMargin = Annotated[
    float | None,
    typer.Option(
        "--absolute-margin",
        help="A negative's score must be at least this far below the query's lowest positive.",
        show_default=False,
    ),
]
RelativeMargin = Annotated[
    float | None,
    typer.Option(
        "--relative-margin",
        help="The same as a share of the positive's score. [default: 0.05, if --absolute-margin is not given]",
        show_default=False,
    ),
]
NoMargin = Annotated[bool, typer.Option("--no-margin", help="No margin: a negative may score above the positive.")]
Teacher = Annotated[
    str | None,
    typer.Option(
        "--teacher",
        help="A second model: margins and score limits then hold for its scores. Ranks stay those of --model.",
        show_default=False,
    ),
]
Unmined = Annotated[
    Path | None,
    typer.Option(
        "--unmined",
        help="A file of JSON lines for the pairs with fewer negatives than wanted, and what discarded theirs.",
        show_default=False,
    ),
]

RangeMin = Annotated[
    int,
    typer.Option("--range-min", min=0, help="The rank from which nearest texts are looked at; 0 is the nearest."),
]
MaxScore = Annotated[
    float | None, typer.Option("--max-score", help="The highest score of a negative.", show_default=False)
]
MinScore = Annotated[
    float | None, typer.Option("--min-score", help="The lowest score of a negative.", show_default=False)
]
Sampling = Annotated[
    Literal["top", "random"],
    typer.Option("--sampling-strategy", help="Take the nearest of those that remain, or draw among them."),
]
Layout = Annotated[
    OutputFormat,
    typer.Option(
        "--output-format",
        help="A row for each negative; a row for each pair, with all its negatives; or rows of two texts with 1 or 0.",
    ),
]


def mine(
    pairs: Pairs,
    output: Output,
    corpus: Corpus = None,
    anchor_column: AnchorColumn = None,
    positive_column: PositiveColumn = None,
    text_column: options.TextColumns = None,
    num_negatives: Annotated[int, typer.Option("--num-negatives", min=1, help="Negatives for a query.")] = 3,
    range_min: RangeMin = 0,
    range_max: RangeMax = None,
    absolute_margin: AbsoluteMargin = None,
    relative_margin: RelativeMargin = None,
    no_margin: NoMargin = False,
    max_score: MaxScore = None,
    min_score: MinScore = None,
    sampling_strategy: Sampling = "top",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed for the draw.")] = 0,
    teacher: Teacher = None,
    output_format: Layout = "triplet",
    output_scores: Annotated[bool, typer.Option("--output-scores", help="Columns of the scores, too.")] = False,
    unmined: Unmined = None,
    model: options.Model = None,
    graph: options.GraphOption = "int8",
    delimiter: options.Delimiter = None,
    truncation: options.Truncation = "warn",
    batch_size: options.BatchSize = 32,
    threads: options.Threads = None,
    offline: options.Offline = False,
    trust_tokenizer: options.TrustTokenizer = False,
    quiet: options.Quiet = False,
) -> None:
    """Find hard negatives for pairs: texts that are near to a query and that are none of its positives.

    The result is a table for 'sbmini train': query, positive, negative. A negative is one of the texts nearest to the query,
    by the cosine of --model. It scores at least 5 % lower than the query's positive, and equals neither the query nor one of its
    positives, apart from case and blanks. Of a table with labels 0 and 1, the rows with 1 are the pairs.

    A pair may have fewer negatives than --num-negatives, or none: it is counted, and --unmined lists it. With --output-format
    n-tuple, only pairs with all negatives are written.
    """
    quiet_notes(quiet)
    relative_margin = _relative_margin(absolute_margin, relative_margin, no_margin=no_margin)
    _check_options(output_format, unmined, scores=output_scores)
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.search.mining import MiningCounts, MiningOptions, mine_hard_negatives

    choice = MiningOptions(
        *(num_negatives, range_min, range_max, absolute_margin, relative_margin, max_score, min_score),
        sampling_strategy,
        seed,
    )
    if teacher is not None and not choice.has_conditions:
        raise UsageError("--teacher judges by a margin, --max-score or --min-score: give at least one of them")
    kind = _checked_outputs(output, unmined, [pairs, *(corpus or [])])
    names, rows = _pairs(pairs, anchor_column, positive_column, delimiter)
    bar = progress_wanted(quiet)
    settings: dict[str, Any] = {"graph": graph, "threads": threads, "offline": offline}
    settings["trust_tokenizer"] = trust_tokenizer
    texts, index = _corpus(corpus, text_column, delimiter, settings, bar=bar)
    embedder = index.embedder() if index is not None and model is None else Embedder(model, **settings)
    counts = MiningCounts()
    mined = mine_hard_negatives(
        rows,
        embedder,
        texts if index is None else index,
        options=choice,
        teacher=None if teacher is None else Embedder(teacher, **settings),
        batch_size=batch_size,
        truncation=truncation,
        show_progress_bar=bar,
        counts=counts,
    )
    _report(mined, counts, choice, output_format)
    _write_unmined(mined, unmined, num_negatives)
    if not any(found.negatives for found in mined):
        raise InputError(
            f"no negative was found for any pair, and {output} is not written: widen the range or the margin"
        )
    written = _write(mined, names, output, kind, output_format, num_negatives, scores=output_scores)
    note(f"{amount(written, 'row')} -> {output}{'' if unmined is None else f'; unmined -> {unmined}'}")


def _relative_margin(absolute: float | None, relative: float | None, *, no_margin: bool) -> float | None:
    """Return the relative margin: the given one, or `DEFAULT_MARGIN` where no margin was chosen."""
    if no_margin and (absolute is not None or relative is not None):
        raise UsageError("--no-margin goes without --absolute-margin and --relative-margin")
    return DEFAULT_MARGIN if absolute is None and relative is None and not no_margin else relative


def _check_options(output_format: OutputFormat, unmined: Path | None, *, scores: bool) -> None:
    """Refuse options that do not go together."""
    if scores and output_format == "labeled-pair":
        raise UsageError("--output-scores is for triplets and n-tuples: a pair with a label has no other score")
    if unmined is not None:
        options.check_json_lines("--unmined", unmined)


def _checked_outputs(output: Path, unmined: Path | None, inputs: list[Path]) -> "RowFormat":
    from .predictions import checked_output

    if str(output) == "-":
        raise UsageError("--output must be a file: the command writes a table")
    checked_output(output, inputs)
    for file in inputs:
        if unmined is not None and unmined.exists() and file.exists() and unmined.samefile(file):
            raise UsageError(f"--unmined would replace the input, {file}")
    if unmined is not None and unmined.absolute() == output.absolute():
        raise UsageError("--output and --unmined are the same file")
    for place in (output, *([unmined] if unmined is not None else [])):
        if place.exists() and not place.is_file():
            raise UsageError(f"the output must be a regular file, and {str(place)!r} is none")
    from sbert_mini.text.rows import ROW_SUFFIXES

    return ROW_SUFFIXES[output.suffix.lower()]


def _pairs(
    file: Path, anchor: str | None, positive: str | None, delimiter: str | None
) -> tuple[tuple[str, str], list[tuple[str, str]]]:
    """Return the names of the two columns, and the pairs.

    Raises:
        UsageError: the columns cannot be told, or the table is none of pairs.
    """
    from sbert_mini.recipes.table_columns import read_table_rows

    if (anchor is None) != (positive is None):
        raise UsageError("--anchor-column and --positive-column go together: name both or none")
    named = [anchor, positive] if anchor is not None and positive is not None else []
    found = read_table_rows(file, named, None, delimiter)
    note(f"{file}: {found.describe()}")
    if found.kind not in ("matching pairs", "yes-no pairs"):
        raise UsageError(
            f"{file} holds {found.kind}, and pairs of a query and a positive are needed: name them with --anchor-column and "
            "--positive-column"
        )
    rows = [(row[0], row[1]) for row in found.texts]
    if found.labels is not None:
        rows = [row for row, label in zip(rows, found.labels, strict=True) if label]
        others = len(found.labels) - len(rows)
        note(f"{amount(others, 'row with the label 0 is no pair', 'rows with the label 0 are no pairs')}")
        if not rows:
            raise InputError(f"{file}: no row has the label 1")
    return (found.text_columns[0], found.text_columns[1]), rows


def _corpus(
    files: list[Path] | None, columns: list[str] | None, delimiter: str | None, settings: dict[str, Any], *, bar: bool
) -> "tuple[Any, SearchIndex | None]":
    """Return the records to mine from, or an index of them."""
    if not files:
        if columns:
            raise UsageError("--text-column is for the texts of a --corpus")
        return None, None
    if any(file.is_dir() for file in files):
        if len(files) > 1 or columns:
            raise UsageError("an index as --corpus goes without other files and without --text-column")
        from sbert_mini.search.index import SearchIndex

        return None, SearchIndex(files[0], threads=settings["threads"], offline=settings["offline"])
    from sbert_mini.text.records import format_of, read_records

    tables = all(format_of(file) in ("csv", "tsv") for file in files)
    reading = options.reading(text_columns=columns, delimiter=delimiter if tables else None)
    return counted(read_records(files, **reading), files, None, bar=bar), None


def _report(mined: "list[Mined]", counts: "MiningCounts", choice: "MiningOptions", output_format: str) -> None:
    """Tell what was mined from, what was found, and what was not."""
    from statistics import fmean

    repeated = [
        text
        for count, text in (
            (counts.repeated_pairs, f"{amount(counts.repeated_pairs, 'pair')} repeated"),
            (counts.repeated_texts, f"{amount(counts.repeated_texts, 'text')} repeated"),
            (counts.silent_texts, f"{amount(counts.silent_texts, 'text')} unreadable"),
        )
        if count
    ]
    note(
        f"{amount(counts.pairs, 'pair')} of {amount(counts.queries, 'query', 'queries')}, mined from "
        f"{amount(counts.texts, 'text')}" + (f"; left out: {', '.join(repeated)}" if repeated else "")
    )
    if counts.silent_queries:
        note(f"{amount(counts.silent_queries, 'pair has', 'pairs have')} a query of which nothing can be read")
    discarded = [
        f"{getattr(counts, name):,} by {name.replace('_', '-')} {getattr(choice, name):g}"
        for name in ("absolute_margin", "relative_margin", "max_score", "min_score")
        if getattr(counts, name)
    ]
    if discarded:
        note(f"near texts discarded: {', '.join(discarded)}")
    found = [one for one in mined if one.negatives]
    if found:
        mean = fmean(score for one in found for score in one.scores)
        note(f"mean score: positives {fmean(one.score for one in found):.3f}, negatives {mean:.3f}")
    none = len(mined) - len(found)
    fewer = sum(0 < len(one.negatives) < choice.num_negatives for one in mined)
    if fewer:
        left = ", and are left out of n-tuples" if output_format == "n-tuple" else ""
        note(f"{amount(fewer, 'pair has', 'pairs have')} fewer than {choice.num_negatives} negatives{left}")
    if none:
        note(f"{amount(none, 'pair has', 'pairs have')} no negative, and {'is' if none == 1 else 'are'} left out")


def _columns(names: tuple[str, str], output_format: str, wanted: int, *, scores: bool) -> dict[str, type]:
    """Return the columns of the output: name -> type.

    Raises:
        UsageError: a column of the input has the name of one that is added.
    """
    if output_format == "labeled-pair":
        added: dict[str, type] = {"label": int}
    elif output_format == "triplet":
        added = {"negative": str, **({"positive_score": float, "negative_score": float} if scores else {})}
    else:
        added = {f"negative_{i}": str for i in range(1, wanted + 1)}
        if scores:
            added |= {"positive_score": float, **{f"negative_{i}_score": float for i in range(1, wanted + 1)}}
    if clash := sorted(set(names) & set(added)):
        raise UsageError(f"the column {clash[0]!r} of the pairs has the name of a column of the output: rename it")
    return {**dict.fromkeys(names, str), **added}


def _rows(mined: "list[Mined]", output_format: str, wanted: int, *, scores: bool) -> "Iterator[tuple[Any, ...]]":
    """Yield the rows of the output."""
    seen: set[tuple[str, str]] = set()
    for one in mined:
        if output_format == "n-tuple":
            if len(one.negatives) == wanted:
                yield (one.query, one.positive, *one.negatives, *((one.score, *one.scores) if scores else ()))
        elif output_format == "triplet":
            for negative, score in zip(one.negatives, one.scores, strict=True):
                yield (one.query, one.positive, negative, *((one.score, score) if scores else ()))
        elif one.negatives:
            yield one.query, one.positive, 1
            for negative in one.negatives:  # a query with several positives has them once
                if (one.query, negative) not in seen:
                    seen.add((one.query, negative))
                    yield one.query, negative, 0


def _write(
    mined: "list[Mined]",
    names: tuple[str, str],
    output: Path,
    kind: "RowFormat",
    output_format: str,
    wanted: int,
    *,
    scores: bool,
) -> int:
    from sbert_mini.text.row_writer import writing_rows

    with writing_rows(output, kind, _columns(names, output_format, wanted, scores=scores)) as writer:
        for row in _rows(mined, output_format, wanted, scores=scores):
            writer.write(*row)
    return writer.rows


def _write_unmined(mined: "list[Mined]", file: Path | None, wanted: int) -> None:
    """Write the pairs with fewer negatives than wanted."""
    if file is None:
        return
    from sbert_mini.files.durable import replacing

    with replacing(file) as part, part.open("w", encoding="utf-8", errors="surrogatepass", newline="\n") as stream:
        for one in mined:
            if len(one.negatives) < wanted:
                row = {"query": one.query, "positive": one.positive, "negatives": len(one.negatives)}
                stream.write(json.dumps({**row, "discarded": dict(one.discarded)}, ensure_ascii=False) + "\n")
