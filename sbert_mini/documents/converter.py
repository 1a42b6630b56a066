"""Documents whose text must be extracted, read by a child process with limits of time and memory."""

import json
import logging
import subprocess
import sys
import threading
from contextlib import suppress
from functools import cache
from types import TracebackType

from sbert_mini.documents.extraction import Extracted
from sbert_mini.documents.worker import MEMORY_BYTES, MISSING
from sbert_mini.errors import EXTRA_OF, InputError, MissingExtraError
from sbert_mini.files import system

log = logging.getLogger("sbert_mini")

TIME_S = 30.0
"""Seconds that a document may take."""
_MOST_ANSWER_BYTES = 1 << 28
_LINE_BYTES = 1 << 10
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
            _note_missing_limit()
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "sbert_mini.documents.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the parent, which ends it
            )
        return self._process

    def _exchanged(self, process: "subprocess.Popen[bytes]", format: str, data: bytes) -> bytes:
        """Send a document and return the answer's body. A thread waits for it: Windows cannot wait for a pipe and a clock."""
        answers: list[bytes] = []
        thread = threading.Thread(target=_exchange, args=(process, format, data, answers), daemon=True)
        thread.start()
        thread.join(self._time_s)
        if thread.is_alive():
            process.kill()  # which ends the thread
            thread.join()
            raise ConversionError(f"reading it takes more than {self._time_s:g} s")
        if not answers:
            raise self._died(process)
        return answers[0]

    def _died(self, process: "subprocess.Popen[bytes]") -> ConversionError:
        process.kill()
        code = process.wait()
        return ConversionError(
            f"the process that reads it ended with {code}, perhaps for want of memory (at most {MEMORY_BYTES >> 20} MB)"
        )


def _exchange(process: "subprocess.Popen[bytes]", format: str, data: bytes, answers: list[bytes]) -> None:
    """Send a document and append the answer's body; nothing where the process ends before that."""
    assert process.stdin is not None  # noqa: S101
    assert process.stdout is not None  # noqa: S101
    with suppress(OSError, ValueError):  # it ended, or the pipes were closed
        process.stdin.write(json.dumps({"format": format, "bytes": len(data)}).encode() + b"\n")
        process.stdin.write(data)
        process.stdin.flush()
        size = min(int(json.loads(process.stdout.readline(_LINE_BYTES))["bytes"]), _MOST_ANSWER_BYTES)
        body = process.stdout.read(size)
        if len(body) == size:
            answers.append(body)


@cache
def _note_missing_limit() -> None:
    if not system.CAN_LIMIT_MEMORY:
        log.warning(
            "this system does not limit the memory of the process that reads HTML, PDF and DOCX: read none of strangers"
        )
