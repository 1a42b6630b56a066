"""The page docs/mutants.md, written from the table and from what was run."""

import subprocess
from collections import Counter
from pathlib import Path

from tests.mutants.source import ROOMS, ROOT, read_faults

CAUGHT = ("caught", "time")
"""Results of a fault that a test found, by failing or by not coming to an end."""
HEAD = """# Planted faults

`make mutants` plants faults in a copy of the code, one at a time, and runs the tests that reach the changed lines. A fault that
no test notices shows a missing test. The drawn faults come from [Cosmic Ray](https://github.com/sixty-north/cosmic-ray)'s
operators (and a few of the same kind for C++), by seed, on lines that a test runs. The others were written by hand: they are
mistakes that a change of this code could bring in. The table is `tests/mutants/faults.json`.

This page is written by `make mutants`.
"""


def _code(text: str) -> str:
    line = " ".join(part.strip() for part in text.splitlines()).replace("|", "\\|")
    return f"`` {line} ``" if "`" in line else f"`{line}`"


def write_page(file: Path, results: dict[tuple[str, str], dict[str, object]]) -> None:
    """Write the page: the counts of each room, and each survivor with its reason."""
    faults = read_faults()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, check=True)
    state = {fault.name: results.get((fault.name, fault.after), {}).get("result", "not run") for fault in faults}
    counts: Counter[tuple[str, bool, bool]] = Counter()
    for fault in faults:
        counts[fault.room, fault.drawn, state[fault.name] in CAUGHT] += 1
    lines = [HEAD, f"The newest run: the code of {commit.stdout.decode().strip()}.", ""]
    lines += ["| room | drawn | caught | by hand | caught |", "| --- | --- | --- | --- | --- |"]
    totals = [0, 0, 0, 0]
    for room in ROOMS:
        row = [
            counts[room, True, True] + counts[room, True, False],
            counts[room, True, True],
            counts[room, False, True] + counts[room, False, False],
            counts[room, False, True],
        ]
        totals = [a + b for a, b in zip(totals, row, strict=True)]
        lines.append(f"| {room} | {' | '.join(map(str, row))} |")
    lines += [f"| all | {' | '.join(map(str, totals))} |", "", "## Survivors", ""]
    for fault in faults:
        if state[fault.name] not in CAUGHT:
            reason = fault.survives or "no reason is known yet"
            lines += [
                f"- **{fault.name}** (`{fault.scope or 'module'}`): {_code(fault.before)} becomes {_code(fault.after)}."
            ]
            lines += [f"  {reason[0].upper() + reason[1:]}"]
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(lines).rstrip() + "\n", "utf-8")
