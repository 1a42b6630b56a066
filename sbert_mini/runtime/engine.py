"""What computes a graph: token ids -> sentence vectors. Native code where it can, else ONNX Runtime, an extra; no torch."""

import os
import platform
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from sbert_mini.errors import CorruptModelError, MissingExtraError, UnsupportedModelError, UsageError, install_command
from sbert_mini.files.paths import is_utf8
from sbert_mini.files.reading import check_regular
from sbert_mini.model.layout import ModelLayout
from sbert_mini.runtime.choices import BACKENDS, Backend
from sbert_mini.runtime.graphs import ConvertedModel, start_check
from sbert_mini.runtime.onnx_runtime import has_onnxruntime, import_onnxruntime, session_options
from sbert_mini.shapes import FloatArray
from sbert_mini.text.batching import pad
from sbert_mini.text.tokens import Tokens

CPU_TOKENS = 512
"""Tokens of a batch, padding included: larger batches are no faster on a CPU, and take more memory."""


MOST_THREADS = 4096


def thread_count(threads: int | None = None) -> int:
    """Return how many threads to compute with: `threads`, else `$SBMINI_THREADS`, else `$OMP_NUM_THREADS`, else one a core.

    "A core" is one that this process may run on.

    Raises:
        UsageError: the number, or the variable, is not a whole number from 1 to `MOST_THREADS`.
    """
    source, value = "threads", str(threads)
    if threads is None:
        for source in ("SBMINI_THREADS", "OMP_NUM_THREADS"):
            value = os.environ.get(source, "").partition(",")[0].strip()  # OMP_NUM_THREADS may list one a nesting level
            if value:
                break
        else:
            return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not value.isdecimal() or len(value) > len(str(MOST_THREADS)) or not 1 <= int(value) <= MOST_THREADS:
        raise UsageError(f"{source} must be a whole number from 1 to {MOST_THREADS}; found {value[:40]!r}", source)
    return int(value)


@cache
def int8_products_may_saturate() -> bool:
    """Return whether this processor adds pairs of uint8 x int8 products in 16 bits, which can overflow.

    x86-64 without VNNI does. There the graph's products are run as uint8 x uint8, which is slower and right.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text("ascii", errors="replace")
    except OSError:
        return True
    return "avx512_vnni" not in flags and "avx_vnni" not in flags


class Engine(Protocol):
    """What computes a model's vectors.

    Attributes:
        tokens_per_batch: how many tokens, padding included, it computes best at a time.
        divides_batches: whether several threads may compute one batch together. A batch alone is computed in the calling thread
            then; else in a thread of its own, because torch keeps threads for each thread that calls it, which a fork loses.
    """

    tokens_per_batch: int
    divides_batches: bool

    @property
    def name(self) -> str:
        """What computes, for people."""

    def run(self, tokens: Sequence[Tokens], threads: int = 1) -> FloatArray:
        """Return the sentence vectors of a batch, (batch, dim), each of length 1. Several threads may call it at once.

        Args:
            tokens: of the texts.
            threads: how many may compute the batch together, where an engine can split one; the vectors are the same.
        """

    def run_tokens(self, tokens: Sequence[Tokens]) -> list[FloatArray]:
        """Return the vectors of each text's tokens, (seq, hidden), as the encoder's last layer gives them."""


def requested_backend() -> Backend | None:
    """Return the backend that `$SBMINI_BACKEND` names; None where it is not set.

    Raises:
        UsageError: it names none.
    """
    value = os.environ.get("SBMINI_BACKEND", "").strip()
    for backend in BACKENDS:
        if value == backend:
            return backend
    if value:
        raise UsageError(f"SBMINI_BACKEND must be one of {', '.join(BACKENDS)}; found {value[:40]!r}")
    return None


def open_engine(converted: ConvertedModel, backend: Backend | None = None, device: str | None = None) -> Engine:
    """Return what computes a model.

    Args:
        converted: the graph on disk, and the model that it was made from.
        backend: None for `$SBMINI_BACKEND`, else native code where that can be, else ONNX Runtime; on a device other than the
            CPU, torch.
        device: a torch device; None for the CPU.

    Raises:
        UsageError: the backend is unknown, or cannot compute this model here; there is no such device.
        MissingExtraError: torch or ONNX Runtime is asked for or needed, and not installed.
        CorruptModelError: the file is damaged.
    """
    if backend not in (None, *BACKENDS):
        raise UsageError(f"backend must be one of {', '.join(BACKENDS)}; found {backend!r}")
    on_cpu = device in (None, "cpu")
    if backend is None and on_cpu:
        backend = requested_backend()
    if backend == "torch" or (backend is None and not on_cpu):
        try:
            from sbert_mini.encoder.on_device import DeviceEngine
        except ModuleNotFoundError as error:
            raise MissingExtraError("computing with torch", "torch", "train") from error
        return DeviceEngine(converted.layout, device or "cpu")
    if not on_cpu:
        raise UsageError(f"the backend {backend} computes on the CPU alone, not on {device}")
    if backend == "onnx":
        return OnnxEngine(converted)
    engine, reason = _open_native(converted, backend)
    if engine is not None:
        return engine
    if backend is not None:
        raise UsageError(f"the backend {backend} does not compute this model here: {reason}")
    if not has_onnxruntime():
        raise MissingExtraError(f"native code does not compute this model here ({reason}); it", "onnxruntime", "onnx")
    return OnnxEngine(converted)


def _open_native(converted: ConvertedModel, backend: Backend | None) -> tuple[Engine | None, str]:
    """Return native code's engine, or what a trial found faster; None and the reason where there is none."""
    from sbert_mini.runtime.native import NativeEngine, why_not
    from sbert_mini.runtime.native_library import LEVELS, levels
    from sbert_mini.runtime.trial import UNTIMED, faster_of

    reason = why_not(converted.layout, converted.graph)
    if reason is not None:
        return None, reason
    level = backend if backend in LEVELS else None
    if level not in (None, *levels()):
        return None, f"this processor has no {level}; it has {', '.join(levels())}"
    try:
        engine = NativeEngine(converted, level)
    except UnsupportedModelError as error:  # a graph of an earlier version, whose constants have no names
        return None, str(error)
    if backend is None and engine.level in UNTIMED and has_onnxruntime():
        return faster_of(engine, lambda: OnnxEngine(converted), converted.layout.config), ""
    return engine, ""


