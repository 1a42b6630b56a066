"""A table -> a recipe with training and dev rows, by the rules of docs/training.md. No torch.

`OUTPUT.recipe/` holds `recipe.toml`, `train.jsonl` and `dev.jsonl`. `sbmini train OUTPUT.recipe/recipe.toml` is the same run.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sbert_mini.errors import InputError, UsageError
from sbert_mini.files import outputs
from sbert_mini.files.durable import is_part, write_durably
from sbert_mini.model.registry import DEFAULT_MODEL
from sbert_mini.recipes.split import Split, row_notes, split_rows
from sbert_mini.recipes.table_columns import Kind, TableRows, read_table_rows

SUFFIX = ".recipe"
RECIPE, TRAIN, DEV = "recipe.toml", "train.jsonl", "dev.jsonl"
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
_FROZEN_BELOW = 1000
_LAST_STEP_BELOW = 500


@dataclass(frozen=True)
class Rules:
    """What training takes for a kind of rows and their number.

    Attributes:
        structure, loss, metric: of the task.
        encoder: `trained` or `frozen`.
        batch_size: examples of a step.
        epochs: passes over the training rows.
        learning_rate: of the encoder.
        head_learning_rate: of the head.
    """

    structure: str
    loss: str
    metric: str
    encoder: str
    batch_size: int
    epochs: int
    learning_rate: float
    head_learning_rate: float


_TASKS: Mapping[Kind, tuple[str, str, str]] = {
    "yes-no pairs": ("siamese", "cosent", "average_precision"),
    "graded pairs": ("siamese", "cosent", "spearman"),
    "labelled pairs": ("siamese", "cross-entropy", "accuracy"),
    "matching pairs": ("siamese", "multiple-negatives-ranking", "accuracy"),
    "triplets": ("triplet", "multiple-negatives-ranking", "accuracy"),
    "labelled texts": ("single", "cross-entropy", "accuracy"),
}
"""Kind of rows -> structure, loss and the figure that counts."""


def rules_for(kind: Kind, rows: int) -> Rules:
    """Return the settings for a kind of rows and a number of training rows."""
    structure, loss, metric = _TASKS[kind]
    ranking = loss == "multiple-negatives-ranking"
    if kind == "labelled texts" and rows < _FROZEN_BELOW:
        return Rules(structure, loss, metric, "frozen", 16, 10, 5e-5, 1e-3)
    epochs = 4 if rows < 1000 else 3 if rows < 5000 else 2 if rows < 20000 else 1
    batch = (64 if rows >= 1000 else 32) if ranking else (32 if rows >= 500 else 16)
    return Rules(structure, loss, metric, "trained", batch, epochs, 2e-5 if rows < 1000 else 5e-5, 1e-3)


def is_table(name: str) -> bool:
    """Return whether a name is that of a table rather than of a recipe."""
    return name.lower().removesuffix(".gz").endswith(TABLE_SUFFIXES)


def recipe_from_table(
    table: Path,
    output: Path,
    *,
    text_columns: Sequence[str] = (),
    label_column: str | None = None,
    delimiter: str | None = None,
    seed: int = 0,
    on_note: Callable[[str], None] = lambda text: None,  # noqa: ARG005
) -> Path:
    """Write the recipe of a table and its rows beside the output, and return the recipe's path.

    Args:
        table: csv, tsv, jsonl, json or parquet.
        output: the model directory.
        text_columns: the columns of text; empty to find them.
        label_column: the column of labels; None to find it.
        delimiter: the character between the columns of CSV and TSV; None for a comma or a tab.
        seed: of the split.
        on_note: called with each line of what was found.

    Raises:
        UsageError: the columns cannot be told, or the folder beside the output holds something else.
        InputError: the table or a row of it cannot be read, or there are too few rows.
    """
    if not table.is_file():
        raise InputError(f"{table} cannot be opened: it is no file")
    found = read_table_rows(table, text_columns, label_column, delimiter)
    on_note(f"{table}: {found.describe()}")
    for text in row_notes(found.texts, found.labels):
        on_note(text)
    if found.labels is not None and len(set(found.labels)) < 2:
        raise InputError(f"{table}: every row has the same label, {found.labels[0]!r}: two are needed")
    split = split_rows(found.texts, found.labels, seed)
    held = sum(split.dev)
    on_note(
        f"{len(split.dev) - held:,} training rows and {held:,} dev rows, from {split.groups:,} groups that share no text"
    )
    if split.shared:
        on_note(
            f"nearly all rows hang together through {found.text_columns[1]}: {split.shared:,} of its texts are on both sides, "
            f"and no text of {found.text_columns[0]} does"
        )
    output = outputs.with_name(output)
    folder = output.with_name(output.name + SUFFIX)
    rules = rules_for(found.kind, len(split.dev) - held)
    files = {
        TRAIN: _lines(found, split, dev=False),
        DEV: _lines(found, split, dev=True),
        RECIPE: _toml(table, output, found, split, rules, seed).encode(),
    }
    _write(folder, files)
    on_note(f"the recipe, to be run again or edited: {folder / RECIPE}")
    return folder / RECIPE


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files; what is there already must be the same."""
    if folder.exists():
        if not folder.is_dir():
            raise UsageError(f"{folder} is a file: name another output")
        for path in folder.iterdir():
            if any(is_part(path.name, name) for name in files):
                continue
            if path.name not in files or path.read_bytes() != files[path.name]:
                raise UsageError(
                    f"{path} is not what this table gives: train its recipe, delete {folder}, or name another output"
                )
    outputs.make_folder(folder)
    for name, data in files.items():
        write_durably(folder / name, data)


