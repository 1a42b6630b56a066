"""README.md and docs/: blocks run as they stand, each in a process and an empty folder of its own; links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, *(ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
LIMIT_BYTES = 12_288


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


# the blocks of docs/integrations.md need a framework each: tests/integrations runs them
PYTHON = [(page.name, block) for page in PAGES if page.name != "integrations.md" for block in blocks(page, "python")]
FIELD = [pair for pair in PYTHON if "load(" not in pair[1]]
LAB = [pair for pair in PYTHON if pair not in FIELD]

# the README's shell lines that do not run in the test, by how they begin
NOT_RUN = {
    "pip install": "installs into the environment that runs the tests",
    "make demo": "installs into .venv of a clone",
    "make test": "would start these tests again",
    "sbmini train pairs.csv": "needs a table of one's own, and minutes",
    "sbmini index create my.index": "needs the model that the line above it trains",
    "sbmini train tasks.toml": "needs data of one's own",
}


def run_python(block, folder):
    done = subprocess.run([sys.executable, "-c", block], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def runs(line):
    return not any(line.startswith(beginning) for beginning in NOT_RUN)


def test_the_blocks_are_found():
    assert (len(FIELD), len(LAB)) == (3, 2)
    assert len(blocks(README, "sh")) == 4


@pytest.mark.parametrize(("page", "block"), FIELD)
def test_a_block_without_torch_runs(page, block, tmp_path):
    first = {"README.md": "Yeast feeds on sugars.", "documents.md": "1 0 0 0", "explain.md": "0."}[page]
    assert first in run_python(block, tmp_path).splitlines()[0]


@pytest.mark.long
@pytest.mark.parametrize(("page", "block"), LAB)
def test_a_block_with_torch_runs(page, block, tmp_path):
    run_python(block, tmp_path)


@pytest.mark.parametrize("block", [b for b in blocks(README, "sh") if any(map(runs, b.splitlines()))])
def test_a_block_of_shell_lines_runs(block, tmp_path):
    script = "\n".join(line for line in block.splitlines() if runs(line))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr


def test_each_line_that_is_not_run_is_in_the_readme():
    lines = [line for block in blocks(README, "sh") for line in block.splitlines()]
    assert [b for b in NOT_RUN if not any(line.startswith(b) for line in lines)] == []


def test_the_readme_is_short():
    assert len(README.read_bytes()) <= LIMIT_BYTES


def without_code(path):
    return re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(path):
    """The anchors that a forge gives to the headings outside code."""
    titles = re.findall(r"^#+ (.*)$", without_code(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def broken(path):
    """The relative links of a page that lead to no file or to no heading."""
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(path)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("path", LINKED, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_a_heading(path):
    assert broken(path) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A page\n[a](#a-page) [b](#b) [c](none.md) [d](page.md#a-page) [e](https://x.org) [f](page.md#f)\n"
    )
    assert broken(page) == ["#b", "none.md", "page.md#f"]
