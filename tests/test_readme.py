"""The README's blocks of Python run as they stand, each in a process and an empty folder of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
FIELD = [number for number, block in enumerate(BLOCKS) if "load(" not in block]
LAB = [number for number in range(len(BLOCKS)) if number not in FIELD]


def run(number, folder):
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS[number]], cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_blocks_are_found():
    assert (len(FIELD), len(LAB)) == (1, 2)


@pytest.mark.parametrize("number", FIELD)
def test_a_block_without_torch_runs(number, tmp_path):
    assert "Yeast feeds on sugars." in run(number, tmp_path).splitlines()[0]


@pytest.mark.long
@pytest.mark.parametrize("number", LAB)
def test_a_block_with_torch_runs(number, tmp_path):
    run(number, tmp_path)
