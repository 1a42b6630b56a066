import contextlib
import io
import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import hypothesis
import numpy as np
import pytest

hypothesis.settings.register_profile("any machine", deadline=None)  # no test depends on the load of the machine
hypothesis.settings.load_profile("any machine")
signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a runner in the background ignores it, and children inherit that
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
THREADS = "1" if "PYTEST_XDIST_WORKER" in os.environ else "2"  # threads of several workers would wait for each other
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS=THREADS)

ROOT = Path(__file__).parent.parent
MINILM = "all-MiniLM-L6-v2"
try:
    (Path.home() / ".cache" / "sbmini").mkdir(parents=True, exist_ok=True)
except OSError:  # a home that cannot be written: graphs of the models in packages are kept here
    os.environ.setdefault("SBMINI_CACHE_DIR", str(ROOT / "build" / "test-cache"))


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The model directory of the real all-MiniLM-L6-v2, converted, so that no test depends on which one was first."""
    from sbert_mini.model.registry import resolve
    from sbert_mini.runtime.graphs import find

    path = resolve(MINILM)
    find(path)
    return path


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data, or a skip."""
    for folder in (os.environ.get("SBMINI_DATA"), ROOT.parent / "shared" / "data"):
        if folder and (Path(folder) / "stsb_test.tsv.gz").is_file():
            return Path(folder)
    pytest.skip("no folder of real data: SBMINI_DATA is not set and ../shared/data is absent")


@pytest.fixture(scope="session")
def embedder(minilm: Path):
    from sbert_mini import Embedder

    return Embedder(minilm, threads=2)


@pytest.fixture(scope="session")
def default_embedder():
    """What a command computes with where no model is named."""
    from sbert_mini import Embedder

    return Embedder(threads=2)


@pytest.fixture(scope="session")
def exact_embedder(minilm: Path):
    from sbert_mini import Embedder

    return Embedder(minilm, graph="fp32", threads=2)


@pytest.fixture(scope="session")
def passages() -> list[dict]:
    file = ROOT / "sbert_mini" / "examples" / "collection.jsonl"
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


@pytest.fixture(scope="session")
def passage_sentences(passages: list[dict]) -> list[str]:
    """Sentences of many lengths, all different."""
    sentences = [s.strip() for p in passages for s in p["text"].split(".") if len(s) > 10]
    return list(dict.fromkeys(sentences))[:300]


@pytest.fixture(scope="session")
def collection_index(tmp_path_factory: pytest.TempPathFactory, embedder, passages: list[dict]) -> Path:
    """An index of the shipped collection, for tests that only read it."""
    from indexes import records_of

    from sbert_mini import IndexWriter

    path = tmp_path_factory.mktemp("index") / "collection"
    IndexWriter(path, embedder).create(records_of(passages))
    return path


@pytest.fixture
def copied_index(collection_index: Path, tmp_path: Path) -> Path:
    """A copy of `collection_index`, for tests that change it."""
    return Path(shutil.copytree(collection_index, tmp_path / "copy"))


@pytest.fixture
def separate_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each change of an index stay a segment of its own."""
    from sbert_mini.search import merging

    monkeypatch.setattr(merging, "MOST", 0)


@pytest.fixture(scope="session")
def clustered_vectors() -> np.ndarray:
    """Vectors for `numbered_records`."""
    from indexes import clustered

    return clustered()


@pytest.fixture
def numbered_records() -> list:
    """Records for `clustered_vectors`."""
    from indexes import numbered

    return numbered()


@pytest.fixture
def sbmini(tmp_path: Path, minilm: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run the command in an empty folder, as a person would."""

    def run(*args: object, stdin: str | bytes | None = None, env: dict | None = None, **options):
        data = stdin.encode() if isinstance(stdin, str) else stdin
        command = [
            str(Path(sys.executable).with_name("sbmini")),
            *(arg if isinstance(arg, bytes) else str(arg) for arg in args),
        ]
        done = subprocess.run(
            command,
            input=data if data is not None else b"",
            capture_output=True,
            cwd=options.pop("cwd", tmp_path),
            env={
                **{k: v for k, v in os.environ.items() if k != "SBMINI_DATA"},
                **(env or {}),
            },  # it would find real data
            timeout=600,
            **options,
        )
        done.stdout, done.stderr = (
            done.stdout.decode("utf-8", "replace"),
            done.stderr.decode("utf-8", "replace"),
        )
        return done

    return run


