"""`sbmini predict`: what a trained task head says of texts."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbert_mini.errors import InputError, UsageError

from . import options
from .notes import note, quiet_notes
from .predictions import Answer, Gold, RowFile, checked_output, named_labels
from .printing import print_json, print_text

if TYPE_CHECKING:
    from sbert_mini.text.records import Record

EXAMPLE = """Examples:

  sbmini predict -m ./my-model --task sentiment "a lovely film"

  sbmini predict -m ./my-model --task paraphrase "How old are you?" "What is your age?"

  sbmini predict -m ./my-model --task paraphrase -i pairs.csv --columns question1,question2 -o predicted.csv

  sbmini predict -m ./my-model -i reviews.csv -o predicted.parquet --label-name 0=bad --label-name 1=good --min-probability 0.8
"""

Task = Annotated[str | None, typer.Option("--task", "-t", help="The head. [default: the only one]", show_default=False)]
TextColumns = Annotated[
    str | None,
    typer.Option(
        "--columns", help="The column of text, or the two. [default: the training data's]", show_default=False
    ),
]
OutputFile = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="A .csv, .tsv, .jsonl or .parquet file: the input's columns with the predictions; by default JSON lines on stdout.",
        show_default=False,
    ),
]
GoldColumn = Annotated[
    str | None,
    typer.Option(
        "--gold",
        help="The column of right labels or scores, for accuracy and confusions. [default: label, score or the like, if it fits]",
        show_default=False,
    ),
]
LabelNames = Annotated[
    list[str] | None,
    typer.Option("--label-name", help="A name for a label, as LABEL=NAME; may be repeated.", show_default=False),
]
MinProbability = Annotated[
    float | None,
    typer.Option(
        "--min-probability",
        min=0,
        max=1,
        help="A less probable label is replaced by --abstain-label.",
        show_default=False,
    ),
]
AbstainLabel = Annotated[
    str | None,
    typer.Option(
        "--abstain-label",
        help="With --min-probability: the label of a row without an answer; by default unsure.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class _Row:
    """What is predicted: the texts, and where they come from."""

    texts: Any
    record: "Record | None" = None

    @property
    def identity(self) -> Any:
        return None if self.record is None else self.record.id_value


def _checked_abstain_label(label: str | None, min_probability: float | None) -> str:
    if label is not None and min_probability is None:
        raise UsageError("--abstain-label is for rows below --min-probability, which is not given")
    return "unsure" if label is None else label


def predict(
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="Texts, one per argument; for a task of pairs, two texts.", show_default=False),
    ] = None,
    task: Task = None,
    input: options.InputFiles = None,
    columns: TextColumns = None,
    output: OutputFile = None,
    gold: GoldColumn = None,
    label_name: LabelNames = None,
    min_probability: MinProbability = None,
    abstain_label: AbstainLabel = None,
    model: options.Model = None,
    graph: options.GraphOption = "int8",
    input_format: options.InputFormat = None,
    delimiter: options.Delimiter = None,
    max_row_bytes: options.MaxRowBytes = None,
    truncation: options.Truncation = "warn",
    batch_size: options.BatchSize = 32,
    threads: options.Threads = None,
    offline: options.Offline = False,
    trust_tokenizer: options.TrustTokenizer = False,
    quiet: options.Quiet = False,
) -> None:
    """Predict with a task head of a trained model: labels with probabilities, or scores. Needs no torch.

    JSON lines on stdout: "text" or "texts", "id" if the input has one, and "label" with "probabilities", or "score" (and
    "cosine" for a similarity). Each line that arrives in a pipe is answered at once.

    A file (--output) has all columns of the input, "predicted", and "probability" of a label or "cosine" of a similarity; a
    column of the input with such a name is left out, with a warning.

    Where the input has right labels or scores (--gold), accuracy, confusions and figures by class, or correlations, follow: on
    stdout with --output, else on stderr.
    """
    reading = options.reading(input_format, max_row_bytes=max_row_bytes, delimiter=delimiter)
    input = options.checked_input(texts, input, reading)
    if not input and (columns or gold or output):
        raise UsageError("--columns, --gold and --output are for rows of an --input, and the texts are arguments here")
    abstain_label = _checked_abstain_label(abstain_label, min_probability)
    output = checked_output(output, input)
    quiet_notes(quiet)
    from sbert_mini.runtime.predictor import Predictor, head_config, texts_each
    from sbert_mini.text.arrivals import Arrivals

    arrivals = Arrivals()
    config = head_config(model, task, offline=offline)  # so that a mistake is an error before a model is converted
    if not config.labels and (label_name or min_probability is not None):
        raise UsageError(f"--label-name and --min-probability are for labels, and the task {config.task} gives scores")
    names = named_labels(label_name or [], config.labels, abstain_label if min_probability is not None else None)
    if input:
        text_columns = [c.strip() for c in columns.split(",")] if columns else list(config.columns)
        _check_columns(input, text_columns, gold, texts_each(config), reading)
        rows = _read(input, text_columns, texts_each(config), {**reading, "arrivals": arrivals})
    else:
        rows = _of_arguments(texts or [], texts_each(config), config.task)
    predictor = Predictor(model, task, graph=graph, threads=threads, offline=offline, trust_tokenizer=trust_tokenizer)
    pending: deque[_Row] = deque()
    count = 0
    beside = Gold(gold, names, abstain_label if min_probability is not None else "")
    settings: dict[str, Any] = {"batch_size": batch_size, "truncation": truncation, "waits": arrivals.waits}
    with RowFile(output) as file:
        for prediction in predictor.predict_stream(_remembered(rows, pending), **settings):
            row = pending.popleft()
            answer = Answer.of(prediction, names, min_probability, abstain_label)
            if row.record is not None:
                beside.add(row.record, answer)
            if file.is_open and row.record is not None:
                file.add(row.record, answer)
            else:
                print_json(_document(row, answer), flush=arrivals.waits())
            count += 1
        if not count:
            raise InputError("there is no text to predict")
    if input:
        note(f"{count} predictions of {predictor.config.task}{f' -> {output}' if output else ''}")
    for table in beside.tables():
        (print_text if output else note)(table.terminal())


def _of_arguments(texts: list[str], texts_each: int, task: str) -> Iterator[_Row]:
    """Return the rows of texts that are arguments."""
    if texts_each == 1:
        return (_Row(text) for text in texts)
    if len(texts) != 2:
        raise UsageError(f"the task {task} reads pairs: two texts are needed; found {len(texts)}")
    return iter([_Row((texts[0], texts[1]))])


def _remembered(rows: Iterator[_Row], pending: deque[_Row]) -> Iterator[Any]:
    """Yield the rows' texts, and append each row to `pending`."""
    for row in rows:
        pending.append(row)
        yield row.texts


