"""What must hold before a release: the wheels and the sdist in dist/ against the tree, and their metadata.

    python -m release.check      (make release-check builds what is missing first)

Every problem is a line; the exit code is 1 where there is one.
"""

import hashlib
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.parser import BytesParser
from pathlib import Path

from release.libraries import PLATFORMS, ROOT
from release.wheels import DIST, MOST_BYTES
from sbert_mini.version import __version__

LICENSES = ("LICENSE", "NOTICE", "licenses/MIT-MiniLM.txt", "licenses/Unicode-3.0.txt")
_SOURCES = (".cpp", ".h")


def tree() -> dict[str, str]:
    """Return the files that a wheel must hold, each with its sha256, by the name in the wheel."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "sbert_mini", "cli"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    files = {}
    for name in filter(None, names):
        if not name.endswith(_SOURCES):
            target = f"sbert_mini/{name}" if name.startswith("cli/") else name
            files[target] = hashlib.sha256((ROOT / name).read_bytes()).hexdigest()
    return files


def wheel_problems(wheel: Path, files: dict[str, str]) -> Iterator[str]:
    """Yield what is wrong with a wheel.

    Args:
        wheel: the file.
        files: of `tree`.
    """
    platform = next((p for p in PLATFORMS if wheel.name.endswith(f"-py3-none-{p.tag}.whl")), None)
    if platform is None:
        yield "is for no platform of release/libraries.py"
        return
    if wheel.stat().st_size > MOST_BYTES:
        yield f"has {wheel.stat().st_size:,} bytes, and may have {MOST_BYTES:,}"
    with zipfile.ZipFile(wheel) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    info = f"sbert_mini-{__version__}.dist-info/"
    library = f"sbert_mini/native/{platform.file}"
    if library not in found:
        yield f"has no {library}"
    held = {name for name in found if not name.startswith(info) and name != library}
    yield from (f"lacks {name}" for name in sorted(set(files) - held))
    yield from (f"has {name}, which is not in the tree" for name in sorted(held - set(files)))
    for name in sorted(held & set(files)):
        if hashlib.sha256(found[name]).hexdigest() != files[name]:
            yield f"has another {name} than the tree"
    yield from (f"lacks {name}" for name in LICENSES if f"{info}licenses/{name}" not in found)
    about = BytesParser().parsebytes(found.get(f"{info}METADATA", b""))
    if about["Version"] != __version__:
        yield f"has the version {about['Version']}, where the source has {__version__}"
    if about["License-Expression"] != "Apache-2.0":
        yield f"has the licence {about['License-Expression']}"


def sdist_problems(sdist: Path) -> Iterator[str]:
    """Yield what is wrong with an sdist: what is needed to build the wheel from it, and the licences."""
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    names = subprocess.run(
        ["git", "ls-files", "-z", "sbert_mini", "cli"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    needed = {"pyproject.toml", "README.md", *LICENSES, *filter(None, names)}
    yield from (f"lacks {name}" for name in sorted(needed - held))


def text_problems() -> Iterator[str]:
    """Yield what the texts of a release lack."""
    if f"## [{__version__}]" not in (ROOT / "CHANGELOG.md").read_text("utf-8"):
        yield f"CHANGELOG.md has no section [{__version__}]: what is new stands under [Unreleased]"
    for file in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        for action in re.findall(r"uses: *(\S+)", file.read_text("utf-8")):
            if not re.fullmatch(r"[^@]+@[0-9a-f]{40}", action):
                yield f"{file.name} uses {action}, which is not pinned to a commit"


def problems() -> Iterator[str]:
    """Yield all problems, each with the file that has it."""
    files = tree()
    wheels = sorted(DIST.glob(f"sbert_mini-{__version__}-*.whl"))
    sdists = sorted(DIST.glob(f"sbert_mini-{__version__}.tar.gz"))
    for platform in PLATFORMS:
        if not any(platform.tag in wheel.name for wheel in wheels):
            yield f"dist has no wheel for {platform.tag}: make wheels"
    if not sdists:
        yield f"dist has no sbert_mini-{__version__}.tar.gz"
    for wheel in wheels:
        yield from (f"{wheel.name} {problem}" for problem in wheel_problems(wheel, files))
    for sdist in sdists:
        yield from (f"{sdist.name} {problem}" for problem in sdist_problems(sdist))
    yield from text_problems()
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *map(str, (*wheels, *sdists))],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        yield from (f"twine: {line}" for line in (done.stdout + done.stderr).splitlines() if line.strip())


def main() -> None:
    """Print the problems."""
    found = list(problems())
    for problem in found:
        print(problem)
    print(f"{len(found)} problems" if found else "ready for release")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
