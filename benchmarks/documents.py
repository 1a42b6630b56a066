"""Sync a folder of Markdown files: the first time, without a change, and with one changed file.

    python -m benchmarks.documents --data /work/shared/data                28,000 files of 4 KB
    python -m benchmarks.documents --data /work/shared/data --files 500    fewer

The files are made of Wikipedia sentences, a heading every eight sentences, in `build/documents`. Each sync is the command
`sbmini index sync`, so its start counts. The peak is that of the command's process. The last part changes a file while `--watch`
runs and measures until a new search finds it.
"""

import argparse
import gzip
import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import harness
from sbert_mini import SearchIndex
from sbert_mini.evaluation.table import Json, Table

ROOT = Path(__file__).parent.parent
FOLDER, INDEX = ROOT / "build" / "documents", ROOT / "build" / "documents.index"
SENTENCES = "sentences_wikipedia_1.txt.gz"
FILES, FILE_BYTES, SECTION = 28_000, 4096, 8
MODEL = "sbert-mini-fast"
TARGETS = {"first": 600.0, "unchanged": 5.0, "one changed": 1.0, "watch": 1.0, "peak_mb": 400.0}
"""Seconds and megabytes to reach on two cores."""


def make_files(data: Path, count: int) -> None:
    """Write Markdown files of about `FILE_BYTES`, 500 a folder."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    with gzip.open(data, "rt", encoding="utf-8") as stream:
        sentences = itertools.cycle([line.strip() for line in itertools.islice(stream, 1_000_000) if line.strip()])
        for number in range(count):
            lines, size = [f"# Note {number}", ""], 0
            for i in itertools.count():
                if size >= FILE_BYTES:
                    break
                sentence = next(sentences)
                lines += ["", f"## Part {i // SECTION + 1}", ""] if i % SECTION == 0 else []
                lines.append(sentence)
                size += len(sentence.encode()) + 1
            file = FOLDER / f"{number // 500:03}" / f"{number:05}.md"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(lines) + "\n", "utf-8")


def command(threads: int, *options: str) -> list[str]:
    """Return the command line of a sync."""
    sbmini = str(Path(sys.executable).with_name("sbmini"))
    arguments = ["index", "sync", str(INDEX), "documents", "--threads", str(threads), "--offline", *options]
    return [sbmini, *arguments]


def timed(threads: int, *options: str) -> dict[str, float]:
    """Return the seconds of a sync, and the peak of its memory in megabytes."""
    started = time.perf_counter()
    process = subprocess.Popen(command(threads, *options), cwd=FOLDER.parent, stderr=subprocess.DEVNULL)
    peak_kb = 0
    while process.poll() is None:
        peak_kb = max(peak_kb, _peak_kb(process.pid))
        time.sleep(0.01)
    if process.returncode:
        sys.exit(f"the sync ended with {process.returncode}")
    return {"seconds": round(time.perf_counter() - started, 2), "peak_mb": round(peak_kb / 1024, 1)}


def _peak_kb(process: int) -> int:
    """Return the peak of a process's memory; `wait4` counts that of the process that started it, too."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def watched(threads: int, rounds: int) -> float:
    """Return the median seconds from a change of a file until an index that is opened anew holds it, with `--watch`."""
    process = subprocess.Popen(command(threads, "--watch"), cwd=FOLDER.parent, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "watching" in line:
            break
    time.sleep(1)
    seconds = []
    for round_ in range(rounds):
        text = f"# Changed\n\nFor the {round_}. time, at {time.time()}.\n"
        started = time.perf_counter()
        (FOLDER / "000" / "00002.md").write_text(text)
        while (row := SearchIndex(INDEX).get("documents/000/00002.md")) is None or row.text != text:
            time.sleep(0.01)
        seconds.append(time.perf_counter() - started)
        time.sleep(0.5)
    process.terminate()
    process.wait()
    return round(sorted(seconds)[len(seconds) // 2], 3)


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="changes that are measured")
    parser.add_argument("--data", type=Path, default=os.environ.get("SBMINI_DATA"), help="default: $SBMINI_DATA")
    parser.add_argument("--no-save", action="store_true", help="print only; leave benchmarks/results/ as it is")
    options = parser.parse_args()
    make_files(harness.data_file(options.data, SENTENCES), options.files)
    shutil.rmtree(INDEX, ignore_errors=True)
    first = timed(options.threads, "--model", MODEL)
    unchanged = timed(options.threads)
    changes = []
    for round_ in range(options.rounds):
        (FOLDER / "000" / "00001.md").write_text(f"# Changed\n\nFor the {round_}. time.\n")
        changes.append(timed(options.threads))
    index = SearchIndex(INDEX)
    result: dict[str, Any] = {
        "files": options.files,
        "bytes": sum(file.stat().st_size for file in FOLDER.rglob("*.md")),
        "model": MODEL,
        "passages": index.vectors,
        "first": first,
        "unchanged": unchanged,
        "one changed": sorted(changes, key=lambda change: change["seconds"])[len(changes) // 2],
        "watch_s": watched(options.threads, options.rounds),
    }
    harness.save("documents", result, options)


def tables(result: Json) -> list[Table]:
    """Return the table of a result."""
    runs = [
        (f"first sync of {result['files']:,} files ({result['passages']:,} passages)", "first"),
        ("sync without a change", "unchanged"),
        ("sync after one file changed", "one changed"),
    ]
    rows = [
        (text, f"{result[name]['seconds']:.2f}", f"{TARGETS[name]:g}", f"{result[name]['peak_mb']:.0f}")
        for text, name in runs
    ]
    rows.append(("--watch: from a change until it is found", f"{result['watch_s']:.2f}", f"{TARGETS['watch']:g}", ""))
    return [Table("Syncing folders", ("what", "seconds", "to reach", "peak, MB"), tuple(rows))]


if __name__ == "__main__":
    main()
