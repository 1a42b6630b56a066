"""The blocks of docs/integrations.md, run as they stand, each in a process and an empty folder of its own."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"


def run_block(part, folder):
    """Return what the one block of Python that holds `part` prints."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if part in block)
    done = subprocess.run([sys.executable, "-c", block], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout
