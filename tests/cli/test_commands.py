"""Long runs, files of every kind, changes of an index: the commands' work, through the command."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import one_error, tiny_converted_model
from safetensors.numpy import load_file, save_file

from sbert_mini import Embedder, IndexWriter
from sbert_mini.text.records import Record

SBMINI = str(Path(sys.executable).with_name("sbmini"))
LINES = [f"a text with the number {i} and {'more ' * (i % 11)}words" for i in range(9000)]


def one_error_after_a_note(done, part):
    assert done.returncode == 1
    note, error = done.stderr.splitlines()
    assert "converting" in note
    assert error.startswith("sbmini: error: ")
    assert part in error


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    """A converted model of 64 components that tests only read."""
    path = tmp_path_factory.mktemp("small")
    return tiny_converted_model(path, hidden_size=64, num_attention_heads=4, intermediate_size=128, num_hidden_layers=1)


@contextmanager
def fed(folder, command, lines):
    """Run a command whose input t.txt is a pipe that gives these lines and stays open: the command then waits, and when it
    is interrupted is no matter of its speed."""
    pipe = folder / "t.txt"
    os.mkfifo(pipe)
    child = subprocess.Popen([SBMINI, *map(str, command)], cwd=folder, stderr=subprocess.PIPE, text=True)
    end = None
    while end is None:
        with suppress(OSError):  # nobody reads it yet
            end = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.01)
    os.set_blocking(end, True)

    def feed():
        left = memoryview("".join(f"{line}\n" for line in lines).encode())
        with suppress(BrokenPipeError):
            while left:
                left = left[os.write(end, left) :]

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        yield child
    finally:
        child.kill()
        child.communicate()
        feeder.join()
        os.close(end)
        pipe.unlink()


def wait_for(child, happened):
    """Wait until something has happened, for as long as the command runs."""
    end = time.monotonic() + 600
    while not happened():
        assert child.poll() is None, child.stderr.read()
        assert time.monotonic() < end, "it hangs"
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("output", "options"),
    [
        ("v.npy", []),
        pytest.param("v.npy", ["--precision", "int8"], marks=pytest.mark.long),
        pytest.param("v.jsonl", ["--dim", "40"], marks=pytest.mark.long),
        ("v.parquet", ["--precision", "binary", "--dim", "64"]),
    ],
)
def test_an_interrupted_run_resumes_to_the_same_bytes(sbmini, tmp_path, small_model, output, options):
    command = ["encode", "-i", tmp_path / "t.txt", "-m", small_model, "--threads", 1, *options]
    with fed(tmp_path, [*command, "-o", output], LINES[:7000]) as child:
        wait_for(child, (tmp_path / f"{output}.partial" / "state.json").exists)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=600)
    assert child.returncode == 130, errors
    assert errors.startswith("sbmini: interrupted; ")
    assert "texts are kept in" in errors
    assert not (tmp_path / output).exists()
    (tmp_path / "t.txt").write_text("\n".join(LINES))
    (tmp_path / "whole").mkdir()
    assert sbmini(*command, "-o", f"whole/{output}").returncode == 0
    one_error(sbmini(*command, "-o", output), 2, "holds an interrupted run", "--resume")
    one_error(sbmini(*command, "--batch-size", 7, "-o", output, "--resume"), 2, "batch_size = 32", "7")
    (tmp_path / "other.txt").write_text("\n".join(["another first text", *LINES[1:]]))
    other = ["encode", "-i", "other.txt", *command[3:]]
    assert "the input is not the one" in sbmini(*other, "-o", output, "--resume").stderr
    resumed = sbmini(*command, "-o", output, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "going on after" in resumed.stderr
    assert (tmp_path / output).read_bytes() == (tmp_path / "whole" / output).read_bytes()
    assert not (tmp_path / f"{output}.partial").exists()


def test_a_killed_run_resumes_too(tmp_path, small_model):
    expected = Embedder(small_model, threads=1).encode(LINES)
    command = ["encode", "-i", "t.txt", "-o", "v.npy", "-m", small_model, "--threads", "1", "--resume", "-q"]
    state, before = tmp_path / "v.npy.partial" / "state.json", None
    for count in (7000, len(LINES)):  # a window of 2,048 is kept when two more have come
        with fed(tmp_path, command, LINES[:count]) as child:
            wait_for(child, lambda: state.exists() and state.read_bytes() != before)  # noqa: B023
            child.kill()
            child.wait()
        before = state.read_bytes()
    (tmp_path / "t.txt").write_text("\n".join(LINES))
    assert subprocess.run([SBMINI, *map(str, command)], cwd=tmp_path).returncode == 0
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected, atol=1e-5)
    assert not state.parent.exists()


def test_an_interruption_before_anything_is_kept_leaves_nothing(tmp_path, small_model):
    command = ["encode", "-i", "t.txt", "-o", "v.npy", "-m", small_model]
    with fed(tmp_path, command, LINES[:1000]) as child:
        wait_for(child, (tmp_path / "v.npy.partial").exists)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=600)
    assert child.returncode == 130
    assert errors == "sbmini: interrupted; nothing of this run was kept\n"
    assert list(tmp_path.iterdir()) == []


def test_every_output_holds_the_same_vectors(sbmini_here, tmp_path, default_embedder):
    from pyarrow import parquet

    (tmp_path / "t.jsonl").write_text('{"key": 7, "text": "a cat"}\n{"key": 8, "text": "naïve café"}\n', "utf-8")
    expected = default_embedder.encode(["a cat", "naïve café"])
    for output in ("v.npy", "v.jsonl", "v.parquet"):
        done = sbmini_here("encode", "-i", "t.jsonl", "--id-column", "key", "-o", output)
        assert done.stderr == f"sbmini: 2 texts -> {output}\n"
    table = parquet.read_table(tmp_path / "v.parquet").to_pydict()
    lines = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text("utf-8").splitlines()]
    assert table["id"] == [line["id"] for line in lines] == table["key"] == [7, 8]
    assert table["text"] == [line["text"] for line in lines] == ["a cat", "naïve café"]
    for vectors in (np.load(tmp_path / "v.npy"), table["embedding"], [line["embedding"] for line in lines]):
        np.testing.assert_array_equal(np.array(vectors, np.float32), expected)
    done = sbmini_here("encode", "-i", "v.parquet", "-o", "again.npy", "--precision", "ubinary")  # Parquet in, bits out
    assert done.returncode == 0, done.stderr
    again = np.load(tmp_path / "again.npy")
    assert (again.dtype, again.shape) == (np.uint8, (2, 48))
    np.testing.assert_array_equal(np.unpackbits(again, axis=1), expected > 0)


BAD_ROWS = b'{"id": 1, "text": "good"}\nnot json\n{"id": 2}\n\xff\n{"id": 3, "text": " "}\n{"id": 4, "text": "fine"}\n'


@pytest.mark.parametrize("command", [["encode", "-o", "out.npy"], ["index", "create", "out.npy"]])
def test_rows_that_cannot_be_read_are_skipped_when_asked_for_and_kept(sbmini_here, tmp_path, command):
    (tmp_path / "t.jsonl").write_bytes(BAD_ROWS)
    one_error(sbmini_here(*command, "-i", "t.jsonl"), 1, "t.jsonl, line 2: not JSON")
    assert [p.name for p in tmp_path.iterdir()] == ["t.jsonl"]
    done = sbmini_here(*command, "-i", "t.jsonl", "--on-error", "skip")
    assert done.returncode == 4
    assert "4 rows were skipped, and are in out.npy.rejects.jsonl" in done.stderr
    rejects = [json.loads(line) for line in (tmp_path / "out.npy.rejects.jsonl").read_text().splitlines()]
    assert [reject["line"] for reject in rejects] == [2, 3, 4, 5]
    assert rejects[0]["content"] == "not json\n"
    if command[0] == "encode":
        assert np.load(tmp_path / "out.npy").shape == (2, 384)
    else:
        hits = json.loads(sbmini_here("search", "out.npy", "good", "--json").stdout)["results"][0]["hits"]
        assert {hit["id"] for hit in hits} == {"1", "4"}


def test_texts_that_are_too_long_can_be_rejected(sbmini_here, tmp_path):
    (tmp_path / "t.txt").write_text("short\n" + "bread " * 300 + "\n")
    long = ["--truncation", "error", "--on-error", "skip", "--rejects", "r"]
    assert sbmini_here("encode", "-i", "t.txt", "-o", "v.npy", *long).returncode == 4
    assert np.load(tmp_path / "v.npy").shape == (1, 384)
    assert json.loads((tmp_path / "r").read_text())["error"] == "the text is longer than 256 tokens"
    one_error(sbmini_here("encode", "a", "--rejects", "r"), 2, "--on-error skip")
    one_error(sbmini_here("encode", "a", "--on-error", "skip"), 2, "--rejects FILE")
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n')
    one_error(sbmini_here("encode", "-i", "t.jsonl", "-o", "t.jsonl"), 2, "would replace the input")
    one_error(sbmini_here("encode", "a", "--resume"), 2, "--output")


def test_an_index_is_changed_described_and_checked(sbmini_here, tmp_path):
    (tmp_path / "a.csv").write_text("url,body,year\nu1,bread rises,2001\nu2,stars shine,2002\n")
    (tmp_path / "b.csv").write_text("url,body,year\nu3,trains run,2003\n")
    (tmp_path / "c.csv").write_text("url,body,year\nu1,bread falls,2004\nu4,birds sing,2005\n")
    columns = ["--text-column", "body", "--id-column", "url"]
    assert sbmini_here("index", "create", "ix", "-i", "a.csv", *columns).stderr == "sbmini: 2 rows -> ix\n"
    assert sbmini_here("index", "add", "ix", "-i", "b.csv", *columns).stderr == "sbmini: 1 row -> ix\n"
    one_error(sbmini_here("index", "add", "ix", "-i", "c.csv", *columns), 1, "line 2", "'u1' is in the index already")
    done = sbmini_here("index", "update", "ix", "-i", "c.csv", *columns)
    assert done.stderr == "sbmini: 1 added, 1 changed, 0 unchanged -> ix\n"
    assert sbmini_here("index", "delete", "ix", "u2").stderr == "sbmini: 1 row deleted from ix\n"
    one_error(sbmini_here("index", "delete", "ix", "u2"), 1, "'u2' is not in the index")
    one_error(sbmini_here("index", "delete", "ix"), 2, "--ids-from")
    hits = json.loads(sbmini_here("search", "ix", "bread", "--json").stdout)["results"][0]["hits"]
    assert {hit["id"]: hit["columns"]["year"] for hit in hits} == {"u1": 2004, "u3": 2003, "u4": 2005}
    assert hits[0]["text"] == "bread falls"
    described = json.loads(sbmini_here("index", "info", "ix", "--json").stdout)
    assert (described["rows"], described["generation"], described["segments"]) == (3, 4, 1)
    assert (described["deleted_rows_kept"], described["model_name"]) == (1, "sbert-mini")
    assert "generation      4, of " in sbmini_here("index", "info", "ix").stdout
    assert sbmini_here("index", "verify", "ix").stderr == "sbmini: ix is sound: 3 rows, generation 4\n"
    file = tmp_path / "ix" / "segments" / "000003" / "vectors.npy"
    data = bytearray(file.read_bytes())
    data[700] ^= 16
    file.write_bytes(data)
    one_error(sbmini_here("index", "verify", "ix"), 1, "1 damaged", "vectors.npy: block 0")
    assert sbmini_here("index", "delete", "ix", "--ids-from", "-", stdin="u3\nu4\n").returncode == 0


def test_search_takes_queries_from_a_file_and_shows_what_is_asked_for(sbmini_here, tmp_path):
    (tmp_path / "t.txt").write_text("bread rises\nstars shine\ntrains run\n")
    assert sbmini_here("index", "create", "ix", "-i", "t.txt").returncode == 0
    (tmp_path / "q.csv").write_text("n,text\n1,bread\n2,stars\n")
    done = sbmini_here("search", "ix", "-i", "q.csv", "-k", 2, "--jsonl", "--without-text")
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["query"], second["query"]) == ("bread", "stars")
    scores = {"score", "cosine", "bm25", "rank_by_meaning", "rank_by_words"}
    assert set(first["hits"][0]) == {"rank", "id", *scores}
    lines = sbmini_here("search", "ix", "bread", "--without-text").stdout.splitlines()
    assert [line.count("\t") for line in lines] == [1, 1, 1]
    assert sbmini_here("search", "ix", "bread", "--min-score", 1, "--fail-if-empty").returncode == 1
    assert sbmini_here("search", "ix", "bread", "--fail-if-empty").returncode == 0
    assert sbmini_here("search", "ix", "bread", "--min-score", 1).returncode == 0
    one_error(sbmini_here("search", "ix", "bread", "-i", "q.csv"), 2, "both")
    one_error(sbmini_here("search", "ix", "bread", "--json", "--jsonl"), 2, "exclude")
    everything = json.loads(sbmini_here("search", "ix", "bread", "-k", 9999, "--json").stdout)["results"][0]["hits"]
    assert len(everything) == 3


def test_models_are_listed_described_and_converted(sbmini_here, make_model):
    listed = sbmini_here("models", "list").stdout.splitlines()
    assert listed[0].startswith("* sbert-mini\t")
    path = make_model()
    described = json.loads(sbmini_here("models", "info", path, "--json").stdout)
    assert (described["dimension"], described["layers"], described["graphs"]) == (28, 3, [])
    assert "reads           up to 31 word pieces of a text\n" in sbmini_here("models", "info", path).stdout
    done = sbmini_here("models", "convert", path)
    assert done.stdout.splitlines() == [f"{path}/onnx/model.onnx", f"{path}/onnx/model_int8.onnx"]
    assert json.loads(sbmini_here("models", "info", path, "--json").stdout)["graphs"] == [
        "model.onnx",
        "model_int8.onnx",
    ]
    assert listed[0] != sbmini_here("models", "list", env={"SBMINI_MODEL": str(path)}).stdout.splitlines()[0]


def test_a_static_model_is_described_and_used(sbmini_here, static_model, tmp_path):
    path = static_model(space="ab" * 32)
    described = json.loads(sbmini_here("models", "info", path, "--json").stdout)
    assert (described["dimension"], described["layers"], described["bits"], described["space"]) == (22, 0, 4, "ab" * 32)
    assert "reads           up to 11 word pieces of a text\n" in sbmini_here("models", "info", path).stdout
    assert sbmini_here("models", "convert", path).stdout == f"{path}/token_vectors.safetensors\n"
    (tmp_path / "t.txt").write_text("the cat\na dog\n")
    done = sbmini_here("encode", "-i", "t.txt", "-m", path, "-o", "v.npy", "--dim", 5)
    assert done.returncode == 0, done.stderr
    expected = Embedder(path).encode(["the cat", "a dog"], truncate_dim=5)
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), expected)


@pytest.mark.parametrize(
    ("name", "content", "code", "parts"),
    [
        ("t.txt", b"", 1, ["no text"]),
        ("t.txt", b"\n \n\t\n", 1, ["no text"]),
        ("t.txt", b"good\nbad \xe9 byte\n", 1, ["t.txt, line 2", "not UTF-8"]),
        ("t.csv", b"name,body\nx,y\n", 1, ["no column 'text'", "name, body"]),
        ("t.csv", b"", 1, ["is empty"]),
        ("t.csv", b"text\n\x00\n", 1, ["t.csv, line 2: a NUL byte"]),
        ("t.jsonl", b'{"text": "a"}\n{"text": "b"\n', 1, ["t.jsonl, line 2", "not JSON"]),
        ("t.parquet", b"PAR1 nonsense", 1, ["cannot be read as Parquet"]),
        ("t.txt.gz", b"\x1f\x8b nonsense", 1, ["cannot be read"]),
        ("t.xml", b"<a/>", 2, ["no suffix that tells its format"]),
        ("t.txt", b"word " * 20_000, 0, []),  # a line of 100 kB
        ("t.txt", b"NUL \x00 inside\n", 1, ["t.txt, line 1: a NUL byte (0x00) at position 5"]),
    ],
)
def test_bad_files_get_one_line(sbmini_here, tmp_path, small_model, name, content, code, parts):
    (tmp_path / name).write_bytes(content)
    for command in (["encode", "-o", "v.npy"], ["index", "create", "ix"]):
        done = sbmini_here(*command, "-i", name, "-m", small_model)
        if code:
            one_error(done, code, *parts)
            assert [p.name for p in tmp_path.iterdir()] == [name]
        else:
            assert done.returncode == 0, done.stderr


def test_other_mistakes_get_one_line(sbmini_here, tmp_path, make_model):
    (tmp_path / "t.csv").write_text("id,text\na,one\nb,two\na,three\n")
    one_error(sbmini_here("index", "create", "ix", "-i", "t.csv"), 1, "'a' stands on line 2 and again on line 4")
    one_error(sbmini_here("encode", "-i", "t.csv", "--text-column", "body"), 1, "no column 'body'", "id, text")
    one_error(sbmini_here("encode", "-i", "t.csv", "--input-format", "xml"), 2, "'xml'")
    (tmp_path / "folder.txt").mkdir()
    one_error(sbmini_here("encode", "-i", "folder.txt"), 2, "is a directory")
    path = make_model()
    Embedder(path)
    graph = path / "onnx" / "model_int8.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 64
    graph.write_bytes(data)
    one_error(sbmini_here("encode", "a", "-m", path), 1, "does not match its checksum")
    path = make_model()
    tensors = load_file(path / "model.safetensors")
    tensors["encoder.layer.1.output.dense.bias"][3] = float("nan")
    save_file(tensors, path / "model.safetensors")
    one_error_after_a_note(
        sbmini_here("encode", "a", "-m", path),
        "encoder.layer.1.output.dense.bias holds NaN, infinity or a number above 1e+09",
    )
    assert not (path / "onnx" / "sbmini.json").exists()
    full = subprocess.run(f"{SBMINI} encode hello > /dev/full", shell=True, capture_output=True, text=True)  # noqa: S602
    assert (full.returncode, full.stderr.count("\n")) == (1, 1)
    assert "No space left" in full.stderr


def test_an_index_is_filtered_compacted_and_searched_by_words(sbmini_here, tmp_path):
    rows = [{"id": f"r{i}", "text": f"Notes on bread number {i}.", "year": 2000 + i, "lang": "en"} for i in range(30)]
    rows[7]["text"] = "An error E-1042 of the oven."
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert sbmini_here("encode", "-i", "a.jsonl", "-o", "a.npy").returncode == 0
    assert sbmini_here("index", "create", "ix", "-i", "a.jsonl", "--vectors", "a.npy").stderr.endswith(
        "30 rows -> ix\n"
    )
    one_error(
        sbmini_here("index", "create", "iy", "-i", "a.jsonl", "--kind", "Nonsense"), 2, "FAISS does not know 'Nonsense'"
    )
    one_error(sbmini_here("index", "create", "iy", "-i", "a.jsonl", "--vectors", "a.jsonl"), 1, "is not a .npy file")
    one_error(
        sbmini_here("index", "create", "iy", "-i", "a.jsonl", "--vectors", "a.npy", "--on-error", "skip"),
        2,
        "--on-error skip",
    )
    found = json.loads(sbmini_here("search", "ix", "bread", "--filter", "year >= 2027", "--json").stdout)["results"][0][
        "hits"
    ]
    assert {hit["id"] for hit in found} == {"r27", "r28", "r29"}
    assert sbmini_here("search", "ix", "E-1042", "--hybrid", "-k", 1).stdout.split("\t")[1] == "r7"
    assert sbmini_here("search", "ix", "bread", "--exact", "-k", 4).stdout.count("\n") == 4
    one_error(
        sbmini_here("search", "ix", "bread", "--filter", "yeer > 1"),
        2,
        "no such column: yeer",
        "Columns: id (text), year (integer), lang (text)",
    )
    assert sbmini_here("search", "ix", "E-1042", "--hybrid", "--min-score", 1).stdout == ""
    doomed = ("index", "delete", "ix", "--filter", "year < 2010")
    assert sbmini_here(*doomed, "--dry-run").stderr == "sbmini: 10 rows would be deleted from ix\n"
    assert sbmini_here(*doomed).stderr == "sbmini: 10 rows deleted from ix\n"
    one_error(sbmini_here("index", "delete", "ix", "r1", "--filter", "1"), 2, "one of the three")
    one_error(sbmini_here("index", "compact", "ix", "--pca", 8), 2, "error: --pca goes with a kind", "--kind auto")
    assert sbmini_here("index", "compact", "ix").stderr == "sbmini: ix: 20 rows in 1 segment, exact\n"
    described = json.loads(sbmini_here("index", "info", "ix", "--json").stdout)
    assert (described["rows"], described["deleted_rows_kept"], described["segment_kinds"]) == (20, 0, ["exact"])


def test_many_segments_are_worth_a_note(sbmini_here, tmp_path, default_embedder, separate_segments):
    (tmp_path / "a.txt").write_text("bread\n")
    assert sbmini_here("index", "create", "ix", "-i", "a.txt").returncode == 0
    writer = IndexWriter(tmp_path / "ix", default_embedder)
    for i in range(14):
        writer.add([Record(f"row {i}")])
    for i in (14, 15):
        done = sbmini_here("index", "add", "ix", "-i", "-", stdin=f"row {i}\n")
        assert done.returncode == 0, done.stderr
        assert ("sbmini index compact ix" in done.stderr) == (i == 15)


def test_duplicates_and_reductions(sbmini_here, tmp_path):
    texts = ["How do I reset my password?", "How can I reset my password?", "Bread needs yeast.", "bread needs  YEAST."]
    (tmp_path / "t.txt").write_text("\n".join(texts) + "\n")
    done = sbmini_here("dedup", "-i", "t.txt", "--threshold", 0.85, "--duplicates", "d.jsonl")
    assert done.stdout.splitlines() == [texts[0], texts[2]]
    assert done.stderr == "sbmini: 4 rows, 2 kept; 1 had the same text as a kept one, 1 was near one\n"
    near, same = (json.loads(line) for line in (tmp_path / "d.jsonl").read_text().splitlines())
    assert (near["line"], near["of"]["line"], near["reason"], same["reason"]) == (2, 1, "near", "same text")
    assert 0.85 <= near["score"] < 1
    (tmp_path / "t.csv").write_text("id,text,year\na,Bread needs yeast.,2001\nb,bread needs yeast.,2002\n")
    done = sbmini_here("dedup", "-i", "t.csv", "-o", "kept.jsonl", "--duplicates", "-")
    assert json.loads((tmp_path / "kept.jsonl").read_text()) == {
        "id": "a",
        "text": "Bread needs yeast.",
        "year": "2001",
    }
    assert json.loads(done.stdout)["of"] == {"line": 2, "id": "a", "text": "Bread needs yeast."}
    one_error(sbmini_here("dedup", "-i", "t.csv", "--duplicates", "-"), 2, "--output")
    one_error(sbmini_here("dedup", "-i", "t.csv", "--threshold", 0), 2, "above 0")

    x = np.random.default_rng(0).standard_normal((50, 9)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    done = sbmini_here("reduce", "fit", "x.npy", "-d", 3, "-o", "pca.safetensors", "--whiten")
    assert "3 components hold" in done.stderr
    assert sbmini_here("reduce", "apply", "pca.safetensors", "x.npy", "-o", "y.npy", "--no-normalize").returncode == 0
    np.testing.assert_allclose(np.cov(np.load(tmp_path / "y.npy").T, bias=True), np.eye(3), atol=1e-3)
    one_error(sbmini_here("reduce", "apply", "x.npy", "x.npy", "-o", "z.npy"), 1, "cannot be read as a reduction")
    one_error(sbmini_here("reduce", "fit", "x.npy", "-d", 10, "-o", "p"), 2, "from 1 to the 9")
    assert not (tmp_path / "z.npy").exists()


def test_damaged_indexes_get_one_line(sbmini_here, tmp_path):
    (tmp_path / "t.txt").write_text("bread rises\nstars shine\n")
    assert sbmini_here("index", "create", "ix", "-i", "t.txt").returncode == 0
    for name in ("CURRENT", "generations/000001.json", "segments/000001/rows.jsonl", "segments/000001/row_ids.npy"):
        file = tmp_path / "ix" / name
        data = file.read_bytes()
        for damaged in (data[:-5], bytes([data[0] ^ 1]) + data[1:], b""):
            file.write_bytes(damaged)
            one_error(sbmini_here("search", "ix", "bread"), 1, file.name)
        file.write_bytes(data)
    assert len(sbmini_here("search", "ix", "bread").stdout.splitlines()) == 2


def test_the_shell_completes_commands_and_options(sbmini):
    def completed(words):
        return sbmini(
            env={"_SBMINI_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        ).stdout.split()

    assert completed("sbmini in") == ["index"]
    assert completed("sbmini index ver") == ["verify"]
    assert "--truncation" in completed("sbmini encode --tr")


def test_passages_on_the_command_line(sbmini_here, tmp_path):
    text = "Bread rises with yeast. " * 80 + "\n\n" + "Interest rates rose in Japan. " * 30
    (tmp_path / "t.jsonl").write_text(
        json.dumps({"id": "long", "text": text}) + "\n" + json.dumps({"text": "A dog."}) + "\n"
    )
    made = sbmini_here("index", "create", "x.index", "-i", "t.jsonl", "--overlap", "0")
    assert "1 long row was split into 3 passages" in made.stderr
    about = json.loads(sbmini_here("index", "info", "x.index", "--json").stdout)
    assert [about[key] for key in ("long_texts", "overlap", "rows", "vectors")] == ["passages", 0, 2, 4]
    found = json.loads(sbmini_here("search", "x.index", "interest rates", "-k", "1", "--json", "--passages").stdout)
    hit = found["results"][0]["hits"][0]
    assert (hit["id"], hit["passage"]) == ("long", text[hit["start"] : hit["end"]])
    assert hit["passage"].startswith("Interest rates rose")
    assert "text" not in hit
    line = sbmini_here("search", "x.index", "interest rates", "-k", "1", "--passages").stdout
    assert line.split("\t")[1:] == ["long", hit["passage"] + "\n"]
    assert sbmini_here("search", "x.index", "interest rates", "-k", "1").stdout.count("Bread") == 80
    (tmp_path / "q.csv").write_text("id,text\nq1,interest rates\nq2,yeast\n")
    asked = ("search", "x.index", "-i", "q.csv", "-k", "1", "--by", "words")
    lines = [line.split("\t") for line in sbmini_here(*asked, "--passages").stdout.splitlines()]
    assert [[*line[:2], line[3]] for line in lines] == [["q1", "interest rates", "long"], ["q2", "yeast", "long"]]
    answers = [json.loads(line) for line in sbmini_here(*asked, "--passages", "--jsonl").stdout.splitlines()]
    assert [answer["query_id"] for answer in answers] == ["q1", "q2"]
    shown = [answer["hits"][0] for answer in answers]
    assert [hit["passage"].replace("\n", "\\n") for hit in shown] == [line[4] for line in lines]
    assert shown[0]["passage"] == hit["passage"]
    assert shown[0]["cosine"] == pytest.approx(hit["cosine"], abs=1e-6)
    assert shown[0]["score"] == shown[0]["bm25"]
    whole = [
        json.loads(line)["hits"][0] for line in sbmini_here(*asked, "--without-text", "--jsonl").stdout.splitlines()
    ]
    scores = {"rank", "id", "score", "cosine", "bm25", "rank_by_meaning", "rank_by_words"}
    assert all(hit.keys() == scores for hit in whole)
    one_error(
        sbmini_here("search", "x.index", "cat", "--passages", "--without-text"), 2, "--passages", "--without-text"
    )
    one_error(sbmini_here("encode", "the cat", "--truncation", "passages"), 2, "passages", "chunk")
    refused = sbmini_here("index", "create", "y.index", "-i", "t.jsonl", "--truncation", "warn", "--overlap", "3")
    one_error(refused, 2, "--overlap", "truncation is 'warn'")
