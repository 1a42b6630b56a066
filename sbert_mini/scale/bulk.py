"""Bulk encoding on Ray Data: many files of texts -> Parquet shards of ids and vectors, on one machine or a cluster.

Ray schedules, moves blocks, retries what died, and keeps a checkpoint of the ids that are written; here stand the reading of this
project's files and the model, which each actor opens once. Ray's own numbers of retries are left as they are: with others a
node's death ended the job.

Shards hold `id`, `vector` (a list of float32 of fixed size) and `truncated` (whether the text was longer than the model reads),
in no order. All nodes must see the files and the output folder
under the same paths: a network file system, or one machine.
"""

import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sbert_mini.errors import InputError, MissingExtraError, SbertMiniError, UsageError
from sbert_mini.files.durable import is_part, read_sealed_json, write_sealed_json
from sbert_mini.files.json_files import BULK_JOB
from sbert_mini.files.paths import is_utf8
from sbert_mini.model.choices import Graph
from sbert_mini.runtime.choices import Truncation
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.runtime.engine import thread_count
from sbert_mini.runtime.stream import WINDOW, EncodeCounts
from sbert_mini.text.limits import MAX_ROW_BYTES, WINDOW_BYTES
from sbert_mini.text.records import inputs, read_records

CHECKPOINT, JOB = "_checkpoint", "_job.json"
BLOCK_BYTES = 4 << 20
"""The workers read their input, and write their shards, in pieces of this size."""
ACTOR_CPUS = 0
"""CPUs that an actor reserves: reading needs a whole CPU of one node, and Ray waits forever if the actors leave none."""

log = logging.getLogger("sbert_mini")


@dataclass(frozen=True)
class BulkSettings:
    """The settings that determine the vectors; a resumed job must have the same.

    Attributes:
        model: a name or a directory, as `Embedder` takes it, that every node can open.
        graph: `int8` or `fp32`.
        text_column: of files with columns; of several the texts are joined (`read_records`).
        text_separator: stands between joined texts.
        id_column: of files with columns; without one an id is the file's path and line.
        dim: components kept, or None for all.
        prompt: put before each text, or None for the model's own default.
        truncation: see `Embedder.encode`; of a text that was cut or split `truncated` is true in the shards.
        batch_size: see `Embedder.encode`.
        max_row_bytes: see `read_records`.
        trust_tokenizer: see `Embedder`.
    """

    model: str | None = None
    graph: Graph = "int8"
    text_column: str | Sequence[str] | None = None
    text_separator: str = " "
    id_column: str | None = None
    dim: int | None = None
    prompt: str | None = None
    truncation: Truncation = "warn"
    batch_size: int = 32
    max_row_bytes: int = MAX_ROW_BYTES
    trust_tokenizer: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the settings that a resumed job must have in common with the first run."""
        text = self.text_column
        texts = [text] if isinstance(text, str) else list(text or [])
        values = {**asdict(self), "text_column": texts[0] if len(texts) == 1 else texts or None}
        del values["max_row_bytes"], values["trust_tokenizer"]
        if len(texts) < 2:  # nothing is joined
            del values["text_separator"]
        return values


@dataclass
class BulkCounts:
    """Counts of a job.

    Attributes:
        rows: rows of all shards.
        kept: rows among them that an earlier run wrote.
        shards: files.
        truncated: rows whose texts were longer than the model reads.
    """

    rows: int = 0
    kept: int = 0
    shards: int = 0
    truncated: int = 0


def _arrow_rows(file: str, settings: BulkSettings) -> Iterator[Any]:
    """Yield a file's rows as Arrow tables of id and text."""
    import pyarrow as pa

    ids: list[str] = []
    texts: list[str] = []

    def table() -> Any:
        made = pa.table({"id": pa.array(ids, pa.string()), "text": pa.array(texts, pa.string())})
        ids.clear()
        texts.clear()
        return made

    records = read_records(
        file,
        text_column=settings.text_column,
        text_separator=settings.text_separator,
        id_column=settings.id_column,
        max_row_bytes=settings.max_row_bytes,
    )
    shown = os.fsencode(file).decode("utf-8", "backslashreplace")
    size = 0
    for record in records:
        ids.append(record.id if record.id is not None else f"{shown}:{record.line}")
        texts.append(record.text)
        size += sys.getsizeof(record.text)
        if len(ids) == WINDOW or size >= WINDOW_BYTES:
            yield table()
            size = 0
    if ids:
        yield table()


