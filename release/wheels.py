"""The wheels of a release: one for each platform, for every Python, with the library that zig compiled for it.

    python -m release.wheels [PLATFORM ...]      into dist/ (make wheels)

The library has no Python in it, so its wheel is py3-none-PLATFORM. What all wheels have in common is built once by setuptools, of
the files that git knows, without the extension module; a library and its tag are put into a copy for each platform.
"""

import argparse
import base64
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from release.libraries import BUILD, ROOT, Platform, chosen, library_for

DIST = ROOT / "dist"
MOST_BYTES = 50_000_000
"""The largest wheel."""
_EXTENSION = re.compile(r"^\[\[tool\.setuptools\.ext-modules\]\]\n(?:(?!\[).*\n)*?(?=^\[)", re.MULTILINE)
_TIME = (2020, 1, 1, 0, 0, 0)
"""Of every file in a wheel, so that the same files give the same wheel."""


def common_wheel(folder: Path) -> Path:
    """Build the wheel of what all platforms have in common, py3-none-any, and return it."""
    tree = folder / "tree"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if name.startswith(("sbert_mini/", "cli/", "licenses/")) or "/" not in name:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tree / name)
    settings = tree / "pyproject.toml"
    text, count = _EXTENSION.subn("", settings.read_text("utf-8"))
    if count != 1:
        sys.exit("pyproject.toml has not one extension module")
    settings.write_text(text, "utf-8")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(tree)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def wheel_for(platform: Platform, common: Path, library: Path, into: Path = DIST) -> Path:
    """Write a platform's wheel, and return it.

    Args:
        platform: the platform.
        common: the wheel of `common_wheel`.
        library: the library for the platform.
        into: the folder for it.
    """
    tags = [f"py3-none-{tag}" for tag in platform.tag.split(".")]
    with zipfile.ZipFile(common) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    record = next(name for name in files if name.endswith(".dist-info/RECORD"))
    about = record.replace("RECORD", "WHEEL")
    lines = [line for line in files[about].decode().splitlines() if line and not line.startswith(("Tag:", "Root-Is"))]
    lines += ["Root-Is-Purelib: false", *(f"Tag: {tag}" for tag in tags)]
    files[about] = "\n".join([*lines, ""]).encode()
    files[f"sbert_mini/native/{platform.file}"] = library.read_bytes()
    del files[record]
    rows = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in sorted(files.items())]
    files[record] = "\n".join([*rows, f"{record},,", ""]).encode()
    into.mkdir(parents=True, exist_ok=True)
    wheel = into / f"{'-'.join(common.name.split('-')[:2])}-py3-none-{platform.tag}.whl"
    part = wheel.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, _TIME)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(info, data)
    part.replace(wheel)
    if wheel.stat().st_size > MOST_BYTES:
        sys.exit(f"{wheel.name} has {wheel.stat().st_size:,} bytes, and may have {MOST_BYTES:,}")
    return wheel


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def main() -> None:
    """Build the wheels of the platforms that are named, or of all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("platform", nargs="*", help="the beginning of a platform's tag")
    parser.add_argument("--compiled", action="store_true", help="take the libraries that lie in build/libraries")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        common = common_wheel(Path(folder))
        for platform in chosen(options.platform):
            file = BUILD / "libraries" / platform.tag / platform.file
            if options.compiled and not file.is_file():
                sys.exit(f"{file} is not there: python -m release.libraries {platform.tag}")
            wheel = wheel_for(platform, common, file if options.compiled else library_for(platform))
            print(f"{wheel.relative_to(ROOT)}: {wheel.stat().st_size:,} bytes", flush=True)


if __name__ == "__main__":
    main()
