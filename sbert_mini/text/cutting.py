"""How much of a text is tokenized, and how much of each side of a pair is kept."""

from collections.abc import Callable, Iterator
from functools import cached_property

from tokenizers import Tokenizer

from sbert_mini.text.borders import Borders

_CHARACTERS_PER_TOKEN = 16
"""A text of more than this many characters a token is first cut to a prefix: word pieces of 16 characters are rare."""
_SHORTEST_CUT = 8192
_PART = 16_384
"""Characters of a long text that are tokenized at a time, where all of it is."""
_COMPARED = 200_000
"""Where both texts of a pair hold more characters than that, their pieces are not counted to tell which is longer."""


class Cutter:
    """Cuts long texts and pairs for one tokenizer: what truncation throws away is not tokenized.

    Args:
        tokenizer: the tokenizer.
        max_seq_length: the longest result in tokens.
    """

    def __init__(self, tokenizer: Tokenizer, max_seq_length: int) -> None:
        self._tokenizer = tokenizer
        self.longest = max(max_seq_length * _CHARACTERS_PER_TOKEN, _SHORTEST_CUT)
        """A text of more characters than that is cut."""

    @cached_property
    def _borders(self) -> Borders:
        return Borders(self._tokenizer)

    def parts(self, text: str) -> Iterator[str]:
        """Yield consecutive parts of a text, whose pieces joined are those of the text."""
        return self._borders.parts(text, _PART)

    def beginnings(self, text: str) -> Iterator[str]:
        """Yield beginnings of a text, each several times as long as the one before; the last one has all its pieces.

        Tokenizing a text of many megabytes costs seconds and memory for pieces that truncation throws away.
        """
        if len(text) <= self.longest:
            yield text
            return
        beginning, length, due = [], 0, 0
        for part in self._borders.parts(text, self.longest):
            beginning.append(part)
            length += len(part)
            if length >= due:
                yield "".join(beginning)
                due = 4 * length
        yield "".join(beginning)

    def share(
        self,
        texts: tuple[str, str],
        pieces: tuple[int, int],
        longer: tuple[bool, bool],
        room: int,
        count: Callable[[str], int],
    ) -> int:
        """Return how many pieces the first side of a pair keeps, where both do not fit.

        The shorter side keeps all of its pieces, up to half of the room. Of an odd room the longer side has one more, and of
        equal ones the second.

        Args:
            texts: both sides.
            pieces: of each side, as far as they were counted.
            longer: whether each side has more than that.
            room: pieces that both may have.
            count: returns the number of a text's pieces.
        """
        if not longer[1] and pieces[1] <= room // 2:
            return room - pieces[1]
        if not longer[0] and pieces[0] <= room // 2:
            return pieces[0]
        if not room % 2:
            return room // 2
        if all(longer):
            return room // 2 + self._holds_more(*texts, count)
        return room // 2 + (longer[0] or (not longer[1] and pieces[0] > pieces[1]))

    def _holds_more(self, first: str, second: str, count: Callable[[str], int]) -> bool:
        """Return whether the first text has more pieces than the second."""
        if min(len(first), len(second)) > _COMPARED:
            return len(first) > len(second)
        pieces, parts = [0, 0], [self.parts(text) for text in (first, second)]
        while True:
            behind = int(pieces[0] > pieces[1])
            part = next(parts[behind], None)
            if part is None:
                return behind == 1
            pieces[behind] += count(part)
