"""Vectors as JSON lines."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from sbert_mini.shapes import FloatArray


def _line(fields: dict[str, Any], vector: FloatArray) -> str:
    head = json.dumps(fields, ensure_ascii=False)
    numbers = ", ".join(vector.astype(str))  # the shortest digits that give the same float32 back
    return f'{head[:-1]}, "embedding": [{numbers}]}}\n'


@contextmanager
def json_lines(output: Path | None) -> Iterator[Callable[[dict[str, Any], FloatArray], None]]:
    """Yield a function that writes one object a line, with its vector: to stdout, or to a file that appears when whole."""
    if output is None or str(output) == "-":
        yield _writer(sys.stdout)
        return
    temporary = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            yield _writer(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)


def _writer(stream: TextIO) -> Callable[[dict[str, Any], FloatArray], None]:
    def write(fields: dict[str, Any], vector: FloatArray) -> None:
        stream.write(_line(fields, vector))

    return write