def _lines(found: TableRows, split: Split, *, dev: bool) -> bytes:
    lines = []
    for number, row in enumerate(found.texts):
        if split.dev[number] is dev:
            document: dict[str, Any] = dict(zip(found.text_columns, row, strict=True))
            if found.labels is not None and found.label_column is not None:
                document[found.label_column] = found.labels[number]
            lines.append(json.dumps(document, ensure_ascii=False) + "\n")
    return "".join(lines).encode("utf-8", "surrogatepass")


def score_range(scores: Sequence[float]) -> tuple[float, float]:
    """Return the scale that scores are on: 0 to 1, 0 to 5 or 1 to 5 where they fit it, else their lowest and highest."""
    low, high = min(scores), max(scores)
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    if high <= 5 and low >= 0:
        return (1.0 if low >= 1 and high > 1 else 0.0), 5.0
    return low, high


def _toml(table: Path, output: Path, found: TableRows, split: Split, rules: Rules, seed: int) -> str:
    rows = len(split.dev) - sum(split.dev)
    steps = -(-rows // rules.batch_size) * rules.epochs
    task: dict[str, Any] = {
        "name": _task_name(found),
        "structure": rules.structure,
        "loss": rules.loss,
        "metric": rules.metric,
        "train": TRAIN,
        "dev": DEV,
        "text": list(found.text_columns) if len(found.text_columns) > 1 else found.text_columns[0],
    }
    if found.label_column is not None:
        task["label"] = found.label_column
    if found.kind in ("yes-no pairs", "graded pairs"):
        task["low"], task["high"] = score_range(found.labels or ())
    tables: list[tuple[str, Mapping[str, Any]]] = [
        ("[model]", {"start": DEFAULT_MODEL, "output": f"../{output.name}", "encoder": rules.encoder}),
        ("[train]", {"epochs": rules.epochs, "batch_size": rules.batch_size, "seed": seed}),
        ("[optimizer]", {"learning_rate": rules.learning_rate, "head_learning_rate": rules.head_learning_rate}),
        ("[evaluation]", {**({"every": steps} if steps < _LAST_STEP_BELOW else {}), "keep": "not-worse"}),
        ("[[task]]", task),
    ]
    lines = [
        f"# Made by `sbmini train` from {_value(table.name)}: {found.kind}, {rows} training rows, {sum(split.dev)} dev rows.",
        "# `sbmini recipes show paraphrase` and docs/recipes.md say what else can be set.",
    ]
    for header, keys in tables:
        lines += ["", header, *(f"{name} = {_value(value)}" for name, value in keys.items())]
    return "\n".join(lines) + "\n"


def _task_name(found: TableRows) -> str:
    return {"yes-no pairs": "same", "graded pairs": "similarity", "matching pairs": "search", "triplets": "search"}.get(
        found.kind, "label"
    )


def _value(value: Any) -> str:
    """Return a value as TOML has it."""
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
