"""How much of a text input is in memory at a time: a line, a row, and a window of rows.

Every module that reads text takes its limits from here: lines through `limited_lines`, rows through `window_of`.
"""

import sys
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar

MAX_ROW_BYTES = 64 * 2**20
"""The most bytes of a line, or of a row of several lines, that are read where no other number is given."""
WINDOW_BYTES = 32 * 2**20
"""A window of rows ends with the row that fills so many bytes, however few rows it has."""
_SKIPPED_BYTES = 1 << 20

ItemT = TypeVar("ItemT")


def limited_lines(stream: BinaryIO, limit: int) -> Iterator[tuple[bytes, bool]]:
    """Yield each line and whether it is whole: of a line of more than `limit` bytes only the first ones, and False.

    Raises:
        OSError, EOFError, zlib.error: the stream cannot be read.
    """
    while line := stream.readline(limit + 1):
        is_whole = len(line) <= limit or line.endswith(b"\n")
        yield line, is_whole
        while not is_whole and line and not line.endswith(b"\n"):
            line = stream.readline(_SKIPPED_BYTES)


def most_lines(max_row_bytes: int) -> int:
    """Return the most lines of a row: each line costs memory, however short it is."""
    return max(1000, max_row_bytes // 64)


def window_of(
    source: Iterator[ItemT], rows: int, most_bytes: int | None = None, waits: Callable[[], bool] | None = None
) -> list[ItemT]:
    """Return the next items, texts or pairs of texts: at most `rows`, and none after those that fill `most_bytes`.

    Args:
        source: the items.
        rows: the most items.
        most_bytes: of the items; None for `WINDOW_BYTES`.
        waits: returns whether the next item would have to be waited for, which ends a window that has one; None for never.
    """
    most_bytes = WINDOW_BYTES if most_bytes is None else most_bytes
    window: list[ItemT] = []
    size = 0
    while len(window) < rows and size < most_bytes:
        try:
            item = next(source)
        except StopIteration:
            break
        window.append(item)
        if waits is not None and waits():
            break
        size += sys.getsizeof(item) if isinstance(item, str) else sum(map(sys.getsizeof, item))  # type: ignore[call-overload]
    return window
