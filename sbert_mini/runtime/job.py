"""Encode a long input into a file so that an interruption costs seconds, not hours.

While a job runs, what is done lies beside the output, in the folder `OUT.partial`:

    vectors.npy     float32 rows, appended; its header is written at the end
    records.jsonl   each row as it was read, where the output holds it, and whether its values have types of their own
    state.json      how many rows are done, and what they were made from; ends with its own checksum

After each window of texts the files are flushed to the disk and `state.json` is replaced: that window is then kept whatever
happens. A resumed job cuts the files back to the last window that was kept and goes on after it. Windows begin at the same
texts as in an uninterrupted run, and a batch never reaches beyond its window, so the results are equal byte for byte. The
finished file takes its place in one step, and the folder is removed. Beside a file of int8 or uint8 values lies
`OUT.ranges.npy`: the low and the high of each component, (2, dim), with which `precision.restore_vectors` makes float32 vectors
of them again. They are the model's, so that a text has the same values in every file.
"""

import hashlib
import io
import itertools
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import numpy as np

from sbert_mini.errors import InputError, UsageError
from sbert_mini.files.durable import flush, flush_directory, read_sealed_json, write_durably, write_sealed_json
from sbert_mini.files.json_files import JOB_STATE
from sbert_mini.progress import Counted, expected
from sbert_mini.runtime.choices import Precision, Truncation
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.runtime.npy import HEADER_BYTES, npy_header
from sbert_mini.runtime.precision import check_precision, quantize_vectors
from sbert_mini.runtime.stream import WINDOW, EncodeCounts
from sbert_mini.shapes import AnyArray, FloatArray
from sbert_mini.text.records import Record
from sbert_mini.text.rows import (
    ROW_SUFFIXES,
    Columns,
    cell,
    check_row,
    column_of,
    named_row,
    need_pyarrow,
    table_line,
    unknown_format,
)

Output: TypeAlias = Literal["npy", "jsonl", "csv", "tsv", "parquet"]
OUTPUT_SUFFIXES: Mapping[str, Output] = {".npy": "npy", **ROW_SUFFIXES}
_BLOCK_ROWS = 8192

log = logging.getLogger("sbert_mini")


@dataclass(frozen=True)
class EncodeSettings:
    """What decides the vectors and the file; a resumed job must have the same.

    Attributes:
        precision: of the values in the file; the ranges of int8 and uint8 are the model's (`Embedder.component_ranges`).
        dim: components kept, or None for all.
        prompt: put before each text, or None for the model's own default.
        truncation: see `Embedder.encode`.
        batch_size: see `Embedder.encode`.
        window: texts that are sorted by length together, and kept together.
        columns: those of a row that stand beside its vector; None for all.
    """

    precision: Precision = "float32"
    dim: int | None = None
    prompt: str | None = None
    truncation: Truncation = "warn"
    batch_size: int = 32
    window: int = WINDOW
    columns: Sequence[str] | None = None


