"""Which tests run which lines: the suite once under coverage, each line with the names of its tests, and each test's seconds.

A child process of a test, such as the command `sbmini`, counts as that test: coverage starts in each process that finds
`COVERAGE_PROCESS_START` in its environment, and reads the test's name there too.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mutants.source import ROOT, SUFFIXES, Fault, find, sources
from tests.mutants.tree import SELECTED, compile_native, copy_tree, run_tests

WORK = ROOT / "build" / "mutants"
DATA = WORK / "coverage"
SECONDS = WORK / "seconds.jsonl"
MEASURED = WORK / "measured"
"""The code that was measured: a fault is looked up there, so that a later change of the code does not shift its lines."""
SETTINGS = f"""[run]
branch = true
parallel = true
data_file = {DATA}
source = {ROOT / "sbert_mini"}
    {ROOT / "cli"}
context = ${{SBMINI_TEST-}}
patch = _exit
disable_warnings = module-not-measured,no-data-collected,couldnt-parse
"""


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Name the test to coverage, here and in the processes that it starts."""
    from coverage import Coverage

    os.environ["SBMINI_TEST"] = item.nodeid
    measuring = Coverage.current()
    if measuring is not None:
        measuring.switch_context(item.nodeid)
    start, failed = time.monotonic(), item.session.testsfailed
    yield
    if item.session.testsfailed == failed:  # one that fails anyway would catch every fault
        with SECONDS.open("a") as file:
            file.write(json.dumps([item.nodeid, round(time.monotonic() - start, 3)]) + "\n")


def measure(extra: list[str]) -> int:
    """Run the suite, and leave `coverage` and `seconds.jsonl` in the work folder."""
    WORK.mkdir(parents=True, exist_ok=True)
    for file in [*WORK.glob("coverage*"), SECONDS]:
        file.unlink(missing_ok=True)
    shutil.rmtree(MEASURED, ignore_errors=True)
    for file in sources(ROOT):
        (MEASURED / file.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, MEASURED / file.relative_to(ROOT))
    settings = WORK / "coverage.ini"
    settings.write_text(SETTINGS)
    python = sys.executable
    command = [python, "-m", "pytest", "-p", "tests.mutants.measure", "-m", SELECTED, "-n", "2", "--maxfail=1000"]
    names = {"PYTHONPATH": str(ROOT), "COVERAGE_PROCESS_START": str(settings)}
    done = subprocess.run([*command, *extra], cwd=ROOT, env={**os.environ, **names}, check=False)
    subprocess.run([python, "-m", "coverage", "combine", f"--rcfile={settings}", "-q"], cwd=ROOT, check=True)
    return done.returncode


def native_tests(root: Path = ROOT) -> list[str]:
    """Return the files of tests of the C++ code: coverage knows no line of it."""
    return [str(file.relative_to(root)) for file in sorted((root / "tests" / "native").glob("test_*.py"))]


def measure_native() -> None:
    """Write which lines of C++ its tests run into `native.json`: {file name: [line]}."""
    tree = copy_tree(WORK / "tree-gcov")
    if not compile_native(tree, coverage=True):
        raise SystemExit("the C++ code does not compile with --coverage")
    run_tests(tree, native_tests(), limit_s=900)
    lines: dict[str, set[int]] = {}
    for notes in sorted(tree.rglob("*.gcda")):
        done = subprocess.run(
            ["gcov", "--json-format", "--stdout", str(notes)], cwd=tree, capture_output=True, check=True
        )
        for file in json.loads(done.stdout)["files"]:
            if file["file"].endswith(SUFFIXES["native"]):
                run = {line["line_number"] for line in file["lines"] if line["count"]}
                lines.setdefault(Path(file["file"]).name, set()).update(run)
    (WORK / "native.json").write_text(json.dumps({name: sorted(numbers) for name, numbers in lines.items()}))


def measured_tests() -> frozenset[str]:
    """Return the names of the tests that were measured, those that failed included."""
    from coverage import CoverageData

    data = CoverageData(str(DATA))
    data.read()
    return frozenset(data.measured_contexts())


def tests_of(fault: Fault) -> list[tuple[str, float]]:
    """Return the tests that run the lines of a fault with their seconds, the quickest first.

    Raises:
        LookupError: the lines were not in the code when it was measured.
    """
    from coverage import CoverageData

    data = CoverageData(str(DATA))
    data.read()
    place = find(fault, MEASURED)
    contexts = data.contexts_by_lineno(str(ROOT / place.file.relative_to(MEASURED)))
    names = {name for line in range(place.first, place.last + 1) for name in contexts.get(line, []) if name}
    seconds = dict(json.loads(line) for line in SECONDS.read_text().splitlines())
    return sorted(((name, seconds[name]) for name in names if name in seconds), key=lambda pair: (pair[1], pair[0]))
