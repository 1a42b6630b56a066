"""Bulk encoding on Ray: real clusters of several raylets on 127.0.0.1."""

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import one_error

from sbert_mini import Embedder, SearchIndex
from sbert_mini.errors import InputError, UsageError
from sbert_mini.runtime.engine import thread_count
from sbert_mini.scale.bulk import BulkSettings, encode_files, threads_each
from sbert_mini.text.records import files_at

pytest.importorskip("ray")
CLUSTER = """
import json, os, sys, threading, time
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
from pathlib import Path
from ray.cluster_utils import Cluster
from sbert_mini.scale.bulk import BulkSettings, encode_files

SMALL = {"object_store_memory": 150_000_000}
model, output, kill, stop, *files = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **SMALL})
nodes = [cluster.add_node(num_cpus=1, **SMALL) for _ in range(2)]
cluster.wait_for_nodes()
told = {"killed": False}


def watch():
    while not list(Path(output).glob("*.parquet")):
        time.sleep(0.02)
    if stop == "yes":
        os._exit(9)
    cluster.remove_node(nodes[1], allow_graceful=False)
    told["killed"] = True


if kill == "yes" or stop == "yes":
    threading.Thread(target=watch, daemon=True).start()
settings = BulkSettings(model=model, truncation="chunk")
counts = encode_files(files, output, settings, address=cluster.address, workers=3, resume=True)
print(json.dumps({**vars(counts), **told}), flush=True)
os._exit(0)
"""


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    words = ["the", "cat", "dog", "red", "house", "tree", "a"]
    made = []
    for i in range(6):
        texts = [" ".join(words[(n * n + i + j) % 7] for j in range(1 + n % 9)) for n in range(900)]
        (folder / f"{i}.txt").write_text("\n".join(texts) + "\n")
        made.append(folder / f"{i}.txt")
    return made


def shards(folder):
    table = pq.read_table(sorted(folder.glob("*.parquet")))
    return dict(zip(table["id"].to_pylist(), table["vector"].to_pylist(), strict=True)), table.num_rows


def run_cluster(model, output, files, *, kill="no", stop="no"):
    command = [sys.executable, "-c", CLUSTER, str(model), str(output), kill, stop, *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def check_all(output, files, model):
    found, rows = shards(output)
    texts = {f"{file}:{n}": text for file in files for n, text in enumerate(file.read_text().splitlines(), start=1)}
    assert rows == len(found) == len(texts) == 5400
    assert set(found) == set(texts)
    sample = sorted(texts)[::9]
    expected = Embedder(model, threads=1).encode([texts[i] for i in sample])
    np.testing.assert_allclose(np.array([found[i] for i in sample]), expected, atol=1e-6)


@pytest.mark.long
def test_a_node_that_dies_in_mid_job_loses_and_repeats_no_row(tmp_path, files, make_model):
    model = make_model()
    Embedder(model)
    done = run_cluster(model, tmp_path / "out", files, kill="yes")
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1])["killed"]
    check_all(tmp_path / "out", files, model)


@pytest.mark.long
def test_a_job_that_died_goes_on_by_id(tmp_path, files, make_model):
    model = make_model()
    Embedder(model)
    assert run_cluster(model, tmp_path / "out", files, stop="yes").returncode == 9
    assert list((tmp_path / "out").glob("*.parquet"))
    done = run_cluster(model, tmp_path / "out", files)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 0 <= json.loads(done.stdout.splitlines()[-1])["kept"] < 5400
    check_all(tmp_path / "out", files, model)
    again = encode_files(files, tmp_path / "out", BulkSettings(model=str(model), truncation="chunk"), resume=True)
    assert (again.rows, again.kept) == (5400, 5400)  # nothing is left to do


