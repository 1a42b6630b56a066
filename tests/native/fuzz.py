"""Damaged model directories, opened in forked children: each gives vectors or an error, and never ends its process.

    python -m tests.native.fuzz --cases 5000 --seed 1 --log build/fuzz.jsonl

Three small models are made once. A case is one of them with one to three changes: of a value in a JSON file, of a size in
`config.json` with or without the constants that belong to it, of the ONNX file as bytes, as protobuf messages, or as constants.
Then its record is sealed again (sizes, checksums), so that the change is not found by its checksum. A case follows from the seed
and its number. The log has a line a case; the same command goes on where it was stopped.
"""

import argparse
import collections
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.native import messages

TEXTS = ["the cat sleeps", "a dog runs. " * 12, "x", "[SEP] unknown \u00e9\u4e2d\U0001f600", ""]
PAIRS = [("the cat sleeps", "a dog"), ("a", "b " * 40)]
MEMORY = Path("/dev/shm")  # noqa: S108  # a file system in memory
LIMIT_S = 60
LIMIT_BYTES = 1 << 30
"""Of memory that a case takes beyond what its parent has: the files are 200 kB."""
BAD = ("crash", "hang", "memory", "traceback")
REPORTS = (b"AddressSanitizer", b"runtime error:", b"ThreadSanitizer", b"LeakSanitizer")
VALUES: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 5, 31, 32, 63, 64, 65, 96, 127, 128, 192, 255, 256, 1000, 1001),
    *(
        2**15,
        2**15 + 1,
        2**16,
        2**20,
        2**24,
        2**31 - 1,
        2**31,
        2**32 - 1,
        2**32,
        2**32 + 1,
        2**62,
        2**63,
        2**64,
        10**400,
    ),
    *(0.5, 1.5, -0.0, 1e-300, 1e300, float("nan"), float("inf"), True, False, None),
    *("", "6", "x" * 5000, "../..", "\ud800", [], [6], {}, {"a": [1]}, [["a"]]),
)
MODELS: tuple[dict[str, Any], ...] = (
    {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128, "num_hidden_layers": 2},  # native
    {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 64, "num_hidden_layers": 1},
    {"modules": [{"kind": "Pooling", "embedding_dimension": 28, "pooling_mode": "max"}, {"kind": "Normalize"}]},
)


def make_models(folder: Path) -> None:
    """Put the models into the folder, with both graphs and without their safetensors: their record is taken at its word."""
    from sbert_mini.runtime.graphs import find
    from tests.conftest import _write_model

    for number, options in enumerate(MODELS):
        path = folder / str(number)
        path.mkdir(parents=True)
        _write_model(path, seed=number, **options)
        if number == 1:
            _write_tokenizer(path)
        find(path)
        (path / "model.safetensors").unlink()


def _write_tokenizer(path: Path) -> None:
    """Put a tokenizer.json into the place of the vocabulary."""
    from tokenizers import BertWordPieceTokenizer

    BertWordPieceTokenizer(str(path / "vocab.txt")).save(str(path / "tokenizer.json"))
    (path / "vocab.txt").unlink()


def change(path: Path, rng: random.Random) -> str:
    """Damage a model directory, and return how."""
    shares: dict[Callable[[Path, random.Random], str], int] = {
        change_config: 3,
        change_json: 4,
        change_sizes: 3,
        change_messages: 6,
        change_constant: 4,
        change_bytes: 1,
    }
    kinds = [kind for kind, share in shares.items() for _ in range(share)]
    return "; ".join(rng.choice(kinds)(path, rng) for _ in range(rng.choice((1, 1, 2, 3))))


def change_config(path: Path, rng: random.Random) -> str:
    """Give a key of config.json another value."""
    file = path / "config.json"
    data = _object(file)
    if not data:
        return "nothing"
    name, value = rng.choice(sorted(data)), rng.choice(VALUES)
    data[name] = value
    if rng.random() < 0.1:
        del data[name]
    file.write_text(json.dumps(data))
    return f"config.json: {name} = {value!r:.40}"


