"""Write what the README takes from elsewhere: its tables from `benchmarks/results/*.json`, its commands from `--help`.

python -m benchmarks.readme
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS
from sbert_mini.evaluation import tables

README = Path(__file__).parent.parent / "README.md"


def sts(found: dict[str, Any]) -> str:
    """Return the quality table."""
    return tables.sts(found)[0].markdown()


def speed(found: dict[str, Any]) -> str:
    """Return the tables of speed."""
    return "\n\n".join(f"**{table.title}**\n\n{table.markdown()}" for table in tables.speed(found))


def search(found: dict[str, Any]) -> str:
    """Return the tables of search and retrieval."""
    return "\n\n".join(f"**{table.title}**\n\n{table.markdown()}" for table in tables.search(found))


def pairs(found: dict[str, Any]) -> str:
    """Return the table of the most similar pair."""
    return tables.pairs(found)[0].markdown()


def memory(found: dict[str, Any]) -> str:
    """Return the table of peak memory."""
    rows = ["| `sbmini encode -i sentences.txt -o vectors.npy` | peak memory |", "| --- | --- |"]
    for size, entry in found["sentences"].items():
        rows.append(f"| {int(size):,} Wikipedia sentences | {entry['peak_bytes'] / 1e6:.0f} MB |")
    return "\n".join(rows)


def commands() -> str:
    """Return the help of every command, as the command prints it."""
    sbmini = str(Path(sys.executable).with_name("sbmini"))
    blocks = []
    for command in COMMANDS:
        done = subprocess.run(
            [sbmini, *command.split(), "--help"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"},
        )
        lines = "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())
        blocks.append(f"### `sbmini {command}`\n```text\n{lines}\n```" if command else f"```text\n{lines}\n```")
    return "\n\n".join(blocks)


COMMANDS = (
    "",
    "encode",
    "index create",
    "index add",
    "index update",
    "index delete",
    "index info",
    "index verify",
    "search",
    "bench sts",
    "bench speed",
    "bench search",
    "bench pairs",
    "models list",
    "models info",
    "models convert",
)
TABLES = {"sts": sts, "speed": speed, "search": search, "pairs": pairs, "memory": memory}


def updated(text: str) -> str:
    """Return the README with each part made anew between its two markers."""
    parts = {"commands": commands()}
    for name, table in TABLES.items():
        found = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
        parts[name] = f"{table(found)}\n\n{tables.machine_note(found)}"
    for name, part in parts.items():
        block = f"<!-- {name} -->\n{part}\n<!-- end of {name} -->"
        text, count = re.subn(
            rf"<!-- {name} -->.*?<!-- end of {name} -->", block.replace("\\", r"\\"), text, flags=re.DOTALL
        )
        if count != 1:
            raise SystemExit(f"README.md must hold the markers of {name!r} once; found {count}")
    return text


def main() -> None:
    README.write_text(updated(README.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
