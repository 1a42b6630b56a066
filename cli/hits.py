"""How hits are printed: JSON, lines of fields, or readably on a terminal."""

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from sbert_mini.text.shown import columns, fitted, wrapped

from .explain import pair_fields, pairs_in_line
from .printing import print_json, print_styled, print_text, visible, visible_in_line

if TYPE_CHECKING:
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.runtime.explanation import Explanation
    from sbert_mini.search.excerpts import Excerpt
    from sbert_mini.search.queries import Hit
    from sbert_mini.shapes import FloatArray
    from sbert_mini.text.passages import Span

Explained: TypeAlias = "Callable[[str, list[Hit]], Sequence[Explanation]]"
"""Returns why a query found its hits."""
Query = tuple[str | None, str]
"""A query's id, None where it has none, and its text."""
_INDENT = 4
_NARROWEST = 20
_TAB = 4
_PAIRS = 5
"""Pairs of words that are shown of a hit with --explain."""
_PATH, _DIM, _CLOSEST, _WORD, _WORD_IN_CLOSEST = "36", "2", "1", "33", "1;33"
"""Styles: cyan, faint, bold, yellow, bold yellow."""


@dataclass(frozen=True)
class Layout:
    """What is printed of a hit.

    Attributes:
        format: `json`, `jsonl`, `fields` or `readable`.
        with_text: whether its text and columns are.
        passages: the passage that is closest to the query in place of the text.
        full: readable: all of the text, in place of the closest sentences.
        columns: names of columns.
        coloured: readable: in colours.
        by_words: readable: sentences with more words of the query are closer to it.
    """

    format: str
    with_text: bool
    passages: bool
    full: bool
    columns: tuple[str, ...]
    coloured: bool
    by_words: bool
    explain: bool = False


def print_fields(queries: Sequence[Query], results: "list[list[Hit]]", layout: Layout, *, several: bool) -> None:
    """Print a line of fields, tab separated, for each hit; with `several` queries it begins with the query."""
    with_ids = any(identity is not None for identity, _ in queries)
    for (identity, query), hits in zip(queries, results, strict=True):
        named = _named(identity, query, with_ids=with_ids, several=several)
        for hit in hits:
            texts = ([hit.passage if layout.passages else hit.text] if layout.with_text else []) + [
                _value(hit.columns.get(name)) for name in layout.columns
            ]
            print_text("\t".join([*map(_escape, named), f"{hit.score:.4f}", *map(_escape, [hit.id, *texts])]))


def answers(
    queries: Sequence[Query], results: "list[list[Hit]]", layout: Layout, explained: "Explained | None" = None
) -> list[dict[str, object]]:
    """Return a JSON object a query, with the query's id where queries have ids; with `explained` hits say why they were found."""
    from sbert_mini.documents.places import hit_fields

    with_ids = any(identity is not None for identity, _ in queries)
    shown = {"with_text": layout.with_text, "passages": layout.passages}
    return [
        {
            **({"query_id": identity} if with_ids else {}),
            "query": text,
            "hits": [
                {**hit_fields(rank, hit, **shown), **why}
                for rank, (hit, why) in enumerate(_with_reasons(text, hits, explained), 1)
            ],
        }
        for (identity, text), hits in zip(queries, results, strict=True)
    ]


def _with_reasons(
    query: str, hits: "list[Hit]", explained: "Explained | None"
) -> "Iterable[tuple[Hit, dict[str, Any]]]":
    """Return each hit with what JSON says of why it was found."""
    if explained is None:
        return [(hit, {}) for hit in hits]
    reasons = [
        {
            "cosine": reason.cosine,
            "special_share": reason.special_share,
            "pairs": list(map(pair_fields, reason.pairs(_PAIRS))),
        }
        for reason in explained(query, hits)
    ]
    return [(hit, {"explanation": reason}) for hit, reason in zip(hits, reasons, strict=True)]


def print_answers(
    queries: Sequence[Query], results: "list[list[Hit]]", layout: Layout, explained: "Explained | None" = None
) -> None:
    """Print a JSON object a query, in lines."""
    for answer in answers(queries, results, layout, explained):
        print_json(answer)


