"""A text -> its sentences, by rules on punctuation and lines. They are for showing a text, not for computing with it."""

import re
from collections.abc import Iterator

from sbert_mini.text.passages import Span

_END = re.compile(r"""[.!?…]+["'”’»)\]]*(?=\s)|[。！？｡]+[」』”’）]*""")
_LINE = re.compile(r"[^\n]+")
_STARTS = re.compile(r"[ \t]*(?:[-*+•|>]|#{1,6}|\d{1,9}[.)])[ \t]")
_WORD = re.compile(r"\w")
_SHORTENED = re.compile(
    r"(?<![\w°])(?<!° )(?:[^\W\d_]|e\.g|i\.e|cf|vs|etc|al|approx|ca|no|fig|figs|eq|sec|ch|vol|pp|eds|dr|mr|mrs|ms|prof|st|jr)\.$",
    re.IGNORECASE,
)


def sentence_spans(text: str, *, by_line: bool = False) -> list[Span]:
    """Return where the sentences of a text start and end, in characters, without blanks around them.

    A sentence ends with its punctuation, unless an abbreviation stands before it or a small letter after it, and with its
    paragraph, heading or list item. What holds no letter and no digit is none.

    Args:
        text: the text.
        by_line: each line is a sentence, as in source code.
    """
    blocks = (match.span() for match in _LINE.finditer(text)) if by_line else _blocks(text)
    parts = blocks if by_line else (part for block in blocks for part in _parts(text, block))
    return [_trimmed(text, start, end) for start, end in parts if _WORD.search(text, start, end)]


def _blocks(text: str) -> Iterator[Span]:
    """Yield the paragraphs, headings and items of lists."""
    start = end = -1
    for match in _LINE.finditer(text):
        line = match[0]
        follows = end >= 0 and "\n" * (match.start() - end) == "\n" and _STARTS.match(line) is None
        if _WORD.search(line) is None or not follows:
            if start >= 0:
                yield start, end
            start = end = -1
        if _WORD.search(line) is None:
            continue
        start = match.start() if start < 0 else start
        end = match.end()
        if line.startswith("#"):
            yield start, end
            start = end = -1
    if start >= 0:
        yield start, end


def _parts(text: str, block: Span) -> Iterator[Span]:
    start, end = block
    for match in _END.finditer(text, start, end):
        after = text[match.end() : match.end() + 20].lstrip()
        if after[:1].islower() or _SHORTENED.search(text[max(start, match.end() - 12) : match.end()]):
            continue
        yield start, match.end()
        start = match.end()
    if start < end:
        yield start, end


def _trimmed(text: str, start: int, end: int) -> Span:
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), end - len(part) + len(part.rstrip())
