"""A model directory -> the graphs of the torch-free runtime, made once and found again.

    onnx/model.onnx        float32
    onnx/model_int8.onnx   int8
    onnx/sbmini.json       what they were made from, their checksums, and the model's fingerprint
    onnx/ranges.json       the ranges of the vectors' components, for 8-bit vectors, and the fingerprint of the model they are of

They go into the model directory where it is writable and holds no `onnx/model.onnx` of another tool, else into the user's
cache; graphs of a model in the Hugging Face cache go into ours, and so do those of a model whose `onnx/` or `heads/` is a
symbolic link. The record tells when the directory's weights, tokenizer or pooling are no longer those that the graphs were made
from; then they are made again, and so they are where a graph is missing.
A task with projected attention layers has graphs of its own, in `heads/<task>/onnx/`.
A directory without safetensors (as a package may ship it) is taken at its record's word. It may hold the int8 graph alone: the
other one is then made of the weights that this graph computes with (`model.int8_weights`), in the cache.
"""

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sbert_mini.errors import CorruptModelError, UsageError
from sbert_mini.files.names import has_link
from sbert_mini.model.choices import Graph
from sbert_mini.model.layout import GRAPH_FILES, GRAPH_RECORD, ModelLayout, graphs_folder, head_folder, read_layout
from sbert_mini.model.registry import cache_dir
from sbert_mini.model.weights import weight_files
from sbert_mini.runtime.convert import convert
from sbert_mini.runtime.fingerprint import file_sha256, has_safetensors, sha256_of, source_digests
from sbert_mini.runtime.graph import Adapter
from sbert_mini.runtime.graph_record import is_fresh, read_ranges, read_record, write_ranges
from sbert_mini.runtime.precision import ComponentRanges, measure_ranges
from sbert_mini.shapes import FloatArray

log = logging.getLogger("sbert_mini")


@dataclass(frozen=True)
class ConvertedModel:
    """A graph on disk, or a static model's table of token vectors.

    Attributes:
        layout: the model directory's description.
        graph: which graph it is.
        file: the ONNX file, or the table.
        sha256: the file's checksum, in hexadecimal.
        fingerprint: sha256 over the model's weights, tokenizer, pooling and greatest length; the same for both graphs.
        read_only: write nothing into the model directory.
    """

    layout: ModelLayout
    graph: Graph
    file: Path
    sha256: str
    fingerprint: str
    read_only: bool = False


def start_check(converted: ConvertedModel) -> Callable[[], None]:
    """Begin to compare a graph with its checksum, on a thread. What is returned waits for the end of it.

    Raises:
        CorruptModelError: from what is returned: the file is another than the record says.
    """
    digests: list[str] = []

    def measure() -> None:
        with suppress(CorruptModelError):  # then there is no checksum: the error says so
            digests.append(file_sha256(converted.file))

    thread = threading.Thread(target=measure, daemon=True)
    thread.start()

    def finish() -> None:
        thread.join()
        if digests != [converted.sha256]:
            raise CorruptModelError(
                f"{converted.file} does not match its checksum: it is damaged. Delete the folder {converted.file.parent}, "
                "and the graphs are made again from the model's weights"
            )

    return finish


def check_kind(kind: str) -> None:
    """Raise `UsageError` unless there are graphs of a kind."""
    if kind not in GRAPH_FILES:
        raise UsageError(f"graph must be one of {', '.join(sorted(GRAPH_FILES))}; found {kind!r}")