@pytest.mark.frameworks
def test_the_command_encodes_files_on_ray(sbmini, tmp_path, make_model):
    model = make_model()
    long = "a red house " * 200
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text(f"key,body\na,the cat\nb,{long}\n")
    (tmp_path / "in" / "b.csv").write_text("key,body\nc,the dog\n")
    columns = ("--text-column", "body", "--id-column", "key", "-m", model)
    done = sbmini(
        "encode",
        "--engine",
        "ray",
        "-i",
        "in/a*.csv",
        "-i",
        "in/b.csv",
        "-o",
        "out",
        *columns,
        env={"RAY_DEDUP_LOGS": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert "sbmini: 2 files, 1 worker of " in done.stderr
    assert all(line.startswith("sbmini: ") for line in done.stderr.splitlines()), done.stderr
    assert done.stderr.splitlines()[-2].startswith("sbmini: 3 texts -> ")
    found, rows = shards(tmp_path / "out")
    assert rows == 3
    (shard,) = (tmp_path / "out").glob("*.parquet")
    table = pq.read_table(shard)
    assert dict(zip(table["id"].to_pylist(), table["truncated"].to_pylist(), strict=True)) == {
        "a": False,
        "b": True,
        "c": False,
    }
    assert done.stderr.splitlines()[-1] == "sbmini: 1 text longer than the model reads, marked by 'truncated'"
    np.testing.assert_allclose(
        np.array([found[i] for i in "abc"]), Embedder(model).encode(["the cat", long, "the dog"]), atol=1e-6
    )
    (tmp_path / "all.csv").write_text(f"key,body\nc,the dog\na,the cat\nb,{long}\n")
    assert sbmini("index", "create", "ix", "-i", "all.csv", *columns, "--vectors", "out").returncode == 0
    index = SearchIndex(tmp_path / "ix")
    assert index.verify() == []
    for row, text in (("a", "the cat"), ("b", long), ("c", "the dog")):
        (hit,) = index.search(text, 1)
        assert (hit.id, hit.cosine) == (row, pytest.approx(1, abs=1e-5))
    (tmp_path / "all.csv").write_text("key,body\nc,the dog\nz,the cat\n")
    one_error(sbmini("index", "create", "iy", "-i", "all.csv", *columns, "--vectors", "out"), 1, "'z' has no vector")
    (tmp_path / "all.csv").write_text("key,body\nc,the dog\n")
    one_error(
        sbmini("index", "create", "iy", "-i", "all.csv", *columns, "--vectors", "out"), 1, "3 vectors, and 1 rows"
    )
    one_error(sbmini("index", "create", "iy", "-i", "all.csv", *columns, "--vectors", "in"), 1, "no Parquet shard")
    one_error(sbmini("encode", "--engine", "ray", "-i", "in", "-o", "out", *columns), 2, "holds a job already")
    (tmp_path / "in" / "b.csv").write_text("key,body\nc,the dog,and more\n")
    done = sbmini("encode", "--engine", "ray", "-i", "in/b.csv", "-o", "bad", *columns)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("sbmini: error: ")
    assert done.stderr.splitlines()[-1].endswith("b.csv, line 2: 3 columns, and the header names 2 (key, body)")


def test_what_the_command_refuses_before_ray_is_started(sbmini, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("text\nthe cat\n")
    one_error(sbmini("encode", "--engine", "ray", "-i", "nowhere*", "-o", "o"), 1, "matches none")
    one_error(sbmini("encode", "--engine", "ray", "text"), 2, "--input", "--output")
    one_error(sbmini("encode", "--workers", 2, "text"), 2, "--engine ray")
    one_error(sbmini("encode", "--engine", "ray", "-i", "in", "-o", "o", "--precision", "int8"), 2, "--precision")
    one_error(sbmini("encode", "--engine", "ray", "-i", "in", "-o", "o", "--rejects", "r.jsonl"), 2, "--rejects")
    variables = {"SBMINI_THREADS": "many"}
    one_error(sbmini("encode", "--engine", "ray", "-i", "in", "-o", "o", env=variables), 2, "SBMINI_THREADS", "'many'")
    assert not (tmp_path / "o").exists()


def test_threads_of_a_worker(monkeypatch):
    for name in ("SBMINI_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    cores = thread_count()
    assert [threads_each(1), threads_each(cores), threads_each(cores + 1)] == [cores, 1, 1]
    assert threads_each(1, 3) == threads_each(8, 3) == 3
    monkeypatch.setenv("SBMINI_THREADS", "5")
    assert (threads_each(8), threads_each(8, 2)) == (5, 2)


def test_what_cannot_begin_is_an_error(tmp_path, make_model):
    settings = BulkSettings(model=str(make_model()))
    with pytest.raises(UsageError, match="no input file"):
        encode_files([], tmp_path / "out", settings)
    with pytest.raises(InputError, match="No such file"):
        encode_files([tmp_path / "a.txt"], tmp_path / "out", settings)
    (tmp_path / "a.txt").write_text("the cat\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("y")
    with pytest.raises(UsageError, match="holds x"):
        encode_files([tmp_path / "a.txt"], tmp_path / "full", settings)
    assert files_at(tmp_path / "a.txt") == files_at(tmp_path / "*.txt") == [tmp_path / "a.txt"]


def test_a_job_goes_on_only_with_the_same_columns():
    assert BulkSettings(text_column="a").to_json() == BulkSettings(text_column=["a"], max_row_bytes=9).to_json()
    assert "text_separator" not in BulkSettings(text_column=["a"]).to_json()
    joined = BulkSettings(text_column=("a", "b")).to_json()
    assert (joined["text_column"], joined["text_separator"]) == (["a", "b"], " ")
    assert json.loads(json.dumps(joined)) == joined


def test_what_a_killed_run_left_of_its_first_record_is_in_nobodys_way(tmp_path):
    (tmp_path / "rows.txt").write_text("a cat\n")
    output = tmp_path / "shards"
    output.mkdir()
    (output / "._job.json.999999999.2750ed92.part").touch()  # killed before it was renamed
    (output / "holiday.jpg").touch()
    with pytest.raises(UsageError, match=r"must be empty or absent, and holds holiday\.jpg"):
        encode_files([tmp_path / "rows.txt"], output)
