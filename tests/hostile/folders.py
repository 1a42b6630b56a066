"""Hostile folders: documents, ignore files, links, rows with made-up places, and journals of a sync that did not end."""

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.documents.made import image_pdf, text_docx, text_pdf
from tests.native import messages

_PIECES = (
    "# ",
    "## a\n",
    "===\n",
    "```",
    "<p>",
    "<h1",
    "</",
    "&#x10ffff;",
    "def f(",
    "{",
    "\t",
    "*",
    "a" * 999,
    "\n",
    "\ufeff",
    "é",
)
_PATTERNS = ["*" * 9, "*a" * 9, "**/" * 9, "!", "[", "[!", "\\", "a" * 2000, "*.md", "/", "//", "\x00", "[z-a]"]
_SUFFIXES = ("md", "rst", "txt", "py", "c", "csv", "jsonl", "none")


def make(folder: Path, rng: random.Random) -> tuple[str, Callable[[Path], str]]:
    """Return what is hostile, and what reads it."""
    kind = rng.choice(("folder", "folder", "worker", "worker", "place", "journal"))
    if kind == "worker":
        format = rng.choice(("html", "pdf", "docx"))
        data = {"html": _text(rng).encode(), "pdf": text_pdf(["some words", "others"]), "docx": text_docx()}[format]
        data = image_pdf(2) if format == "pdf" and rng.random() < 0.3 else data
        (folder / "document").write_bytes(messages.damage(data, rng) if rng.random() < 0.8 else data)
        return f"{format} of {len(data)} bytes", partial(_use_worker, format=format)
    if kind == "place":
        names = ("synced_from", "file_path", "file_format", "file_encoding", "file_line", "file_places")
        values = [
            "x",
            "html",
            "pdf",
            "code",
            "utf-16",
            "zip",
            7,
            -1,
            None,
            True,
            {"page": [[0, 1], [-5, 2]]},
            {"line": [[1]]},
            [[]],
        ]
        columns = {name: rng.choice(values) for name in names if rng.random() < 0.9}
        (folder / "row.json").write_text(json.dumps({"text": _text(rng), "columns": columns}))
        return f"columns {columns}", _use_place
    if kind == "journal":
        (folder / "index.partial").mkdir()
        (folder / "index.partial" / "passages.bin").write_bytes(messages.damage(b"SBMJRNL1" + rng.randbytes(300), rng))
        return "journal", _use_journal
    docs = folder / "docs"
    docs.mkdir()
    for number in range(rng.randint(1, 5)):
        data = _text(rng).encode("utf-8", "replace")
        (docs / f"{number}.{rng.choice(_SUFFIXES)}").write_bytes(
            messages.damage(data or b"x", rng) if rng.random() < 0.5 else data
        )
    ignore = "\n".join(rng.choice(_PATTERNS) for _ in range(rng.randint(0, 4)))
    (docs / rng.choice((".gitignore", ".sbminiignore"))).write_text(ignore)
    (docs / ("a" * 250)).write_text("long name")
    for name, target in (
        ("out.md", "../../outside/thesis.txt"),
        ("loop", "."),
        ("device.md", "/dev/zero"),
        ("round", "round"),
    ):
        if rng.random() < 0.5:
            (docs / name).symlink_to(target)
    return f"folder, ignoring {ignore!r}", _use_folder


def _text(rng: random.Random) -> str:
    return "".join(rng.choice(_PIECES) * rng.choice((1, 1, 3, 2000)) for _ in range(rng.randint(0, 12)))


def _use_folder(folder: Path) -> str:
    from sbert_mini.documents.ignoring import Globs
    from sbert_mini.documents.outline import outline, parts
    from sbert_mini.documents.places import place_in_row
    from sbert_mini.documents.reader import DocumentReader, failure_of
    from sbert_mini.documents.selection import Folder, select

    docs, none, rows, failures = Folder(folder / "docs", "docs"), Globs((), "--include"), 0, []
    with DocumentReader() as reader:
        for file in select(docs, none, none).files:
            try:
                for record in reader.read(docs, file).records:
                    rows += 1
                    assert "thesis" not in record.text
                    headings = outline(record.text, str(record.columns["file_format"]), file.path)
                    for start, end in parts(record.text, headings):
                        place_in_row(record.text, record.columns, start, end)
            except (OSError, ValueError) as error:
                failures.append(failure_of(error))
    return f"read {rows} rows, {len(failures)} failures"


def _use_worker(folder: Path, format: str) -> str:
    from sbert_mini.documents.worker import answer

    extracted = answer(format, (folder / "document").read_bytes())
    return f"read {len(extracted.text)} characters, {extracted.problem[:40]}"


def _use_place(folder: Path) -> str:
    from sbert_mini.documents.places import place_in_row

    row = json.loads((folder / "row.json").read_text())
    return f"read {place_in_row(row['text'], row['columns'], 0, len(row['text']))!r:.60}"


def _use_journal(folder: Path) -> str:
    from sbert_mini.search.journal import Journal
    from sbert_mini.search.store import ModelIdentity

    journal = Journal(folder / "index", ModelIdentity("m", "f", "int8", 4))
    journal.open()
    journal.close()
    return f"read {len(journal)} records"
