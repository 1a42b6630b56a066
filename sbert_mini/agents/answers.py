"""What an agent gets: short answers with places, in which nothing of a row is hidden.

Texts are cut to a size that an answer may have, and the answer says so. Characters that control a terminal or reorder a line
are shown as escapes (`text.shown`), and so are Unicode's tags, which no person sees and a language model reads.

Source: Unicode Standard, block Tags (U+E0000 to U+E007F).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sbert_mini.documents.places import shown_place
from sbert_mini.documents.reader import OWN_COLUMNS
from sbert_mini.search.queries import Hit
from sbert_mini.search.segment import StoredRow
from sbert_mini.text.shown import shown, shown_in_line

ANSWER_CHARACTERS = 20_000
"""Of the texts of one answer."""
HIT_CHARACTERS = 1_500
"""Of the text of one hit."""
_CELL_CHARACTERS = 300
_TAGS = re.compile("[\U000e0000-\U000e007f]")


def safe(text: str) -> str:
    """Return a text in which characters that nobody sees are escapes."""
    return _TAGS.sub(lambda match: f"\\U{ord(match[0]):08x}", shown(text))


def cut(text: str, most: int) -> tuple[str, bool]:
    """Return the beginning of a text, and whether there is more of it."""
    return text[:most], len(text) > most


def hit_answer(hits: Sequence[Hit]) -> tuple[str, list[dict[str, Any]]]:
    """Return hits as lines for a reader, and as JSON."""
    most = min(HIT_CHARACTERS, ANSWER_CHARACTERS // max(len(hits), 1))
    fields, lines = [], []
    for rank, hit in enumerate(hits, start=1):
        place, headings = shown_place(hit.id, hit.text, hit.columns, hit.start, hit.end)
        text, is_cut = cut(hit.passage.strip(), most)
        field = {
            "rank": rank,
            "id": hit.id,
            "place": safe(shown_in_line(place)),
            "score": round(hit.score, 4),
            "text": safe(text),
            "is_cut": is_cut,
        }
        if headings:
            field["headings"] = safe(shown_in_line(headings))
        if columns := _columns(hit.columns):
            field["columns"] = columns
        fields.append(field)
        above = f"  {field['headings']}" if headings else ""
        lines.append(f"{rank}. {field['place']}  ({field['score']}){above}\n{field['text']}{' […]' if is_cut else ''}")
    return "\n\n".join(lines) or "no hits", fields


def row_answer(
    ids: Sequence[str], rows: Sequence[StoredRow | None], start: int, most: int
) -> tuple[str, list[dict[str, Any]]]:
    """Return rows as lines for a reader, and as JSON: of each text `most` characters from `start` on.

    Args:
        ids: that were asked for.
        rows: of these ids; None for one that there is not.
        start: character of a text, from 0.
        most: characters.
    """
    most = min(most, ANSWER_CHARACTERS // max(len(rows), 1))
    fields, lines = [], []
    for identity, row in zip(ids, rows, strict=True):
        if row is None:
            fields.append({"id": identity, "is_there": False})
            lines.append(f"{safe(shown_in_line(identity))}: there is no such row")
            continue
        text = row.text[start : start + most]
        place, _ = shown_place(row.id, row.text, row.columns, start, start + len(text))
        more = start + len(text) < len(row.text)
        field = {
            "id": identity,
            "is_there": True,
            "place": safe(shown_in_line(place)),
            "text": safe(text),
            "start": start,
            "characters": len(row.text),
            **({"next_start": start + len(text)} if more else {}),
            "columns": _columns(row.columns),
        }
        fields.append(field)
        lines.append(f"{field['place']}\n{field['text']}" + (f"\n[… next_start={field['next_start']}]" if more else ""))
    return "\n\n".join(lines), fields


def _columns(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that are the user's own, long values cut."""
    return {safe(name): _cell(value) for name, value in columns.items() if name not in OWN_COLUMNS}


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text, is_cut = cut(value if isinstance(value, str) else repr(value), _CELL_CHARACTERS)
    return safe(text) + ("…" if is_cut else "")
