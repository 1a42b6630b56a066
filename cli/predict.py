"""`sbmini predict`: what a trained task head says of texts."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbert_mini.errors import InputError, UsageError

from . import options
from .notes import note, quiet_notes
from .printing import print_json

if TYPE_CHECKING:
    from sbert_mini.runtime.predictor import Prediction

EXAMPLE = """Examples:

  sbmini predict -m ./my-model --task sentiment "a lovely film"

  sbmini predict -m ./my-model --task paraphrase "How old are you?" "What is your age?"

  sbmini predict -m ./my-model --task paraphrase -i pairs.csv --columns question1,question2
"""


def predict(
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="Texts, one per argument; for a task of pairs, two texts.", show_default=False),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="The head. [default: the only one]", show_default=False)
    ] = None,
    input: options.InputFiles = None,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns", help="The column of text, or the two. [default: the training data's]", show_default=False
        ),
    ] = None,
    model: options.Model = None,
    graph: options.GraphOption = "int8",
    input_format: options.InputFormat = None,
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
    """
    reading = options.reading(input_format, max_row_bytes=max_row_bytes)
    input = options.checked_input(texts, input, reading)
    if columns and not input:
        raise UsageError("--columns is for the rows of an --input, and the texts are given as arguments here")
    quiet_notes(quiet)
    from sbert_mini.runtime.predictor import Predictor
    from sbert_mini.text.arrivals import Arrivals

    arrivals = Arrivals()
    predictor = Predictor(model, task, graph=graph, threads=threads, offline=offline, trust_tokenizer=trust_tokenizer)
    if input:
        names = [c.strip() for c in columns.split(",")] if columns else list(predictor.config.columns)
        rows = _read(input, names, predictor.texts_each, {**reading, "arrivals": arrivals})
    else:
        rows = _of_arguments(texts or [], predictor.texts_each, predictor.config.task)
    pending: deque[tuple[Any, Any]] = deque()
    count = 0
    inputs = _remembered(rows, pending)
    settings: dict[str, Any] = {"batch_size": batch_size, "truncation": truncation, "waits": arrivals.waits}
    for prediction in predictor.predict_stream(inputs, **settings):
        print_json(_document(*pending.popleft(), prediction), flush=arrivals.waits())
        count += 1
    if not count:
        raise InputError("there is no text to predict")
    if input:
        note(f"{count} predictions of {predictor.config.task}")


def _of_arguments(texts: list[str], texts_each: int, task: str) -> Iterator[tuple[Any, Any]]:
    """Return the rows of texts that are arguments."""
    if texts_each == 1:
        return ((None, text) for text in texts)
    if len(texts) != 2:
        raise UsageError(f"the task {task} reads pairs: two texts are needed; found {len(texts)}")
    return iter([(None, (texts[0], texts[1]))])


def _remembered(rows: Iterator[tuple[Any, Any]], pending: deque[tuple[Any, Any]]) -> Iterator[Any]:
    """Yield the rows' texts, and append each row to `pending`."""
    for row in rows:
        pending.append(row)
        yield row[1]


def _document(identity: Any, item: str | tuple[str, str], prediction: "Prediction") -> dict[str, Any]:
    """Return a line of the output."""
    document: dict[str, Any] = {} if identity is None else {"id": identity}
    document |= {"text": item} if isinstance(item, str) else {"texts": list(item)}
    if prediction.label is not None:
        return document | {"label": prediction.label, "probabilities": prediction.probabilities}
    cosine = {} if prediction.cosine is None else {"cosine": prediction.cosine}
    return document | {"score": prediction.score, **cosine}


def _read(
    files: list[Path], columns: list[str], needed: int, reading: dict[str, Any]
) -> Iterator[tuple[Any, str | tuple[str, str]]]:
    from sbert_mini.text.records import inputs, read_records
    from sbert_mini.text.rows import read_row, text_of

    kinds = {kind == "txt" for _, kind in inputs(files, reading.get("format"))}
    plain = kinds == {True}
    if len(kinds) > 1:
        raise UsageError("plain text has no columns, and the other files have: give files of the one kind or the other")
    if plain and needed == 2:
        raise UsageError(
            "plain text has one text a line, and the task reads pairs: give a table (csv, tsv, jsonl, parquet)"
        )
    if not plain and len(columns) != needed:
        raise UsageError(
            f"--columns must name {needed} column{'s' * (needed > 1)}; found {', '.join(columns) or 'none'}"
        )
    for record in read_records(files, text_column=None if plain else columns[0], **reading):
        if needed == 1:
            yield record.id_value, record.text
            continue
        yield record.id_value, (record.text, text_of(read_row(record), columns[1], record.place))