def find(
    path: str | Path | ModelLayout,
    kind: Graph = "int8",
    adapter: Adapter | None = None,
    *,
    trust_tokenizer: bool = False,
    read_only: bool = False,
) -> ConvertedModel:
    """Return the graph `kind` of the model directory `path`, converting the model first if it has none.

    `path` may be the directory's layout, where the caller has it. With `adapter`, a task's projected attention layers, it is that
    task's graph. `trust_tokenizer` takes a `tokenizer.json` that is not BERT's. `read_only` puts what is made into the cache, and
    writes nothing into the directory.

    Raises:
        UsageError: `kind` is unknown.
        MissingExtraError: it must be converted, and the package `onnx` is not installed.
        UnsupportedModelError: the directory holds a model that this package does not run.
        CorruptModelError: a file is missing or damaged.
    """
    check_kind(kind)
    layout = path if isinstance(path, ModelLayout) else read_layout(path)
    layout.require_encoder()
    sources = source_digests(layout)
    parent, names = layout.path, [str(layout.path.resolve())]
    if adapter is not None:
        parts = [f"{name} {array.shape}".encode() + array.tobytes() for name, array in sorted(adapter.weights.items())]
        sources["adapter"] = sha256_of(str(adapter.heads).encode(), *parts)
        parent, names = head_folder(layout.path, adapter.task), [*names, adapter.task]
    digest = sha256_of(*(os.fsencode(name) for name in names))[:32]
    for folder in _folders(parent, digest):
        record = read_record(folder)
        if record is not None and kind in record["graphs"] and is_fresh(record, sources, layout, folder):
            break
    else:
        weight_files(layout.encoder_path)  # raises where there is nothing to convert: says what is missing
        linked = has_link(graphs_folder(parent), layout.path)
        beside = not read_only and has_safetensors(layout) and not linked and _takes_graphs(parent)
        folder = graphs_folder(parent) if beside else _writable_cache(digest)
        log.warning("converting %s to ONNX, once, into %s", parent, folder)
        record = convert(layout, folder, adapter, sources, trust_tokenizer=trust_tokenizer)
    entry = record["graphs"][kind]
    return ConvertedModel(layout, kind, folder / GRAPH_FILES[kind], entry["sha256"], record["fingerprint"], read_only)


def is_converted(path: Path, kind: Graph) -> bool:
    """Return whether `find` needs to write nothing for a model directory: its graph is there, and fresh.

    Raises:
        UnsupportedModelError, CorruptModelError: as in `find`.
    """
    layout = read_layout(path)
    if layout.table is not None:
        return True
    sources = source_digests(layout)
    for folder in _folders(layout.path, sha256_of(os.fsencode(str(layout.path.resolve())))[:32]):
        record = read_record(folder)
        if record is not None and kind in record["graphs"] and is_fresh(record, sources, layout, folder):
            return True
    return False


def find_ranges(converted: ConvertedModel, name: str, encode: Callable[[Sequence[str]], FloatArray]) -> ComponentRanges:
    """Return the ranges of a model's vectors: those that were made with its graphs, else new ones, which are kept.

    They are kept beside the graphs, or in the cache, under the model's directory and fingerprint: a stranger's model may have a
    record with the fingerprint of yours.

    Args:
        converted: the model.
        name: of the model, for people.
        encode: returns the vectors of texts, all components of them and without a prompt.
    """
    beside = converted.file.parent
    folders = [] if converted.read_only and beside.is_relative_to(converted.layout.path) else [beside]
    with suppress(UsageError):  # without a home directory there is no cache
        directory = os.fsencode(converted.layout.path.resolve())
        folders.append(cache_dir() / "ranges" / sha256_of(directory, converted.fingerprint.encode())[:32])
    for folder in (graphs_folder(converted.layout.path), beside, *folders):
        ranges = read_ranges(folder, converted.fingerprint, converted.layout.dimension)
        if ranges is not None:
            return ranges
    from sbert_mini.runtime.quantization import calibration_texts

    log.warning("measuring the ranges of 8-bit vectors of %s, once", name)
    ranges = measure_ranges(encode(calibration_texts()))
    for folder in folders:
        if not _in_hub_cache(folder) and not has_link(folder, converted.layout.path) and _is_writable(folder):
            write_ranges(folder, ranges, converted.fingerprint)
            break
    return ranges


def _in_hub_cache(path: Path) -> bool:
    """Return whether the path is of the Hugging Face cache, which is shared with tools that expect their own files there."""
    return any(parent.name == "snapshots" for parent in path.parents)


def _folders(parent: Path, digest: str) -> Iterator[Path]:
    """Yield where the graphs of a model may lie; a cache is looked for only when the first folder does not serve."""
    yield graphs_folder(parent)
    with suppress(UsageError):  # without a home directory there is no cache
        yield cache_dir() / "graphs" / digest


def _takes_graphs(path: Path) -> bool:
    """Return whether graphs may be written into a model directory, and can be."""
    folder = graphs_folder(path)
    if _in_hub_cache(path):
        return False
    foreign = not (folder / GRAPH_RECORD).is_file() and any((folder / name).exists() for name in GRAPH_FILES.values())
    return not foreign and _is_writable(folder)


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _writable_cache(digest: str) -> Path:
    """Return a model's folder in the cache, made.

    Raises:
        UsageError: there is no place for a cache, or it cannot be written.
    """
    folder = cache_dir() / "graphs" / digest
    if not _is_writable(folder):
        raise UsageError(
            f"the converted model cannot be kept in {folder}, which cannot be written: set SBMINI_CACHE_DIR to a folder that can"
        )
    return folder
