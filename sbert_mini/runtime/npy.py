"""`.npy` files of vectors: written without knowing the number of rows before the end, and read without pickle."""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np

from sbert_mini.errors import InputError, UsageError
from sbert_mini.files.durable import replacing
from sbert_mini.shapes import FloatArray

HEADER_BYTES = 128


def npy_header(rows: int, dimension: int, descr: str = "<f4") -> bytes:
    """Return the first `HEADER_BYTES` bytes of a `.npy` file of `(rows, dimension)`, format version 1.0."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {dimension}), }}"
    return b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"


def write_npy(path: str | Path, dimension: int, blocks: Iterable[FloatArray]) -> int:
    """Write blocks of rows, each (any, dim), into one `.npy` file (`NpyWriter`), and return how many rows they are."""
    with NpyWriter(path, dimension) as writer:
        for block in blocks:
            writer.write(block)
    return writer.rows


class NpyWriter:
    """A float32 `.npy` file of `(rows, dim)` written block by block, its number of rows not known before the end.

    A context manager: the file appears under its name on leaving it without an exception, and not at all otherwise.

    Args:
        path: the file; replaced if it exists.
        dimension: components of each row.

    Raises:
        UsageError: the path is a directory, a device or a pipe.
    """

    def __init__(self, path: str | Path, dimension: int) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_file():  # the file would take the place of a device or a pipe
            raise UsageError(f"{self.path} is not a regular file")
        self.rows = 0
        self._dimension = dimension

    def __enter__(self) -> "NpyWriter":
        with ExitStack() as opened:
            self._stream = opened.enter_context(opened.enter_context(replacing(self.path)).open("wb"))
            self._stream.write(npy_header(self.rows, self._dimension))
            self._opened = opened.pop_all()
        return self

    def write(self, block: FloatArray) -> None:
        """Append rows. Shapes: block (any, dim)."""
        if block.ndim != 2 or block.shape[1] != self._dimension:
            raise UsageError(f"rows must have the shape (any, {self._dimension}); found {block.shape}")
        self._stream.write(np.ascontiguousarray(block, dtype="<f4").tobytes())
        self.rows += len(block)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._opened.__exit__(kind, error, trace)
            return
        with self._opened:
            self._stream.seek(0)
            self._stream.write(npy_header(self.rows, self._dimension))


def read_vectors(file: Path) -> FloatArray:
    """Return the vectors of a .npy file, memory-mapped.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(6)
    except OSError as error:
        raise InputError(f"{file} cannot be opened: {error.strerror or error}") from error
    if start != b"\x93NUMPY":
        raise InputError(f"{file} is not a .npy file: 'sbmini encode -o NAME.npy' writes one")
    try:
        vectors = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # of many kinds, as the header is parsed as Python
        raise InputError(
            f"{file} cannot be read as a .npy file: it is damaged, or holds no numbers ({error})"
        ) from error
    if not isinstance(vectors, np.ndarray) or vectors.dtype.kind != "f" or vectors.ndim != 2:
        raise InputError(f"{file} must hold one array of floating-point numbers, (rows, dim)")
    return vectors