def _opened(settings: BulkSettings, *, threads: int, offline: bool) -> Embedder:
    trust = settings.trust_tokenizer
    return Embedder(settings.model, graph=settings.graph, threads=threads, offline=offline, trust_tokenizer=trust)


class _Encoder:
    """An actor's model."""

    def __init__(self, settings: BulkSettings, threads: int) -> None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        self._settings = settings
        self._embedder = _opened(settings, threads=threads, offline=True)

    def __call__(self, table: Any) -> Any:
        import pyarrow as pa

        s, counts, texts = self._settings, EncodeCounts(), table["text"].to_pylist()
        vectors = self._embedder.encode(
            texts,
            batch_size=s.batch_size,
            prompt=s.prompt,
            truncation=s.truncation,
            truncate_dim=s.dim,
            counts=counts,
        )
        flat = pa.array(vectors.reshape(-1), pa.float32())
        lists = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        longer = self._embedder.are_longer(texts, prompt=s.prompt) if counts.truncated else [False] * len(texts)
        return pa.table({"id": table["id"], "vector": lists, "truncated": pa.array(longer, pa.bool_())})


def threads_each(workers: int, threads: int | None = None) -> int:
    """Return the threads of each worker: `threads`, else $SBMINI_THREADS or $OMP_NUM_THREADS, else its share of the cores.

    Raises:
        UsageError: the number, or the variable, is not a whole number that `thread_count` takes.
    """
    if threads is not None or os.environ.get("SBMINI_THREADS") or os.environ.get("OMP_NUM_THREADS"):
        return thread_count(threads)
    return max(thread_count() // workers, 1)


def encode_files(
    files: Sequence[str | Path],
    output: str | Path,
    settings: BulkSettings | None = None,
    *,
    address: str | None = None,
    workers: int = 1,
    threads: int | None = None,
    resume: bool = False,
    offline: bool = False,
    show_progress_bar: bool = False,
    on_start: Callable[[], None] | None = None,
) -> BulkCounts:
    """Encode files into a folder of Parquet shards, and return the counts; every id stands in them once.

    Args:
        files: txt, csv, tsv, jsonl (gzipped or not) or Parquet.
        output: a folder; absent or empty, or one that an interrupted job left.
        settings: the model and what decides the vectors.
        address: of a Ray cluster; None for one on this machine, which listens on 127.0.0.1 and ends with the job.
        workers: actors, each with a model of its own.
        threads: of each actor; None for `threads_each`.
        resume: go on with an interrupted job: ids that it wrote are not encoded again.
        offline: open no socket when the model is looked for here; workers never do, and take it from where it lies.
        show_progress_bar: let Ray draw its progress bars on stderr.
        on_start: called once Ray is connected.

    Raises:
        UsageError: no file is named, or the folder holds something else, or was made with other settings.
        InputError: two rows have the same id, or a file cannot be read.
        MissingExtraError: Ray is not installed.
    """
    settings, threads = settings or BulkSettings(), threads_each(workers, threads)
    folder = Path(output).resolve()
    names = [str(Path(file).resolve()) for file in files]
    inputs(names)
    if not is_utf8(folder):
        raise UsageError(f"the output folder {folder} must have a name in UTF-8: Ray writes to no other")
    fingerprint = _opened(settings, threads=1, offline=offline).fingerprint
    job = {"files": names, "fingerprint": fingerprint, **settings.to_json()}
    finished = _begin(folder, job, resume)
    if finished is not None:
        return finished
    resumed_rows = _checkpointed(folder)
    with _connected(address, on_start) as ray:
        _encode(ray, names, folder, settings, workers=workers, threads=threads, show_progress_bar=show_progress_bar)
    counts = _checked(folder, resumed_rows)
    write_sealed_json(folder / JOB, {**job, "finished": {**vars(counts), "kept": counts.rows}})
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
    return counts


@contextmanager
def _connected(address: str | None, on_start: Callable[[], None] | None) -> Iterator[Any]:
    """Connect to a cluster, or start Ray on this machine, and yield the module `ray`; stop what was started.

    Raises:
        MissingExtraError: Ray is not installed.
        SbertMiniError: a worker failed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault(
        "RAY_BACKEND_LOG_LEVEL", "fatal"
    )  # its core writes to stderr when a job ends as it should, too
    if address is None:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # keeps Ray on 127.0.0.1
    try:
        import ray
        import ray.data
        import ray.data.checkpoint
    except ModuleNotFoundError as error:
        raise MissingExtraError("bulk encoding with --engine ray", "ray", "ray") from error
    is_ours = not ray.is_initialized()
    if is_ours:
        ray.init(address=address or "local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        if on_start is not None:
            on_start()
        yield ray
    except ray.exceptions.RayError as error:
        raise _cause(error) from error
    finally:
        if is_ours:
            ray.shutdown()


def _encode(
    ray: Any,
    files: list[str],
    folder: Path,
    settings: BulkSettings,
    *,
    workers: int,
    threads: int,
    show_progress_bar: bool,
) -> None:
    """Encode the files' rows that Ray's checkpoint does not have, and write them as shards into the folder."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = show_progress_bar
    context.target_max_block_size = BLOCK_BYTES
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is raised here too
    context.checkpoint_config = ray.data.checkpoint.CheckpointConfig(
        id_column="id", checkpoint_path=str(folder / CHECKPOINT), delete_checkpoint_on_success=False
    )
    dataset = ray.data.read_datasource(_source(files, settings), override_num_blocks=len(files))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of ray_remote_args, and nothing replaces it for SPREAD
        encoded = dataset.map_batches(
            _Encoder,
            fn_constructor_args=(settings, threads),
            batch_format="pyarrow",
            batch_size=WINDOW,
            zero_copy_batch=True,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=ACTOR_CPUS,
            scheduling_strategy="SPREAD",
        )
    encoded.write_parquet(str(folder), mode=ray.data.SaveMode.APPEND)


def _source(files: list[str], settings: BulkSettings) -> Any:
    """Return the files as a Ray datasource: one read task a file."""
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    def reader(file: str) -> Callable[[], Iterable[Any]]:
        return lambda: _arrow_rows(file, settings)

    class Files(Datasource):
        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[Any]:  # noqa: ARG002
            about = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [ReadTask(reader(file), about) for file in files]

    return Files()  # type: ignore[no-untyped-call]


def _cause(error: BaseException) -> SbertMiniError:
    """Return what went wrong in a worker: an error of this package's own, or what Ray says in its last line."""
    cause = getattr(error, "cause", None)
    lines = str(error if cause is None else cause).strip().splitlines()
    if isinstance(cause, SbertMiniError):  # a line of ours, and advice of Ray's below it
        return type(cause)(lines[0])
    return InputError(
        f"Ray could not finish; the written shards are kept, and the same job can be resumed: {lines[-1][:500]}"
    )


def _begin(folder: Path, job: dict[str, Any], resume: bool) -> BulkCounts | None:
    """Make the folder, or check what is in it; return the result of a job that is finished already."""
    record = folder / JOB
    if record.exists():
        earlier = read_sealed_json(record, BULK_JOB, InputError)
        if not resume:
            raise UsageError(f"{folder} holds a job already: continue it (resume=True), or delete it", "resume=True")
        for key, value in job.items():
            if earlier.get(key) != value:
                raise UsageError(f"{folder} was made with {key} = {earlier.get(key)!r}, and this run has {value!r}")
        if "finished" not in earlier:
            return None
        names = {f.name for f in fields(BulkCounts)}
        return BulkCounts(**{name: count for name, count in earlier["finished"].items() if name in names})
    foreign = (
        sorted(entry.name for entry in folder.iterdir() if not is_part(entry.name, JOB)) if folder.exists() else []
    )
    if foreign:  # a part of JOB is what a run left that was killed before it renamed it
        raise UsageError(f"{folder} must be empty or absent, and holds {foreign[0]}")
    folder.mkdir(parents=True, exist_ok=True)
    write_sealed_json(record, job)
    return None


def _checkpointed(folder: Path) -> int:
    """Return how many rows Ray's checkpoint counts as written; what it calls pending is removed when a job goes on."""
    import pyarrow.parquet as pq

    files = (file for file in (folder / CHECKPOINT).rglob("*.parquet") if not file.name.endswith(".pending.parquet"))
    return sum(pq.read_metadata(file).num_rows for file in files)


def _checked(folder: Path, resumed_rows: int) -> BulkCounts:
    """Count the rows, and check that every id occurs once."""
    import pyarrow.parquet as pq

    counts, seen = BulkCounts(kept=resumed_rows), set[str]()
    for shard in sorted(folder.glob("*.parquet")):
        table = pq.read_table(shard, columns=["id", "truncated"])
        ids = table["id"].to_pylist()
        counts.truncated += sum(table["truncated"].to_pylist())
        counts.shards += 1
        counts.rows += len(ids)
        known = seen & set(ids)
        before = len(seen)
        seen.update(ids)
        if len(seen) != before + len(ids):
            twice = next(identity for identity in ids if identity in known or ids.count(identity) > 1)
            raise InputError(f"{folder} holds the id {twice!r} twice: the files must name each id once")
    return counts
