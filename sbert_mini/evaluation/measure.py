"""Measuring fairly: the machine's card, contestants that alternate, whole processes, medians of ratios."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sbert_mini.errors import SbertMiniError
from sbert_mini.files import system
from sbert_mini.version import __version__

PACKAGES = ("numpy", "onnxruntime", "tokenizers", "faiss-cpu", "torch", "sentence-transformers", "transformers")


def machine(threads: int | None = None) -> dict[str, Any]:
    """Return what is worth knowing of this machine and its software: the card that stands beside every figure.

    Args:
        threads: the thread budget of the measurement, if there is one.
    """
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        text = info.read_text("utf-8", errors="replace")
        names = {line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")}
        flags = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if f" {flag}" in text]
        cpu = f"{', '.join(sorted(names)) or cpu} ({' '.join(flags)})"
    card = {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "sbert_mini": __version__,
        "commit": _commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    return card if threads is None else {**card, "threads": threads}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    """Return the commit of the checkout that the package runs from; empty where it is installed from elsewhere."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def alternate(
    contestants: Mapping[str, Callable[[], float]], rounds: int, on_round: Callable[[int], None] | None = None
) -> dict[str, list[float]]:
    """Return each contestant's measurements: one of each a round, in turn, so that drift hits all alike."""
    measured: dict[str, list[float]] = {name: [] for name in contestants}
    for done in range(rounds):
        for name, run in contestants.items():
            measured[name].append(run())
        if on_round is not None:
            on_round(done + 1)
    return measured


def timed(run: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def processor_timed(run: Callable[[], object]) -> float:
    """Return the processor seconds of a call, all threads of this process together: what other programs use is not in it."""
    start = time.process_time()
    run()
    return time.process_time() - start


_LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
with subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL) as child:
    _, status, usage = os.wait4(child.pid, 0)
    elapsed_s = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
print(json.dumps([child.returncode, elapsed_s, usage.ru_maxrss]))
"""


def process(command: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[float, int]:
    """Return the seconds and the peak bytes of memory of a whole process.

    It is started by a small process of its own: Linux counts into a child's peak what its parent held when it was started.

    Raises:
        SbertMiniError: it failed; the text holds the last line that it wrote to stderr. Or the system, Windows, does not tell
            what a process took.
    """
    if not hasattr(os, "wait4"):
        raise SbertMiniError("the time and memory of whole processes are not measured on this system")
    launcher = [sys.executable, "-S", "-c", _LAUNCHER, *command]
    with subprocess.Popen(
        launcher,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    ) as child:
        try:
            out, err = child.communicate()
        except BaseException:  # an interruption ends what is measured too
            system.end_group(child.pid)
            raise
    if child.returncode:
        raise SbertMiniError(f"{command[0]} could not be measured: {err.strip() or child.returncode}")
    code, elapsed_s, peak = json.loads(out)
    if code:
        lines = err.strip().splitlines()
        raise SbertMiniError(f"{command[0]} failed with {code}: {lines[-1] if lines else 'it said nothing'}")
    return elapsed_s, peak * (1 if sys.platform == "darwin" else 1024)


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return the median, lowest and highest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def median_ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the median of the rounds' ratios a / b."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def silent(text: str) -> None:
    """Say nothing: what `on_progress` is where nobody wants to be told."""


def command_line() -> str:
    """Return the command that this process runs, as a person would type it."""
    name = Path(sys.argv[0]).name
    return " ".join(["sbmini" if name in ("sbmini", "__main__.py") else name, *sys.argv[1:]])
