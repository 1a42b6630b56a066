"""Protobuf messages as lists of fields, for tests that damage ONNX files where bytes alone would only break them."""

import math
import random
import struct
from collections.abc import Mapping

Field = tuple[int, int, int | bytes]
"""Its number, its wire type, and its value."""
GRAPH, NODE, CONSTANT = 7, 1, 5
DIMS, TYPE, NAME, RAW = 1, 2, 8, 9
ITEM = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8}
"""Bytes of an element, by the number of its type."""
NUMBERS = (0, 1, 2, 3, 63, 64, 65, 127, 128, 255, 2**15, 2**20, 2**24, 2**31 - 1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1)
REALS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-30, 1e30, 3.4e38, math.inf, -math.inf, math.nan)


def varint(value: int) -> bytes:
    """Return a number as protobuf writes it."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("too long")


def parse(data: bytes) -> list[Field]:
    """Return the fields of a message; a ValueError or IndexError where it is none."""
    fields: list[Field] = []
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _read_varint(data, at)
            fields.append((key >> 3, wire, value))
            continue
        length = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            length, at = _read_varint(data, at)
        if length is None or at + length > len(data) or key < 8:
            raise ValueError("no message")
        fields.append((key >> 3, wire, data[at : at + length]))
        at += length
    return fields


def write(fields: list[Field]) -> bytes:
    """Return a message of these fields."""
    out = bytearray()
    for number, wire, value in fields:
        out += varint(number << 3 | wire)
        if isinstance(value, int):
            out += varint(value)
        else:
            out += varint(len(value)) + value if wire == 2 else value
    return bytes(out)


def damage(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes with bits flipped, cut, grown, or with a part copied over another."""
    changed = bytearray(data)
    if not changed:
        return rng.randbytes(3)
    kind, at = rng.randrange(5), rng.randrange(len(changed))
    if kind == 0:
        for _ in range(rng.choice((1, 1, 3, 30))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del changed[at:]
    elif kind == 2:
        changed[at:at] = rng.randbytes(rng.choice((1, 4, 100, 5000)))
    elif kind == 3:
        del changed[at : at + rng.choice((1, 4, 64, 5000))]
    else:
        length = rng.choice((1, 4, 64, 1000))
        start = rng.randrange(len(changed))
        changed[at : at + length] = changed[start : start + length]
    return bytes(changed)


def mutate(data: bytes, rng: random.Random, depth: int = 0) -> tuple[bytes, str]:
    """Return a message with one field changed at any depth, and how."""
    try:
        fields = parse(data)
    except (ValueError, IndexError):
        return damage(data, rng), "bytes"
    if not fields:
        return varint(rng.choice((8, 18, 58, 66))) + varint(rng.choice(NUMBERS)), "a field"
    messages = [i for i, (_, wire, value) in enumerate(fields) if wire == 2 and value]
    graphs = [i for i in messages if depth == 0 and fields[i][0] == GRAPH]
    at = rng.choice(graphs or messages) if messages and rng.random() < (0.95 if depth == 0 else 0.7) else -1
    if at >= 0:
        number, wire, value = fields[at]
        assert isinstance(value, bytes)
        value, how = mutate(value, rng, depth + 1)
        fields[at] = (number, wire, value)
        return write(fields), f"{number}.{how}"
    at = rng.randrange(len(fields))
    number, wire, value = fields[at]
    kind = rng.randrange(6)
    if kind == 0:
        del fields[at]
    elif kind == 1:
        fields[at:at] = [fields[at]] * rng.choice((1, 2, 1000))
    elif kind == 2:
        other = rng.randrange(len(fields))
        fields[at], fields[other] = fields[other], fields[at]
    elif kind == 3:
        fields[at] = (rng.choice((1, 2, 4, 5, 7, 8, 9, 13, 536870911)), wire, value)
    elif isinstance(value, int):
        fields[at] = (number, wire, rng.choice(NUMBERS))
    elif wire == 2:
        fields[at] = (number, wire, rng.choice((b"", damage(value, rng), rng.randbytes(len(value)), value * 2)))
    else:
        fields[at] = (number, wire, rng.randbytes(len(value)))
    return write(
        fields
    ), f"{number}: {('left out', 'repeated', 'moved', 'renumbered')[kind] if kind < 4 else 'changed'}"


def _constants(data: bytes) -> tuple[list[Field], int, list[Field]]:
    """Return the model's fields, the graph's place among them, and the graph's fields."""
    fields = parse(data)
    at = next(i for i, (number, _, value) in enumerate(fields) if number == GRAPH and isinstance(value, bytes))
    graph = fields[at][2]
    assert isinstance(graph, bytes)
    return fields, at, parse(graph)


def _name(constant: list[Field]) -> str:
    found = [value for number, _, value in constant if number == NAME and isinstance(value, bytes)]
    return found[-1].decode("utf-8", "replace") if found else ""


def names(data: bytes) -> list[str]:
    """Return the names of an ONNX file's constants; none where it cannot be read."""
    try:
        return [
            _name(parse(value)) for n, _, value in _constants(data)[2] if n == CONSTANT and isinstance(value, bytes)
        ]
    except (ValueError, IndexError, StopIteration):
        return []


def change_constant(data: bytes, name: str, rng: random.Random) -> bytes:
    """Return an ONNX file with another constant of this name."""
    fields, at, graph = _constants(data)
    for i, (number, wire, value) in enumerate(graph):
        if number != CONSTANT or not isinstance(value, bytes) or _name(constant := parse(value)) != name:
            continue
        graph[i] = (number, wire, write(_changed(constant, rng)))
        break
    fields[at] = (GRAPH, 2, write(graph))
    return write(fields)


def _changed(constant: list[Field], rng: random.Random) -> list[Field]:
    kind = rng.randrange(5)
    raw = next((v for n, _, v in constant if n == RAW and isinstance(v, bytes)), b"")
    if kind == 0:  # other dimensions of the same bytes, or of as many as they need
        dims = [rng.choice((0, 1, 2, 3, 64, 65, 128, 2**31, 2**63, 2**64 - 1)) for _ in range(rng.randrange(4))]
        constant = [(DIMS, 0, dim) for dim in dims] + [field for field in constant if field[0] != DIMS]
        if math.prod(dims) < 100_000 and rng.random() < 0.7:
            return [(n, w, (raw or b"\0") * 1 if n != RAW else _fit(raw, math.prod(dims) * 4)) if n == RAW else (n, w, v)
                    for n, w, v in constant]  # fmt: skip
        return constant
    if kind == 1:
        return [(n, w, rng.choice((0, *ITEM, 9, 10, 11, 16)) if n == TYPE else v) for n, w, v in constant]
    if kind == 2:
        return [
            (n, w, struct.pack("<f", rng.choice(REALS)) * (len(raw) // 4) if n == RAW else v) for n, w, v in constant
        ]
    if kind == 3:
        return [(n, w, rng.randbytes(len(raw)) if n == RAW else v) for n, w, v in constant]
    return [
        (n, w, rng.choice((b"\x00", b"\x7f", b"\x80", b"\xff")) * len(raw) if n == RAW else v) for n, w, v in constant
    ]


def _fit(raw: bytes, size: int) -> bytes:
    """Return so many bytes, repeated or cut."""
    return (raw * (size // len(raw) + 1))[:size] if raw else bytes(size)


def resize(data: bytes, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """Return an int8 graph whose constants have the shapes of these parameters, as far as it has their names."""
    try:
        fields, at, graph = _constants(data)
        for i, (number, wire, value) in enumerate(graph):
            if number != CONSTANT or not isinstance(value, bytes):
                continue
            constant = parse(value)
            name = _name(constant)
            base, _, suffix = name.partition("/")
            if base not in shapes:
                continue
            shape = shapes[base]
            layer = base.startswith("encoder.")
            if suffix == "q" and layer:
                shape = shape[::-1]
            elif suffix == "scale":
                shape = (shape[0],) if layer else (shape[0], 1)
            kind = next(v for n, _, v in constant if n == TYPE and isinstance(v, int))
            raw = next(v for n, _, v in constant if n == RAW and isinstance(v, bytes))
            if math.prod(shape) > 1 << 18:
                return data
            constant = [(n, w, _fit(raw, math.prod(shape) * ITEM[kind]) if n == RAW else v) for n, w, v in constant]
            constant = [(DIMS, 0, dim) for dim in shape] + [field for field in constant if field[0] != DIMS]
            graph[i] = (number, wire, write(constant))
    except (ValueError, IndexError, KeyError, StopIteration):
        return data
    fields[at] = (GRAPH, 2, write(graph))
    return write(fields)
