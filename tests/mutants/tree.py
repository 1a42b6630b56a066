"""A copy of the tree in which a fault is planted, and its compiled code."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

from tests.mutants.source import ROOT

LIBRARY = f"sbert_mini/native/_encoder{sysconfig.get_config_var('EXT_SUFFIX')}"

SELECTED = "not long and not frameworks and not wheel"
"""As in `make test`."""


def copy_tree(folder: Path) -> Path:
    """Make `folder` a copy of the files that git knows, with the compiled library; return it."""
    shutil.rmtree(folder, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in [*listed.stdout.decode().split("\0"), LIBRARY]:
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    # the package `sbert_mini.cli` is the folder `cli` (pyproject.toml); a plain path on sys.path knows no such mapping
    (folder / "sbert_mini" / "cli").symlink_to("../cli")
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Return the environment in which Python, and the command `sbmini`, take the package from `folder`."""
    return {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}


def compile_native(folder: Path, *, coverage: bool = False) -> bool:
    """Compile the library of a copy with the project's options; return whether the compiler accepted it."""
    settings = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
    extension = settings["tool"]["setuptools"]["ext-modules"][0]
    options = extension["extra-compile-args"]
    if coverage:
        options = [option for option in options if option != "-O3"] + ["-O1", "--coverage"]
    command = [os.environ.get("CXX", "g++"), "-shared", "-fPIC", *options, *extension["sources"], "-o", LIBRARY]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0


def collected(folder: Path) -> frozenset[str]:
    """Return the names of all tests of a copy that can be given on a command line as they are."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-m",
        SELECTED,
        "-o",
        "addopts=-q",
        "-p",
        "no:randomly",
    ]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=True)
    return frozenset(line for line in done.stdout.splitlines() if re.fullmatch(r"[^:]+::[^\\*:]+", line))


def run_tests(folder: Path, tests: list[str], limit_s: float) -> tuple[str, str]:
    """Run tests in a copy until one fails.

    Returns:
        "caught", "survived", "time" (over the limit), or "none" where there was no test to run; and the failing test's name.
    """
    if not tests:
        return "none", ""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:randomly", "-p", "no:cacheprovider"]
    process = subprocess.Popen(
        [*command, "--tb=line", *tests],
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output = process.communicate(timeout=limit_s)[0].decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return "time", ""
    if process.returncode == 0:
        return "survived", ""
    if process.returncode < 0:
        return "caught", f"pytest was ended by signal {-process.returncode}"
    if process.returncode != 1:  # not a failed test: pytest could not begin
        return "none", f"pytest ended with {process.returncode}"
    failed = [line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return "caught", failed[0].split(" - ")[0].split(" ", 1)[1] if failed else ""
