"""Long texts -> passages: parts that a model reads whole, cut at the borders of paragraphs, sentences or words."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from sbert_mini.errors import UsageError
from sbert_mini.text.tokenizer import TextTokenizer
from sbert_mini.text.words import is_silent

OVERLAP = 0
"""Tokens that a passage repeats of the one before, unless the caller names another number (EXPERIMENTS.md)."""
LEAST_TOKENS = 2
_TOKENS_A_CHARACTER = 4
"""The most pieces that a character can give: Unicode's decomposition makes at most four characters of one."""
_ALL = 1 << 30
_BLOCK = 20_000
"""Characters that the splitter is given at a time."""
_SHORT = 0.5
"""A passage of a smaller share of the size is short."""
_HALF = 0.6
"""The share of two passages that the first may have where they are cut near their middle."""
Span: TypeAlias = tuple[int, int]
"""Where a part of a text starts and ends, in characters."""


@dataclass(frozen=True)
class PassageSize:
    """How long texts are split.

    Attributes:
        tokens: the most word pieces of a passage, without special tokens and prompt.
        overlap: the most word pieces that a passage repeats of the one before; none every 20,000 characters, where a long text
            is divided first.
    """

    tokens: int
    overlap: int


def passage_size(tokenizer: TextTokenizer, prompt: str, tokens: int | None, overlap: int | None) -> PassageSize:
    """Return the size of passages for a model.

    Args:
        tokenizer: of the model.
        prompt: put before each passage.
        tokens: the most word pieces of a passage; None for as many as the model reads.
        overlap: word pieces that passages share; None for `OVERLAP`.

    Raises:
        UsageError: a passage of so many tokens does not fit the model, or the overlap does not fit the passage.
    """
    room = tokenizer.max_seq_length - len(tokenizer.encode([prompt])[0].ids)
    if room < LEAST_TOKENS:
        raise UsageError(f"the prompt leaves room for {room} tokens of a passage; at least {LEAST_TOKENS} are needed")
    size = room if tokens is None else tokens
    if not LEAST_TOKENS <= size <= room:
        raise UsageError(
            f"passage_tokens must be from {LEAST_TOKENS} to {room}, which the model reads beside its special tokens and the "
            f"prompt; found {size}",
            "passage_tokens",
        )
    shared = OVERLAP if overlap is None else overlap
    if not 0 <= shared <= size // 2:
        raise UsageError(
            f"the overlap must be from 0 to {size // 2} tokens, half of a passage; found {shared}", "the overlap"
        )
    return PassageSize(size, shared)


def _blocks(text: str, span: Span) -> Iterator[Span]:
    """Yield consecutive parts of a part of a text, of at most `_BLOCK` characters, cut at a paragraph, a sentence or a blank.

    The splitter's time grows faster than the length of a text without sentences. Passages of two blocks share no tokens.
    """
    start, end = span
    while end - start > _BLOCK:
        stop = start + _BLOCK
        for border in ("\n\n", "\n", ". ", " "):
            at = text.rfind(border, start + _BLOCK // 2, stop)
            if at >= 0:
                stop = at + len(border)
                break
        yield start, stop
        start = stop
    yield start, end


class PassageSplitter:
    """Splits texts into passages of at most so many word pieces.

    A passage holds as many paragraphs as fit, else as many sentences, else words; blanks at its ends are left out, and so are
    passages of which nothing can be read. A text that fits is one passage: all of it. A short passage, such as a heading or the
    end of a text, says little by itself: it is joined with its neighbour, or the two are cut near their middle.

    Args:
        tokenizer: of the model; it counts the word pieces.
        size: of the passages.
    """

    def __init__(self, tokenizer: TextTokenizer, size: PassageSize) -> None:
        self.size = size
        self._tokenizer = tokenizer

    def __repr__(self) -> str:
        return f"PassageSplitter(tokens={self.size.tokens}, overlap={self.size.overlap})"

    def spans(self, text: str) -> list[Span]:
        """Return where each passage of a text starts and ends, in characters; the starts ascend."""
        whole = [(0, len(text))]
        if self._fits(text):
            return whole
        spans: list[Span] = []
        for span in self._cut(text, (0, len(text)), self.size.tokens):
            last = spans[-1:]
            spans[-1:] = self._joined(text, last[0], span) if last else [span]
        return spans if len(spans) > 1 else whole

    def spans_in_parts(self, text: str, parts: Sequence[Span]) -> list[Span]:
        """Return the passages of a text, none of which crosses the border of two parts.

        Args:
            text: the text.
            parts: of the text, ascending. Blanks at the ends of a part are left out, and parts of which nothing can be read.
        """
        if len(parts) < 2:
            return self.spans(text)
        spans: list[Span] = []
        for start, end in parts:
            part = text[start:end]
            first = start + len(part) - len(part.lstrip())
            if not is_silent(part):
                spans += [(first + s, first + e) for s, e in self.spans(part.strip())]
        return spans or [(0, len(text))]

    def _cut(self, text: str, span: Span, tokens: int) -> list[Span]:
        """Return consecutive passages of a part of a text, of at most so many word pieces."""
        from semantic_text_splitter import TextSplitter

        splitter = TextSplitter.from_callback(self._count, tokens, overlap=min(self.size.overlap, tokens // 2))
        return [
            (first + start, first + start + len(passage))
            for first, last in _blocks(text, span)
            for start, passage in splitter.chunk_indices(text[first:last])
            if not is_silent(passage)
        ]

    def _joined(self, text: str, first: Span, second: Span) -> list[Span]:
        """Return two consecutive passages, or, where one of them is short, one or two others in their place."""
        shorter = min(self._count(text[slice(*span)]) for span in (first, second))
        if shorter >= _SHORT * self.size.tokens:
            return [first, second]
        both = (first[0], second[1])
        tokens = self._count(text[slice(*both)])
        if tokens <= self.size.tokens:
            return [both]
        halves = self._cut(text, both, min(math.ceil(_HALF * tokens), self.size.tokens))
        return halves if len(halves) == 2 else [first, second]

    def _count(self, text: str) -> int:
        return len(self._counter.encode([text])[0].ids) - self._tokenizer.special_tokens()

    def _fits(self, text: str) -> bool:
        pieces = len(text) * (1 if text.isascii() else _TOKENS_A_CHARACTER)
        return pieces <= self.size.tokens or not self._shortened.encode([text])[0].truncated

    @cached_property
    def _shortened(self) -> TextTokenizer:
        """Tells whether a text is longer than a passage, without reading the rest of it."""
        return self._tokenizer.with_max_seq_length(self.size.tokens + self._tokenizer.special_tokens())

    @cached_property
    def _counter(self) -> TextTokenizer:
        return self._tokenizer.with_max_seq_length(_ALL)
