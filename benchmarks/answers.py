"""The project's own documents and code as folders: three questions, and what `sbmini search` prints on a terminal.

    python -m benchmarks.answers

The index is made in `build/project.index`. The page that shows the answers is left out: it holds the questions.
"""

import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks import harness
from sbert_mini import SearchIndex
from sbert_mini.evaluation.table import Json

ROOT = Path(__file__).parent.parent
INDEX = "build/project.index"
SYNC = ["index", "sync", INDEX, "docs", "sbert_mini", "--exclude", "documents.md"]
QUESTIONS = (
    "is the index damaged when the machine loses power during a write",
    "how do I train with my own pairs of sentences",
    "where is the gradient of one task projected away from another task's",
)
HITS, COLUMNS = 2, 100


def on_terminal(arguments: list[str]) -> str:
    """Return what the command prints on a terminal of `COLUMNS` columns, without colours."""
    main, side = pty.openpty()
    environment = os.environ | {"COLUMNS": str(COLUMNS), "NO_COLOR": "1", "TERM": "xterm"}
    sbmini = Path(sys.executable).with_name("sbmini")
    with subprocess.Popen([sbmini, *arguments], cwd=ROOT, env=environment, stdout=side) as process:
        os.close(side)
        printed = b""
        try:
            while block := os.read(main, 1 << 16):
                printed += block
        except OSError:  # the terminal's end, on Linux
            pass
    os.close(main)
    if process.returncode:
        sys.exit(f"{arguments} ended with {process.returncode}")
    return re.sub(r" +$", "", printed.decode().replace("\r\n", "\n"), flags=re.MULTILINE).strip("\n")


def main() -> None:
    """Ask and save."""
    options = harness.arguments(str(__doc__))
    shutil.rmtree(ROOT / INDEX, ignore_errors=True)
    on_terminal(SYNC)
    index = SearchIndex(ROOT / INDEX)
    answers = [{"question": q, "answer": on_terminal(["search", INDEX, q, "-k", str(HITS)])} for q in QUESTIONS]
    harness.save("answers", {"rows": len(index), "passages": index.vectors, "answers": answers}, options)


def blocks(result: Json) -> str:
    """Return the commands and what they printed, in Markdown."""
    parts = [f"```sh\nsbmini {' '.join(SYNC)}   # {result['rows']} rows, {result['passages']:,} passages\n```"]
    for entry in result["answers"]:
        parts.append(f'```text\n$ sbmini search {INDEX} "{entry["question"]}" -k {HITS}\n{entry["answer"]}\n```')
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
