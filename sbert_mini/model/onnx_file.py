"""The constants and nodes of an ONNX file, without the package `onnx`. The file is mapped: what is not touched is not read.

Only what `runtime.graph` writes is understood: constants as raw bytes in the file itself. Field numbers are `onnx.proto`'s.
"""

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sbert_mini.errors import CorruptModelError
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


@dataclass(frozen=True)
class Node:
    """An operator: its kind, and the names of what it reads and gives."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class OnnxFile:
    """What an ONNX file holds. The constants are views of the mapped file: read-only, and not aligned."""

    nodes: list[Node]
    constants: dict[str, AnyArray]


def read_onnx(file: Path) -> OnnxFile:
    """Return the nodes and constants of an ONNX file.

    Raises:
        CorruptModelError: the file is damaged, or keeps its constants in another way.
    """
    try:
        with file.open("rb") as handle:
            data = memoryview(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
        nodes: list[Node] = []
        constants: dict[str, AnyArray] = {}
        for number, graph in _fields(data):
            if number != _GRAPH:
                continue
            for part, value in _fields(_bytes(graph)):
                if part == _NODE:
                    nodes.append(_node(_bytes(value)))
                elif part == _CONSTANT:
                    name, array = _constant(_bytes(value))
                    constants[name] = array
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise CorruptModelError(f"{file} cannot be read as ONNX: {error}") from error
    return OnnxFile(nodes, constants)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield each field's number and value; those of fixed length are left out."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
        elif wire == _BYTES:
            length, at = _varint(data, at)
            if at + length > end:
                raise ValueError("a field is longer than what holds it")
            yield number, data[at : at + length]
            at += length
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"a field of the unknown wire type {wire}")


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message was expected")
    return value


def _node(data: memoryview) -> Node:
    kind = ""
    inputs: list[str] = []
    outputs: list[str] = []
    for number, value in _fields(data):
        if number in (_NODE_INPUT, _NODE_OUTPUT, _NODE_KIND):
            text = str(_bytes(value), "utf-8")
            if number == _NODE_KIND:
                kind = text
            else:
                (inputs if number == _NODE_INPUT else outputs).append(text)
    return Node(kind, tuple(inputs), tuple(outputs))


def _constant(data: memoryview) -> tuple[str, AnyArray]:
    name, dims, kind, raw = "", [], 0, memoryview(b"")
    for number, value in _fields(data):
        if number == _DIMS:
            if isinstance(value, int):
                dims.append(value)
            else:
                at = 0
                while at < len(value):
                    one, at = _varint(value, at)
                    dims.append(one)
        elif number == _TYPE:
            kind = int(value) if isinstance(value, int) else 0
        elif number == _NAME:
            name = str(_bytes(value), "utf-8")
        elif number == _RAW:
            raw = _bytes(value)
    if kind not in _TYPES:
        raise ValueError(f"the constant {name} has the unknown type {kind}")
    return name, np.frombuffer(raw, _TYPES[kind]).reshape(dims)
