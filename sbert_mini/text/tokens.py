"""Word pieces of texts: of one (`Tokens`), and of many, side by side in arrays (`TokenBatch`)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, overload

import numpy as np

from sbert_mini.shapes import AnyArray, IntArray


@dataclass(frozen=True)
class Tokens:
    """The word pieces of one text, or of one pair, special tokens included.

    Attributes:
        ids: word-piece ids, at most `max_seq_length`.
        type_ids: segment ids: 0 for the first text and its marks, 1 for the second.
        truncated: whether the text held more tokens than `ids` keeps.
        unknown: of a text, the normalized words among them that the vocabulary lacks, in their order: texts of the same pieces
            differ in these alone. Empty for a pair.
    """

    ids: list[int]
    type_ids: list[int]
    truncated: bool
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnknownWords:
    """The words of several texts that a vocabulary lacks.

    Attributes:
        words: all of them in UTF-8, one after the other.
        ends: where each begins in `words`, and where the last one ends, (words + 1,).
        offsets: where the words of each text begin among all, and their number, (texts + 1,).
    """

    words: bytes
    ends: IntArray
    offsets: IntArray

    def of(self, text: int) -> tuple[str, ...]:
        """Return the words of a text."""
        bounds = self.ends[self.offsets[text] : self.offsets[text + 1] + 1].tolist()
        return tuple(str(self.words[start:end], "utf-8") for start, end in pairwise(bounds))


class TokenBatch(Sequence[Tokens]):
    """The word pieces of several texts or pairs: a sequence of `Tokens` that holds no Python object a token.

    Args:
        ids: word-piece ids of all texts, one after the other, (tokens,).
        offsets: where each text begins, and the number of tokens, (texts + 1,).
        truncated: whether each text has more tokens, (texts,).
        type_ids: segment ids, (tokens,); None where all are 0.
        unknown: the words that the vocabulary lacks; None for none.
    """

    def __init__(
        self,
        ids: AnyArray,
        offsets: IntArray,
        truncated: AnyArray,
        type_ids: AnyArray | None = None,
        unknown: UnknownWords | None = None,
    ) -> None:
        self.ids, self.offsets, self.truncated, self._type_ids, self._unknown = (
            ids,
            offsets,
            truncated,
            type_ids,
            unknown,
        )

    @classmethod
    def of(cls, tokens: Sequence[Tokens]) -> "TokenBatch":
        """Return any tokens side by side; a `TokenBatch` as it is."""
        if isinstance(tokens, TokenBatch):
            return tokens
        ids, types = (
            np.concatenate([np.empty(0, np.int64), *(np.asarray(part, np.int64) for part in parts)])
            for parts in ((t.ids for t in tokens), (t.type_ids for t in tokens))
        )
        unknown = None
        if any(t.unknown for t in tokens):
            words = [word.encode() for t in tokens for word in t.unknown]
            ends, offsets = _offsets([len(word) for word in words]), _offsets([len(t.unknown) for t in tokens])
            unknown = UnknownWords(b"".join(words), ends, offsets)
        truncated = np.array([t.truncated for t in tokens], np.bool_)
        return cls(ids, _offsets([len(t.ids) for t in tokens]), truncated, types if types.any() else None, unknown)

    @property
    def lengths(self) -> IntArray:
        """Tokens of each text, (texts,)."""
        return np.diff(self.offsets)

    @property
    def type_ids(self) -> AnyArray:
        """Segment ids of all texts, one after the other, (tokens,)."""
        return np.zeros_like(self.ids) if self._type_ids is None else self._type_ids

    def counts_of(self, piece: int) -> IntArray:
        """Return how often a piece occurs in each text, (texts,)."""
        before = np.concatenate([[0], np.cumsum(self.ids == piece)])
        return np.diff(before[self.offsets])

    def unknown_of(self, position: int) -> tuple[str, ...]:
        """Return the unknown words of a text."""
        return () if self._unknown is None else self._unknown.of(position)

    def take(self, positions: IntArray) -> "TokenBatch":
        """Return the texts at some positions, in their order, without the unknown words."""
        lengths = self.lengths[positions]
        index = ranges(self.offsets[positions], lengths)
        types = None if self._type_ids is None else self._type_ids[index]
        return TokenBatch(self.ids[index], _offsets(lengths), self.truncated[positions], types)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> Tokens: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tokens]: ...
    def __getitem__(self, index: int | slice) -> Tokens | list[Tokens]:
        """Return the tokens of a text, or of several."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        start, end = int(self.offsets[position]), int(self.offsets[position + 1])
        types = [0] * (end - start) if self._type_ids is None else self._type_ids[start:end].tolist()
        return Tokens(self.ids[start:end].tolist(), types, bool(self.truncated[position]), self.unknown_of(position))

    def __iter__(self) -> Iterator[Tokens]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: Any) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"TokenBatch({len(self)} texts, {len(self.ids)} tokens)"


def ranges(starts: IntArray, lengths: IntArray) -> IntArray:
    """Return the numbers from each start on, as many as its length, one range after the other, (sum of lengths,)."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)


def _offsets(lengths: Sequence[int] | IntArray) -> IntArray:
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64))]).astype(np.int64)