def run_here(
    folder: Path | str, *arguments: object, stdin: str | bytes = b"", env: dict | None = None
) -> subprocess.CompletedProcess:
    """Run the command line in this process, in a folder; return its exit code and what it printed.

    A start costs nothing here: for tests of what a command answers, not of a process. What a command sets in its process
    (signal handlers, environment, logging, warnings, torch's threads) is set back.
    """
    stdin = stdin.encode() if isinstance(stdin, str) else stdin
    assert len(stdin) < 60_000, "more than a pipe takes before it is read"
    from sbert_mini.files import system

    ours, signals = logging.getLogger("sbert_mini"), system.ENDING_SIGNALS
    handlers = [signal.getsignal(number) for number in signals]
    environment, argv, standard_input = dict(os.environ), sys.argv, sys.stdin
    from sbert_mini.cli.main import run  # which sets handlers of its own
    from sbert_mini.cli.notes import NoteHandler

    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else 0
    logged, notes = (ours.level, ours.propagate), NoteHandler()
    out, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", write_through=True) for _ in range(2))
    read, write = os.pipe()
    os.write(write, stdin)
    os.close(write)
    with warnings.catch_warnings(), os.fdopen(read, encoding="utf-8") as source, contextlib.chdir(folder):
        try:
            sys.argv = ["sbmini", *(os.fsdecode(arg) if isinstance(arg, bytes) else str(arg) for arg in arguments)]
            sys.stdin = source
            os.environ.pop("SBMINI_DATA", None)  # it would find real data
            os.environ.update(env or {})
            ours.addHandler(notes)
            ours.propagate = False
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
                code = run()
        finally:
            sys.argv, sys.stdin = argv, standard_input
            os.environ.clear()
            os.environ.update(environment)
            ours.removeHandler(notes)
            ours.level, ours.propagate = logged
            for number, handler in zip(signals, handlers, strict=True):
                signal.signal(number, handler)
            if torch:
                torch.set_num_threads(threads)
    printed = (stream.buffer.getvalue().decode("utf-8", "replace") for stream in (out, errors))
    return subprocess.CompletedProcess(["sbmini", *arguments], code, *printed)


@pytest.fixture
def sbmini_here(tmp_path: Path, minilm: Path) -> Callable[..., subprocess.CompletedProcess]:
    """`sbmini` by `run_here`, in the test's folder."""
    return partial(run_here, tmp_path)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261123)


def replace(file: Path, data: bytes | bytearray) -> None:
    """Put other bytes in the place of a file that may be mapped: cutting that one short would be a bus error."""
    other = file.with_name(f"{file.name}.other")
    other.write_bytes(data)
    other.replace(file)


def one_error(done, code, *parts):
    """Assert that a command failed with this exit code, and one line of error that holds the parts."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("sbmini: error: ")
    for part in parts:
        assert part in done.stderr


_kept: dict[str, Path] = {}  # what was made once in this process, by its options


@pytest.fixture(scope="session", autouse=True)
def _keep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    _kept["folder"] = tmp_path_factory.mktemp("kept")
    yield
    _kept.clear()


def _copy_of_kept(name: str, options: dict, path: Path, make: Callable[[Path], object]) -> Path:
    """Fill the folder with what `make` writes for the options, which is run once; the files' times of change stay."""
    key = f"{name} {json.dumps(options, sort_keys=True)}"
    if key not in _kept:
        folder = Path(tempfile.mkdtemp(dir=_kept["folder"]))
        make(folder)
        _kept[key] = folder
    return Path(shutil.copytree(_kept[key], path, dirs_exist_ok=True))


def tiny_model(path: Path, *, seed: int = 0, **options) -> Path:
    """Put a small, random, complete model directory at the path, and return it. The same options give the same files."""
    import torch

    options["seed"] = seed
    _copy_of_kept("model", options, path, lambda folder: _write_model(folder, **options))
    torch.manual_seed(seed)  # what follows does not depend on whether it was kept
    return path


def tiny_converted_model(path: Path, **options) -> Path:
    """Put the model directory of `tiny_model` with its graphs at the path: for tests that do not test conversion."""
    from sbert_mini.runtime.graphs import find

    return _copy_of_kept("converted", options, path, lambda folder: find(tiny_model(folder, **options)))


