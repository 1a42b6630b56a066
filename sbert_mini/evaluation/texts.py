"""Texts to measure speed and search on: a file's, a data folder's, or the passages that travel with the package."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from sbert_mini.text.records import read_records

QUESTIONS, QUESTION_COLUMN = "quora_cs224n_dev.tsv.gz", "question1"
"""The file of Quora questions in a data folder, and the column of its texts."""
SENTENCES = "sentences_wikipedia_1.txt.gz"
"""The file of Wikipedia sentences in a data folder."""


def read_texts(
    count: int, files: Sequence[Path] | None = None, file: Path | None = None, column: str | None = None
) -> list[str]:
    """Return at most `count` texts of `files`, else of `file` where it exists, else the sentences of the package's passages.

    Args:
        count: the most texts.
        files: files that the user names.
        file: a file of a data folder.
        column: of its texts; None where it is plain text.

    Raises:
        InputError: a file cannot be read.
    """
    if files:
        records = read_records(files)
    elif file is not None and file.is_file():
        records = read_records(file, text_column=column)
    else:
        records = read_records(Path(__file__).parents[1] / "examples" / "collection.jsonl")
        return [s for r in records for s in r.text.replace("? ", ". ").split(". ") if s][:count]
    return [record.text for record in itertools.islice(records, count)]
