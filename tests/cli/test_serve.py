"""`sbmini serve` as a process: it says where it listens, and answers what it began before it ends."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from sbert_mini import Embedder, IndexWriter

SBMINI = Path(sys.executable).with_name("sbmini")
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def index(tmp_path, converted_model):
    IndexWriter(tmp_path / "x.index", Embedder(converted_model(), threads=1)).create(["the cat sleeps", "a dog runs"])
    return tmp_path / "x.index"


@contextmanager
def serving(folder, *arguments):
    """Run the command; yield the process, and the address that it says."""
    command = [str(SBMINI), "serve", *map(str, arguments), "--port", "0", "--threads", "1"]
    process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stderr.readline()
        yield process, re.search(r"ready on http://(127\.0\.0\.1:[0-9]+) with", line)[1]
    finally:
        process.kill()
        process.communicate()


def post(address, path, body):
    with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
        connection.request("POST", path, json.dumps(body), JSON)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def test_it_serves_until_a_signal_and_answers_what_it_began(tmp_path, index):
    with serving(tmp_path, index) as (process, address):
        status, answer = post(address, "/search", {"query": "dog", "k": 1})
        assert (status, answer["index"], answer["results"][0]["hits"][0]["text"]) == (200, "x.index", "a dog runs")
        statuses = []
        texts = [f"the cat sleeps {i}" for i in range(2000)]

        def ask():
            try:
                statuses.append(post(address, "/v1/embeddings", {"input": texts})[0])
            except ConnectionRefusedError:  # it was not begun
                statuses.append(None)

        asking = [threading.Thread(target=ask) for _ in range(4)]
        for thread in asking:
            thread.start()
        with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
            for _ in range(1000):  # until one waits, or all are answered
                connection.request("GET", "/metrics")
                counts = connection.getresponse().read().decode()
                if not re.search(r"^sbmini_waiting 0\.0$", counts, re.MULTILINE) or len(statuses) == len(asking):
                    break
        process.send_signal(signal.SIGTERM)
        for thread in asking:
            thread.join(60)
        assert set(statuses) <= {200, None}
        assert 200 in statuses
        assert process.wait(60) in (0, 143, -signal.SIGTERM)


def test_mistakes_get_one_line(sbmini_here, tmp_path, index, monkeypatch):
    monkeypatch.delenv("SBMINI_API_KEY", raising=False)
    (tmp_path / "empty").write_text("\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for arguments, code, said in (
            ((index, "--host", "0.0.0.0"), 2, "a key is needed"),  # noqa: S104
            ((index, "--allow-writes", "y"), 2, "names no index that is served: 'y'"),
            ((index, index), 2, "two indexes are called 'x.index'"),
            ((index, "--api-key-file", "none"), 2, "cannot be read"),
            ((index, "--api-key-file", "empty"), 2, "must hold a key"),
            (("none.index",), 1, "none.index"),
            ((index, "--port", port), 1, f"cannot listen on 127.0.0.1, port {port}"),
        ):
            done = sbmini_here("serve", *arguments)
            assert done.returncode == code, done.stderr
            assert said in done.stderr
            assert len(done.stderr.strip().splitlines()) == 1
