"""What every command prints goes through here: to a person, text with visible control characters (`text.shown`)."""

import json
import os
import sys
from collections.abc import Iterable
from typing import Any

from sbert_mini.text.shown import shown, shown_in_line, shown_json

_raw = False


def set_raw(raw: bool) -> None:
    """Print texts as they are from now on (`--raw`), or escaped."""
    global _raw  # noqa: PLW0603
    _raw = raw


def visible(text: str) -> str:
    """Return a text as it is printed for a person."""
    return text if _raw else shown(text)


def in_colours() -> bool:
    """Return whether standard output is a terminal that takes colours, and nobody asked for none (NO_COLOR)."""
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


def visible_in_line(text: str) -> str:
    """Return a name or an id as it is printed for a person, on one line whatever stands in it."""
    return text if _raw else shown_in_line(text)


def print_text(text: str = "", *, end: str = "\n", flush: bool = False) -> None:
    """Print a text for a person on standard output."""
    print(visible(text), end=end, flush=flush)


def print_styled(pieces: Iterable[tuple[str, str]]) -> None:
    """Print a line for a person, of texts with the parameters of their style on a terminal ("1;33"), "" for none."""
    print(
        "".join(f"\x1b[{style}m{visible(text)}\x1b[0m" if style and text else visible(text) for text, style in pieces)
    )


def print_error(text: str) -> None:
    """Print a text on standard error."""
    print(visible(text), file=sys.stderr)


def json_text(document: str) -> str:
    """Return a JSON document as it is printed: the same value."""
    return document if _raw else shown_json(document)


def print_json(value: Any, *, flush: bool = False) -> None:
    """Print a value as one line of JSON on standard output."""
    print(json_text(json.dumps(value, ensure_ascii=False)), flush=flush)
