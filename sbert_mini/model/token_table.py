"""A table of token vectors: all that a static model consists of beside its tokenizer. A text's vector is the mean of its tokens'.

Two forms are read, each in the folder of sentence-transformers' module `StaticEmbedding`:

| file | what it holds |
| --- | --- |
| `model.safetensors` | `embedding.weight`, (tokens, dim), float32 or float16: what sentence-transformers reads and writes |
| `token_vectors.safetensors` | `rows`, (tokens, dim / 2) bytes, and `scales`, (tokens,) float16: 4 bits a component |
| `token_vectors.json` | beside it: its sha256, and the fingerprint of the model whose vectors its own may be compared with |

A byte holds two components, each a whole number from -7 to 7 plus 8: component i in its lower half, component i + dim / 2 in its
upper half. The component is this number times the row's scale, which is exact in float32.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.errors import CorruptModelError, UnsupportedModelError
from sbert_mini.files.durable import write_durably
from sbert_mini.files.json_files import TOKEN_TABLE
from sbert_mini.files.json_schema import read_json
from sbert_mini.files.reading import check_regular
from sbert_mini.shapes import AnyArray, FloatArray, IntArray

PACKED, RECORD, PLAIN = "token_vectors.safetensors", "token_vectors.json", "model.safetensors"
FORMAT = 1
MOST_TOKENS, MOST_COMPONENTS = 1 << 24, 1 << 16
GREATEST, ZERO = 7, 8
"""The greatest whole number of a component, and what is added to it."""
_PLAIN_ROWS = "embedding.weight"
_FLOATS = ("F32", "F16", "F64")


@dataclass(frozen=True)
class TableFile:
    """The file of a table, whose header alone is read.

    Attributes:
        path: of the file.
        tokens: rows.
        dimension: components of a row.
        sha256: the file's checksum, where a record states it; None where there is no record.
        space: the fingerprint of the model whose vectors those of this one may be compared with; None for none.
    """

    path: Path
    tokens: int
    dimension: int
    sha256: str | None = None
    space: str | None = None

    @property
    def is_packed(self) -> bool:
        """Whether a component has 4 bits."""
        return self.path.name == PACKED


@dataclass(frozen=True)
class TokenTable:
    """A table in memory.

    Attributes:
        rows: bytes of two components each, (tokens, dim / 2) uint8; or the rows themselves, (tokens, dim) float32.
        scales: of the rows, (tokens,) float32; None where the rows are float32.
    """

    rows: AnyArray
    scales: FloatArray | None

    @property
    def dimension(self) -> int:
        """Components of a row."""
        return int(self.rows.shape[1]) * (1 if self.scales is None else 2)

    def floats(self, ids: IntArray | slice = slice(None)) -> FloatArray:
        """Return rows in float32, exactly as they are stored. Shapes: the result: (rows, dim)."""
        rows = self.rows[ids]
        if self.scales is None:
            return np.asarray(rows, np.float32)
        halves = np.concatenate([rows & 15, rows >> 4], axis=1).astype(np.float32) - np.float32(ZERO)
        result: FloatArray = halves * self.scales[ids][:, None]
        return result

    def without(self, ids: IntArray) -> "TokenTable":
        """Return the table with zeros for some tokens, as if no text had them."""
        if self.scales is None:
            rows = self.rows.copy()
            rows[ids] = 0
            return TokenTable(rows, None)
        scales = self.scales.copy()
        scales[ids] = 0
        return TokenTable(self.rows, scales)


def find_table(folder: Path) -> TableFile:
    """Return the file of the table in a folder, with its sizes, which are in range. Its rows are not read.

    Raises:
        CorruptModelError: there is none, or it is damaged.
        UnsupportedModelError: it is of a later version, or its numbers are of a type that is not read.
    """
    if (folder / RECORD).is_file():
        record = read_json(folder / RECORD, TOKEN_TABLE, CorruptModelError)
        if record["format"] > FORMAT:
            raise UnsupportedModelError(
                f"{folder / RECORD} is of format {record['format']}, and this sbert-mini reads up to {FORMAT}: update it"
            )
        shapes = _shapes(folder / PACKED)
        tokens, half = _check(folder / PACKED, shapes, "rows", 2, ("U8",))
        if _check(folder / PACKED, shapes, "scales", 1, ("F16",)) != (tokens,):
            raise CorruptModelError(f"{folder / PACKED}: scales must have one number for each of the {tokens} rows")
        return TableFile(folder / PACKED, tokens, 2 * half, record["sha256"], record.get("space"))
    if not (folder / PLAIN).is_file():
        raise CorruptModelError(f"{folder} has neither {PLAIN} nor {RECORD}")
    tokens, dimension = _check(folder / PLAIN, _shapes(folder / PLAIN), _PLAIN_ROWS, 2, _FLOATS)
    return TableFile(folder / PLAIN, tokens, dimension)


def read_table(file: TableFile) -> TokenTable:
    """Return a table.

    Raises:
        CorruptModelError: it cannot be read, or a number of it is not finite.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(check_regular(file.path), framework="numpy") as handle:
            if file.is_packed:
                table = TokenTable(handle.get_tensor("rows"), handle.get_tensor("scales").astype(np.float32))
            else:
                table = TokenTable(np.ascontiguousarray(handle.get_tensor(_PLAIN_ROWS), np.float32), None)
    except (SafetensorError, OSError, ValueError) as error:
        raise CorruptModelError(f"{file.path} cannot be read as safetensors: {error}") from error
    if (table.dimension, len(table.rows)) != (file.dimension, file.tokens):
        raise CorruptModelError(f"{file.path} was changed while it was read")
    if not np.isfinite(table.rows if table.scales is None else table.scales).all():
        raise CorruptModelError(f"{file.path} holds NaN or infinity")
    return table