class EncodeJob:
    """Texts -> a file of vectors, in a way that can be interrupted and resumed.

    Args:
        output: the file, of one of `OUTPUT_SUFFIXES`; replaced if it exists. Rows keep their columns (`rows.named_row`)
            beside the vector, which is the column `embedding`, or in CSV and TSV a column a component: `e0`, `e1` and so on.
        embedder: the model.
        settings: what decides the vectors and the file.
        resume: go on with an interrupted job, if there is one.
        show_progress_bar: draw a progress bar on stderr.
        counts: filled in, if given.

    Raises:
        UsageError: the suffix or the precision is unknown; or an interrupted job lies there and `resume` is false, or its
            model or settings were others.
        MissingExtraError: the output is Parquet, and pyarrow is not installed.
    """

    def __init__(
        self,
        output: str | Path,
        embedder: Embedder,
        settings: EncodeSettings,
        *,
        resume: bool = False,
        show_progress_bar: bool = False,
        counts: EncodeCounts | None = None,
    ) -> None:
        self.output = Path(output)
        self.kind = output_kind(self.output)
        if self.output.is_dir() or not self.output.parent.is_dir():
            wrong = self.output if self.output.is_dir() else self.output.parent
            raise UsageError(f"{wrong} is {'a directory; name a file' if self.output.is_dir() else 'not a directory'}")
        if (
            self.output.exists() and not self.output.is_file()
        ):  # the finished file would take the place of a device or a pipe
            raise UsageError(
                f"{self.output} is not a regular file: name another output, or none for JSON lines on stdout"
            )
        self.folder = self.output.with_name(self.output.name + ".partial")
        self.done = 0
        self.counts = counts if counts is not None else EncodeCounts()
        check_precision(settings.precision)
        self._embedder = embedder
        self._settings = settings
        self._show_progress_bar = show_progress_bar
        self._dimension = embedder.dimension if settings.dim is None else settings.dim
        self._total: int | None = None
        self._rows = OutputRows(self.kind, self._dimension, settings.columns)
        self._records_bytes = 0
        self._digest = ""
        self._identity = {"fingerprint": embedder.fingerprint, "graph": embedder.graph, **vars(settings)}
        if settings.columns is not None:
            if self.kind == "npy":
                raise UsageError(
                    f"{self.output} holds vectors alone: name a .jsonl, .csv, .tsv or .parquet file to keep columns"
                )
            self._identity["columns"] = list(settings.columns)  # as JSON gives it back
        state = self.folder / "state.json"
        if self.folder.exists() and not resume:
            raise UsageError(
                f"{self.folder} holds an interrupted run: go on with it (resume=True), or delete that folder",
                "resume=True",
            )
        if state.exists():
            self._take_over(read_sealed_json(state, JOB_STATE, InputError))

    def __repr__(self) -> str:
        return f"EncodeJob({str(self.output)!r}, {self._embedder!r}, done={self.done})"

    def _take_over(self, state: Mapping[str, Any]) -> None:
        for key, value in self._identity.items():
            if key == "fingerprint" and state["job"].get(key) != value:
                before = state.get("model", "another model")
                same = " (of the same name, with other weights)" if before == self._embedder.model_name else ""
                raise UsageError(
                    f"{self.folder} was made with the model {before}{same}, and this run has {self._embedder.model_name}: "
                    "run it as before, or delete that folder",
                )
            if state["job"].get(key) != value:
                raise UsageError(
                    f"{self.folder} was made with {key} = {state['job'].get(key)!r}, and this run has {value!r}: "
                    "run it as before, or delete that folder"
                )
        if state["kind"] != self.kind:
            raise UsageError(f"{self.folder} was made for a {state['kind']} file, and this run writes {self.kind}")
        self.done = int(state["rows"])
        self._records_bytes = int(state["records_bytes"])
        self._digest = str(state["digest"])

    def run(self, records: Iterable[Record]) -> int:
        """Encode the records, write the output, and return its number of rows.

        Raises:
            InputError: there is no record, or a resumed job's first records are not those that it was made from. What is
                done stays, and so it does after any other exception.
        """
        self._total = expected(records)
        iterator = iter(records)
        try:
            digest = self._skip(iterator) if self.done else ""
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._opened("vectors.npy") as vectors, self._opened("records.jsonl") as lines:
                self._cut(vectors, HEADER_BYTES + self.done * self._dimension * 4)
                self._cut(lines, self._records_bytes)
                self._encode(iterator, digest, vectors, lines)
                if not self.done:
                    raise InputError("there is no text to encode")
                vectors.seek(0)
                vectors.write(npy_header(self.done, self._dimension))
                flush(vectors)
            self._finish()
        except BaseException:
            # An interruption may come between a window's being kept and its being counted: the disk knows.
            state = self.folder / "state.json"
            self.done = int(read_sealed_json(state, JOB_STATE, InputError)["rows"]) if state.exists() else 0
            if not self.done:
                shutil.rmtree(self.folder, ignore_errors=True)
            raise
        shutil.rmtree(self.folder, ignore_errors=True)
        return self.done

    def _skip(self, iterator: Iterator[Record]) -> str:
        """Read past the records that are done, making sure that they are the same ones."""
        digest, read = "", 0
        while read < self.done:
            block = list(itertools.islice(iterator, min(self._settings.window, self.done - read)))
            digest = self._chained(digest, block)
            read += len(block)
            if not block:
                break
        if digest != self._digest:
            raise InputError(
                f"the input is not the one that {self.folder} was made from: its first {self.done} texts differ. "
                "Resume with the same input, or delete that folder"
            )
        return digest

    def _opened(self, name: str) -> IO[bytes]:
        path = self.folder / name
        return path.open("r+b" if path.exists() else "w+b")

    @staticmethod
    def _cut(stream: IO[bytes], size: int) -> None:
        stream.truncate(size)
        stream.seek(size)

    def _encode(self, iterator: Iterator[Record], digest: str, vectors: IO[bytes], lines: IO[bytes]) -> None:
        windows = self._embedder.encode_records(
            Counted(iterator, self._total, self.done),
            batch_size=self._settings.batch_size,
            truncate_dim=self._settings.dim,
            prompt=self._settings.prompt,
            truncation=self._settings.truncation,
            window=self._settings.window,
            show_progress_bar=self._show_progress_bar,
            counts=self.counts,
        )
        for encoded, block in windows:
            vectors.write(np.ascontiguousarray(block, "<f4").tobytes())
            if self.kind != "npy":
                for record in encoded:
                    lines.write((json.dumps([record.typed, self._rows.of(record)]) + "\n").encode())
            flush(vectors)
            flush(lines)
            digest = self._chained(digest, encoded)
            state = {
                "job": self._identity,
                "kind": self.kind,
                "model": self._embedder.model_name,
                "rows": self.done + len(block),
                "records_bytes": lines.tell(),
                "digest": digest,
            }
            write_sealed_json(self.folder / "state.json", state)
            self.done += len(block)

    def _finish(self) -> None:
        file = self.folder / "vectors.npy"
        if not (self.kind == "npy" and self._settings.precision == "float32"):
            vectors: FloatArray = np.load(file, mmap_mode="r", allow_pickle=False)
            file = self.folder / f"finished.{self.kind}"
            self._write(file, self._quantized(vectors))
        ranges, ranges_file = self._ranges(), self.output.with_name(self.output.name + ".ranges.npy")
        if ranges is not None:
            written = io.BytesIO()
            np.save(written, ranges)
            write_durably(ranges_file, written.getbuffer())
        else:
            ranges_file.unlink(missing_ok=True)  # of an earlier file of this name
        file.replace(self.output)
        flush_directory(self.output.parent)

    def _write(self, file: Path, blocks: Iterator[AnyArray]) -> None:
        if self.kind == "npy":
            _write_npy(file, blocks)
            return
        rows = (row for _, row in self._stored_rows())
        if self.kind == "jsonl":
            _write_json_lines(file, blocks, rows)
            return
        columns = Columns()
        for typed, row in self._stored_rows():
            columns.add(row, typed=typed)
        if self.kind == "parquet":
            _write_parquet(file, blocks, rows, columns)
        else:
            _write_table(file, blocks, rows, columns, self.kind)

    def _ranges(self) -> FloatArray | None:
        if self._settings.precision not in ("int8", "uint8"):
            return None
        return self._embedder.component_ranges(self._settings.dim)

    def _quantized(self, vectors: FloatArray) -> Iterator[AnyArray]:
        ranges = self._ranges()
        for start in range(0, len(vectors), _BLOCK_ROWS):
            yield quantize_vectors(np.asarray(vectors[start : start + _BLOCK_ROWS]), self._settings.precision, ranges)

    def _stored_rows(self) -> Iterator[tuple[bool, dict[str, Any]]]:
        with (self.folder / "records.jsonl").open(encoding="utf-8") as stream:
            for line in stream:
                typed, row = json.loads(line)
                yield typed, row

    def _chained(self, digest: str, records: list[Record]) -> str:
        """Return a checksum of all records so far, from the one before and what the output holds of the records since."""
        chain = hashlib.sha256(digest.encode())
        for record in records:
            content = [record.id, record.text] if self.kind == "npy" else [record.typed, named_row(record)]
            chain.update(json.dumps(content).encode() + b"\n")
        return chain.hexdigest()


