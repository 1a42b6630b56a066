"""How a text from a file is shown to a person: characters that control a terminal or reorder its line are visible.

The rule: what is printed for a person, on a terminal or in a pipe, is escaped here: hits, ids, names of files and models,
notes, errors. What is data is not changed: a csv, jsonl, parquet, txt or npy file, and plain text that `sbmini dedup` writes
into a pipe. JSON on standard output is data too, and is escaped as JSON escapes: whoever parses it gets the same text.

Escaped are the control characters of C0 but tab and line feed, DEL, C1, and Unicode's bidirectional controls (property
Bidi_Control): marks, embeddings, overrides and isolates. A text in Arabic or Hebrew needs none of them to be shown in its order.

Source: Boucher, Anderson: Trojan Source (https://arxiv.org/abs/2111.00169); Unicode Standard Annex 9 (bidirectional controls).
"""

import re

_BIDIRECTIONAL = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_HIDDEN = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_BIDIRECTIONAL}]")
_HIDDEN_IN_JSON = re.compile(f"[\x7f-\x9f{_BIDIRECTIONAL}]")


def shown(text: str) -> str:
    """Return a text with its control characters as `\\x1b` or `\\u202e`; tab and line feed stay.

    A backslash stays too, so the result is for eyes: it cannot be turned back in every case.
    """
    return text if text.isprintable() else _HIDDEN.sub(_escape, text)


def shown_in_line(text: str) -> str:
    """Return a name or an id as it stands in a line of its own: as `shown`, with tab and line feed as `\\t` and `\\n`."""
    return shown(text).replace("\t", "\\t").replace("\n", "\\n")


def shown_json(document: str) -> str:
    """Return a JSON document with the same value, in which the characters that JSON leaves as they are are `\\u202e`."""
    if document.isascii() and "\x7f" not in document:
        return document
    return _HIDDEN_IN_JSON.sub(_escape_in_json, document)


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes: two for a wide character (Chinese, Japanese, Korean, most emoji).

    Source: Unicode Standard Annex 11 (East Asian Width).
    """
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width

    return sum(0 if category(c) in ("Mn", "Me", "Cf") else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def fitted(text: str, width: int) -> str:
    """Return a text that takes at most `width` columns; one that is cut ends in an ellipsis."""
    beginning = text[: 4 * width]  # the whole may be long
    if len(beginning) == len(text) and columns(text) <= width:
        return text
    end = min(len(text), width - 1)
    while columns(text[:end]) > width - 1:
        end -= 1
    return text[:end] + "…"


def wrapped(text: str, width: int) -> list[tuple[int, int]]:
    """Return where the lines of a text start and end, in characters, so that each takes at most `width` columns.

    A line is cut at a blank, else beside a wide character, else within a word. Blanks at a cut belong to no line.

    Args:
        text: of one line.
        width: at least 2.
    """
    lines: list[tuple[int, int]] = []
    start = taken = 0
    cut = -1  # where the line may be cut
    i = 0
    while i < len(text):
        size = columns(text[i])
        if text[i] == " " or (size == 2 and i > start):
            cut = i
        if taken + size > width and text[i] != " ":
            end = cut if text[start : max(cut, start)].strip(" ") else i
            lines.append((start, end - len(text[start:end]) + len(text[start:end].rstrip(" "))))
            start = end + len(text[end : i + 1]) - len(text[end : i + 1].lstrip(" "))
            taken, cut = columns(text[start:i]), -1
        taken += size
        if size == 2:
            cut = i + 1
        i += 1
    if start < len(text) or not lines:
        lines.append((start, start + len(text[start:].rstrip(" "))))
    return lines


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _escape_in_json(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
