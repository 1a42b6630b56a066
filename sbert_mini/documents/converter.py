"""Documents whose text must be extracted, read by a child process with limits of time and memory."""

import json
import os
import selectors
import subprocess
import sys
import time
from contextlib import suppress
from types import TracebackType

from sbert_mini.documents.extraction import Extracted
from sbert_mini.documents.worker import MEMORY_BYTES, MISSING
from sbert_mini.errors import EXTRA_OF, InputError, MissingExtraError

TIME_S = 30.0
"""Seconds that a document may take."""
_MOST_ANSWER_BYTES = 1 << 28
_DOCUMENTS = 200
"""Documents that a process reads before another one takes its place, so that what a library keeps does not add up."""


class ConversionError(InputError):
    """A document of which no text can be extracted."""


class Converter:
    """Extracts the texts of documents. A context manager; the child process starts with the first document.

    Args:
        time_s: seconds that a document may take.
    """

    def __init__(self, time_s: float = TIME_S) -> None:
        self._time_s = time_s
        self._process: subprocess.Popen[bytes] | None = None
        self._documents = 0

    def __enter__(self) -> "Converter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def extract(self, format: str, data: bytes) -> Extracted:
        """Return the text of a document.

        Args:
            format: `html`, `pdf` or `docx`; HTML as UTF-8.
            data: the file.

        Raises:
            ConversionError: there is none: it is damaged, scanned, or takes too much time or memory.
            MissingExtraError: the package that reads it is not installed.
        """
        if self._documents == _DOCUMENTS:
            self.close()
        self._documents += 1
        process = self._started()
        try:
            reply = json.loads(self._exchanged(process, format, data))
        except BaseException:
            self.close()
            raise
        extracted = Extracted(
            reply["text"], reply["unit"], [tuple(place) for place in reply["places"]], reply["problem"]
        )
        if extracted.problem.startswith(MISSING):
            package = extracted.problem.removeprefix(MISSING)
            raise MissingExtraError(f"reading {format.upper()}", package, EXTRA_OF.get(package, "documents"))
        if extracted.problem:
            if "memory" in extracted.problem:
                self.close()
            raise ConversionError(extracted.problem)
        return extracted

    def close(self) -> None:
        """End the child process."""
        process, self._process, self._documents = self._process, None, 0
        if process is None:
            return
        process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        process.wait()

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "sbert_mini.documents.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for the parent, which ends it
            )
            for stream in (self._process.stdin, self._process.stdout):
                assert stream is not None  # noqa: S101
                os.set_blocking(stream.fileno(), False)
        return self._process

    def _exchanged(self, process: "subprocess.Popen[bytes]", format: str, data: bytes) -> bytes:
        """Send a document and return the answer's body."""
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        request = memoryview(json.dumps({"format": format, "bytes": len(data)}).encode() + b"\n" + data)
        reply = bytearray()
        size: int | None = None
        deadline = time.monotonic() + self._time_s
        with selectors.DefaultSelector() as waiting:
            waiting.register(process.stdin, selectors.EVENT_WRITE)
            waiting.register(process.stdout, selectors.EVENT_READ)
            while size is None or len(reply) < size:
                left = deadline - time.monotonic()
                ready = waiting.select(max(left, 0))
                if left <= 0 and not ready:
                    raise ConversionError(f"reading it takes more than {self._time_s:g} s")
                for key, _ in ready:
                    if key.fileobj is process.stdin:
                        try:
                            request = request[os.write(process.stdin.fileno(), request[: 1 << 16]) :]
                        except BrokenPipeError:
                            raise self._died(process) from None
                        if not request:
                            waiting.unregister(process.stdin)
                    elif block := os.read(process.stdout.fileno(), 1 << 20):
                        reply += block
                    else:
                        raise self._died(process)
                if size is None and b"\n" in reply:
                    line, _, rest = bytes(reply).partition(b"\n")
                    size, reply = min(int(json.loads(line)["bytes"]), _MOST_ANSWER_BYTES), bytearray(rest)
        return bytes(reply)

    def _died(self, process: "subprocess.Popen[bytes]") -> ConversionError:
        process.kill()
        code = process.wait()
        return ConversionError(
            f"the process that reads it ended with {code}, perhaps for want of memory (at most {MEMORY_BYTES >> 20} MB)"
        )
