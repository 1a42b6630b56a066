"""Lines of a pipe as they arrive: whoever reads them can ask whether the next one is there, and need not wait for it."""

import io
import os
import stat
import time

from sbert_mini.files import system

_BLOCK_BYTES = 1 << 16
_LONG_BYTES = 1 << 20
"""A line of which so much is there counts as one that is there: the rest of it is waited for."""


class PipeLines(io.RawIOBase):
    """The lines of a pipe, a socket or a terminal.

    Args:
        descriptor: of the open file, which stays open.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray()
        self._searched = 0  # no line ends before it
        self._ended = False
        self._waiting = system.Waiting(descriptor)

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return the next line with its end, or its first `size` bytes, once they are there; b"" after the last."""
        limit = -1 if size is None else size
        while True:
            end = self._buffer.find(b"\n", self._searched) + 1
            if not end:
                self._searched = len(self._buffer)
            if end or self._ended or 0 <= limit <= len(self._buffer):
                return self._take(min(n for n in (end or len(self._buffer), limit) if n >= 0))
            self._fill()

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        """Fill the buffer with what is there, at least one byte before the end; return how many bytes."""
        if not self._buffer and not self._ended:
            self._fill()
        data = self._take(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def is_there(self) -> bool:
        """Return whether a whole line that is not blank, or the end, can be read without waiting."""
        start = 0
        while True:
            end = self._buffer.find(b"\n", max(start, self._searched))
            if end >= 0:
                if self._buffer[start:end].strip():
                    return True
                start = end + 1
            elif self._ended or len(self._buffer) >= _LONG_BYTES:
                return True
            elif self._waiting.ready(0):
                self._fill()
            else:
                return False

    def is_over(self, patience_s: float) -> bool:
        """Return whether the end comes within so many seconds, and no further line that is not blank."""
        until = time.monotonic() + patience_s
        while not self._ended:
            if self._buffer.strip() or not self._waiting.ready(until - time.monotonic()):
                return False
            self._fill()
        return not self._buffer.strip()

    def _take(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._searched = max(self._searched - size, 0)
        return data

    def _fill(self) -> None:
        """Wait for some bytes, or the end."""
        try:
            data = os.read(self._descriptor, _BLOCK_BYTES)
        except BlockingIOError:  # whoever opened it does not want to wait
            self._waiting.ready()
            return
        self._buffer += data
        self._ended = not data


class Arrivals:
    """Tells whoever reads an input whether its next row is there. `text.records.read_records` fills it in.

    Rows of files are always there.
    """

    def __init__(self) -> None:
        self._lines: PipeLines | None = None

    def lines(self, descriptor: int) -> io.RawIOBase | None:
        """Return the lines of an open file, to be watched from now on; None for a regular file, which never waits."""
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        self._lines = PipeLines(descriptor)
        return self._lines

    @property
    def is_pipe(self) -> bool:
        """Whether rows arrive one after the other."""
        return self._lines is not None

    def waits(self) -> bool:
        """Return whether the next row would have to be waited for."""
        return self._lines is not None and not self._lines.is_there()

    def is_over(self, patience_s: float) -> bool:
        """Return whether the input ends within so many seconds, and has no further row."""
        return self._lines is None or self._lines.is_over(patience_s)
