"""Texts from files inside Markdown that this package writes: shown as they are, and never as markup.

A model's name, a task, a data set or a file may hold HTML, a pipe, a backtick, a link or a line break.
"""

import re

from sbert_mini.text.shown import shown

_MARKUP = re.compile(r"[\\`|<]|(?<=\])\(|&(?=#?\w+;)|(?<=\bwww)\.|(?<=[A-Za-z]):(?=/)|@", re.IGNORECASE)
_REPLACED = {"<": "&lt;", "&": "&amp;", ".": "&#46;", ":": "&#58;", "@": "&#64;"}
_FENCE = re.compile(r"`{3,}")


def plain(text: str) -> str:
    """Return a text as one line of Markdown that renders as this text: no HTML, code, link, or border of a table cell."""
    line = " ".join(shown(text).splitlines())
    return _MARKUP.sub(lambda match: _REPLACED.get(match[0], f"\\{match[0]}"), line)


def table_cell(text: str) -> str:
    """Return a table's cell in which our own code spans stay; a name in it may at most become a code span too."""
    return plain(text).replace("\\`", "`")


def no_markup(text: str) -> str:
    """Return a line of Markdown of ours, in which names stand, without HTML, links and line breaks."""
    return " ".join(shown(text).splitlines()).replace("<", "&lt;").replace("](", "]\\(")


def code(text: str) -> str:
    """Return a text as a code span; a backtick in it becomes an apostrophe."""
    return f"`{' '.join(shown(text).splitlines()).replace('`', chr(39))}`"


def code_block(text: str, language: str) -> str:
    """Return a text as a fenced block, with a fence that is longer than any in the text."""
    longest = max((len(match) for match in _FENCE.findall(text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{shown(text)}\n{fence}"
