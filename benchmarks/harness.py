"""What the measuring scripts share: the data folder, the machine's card, alternation, and where results are kept."""

import argparse
import gzip
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numpy", "onnxruntime", "tokenizers", "faiss-cpu", "torch", "sentence-transformers", "transformers")


def arguments(description: str, **defaults: int) -> argparse.Namespace:
    """Parse `--threads`, `--rounds`, `--data` and `--no-save`; `defaults` may set threads and rounds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=defaults.get("threads", 2))
    parser.add_argument("--rounds", type=int, default=defaults.get("rounds", 5), help="alternations of all contestants")
    parser.add_argument("--data", type=Path, default=os.environ.get("SBMINI_DATA"), help="default: $SBMINI_DATA")
    parser.add_argument("--no-save", action="store_true", help="print only; leave benchmarks/results/ as it is")
    return parser.parse_args()


def data_file(folder: Path | None, name: str) -> Path:
    """Return a data file, or leave with a line that says what is missing."""
    path = Path(folder or ".") / name
    if folder is None or not path.is_file():
        sys.exit(f"{name} is needed: name the folder that holds it with --data or SBMINI_DATA")
    return path


def table_rows(path: Path) -> list[list[str]]:
    """Return the rows of a gzipped, tab-separated file without its header (no quoting)."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [line.rstrip("\n").split("\t") for line in stream][1:]


def machine() -> dict[str, Any]:
    """Return what is worth knowing of this machine and its software."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        text = info.read_text()
        names = {line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")}
        flags = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if f" {flag}" in text]
        cpu = f"{', '.join(sorted(names))} ({' '.join(flags)})"
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def alternate(contestants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return each contestant's measurements: one of each a round, in turn, so that drift hits all alike."""
    measured: dict[str, list[float]] = {name: [] for name in contestants}
    for done in range(rounds):
        for name, run in contestants.items():
            measured[name].append(run())
        print(f"round {done + 1} of {rounds}", file=sys.stderr)
    return measured


def timed(run: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def process(command: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[float, int]:
    """Return the seconds and the peak bytes of memory of a whole process; it must succeed."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, **(environment or {})}) as child:
        _, status, usage = os.wait4(child.pid, 0)
        elapsed_s = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{command[0]} failed with {child.returncode}")
    return elapsed_s, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return the median, lowest and highest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def median_ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the median of the rounds' ratios a / b."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def save(name: str, result: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the result as one line of JSON, the last of stdout, and keep it unless `--no-save`."""
    command = f"python -m benchmarks.{name} --threads {options.threads} --rounds {options.rounds}"
    result = {"command": command, "threads": options.threads, "machine": machine(), **result}
    if not options.no_save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result))