def describe_backend(layout: ModelLayout) -> tuple[str, str]:
    """Return what computes the int8 graph of a model here, and why."""
    from sbert_mini.runtime.native import why_not
    from sbert_mini.runtime.native_library import levels
    from sbert_mini.runtime.trial import UNTIMED, recorded

    if layout.table is not None:
        from sbert_mini.runtime.table_engine import describe

        return describe()
    requested = requested_backend()
    if requested not in (None, "native"):
        return str(requested), "SBMINI_BACKEND asks for it"
    reason = why_not(layout)
    if reason is not None:
        missing = "" if has_onnxruntime() else f"; it is not installed: {install_command('onnx')}"
        return "onnx", f"native code does not compute this model: {reason}{missing}"
    fastest = levels()[-1]
    if requested is None and fastest in UNTIMED and has_onnxruntime():
        winner = recorded(fastest, layout.config)
        if winner is None:
            return f"{fastest} or onnx", "a trial at the first use decides"
        return fastest if winner == "native" else winner, "it was faster in a trial on this machine"
    return fastest, f"the fastest that this processor has of {', '.join(levels())}"


OPERATORS = frozenset(
    {
        "Add",
        "Attention",
        "BiasGelu",
        "Cast",
        "Concat",
        "Div",
        "FastGelu",
        "Gather",
        "Gelu",
        "Identity",
        "MatMul",
        "MatMulIntegerToFloat",
        "Max",
        "Mul",
        "MultiHeadAttention",
        "QuantizeLinear",
        "Range",
        "ReduceL2",
        "ReduceMax",
        "ReduceSum",
        "Relu",
        "Shape",
        "SkipLayerNormalization",
        "Slice",
        "Sqrt",
        "Squeeze",
        "Tanh",
        "Unsqueeze",
        "Where",
    }
)
"""The operators of the graphs that `runtime.graph` writes."""