def print_readably(
    queries: Sequence[Query],
    results: "list[list[Hit]]",
    layout: Layout,
    *,
    several: bool,
    embedder: "Embedder | None",
    vector: "FloatArray | None" = None,
    explained: "Explained | None" = None,
) -> None:
    """Print each hit in some lines, wrapped to the terminal: rank, score, place and headings, and its closest sentences.

    Args:
        queries: the queries.
        results: the hits of each.
        layout: what is printed.
        several: whether each query is printed before its hits.
        embedder: the model, which finds the closest sentences; None where no text is printed.
        vector: of the only query, where it is no text, (dim,).
        explained: returns why a query found its hits; None where that is not shown.
    """
    with_ids = any(identity is not None for identity, _ in queries)
    for i, ((identity, query), hits) in enumerate(zip(queries, results, strict=True)):
        if named := _named(identity, query, with_ids=with_ids, several=several):
            before = "\n" if i else ""
            print_styled([(before + visible_in_line("  ".join(named).strip()), _DIM if layout.coloured else "")])
        if not hits:
            print_text("no hits")
            continue
        excerpts: Sequence[Excerpt | None] = [None] * len(hits)
        words = None
        if embedder is not None:
            from sbert_mini.search.excerpts import QueryWords
            from sbert_mini.search.excerpts import excerpts as excerpts_of

            of_query = embedder.encode_query(query) if vector is None else vector
            words = QueryWords(query if vector is None else "")
            excerpts = excerpts_of(hits, of_query, embedder, words if layout.by_words else None)
        reasons = [None] * len(hits) if explained is None else explained(query, hits)
        for rank, (hit, excerpt, reason) in enumerate(zip(hits, excerpts, reasons, strict=True), start=1):
            _print_hit(rank, hit, excerpt, layout, words)
            if reason is not None:
                room = max(shutil.get_terminal_size().columns - _INDENT, _NARROWEST)
                line = visible_in_line(pairs_in_line(reason.pairs(_PAIRS, special=False)))
                _print([(" " * _INDENT + fitted(line, room), _DIM)], layout)


def _print_hit(rank: int, hit: "Hit", excerpt: "Excerpt | None", layout: Layout, words: Any) -> None:
    width = shutil.get_terminal_size().columns
    place, headings = map(visible_in_line, _place(hit, excerpt))
    start = f"{rank:2d} {hit.score:7.4f}  "
    pieces = [(start, ""), (place, _PATH)]
    room = width - columns(start + place) - 2
    if headings and columns(headings) <= room:
        pieces.append(("  " + headings, _DIM))
        headings = ""
    _print(pieces, layout)
    if headings:
        _print([(" " * _INDENT + fitted(headings, max(width - _INDENT, _NARROWEST)), _DIM)], layout)
    room = max(width - _INDENT, _NARROWEST)
    if excerpt is not None and layout.full:
        for part in _lines(hit, (hit.start, hit.end) if layout.passages else (0, len(hit.text))):
            _print_part(hit, part, excerpt, words, room, layout)
    elif excerpt is not None:
        for part in excerpt.sentences:
            _print_part(hit, part, excerpt, words, room, layout)
    for name in layout.columns if layout.with_text else ():
        text = visible(f"{name}: {_value(hit.columns.get(name))}".replace("\n", " ").replace("\t", " "))
        for first, end in wrapped(text, room):
            _print([(" " * _INDENT + text[first:end], _DIM)], layout)


def _print_part(hit: "Hit", part: "Span", excerpt: "Excerpt", words: Any, width: int, layout: Layout) -> None:
    """Print a sentence or a line, in as many lines as it takes; those of the closest sentence have a mark before them."""
    text = hit.text[slice(*part)]
    first, end = (at - part[0] for at in excerpt.closest)
    styles = [_CLOSEST if first <= i < end else "" for i in range(len(text))]
    for start, stop in words.spans(text):
        styles[start:stop] = [_WORD_IN_CLOSEST if style else _WORD for style in styles[start:stop]]
    cells: list[tuple[str, str, bool]] = []
    for i, (character, style) in enumerate(zip(text, styles, strict=True)):
        is_closest = first <= i < end
        if character == "\t" and layout.full:
            cells += [(" ", "", is_closest)] * (_TAB - len(cells) % _TAB)
        elif character.isspace() and not layout.full:
            if not cells or cells[-1][0] != " ":
                cells.append((" ", style, is_closest))
        else:
            cells += [(shown, style, is_closest) for shown in visible(character)]
    for start, stop in wrapped("".join(cell[0] for cell in cells), width):
        line = cells[start:stop]
        mark = ">" if any(is_closest for _, _, is_closest in line) else " "
        _print([(f"  {mark} " if line else "", ""), *((character, style) for character, style, _ in line)], layout)


def _print(pieces: list[tuple[str, str]], layout: Layout) -> None:
    """Print a line, neighbours of one style together."""
    joined: list[tuple[str, str]] = []
    for text, style in pieces:
        named = style if layout.coloured else ""
        if joined and joined[-1][1] == named:
            joined[-1] = (joined[-1][0] + text, named)
        else:
            joined.append((text, named))
    print_styled(joined)


def _lines(hit: "Hit", span: "Span") -> "list[Span]":
    """Return where the lines of a part of a hit's text start and end."""
    start, lines = span[0], []
    for line in hit.text[slice(*span)].rstrip().split("\n"):
        lines.append((start, start + len(line)))
        start += len(line) + 1
    return lines


def _place(hit: "Hit", excerpt: "Excerpt | None") -> tuple[str, str]:
    """Return where a hit's closest sentence stands, as `path:line`, and its headings; of a row without a file its id."""
    from sbert_mini.documents.places import shown_place

    start, end = (hit.start, hit.end) if excerpt is None else excerpt.closest
    return shown_place(hit.id, hit.text, hit.columns, start, end)


def _named(identity: str | None, query: str, *, with_ids: bool, several: bool) -> list[str]:
    """Return what names a query before its hits."""
    return ([identity or ""] if with_ids else []) + ([query] if with_ids or several else [])


def _value(value: Any) -> str:
    from sbert_mini.text.rows import cell

    return cell(value)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
