"""A table that a model is trained from: which columns hold texts, which the label, and what kind of rows they make. No torch."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from sbert_mini.errors import InputError, UsageError
from sbert_mini.text.peek import first_row
from sbert_mini.text.records import Record, read_records
from sbert_mini.text.rows import read_row, score_of
from sbert_mini.text.tables import delimiter_hint

Kind: TypeAlias = Literal[
    "yes-no pairs", "graded pairs", "labelled pairs", "matching pairs", "triplets", "labelled texts"
]
LABELS = (
    "label", "labels", "score", "similarity", "is_duplicate", "gold", "class", "category", "grade", "rating", "target", "y",
    "sentiment", "intent", "topic", "gold_label",
)  # fmt: skip
"""Names by which a column of labels is known, in lower case."""
_IDS = re.compile(r"(|index|idx|id|_id|.+_id|.+id\d|qid\d*|unnamed: 0)", re.IGNORECASE)
_NEGATIVE = re.compile(r"(hard_?)?negatives?_?\d*", re.IGNORECASE)
_FIRST = re.compile(r"anchor|query|question", re.IGNORECASE)
_SECOND = re.compile(r"positive|answer|document|passage", re.IGNORECASE)
_MOST_CLASSES = 100
_FEW_ODD = 0.2
"""Where fewer of the values are no numbers, they are mistakes."""


@dataclass(frozen=True)
class TableRows:
    """The rows of a table, as a task takes them.

    Attributes:
        kind: what kind of rows they are.
        texts: each row's texts.
        labels: each row's label: a text for classes, a number for grades; None for none.
        text_columns: the names of the texts.
        label_column: the name of the label; None for none.
        ignored: columns that are not used.
        places: where each row stands.
    """

    kind: Kind
    texts: tuple[tuple[str, ...], ...]
    labels: tuple[Any, ...] | None
    text_columns: tuple[str, ...]
    label_column: str | None
    ignored: tuple[str, ...]
    places: tuple[str, ...]

    def describe(self) -> str:
        """Return what was found, in words."""
        what = f"{self.kind}: {' and '.join(self.text_columns)}"
        label = f", labelled by {self.label_column}" if self.label_column else ""
        ignored = f"; not used: {', '.join(self.ignored)}" if self.ignored else ""
        return f"{len(self.texts):,} rows of {what}{label}{ignored}"


def read_table_rows(
    path: Path, text_columns: Sequence[str] = (), label_column: str | None = None, delimiter: str | None = None
) -> TableRows:
    """Return the rows of a table, its columns told by their names and values; docs/training.md has the rules.

    Args:
        path: the file: csv, tsv, jsonl, json or parquet.
        text_columns: the columns of text; empty to find them.
        label_column: the column of labels; None to find it.
        delimiter: as `text.records.read_records` takes it.

    Raises:
        UsageError: the columns cannot be told, or a named one is not there; the text says what was found.
        InputError: the file or a row of it cannot be read.
    """
    first = first_row(path, delimiter)
    hint = delimiter_hint(list(first))
    for name in (*text_columns, *([label_column] if label_column else [])):
        if name not in first:
            raise UsageError(f"{path} has no column {name!r}; it has {', '.join(first)}{hint}")
    readable = next((n for n in text_columns or first if isinstance(first[n], str) and first[n].strip()), None)
    if readable is None:
        raise InputError(f"{path}: no column of the first row holds a text")
    records = list(read_records(path, text_column=readable, delimiter=delimiter))
    rows = [read_row(record) for record in records]
    label = label_column or _label_of(list(first), rows, text_columns)
    texts = list(text_columns) or _texts_of(list(first), rows, label)
    lists = [name for name in first if isinstance(first[name], list)] if not text_columns and label is None else []
    return _table_rows(path, records, rows, _in_order(texts), label, lists)


def _label_of(names: Sequence[str], rows: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> str | None:
    """Return the column of labels: one of a known name, else the only other one of numbers, or of few values."""
    others = [name for name in names if name not in texts and not _IDS.fullmatch(name)]
    known = [name for known in LABELS for name in others if name.lower() == known]
    if known:
        return known[0]
    few = [name for name in others if _is_number(rows, name) or _has_few_values(rows, name)]
    return few[0] if len(few) == 1 else None


def _texts_of(names: Sequence[str], rows: Sequence[Mapping[str, Any]], label: str | None) -> list[str]:
    return [
        name
        for name in names
        if name != label
        and not _IDS.fullmatch(name)
        and all(isinstance(row.get(name), str) for row in rows)
        and not _is_number(rows, name)
    ]


def _is_number(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    return all(_is_score(row.get(name)) for row in rows)


def _is_score(value: Any) -> bool:
    try:
        score_of(value, "")
    except InputError:
        return False
    return True


def _has_few_values(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    values = {str(row.get(name)) for row in rows}
    return len(values) <= min(_MOST_CLASSES, max(len(rows) // 20, 2)) and all(len(value) <= 60 for value in values)


def _in_order(texts: Sequence[str]) -> list[str]:
    """Return columns with anchors first, then positives, then negatives, where their names say so."""

    def place(name: str) -> int:
        return 3 if _NEGATIVE.fullmatch(name) else 1 if _FIRST.search(name) else 2 if _SECOND.search(name) else 1

    named = [name for name in texts if _NEGATIVE.fullmatch(name) or _SECOND.search(name)]
    return sorted(texts, key=place) if named else list(texts)


def _table_rows(
    path: Path,
    records: Sequence[Record],
    rows: Sequence[Mapping[str, Any]],
    texts: Sequence[str],
    label: str | None,
    lists: Sequence[str],
) -> TableRows:
    negatives = [name for name in texts if _NEGATIVE.fullmatch(name)]
    places = [record.place for record in records]
    used = [*texts, *lists[:1], *([label] if label else [])]
    ignored = tuple(name for name in rows[0] if name not in used)
    if label is None and len(texts) == 2 and len(lists) == 1:
        return _triplets(rows, places, texts, lists, ignored)
    if label is None and len(texts) >= 3 and len(texts) - max(len(negatives), 1) == 2:
        return _triplets(rows, places, texts[:2], texts[2:], ignored)
    if len(texts) not in (1, 2) or (len(texts) == 1 and label is None):
        raise UsageError(
            f"the columns of {path} cannot be told apart: texts {', '.join(texts) or 'none'}, label {label or 'none'}. A text "
            "with a label, two texts with or without one, or anchor, positive and negatives are needed: name them with "
            f"--text-column and --label-column{delimiter_hint(list(rows[0]))}",
        )
    columns = [[_text(row, name, place) for row, place in zip(rows, places, strict=True)] for name in texts]
    kind, labels = _labels(rows, places, label, pairs=len(texts) == 2)
    return TableRows(kind, tuple(zip(*columns, strict=True)), labels, tuple(texts), label, ignored, tuple(places))


def _triplets(
    rows: Sequence[Mapping[str, Any]],
    places: Sequence[str],
    pair: Sequence[str],
    negatives: Sequence[str],
    ignored: tuple[str, ...],
) -> TableRows:
    """Return a row for each negative of each row; a cell of negatives may hold a list."""
    texts, where = [], []
    for row, place in zip(rows, places, strict=True):
        for name in negatives:
            cell = row.get(name)
            several = cell if isinstance(cell, list) else [cell] if cell else []
            for negative in several:
                if not isinstance(negative, str) or not negative.strip():
                    raise InputError(f"{place}: {name!r} must hold texts, and holds {negative!r}")
                texts.append((_text(row, pair[0], place), _text(row, pair[1], place), negative))
                where.append(place)
    if not texts:
        raise InputError(f"no row has a text in {', '.join(negatives)}")
    one = negatives[0] if len(negatives) == 1 else "negative"
    names = (*pair, one if one not in pair else "hard_negative")
    return TableRows("triplets", tuple(texts), None, names, None, ignored, tuple(where))


def _text(row: Mapping[str, Any], name: str, place: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{place}: {name!r} must be a text, and is {value!r}")
    return value


def _labels(
    rows: Sequence[Mapping[str, Any]], places: Sequence[str], label: str | None, *, pairs: bool
) -> tuple[Kind, tuple[Any, ...] | None]:
    if label is None:
        return "matching pairs", None
    values = [row.get(label) for row in rows]
    for value, place in zip(values, places, strict=True):
        if value is None or not str(value).strip():
            raise InputError(f"{place}: the label {label!r} is empty")
    if pairs and _is_number(rows, label):
        numbers = tuple(float(value) for value in values)  # type: ignore[arg-type]
        return ("yes-no pairs" if set(numbers) <= {0.0, 1.0} else "graded pairs"), numbers
    odd = [i for i, value in enumerate(values) if not _is_score(value)]
    if pairs and len(odd) < _FEW_ODD * len(values):
        raise InputError(
            f"{places[odd[0]]}: {values[odd[0]]!r} in the column {label!r} is no number, and {len(values) - len(odd):,} of its "
            f"{len(values):,} values are"
        )
    names = tuple(str(value).strip() for value in values)
    kinds = len(set(names))
    if kinds > _MOST_CLASSES or kinds > len(rows) / 2:
        raise UsageError(
            f"the column {label!r} has {kinds:,} values in {len(rows):,} rows: a column of labels has at most "
            f"{_MOST_CLASSES} values, and at most half as many as there are rows"
        )
    return ("labelled pairs" if pairs else "labelled texts"), names
