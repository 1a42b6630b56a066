"""Plant the faults of `faults.json` one at a time in a copy of the tree, and run the nearest tests.

    python -m tests.mutants measure          which tests run which lines, about 20 minutes (needs coverage)
    python -m tests.mutants draw --seed 22   draw faults anew (needs cosmic-ray)
    python -m tests.mutants run              plant those that were not caught before; `--only NAME`, `--again` for all

`run` measures first where that was not done, and writes docs/mutants.md in the end. It may be broken off and goes on.

The nearest tests are those that run the changed lines, the quickest first, up to a sum of seconds.
"""

import argparse
import concurrent.futures
import json
import sys
from pathlib import Path

from tests.mutants.draw import draw
from tests.mutants.measure import DATA, WORK, measure, measure_native, measured_tests, native_tests, tests_of
from tests.mutants.page import CAUGHT, write_page
from tests.mutants.source import ROOT, Fault, plant, read_faults
from tests.mutants.tree import LIBRARY, collected, compile_native, copy_tree, run_tests

RESULTS = WORK / "results.jsonl"
MOST_SECONDS = 90.0
"""Of the tests that are run for a fault, by the seconds that they took when they were measured."""
MOST_TESTS = 200
LEAST_CAUGHT = 0.9
PAGE = ROOT / "docs" / "mutants.md"


def nearest(fault: Fault, existing: frozenset[str]) -> list[str]:
    """Return the tests to run for a fault, of those that there are."""
    if fault.room == "native":
        return native_tests()
    tests: list[str] = []
    total = 0.0
    for name, seconds in tests_of(fault):
        if name not in existing:
            continue
        if tests and (total + seconds > MOST_SECONDS or len(tests) == MOST_TESTS):
            break
        tests.append(name)
        total += seconds
    return tests + sorted(existing - measured_tests())  # which lines newer tests run is not known


def try_fault(fault: Fault, tree: Path, existing: frozenset[str]) -> dict[str, object]:
    """Plant a fault in a copy of the tree, run the nearest tests, and take it out again; return the row of the result."""
    try:
        tests = nearest(fault, existing)
        place, text = plant(fault, tree)
    except LookupError as error:
        return {"name": fault.name, "after": fault.after, "result": "lost", "test": str(error)}
    library = (tree / LIBRARY).read_bytes()
    try:
        if fault.room == "native" and not compile_native(tree):
            return {"name": fault.name, "after": fault.after, "result": "caught", "test": "the compiler"}
        result, test = run_tests(tree, tests, limit_s=4 * MOST_SECONDS)
    finally:
        place.file.write_text(text, "utf-8")
        (tree / LIBRARY).write_bytes(library)
    return {"name": fault.name, "after": fault.after, "result": result, "test": test, "tests": len(tests)}


def results() -> dict[tuple[str, str], dict[str, object]]:
    """Return the newest result of each fault, by its name and its changed lines."""
    if not RESULTS.is_file():
        return {}
    rows = [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()]
    return {(row["name"], row["after"]): row for row in rows}


def run(names: list[str], *, again: bool, jobs: int) -> int:
    """Try the faults that were not tried yet; return the exit status: 1 where too few of the drawn ones are caught."""
    if not DATA.is_file():
        measure_native()
        measure([])
    faults = [fault for fault in read_faults() if not names or fault.name in names]
    done = {} if again else results()
    todo = [fault for fault in faults if done.get((fault.name, fault.after), {}).get("result") not in CAUGHT]
    trees = [copy_tree(WORK / f"tree-{job}") for job in range(jobs)]
    free = list(trees)
    existing = collected(trees[0])
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool, RESULTS.open("a", encoding="utf-8") as file:

        def one(fault: Fault) -> dict[str, object]:
            tree = free.pop()
            try:
                return try_fault(fault, tree, existing)
            finally:
                free.append(tree)

        for future in concurrent.futures.as_completed([pool.submit(one, fault) for fault in todo]):
            row = future.result()
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            print(f"{row['name']:14} {row['result']:9} {row['test']}", flush=True)
    final = results()
    if not names:
        write_page(PAGE, final)
    caught = {fault: final.get((fault.name, fault.after), {}).get("result") in CAUGHT for fault in faults}
    drawn = [caught[fault] for fault in faults if fault.drawn]
    by_hand = [caught[fault] for fault in faults if not fault.drawn]
    print(f"drawn: {sum(drawn)} of {len(drawn)} caught; by hand: {sum(by_hand)} of {len(by_hand)}")
    return 0 if sum(drawn) >= LEAST_CAUGHT * len(drawn) and all(by_hand) else 1


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("measure").add_argument("extra", nargs="*")
    drawing = verbs.add_parser("draw")
    drawing.add_argument("--seed", type=int, default=22)
    drawing.add_argument("--per-room", type=int, default=10)
    running = verbs.add_parser("run")
    running.add_argument("--only", action="append", default=[])
    running.add_argument("--again", action="store_true")
    running.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    if given.verb == "measure":
        measure_native()
        return measure(given.extra)
    if given.verb == "draw":
        print(f"{len(draw(given.seed, given.per_room))} faults in the table")
        return 0
    return run(given.only, again=given.again, jobs=given.jobs)


if __name__ == "__main__":
    sys.exit(main())
