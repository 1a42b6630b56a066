"""The reader of ONNX files on damaged files: it reads them within the memory of the file, or raises `CorruptModelError`.

    python -m tests.native.fuzz_reader --seconds 600

Guided by coverage where the package `atheris` is installed (the extra `fuzz`); else changes of the files in `corpus/` by a seed.
What fails is written to `build/fuzz-reader/`.
"""

import argparse
import importlib.util
import random
import sys
import tempfile
import time
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")
FAILURES = Path("build") / "fuzz-reader"
MOST_BYTES = 4096
"""Of an input."""


def read(file: Path) -> None:
    """Read all of an ONNX file, as the engines and the weights' reader do."""
    from sbert_mini.errors import CorruptModelError
    from sbert_mini.model.layout import BertConfig
    from sbert_mini.model.onnx_file import OnnxFile

    size = file.stat().st_size
    try:
        with OnnxFile(file) as graph:
            arrays = {name: graph.read(name) for name in graph.constants}
            BertConfig(num_hidden_layers=1).check_constants({name: array.shape for name, array in arrays.items()})
    except CorruptModelError:
        return
    taken = sum(array.nbytes for array in arrays.values())
    assert taken <= size, f"{taken} bytes of a file of {size}"
    assert len(graph.nodes) <= size, "more nodes than bytes"


def guided(seconds: int, file: Path, folder: Path) -> None:
    """Let atheris look for inputs that run new lines; it ends this process."""
    import atheris

    with atheris.instrument_imports(include=["sbert_mini.model"]):
        import sbert_mini.model.layout
        import sbert_mini.model.onnx_file  # noqa: F401

    def once(data: bytes) -> None:
        file.write_bytes(data)
        read(file)

    limits = [
        f"-max_total_time={seconds}",
        f"-max_len={MOST_BYTES}",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={FAILURES}/", str(folder), str(CORPUS)], once)
    atheris.Fuzz()


def blind(seconds: int, seed: int, file: Path) -> int:
    """Change files of the corpus by the seed; return how many were read."""
    from tests.native import messages

    sources = [source.read_bytes() for source in sorted(CORPUS.iterdir())]
    started, number = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        rng = random.Random(f"{seed} {number}")
        data = rng.choice(sources)
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = messages.mutate(data, rng)[0] if rng.random() < 0.8 else messages.damage(data, rng)
        file.write_bytes(data)
        try:
            read(file)
        except BaseException:
            (FAILURES / f"{seed}-{number}.onnx").write_bytes(data)
            raise
        number += 1
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1, help="of the changes without atheris")
    options = parser.parse_args()
    FAILURES.mkdir(parents=True, exist_ok=True)
    memory = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        folder = Path(name) / "corpus"
        folder.mkdir()
        file = Path(name) / "graph.onnx"
        if importlib.util.find_spec("atheris"):
            guided(options.seconds, file, folder)
        else:
            print("atheris is not installed (pip install -e '.[fuzz]'): changes by a seed, without coverage")
            print(f"{blind(options.seconds, options.seed, file):,} files, no failure")


if __name__ == "__main__":
    main()
