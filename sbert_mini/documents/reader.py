"""A file of a folder -> the rows that an index holds of it.

A document is one row: its id is its path, its text the file's. The rows of a table or of JSON lines are rows of their own. Each
has `OWN_COLUMNS`, by which a later sync knows it, and from which `documents.places` computes places in the file. So nothing is
stored beside the rows, and a place is as safe as the row.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sbert_mini.documents import decoding
from sbert_mini.documents.converter import Converter
from sbert_mini.documents.extraction import Extracted
from sbert_mini.documents.formats import CONVERTED_FORMATS, ROW_FORMATS, DocumentFormat, format_of
from sbert_mini.documents.selection import Folder, FolderFile, modified_text
from sbert_mini.documents.tables import table_records
from sbert_mini.errors import InputError, MissingExtraError
from sbert_mini.files.reading import open_stream
from sbert_mini.text.records import Record

MOST_BYTES = 16 << 20
"""The largest document that is read; tables and JSON lines may be of any size."""
SYNCED_FROM, PATH, FORMAT, ENCODING, BYTES, MODIFIED, SHA256, LINE, PLACES = (
    "synced_from",
    "file_path",
    "file_format",
    "file_encoding",
    "file_bytes",
    "file_modified",
    "file_sha256",
    "file_line",
    "file_places",
)
OWN_COLUMNS = frozenset((SYNCED_FROM, PATH, FORMAT, ENCODING, BYTES, MODIFIED, SHA256, LINE, PLACES))
"""The columns of a row that a sync made: the folder's name, the path below it, the format, the encoding, the size, the time of
modification, the sha256 of the bytes, for a row of a table its line, and for extracted text the lines or pages of its parts."""
_BLOCK_BYTES = 1 << 20


class BinaryError(InputError):
    """A file that holds no text."""


@dataclass
class FileContent:
    """What was read of a file.

    Attributes:
        records: its rows; none where it is blank.
        encoding: of its text; None where the format has none.
        rejected: a line for each row of it that could not be read, once the records were taken.
    """

    records: list[Record] | Iterator[Record]
    encoding: str | None = None
    rejected: list[str] = field(default_factory=list)


class DocumentReader:
    """Reads the files of folders. A context manager, which ends the child process that extracts texts.

    Args:
        encoding: of files that are not UTF-8; None to detect it.

    Raises:
        UsageError: there is no such encoding.
    """

    def __init__(self, encoding: str | None = None) -> None:
        self._encoding = None if encoding is None else decoding.check_encoding(encoding)
        self._converter = Converter()

    def __enter__(self) -> "DocumentReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._converter.close()

    def read(self, folder: Folder, file: FolderFile) -> FileContent:
        """Return the rows of a file.

        Raises:
            BinaryError: it holds no text.
            InputError: it cannot be read; the text says why.
            OSError: it cannot be opened.
        """
        location = folder.path / file.path
        format = format_of(file.path)
        if format in ROW_FORMATS:
            return self._rows(folder, file, location, format)
        with open_stream(location) as stream:
            status = os.fstat(stream.fileno())
            head = stream.read(decoding.SNIFFED_BYTES)
            if format not in CONVERTED_FORMATS and decoding.is_binary(head):
                raise BinaryError("it holds a NUL byte")
            if status.st_size > MOST_BYTES:
                raise InputError(f"it is larger than {MOST_BYTES >> 20} MB, the most that is read of a document")
            data = head + stream.read(MOST_BYTES)
            is_settled = _unchanged(status, os.fstat(stream.fileno())) and status.st_size == len(data)
        columns = _columns(folder, file, format or "text", hashlib.sha256(data).hexdigest())
        columns[BYTES], columns[MODIFIED] = len(data), _modified(status.st_mtime_ns, is_settled=is_settled)
        extracted, encoding = self._text(data, format)
        if encoding is not None:
            columns[ENCODING] = encoding
        if extracted.places and extracted.unit is not None:
            columns[PLACES] = {extracted.unit: [list(place) for place in extracted.places]}
        if not extracted.text.strip():
            return FileContent([], encoding)
        return FileContent([Record(extracted.text, folder.id_of(file.path), columns)], encoding)

    def _text(self, data: bytes, format: DocumentFormat | None) -> tuple[Extracted, str | None]:
        """Return a document's text, and the encoding of the file."""
        if format in ("pdf", "docx"):
            return self._converter.extract(format, data), None
        if format is None and not _is_utf8(data):
            raise BinaryError("its suffix names no format of text, and it is not UTF-8")
        decoded = decoding.decode(data, self._encoding, is_html=format == "html")
        if "\0" in decoded.text:
            raise BinaryError("it holds a NUL character")
        if format == "html":
            html = decoded.text.encode("utf-8", "surrogatepass")
            return self._converter.extract("html", html), decoded.encoding
        return Extracted(decoded.text), decoded.encoding

    def _rows(self, folder: Folder, file: FolderFile, location: Path, format: str) -> FileContent:
        """Return the rows of a table or of JSON lines, which are read as they are taken."""
        with open_stream(location) as stream:
            status = os.fstat(stream.fileno())
            digest = hashlib.sha256()
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
            is_settled = _unchanged(status, os.fstat(stream.fileno()))
        columns = _columns(folder, file, format, digest.hexdigest())
        columns |= {
            ENCODING: "utf-8",
            BYTES: status.st_size,
            MODIFIED: _modified(status.st_mtime_ns, is_settled=is_settled),
        }
        content = FileContent([], "utf-8")

        def reject(line: int, problem: str) -> None:
            content.rejected.append(f"line {line}: {problem}")

        content.records = _numbered(folder.id_of(file.path), table_records(location, format, reject), columns)
        return content


def _numbered(identity: str, records: Iterator[Record], own: dict[str, Any]) -> Iterator[Record]:
    """Yield the rows of a file with ids below the file's and with the columns that a sync needs."""
    for record in records:
        place = f"{identity}:{record.line}" if record.id is None else f"{identity}#{record.id}"
        columns = {name: value for name, value in record.columns.items() if name not in OWN_COLUMNS}
        yield Record(record.text, place, {**columns, **own, LINE: record.line}, record.line, record.typed, record.file)


def hash_of(folder: Folder, file: FolderFile) -> str:
    """Return the sha256 of a file's bytes.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open_stream(folder.path / file.path) as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def failure_of(error: Exception) -> str:
    """Return why a file could not be read, in a line."""
    if isinstance(error, OSError) and not isinstance(error, (InputError, MissingExtraError)):
        return error.strerror or str(error)
    return " ".join(str(error).split())


def _columns(folder: Folder, file: FolderFile, format: str, sha256: str) -> dict[str, Any]:
    return {SYNCED_FROM: folder.name, PATH: file.path, FORMAT: format, SHA256: sha256}


def _unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)


def _modified(modified_ns: int, *, is_settled: bool) -> str:
    return modified_text(modified_ns, time.time() if is_settled else 0.0)


def _is_utf8(data: bytes) -> bool:
    with suppress(InputError):
        return decoding.decode(data, "utf-8").encoding != ""
    return False