def _document(row: _Row, answer: Answer) -> dict[str, Any]:
    """Return a line of the output."""
    document: dict[str, Any] = {} if row.identity is None else {"id": row.identity}
    document |= {"text": row.texts} if isinstance(row.texts, str) else {"texts": list(row.texts)}
    if answer.label is not None:
        return document | {"label": answer.label, "probabilities": answer.probabilities}
    cosine = {} if answer.cosine is None else {"cosine": answer.cosine}
    return document | {"score": answer.score, **cosine}


def _is_plain(files: list[Path], reading: dict[str, Any]) -> bool:
    """Return whether the input is plain text.

    Raises:
        UsageError: some of the files are, and others not.
    """
    from sbert_mini.text.records import inputs

    kinds = {kind == "txt" for _, kind in inputs(files, reading.get("format"))}
    if len(kinds) > 1:
        raise UsageError("plain text has no columns, and the other files have: give files of the one kind or the other")
    return kinds == {True}


def _check_columns(
    files: list[Path], columns: list[str], gold: str | None, needed: int, reading: dict[str, Any]
) -> None:
    """Refuse columns that the input lacks, as far as files can be looked at twice.

    Raises:
        UsageError: the number of columns is wrong, or plain text is given where columns are needed.
        InputError: a file lacks a column, or cannot be read.
    """
    from sbert_mini.text.peek import first_row
    from sbert_mini.text.rows import column_of
    from sbert_mini.text.tables import delimiter_hint

    if _is_plain(files, reading):
        if needed == 2:
            raise UsageError(
                "plain text has one text a line, and the task reads pairs: give a table (csv, tsv, jsonl, parquet)"
            )
        if gold is not None:
            raise UsageError(f"--gold names a column, and {files[0]} is plain text, which has none")
        return
    if len(columns) != needed:
        raise UsageError(
            f"--columns must name {needed} column{'s' * (needed > 1)}; found {', '.join(columns) or 'none'}"
        )
    for file in files:
        if file.is_file():
            row = first_row(file, reading.get("delimiter"), reading.get("format"))
            for name in [*columns, *([gold] if gold is not None else [])]:
                try:
                    column_of(row, name, str(file))
                except InputError as error:
                    raise InputError(f"{error}{delimiter_hint(list(row))}") from None


def _read(files: list[Path], columns: list[str], needed: int, reading: dict[str, Any]) -> Iterator[_Row]:
    from sbert_mini.text.records import read_records
    from sbert_mini.text.rows import read_row, text_of

    plain = _is_plain(files, reading)
    for record in read_records(files, text_column=None if plain else columns[0], **reading):
        second = () if needed == 1 else (text_of(read_row(record), columns[1], record.place),)
        yield _Row((record.text, *second) if second else record.text, record)
