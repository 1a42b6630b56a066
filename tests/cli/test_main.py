"""The command as a person at the shell meets it: a subprocess, its streams and its exit code."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import one_error

from sbert_mini import Embedder, __version__

SBMINI = str(Path(sys.executable).with_name("sbmini"))
COLLECTION = Path(__file__).parents[2] / "sbert_mini" / "examples" / "collection.jsonl"


@pytest.fixture(scope="module")
def index(tmp_path_factory, minilm):
    path = tmp_path_factory.mktemp("cli") / "index"
    done = subprocess.run([SBMINI, "index", "create", str(path), "-i", str(COLLECTION)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == f"sbmini: 240 rows -> {path}\n"
    return path


def test_version_help_and_module(sbmini):
    assert sbmini("--version").stdout == f"sbmini {__version__}\n"
    for command in ([], ["encode"], ["index"], ["index", "create"], ["search"]):
        done = sbmini(*command, "--help")
        assert done.returncode == 0
        assert done.stderr == ""
        assert f"sbmini {' '.join(command)}".rstrip() in done.stdout
    for command in (["encode"], ["index", "create"], ["search"]):
        assert "Examples:" in sbmini(*command, "-h").stdout
    assert sbmini().returncode == 2
    module = subprocess.run([sys.executable, "-m", "sbert_mini", "--version"], capture_output=True, text=True)
    assert module.stdout == f"sbmini {__version__}\n"


def test_encode_gives_the_librarys_vectors_for_arguments_files_and_pipes(sbmini, default_embedder, tmp_path):
    texts = ["a cat sleeps", "naïve café", "  spaces  "]
    expected = default_embedder.encode(texts)
    (tmp_path / "t.txt").write_text("\n".join(texts) + "\n\n", "utf-8")
    by_argument = sbmini("encode", *texts)
    by_pipe = sbmini("encode", stdin="\n".join(texts))
    by_file = sbmini("encode", "-i", "t.txt")
    assert by_argument.stdout == by_pipe.stdout == by_file.stdout
    assert by_argument.stderr == by_pipe.stderr == ""
    assert by_file.stderr == "sbmini: 1 blank line was not encoded\n"
    lines = [json.loads(line) for line in by_pipe.stdout.splitlines()]
    assert [line["text"] for line in lines] == texts
    np.testing.assert_array_equal(np.array([line["embedding"] for line in lines], np.float32), expected)
    done = sbmini("encode", "-i", "t.txt", "-o", "v.npy")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "sbmini: 3 texts -> v.npy\nsbmini: 1 blank line was not encoded\n"
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), expected)
    assert sbmini("encode", "-i", "t.txt", "-o", "v.jsonl", "-q").stderr == ""
    assert (tmp_path / "v.jsonl").read_text("utf-8") == by_pipe.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.txt", "v.jsonl", "v.npy"]


def test_encode_options_reach_the_library(sbmini, minilm, exact_embedder, tmp_path):
    (tmp_path / "t.csv").write_text("key,body\nk1,a cat\n")
    done = sbmini(
        "encode", "-i", "t.csv", "--text-column", "body", "--graph", "fp32", "--dim", 9, "--prompt", "query: ",
        "-m", minilm, "--threads", 1, "--batch-size", 1,
    )  # fmt: skip
    (line,) = map(json.loads, done.stdout.splitlines())
    assert line["text"] == "a cat"
    expected = exact_embedder.encode("a cat", prompt="query: ", truncate_dim=9)
    np.testing.assert_allclose(line["embedding"], expected, atol=1e-6)


def test_truncation_on_the_command_line(sbmini):
    long = "bread " * 400
    done = sbmini("encode", long, "short")
    assert done.returncode == 0
    assert "1 of 2 texts were longer than 256 tokens, and were cut" in done.stderr
    one_error(sbmini("encode", "short", long, "--truncation", "error"), 1, "text 1", "256 tokens")
    assert sbmini("encode", long, "--truncation", "chunk").stderr == "sbmini: 1 of 1 texts were read in pieces\n"


def test_search_in_a_pipe_as_json_and_from_stdin(sbmini, index):
    done = sbmini("search", index, "why does bread rise", "-k", 3)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [len(row) for row in rows] == [3, 3, 3]
    assert rows[0][1] == "bread-proofing"
    assert [float(row[0]) for row in rows] == sorted((float(row[0]) for row in rows), reverse=True)
    document = json.loads(sbmini("search", index, "why does bread rise", "-k", 3, "--json").stdout)
    (result,) = document["results"]
    assert result["query"] == "why does bread rise"
    assert [hit["id"] for hit in result["hits"]] == [row[1] for row in rows]
    ranks = {"rank_by_meaning", "rank_by_words"}
    assert set(result["hits"][0]) == {
        "rank",
        "id",
        "score",
        "text",
        "columns",
        "start",
        "end",
        "cosine",
        "bm25",
        *ranks,
    }
    assert result["hits"][0]["columns"]["topic"] == "cooking"
    both = json.loads(sbmini("search", index, "--json", "-k", 1, stdin="bread\n\nstars\n").stdout)["results"]
    assert [r["query"] for r in both] == ["bread", "stars"]
    assert [line.split("\t")[0] for line in sbmini("search", index, "-k", 1, stdin="bread\nstars").stdout.splitlines()] == [
        "bread", "stars",
    ]  # fmt: skip
    assert sbmini("search", index, "x", "--min-score", 1).stdout == ""


def test_an_index_of_another_model_is_refused(sbmini, index, make_model):
    done = sbmini("search", index, "bread", "-m", make_model())
    assert done.returncode == 1
    assert "sbert-mini" in done.stderr
    assert "model-1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["encode", "--bogus"], 2, ["--bogus", "sbmini encode --help"]),
        (["encode", "a", "-i", "b.txt"], 2, ["both"]),
        (["encode", "-i", "none.txt"], 1, ["none.txt", "No such file"]),
        (["encode", "a", ""], 2, ["empty"]),
        (["encode", b"caf\xe9"], 1, ["text 0", "not valid Unicode"]),
        (["encode", "-i", "."], 2, ["is a directory"]),
        (["encode", "a", "-o", "v.xml"], 2, [".npy, .jsonl, .ndjson, .csv, .tsv or .parquet"]),
        (["encode", "a", "-m", "nowhere"], 1, ["'nowhere'", "all-MiniLM-L6-v2"]),
        (["encode", "a", "-m", "org/nowhere", "--offline"], 1, ["org/nowhere", "--offline"]),
        (["encode", "a", "--threads", "0"], 2, ["--threads"]),
        (["encode", "a", "--dim", "385"], 2, ["385", "384"]),
        (["search", "nowhere", "q"], 1, ["nowhere does not exist", "sbmini index create"]),
        (["search", "nowhere", "q", "-k", "0"], 2, ["-k"]),
        (["index", "create", "x"], 2, ["--input"]),
    ],
)
def test_mistakes_get_one_line_and_their_exit_code(sbmini, arguments, code, parts):
    one_error(sbmini(*arguments), code, *parts)


def test_empty_input_is_an_error(sbmini, index):
    one_error(sbmini("encode", stdin=""), 1, "no text")
    one_error(sbmini("encode", stdin="\n \n"), 1, "no text")
    one_error(sbmini("search", index, "  "), 2, "query is empty")
    one_error(sbmini("search", index, stdin="\n"), 2, "no text")
    one_error(sbmini("index", "create", "x", "-i", "-", stdin="\n"), 1, "no text")


def test_a_line_is_answered_before_the_next_one_comes():
    command = [SBMINI, "encode", "-m", "sbert-mini-fast"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        for text in ("a cat", "a dog"):
            run.stdin.write(f"{text}\n")
            run.stdin.flush()
            assert json.loads(run.stdout.readline())["text"] == text
        run.stdin.close()
        assert run.stdout.read() == ""
    assert run.returncode == 0


def test_a_reader_that_goes_away_is_no_error(tmp_path, minilm):
    (tmp_path / "t.txt").write_text("".join(f"text {i}\n" for i in range(3000)))
    command = f"{SBMINI} encode -i t.txt | head -n 1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)  # noqa: S602
    assert json.loads(done.stdout)["text"] == "text 0"
    assert done.stderr == ""


@pytest.mark.parametrize(
    "arguments", [["encode", "-o", "v.npy"], ["encode", "-o", "v.jsonl"], ["index", "create", "ix"]]
)
def test_a_write_that_fails_is_one_error_and_leaves_nothing_unsaid(sbmini, tmp_path, arguments):
    (tmp_path / "t.txt").write_text("".join(f"text {i}\n" for i in range(400)))

    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    done = sbmini(*arguments, "-i", "t.txt", preexec_fn=small_files)
    *notes, error = done.stderr.splitlines()
    assert (done.returncode, error) == (1, "sbmini: error: [Errno 27] File too large")
    left = {p.name for p in tmp_path.iterdir()} - {"t.txt"}
    if arguments[0] == "index":
        assert notes == [
            "sbmini: ix.partial keeps what was encoded; the same command with --resume takes it from there"
        ]
        assert left == {"ix.partial"}
    else:
        assert (notes, left) == ([], set())


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("encode <&-", 2, "no text was given"),
        ("encode hello >&-", 1, "standard output is closed"),
        ("encode 日本", 0, ""),
        ("encode hello -o .", 2, "must end in"),
        ("encode hello -o nowhere/v.npy", 2, "nowhere is not a directory"),
    ],
)
def test_odd_surroundings_of_the_process(tmp_path, minilm, command, code, message):
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    line = f"{SBMINI} {command}"
    done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, env=environment)  # noqa: S602
    errors = done.stderr.decode()
    assert (done.returncode, "Traceback" in errors) == (code, False), errors
    assert message in errors
    if "日本" in command:
        assert json.loads(done.stdout)["text"] == "日本"


def test_debug_shows_the_traceback(sbmini):
    done = sbmini("--debug", "search", "nowhere", "q")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "IndexNotFoundError" in done.stderr


HEAVY = (
    "torch",
    "transformers",
    "sentence_transformers",
    "pandas",
    "scipy",
    "sklearn",
    "matplotlib",
    "onnx",
    "pyarrow",
)


@pytest.mark.parametrize("command", ["encode", "search", "help", "index"])
def test_the_field_half_never_imports_torch(index, tmp_path, command):
    (tmp_path / "t.txt").write_text("a cat\n")
    arguments = {
        "encode": ["encode", "a cat"],
        "search": ["search", str(index), "a cat"],
        "help": ["encode", "--help"],
        "index": ["index", "create", str(tmp_path / "x"), "-i", str(tmp_path / "t.txt")],
    }[command]
    script = f"""
import sys
sys.argv = ["sbmini", *{arguments!r}]
from sbert_mini.cli.main import run
assert run() == 0
print("LOADED", sorted(set({HEAVY!r}) & set(sys.modules)), "numpy" in sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert f"LOADED [] {command != 'help'}" in done.stderr, done.stderr


def test_no_socket_is_opened(index):
    script = """
import sys
def refuse(event, arguments):
    if event in ("socket.__new__", "socket.getaddrinfo", "socket.connect"):
        raise AssertionError(f"a socket was opened: {event} {arguments}")
sys.addaudithook(refuse)
from sbert_mini.cli.main import main
main()
"""
    for arguments in (["search", str(index), "bread", "--offline"], ["encode", "a cat", "--offline"]):
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_the_model_environment_variable_names_the_default(sbmini, make_model):
    path = make_model()
    expected = Embedder(path).encode("the cat")
    done = sbmini("encode", "the cat", env={"SBMINI_MODEL": str(path)})
    np.testing.assert_allclose(json.loads(done.stdout)["embedding"], expected, atol=1e-6)
