"""A static model: the sum of the rows of a text's tokens, scaled to length 1. Native code, else NumPy; no graph, no encoder."""

import ctypes
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any

import numpy as np

from sbert_mini.cosine import unit_rows
from sbert_mini.errors import CorruptModelError, UsageError
from sbert_mini.model.choices import Graph
from sbert_mini.model.layout import ModelLayout
from sbert_mini.model.token_table import TableFile, TokenTable, read_table
from sbert_mini.native.library import NO_MEMORY, Array, Signatures, load
from sbert_mini.runtime.choices import Backend
from sbert_mini.runtime.fingerprint import file_sha256, fingerprint_of, source_digests
from sbert_mini.runtime.graphs import ConvertedModel
from sbert_mini.runtime.native_library import LEVELS
from sbert_mini.shapes import FloatArray
from sbert_mini.text.tokens import TokenBatch, Tokens

TOKENS = 1 << 15
"""Tokens of a batch."""
_INT = ctypes.c_int
SIGNATURES: Signatures = {
    "sbmini_error": (ctypes.c_char_p, [_INT]),
    "sbmini_table_packed": (_INT, [Array] * 5),
    "sbmini_table_floats": (_INT, [Array, ctypes.c_int64, *[Array] * 3]),
}
_NATIVE = ("native", *LEVELS)


@cache
def library() -> Any | None:
    """Return the compiled library, or None where it was not compiled."""
    return load(SIGNATURES)


def describe() -> tuple[str, str]:
    """Return what computes a static model here, and why."""
    if library() is None:
        return "numpy", "native code was not compiled when sbert-mini was installed"
    return "native", "sums of rows, by the same code on every processor"


def model_of(layout: ModelLayout, table: TableFile, graph: Graph, *, read_only: bool) -> ConvertedModel:
    """Return a static model as graphs are described. Both kinds of graph mean the same: there is one table.

    Raises:
        CorruptModelError: the table does not match the checksum in its record, or cannot be read.
    """
    digest = file_sha256(table.path)
    if table.sha256 not in (None, digest):
        raise CorruptModelError(f"{table.path} does not match its checksum: it is damaged")
    fingerprint = fingerprint_of([digest], source_digests(layout))
    return ConvertedModel(layout, graph, table.path, digest, fingerprint, read_only)


def check_backend(layout: ModelLayout, backend: Backend | None, device: str | None) -> None:
    """Raise `UsageError` unless a static model is computed by this backend, on this device."""
    if device not in (None, "cpu"):
        raise UsageError(f"{layout.path} is a static model: it is computed on the CPU alone, not on {device}")
    if backend is not None and backend not in _NATIVE:
        raise UsageError(f"{layout.path} is a static model: native code computes it, not the backend {backend}")


class TableEngine:
    """A table of token vectors. Several threads may call `run` at the same time; each computes in its own thread.

    Args:
        file: the table on disk.
        special_ids: tokens that do not count: those that the tokenizer puts around texts.

    Raises:
        CorruptModelError: the table cannot be read.
    """

    def __init__(self, file: TableFile, special_ids: Collection[int]) -> None:
        self._file = file.path
        self._table = read_table(file).without(np.array([i for i in special_ids if i < file.tokens], np.int64))
        self._library = library()
        self.tokens_per_batch = TOKENS
        self.divides_batches = False

    def __repr__(self) -> str:
        return f"TableEngine({str(self._file)!r}, {self.name!r})"

    @property
    def name(self) -> str:
        """What computes, for people."""
        return "NumPy, a table" if self._library is None else "native, a table"

    def run(self, tokens: Sequence[Tokens], threads: int = 1) -> FloatArray:  # noqa: ARG002
        """Return the sentence vectors of a batch, (batch, dim), each of length 1; zeros for a text without a known token."""
        batch = TokenBatch.of(tokens)
        if self._library is None:
            return _by_numpy(self._table, batch, self._unknown_tokens)
        return self._by_native_code(self._library, batch)

    def run_tokens(self, tokens: Sequence[Tokens]) -> list[FloatArray]:
        """Return the vectors of each text's tokens, (seq, dim): rows of the table, zeros for tokens that do not count."""
        batch = TokenBatch.of(tokens)
        if len(batch.ids) and not 0 <= batch.ids.min() <= batch.ids.max() < len(self._table.rows):
            raise self._unknown_tokens()
        return np.split(self._table.floats(batch.ids), batch.offsets[1:-1])

    def _by_native_code(self, loaded: Any, batch: TokenBatch) -> FloatArray:
        table = self._table
        if batch.ids.dtype != np.int32 and np.abs(batch.ids).max(initial=0) >= len(table.rows):
            raise self._unknown_tokens()
        ids, offsets = batch.ids.astype(np.int32, copy=False), batch.offsets.astype(np.int64, copy=False)
        vectors = np.empty((len(batch), table.dimension), np.float32)
        arrays = Array.of(ids), Array.of(offsets), Array.of(vectors)
        if table.scales is None:
            status = loaded.sbmini_table_floats(Array.of(table.rows), table.dimension, *arrays)
        else:
            status = loaded.sbmini_table_packed(Array.of(table.rows), Array.of(table.scales), *arrays)
        if status == NO_MEMORY:
            raise MemoryError("no memory for a batch")
        if status:
            raise self._unknown_tokens(str(loaded.sbmini_error(status), "ascii"))
        return vectors

    def _unknown_tokens(self, reason: str = "an id is too large") -> CorruptModelError:
        return CorruptModelError(
            f"{self._file}: a batch holds an id that the table does not have: the tokenizer and the table do not belong together "
            f"({reason})"
        )


def _by_numpy(table: TokenTable, batch: TokenBatch, failure: Callable[[], CorruptModelError]) -> FloatArray:
    """Return the vectors of a batch, (batch, dim), as native code gives them but for the last bits."""
    if len(batch.ids) and not 0 <= batch.ids.min() <= batch.ids.max() < len(table.rows):
        raise failure()
    sums = np.zeros((len(batch), table.dimension), np.float32)
    np.add.at(sums, np.repeat(np.arange(len(batch)), batch.lengths), table.floats(batch.ids))
    return unit_rows(sums)
