"""Parquet shards of ids and vectors, as `scale.bulk` writes them -> one array. Anybody may have made them."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.errors import InputError
from sbert_mini.files.reading import open_stream
from sbert_mini.runtime.npy import NpyWriter
from sbert_mini.search.encoding import VectorsById
from sbert_mini.shapes import FloatArray

_BLOCK_BYTES = 32 << 20
_MOST_COMPONENTS = 1 << 20


def read_shards(folder: str | Path, into: Path) -> VectorsById:
    """Return the vectors of a finished job's shards, copied into a `.npy` file that is then mapped.

    Raises:
        InputError: the folder holds no shard, one cannot be read, holds something else, or repeats an id.
    """
    numbers: dict[str, int] = {}
    dimension = 0
    with ExitStack() as stack:
        for shard in sorted(Path(folder).glob("*.parquet")):
            for ids, vectors in _blocks(shard):
                if not dimension:
                    dimension = vectors.shape[1]
                    writer = stack.enter_context(NpyWriter(into, dimension))
                if vectors.shape[1] != dimension:
                    raise InputError(f"{shard} holds vectors of {vectors.shape[1]} components, and others {dimension}")
                for identity in ids:
                    if identity in numbers:
                        raise InputError(f"{shard} holds the id {identity!r}, which stands in a row before")
                    numbers[identity] = len(numbers)
                writer.write(vectors)
    if not numbers:
        raise InputError(f"{folder} holds no Parquet shard with a row")
    return VectorsById(np.load(into, mmap_mode="r", allow_pickle=False), numbers)


def _blocks(shard: Path) -> Iterator[tuple[list[str], FloatArray]]:
    """Yield ids and vectors, (some, dim), of a shard, in blocks.

    Raises:
        InputError: it cannot be read, or is no shard.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_stream(shard) as stream, pq.ParquetFile(stream) as table:
            dimension = _dimension(shard, table.schema_arrow)
            rows = max(_BLOCK_BYTES // (4 * dimension), 1)
            for batch in table.iter_batches(batch_size=rows, columns=["id", "vector"]):
                ids, vectors = batch.column("id"), batch.column("vector")
                if ids.null_count or vectors.null_count or vectors.flatten().null_count:
                    raise InputError(f"{shard} is no shard: an id, a vector or a component is null")
                yield ids.to_pylist(), vectors.flatten().to_numpy().reshape(-1, dimension)
    except (OSError, pa.ArrowException, ValueError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{shard} cannot be read as a Parquet shard: {reason}") from error


def _dimension(shard: Path, schema: Any) -> int:
    """Return the components of a shard's vectors.

    Raises:
        InputError: it does not have the columns of a shard.
    """
    from pyarrow import types

    identity, vector = schema.get_field_index("id"), schema.get_field_index("vector")
    fits = identity >= 0 and vector >= 0 and types.is_string(schema.field(identity).type)
    kind: Any = schema.field(vector).type if fits else None
    fits = fits and types.is_fixed_size_list(kind) and types.is_float32(kind.value_type)
    if not fits or not 1 <= kind.list_size <= _MOST_COMPONENTS:
        raise InputError(
            f"{shard} is no shard of 'sbmini encode --engine ray': it must hold id, a string, and vector, a list of float32 of a "
            f"fixed size up to {_MOST_COMPONENTS}"
        )
    return int(kind.list_size)
