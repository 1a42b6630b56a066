"""What `sbmini predict` writes beside rows, and how it is held against gold answers."""

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from sbert_mini.errors import InputError, UsageError

if TYPE_CHECKING:
    from sbert_mini.evaluation.table import Table
    from sbert_mini.runtime.predictor import Prediction
    from sbert_mini.text.records import Record

log = logging.getLogger("sbert_mini")
_NEW = ("predicted", "probability", "probabilities", "cosine")
_GOLD = ("label", "gold", "gold_label", "is_duplicate", "class", "category", "score", "similarity", "rating", "target")


def checked_output(output: Path | None, input: Sequence[Path] | None) -> Path | None:
    """Return the file to write; None for stdout.

    Raises:
        UsageError: its format is unknown, or it is an input.
    """
    if output is None or str(output) == "-":
        return None
    from sbert_mini.text.rows import ROW_SUFFIXES, need_pyarrow, unknown_format

    if output.suffix.lower() not in ROW_SUFFIXES:
        raise unknown_format(output, ROW_SUFFIXES)
    if ROW_SUFFIXES[output.suffix.lower()] == "parquet":
        need_pyarrow()
    if output.is_dir():
        raise UsageError(f"the output {output} is a directory")
    for file in input or []:
        if file.exists() and output.exists() and file.samefile(output):
            raise UsageError(f"the output would replace the input, {file}")
    return output


def named_labels(pairs: Sequence[str], labels: Sequence[str], abstain: str | None) -> dict[str, str]:
    """Return label -> the name that it is shown by.

    Args:
        pairs: LABEL=NAME.
        labels: the head's.
        abstain: the label of no answer, where there is one.

    Raises:
        UsageError: a label is unknown, or two are shown by one name.
    """
    names = {label: label for label in labels}
    for pair in pairs:
        label, sign, name = pair.partition("=")
        if not sign or label not in names or not name:
            raise UsageError(f"--label-name takes LABEL=NAME, LABEL one of {', '.join(labels)}; found {pair!r}")
        names[label] = name
    shown = [*names.values(), *([abstain] if abstain is not None else [])]
    if repeated := sorted({name for name in shown if shown.count(name) > 1}):
        raise UsageError(f"two labels, or a label and --abstain-label, are called {repeated[0]!r}")
    return names


@dataclass(frozen=True)
class Answer:
    """A prediction as it is shown: labels by their names, `unsure` in place of one that is not probable enough."""

    label: str | None
    probabilities: Mapping[str, float]
    score: float | None
    cosine: float | None

    @classmethod
    def of(cls, prediction: "Prediction", names: Mapping[str, str], least: float | None, abstain: str) -> "Answer":
        """Return a prediction's answer."""
        probabilities = {names[label]: value for label, value in prediction.probabilities.items()}
        label = None if prediction.label is None else names[prediction.label]
        if label is not None and least is not None and probabilities[label] < least:
            label = abstain
        return cls(label, probabilities, prediction.score, prediction.cosine)

    def columns(self, *, nested: bool) -> dict[str, Any]:
        """Return the columns that a file gets; `nested` for all probabilities, in one column."""
        if self.label is None:
            return {"predicted": self.score, **({} if self.cosine is None else {"cosine": self.cosine})}
        whole = {"probabilities": dict(self.probabilities)} if nested else {}
        return {"predicted": self.label, "probability": max(self.probabilities.values()), **whole}


class RowFile:
    """The output file, written beside its place and renamed into it when all rows are there; nothing for None."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._stack = path, ExitStack()
        self._stream: IO[bytes] | None = None
        self._rows: list[tuple[dict[str, Any], bool]] = []
        self._warned = False

    @property
    def is_open(self) -> bool:
        """Whether there is a file."""
        return self._stream is not None

    def __enter__(self) -> "RowFile":
        if self._path is not None:
            from sbert_mini.files.durable import replacing
            from sbert_mini.text.rows import ROW_SUFFIXES

            self._kind = ROW_SUFFIXES[self._path.suffix.lower()]
            part = self._stack.enter_context(replacing(self._path))
            self._stream = self._stack.enter_context(part.open("wb"))
        return self

    def add(self, record: "Record", answer: Answer) -> None:
        """Add a row.

        Raises:
            InputError: the format cannot hold it.
        """
        from sbert_mini.text.rows import check_row, named_row

        assert self._stream is not None  # noqa: S101
        row = named_row(record) if record.row is None else dict(record.row)
        new = answer.columns(nested=self._kind == "jsonl")
        if replaced := [name for name in row if name in _NEW]:
            if not self._warned:
                log.warning("the input's columns %s are left out for those of the predictions", ", ".join(replaced))
                self._warned = True
            row = {name: value for name, value in row.items() if name not in replaced}
        row |= new
        check_row(row, self._kind, record.place)
        if self._kind == "jsonl":
            self._stream.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass"))
        else:
            self._rows.append((row, record.typed))

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None and self._stream is not None and self._kind != "jsonl":
            from sbert_mini.text.rows import write_table

            with self._stack:
                write_table(self._stream, self._kind, self._rows)
            return
        self._stack.__exit__(kind, error, trace)


class Gold:
    """Gold answers beside predicted ones.

    Args:
        column: the column of gold answers; None for one of a usual name, if it fits the task.
        names: label -> name; empty where the head gives scores.
        abstain: the label of no answer.
    """

    def __init__(self, column: str | None, names: Mapping[str, str], abstain: str) -> None:
        self._column, self._names, self._abstain = column, names, abstain
        self._is_named = column is not None
        self._gold: list[Any] = []
        self._predicted: list[Any] = []
        self._given_up = False

    def add(self, record: "Record", answer: Answer) -> None:
        """Take a row in.

        Raises:
            InputError: the named column is not there, or holds something else than labels or scores of the task.
        """
        if self._given_up:
            return
        row = record.row or {}
        if self._column is None:
            self._column = next((name for name in _GOLD if name in row), None)
        try:
            if self._column is None or self._column not in row:
                raise InputError(f"{record.place}: there is no column {self._column!r}")
            self._gold.append(self._value(row[self._column], record.place))
            self._predicted.append(answer.score if answer.label is None else answer.label)
        except InputError as error:
            if self._is_named:
                raise
            if self._column is not None:
                log.warning("the column %s is not taken as gold: %s", self._column, error)
            self._given_up = True

    def _value(self, value: Any, place: str) -> Any:
        if not self._names:
            from sbert_mini.text.rows import score_of

            return score_of(value, place)
        text = str(value).strip()
        if text in self._names:
            return self._names[text]
        if text in self._names.values():
            return text
        raise InputError(f"{place}: the label {text!r} is not one of {', '.join(self._names)}")

    def tables(self) -> list["Table"]:
        """Return what the predictions are worth; empty without gold answers."""
        if self._given_up or not self._gold:
            return []
        from sbert_mini.evaluation.predicted import label_figures, label_tables, score_table

        if not self._names:
            return [score_table(self._gold, self._predicted)]
        labels = list(self._names.values())
        return label_tables(label_figures(self._gold, self._predicted, labels, self._abstain), labels, self._abstain)
