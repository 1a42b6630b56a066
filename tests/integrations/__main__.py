"""`make check-integrations`: each adapter's tests, with the framework in an environment of its own below build/.

Such an environment has the framework's own versions of its packages; what it lacks (faiss, NumPy) it takes from the environment
that runs this.
"""

import argparse
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
FRAMEWORKS = {
    "langchain": ("langchain-core", "langchain-tests"),
    "llama_index": ("llama-index-core",),
    "chroma": ("chromadb",),
    "llm": ("llm",),
}
"""The test's name -> what is installed for it; the first is the framework."""


def prepared(name):
    """Return the Python of a framework's environment."""
    folder = ROOT / "build" / "integrations" / name
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "-q", *FRAMEWORKS[name], "pytest>=9"], check=True)
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    shared = f"{ROOT}\n{sysconfig.get_paths()['purelib']}\n"
    Path(paths["purelib"], "zz_sbert_mini.pth").write_text(shared, "utf-8")
    return python


def main():
    """Run the tests, and print the versions as a table of docs/integrations.md has them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FRAMEWORKS)}; all by default")
    failed, lines = [], []
    for name in parser.parse_args().names or FRAMEWORKS:
        python = prepared(name)
        test = ROOT / "tests" / "integrations" / f"test_{name}.py"
        options = ["-q", "-p", "no:cacheprovider", "-c", test.parent / "frameworks.ini", "--noconftest"]
        if subprocess.run([python, "-m", "pytest", *options, test], cwd=ROOT).returncode:
            failed.append(name)
            continue
        code = f"from importlib.metadata import version; print(version({FRAMEWORKS[name][0]!r}))"
        version = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        lines.append(f"| {FRAMEWORKS[name][0]} | {version} |")
    print("\n".join(lines))
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
