"""The options that several commands share."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import typer

from sbert_mini.errors import UsageError
from sbert_mini.model.choices import Graph
from sbert_mini.runtime import choices

OnErrorAction: TypeAlias = Literal["fail", "skip"]
"""What happens to a row that cannot be used."""

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="A model directory, a built-in name, or a hub id org/name[@revision]. [env: SBMINI_MODEL]",
        show_default=False,
    ),
]
GraphOption = Annotated[Graph, typer.Option("--graph", help="Which graph computes: int8 is faster, fp32 exact.")]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        help="Threads to compute with; by default one per core. [env: SBMINI_THREADS, OMP_NUM_THREADS]",
        show_default=False,
    ),
]
Offline = Annotated[
    bool, typer.Option("--offline", help="Never use the network, even if files are missing. [env: HF_HUB_OFFLINE]")
]
TrustTokenizer = Annotated[
    bool,
    typer.Option(
        "--trust-tokenizer",
        help="Use a tokenizer.json that is not BERT's. Its rules can hang or stop the program: only for a source you trust.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr; errors only.")]
Truncation = Annotated[
    choices.Truncation,
    typer.Option(
        "--truncation",
        help="A text longer than the model's limit: cut it and report it, refuse it, or split it and average the pieces.",
    ),
]
LongTexts = Annotated[
    choices.LongTexts | None,
    typer.Option(
        "--truncation",
        help="A text longer than the model's limit: cut it and report it, refuse it, split it and average the pieces (chunk), or "
        "store each passage with a vector of its own. [default: as the index notes; for a new one passages]",
        show_default=False,
    ),
]
PassageTokens = Annotated[
    int | None,
    typer.Option(
        "--passage-tokens",
        min=1,
        help="The highest number of tokens of a passage. [default: as the index notes; for a new one the model's limit]",
        show_default=False,
    ),
]
Overlap = Annotated[
    int | None,
    typer.Option(
        "--overlap",
        min=0,
        help="Tokens that a passage repeats of the one before. [default: as the index notes; for a new one 0]",
        show_default=False,
    ),
]
OnError = Annotated[
    OnErrorAction,
    typer.Option(
        "--on-error",
        help="A row that cannot be used: stop, or write it into the rejects file and continue (exit code 4).",
    ),
]
RejectsFile = Annotated[
    Path | None,
    typer.Option("--rejects", help="The rejects file, JSON lines. [default: OUTPUT.rejects.jsonl]", show_default=False),
]
IndexRejectsFile = Annotated[
    Path | None,
    typer.Option(
        "--rejects", help="The rejects file, JSON lines. [default: DIRECTORY.rejects.jsonl]", show_default=False
    ),
]
PrecisionOption = Annotated[
    choices.Precision, typer.Option("--precision", help="The values in the output: 32, 8 or 1 bits per component.")
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="The highest number of texts in a batch.")]
InputFormat = Annotated[
    str | None,
    typer.Option(
        "--input-format",
        help="txt, csv, tsv, jsonl, json or parquet; by default by the suffix. Text may be gzipped (.gz).",
        show_default=False,
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        "--delimiter",
        help="The character between the columns of CSV; by default a comma, or the tab of a header without one.",
        show_default=False,
    ),
]
TextColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--text-column",
        help="The column that holds the text; if it is repeated, the columns' texts are joined. [default: text]",
        show_default=False,
    ),
]
TextSeparator = Annotated[
    str | None,
    typer.Option(
        "--text-separator", help="The separator between joined columns. [default: one space]", show_default=False
    ),
]
MaxRowBytes = Annotated[
    int | None,
    typer.Option(
        "--max-row-bytes",
        min=1,
        help="A longer line or row counts as unreadable. [default: 67108864, which is 64 MiB]",
        show_default=False,
    ),
]
IdColumn = Annotated[
    str | None,
    typer.Option(
        "--id-column",
        help="The column that holds the id. [default: id, else _id, if there is one]",
        show_default=False,
    ),
]


def matching_files(paths: list[Path] | None) -> list[Path] | None:
    """Return the files of an --input, patterns replaced by the files that match."""
    if not paths or not any(set("*?[").intersection(str(path)) for path in paths):
        return paths
    from sbert_mini.files.paths import matching

    return [file for path in paths for file in matching(path)]


InputFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--input",
        "-i",
        callback=matching_files,
        help="A file of texts: txt, csv, tsv, jsonl, json or parquet, or a pattern ('news/*.csv'); - for stdin. "
        "Several (-i A -i B) are read in order as one.",
        show_default=False,
    ),
]
IndexDirectory = Annotated[Path, typer.Argument(help="The index directory.", show_default=False)]

Filter = Annotated[
    str | None,
    typer.Option(
        "--filter", help="An SQL condition on the rows' columns: \"year >= 2020 and lang = 'en'\".", show_default=False
    ),
]
FilterTimeout = Annotated[
    float,
    typer.Option(
        "--filter-timeout", min=0.001, metavar="SECONDS", help="Stop a filter that takes longer, with an error."
    ),
]

Color: TypeAlias = Literal["auto", "always", "never"]
"""When output is coloured."""
ColorOption = Annotated[
    Color,
    typer.Option(
        "--color",
        help="Colours: on a terminal (auto), in a pipe too, which is then printed as on a terminal (always), or never. "
        "NO_COLOR turns auto into never.",
    ),
]


def given(context: typer.Context) -> list[str]:
    """Return the names of the parameters that the command line sets, in the order in which the command has them."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


