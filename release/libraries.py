"""The native library for every platform, compiled on one machine by zig's clang (the package ziglang).

    python -m release.libraries [PLATFORM ...]      into build/libraries/PLATFORM/

Sources and flags are those of pyproject.toml, which `pip install` compiles with. A file that was compiled from the same sources,
with the same flags, by the same compiler is taken from build/objects/.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
EXTRA = ("-w", "-fPIC")
"""What setuptools adds by itself, and no warnings of another compiler than the one that the flags were written for."""


@dataclass(frozen=True)
class Platform:
    """A platform that has a wheel.

    Attributes:
        tag: of its wheel.
        target: what zig calls it, with the oldest system that the library runs on.
        file: the library's name, which `sbert_mini.native.library` looks for.
    """

    tag: str
    target: str
    file: str = "_encoder.so"


PLATFORMS = (
    Platform("manylinux_2_17_x86_64.manylinux2014_x86_64", "x86_64-linux-gnu.2.17"),
    Platform("manylinux_2_17_aarch64.manylinux2014_aarch64", "aarch64-linux-gnu.2.17"),
    Platform("macosx_11_0_arm64", "aarch64-macos.11.0"),
    Platform("macosx_11_0_x86_64", "x86_64-macos.11.0"),
    Platform("win_amd64", "x86_64-windows-gnu", "_encoder.dll"),
)


def extension() -> dict[str, Any]:
    """Return the library's sources and flags, as pyproject.toml has them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    found: dict[str, Any] = settings["tool"]["setuptools"]["ext-modules"][0]
    return found


def compiler(target: str) -> list[str]:
    """Return the command that compiles and links for a target."""
    return [sys.executable, "-m", "ziglang", "c++", "-target", target, *extension()["extra-compile-args"], *EXTRA]


def library_for(platform: Platform) -> Path:
    """Compile the library for a platform, and return the file."""
    objects = [_compiled(source, platform.target) for source in extension()["sources"]]
    file = BUILD / "libraries" / platform.tag / platform.file
    file.parent.mkdir(parents=True, exist_ok=True)
    _run([*compiler(platform.target), "-shared", "-s", *map(str, objects), "-o", str(file)])
    return file


def _compiled(source: str, target: str) -> Path:
    sources = sorted([*extension()["depends"], source])
    command = [*compiler(target), "-c", source]
    digest = hashlib.sha256("\0".join([version("ziglang"), *command[1:]]).encode())
    for name in sources:
        digest.update((ROOT / name).read_bytes())
    file = BUILD / "objects" / f"{Path(source).stem}-{target}-{digest.hexdigest()[:16]}.o"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.o")
        _run([*command, "-o", str(part)])
        part.replace(file)
    return file


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"failed: {' '.join(command)}")


def chosen(tags: Sequence[str]) -> list[Platform]:
    """Return the platforms whose tags begin as one that is given; all where none is given."""
    found = [platform for platform in PLATFORMS if not tags or platform.tag.startswith(tuple(tags))]
    if not found:
        sys.exit(f"no platform is called so; there are {', '.join(platform.tag for platform in PLATFORMS)}")
    return found


def main() -> None:
    """Compile for the platforms that are named, or for all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("platform", nargs="*", help="the beginning of a platform's tag")
    for platform in chosen(parser.parse_args().platform):
        file = library_for(platform)
        print(f"{file.relative_to(ROOT)}: {file.stat().st_size:,} bytes", flush=True)


if __name__ == "__main__":
    main()
