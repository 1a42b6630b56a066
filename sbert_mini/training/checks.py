"""What is looked at before anything is trained: empty texts, labels, separators, duplicates, overlap, balance.

Pairs are compared unordered and normalised: lower case, only letters, digits, + and #, one blank between words.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sbert_mini.errors import InputError
from sbert_mini.training.examples import OTHER_ORDER, Examples

_SPECIAL = re.compile(r"\[(SEP|CLS|MASK|PAD|UNK)\]")
_NOT_A_WORD = re.compile(r"[^a-z0-9+#]+")
RARE = 0.05
"""A class below this share of an equal share is reported."""


@dataclass(frozen=True)
class Finding:
    """Something that a check found.

    Attributes:
        task: where.
        text: what, with its numbers.
    """

    task: str
    text: str


def normalized(text: str) -> str:
    """Return a text as pairs are compared: NFKC, lower case, one blank between words.

    Words are made of letters, digits and the marks on them, + and # (C++ is not C#). A text without any is left as it is.
    """
    lower = unicodedata.normalize("NFKC", text).lower()
    if not lower.isascii():
        lower = "".join(c if c.isalnum() or c in "+#" or unicodedata.category(c)[0] == "M" else " " for c in lower)
        words = " ".join(lower.split())
    else:
        words = _NOT_A_WORD.sub(" ", lower).strip()
    return words or text.strip().lower()


def row_key(texts: Sequence[str]) -> tuple[str, ...]:
    """Return what two rows share where they hold the same texts, in whatever order."""
    return tuple(sorted(normalized(text) for text in texts))


def overlap(rows: Iterable[Sequence[str]], others: Iterable[Sequence[str]]) -> list[bool]:
    """Return for each row whether its texts stand together in one of the others.

    A row of three texts (a triplet) is compared pair by pair: anchor with positive, anchor with negative.
    """
    keys = {row_key(other) for other in others}
    return [any(row_key(pair) in keys for pair in _pairs(row)) for row in rows]


def _pairs(row: Sequence[str]) -> list[Sequence[str]]:
    return [row] if len(row) < 3 else [(row[0], other) for other in row[1:]]


def check_labels(task: str, train: Examples, dev: Examples | None, labels: Sequence[str]) -> None:
    """Refuse labels that are not among the task's.

    Raises:
        InputError: the text names the label, where it stands first, and what is allowed.
    """
    for name, examples in (("train", train), ("dev", dev)):
        if examples is None or examples.labels is None:
            continue
        for number, label in enumerate(examples.labels, start=1):
            if label not in labels:
                raise InputError(
                    f"task {task!r}, {name} row {number}: the label {label!r} is not one of {', '.join(map(repr, labels))}"
                )


def check_scores(task: str, train: Examples, dev: Examples | None, low: float, high: float) -> None:
    """Refuse scores outside [low, high].

    Raises:
        InputError: the text names the score, where it stands first, and the range.
    """
    for name, examples in (("train", train), ("dev", dev)):
        if examples is None or examples.labels is None:
            continue
        for number, score in enumerate(examples.labels, start=1):
            if not low <= score <= high:
                raise InputError(f"task {task!r}, {name} row {number}: the score {score} is outside [{low}, {high}]")


def has_no_rivals(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether no positive has another text to be nearer than, so that a ranking of the rows is not defined.

    Args:
        rows: of anchor and positive: the others are the positives of rows with another anchor; or of triplets, with the negative.
    """
    if rows and len(rows[0]) > 2:
        return all(row[1] == row[2] for row in rows)
    if len({row[0] for row in rows}) < 2:
        return True
    return len({row[1] for row in rows}) < 2


def why_unmeasurable(dev: Examples, *, scored: bool, ranked: bool) -> str:
    """Return why no model has a dev figure on these examples; empty where a model can have one.

    Args:
        dev: the dev examples.
        scored: whether their labels are scores that are correlated with.
        ranked: whether their figure is an accuracy of ranking.
    """
    if (scored or ranked) and len(dev) == 1:
        return "there is one row"
    if scored and dev.labels is not None and len(set(dev.labels)) == 1:
        return f"all {len(dev):,} scores are {dev.labels[0]:g}"
    if ranked and has_no_rivals(dev.texts):
        return "no row has a text to compare with that is not its own positive"
    return ""


def findings(task: str, train: Examples, dev: Examples | None, labels: Sequence[str] = ()) -> list[Finding]:
    """Return what a person should know of a task's data before training on them."""
    warnings = []

    def tell(text: str) -> None:
        warnings.append(Finding(task, text))

    special = sum(bool(_SPECIAL.search(text)) for row in train.texts for text in row)
    if special:
        tell(f"{special} texts hold [SEP], [CLS] or the like; they are read as text and never as the special token")
    keys = Counter(row_key(row) for row in train.texts)
    repeated = sum(count - 1 for count in keys.values()) - train.counts.get(OTHER_ORDER, 0)
    if repeated:
        tell(f"{repeated} of {len(train)} rows repeat an earlier row's texts")
    if train.labels is not None and labels:
        several: dict[tuple[str, ...], set[str]] = {}
        for row, label in zip(train.texts, train.labels, strict=True):
            several.setdefault(row_key(row), set()).add(label)
        torn = sum(len(labels) > 1 for labels in several.values())
        if torn:
            tell(f"{torn} texts stand with different labels")
        rows = Counter(train.labels)
        shown = ", ".join(f"{label} {rows[label] / len(train):.1%}" for label in labels)
        absent = [label for label in labels if not rows[label]]
        rare = [label for label in labels if 0 < rows[label] < RARE * len(train) / len(labels)]
        tell(f"labels: {shown}")
        if absent:
            tell(f"no row is labelled {', '.join(absent)}")
        if rare:
            tell(f"very few rows are labelled {', '.join(rare)}")
    if dev is not None and dev.labels is not None and labels and len(set(dev.labels)) == 1:
        tell(f"dev: every row is labelled {dev.labels[0]}: a model that always says so has an accuracy of 1")
    if dev is not None:
        shared = sum(overlap(train.texts, dev.texts))
        if shared:
            tell(f"{shared} train rows also occur in the dev set; drop_overlap = true leaves them out")
    return warnings


def overlap_counts(
    train: Mapping[str, Examples], evaluation: Mapping[str, Iterable[Sequence[str]]]
) -> dict[str, dict[str, int]]:
    """Return how many rows of each task also occur in each evaluation set: set -> task -> rows; only counts above 0."""
    counts: dict[str, dict[str, int]] = {}
    for name, rows in evaluation.items():
        keys = {row_key(row) for row in rows}
        for task, examples in train.items():
            count = sum(any(row_key(pair) in keys for pair in _pairs(row)) for row in examples.texts)
            if count:
                counts.setdefault(name, {})[task] = count
    return counts