def reading(
    input_format: str | None = None,
    text_columns: list[str] | None = None,
    text_separator: str | None = None,
    id_column: str | None = None,
    max_row_bytes: int | None = None,
    delimiter: str | None = None,
) -> dict[str, Any]:
    """Return what `read_records` is given for the options of a command.

    Raises:
        UsageError: a separator is given, and there is nothing to join.
    """
    if text_separator is not None and len(text_columns or []) < 2:
        raise UsageError("--text-separator joins the texts of columns: give --text-column two times or more with it")
    values = {
        "format": input_format,
        "text_column": text_columns or None,
        "text_separator": text_separator,
        "id_column": id_column,
        "max_row_bytes": max_row_bytes,
        "delimiter": delimiter,
    }
    return {name: value for name, value in values.items() if value is not None}


def checked_input(texts: list[str] | None, input: list[Path] | None, reading: dict[str, Any]) -> list[Path] | None:
    """Return the files to read, stdin where nothing is named; None where the texts are arguments.

    Raises:
        UsageError: texts and files are both given, or neither; or a text is empty.
    """
    if texts and input:
        raise UsageError("texts were given both as arguments and with --input; give one of the two")
    if texts:
        check_no_input_options(reading)
    if any(not text.strip() for text in texts or []):
        raise UsageError("one of the texts is empty")
    if texts or input:
        return input
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("no text was given: name texts, or --input FILE, or pipe them in")
    from sbert_mini.text.records import STANDARD_INPUT

    return [Path(STANDARD_INPUT)]


def check_no_input_options(reading: dict[str, Any]) -> None:
    """Refuse options about an input where the texts are arguments.

    Args:
        reading: what `reading` returned.

    Raises:
        UsageError: one is given.
    """
    names = {
        "format": "--input-format",
        "text_column": "--text-column",
        "id_column": "--id-column",
        "max_row_bytes": "--max-row-bytes",
        "delimiter": "--delimiter",
    }
    used = [name for key, name in names.items() if key in reading]
    if used:
        raise UsageError(f"{', '.join(used)}: for the rows of an --input, and the texts are given as arguments here")


def names_in(option: str, value: str | None) -> tuple[str, ...] | None:
    """Return the names of an option that separates them by commas; None where it is not given.

    Raises:
        UsageError: one is empty.
    """
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if not all(names):
        raise UsageError(f"{option} names columns, separated by commas; found {value!r}")
    return names


def check_trust(trust_tokenizer: bool, model: str | None) -> None:
    """Refuse to trust the tokenizer of a model that an index names: only its user can.

    Raises:
        UsageError: no model is named.
    """
    if trust_tokenizer and model is None:
        raise UsageError("--trust-tokenizer needs --model: name the model that you trust; an index can name any")


def check_json_lines(option: str, file: Path) -> None:
    """Refuse a file for JSON lines whose suffix promises another format.

    Raises:
        UsageError: it does.
    """
    if file.suffix.lower() in (".csv", ".tsv", ".parquet", ".npy", ".safetensors", ".xlsx", ".html", ".xml", ".gz"):
        raise UsageError(f"{option} writes JSON lines: name a .jsonl file; found {file}")
