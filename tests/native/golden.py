"""The library's vectors on other compilers and processors, against those of golden.txt: the same bits.

    python -m tests.native.golden --compiler clang++
    python -m tests.native.golden --compiler aarch64-linux-gnu-g++ --emulator qemu-aarch64-static   (make arm)

Compiles the library with golden.cpp, runs it, and compares its lines. `--write` writes golden.txt instead. `--flags` adds flags.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXPECTED = Path(__file__).with_suffix(".txt")


def missing(tools: Sequence[str]) -> list[str]:
    """Return which tools are not installed."""
    return [tool for tool in tools if shutil.which(tool) is None]


def lines_of(compiler: str, emulator: str = "", flags: Sequence[str] = ()) -> tuple[str, str, int]:
    """Return what the program prints when a compiler has made it: its lines, one a level and case, and its exit code."""
    extension = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["ext-modules"][0]
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "golden")
        options = [*extension["extra-compile-args"], *flags, *(["-static"] if emulator else [])]
        sources = [*extension["sources"], "tests/native/golden.cpp"]
        subprocess.run([compiler, *options, "-w", "-Isbert_mini/native", *sources, "-o", program], cwd=ROOT, check=True)
        command = [*([emulator, "-cpu", "max"] if emulator else []), program]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout, done.stderr, done.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("--emulator", default="")
    parser.add_argument("--flags", default="")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    absent = missing([tool for tool in (options.compiler, options.emulator) if tool])
    if absent:
        sys.exit(f"not installed: {', '.join(absent)}")
    lines, levels, code = lines_of(options.compiler, options.emulator, options.flags.split())
    if options.write:
        EXPECTED.write_text(lines)
    print(lines + levels, end="")
    same = lines == EXPECTED.read_text("utf-8")
    print(f"{options.compiler}: {'the same bits' if same and not code else 'other bits'}")
    sys.exit(not same or code != 0)


if __name__ == "__main__":
    main()