def output_kind(path: Path) -> Output:
    """Return the kind of file that a path's suffix names.

    Raises:
        UsageError: it is none of `OUTPUT_SUFFIXES`.
        MissingExtraError: it is Parquet, and pyarrow is not installed.
    """
    kind = OUTPUT_SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise unknown_format(path, OUTPUT_SUFFIXES)
    if kind == "parquet":
        need_pyarrow()
    return kind


class OutputRows:
    """Records -> the rows that stand beside the vectors of an output.

    A column of the input that has the name of a column of the vectors is left out for it, with a warning at the first one.

    Args:
        kind: of the output.
        dimension: components of a vector.
        columns: those that are kept; None for all.
    """

    def __init__(self, kind: Output, dimension: int, columns: Sequence[str] | None = None) -> None:
        self._kind = kind
        self._columns = None if columns is None else dict.fromkeys(columns)
        self._checked = columns is None
        self._taken = (
            frozenset(f"e{i}" for i in range(dimension)) if kind in ("csv", "tsv") else frozenset(["embedding"])
        )
        self._warned = False

    def of(self, record: Record) -> dict[str, Any]:
        """Return a record's row. A kept column that a later row lacks is left out there.

        Raises:
            InputError: the format cannot hold it, or it is the first row and lacks a kept column.
        """
        row = named_row(record)
        if self._columns is not None:
            if not self._checked:
                for name in self._columns:
                    column_of(row, name, record.place)
                self._checked = True
            row = {name: value for name, value in row.items() if name in self._columns}
        replaced = sorted(self._taken.intersection(row))
        if replaced and not self._warned:
            log.warning("the input's columns %s are replaced by those of the new vectors", ", ".join(replaced))
            self._warned = True
        for name in replaced:
            del row[name]
        check_row(row, self._kind, record.place)
        return row


