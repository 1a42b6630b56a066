"""An index pushed to Milvus: against milvus-lite, a server of one process on 127.0.0.1 that speaks Milvus's protocol."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import one_error

from sbert_mini import Embedder, IndexWriter
from sbert_mini.errors import IndexNotFoundError, InputError, ModelMismatchError, RemoteIndexError, UsageError
from sbert_mini.scale import milvus
from sbert_mini.text.records import Record


class Server:
    """milvus-lite, started on a free port of 127.0.0.1, stopped by its process id."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    def start(self):
        command = [Path(sys.executable).with_name("milvus-lite"), "server", "--data-dir", self.folder]
        self.process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(3000):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=120):
                return
            time.sleep(0.1)
        raise AssertionError("milvus-lite did not start")

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def address(self, name):
        return f"milvus://127.0.0.1:{self.port}/{name}"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("milvus") / "data")
    yield server
    server.kill()


def records_of(passages):
    return [
        Record(row["text"], row["id"], {"topic": row["topic"], "level": row["level"], "half": "x" if i % 2 else None})
        for i, row in enumerate(passages)
    ]


@pytest.fixture(scope="module")
def index(tmp_path_factory, embedder, passages):
    return IndexWriter(tmp_path_factory.mktemp("index") / "index", embedder).create(records_of(passages))


@pytest.mark.frameworks
def test_the_same_options_and_results(server, index, embedder):
    counts = milvus.push(index, server.address("same"), batch_rows=100)
    assert (counts.rows, counts.sent, counts.removed) == (240, 240, 0)
    remote = milvus.MilvusIndex(server.address("same"), threads=1)
    assert len(remote) == 240
    assert remote.model == index.model
    assert (
        repr(remote)
        == f"MilvusIndex({remote.address!r}, model={index.model.name!r}, dimension={index.model.dimension})"
    )
    queries = ["why does dough rise?", "keeping time on a railway", "how do bats see"]
    for options in (
        {"k": 7},
        {"k": 240},
        {"k": 50, "min_score": 0.2},
        {"k": 9, "filter": "topic = 'railways'"},
        {"k": 300, "filter": "level >= 2 and half is null"},
        {"k": 300, "filter": "not (level in (1, 2) or HALF = 'x')"},
        {"k": 300, "filter": "half <> 'y' and topic like 'r%'"},
        {"k": 300, "filter": "level between 2 and 3 or id = 'bread-proofing'"},
        {"k": 5, "filter": "level > 99"},
    ):
        here_of = index.search(queries, by="meaning", **options)
        for here, there in zip(here_of, remote.search(queries, **options), strict=True):
            assert {h.id for h in here} == {h.id for h in there}, options
            np.testing.assert_allclose([h.score for h in here], [h.score for h in there], atol=1e-4)
            by_id = {hit.id: hit for hit in here}
            assert all((hit.text, hit.columns) == (by_id[hit.id].text, by_id[hit.id].columns) for hit in there)
    assert remote.search(queries[0], 1)[0].id == index.search(queries[0], 1, by="meaning")[0].id
    assert remote.search(embedder.encode(queries), 1)[1][0].id == index.search(queries[1], 1, by="meaning")[0].id
    (hit, *_) = remote.search("Doppler horn express", 3, hybrid=True, filter="topic = 'railways'")
    assert hit.id == index.search("Doppler horn express", 3, hybrid=True, filter="topic = 'railways'")[0].id
    assert hit.score <= 1 + 1e-6
    for by in ("words", "both"):  # Milvus splits and weighs words itself, so the order may be another
        for query, there in zip(queries, remote.search(queries, 5, by=by), strict=True):
            assert len(there) == 5
            cosines = {h.id: h.cosine for h in index.search(query, 300, by="meaning")}
            np.testing.assert_allclose([h.cosine for h in there], [cosines[h.id] for h in there], atol=1e-4)
            assert [h.score for h in there] == sorted((h.score for h in there), reverse=True)
            assert by == "both" or [h.rank_by_words for h in there] == [1, 2, 3, 4, 5]
            assert by == "both" or all(h.score == h.bm25 > 0 for h in there)
            assert all(h.bm25 is None or h.bm25 > 0 for h in there)
        floor = remote.search(queries[0], 5, by=by, min_score=0.3)
        assert all(h.cosine >= 0.3 - 1e-6 for h in floor)
    for wrong, message in (
        (
            {"filter": "tpic = 'x'"},
            r"no such column: tpic \(did you mean topic\?\)\. Columns: id \(text\), topic \(text\), level \(integer\)",
        ),
        ({"filter": "length(topic) > 3"}, "only a column can be compared"),
        ({"filter": "topic ="}, "not one SQL condition"),
        ({"exact": True}, "exactly"),
        ({"k": 20_000}, "16384"),
        ({"hybrid": True, "by": "words"}, "hybrid"),
    ):
        with pytest.raises(UsageError, match=message):
            remote.search("bread", **wrong)
    remote.close()