def write_packed(folder: Path, numbers: AnyArray, scales: AnyArray, space: str | None) -> None:
    """Write a table of 4 bits a component, and its record.

    Args:
        folder: where.
        numbers: whole numbers from -7 to 7.
        scales: of the rows.
        space: see `TableFile`.

    Shapes:
        numbers: (tokens, dim), dim even; scales: (tokens,).
    """
    from hashlib import sha256

    from safetensors.numpy import save

    half = numbers.shape[1] // 2
    shifted = (np.clip(numbers, -GREATEST, GREATEST) + ZERO).astype(np.uint8)
    data = save({"rows": shifted[:, :half] | (shifted[:, half:] << 4), "scales": scales.astype(np.float16)})
    record = {"format": FORMAT, "sha256": sha256(data).hexdigest(), **({} if space is None else {"space": space})}
    write_durably(folder / PACKED, data)
    write_durably(folder / RECORD, (json.dumps(record, indent=2) + "\n").encode())


def _shapes(file: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the type and the shape of each tensor of a file; the library compares its header with the file's size."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(check_regular(file), framework="numpy") as handle:
            parts = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118
            return {name: (str(part.get_dtype()), tuple(part.get_shape())) for name, part in parts.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise CorruptModelError(f"{file} cannot be read as safetensors: {error}") from error


def _check(file: Path, shapes: dict[str, Any], name: str, axes: int, kinds: tuple[str, ...]) -> tuple[int, ...]:
    """Return the shape of a tensor, which has so many axes, none of them empty or too long, and one of some types."""
    if name not in shapes:
        raise CorruptModelError(f"{file} has no {name}")
    kind, shape = shapes[name]
    if kind not in kinds:
        raise UnsupportedModelError(f"{file}: {name} must be of the type {' or '.join(kinds)}; found {kind}")
    limits = (MOST_TOKENS, MOST_COMPONENTS)
    if len(shape) != axes or not all(1 <= n <= most for n, most in zip(shape, limits, strict=False)):
        raise CorruptModelError(
            f"{file}: {name} must have {axes} axes of at most {MOST_TOKENS} tokens and {MOST_COMPONENTS} components; "
            f"found the shape {shape}"
        )
    return tuple(int(n) for n in shape)
