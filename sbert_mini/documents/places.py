"""Where a passage of a row stands in the file that the row was made from."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sbert_mini.documents import reader
from sbert_mini.documents.outline import outline, trail
from sbert_mini.errors import CorruptIndexError
from sbert_mini.files.json_files import DOCUMENT_COLUMNS
from sbert_mini.files.json_schema import check
from sbert_mini.search.queries import Hit

_WITH_MARK = {"utf-8-sig": 3, "utf-16": 2, "utf-32": 4}
"""Encodings with a byte order mark -> its bytes."""


@dataclass(frozen=True)
class Place:
    """Where a passage stands.

    Attributes:
        path: the file's, below the folder that was synced.
        headings: the titles, or definitions, above it, from the outermost.
        first_line, last_line: in the file, from 1; None where the format has no lines.
        first_byte, end_byte: where it starts, and the byte after its last one; None where its text was extracted.
        page: of a PDF, from 1.
    """

    path: str
    headings: tuple[str, ...] = ()
    first_line: int | None = None
    last_line: int | None = None
    first_byte: int | None = None
    end_byte: int | None = None
    page: int | None = None


def place_of(hit: Hit) -> Place | None:
    """Return where a hit's passage stands; None for a row that no sync made."""
    return place_in_row(hit.text, hit.columns, hit.start, hit.end)


def hit_fields(rank: int, hit: Hit, *, with_text: bool = True, passages: bool = False) -> dict[str, Any]:
    """Return a hit as JSON holds it: its fields, its rank, and its place where it has one.

    Args:
        rank: of the hit, from 1.
        hit: the hit.
        with_text: whether its text and columns are there.
        passages: the passage that is closest to the query in place of the text; it has the place of the text.
    """
    without = set() if with_text else {"text", "columns", "start", "end"}
    fields = {name: value for name, value in vars(hit).items() if name not in without}
    if passages:
        fields = {"passage" if name == "text" else name: value for name, value in fields.items()}
        fields["passage"] = hit.passage
    if with_text and "file_path" in hit.columns and (place := place_of(hit)) is not None:
        fields["place"] = vars(place)
    return {"rank": rank, **fields}


def shown_place(identity: str, text: str, columns: Mapping[str, Any], start: int, end: int) -> tuple[str, str]:
    """Return where a part of a row stands, as `path:line` or `path  page 3`, and its headings; without a file the row's id.

    The path begins with the folder as the sync named it. Arguments as in `place_in_row`.
    """
    place = place_in_row(text, columns, start, end) if "file_path" in columns else None
    if place is None:
        return identity, ""
    file = identity
    for sign in (
        ("#", ":") if columns.get(reader.LINE) is not None else ()
    ):  # the id of a table's row names its file first
        if (at := identity.find(place.path + sign)) >= 0:
            file = identity[: at + len(place.path)]
            break
    line = f":{place.first_line}" if place.first_line is not None else ""
    return f"{file}{line}" + (f"  page {place.page}" if place.page is not None else ""), " > ".join(place.headings)


def place_in_row(text: str, columns: Mapping[str, Any], start: int, end: int) -> Place | None:
    """Return where a part of a row's text stands in its file; None for a row that no sync made.

    Args:
        text: of the row.
        columns: of the row. Anybody may have written them: where they do not fit `DOCUMENT_COLUMNS`, there is no place.
        start: of the part, in characters.
        end: of the part.
    """
    try:
        check(dict(columns), DOCUMENT_COLUMNS, Path("columns"), CorruptIndexError)
    except CorruptIndexError:
        return None
    path, format = str(columns[reader.PATH]), str(columns[reader.FORMAT])
    line = columns.get(reader.LINE)
    if line is not None:  # a row of a table
        return Place(path, first_line=line, last_line=line)
    end -= len(text[start:end]) - len(text[start:end].rstrip())
    headings = trail(text, outline(text, format, path), start, end)
    if format in ("pdf", "docx", "html"):
        first, last = _noted(columns.get(reader.PLACES), "page" if format == "pdf" else "line", start, end)
        if format == "pdf":
            return Place(path, headings, page=first)
        return Place(path, headings, first, last)
    first = 1 + text.count("\n", 0, start)
    first_byte, end_byte = _bytes(text, columns.get(reader.ENCODING), start, end)
    return Place(path, headings, first, first + text.count("\n", start, end), first_byte, end_byte)


def _noted(places: Mapping[str, Any] | None, unit: str, start: int, end: int) -> tuple[int | None, int | None]:
    """Return the lines or pages in which extracted text starts and ends."""
    pairs = places.get(unit) if places else None
    if not pairs:
        return None, None
    starts = [pair[0] for pair in pairs]
    first, last = (max(bisect_right(starts, at) - 1, 0) for at in (start, max(end - 1, start)))
    return pairs[first][1], pairs[last][1]


def _bytes(text: str, encoding: object, start: int, end: int) -> tuple[int | None, int | None]:
    """Return where characters start and end in the file's bytes."""
    if not isinstance(encoding, str):
        return None, None
    mark = _WITH_MARK.get(encoding, 0)
    plain = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(encoding, encoding)
    try:
        before = len(text[:start].encode(plain))
        return mark + before, mark + before + len(text[start:end].encode(plain))
    except (LookupError, UnicodeError, TypeError, AttributeError):
        return None, None
