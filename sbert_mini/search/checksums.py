"""Checksums of files: what they are made of, and reading any part of a file, checked."""

import hashlib
import io
import mmap
import os
import weakref
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.errors import CorruptIndexError
from sbert_mini.files import system
from sbert_mini.files.durable import write_durably
from sbert_mini.files.json_schema import Schema, check, parse
from sbert_mini.files.reading import open_regular, open_stream, read_whole
from sbert_mini.search.spans import read_spans
from sbert_mini.shapes import AnyArray, IntArray

BLOCK_BYTES = 1 << 20
_BYTES_A_THREAD = 2 << 20
"""A second thread is started from twice as many bytes on."""


def file_checksums(path: Path, block_bytes: int = BLOCK_BYTES) -> dict[str, Any]:
    """Return `{"bytes", "block_bytes", "sha256": [one a block]}` of a file."""
    blocks = []
    with open_stream(path) as stream:
        while block := stream.read(block_bytes):
            blocks.append(hashlib.sha256(block).hexdigest())
        return {"bytes": stream.tell(), "block_bytes": block_bytes, "sha256": blocks}


class CheckedFile:
    """A file of which any part can be read, each block that it touches being checked the first time.

    Args:
        path: the file.
        checksums: as `file_checksums` made them.

    Raises:
        CorruptIndexError: the file is missing or its size is another.
    """

    def __init__(self, path: Path, checksums: Mapping[str, Any]) -> None:
        self.path = path
        self.size = int(checksums["bytes"])
        self._block = int(checksums["block_bytes"])
        self._digests: list[str] = checksums["sha256"]
        if len(self._digests) != -(-self.size // self._block):
            raise CorruptIndexError(f"{path} has {len(self._digests)} checksums, which is not one a block")
        self._checked = np.zeros(len(self._digests), dtype=bool)
        try:
            self._handle = open_regular(path)
        except OSError as error:
            raise CorruptIndexError(f"{path} cannot be opened: {error.strerror or error}") from error
        self._closing = weakref.finalize(self, os.close, self._handle)
        size = os.fstat(self._handle).st_size
        if size != self.size:
            self.close()
            raise CorruptIndexError(f"{path} must hold {self.size} bytes, and holds {size}")

    def __enter__(self) -> "CheckedFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; it closes by itself when nobody holds it any more."""
        self._closing()

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` up to, without, `stop`.

        Raises:
            CorruptIndexError: a block that they lie in does not match its checksum.
        """
        if not 0 <= start <= stop <= self.size:
            raise CorruptIndexError(f"{self.path} holds {self.size} bytes, and not those from {start} to {stop}")
        first, last = start // self._block, max(stop - 1, start) // self._block
        if self._checked[first : last + 1].all():
            return self._read(start, stop)
        data = self._read(first * self._block, min((last + 1) * self._block, self.size))
        for block in range(first, last + 1):
            self._check_block(block, data[(block - first) * self._block : (block - first + 1) * self._block])
        return data[start - first * self._block : stop - first * self._block]

    def _check_block(self, block: int, data: bytes | memoryview) -> None:
        if hashlib.sha256(data).hexdigest() != self._digests[block]:
            raise CorruptIndexError(f"{self.path}: block {block} of {self._block} bytes does not match its checksum")
        self._checked[block] = True

    def _read(self, start: int, stop: int) -> bytes:
        parts = []
        while start < stop:
            part = system.read_at(self._handle, stop - start, start)  # the system gives 2 GiB at a time at the most
            if not part:
                raise CorruptIndexError(f"{self.path} ends at byte {start}, and must hold {self.size}")
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @cached_property
    def mapped(self) -> AnyArray:
        """The file, memory-mapped: uint8, (bytes,). Nothing of it is checked."""
        if self.size == 0:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(self._handle, self.size, access=mmap.ACCESS_READ), np.uint8)

    def check(self, start: int, stop: int, threads: int = 1) -> None:
        """Check the blocks that some bytes lie in.

        Args:
            start: the first byte.
            stop: the byte after the last one.
            threads: as many read and hash the blocks.

        Raises:
            CorruptIndexError: one does not match its checksum.
        """
        if not 0 <= start <= stop <= self.size:
            raise CorruptIndexError(f"{self.path} holds {self.size} bytes, and not those from {start} to {stop}")
        first, last = start // self._block, -(-stop // self._block)
        self._check_blocks((first + np.flatnonzero(~self._checked[first:last])).tolist(), threads)

    def check_spans(self, starts: IntArray, size: int, threads: int = 1) -> None:
        """Check the blocks that spans of `size` bytes, one or more, lie in; see `check`. Shapes: starts: (spans,)."""
        if len(starts) and not 0 <= int(starts.min()) <= int(starts.max()) <= self.size - size:
            raise CorruptIndexError(
                f"{self.path} holds {self.size} bytes, and not every span of {size} that is asked for"
            )
        touched = np.zeros(len(self._digests) + 1, dtype=np.int64)  # where spans begin, and after where they end
        np.add.at(touched, starts // self._block, 1)
        np.add.at(touched, (starts + size - 1) // self._block + 1, -1)
        self._check_blocks(np.flatnonzero((np.cumsum(touched[:-1]) > 0) & ~self._checked).tolist(), threads)

    def read_checked_spans(self, starts: IntArray, size: int, out: AnyArray) -> None:
        """Read spans of `size` bytes, which were checked, one after the other into `out`.

        Shapes:
            starts: (spans,); out: (spans * size,), uint8.
        """
        if not read_spans(self._handle, starts, size, out):  # an error, or less at a time: each by itself tells
            for number, start in enumerate(starts.tolist()):
                out[number * size : (number + 1) * size] = np.frombuffer(self._read(start, start + size), np.uint8)

    def _check_blocks(self, blocks: list[int], threads: int) -> None:
        """Read and check some blocks, in threads where there are many bytes."""
        threads = min(threads, len(blocks) * self._block // _BYTES_A_THREAD)
        if threads <= 1:
            self._check_one_by_one(blocks)
            return
        from concurrent.futures import ThreadPoolExecutor

        share = -(-len(blocks) // threads)
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(self._check_one_by_one, (blocks[i : i + share] for i in range(0, len(blocks), share))):
                pass

    def _check_one_by_one(self, blocks: list[int]) -> None:
        buffer = memoryview(bytearray(min(self._block, self.size)))  # one for all: it stays in the processor's cache
        for block in blocks:
            start = block * self._block
            size = min(self._block, self.size - start)
            read = system.read_into(self._handle, buffer[:size], start)
            if read < size:  # the system may give less at a time
                buffer[:size] = self._read(start, start + size)
            self._check_block(block, buffer[:size])

    def blocks(self, start: int = 0) -> Iterator[bytes]:
        """Yield the file from byte `start` to its end, in blocks, each checked."""
        while start < self.size:
            stop = min((start // self._block + 1) * self._block, self.size)
            yield self.read(start, stop)
            start = stop

    def read_all(self) -> bytes:
        """Return the whole file, checked."""
        return self.read(0, self.size) if self.size else b""


def read_checked_json(path: Path, sha256: str, schema: Schema) -> dict[str, Any]:
    """Return a JSON object whose bytes must have this checksum, and which must fit a schema.

    Raises:
        CorruptIndexError: it does not, or the file is missing.
    """
    try:
        data = read_whole(path)
    except OSError as error:
        raise CorruptIndexError(f"{path} cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CorruptIndexError(f"{path} does not match its checksum")
    return dict(check(parse(data, path, CorruptIndexError), schema, path, CorruptIndexError))


def write_checked_npy(path: Path, array: AnyArray) -> dict[str, Any]:
    """Write an array into a `.npy` file, flushed to the disk, and return the file's checksums."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_durably(path, buffer.getbuffer())
    return file_checksums(path)


def read_checked_npy(
    path: Path, checksums: Mapping[str, Any], dtype: str, shape: tuple[int | None, ...], greatest: int = (1 << 63) - 1
) -> AnyArray:
    """Return the array of a `.npy` file, of which every byte is checked.

    Args:
        path: the file.
        checksums: as `file_checksums` made them.
        dtype: the array's, as NumPy writes it.
        shape: the array's, None for any size along an axis.
        greatest: no number may be below 0 or above it.

    Raises:
        CorruptIndexError: it does not match its checksums, is missing, or holds something else.
    """
    with CheckedFile(path, checksums) as file:
        data = file.read_all()
    try:
        array: AnyArray = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # of many kinds, as the header is parsed as Python
        raise CorruptIndexError(f"{path} cannot be read as a .npy file: {error}") from error
    fits = isinstance(array, np.ndarray) and array.dtype == np.dtype(dtype) and array.ndim == len(shape)
    if not fits or any(size not in (None, there) for size, there in zip(shape, array.shape, strict=True)):
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise CorruptIndexError(f"{path} must hold {np.dtype(dtype).name} of the shape ({sizes})")
    if array.size and (int(array.min()) < 0 or int(array.max()) > greatest):
        raise CorruptIndexError(f"{path} must hold numbers from 0 to {greatest}")
    return array