def json_line(row: Mapping[str, Any], vector: AnyArray) -> str:
    """Return a row and its vector, as `embedding`, as a line of JSON."""
    numbers = ", ".join(vector.astype(str))  # the shortest digits that give the same float32 back
    named = json.dumps(row, ensure_ascii=False)[:-1] + (", " if row else "")
    return f'{named}"embedding": [{numbers}]}}\n'


def _write_npy(file: Path, blocks: Iterator[AnyArray]) -> None:
    rows, width, descr = 0, 0, ""
    with file.open("wb") as stream:
        stream.seek(HEADER_BYTES)
        for block in blocks:
            stream.write(np.ascontiguousarray(block).tobytes())
            rows, width, descr = rows + len(block), block.shape[1], block.dtype.str
        stream.seek(0)
        stream.write(npy_header(rows, width, descr))
        flush(stream)


def _write_json_lines(file: Path, blocks: Iterator[AnyArray], rows: Iterator[dict[str, Any]]) -> None:
    with file.open("w", encoding="utf-8") as stream:
        for block in blocks:
            for vector in block:
                stream.write(json_line(next(rows), vector))
        flush(stream)


def _write_table(
    file: Path,
    blocks: Iterator[AnyArray],
    rows: Iterator[dict[str, Any]],
    columns: Columns,
    kind: Literal["csv", "tsv"],
) -> None:
    with file.open("w", encoding="utf-8", newline="\n") as stream:
        header = columns.names
        for block in blocks:
            if header:
                stream.write(table_line([*header, *(f"e{i}" for i in range(block.shape[1]))], kind))
                header = []
            for vector in block:
                row = next(rows)
                fields = [cell(row.get(name)) for name in columns.names]
                stream.write(table_line([*fields, *vector.astype(str)], kind))
        flush(stream)


def _write_parquet(file: Path, blocks: Iterator[AnyArray], rows: Iterator[dict[str, Any]], columns: Columns) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    writer = None
    stream = file.open("wb")  # Arrow opens no file whose name is not UTF-8
    try:
        for block in blocks:
            arrays = columns.arrays(list(itertools.islice(rows, len(block))))
            flat = arrow.array(np.ascontiguousarray(block).reshape(-1))
            table = arrow.table({**arrays, "embedding": arrow.FixedSizeListArray.from_arrays(flat, block.shape[1])})
            writer = writer or parquet.ParquetWriter(stream, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
        stream.close()
    with file.open("rb+") as written:
        os.fsync(written.fileno())
