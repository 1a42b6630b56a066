"""`sbmini index info`: what an index holds, in words or as JSON."""

import json
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbert_mini.errors import CorruptIndexError

from . import options
from .amounts import amount, size
from .printing import print_json, print_text

if TYPE_CHECKING:
    from sbert_mini.search.index import SearchIndex
    from sbert_mini.search.store import Store

EXAMPLE = """Examples:

  sbmini index info news.index

  sbmini index info news.index --json
"""
WIDTH = 16
_ROWS_READ, _EXAMPLES, _LONGEST = 50, 2, 30
"""Rows of which a column's examples are taken, examples of a column, and characters of an example."""


def info(
    directory: options.IndexDirectory,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object, with numbers as they are and sizes in bytes.")
    ] = False,
) -> None:
    """Describe an index: rows, columns with examples, model, kind of search, size."""
    from sbert_mini.search.index import SearchIndex
    from sbert_mini.search.store import Store

    index, store = SearchIndex(directory), Store(directory)
    if as_json:
        print_json(_values(index, store))
    else:
        print_lines(_words(index, store))


def print_lines(lines: Iterable[tuple[str, str | list[str]]]) -> None:
    """Print labels with what belongs to them, aligned; of several values each has a line."""
    for label, value in lines:
        for number, text in enumerate([value] if isinstance(value, str) else value):
            print_text(f"{'' if number else label:<{WIDTH}}{text}")


def _values(index: "SearchIndex", store: "Store") -> dict[str, Any]:
    """Return what a program reads."""
    from sbert_mini.search.store import stored_bytes

    return {
        "format": store.format_version,
        "made_by": store.made_by,
        "rows": len(index),
        "generation": index.generation,
        "created": index.created,
        **{
            f"model_{key}" if key in ("name", "fingerprint") else key: value
            for key, value in vars(index.model).items()
            if key != "space"
        },
        "kind": index.kind.factory,
        "pca": index.kind.pca,
        "long_texts": index.long_texts.truncation,
        "passage_tokens": index.long_texts.tokens,
        "overlap": index.long_texts.overlap,
        "vectors": index.vectors,
        "segments": index.segments,
        "segment_kinds": index.segment_kinds,
        "columns": index.columns,
        "deleted_rows_kept": index.deleted_rows,
        "bytes": stored_bytes(index.path),
    }


def _words(index: "SearchIndex", store: "Store") -> list[tuple[str, str | list[str]]]:
    """Return what a person reads."""
    from sbert_mini.search.store import WITHOUT_PASSAGES, stored_bytes

    model, rule = index.model, index.long_texts
    held = len(index) + index.deleted_rows
    vectors = f", in {amount(index.vectors, 'vector')}" if index.vectors != held else ""
    components = "" if index.kind.pca is None else f", on {amount(index.kind.pca, 'principal component')}"
    kinds = ", ".join(dict.fromkeys(index.segment_kinds))
    kind = f"{index.kind.factory}{components}" + ("" if kinds == index.kind.factory else f": {kinds}")
    long_texts: str = rule.truncation
    if rule.tokens is not None:
        long_texts = f"passages of {amount(rule.tokens, 'word piece')}, which share {rule.overlap or 0}"
    deleted = ""
    if index.deleted_rows:
        rows = amount(index.deleted_rows, "deleted or replaced row")
        deleted = f", with {rows} that compaction removes"
    number = str(store.format_version)
    if store.format_version < WITHOUT_PASSAGES:
        number += f"; 'sbmini index compact {index.path}' brings it to format {WITHOUT_PASSAGES}"
    return [
        ("rows", f"{amount(len(index), 'row')}{vectors}"),
        ("columns", _columns(index) or "none"),
        ("size", size(stored_bytes(index.path))),
        ("model", f"{model.name} ({model.graph}, {amount(model.dimension, 'component')})"),
        ("prompt", json.dumps(model.prompt, ensure_ascii=False) if model.prompt else "none"),
        ("searched by", kind),
        ("long texts", long_texts),
        ("segments", f"{amount(index.segments, 'segment')}{deleted}"),
        ("generation", f"{index.generation}, of {index.created}, by sbert-mini {store.made_by}"),
        ("format", number),
    ]


def _columns(index: "SearchIndex") -> list[str]:
    """Return a line a column: its name, its type, and some of its values."""
    from sbert_mini.search.columns import converted

    examples: dict[str, list[str]] = {name: [] for name in index.columns}
    damage = []
    try:
        for row in islice(index.rows(), _ROWS_READ):
            for name, value in row.columns.items():
                type = index.columns.get(name)
                typed = None if type is None else converted(value, type)
                text = _example(typed)
                if typed not in (None, "") and text not in examples[name] and len(examples[name]) < _EXAMPLES:
                    examples[name].append(text)
    except (CorruptIndexError, ValueError) as error:
        damage = [f"examples cannot be read: {error}"]
    lines = []
    for name, type in index.columns.items():
        such_as = f", such as {', '.join(examples[name])}" if examples[name] else ""
        shown = name if name.isprintable() else json.dumps(name)
        lines.append(f"{shown} ({type}{such_as})" if type else f"{shown} (no value yet)")
    return lines + damage


def _example(value: Any) -> str:
    """Return a value on one line, shortened."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= _LONGEST:
        return text
    return (
        json.dumps(value[: _LONGEST - 3] + "…", ensure_ascii=False)
        if isinstance(value, str)
        else text[: _LONGEST - 1] + "…"
    )
