"""Rows that are skipped: counted, and kept in a file."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

from sbert_mini.errors import UsageError

from .amounts import amount
from .notes import note
from .options import check_json_lines

if TYPE_CHECKING:
    from sbert_mini.text.records import Reject

PARTLY_DONE = 4


def rejects_beside(output: Path) -> Path:
    """Return the rejects file of an output, where none is named."""
    return output.with_name(output.name + ".rejects.jsonl")


class Rejects:
    """Takes rejects where `--on-error skip` asks for it, and writes them as JSON lines to a file.

    A context manager: on leaving it the file is closed, and there is none where nothing was rejected.

    Args:
        skip: whether rows are skipped; otherwise the first that cannot be read is an error.
        path: the rejects file.
        default: where rejects go if no file is named.
        inputs: the files that are read.

    Raises:
        UsageError: a rejects file is named, and rows are not skipped; or it is a file that is read.
    """

    def __init__(
        self, skip: bool, path: Path | None, default: Path | None, inputs: Sequence[Path] | None = None
    ) -> None:
        if path is not None and not skip:
            raise UsageError("--rejects is for --on-error skip")
        if path is not None:
            check_json_lines("--rejects", path)
        if skip and path is None and default is None:
            raise UsageError("--on-error skip needs --rejects FILE here, to keep what is skipped")
        self.path = path or default or Path()
        for file in inputs or []:
            if skip and self.path.exists() and file.exists() and self.path.samefile(file):
                raise UsageError(f"the rejects would replace the input, {file}")
        self.count = 0
        self._skip = skip
        self._stream: IO[str] | None = None

    def __enter__(self) -> "Rejects":
        return self

    @property
    def take(self) -> "Callable[[Reject], None] | None":
        """What takes a reject; None where the first one is an error."""
        return self._take if self._skip else None

    def _take(self, reject: "Reject") -> None:
        if self._stream is None:
            self._stream = self.path.open("w", encoding="utf-8", errors="backslashreplace")
        row = {"file": reject.file, "line": reject.line, "error": reject.error, "content": reject.content}
        self._stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def exit_code(self) -> int:
        """Say how many rows were skipped, and return 0 for none, else 4."""
        if not self.count:
            return 0
        note(
            f"{amount(self.count, 'row was', 'rows were')} skipped, and {'is' if self.count == 1 else 'are'} in {self.path}"
        )
        return PARTLY_DONE
