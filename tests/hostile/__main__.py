"""Hostile files, used in forked children: a wrong answer or an error, never a crash, a write outside, a connection or a program.

    python -m tests.hostile --log build/hostile.jsonl          8,000 cases and 300 command lines
    python -m tests.hostile --long --log build/hostile-long.jsonl

A case follows from the seed, its kind and its number. The log has a line a case; the same command continues where it was
stopped. A case that fails stays in the folder `failed` beside the log; `--kind index --case 17` makes and runs it again.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from tests.hostile import cases, lines, sandbox

QUICK = {
    "model": 1300,
    "index": 1300,
    "large": 500,
    "words": 400,
    "passages": 200,
    "json": 1600,
    "rows": 800,
    "judgments": 150,
    "tokenizer": 200,
    "modules": 150,
    "header": 400,
    "filter": 500,
    "head": 300,
    "recipe": 200,
    "table": 200,
    "request": 150,
    "folder": 400,
}
LONG = {
    "model": 20_000,
    "index": 5000,
    "json": 20_000,
    "header": 3000,
    "filter": 2000,
    "large": 2000,
    "words": 2000,
    "passages": 500,
    "tokenizer": 1500,
    "modules": 1000,
    "judgments": 500,
    "request": 1000,
}
LINES = 300
_MEMORY = Path("/dev/shm")  # noqa: S108


def _run_case(kind: str, number: int, seed: int, bases: Path, scratch: Path, failed: Path) -> dict[str, Any]:
    """Make and run a case; return its line of the log."""
    rng = random.Random(f"{seed} {kind} {number}")
    folder = scratch / f"{kind}-{number}"
    started = time.monotonic()
    make = lines.line_case if kind == "line" else cases.KINDS[kind]
    for _ in range(5):  # a change of what an earlier change left may be impossible: then others are drawn
        inside = sandbox.place(folder)
        try:
            case = make(bases, inside, rng)
        except Exception as error:
            how, outcome = "not made", f"traceback in the making {error!r:.300}"
            sandbox.remove(folder)
        else:
            how, outcome = case.how, sandbox.attempt(case.use, folder)
            break
    else:
        sandbox.place(folder)
    if outcome.startswith(sandbox.BAD) or not outcome:
        shutil.rmtree(failed / folder.name, ignore_errors=True)
        shutil.copytree(folder, failed / folder.name, symlinks=True)
    sandbox.remove(folder)
    seconds = round(time.monotonic() - started, 2)
    return {"kind": kind, "case": number, "how": how, "outcome": outcome or "crash no outcome", "s": seconds}


def _work(
    plan: list[tuple[str, int]], options: argparse.Namespace, bases: Path, scratch: Path, log: Path, until: float
) -> None:
    """Run cases one after the other; everything that they need is imported before."""
    import faiss  # noqa: F401
    import onnxruntime  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import tantivy  # noqa: F401

    import sbert_mini.documents.sync
    import sbert_mini.documents.worker
    import sbert_mini.recipes.data
    import sbert_mini.recipes.reader
    import sbert_mini.runtime.embedder
    import sbert_mini.runtime.predictor
    import sbert_mini.search.index
    import sbert_mini.search.writer
    import sbert_mini.serve.app
    import sbert_mini.serve.searching
    import sbert_mini.text.tokenizer  # noqa: F401
    from sbert_mini.runtime import quantization

    few = quantization.calibration_texts()[:20]
    quantization.calibration_texts = lambda: (
        few
    )  # a model whose record is damaged is converted again, in a tenth of the time
    with log.open("a", buffering=1) as stream:
        for kind, number in plan:
            if time.monotonic() > until:
                return
            entry = _run_case(kind, number, options.seed, bases, scratch, log.parent / "failed")
            stream.write(json.dumps(entry) + "\n")


def read_log(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a log; one that was cut short is left out."""
    entries = []
    for line in file.read_text("utf-8").splitlines() if file.is_file() else ():
        with contextlib.suppress(ValueError):
            entries.append(json.loads(line))
    return entries


def report(entries: list[dict[str, Any]]) -> int:
    """Print what came of the cases, faults that are alike once; return the number of faults."""
    counts = collections.Counter((entry["kind"], entry["outcome"].split()[0]) for entry in entries)
    for (kind, word), count in sorted(counts.items()):
        print(f"{count:6} {kind} {word}")
    faults: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        if entry["outcome"].startswith(sandbox.BAD):
            faults.setdefault(f"{entry['kind']} {' '.join(entry['outcome'].split()[:3])}", []).append(entry)
    for alike, found in sorted(faults.items(), key=lambda item: -len(item[1])):
        shortest = min(found, key=lambda entry: len(entry["how"]))
        print(
            f"{len(found)} times {alike}: case {shortest['kind']}-{shortest['case']}: "
            f"{shortest['how']}: {shortest['outcome'][:600]}"
        )
    return sum(map(len, faults.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--long", action="store_true", help="the larger numbers of cases")
    parser.add_argument("--kind", action="append", help="only this kind")
    parser.add_argument("--cases", type=int, help="at most so many of each kind")
    parser.add_argument("--case", type=int, action="append", help="only the case of this number, again")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--minutes", type=float, help="stop after so many; the same command continues")
    parser.add_argument("--log", type=Path, default=Path("build/hostile/log.jsonl"))
    options = parser.parse_args()
    log = options.log.absolute()
    (log.parent / "failed").mkdir(parents=True, exist_ok=True)
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
    counts = LONG if options.long else {**QUICK, "line": LINES}
    counts = {k: min(n, options.cases or n) for k, n in counts.items() if not options.kind or k in options.kind}
    done = {(entry["kind"], entry["case"]) for entry in read_log(log)}
    plan = [(k, i) for k, n in counts.items() for i in options.case or range(n) if options.case or (k, i) not in done]
    random.Random(0).shuffle(plan)  # so that a run that is stopped has met every kind
    started = time.monotonic()
    until = started + 60 * (options.minutes or float("inf"))
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as place:
        bases = Path(place) / "bases"
        bases.mkdir()
        if plan:
            _in_child(lambda: cases.make_bases(bases))  # torch is loaded there
            _in_child(lambda: lines.make_files(bases))
        children = [
            _forked(lambda w=worker: _work(plan[w :: options.workers], options, bases, Path(place), log, until))
            for worker in range(options.workers)
        ]
        failures = sum(os.waitpid(child, 0)[1] != 0 for child in children)
    latest = {(entry["kind"], entry["case"]): entry for entry in read_log(log)}
    entries = [entry for (kind, number), entry in latest.items() if number < counts.get(kind, 0)]
    faults = report(entries)
    print(f"{len(entries)} cases, {faults} faults, {time.monotonic() - started:.0f} s")
    sys.exit(bool(faults or failures or len(entries) < sum(counts.values())))


def _forked(work: Any) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def _in_child(work: Any) -> None:
    if os.waitpid(_forked(work), 0)[1]:
        raise SystemExit("the files that the cases start from could not be made")


if __name__ == "__main__":
    main()