def check_graph(converted: ConvertedModel) -> None:
    """Make sure that a graph holds what this package writes, and that its constants have the sizes that `config.json` gives.

    Raises:
        CorruptModelError: it holds something else, or they have not.
    """
    from sbert_mini.model.layout import SizesDifferError
    from sbert_mini.model.onnx_file import OnnxFile

    again = f"delete the folder {converted.file.parent}, and the graphs are made again from the model's weights"
    try:
        with OnnxFile(converted.file) as graph:
            kinds = {node.kind for node in graph.nodes}
            converted.layout.config.check_constants({name: c.shape for name, c in graph.constants.items()})
    except SizesDifferError as error:
        raise CorruptModelError(f"{converted.file}: {error}") from error
    except CorruptModelError as error:
        raise CorruptModelError(f"{error}; {again}") from error
    if not kinds <= OPERATORS:
        raise CorruptModelError(
            f"{converted.file} holds the operator {min(kinds - OPERATORS)[:40]!r}, which no graph of sbert-mini has: {again}"
        )


class OnnxEngine:
    """A graph, opened by ONNX Runtime.

    One session that computes in the thread that calls it: several threads may call `run` at the same time.

    Args:
        converted: the graph on disk.
        wide_int8: whether int8 products are computed in the slower way that cannot overflow on any processor; None for
            where it is needed (`int8_products_may_saturate`).

    Raises:
        CorruptModelError: the file does not match its checksum, is no graph of ours, or has other sizes than `config.json` gives.
    """

    def __init__(self, converted: ConvertedModel, *, wide_int8: bool | None = None) -> None:
        finish_check = start_check(converted)  # beside the import and the opening, which wait for the disk and one core
        onnxruntime = import_onnxruntime("computing with ONNX Runtime")
        onnxruntime.set_default_logger_severity(4)  # what fails is raised
        options = session_options(onnxruntime)
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # shapes differ from run to run: patterns would only pile up
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_DISABLE_ALL  # the graph is written fused
        wide_int8 = int8_products_may_saturate() if wide_int8 is None else wide_int8
        if converted.graph == "int8" and wide_int8:
            options.graph_optimization_level = levels.ORT_ENABLE_EXTENDED
            options.add_session_config_entry("session.x64quantprecision", "1")
        failure: Exception | None = None
        try:
            check_graph(converted)
            self._session: Any = onnxruntime.InferenceSession(
                str(converted.file) if is_utf8(converted.file) else check_regular(converted.file).read_bytes(),
                options,
                providers=["CPUExecutionProvider"],
            )
        except Exception as error:
            failure = error
        finish_check()
        if isinstance(failure, CorruptModelError):
            raise failure
        if failure is not None:
            raise CorruptModelError(f"{converted.file} cannot be opened by ONNX Runtime: {failure}") from failure
        self._file = converted.file
        self._pad_id = converted.layout.config.pad_token_id
        self._dimension = converted.layout.dimension
        self.tokens_per_batch = CPU_TOKENS
        self.divides_batches = False

    def __repr__(self) -> str:
        return f"OnnxEngine({str(self._file)!r})"

    @property
    def name(self) -> str:
        """What computes, for people."""
        return "ONNX Runtime"

    def run(self, tokens: Sequence[Tokens], threads: int = 1) -> FloatArray:  # noqa: ARG002
        """Return the sentence vectors of a batch, (batch, dim), each of length 1, computed by one thread.

        Raises:
            CorruptModelError: an operator refuses it: the graph's constants, or the tokenizer's ids, do not fit.
        """
        vectors = self._outputs("sentence_embedding", tokens)
        if vectors.shape != (len(tokens), self._dimension):
            raise CorruptModelError(
                f"the graph gives vectors of the shape {vectors.shape}, not {(len(tokens), self._dimension)}"
            )
        return vectors

    def run_tokens(self, tokens: Sequence[Tokens]) -> list[FloatArray]:
        """Return the vectors of each text's tokens, (seq, hidden), as the encoder's last layer gives them."""
        if not tokens:
            return []
        padded = self._outputs("token_embeddings", tokens)
        return [rows[: len(text.ids)] for rows, text in zip(padded, tokens, strict=True)]

    def _outputs(self, name: str, tokens: Sequence[Tokens]) -> FloatArray:
        input_ids, attention_mask, token_type_ids = pad(tokens, self._pad_id)
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        try:
            values: FloatArray = self._session.run([name], feeds)[0]
        except Exception as error:  # its exceptions have no class of their own
            raise CorruptModelError(f"ONNX Runtime cannot compute a batch with this model: {error}") from error
        return values