def _object(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one where another change has broken it."""
    try:
        data = json.loads(file.read_text())
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def change_json(path: Path, rng: random.Random) -> str:
    """Change a value anywhere in a JSON file of the directory, or a line of the vocabulary."""
    file = rng.choice([f for f in sorted(path.rglob("*")) if f.suffix in (".json", ".txt")])
    if file.suffix == ".txt" or rng.random() < 0.05:
        return change_bytes(path, rng, file)
    try:
        data = json.loads(file.read_text())
    except ValueError:
        return "nothing"
    holder, key = None, None
    node = data
    while isinstance(node, dict | list) and node and (holder is None or rng.random() < 0.8):
        holder, key = node, rng.choice(sorted(node)) if isinstance(node, dict) else rng.randrange(len(node))
        node = node[key]
    value = rng.choice(VALUES) if rng.random() < 0.8 else rng.choice([*sorted(map(str, _keys(data))), "none"])
    if holder is None:
        data = value
    elif rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = value
    file.write_text(json.dumps(data))
    return f"{file.relative_to(path)}: {key!r:.40} = {value!r:.40}"


def _keys(data: Any) -> set[Any]:
    if isinstance(data, dict):
        return set(data).union(*map(_keys, data.values()))
    return set().union(*map(_keys, data)) if isinstance(data, list) else {"none"}


def _graph(path: Path, rng: random.Random) -> Path:
    return path / "onnx" / rng.choice(("model_int8.onnx", "model_int8.onnx", "model_int8.onnx", "model.onnx"))


def change_bytes(path: Path, rng: random.Random, file: Path | None = None) -> str:
    """Flip bits, cut, grow, or copy a part of a file over another."""
    file = file or _graph(path, rng)
    file.write_bytes(messages.damage(file.read_bytes(), rng))
    return f"{file.name}: bytes"


def change_messages(path: Path, rng: random.Random) -> str:
    """Change a field of the ONNX file at any depth: its number, its value, its place."""
    file = _graph(path, rng)
    data, how = messages.mutate(file.read_bytes(), rng)
    file.write_bytes(data)
    return f"{file.name}: {how}"


def change_constant(path: Path, rng: random.Random) -> str:
    """Give a constant other dimensions, another type or other bytes."""
    file = _graph(path, rng)
    names = messages.names(data := file.read_bytes())
    if not names:
        return "nothing"
    name = rng.choice(names)
    file.write_bytes(messages.change_constant(data, name, rng))
    return f"{file.name}: {name}"


def change_sizes(path: Path, rng: random.Random) -> str:
    """Change sizes in config.json, and the constants with them, so that they agree."""
    from sbert_mini.errors import SbertMiniError
    from sbert_mini.model.layout import BertConfig

    file = path / "config.json"
    try:
        data = _object(file)
        sizes = [name for name in data if name.endswith(("size", "layers", "heads", "embeddings"))]
        for name in rng.sample(sorted(sizes), rng.choice((1, 1, 2))):
            data[name] = rng.choice((1, 2, 3, 4, 32, 64, 65, 96, 128, 192, 300, 1000))
        shapes = BertConfig.from_json(data).parameter_shapes()
    except (ValueError, TypeError, AttributeError, SbertMiniError):
        return "nothing"
    graph = path / "onnx" / "model_int8.onnx"
    graph.write_bytes(messages.resize(graph.read_bytes(), shapes))
    file.write_text(json.dumps(data))
    return f"sizes: {[data.get(name) for name in sizes]}"


def seal(path: Path) -> None:
    """Make the record name what lies in the directory now, as far as it can."""
    from sbert_mini.model.layout import read_layout
    from sbert_mini.runtime.fingerprint import source_digests

    file = path / "onnx" / "sbmini.json"
    with contextlib.suppress(Exception):
        record = json.loads(file.read_text())
        for entry in record["graphs"].values():
            data = (path / "onnx" / entry["file"]).read_bytes()
            entry |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        with contextlib.suppress(Exception):
            record["source"] |= source_digests(read_layout(path))
        file.write_text(json.dumps(record))


def use(path: Path, rng: random.Random) -> str:
    """Open a model and encode with it; return what came of it."""
    from sbert_mini import Embedder
    from sbert_mini.errors import SbertMiniError

    graph, backend = rng.choice((("int8", None), ("int8", None), ("int8", None), ("int8", "onnx"), ("fp32", None)))
    try:
        embedder = Embedder(path, graph=graph, backend=backend, threads=rng.choice((1, 2)), offline=True)
        for encode, given in ((embedder.encode, TEXTS), (embedder.encode_query, TEXTS), (embedder.encode_pairs, PAIRS)):
            assert len(encode(given)) == len(given)
        embedder.encode(TEXTS, precision="int8")
    except (SbertMiniError, MemoryError) as error:
        return f"refused {error!r:.300}"
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"traceback {Path(place.filename).name}:{place.lineno} {error!r:.200}"
    return f"vectors {embedder.backend}"


def attempt(number: int, seed: int, models: Path, folder: Path) -> dict[str, Any]:
    """Run a case in a child, and return its line of the log."""
    rng = random.Random(f"{seed} {number}")
    path = Path(shutil.copytree(models / str(rng.choice((0, 0, 0, 1, 1, 2))), folder / f"case-{number}"))
    how = "nothing"
    while how == "nothing":
        how = change(path, rng)
    seal(path)
    output = folder / f"output-{number}"
    child = os.fork()
    if child == 0:
        stream = os.open(output, os.O_CREAT | os.O_WRONLY)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        signal.alarm(LIMIT_S)
        outcome = use(path, rng)
        os.write(stream, f"\noutcome {outcome}".encode("utf-8", "replace"))
        os._exit(0)
    _, status, usage = os.wait4(child, 0)
    said = output.read_bytes()
    outcome = said.rpartition(b"\noutcome ")[2].decode("utf-8", "replace")
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        outcome = f"hang {LIMIT_S} s"
    elif status or any(report in said for report in REPORTS):
        first = max(
            0, min((at for report in REPORTS if (at := said.find(report)) >= 0), default=len(said) - 3000) - 200
        )
        outcome = f"crash {os.waitstatus_to_exitcode(status)} {said[first : first + 3000].decode('utf-8', 'replace')}"
    elif usage.ru_maxrss * 1024 > _resident() + LIMIT_BYTES:
        outcome = f"memory {usage.ru_maxrss / 1024:.0f} MB"
    if not outcome.startswith(BAD):
        shutil.rmtree(path)
    output.unlink()
    return {"case": number, "how": how, "outcome": outcome}


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def work(options: argparse.Namespace, worker: int, models: Path, folder: Path) -> None:
    """Run this worker's share of the cases that the log lacks."""
    import onnxruntime  # noqa: F401  # children share what is imported here

    import sbert_mini.runtime.embedder
    import sbert_mini.runtime.graphs
    import sbert_mini.runtime.native
    import sbert_mini.text.tokenizer  # noqa: F401

    done = {entry["case"] for entry in read_log(options.log)}
    with options.log.open("a", buffering=1) as log:
        for number in range(worker, options.cases, options.workers):
            if number not in done:
                log.write(json.dumps(attempt(number, options.seed, models, folder)) + "\n")


def read_log(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a log; one that was cut short is left out."""
    entries = []
    for line in file.read_text().splitlines() if file.is_file() else ():
        with contextlib.suppress(ValueError):
            entries.append(json.loads(line))
    return entries


def report(entries: list[dict[str, Any]]) -> int:
    """Print what came of the cases, and return the number of faults."""
    counts = collections.Counter(entry["outcome"].split()[0] for entry in entries)
    print(f"{len(entries)} model directories: {dict(sorted(counts.items()))}")
    print(dict(collections.Counter(e["outcome"] for e in entries if e["outcome"].startswith("vectors"))))
    faults = [entry for entry in entries if entry["outcome"].startswith(BAD)]
    for entry in faults[:20]:
        print(f"case {entry['case']}: {entry['how']}: {entry['outcome'][:3000]}")
    return len(faults)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--log", type=Path, default=Path("build/fuzz.jsonl"))
    parser.add_argument("--models", type=Path, help="the folder of the three models; made where it is absent")
    options = parser.parse_args()
    options.log = options.log.absolute()
    options.log.parent.mkdir(parents=True, exist_ok=True)
    os.environ |= {"HF_HUB_OFFLINE": "1", "SBMINI_CACHE_DIR": "/dev/null/none"}  # nothing is converted again
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        models = options.models or Path(folder) / "models"
        if not models.is_dir():
            make = f"from pathlib import Path; from tests.native.fuzz import make_models; make_models(Path({str(models)!r}))"
            plain = {key: value for key, value in os.environ.items() if key not in ("LD_PRELOAD", "SBMINI_CACHE_DIR")}
            subprocess.run([sys.executable, "-c", make], check=True, env=plain)
        children = []
        for worker in range(options.workers):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    work(options, worker, models, Path(folder))
                    code = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(code)
            children.append(child)
        failures = sum(os.waitpid(child, 0)[1] != 0 for child in children)
    entries = [entry for entry in read_log(options.log) if entry["case"] < options.cases]
    faults = report(entries)
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(bool(faults or failures or len(entries) < options.cases))


if __name__ == "__main__":
    main()