@pytest.mark.frameworks
def test_a_push_follows_updates_and_deletions(server, tmp_path, embedder, passages):
    address = server.address("follows")
    index = IndexWriter(tmp_path / "index", embedder).create(records_of(passages)[:60])
    milvus.push(index, address)
    ids = [row.id for row in index.rows()]
    IndexWriter(tmp_path / "index").delete(ids[:7])
    index = IndexWriter(tmp_path / "index", embedder).update(
        [Record("Entirely new text.", ids[9], {"lang": "en"}), Record("One more.", "more")]
    )
    counts = milvus.push(index, address)
    assert (counts.rows, counts.removed) == (54, 7)
    remote = milvus.MilvusIndex(address)
    found = {hit.id: (hit.text, hit.columns) for hit in remote.search("bread", 100)}
    assert found == {row.id: (row.text, row.columns) for row in index.rows()}
    assert [hit.id for hit in remote.search("x", 9, filter="lang = 'en'")] == [ids[9]]


@pytest.mark.frameworks
def test_another_model_or_a_strange_collection_is_refused(server, index, tmp_path, make_model):
    milvus.push(index, server.address("mine"))
    other = IndexWriter(tmp_path / "other", Embedder(make_model())).create([Record("the cat")])
    with pytest.raises(ModelMismatchError, match="was made with the model"):
        milvus.push(other, server.address("mine"))
    with pytest.raises(IndexNotFoundError, match="sbmini index push"):
        milvus.MilvusIndex(server.address("nowhere"))
    from pymilvus import MilvusClient

    MilvusClient(uri=f"http://127.0.0.1:{server.port}").create_collection("strange", dimension=4)
    with pytest.raises(UsageError, match="made by something else"):
        milvus.push(index, server.address("strange"))
    large = IndexWriter(tmp_path / "large", Embedder(make_model())).create(
        [Record("the cat", "a", {"x": "y" * 70_000})]
    )
    with pytest.raises(InputError, match="nothing was sent"):
        milvus.push(large, server.address("large"))


@pytest.mark.frameworks
def test_a_server_that_is_killed_loses_nothing(tmp_path, index):
    server = Server(tmp_path / "data")
    try:
        address = server.address("kept")
        milvus.push(index, address)
        server.kill()
        server.start()
        remote = milvus.MilvusIndex(address)
        assert len(remote) == 240
        assert {h.id for h in remote.search("bread", 9)} == {h.id for h in index.search("bread", 9, by="meaning")}
    finally:
        server.kill()


@pytest.mark.frameworks
def test_a_push_outlives_a_server_that_is_away_for_a_while(tmp_path, index, caplog):
    server = Server(tmp_path / "data")
    address = server.address("through")
    restarts = []

    def interrupt(sent, _):
        if sent >= 100 and not restarts:
            server.kill()
            restarts.append(threading.Timer(1.0, server.start))
            restarts[0].start()

    try:
        counts = milvus.push(index, address, batch_rows=20, on_progress=interrupt)
        assert counts.rows == 240
        assert "trying again" in caplog.text
        remote = milvus.MilvusIndex(address)
        assert sorted(hit.id for hit in remote.search("bread", 1000)) == sorted(row.id for row in index.rows())
    finally:
        restarts[0].join()
        server.kill()


@pytest.mark.frameworks
def test_a_push_that_was_broken_off_is_finished_by_another(tmp_path, index, monkeypatch):
    server = Server(tmp_path / "data")
    address = server.address("broken")

    def interrupt(sent, _):
        if sent >= 100:
            server.kill()

    with monkeypatch.context() as patched:
        patched.setattr(milvus, "FIRST_PAUSE_S", 0.01)
        with pytest.raises(RemoteIndexError, match=r"127\.0\.0\.1"):
            milvus.push(index, address, batch_rows=20, on_progress=interrupt)
    server.start()
    try:
        assert milvus.push(index, address).rows == 240
        hits = milvus.MilvusIndex(address).search("bread", 1000)
        assert len({hit.id for hit in hits}) == len(hits) == 240
    finally:
        server.kill()


@pytest.mark.frameworks
def test_the_commands_push_and_search(server, sbmini, tmp_path):
    rows = [{"id": f"r{i}", "text": f"Notes on bread number {i}.", "year": 2000 + i} for i in range(20)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert sbmini("index", "create", "ix", "-i", "a.jsonl").returncode == 0
    address = server.address("shell")
    assert sbmini("index", "push", "ix", address).stderr == f"sbmini: 20 rows -> {address}\n"
    options = ("bread", "--filter", "year >= 2017", "--json")
    here, there = (json.loads(sbmini("search", place, *options).stdout)["results"] for place in ("ix", address))
    assert [h["id"] for h in here[0]["hits"]] == [h["id"] for h in there[0]["hits"]]
    assert len(there[0]["hits"]) == 3
    assert sbmini("index", "delete", "ix", "--filter", "year < 2010").returncode == 0
    assert sbmini("index", "push", "ix", address).stderr.endswith("10 rows that the index does not hold removed\n")
    one_error(sbmini("search", server.address("nowhere"), "x"), 1, "sbmini index push")
    one_error(sbmini("search", "milvus://", "x"), 2, "milvus://HOST[:PORT]/COLLECTION")