def _write_model(path: Path, *, seed: int, modules: list[dict] | None = None, **config) -> None:
    import torch
    from safetensors.torch import save_file

    from sbert_mini.encoder.bert import MiniBert
    from sbert_mini.model.layout import BertConfig

    torch.manual_seed(seed)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[", "]", "sep", "cls", ".", ",", "?"]
    words += [chr(c) for c in range(ord("a"), ord("z") + 1)] + ["##" + chr(c) for c in range(ord("a"), ord("z") + 1)]
    words += ["the", "cat", "dog", "runs", "sleeps", "a", "red", "blue", "house", "tree", "bread", "dough", "rises"]
    sizes = {
        "vocab_size": len(words),
        "hidden_size": 28,
        "num_hidden_layers": 3,
        "num_attention_heads": 7,
        "intermediate_size": 44,
        "max_position_embeddings": 37,
        "initializer_range": 0.2,
        **config,
    }
    MiniBert(BertConfig(**sizes)).save_pretrained(path)
    (path / "vocab.txt").write_text("\n".join(words) + "\n", "utf-8")
    (path / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": True, "tokenizer_class": "BertTokenizer", "model_max_length": 31}), "utf-8"
    )
    if modules is not None:
        entries = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
        for index, module in enumerate(modules, start=1):
            folder = f"{index}_{module['kind']}"
            (path / folder).mkdir()
            if module["kind"] == "Dense":
                weights = {"linear.weight": torch.randn(module["out_features"], module["in_features"])}
                if module.get("bias", True):
                    weights["linear.bias"] = torch.randn(module["out_features"])
                save_file(weights, path / folder / "model.safetensors")
            settings = {key: value for key, value in module.items() if key != "kind"}
            (path / folder / "config.json").write_text(json.dumps(settings), "utf-8")
            kind = f"sentence_transformers.models.{module['kind']}"
            entries.append({"idx": index, "name": str(index), "path": folder, "type": kind})
        (path / "modules.json").write_text(json.dumps(entries), "utf-8")


TABLE_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "dog", "sleeps", "s", "##s", "##leep", "."]
DIRECTORY = "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding"


def tiny_static(path: Path, *, seed: int = 0, dimension: int = 22, space: str | None = None, limit: int = 11) -> Path:
    """Put a small static model at the path: random token vectors of 4 bits a component."""
    from sbert_mini.model.token_table import write_packed

    rng = np.random.default_rng(seed)
    numbers = rng.integers(-7, 8, (len(TABLE_WORDS), dimension))
    write_packed(path, numbers, rng.uniform(0.1, 1, len(numbers)).astype(np.float16), space)
    (path / "vocab.txt").write_text("\n".join(TABLE_WORDS) + "\n", "utf-8")
    (path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}), "utf-8")
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": limit}), "utf-8")
    kinds = (DIRECTORY, "sentence_transformers.base.modules.normalize.Normalize")
    modules = [{"idx": i, "name": str(i), "path": ("", "1_Normalize")[i], "type": kind} for i, kind in enumerate(kinds)]
    (path / "modules.json").write_text(json.dumps(modules), "utf-8")
    (path / "1_Normalize").mkdir()
    return path


def _numbered(folder: Path, make: Callable[..., Path], name: str = "model") -> Callable[..., Path]:
    numbers = itertools.count(1)

    def made(**options) -> Path:
        path = folder / f"{name}-{next(numbers)}"
        path.mkdir()
        return make(path, **options)

    return made


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """A function that gives a small random model directory of the test's own."""
    return _numbered(tmp_path, tiny_model)


@pytest.fixture
def converted_model(tmp_path: Path) -> Callable[..., Path]:
    """`make_model`, with the graphs made already: for tests that do not test conversion."""
    return _numbered(tmp_path, tiny_converted_model)


@pytest.fixture
def static_model(tmp_path: Path) -> Callable[..., Path]:
    """A function that gives a small random static model directory of the test's own."""
    return _numbered(tmp_path, tiny_static, "static")


@pytest.fixture
def workshop(tmp_path: Path, make_model: Callable[..., Path]) -> Path:
    """A folder with a recipe, its data and a small starting model."""
    from workshop import write_workshop

    write_workshop(tmp_path, make_model)
    return tmp_path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread: where other tests run beside, more threads wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
