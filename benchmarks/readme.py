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

README = Path(__file__).parent.parent / "README.md"


def cold_start(found: dict[str, Any]) -> str:
    """Return the cold-start table."""
    seconds, memory = found["seconds"], found["peak_bytes"]
    rows = ["| whole process, cold | seconds | peak memory |", "| --- | --- | --- |"]
    names = {
        "sbmini encode": '`sbmini encode "one sentence"`',
        "sentence-transformers": "a script that does the same with sentence-transformers",
        "sbmini --help": "`sbmini --help`",
    }
    for name, label in names.items():
        rows.append(f"| {label} | {seconds[name]['median']:.2f} s | {memory[name]['median'] / 1e6:.0f} MB |")
    rows.append("")
    rows.append(f"{found['times_faster']:.1f} times faster, with {found['share_of_memory']:.2f} of the memory.")
    return "\n".join(rows)


def throughput(found: dict[str, Any]) -> str:
    """Return the throughput table."""
    rows = [
        f"| {found['texts']:,} Quora questions | texts/s | to sentence-transformers | cosine to fp32, mean (lowest) "
        "| alone against batch of 32, lowest | STS-B test |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    names = {
        "sentence-transformers": "`SentenceTransformer.encode`, fp32",
        "fp32 graph": '`Embedder(graph="fp32")`',
        "int8 graph": "`Embedder()`, int8",
    }
    for name, label in names.items():
        quality = found["quality"][name]
        rows.append(
            f"| {label} | {found['texts_per_s'][name]['median']:.0f} | {found['times_faster'][name]:.2f} "
            f"| {quality['cosine_to_fp32_mean']:.4f} ({quality['cosine_to_fp32_min']:.4f}) "
            f"| {quality['alone_to_batch_cosine_min']:.6f} | {quality['stsb_test_spearman']:.2f} |"
        )
    return "\n".join(rows)


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
    "models list",
    "models info",
    "models convert",
)
TABLES = {"cold_start": cold_start, "throughput": throughput, "memory": memory}


def updated(text: str) -> str:
    """Return the README with each part made anew between its two markers."""
    parts = {"commands": commands()}
    for name, table in TABLES.items():
        found = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
        packages = found["machine"]["packages"]
        caption = (
            f"`{found['command']}`, {found['machine']['date']}, {found['threads']} threads, {found['machine']['cpu']}, "
            f"Python {found['machine']['python']}, onnxruntime {packages['onnxruntime']}, torch {packages['torch']}, "
            f"sentence-transformers {packages['sentence-transformers']}."
        )
        parts[name] = f"{table(found)}\n\n{caption}"
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
