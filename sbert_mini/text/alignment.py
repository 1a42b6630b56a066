"""Tokens of a text -> the words that they are pieces of, and where these stand in the text."""

from dataclasses import dataclass

from sbert_mini.text.cutting import Cutter
from sbert_mini.text.passages import Span
from sbert_mini.text.tokenizer import TextTokenizer
from sbert_mini.text.tokenizer_file import guarded
from sbert_mini.text.tokens import Tokens


@dataclass(frozen=True)
class TokenWord:
    """A word as a tokenizer splits texts: letters and digits in a row, a punctuation mark, or a special token.

    Attributes:
        span: where it starts and ends in the text, in characters; None for a special token.
        name: of a special token, such as `[CLS]`; else "".
        first: its first token.
    """

    span: Span | None
    name: str
    first: int


@dataclass(frozen=True)
class Alignment:
    """A text's tokens and the words that they are pieces of.

    Attributes:
        tokens: as `TextTokenizer.encode` gives them.
        words: in their order; each has the tokens from its first one to the next word's.
    """

    tokens: Tokens
    words: tuple[TokenWord, ...]


def aligned(text: str, tokenizer: TextTokenizer) -> Alignment:
    """Return the tokens of a text, `[CLS] text [SEP]`, and its words; of a text that is too long those of what is read."""
    backend = tokenizer.backend
    for read in Cutter(backend, tokenizer.max_seq_length).beginnings(text):
        encoded = guarded(backend.encode, read)
        if encoded.overflowing:
            break
    words: list[TokenWord] = []
    before: int | None = None
    for position, (word, span, name) in enumerate(zip(encoded.word_ids, encoded.offsets, encoded.tokens, strict=True)):
        if word is None:
            words.append(TokenWord(None, name, position))
        elif word != before:
            words.append(TokenWord(span, "", position))
        else:
            start, _ = words[-1].span or span
            words[-1] = TokenWord((start, span[1]), "", words[-1].first)
        before = word
    return Alignment(Tokens(encoded.ids, encoded.type_ids, bool(encoded.overflowing)), tuple(words))
