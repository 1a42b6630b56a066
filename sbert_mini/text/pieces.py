"""Texts and pairs -> their word pieces, by native code or by the `tokenizers` library: the same ids."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from tokenizers import Encoding, Tokenizer

from sbert_mini.text.cutting import Cutter
from sbert_mini.text.tokenizer_file import guarded
from sbert_mini.text.tokens import TokenBatch, Tokens, ranges
from sbert_mini.text.wordpiece import NativeWordPiece

_ALL = 2**62
"""No limit."""


class Pieces(Protocol):
    """What tokenizes for one greatest length."""

    def texts(self, texts: Sequence[str]) -> TokenBatch:
        """Return the tokens of each text, special tokens included."""

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> TokenBatch:
        """Return the tokens of each pair, special tokens included."""

    def all_of(self, text: str) -> tuple[list[int], dict[int, str]]:
        """Return all pieces of a text, without special tokens, and the unknown words by their places among them."""


class LibraryPieces:
    """Tokenizes by the `tokenizers` library.

    Args:
        tokenizer: truncates to `max_seq_length`.
        max_seq_length: the longest result in tokens.
        cutter: cuts long texts.
        unknown_id: the id of a word that the vocabulary lacks; -1 for none.
    """

    def __init__(self, tokenizer: Tokenizer, max_seq_length: int, cutter: Cutter, unknown_id: int) -> None:
        self._tokenizer = tokenizer
        self._max_seq_length = max_seq_length
        self._cutter = cutter
        self._unknown_id = unknown_id

    def texts(self, texts: Sequence[str]) -> TokenBatch:
        """Return the tokens of each text."""
        # One text at a time: encode_batch would start threads of its own, beside those that the caller counts.
        return TokenBatch.of([self._text(text) for text in texts])

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> TokenBatch:
        """Return the tokens of each pair."""
        return TokenBatch.of([self._pair(*pair) for pair in pairs])

    def all_of(self, text: str) -> tuple[list[int], dict[int, str]]:
        """Return all pieces of a text."""
        encoded = guarded(self._tokenizer.encode, text, add_special_tokens=False)
        ids: list[int] = []
        unknown: dict[int, str] = {}
        for block in (encoded, *encoded.overflowing):
            unknown |= {len(ids) + position: word for position, word in self._unknown_in(block, text)}
            ids += block.ids
        return ids, unknown

    def _text(self, text: str) -> Tokens:
        read, encoded = self._beginning(text)
        words = tuple(word for _, word in self._unknown_in(encoded, read))
        return Tokens(encoded.ids, encoded.type_ids, bool(encoded.overflowing), words)

    def _pair(self, first: str, second: str) -> Tokens:
        # Each side by itself: for two long sides the library makes all pairs of their parts that do not fit.
        (_, a), (_, b) = (self._beginning(text, special=False) for text in (first, second))
        room = self._max_seq_length - int(guarded(self._tokenizer.num_special_tokens_to_add, True))
        longer = (bool(a.overflowing), bool(b.overflowing))
        truncated = any(longer) or len(a) + len(b) > room
        if truncated:
            share = self._cutter.share(
                (first, second), (len(a), len(b)), longer, room, lambda t: len(self.all_of(t)[0])
            )
            a.truncate(share)
            b.truncate(room - share)
        encoded = guarded(self._tokenizer.post_process, a, b)
        return Tokens(encoded.ids, encoded.type_ids, truncated)

    def _beginning(self, text: str, *, special: bool = True) -> tuple[str, Encoding]:
        """Return a beginning of a text that has all the pieces that are read, and one more if there is one; and its encoding."""
        for read in self._cutter.beginnings(text):
            encoded = guarded(self._tokenizer.encode, read, add_special_tokens=special)
            if encoded.overflowing:
                break
        return read, encoded

    def _unknown_in(self, encoded: Encoding, text: str) -> Iterator[tuple[int, str]]:
        """Yield the words of a text that the vocabulary lacks, normalized, each with its position among the pieces."""
        ids: list[int] = encoded.ids
        if self._unknown_id not in ids:
            return
        offsets, normalizer = encoded.offsets, self._tokenizer.normalizer
        for position, piece in enumerate(ids):
            if piece == self._unknown_id:
                word = text[slice(*offsets[position])]
                yield position, word if normalizer is None else normalizer.normalize_str(word).strip()


class NativePieces:
    """Tokenizes by native code.

    Args:
        wordpiece: the vocabulary and its rules.
        max_seq_length: the longest result in tokens.
        cutter: cuts long texts.
    """

    def __init__(self, wordpiece: NativeWordPiece, max_seq_length: int, cutter: Cutter) -> None:
        self._wordpiece = wordpiece
        self._max_seq_length = max_seq_length
        self._cutter = cutter

    def texts(self, texts: Sequence[str]) -> TokenBatch:
        """Return the tokens of each text."""
        room, longest = self._max_seq_length - 2, self._cutter.longest
        read = [text if len(text) <= longest else self._beginning(text, room) for text in texts]
        return self._wordpiece.encode(read, room)

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> TokenBatch:
        """Return the tokens of each pair."""
        limit, room, rules = self._max_seq_length, self._max_seq_length - 3, self._wordpiece.rules
        pairs = [(first, second) for first, second in pairs]
        read = [self._beginning(side, limit) for pair in pairs for side in pair]
        sides = self._wordpiece.encode(read, limit, special=False)
        keep, longer = sides.lengths.reshape(-1, 2), sides.truncated.reshape(-1, 2)
        truncated = longer.any(axis=1) | (keep.sum(axis=1) > room)
        for i in np.flatnonzero(truncated).tolist():
            pieces, more = tuple(keep[i].tolist()), tuple(longer[i].tolist())
            keep[i, 0] = self._cutter.share(pairs[i], pieces, more, room, lambda t: len(self.all_of(t)[0]))
            keep[i, 1] = room - keep[i, 0]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(keep.sum(axis=1) + 3)])
        ids = np.full(offsets[-1], rules.last, np.int32)
        type_ids = np.zeros(offsets[-1], np.int32)
        starts, seconds = offsets[:-1], offsets[:-1] + keep[:, 0] + 2
        ids[starts] = rules.first
        ids[ranges(starts + 1, keep[:, 0])] = sides.ids[ranges(sides.offsets[:-1:2], keep[:, 0])]
        ids[ranges(seconds, keep[:, 1])] = sides.ids[ranges(sides.offsets[1::2], keep[:, 1])]
        type_ids[ranges(seconds, keep[:, 1] + 1)] = 1
        return TokenBatch(ids, offsets, truncated, type_ids)

    def all_of(self, text: str) -> tuple[list[int], dict[int, str]]:
        """Return all pieces of a text."""
        batch = self._wordpiece.encode([text], _ALL, special=False)
        words = batch.unknown_of(0)
        positions = np.flatnonzero(batch.ids == self._wordpiece.rules.unknown_id).tolist() if words else []
        return batch.ids.tolist(), dict(zip(positions, words, strict=True))

    def _beginning(self, text: str, limit: int) -> str:
        """Return a beginning of a text that has all the pieces that are read, and one more if there is one."""
        if len(text) <= self._cutter.longest:
            return text
        for read in self._cutter.beginnings(text):
            if self._wordpiece.encode([read], limit, special=False).truncated[0]:
                break
        return read


def pieces_of(
    wordpiece: NativeWordPiece | None, tokenizer: Tokenizer, cutter: Cutter, max_seq_length: int, unknown_id: int
) -> Pieces:
    """Return what tokenizes: native code where there is, else the library."""
    if wordpiece is not None:
        return NativePieces(wordpiece, max_seq_length, cutter)
    return LibraryPieces(tokenizer, max_seq_length, cutter, unknown_id)
