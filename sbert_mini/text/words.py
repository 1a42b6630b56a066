"""What distinguishes a text for a model: its word pieces, and the words that the vocabulary lacks."""

import unicodedata
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """What a model reads of a text.

    All words that a vocabulary lacks are one piece, so that a model takes "I love 🎉" and "I love 😡" for the same text.

    Attributes:
        pieces: the ids of the text's pieces, without special tokens and the prompt's.
        unknown: the normalized words among them that the vocabulary lacks, in their order.
    """

    pieces: tuple[int, ...]
    unknown: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing of the text is read."""
        return not self.pieces

    @property
    def _mostly_unknown(self) -> bool:
        return 2 * len(self.unknown) > len(self.pieces)

    def may_repeat(self, other: "Words") -> bool:
        """Return whether a cosine near 1 may mean that two texts say the same.

        Not so where either holds a word that the model does not know and the other lacks: the model takes the one for the other.
        Texts of the same pieces must have the same unknown words in the same order: then their normalized characters are equal.
        So must texts that are mostly unknown words, of which the cosine knows too little. And a text of which nothing is read is
        like no other.
        """
        if self.empty or other.empty:
            return False
        if self.unknown == other.unknown:
            return True
        if self.pieces == other.pieces or self._mostly_unknown or other._mostly_unknown:
            return False
        ours, theirs = Counter(self.unknown), Counter(other.unknown)
        return not (ours - theirs and theirs - ours)


def is_silent(text: str) -> bool:
    """Return whether a text holds nothing that can be read: blanks, marks, control, format and private-use characters alone.

    Each text that BERT's tokenizer leaves no piece of is one of these. No model is needed to see it.
    """
    for character in text:
        category = unicodedata.category(character)
        if category == "Cn" or (category[0] not in "CZM" and character != "\ufffd"):
            return False
    return True
