"""The text of a document whose file holds something else, and where its parts stand in the file."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Unit: TypeAlias = Literal["line", "page"]
"""What a place in such a file is counted by, from 1."""
MOST_CHARACTERS = 1 << 24
"""The most characters of a document."""
MOST_PLACES = 4096
"""The most parts of a document whose places are noted; of more parts, places are noted at even distances."""


@dataclass
class Extracted:
    """What was extracted.

    Attributes:
        text: the text.
        unit: what `places` count; None where there are none.
        places: where parts of the text start, in characters, and their line or page, ascending.
        problem: why there is no text, or "".
    """

    text: str
    unit: Unit | None = None
    places: list[tuple[int, int]] = field(default_factory=list)
    problem: str = ""


class TextBuilder:
    """Joins blocks of text by blank lines, and notes their places.

    Args:
        unit: what the places count; None for no places.
    """

    def __init__(self, unit: Unit | None) -> None:
        self._unit = unit
        self._blocks: list[str] = []
        self._places: list[tuple[int, int]] = []
        self._length = 0

    def add(self, text: str, place: int = 0) -> None:
        """Append a block.

        Args:
            text: of the block.
            place: its line or page.
        """
        if self._unit and (not self._places or self._places[-1][1] != place):
            self._places.append((self._length, place))
        self._blocks.append(text)
        self._length += len(text) + 2

    def extracted(self, before: str = "") -> Extracted:
        """Return the text, after some other text, with its places."""
        text = before + "\n\n".join(self._blocks)
        step = -(-len(self._places) // MOST_PLACES) or 1
        places = [
            (start + len(before) if i or not before else 0, place) for i, (start, place) in enumerate(self._places)
        ]
        return Extracted(text, self._unit if places else None, places[::step])
