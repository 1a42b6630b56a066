"""The constants and nodes of an ONNX file, without the package `onnx`.

Only what `runtime.graph` writes is understood: constants as raw bytes in the file itself. Field numbers are `onnx.proto`'s.

Nothing of the file is mapped: a mapped file that another process truncates ends this one with SIGBUS. Opening reads the
descriptions of the constants, a few bytes each; `OnnxFile.read` copies one constant into memory. So the memory that is taken is
at most that of the file, whatever sizes it names.
"""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from sbert_mini.errors import CorruptModelError
from sbert_mini.files import system
from sbert_mini.files.reading import open_regular
from sbert_mini.shapes import AnyArray

_TYPES: Mapping[int, np.dtype] = {
    1: np.dtype("<f4"),
    2: np.dtype("u1"),
    3: np.dtype("i1"),
    6: np.dtype("<i4"),
    7: np.dtype("<i8"),
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH, _NODE, _CONSTANT = 7, 1, 5
_NODE_INPUT, _NODE_OUTPUT, _NODE_KIND = 1, 2, 4
_DIMS, _TYPE, _NAME, _RAW = 1, 2, 8, 9
MOST_ENTRIES = 100_000
"""Nodes and constants of a graph: one of 1,000 layers has 70,000."""
MOST_TEXT = 4096
"""Bytes of a name."""
MOST_DIMS = 8
_BLOCK = 16_384
"""Bytes that are read at a time."""


@dataclass(frozen=True)
class Node:
    """An operator: its kind, and the names of what it reads and gives."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Constant:
    """Where a constant lies in the file. Its bytes are in the file, as many as its shape asks for."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class _Span:
    """A field's bytes, by their positions in the file."""

    start: int
    end: int


class OnnxFile:
    """An open ONNX file: its nodes, and its constants, which are read one by one. A context manager.

    Args:
        file: its path.

    Attributes:
        nodes: the operators, in the file's order.
        constants: name -> its type, its shape and its place.

    Raises:
        CorruptModelError: the file is damaged, or keeps its constants in another way.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.nodes: list[Node] = []
        self.constants: dict[str, Constant] = {}
        try:
            self._descriptor = open_regular(file)
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        try:
            self._state = self._stat()
            self._parse(_Reader(self._descriptor, self._state[0]))
        except (OSError, ValueError) as error:
            os.close(self._descriptor)
            raise self._unreadable(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            changed = self._stat() != self._state
        finally:
            os.close(self._descriptor)
        if changed and error is None:
            raise CorruptModelError(f"{self._file} was changed while it was read")

    def read(self, name: str) -> AnyArray:
        """Return a constant, in memory of its own.

        Raises:
            CorruptModelError: there is no constant of this name, or the file was truncated since it was opened.
        """
        if name not in self.constants:
            raise CorruptModelError(f"{self._file} has no constant {name}")
        constant = self.constants[name]
        array = np.empty(constant.shape, constant.dtype)
        buffer, at = array.reshape(-1).view(np.uint8).data, constant.start
        try:
            while buffer:
                count = system.read_into(self._descriptor, buffer, at)
                if not count:
                    raise ValueError("it was truncated while it was read")
                buffer, at = buffer[count:], at + count
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        return array

    def _parse(self, reader: "_Reader") -> None:
        if not reader.size:
            raise ValueError("it is empty")
        for number, graph in reader.fields(_Span(0, reader.size)):
            if number != _GRAPH:
                continue
            for part, value in reader.fields(_message(graph)):
                if part == _NODE:
                    self.nodes.append(_node(reader, _message(value)))
                elif part == _CONSTANT:
                    name, constant = _constant(reader, _message(value))
                    self.constants[name] = constant
                if len(self.nodes) + len(self.constants) > MOST_ENTRIES:
                    raise ValueError(f"it has more than {MOST_ENTRIES} nodes and constants")

    def _stat(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns

    def _unreadable(self, error: Exception) -> CorruptModelError:
        return CorruptModelError(f"{self._file} cannot be read as ONNX: {error}")


class _Reader:
    """Numbers, texts and fields at positions of an open file, of which it holds one block at a time."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.size = size
        self._descriptor = descriptor
        self._block = b""
        self._start = 0

    def varint(self, at: int) -> tuple[int, int]:
        """Return the number at a position, and the position after it."""
        block, offset = self._around(at)
        value = shift = 0
        for byte in block[offset : offset + 10]:
            offset += 1
            if byte < 0x80:
                return value | byte << shift, self._start + offset
            value |= (byte & 0x7F) << shift
            shift += 7
        raise ValueError("a number of more than 64 bits, or that the file ends in")

    def text(self, span: _Span) -> str:
        """Return the text in a span."""
        length = span.end - span.start
        if length > MOST_TEXT:
            raise ValueError(f"a name of {length} bytes; {MOST_TEXT} are the most")
        block, offset = self._around(span.start, length)
        if offset + length > len(block):
            raise ValueError("it was truncated while it was read")
        return str(block[offset : offset + length], "utf-8")

    def fields(self, span: _Span) -> Iterator[tuple[int, int | _Span]]:
        """Yield each field's number and value; those of fixed length are left out."""
        at, end = span.start, span.end
        while at < end:
            key, at = self.varint(at)
            number, wire = key >> 3, key & 7
            if wire == _VARINT:
                value, at = self.varint(at)
                yield number, value
            elif wire == _BYTES:
                length, at = self.varint(at)
                if at + length > end:
                    raise ValueError("a field is longer than what holds it")
                yield number, _Span(at, at + length)
                at += length
            elif wire in (_FIXED64, _FIXED32):
                at += 8 if wire == _FIXED64 else 4
            else:
                raise ValueError(f"a field of the unknown wire type {wire}")
        if at != end:
            raise ValueError("a field is longer than what holds it")

    def _around(self, at: int, length: int = 10) -> tuple[bytes, int]:
        """Return a block of the file that holds `length` bytes from a position, if the file does, and the position in it."""
        offset = at - self._start
        if offset < 0 or offset + length > len(self._block):
            self._block, self._start, offset = system.read_at(self._descriptor, max(_BLOCK, length), at), at, 0
        return self._block, offset


def _message(value: int | _Span) -> _Span:
    if isinstance(value, int):
        raise ValueError("a number where a message was expected")
    return value


def _node(reader: _Reader, span: _Span) -> Node:
    kind = ""
    inputs: list[str] = []
    outputs: list[str] = []
    for number, value in reader.fields(span):
        if number in (_NODE_INPUT, _NODE_OUTPUT, _NODE_KIND):
            text = reader.text(_message(value))
            if number == _NODE_KIND:
                kind = text
            else:
                (inputs if number == _NODE_INPUT else outputs).append(text)
    return Node(kind, tuple(inputs), tuple(outputs))


def _constant(reader: _Reader, span: _Span) -> tuple[str, Constant]:
    name, kind, raw = "", 0, _Span(0, 0)
    dims: list[int] = []
    for number, value in reader.fields(span):
        if number == _DIMS:
            dims += [value] if isinstance(value, int) else _packed(reader, value)
        elif number == _TYPE:
            kind = value if isinstance(value, int) else 0
        elif number == _NAME:
            name = reader.text(_message(value))
        elif number == _RAW:
            raw = _message(value)
        if len(dims) > MOST_DIMS:
            raise ValueError(f"the constant {name} has more than {MOST_DIMS} dimensions")
    if kind not in _TYPES:
        raise ValueError(f"the constant {name} has the unknown type {kind}")
    dtype, shape = _TYPES[kind], tuple(dims)
    if not all(shape) or math.prod(shape) * dtype.itemsize != raw.end - raw.start:
        raise ValueError(f"the constant {name} has the shape {shape} of {dtype}, and {raw.end - raw.start} bytes")
    return name, Constant(dtype, shape, raw.start)


def _packed(reader: _Reader, span: _Span) -> list[int]:
    """Return the numbers in a span, one more than the most dimensions at most."""
    numbers: list[int] = []
    at = span.start
    while at < span.end and len(numbers) <= MOST_DIMS:
        number, at = reader.varint(at)
        numbers.append(number)
    return numbers
