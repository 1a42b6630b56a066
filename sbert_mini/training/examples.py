"""The examples of a task: texts side by side and maybe a label each, and how they are read from files."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.errors import InputError, UsageError
from sbert_mini.shapes import IntArray
from sbert_mini.text.records import format_of, read_records
from sbert_mini.text.rows import column_of, read_row, score_of, text_of
from sbert_mini.text.tokenizer import TextTokenizer
from sbert_mini.text.tokens import Tokens

OTHER_ORDER = "added: in the other order"
"""What `Examples.counts` calls the rows of `in_both_orders`."""
_DROPPED = "dropped: "


@dataclass(frozen=True)
class Examples:
    """Rows of one or more texts, with a label each, or none.

    Attributes:
        texts: a tuple of texts a row, all of one length.
        labels: the label of each row: a string, or a number where the task is graded; None for no labels.
        names: what the columns of text are called.
        counts: what happened on the way here, by name (`read`, `dropped: ...`), for the log and the model card.
    """

    texts: tuple[tuple[str, ...], ...]
    labels: tuple[Any, ...] | None = None
    names: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.labels is not None and len(self.labels) != len(self.texts):
            raise UsageError(f"a label a row is needed; found {len(self.labels)} for {len(self.texts)} rows")
        if len({len(row) for row in self.texts}) > 1:
            raise UsageError("every row must have the same number of texts")

    def __len__(self) -> int:
        return len(self.texts)

    def kept(self, keep: Sequence[bool], reason: str) -> "Examples":
        """Return the rows that are kept, the others counted under `dropped: <reason>`."""
        texts = tuple(row for row, k in zip(self.texts, keep, strict=True) if k)
        labels = None if self.labels is None else tuple(x for x, k in zip(self.labels, keep, strict=True) if k)
        dropped = len(self) - len(texts)
        counts = {**self.counts, **({_DROPPED + reason: dropped} if dropped else {})}
        return replace(self, texts=texts, labels=labels, counts=counts)

    @property
    def dropped(self) -> dict[str, int]:
        """How many rows were left out on the way here, by reason."""
        return {key.removeprefix(_DROPPED): n for key, n in self.counts.items() if key.startswith(_DROPPED)}

    def sample(self, count: int, seed: int) -> "Examples":
        """Return some rows, drawn by a seed, in order; all of them where there are no more."""
        rows = set(np.random.default_rng(seed).permutation(len(self))[:count].tolist())
        return self.kept([i in rows for i in range(len(self))], "not in the sample")

    def in_both_orders(self) -> "Examples":
        """Return each row, and after it the row with its texts the other way round."""
        texts = tuple(order for row in self.texts for order in (row, row[::-1]))
        labels = None if self.labels is None else tuple(label for label in self.labels for _ in range(2))
        return replace(self, texts=texts, labels=labels, counts={**self.counts, OTHER_ORDER: len(self)})


def read_examples(
    paths: Sequence[Path], text_columns: Sequence[str], label_column: str | None, *, graded: bool = False
) -> Examples:
    """Return the rows of one or more tables (csv, tsv, jsonl, parquet), or of texts, one a line (txt), in order.

    Args:
        paths: the files, all with the same columns.
        text_columns: the columns of text.
        label_column: the column of labels, or None.
        graded: whether labels are scores: finite numbers.

    Raises:
        InputError: a file cannot be read, a column is missing, a text is empty, or a label is not what it should be; the text
            says which line.
    """
    texts: list[tuple[str, ...]] = []
    labels: list[Any] = []
    for path in paths:
        plain = format_of(path) == "txt" and len(text_columns) == 1 and label_column is None  # a text a line
        for record in read_records(path, text_column=None if plain else text_columns[0]):
            row = {text_columns[0]: record.text} if plain else read_row(record)
            texts.append(tuple(text_of(row, column, record.place) for column in text_columns))
            if label_column:
                labels.append(_label(column_of(row, label_column, record.place), graded, record.place))
    if not texts:
        raise InputError(f"{', '.join(map(str, paths))}: there is no row")
    label_values = tuple(labels) if label_column else None
    return Examples(tuple(texts), label_values, tuple(text_columns), {"read": len(texts)})


def _label(value: Any, graded: bool, place: str) -> Any:
    if graded:
        return score_of(value, place)
    text = str(value).strip()
    if not text or value is None:
        raise InputError(f"{place}: the label is empty")
    return text


class TokenizedTexts:
    """Token ids of many texts or pairs, side by side in memory: 4 bytes a token.

    Args:
        inputs: the texts, or the pairs that are read as one input.
        tokenizer: the model's.

    Attributes:
        lengths: tokens of each input, special tokens included, (inputs,).
        truncated: how many inputs were longer than the tokenizer reads.
    """

    def __init__(self, inputs: Sequence[str | tuple[str, str]], tokenizer: TextTokenizer) -> None:
        batches = [tokenizer.encode(inputs[start : start + 1024]) for start in range(0, len(inputs), 1024)]
        self.truncated = int(sum(batch.truncated.sum() for batch in batches))
        self.lengths: IntArray = np.concatenate([batch.lengths for batch in batches])
        self._ends = np.cumsum(self.lengths)
        self._ids = np.concatenate([batch.ids.astype(np.int32) for batch in batches])
        self._types = np.concatenate([batch.type_ids.astype(np.int8) for batch in batches])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Tokens:
        end = int(self._ends[index])
        start = end - int(self.lengths[index])
        return Tokens(self._ids[start:end], self._types[start:end], False)  # type: ignore[arg-type]  # rows of arrays
