"""The native code under AddressSanitizer and UndefinedBehaviorSanitizer, and with 8 threads under ThreadSanitizer.

    python -m tests.native.sanitize --cases 5000 --seed 1

For g++, and for clang++ where it is installed: a copy of the tree in `build/sanitize/`, its library compiled with each sanitizer,
the native tests and `tests.native.fuzz` with the first two, and 8 threads that encode with one model with the third. A report
ends the process that made it, and this command with 1. The fuzzer goes on where it was stopped, while the code is the same.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.tree import LIBRARY, copy_tree, environment

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "sanitize"
TESTS = ("tests/native", "tests/model/test_sizes.py")
SETTINGS = {
    "ASAN_OPTIONS": "detect_leaks=0:exitcode=99:allocator_may_return_null=1",  # Python does not free all that it has at its end
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": f"exitcode=99:halt_on_error=1:suppressions={FOLDER / 'suppressions.txt'}",
}
SUPPRESSIONS = "race:_dl_deallocate_tls\n"
"""glibc frees the thread-local memory of a thread that has ended under a lock of its own, which ThreadSanitizer does not see."""
REPORTS = ("AddressSanitizer", "runtime error:", "ThreadSanitizer")
THREADS = """
import threading
import numpy as np
from sbert_mini.model.registry import resolve
from sbert_mini.runtime.graphs import find
from sbert_mini.runtime.native import NativeEngine
from sbert_mini.runtime.native_library import levels
from sbert_mini.text.tokenizer import TextTokenizer
from sbert_mini.text.tokens import Tokens

model = resolve("sbert-mini-fast")
converted = find(model)
rng = np.random.default_rng(0)
batches = [[Tokens(rng.integers(0, 20000, n).tolist(), [0] * n, False) for n in rng.integers(1, 60, 6)] for _ in range(5)]
engines = [NativeEngine(converted, level) for level in levels()]
expected = [engines[0].run(batch) for batch in batches]
failed = []
tokenizer = TextTokenizer.from_directory(model, 64)
texts = [f"Word {i} of naïve texts, 漢字 and {'long' * i}" for i in range(50)]
ids = tokenizer.encode(texts).ids.tolist()


def work(number):
    own = NativeEngine(converted)  # models are opened and closed beside each other too
    if tokenizer.encode(texts).ids.tolist() != ids or TextTokenizer.from_directory(model, 64).encode(texts).ids.tolist() != ids:
        failed.append(number)
    for engine in (*engines, own):
        for batch, vectors in zip(batches, expected):
            if not np.array_equal(engine.run(batch), vectors):
                failed.append(number)


for _ in range(2):
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
assert engines and not failed, failed
print(f"8 threads, {len(engines)} levels: the same vectors")
"""


@dataclass(frozen=True)
class Build:
    """A compiler and a sanitizer: the flags, and what must be loaded before Python.

    Without the C++ library beside it the runtime finds no `__cxa_throw`, and ends the process at ONNX Runtime's first exception.
    """

    compiler: str
    sanitizers: str
    runtime: str
    standard_library: str

    @property
    def name(self) -> str:
        """The folder's name."""
        return f"{self.compiler}-{self.sanitizers.replace(',', '-')}"


def builds() -> list[Build]:
    """Return what can be built here; a compiler that is not installed is left out, and said so."""
    found = []
    for compiler, address, thread in (
        ("g++", "libasan.so", "libtsan.so"),
        ("clang++", "libclang_rt.asan-x86_64.so", "libclang_rt.tsan-x86_64.so"),
    ):
        if shutil.which(compiler) is None:
            print(f"{compiler} is not installed: skipped")
            continue
        for sanitizers, library in (("address,undefined", address), ("thread", thread)):
            runtime, standard = _library(compiler, library), _library(compiler, "libstdc++.so.6")
            if runtime.is_file():
                found.append(Build(compiler, sanitizers, str(runtime), str(standard)))
            else:
                print(f"{compiler} has no {library}: {sanitizers} is skipped")
    return found


def _library(compiler: str, name: str) -> Path:
    """Return where a compiler has a library; the name alone where it has none."""
    command = [compiler, f"-print-file-name={name}"]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()).resolve()


def compiled(build: Build) -> Path:
    """Return a copy of the tree with the library compiled for a sanitizer."""
    folder = copy_tree(FOLDER / build.name)
    extension = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["ext-modules"][0]
    flags = [flag for flag in extension["extra-compile-args"] if flag != "-O3"]
    flags += ["-O1", "-g", "-fno-omit-frame-pointer", f"-fsanitize={build.sanitizers}", "-fno-sanitize-recover=all"]
    flags += ["-shared-libsan"] if build.compiler == "clang++" else []
    command = [build.compiler, "-shared", "-fPIC", *flags, *extension["sources"], "-o", LIBRARY]
    subprocess.run(command, cwd=folder, check=True)
    return folder


def run(build: Build, folder: Path, *arguments: str) -> bool:
    """Run Python with a sanitizer's runtime in a copy; return whether it ended well, without a report."""
    settings = {**environment(folder), **SETTINGS, "LD_PRELOAD": f"{build.runtime} {build.standard_library}"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    reported = [word for word in REPORTS if word in done.stdout]
    print(done.stdout if done.returncode or reported else "\n".join(done.stdout.splitlines()[-3:]), flush=True)
    print(
        f"{build.name}: {' '.join(arguments[:4])[:60]!r}: exit code {done.returncode}, reports: {reported or 0}",
        flush=True,
    )
    return not done.returncode and not reported


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sound, checked = True, 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "suppressions.txt").write_text(SUPPRESSIONS)
    for build in builds():
        folder = compiled(build)
        checked += 1
        if build.sanitizers == "thread":
            sound &= run(build, folder, "-c", THREADS)
            continue
        sound &= run(build, folder, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *TESTS)
        code = hashlib.sha256()
        for file in sorted(f for room in ("sbert_mini", "tests/native") for f in (folder / room).rglob("*.[pch]*")):
            code.update(file.read_bytes() if file.suffix in (".py", ".cpp", ".h") else b"")
        log = FOLDER / f"{build.name}-{options.seed}-{code.hexdigest()[:12]}.jsonl"
        cases = ("--cases", str(options.cases), "--seed", str(options.seed), "--log", str(log))
        sound &= run(build, folder, "-m", "tests.native.fuzz", *cases)
    if not checked:
        print("no compiler with a sanitizer is installed")
    sys.exit(not (sound and checked))


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
