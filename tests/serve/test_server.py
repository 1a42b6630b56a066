"""A server's answers, through its ASGI application: vectors, search, rows, refusals."""

import base64
import json
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from starlette.testclient import TestClient

from sbert_mini import Embedder, IndexWriter, SearchIndex
from sbert_mini.search import store
from sbert_mini.serve.app import Server
from sbert_mini.serve.embedding import EmbeddingService
from sbert_mini.serve.guard import OPEN_PATHS
from sbert_mini.serve.searching import IndexService
from sbert_mini.serve.settings import Limits, Settings

TEXTS = ["the cat sleeps", "a dog runs", "red house", "the dog sleeps", "bread and dough"]
LIMITS = Limits(body_bytes=20_000, texts=40, tokens=300, queries=3, hits=50, rows=5, waiting=1000)


@pytest.fixture
def open_server(tmp_path, converted_model):
    """A function that opens a server with an index `rows`, and returns a client of it and the index's path."""
    opened = []

    def make(writable=True, **settings):
        embedder = Embedder(converted_model(), threads=1)
        path = tmp_path / "rows.index"
        rows = [{"id": f"r{i}", "text": f"{TEXTS[i % 5]} {i}", "n": i, "kind": "ab"[i % 2]} for i in range(30)]
        IndexWriter(path, embedder).create(rows, overwrite=True)
        chosen = Settings(**{"log": False, "limits": LIMITS, "hosts": ("testserver",), **settings})
        index = IndexService("rows", path, chosen, embedder, 1, False, writable)
        server = Server(EmbeddingService(embedder, chosen), {"rows": index}, chosen)
        client = TestClient(server.app(), raise_server_exceptions=False).__enter__()
        opened.append(client)
        return client, path, embedder

    yield make
    for client in opened:
        client.__exit__(None, None, None)


def problem(response, status, *parts):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    message = response.json()["error"]["message"]
    assert "\n" not in message
    for part in parts:
        assert part in message
    return response


def test_vectors_are_the_embedders_as_floats_and_as_base64(open_server):
    client, _, embedder = open_server()
    expected = embedder.encode(TEXTS)
    answer = client.post("/v1/embeddings", json={"input": TEXTS}).json()
    found = np.array([part["embedding"] for part in answer["data"]], np.float32)
    np.testing.assert_array_equal(found, expected)
    assert [part["index"] for part in answer["data"]] == list(range(5))
    tokens = int(embedder.tokenizer.encode(TEXTS).lengths.sum())
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    body = {"input": TEXTS[0], "encoding_format": "base64", "dimensions": 7, "model": embedder.model_name, "user": "u"}
    answer = client.post("/v1/embeddings", json=body).json()
    found = np.frombuffer(base64.b64decode(answer["data"][0]["embedding"]), "<f4")
    np.testing.assert_array_equal(found, embedder.encode(TEXTS[0], truncate_dim=7))
    assert embedder.model_name in [model["id"] for model in client.get("/v1/models").json()["data"]]


def test_requests_that_are_computed_together_get_the_bits_of_those_alone(open_server):
    client, _, embedder = open_server()
    groups = [[f"{text} {i}" for text in TEXTS[: 1 + i % 5]] for i in range(40)]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda texts: client.post("/v1/embeddings", json={"input": texts}), groups))
    for texts, answer in zip(groups, answers, strict=True):
        found = np.array([part["embedding"] for part in answer.json()["data"]], np.float32)
        np.testing.assert_array_equal(found, np.stack([embedder.encode(text) for text in texts]))


def test_texts_that_are_cut_are_counted_or_refused(open_server):
    client, _, _ = open_server()
    long = "cat " * 100
    assert client.post("/v1/embeddings", json={"input": ["a", long]}).json()["truncated"] == 1
    problem(client.post("/v1/embeddings", json={"input": [long] * 20}), 413, "may have 300 tokens")
    client, _, _ = open_server(truncation="error")
    problem(client.post("/v1/embeddings", json={"input": ["a", long]}), 400, "input[1] is longer than the 31 tokens")


def test_hits_are_those_of_the_index(open_server):
    client, path, _ = open_server()
    index = SearchIndex(path, threads=1)
    for body, options in (
        ({"query": "the dog sleeps"}, {}),
        ({"query": "the dog sleeps", "by": "words", "k": 3}, {"by": "words", "k": 3}),
        ({"query": "cat", "by": "meaning", "min_score": 0.1}, {"by": "meaning", "min_score": 0.1}),
        ({"query": "cat", "filter": "n > 3 and kind = 'a'", "hybrid": True}, {"filter": "n > 3 and kind = 'a'"}),
        ({"query": "dog", "weight": 0.2, "exact": True}, {"weight": 0.2, "exact": True}),
    ):
        answer = client.post("/search", json={"index": "rows", **body}).json()
        (result,) = answer["results"]
        assert (answer["index"], answer["model"]) == ("rows", index.model.name)
        expected = index.search(body["query"], **options)
        assert [hit["id"] for hit in result["hits"]] == [hit.id for hit in expected]
        for hit, other in zip(result["hits"], expected, strict=True):
            assert {name: hit[name] for name in vars(other)} == json.loads(json.dumps(vars(other), default=dict))
    several = client.post("/search", json={"query": ["cat", "dog"], "k": 2}).json()["results"]
    assert [result["query"] for result in several] == ["cat", "dog"]
    like = client.post("/search", json={"like": "r3", "k": 40}).json()["results"][0]["hits"]
    assert {hit["id"] for hit in like} == {f"r{i}" for i in range(30)} - {"r3"}
    assert [hit["rank_by_meaning"] for hit in like] == list(range(1, 30))
    assert len(client.post("/search", json={"like": "r3", "k": 4}).json()["results"][0]["hits"]) == 4
    bare = client.post("/search", json={"query": "dog", "k": 1, "with_text": False}).json()["results"][0]["hits"][0]
    assert {"text", "columns"}.isdisjoint(bare)
    body = {"query": "the dog", "k": 1, "excerpts": True, "by": "words"}
    hit = client.post("/search", json=body).json()["results"][0]["hits"][0]
    assert [hit["text"][a:b] for a, b in hit["excerpt"]["words"]] == ["dog"]


def test_rows_are_read_written_and_deleted(open_server):
    client, path, _ = open_server()
    there = client.get("/indexes/rows/rows", params={"id": ["r1", "none"]}).json()["rows"]
    assert there == [{"id": "r1", "text": "a dog runs 1", "columns": {"n": 1, "kind": "b"}}, None]
    new = {"id": "new", "text": "a new row", "columns": {"n": 99, "kind": "c"}}
    done = client.post("/indexes/rows/rows", json={"rows": [new, {"id": "r1", "text": "changed", "n": 1}]}).json()
    assert done == {"written": 2, "replaced": 1, "unchanged": 0}
    assert client.get("/indexes/rows/rows?id=new").json()["rows"] == [new]
    assert (
        client.post("/search", json={"query": "row", "filter": "n = 99"}).json()["results"][0]["hits"][0]["id"] == "new"
    )
    assert client.request("DELETE", "/indexes/rows/rows", json={"ids": ["new"], "filter": "n < 5"}).json() == {
        "deleted": 6
    }
    described = client.get("/indexes/rows").json()
    assert (described["rows"], described["generation"]) == (25, 3)
    IndexWriter(path).delete(["r20"])  # by another program
    assert client.get("/indexes").json()["indexes"][0]["rows"] == 24
    problem(client.request("DELETE", "/indexes/rows/rows", json={}), 400, "name rows to delete")
    problem(client.request("DELETE", "/indexes/rows/rows", json={"ids": ["none"]}), 400, "none")
    problem(client.post("/indexes/rows/rows", json={"rows": [{"id": "x"}]}), 400, "text")
    assert client.get("/indexes/rows").json()["rows"] == 24
    with store.write_lock(path):
        problem(client.post("/indexes/rows/rows", json={"rows": [new]}), 409, "another process")


def test_an_index_is_not_written_to_unless_that_is_allowed(open_server):
    client, _, _ = open_server(writable=False)
    problem(client.post("/indexes/rows/rows", json={"rows": [{"text": "x"}]}), 403, "--allow-writes rows")
    problem(client.request("DELETE", "/indexes/rows/rows", json={"ids": ["r1"]}), 403, "--allow-writes rows")
    assert client.get("/indexes/rows").json()["rows"] == 30


@pytest.mark.parametrize(
    ("path", "body", "status", "parts"),
    [
        ("/v1/embeddings", b"{", 400, ["not JSON"]),
        ("/v1/embeddings", b"[" * 9000, 400, ["not JSON"]),
        ("/v1/embeddings", b'{"input": "\xff"}', 400, ["not JSON"]),
        ("/v1/embeddings", b'{"input": "\\ud800"}', 400, ["not JSON"]),
        ("/v1/embeddings", b"[]", 400, ["must be an object"]),
        ("/v1/embeddings", b"{}", 400, ["input"]),
        ("/v1/embeddings", b'{"input": []}', 400, ["input"]),
        ("/v1/embeddings", b'{"input": [1, 2]}', 400, ["input", "a text"]),
        ("/v1/embeddings", b'{"input": "a", "dimensions": 999}', 400, ["from 1 to 28"]),
        ("/v1/embeddings", b'{"input": "a", "dimensions": 0}', 400, ["dimensions"]),
        ("/v1/embeddings", b'{"input": "a", "model": "other"}', 404, ["the model here is"]),
        ("/v1/embeddings", b'{"input": "a", "inputs": 1}', 400, ["unknown key 'inputs'", "encoding_format"]),
        ("/v1/embeddings", b'{"input": "a", "encoding_format": "hex"}', 400, ["float, base64"]),
        ("/v1/embeddings", b'{"input": "' + b"a" * 30_000 + b'"}', 413, ["20000 bytes"]),
        ("/search", b'{"query": "a", "index": "none"}', 404, ["'none'", "rows"]),
        ("/search", b"{}", 400, ["query, or like"]),
        ("/search", b'{"query": "a", "like": "r1"}', 400, ["query, or like"]),
        ("/search", b'{"like": "none"}', 404, ["no row 'none'"]),
        ("/search", b'{"like": "r1", "by": "words"}', 400, ["compares by meaning"]),
        ("/search", b'{"query": "a", "k": 51}', 400, ["k must be a whole number from 1 to 50"]),
        ("/search", b'{"query": "a", "filter": "none = 1"}', 400, ["no such column"]),
        ("/search", b'{"query": "a", "filter": "n ="}', 400, ["cannot be evaluated"]),
        ("/search", b'{"query": "a", "weight": 2}', 400, ["weight"]),
        ("/search", b'{"query": "a", "hybrid": true, "by": "words"}', 400, ["hybrid"]),
        ("/search", b'{"query": ["a", "a", "a", "a"]}', 400, ["query"]),
        ("/indexes/rows/rows", b'{"rows": []}', 400, ["rows"]),
        ("/indexes/rows/rows", b'{"rows": ["a"]}', 400, ["rows"]),
        ("/indexes/none/rows", b'{"rows": [{"text": "a"}]}', 404, ["'none'"]),
        ("/none", b"{}", 404, ["Not Found"]),
        ("/indexes", b"{}", 405, ["Method Not Allowed"]),
    ],
)
def test_what_cannot_be_met_is_one_line(open_server, path, body, status, parts):
    client, _, _ = open_server()
    problem(client.post(path, content=body, headers={"content-type": "application/json"}), status, *parts)
    assert client.get("/health").status_code == 200


def test_a_body_without_a_length_is_bounded_too(open_server):
    client, _, _ = open_server()
    parts = (b'{"input": "', *[b"a" * 1000] * 30, b'"}')
    answer = client.post("/v1/embeddings", content=iter(parts), headers={"content-type": "application/json"})
    assert "content-length" not in answer.request.headers
    problem(answer, 413, "20000 bytes")


def test_a_client_that_hangs_up_leaves_no_traceback(open_server, capfd):
    import asyncio

    client, _, _ = open_server()
    parts = [{"type": "http.request", "body": b'{"input"', "more_body": True}, {"type": "http.disconnect"}]
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/embeddings", "query_string": b"", "headers": headers}
    sent = []

    async def receive():
        return parts.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(client.app(scope, receive, send))
    assert sent[0]["status"] == 400
    assert "the connection ended before the body did" in sent[1]["body"].decode()
    assert "Traceback" not in capfd.readouterr().err


def test_the_length_of_a_body_is_not_repeated_whole(open_server):
    client, _, _ = open_server()
    headers = {"content-type": "application/json", "content-length": "9" * 4000}
    message = problem(client.post("/search", content=b"{}", headers=headers), 413).json()["error"]["message"]
    assert len(message) < 100


def test_pages_of_other_sites_are_refused(open_server):
    client, _, _ = open_server()
    problem(client.get("/indexes", headers={"host": "evil.example"}), 403, "not called 'evil.example'")
    problem(client.get("/indexes", headers={"host": ""}), 403)
    for origin in ("http://evil.example", "null", "http://testserver.evil.example"):
        problem(client.get("/indexes", headers={"origin": origin}), 403, "other sites")
    assert client.get("/indexes", headers={"origin": "http://testserver"}).status_code == 200
    assert client.get("/health", headers={"host": "127.0.0.1:8000"}).status_code == 200
    assert client.get("/health", headers={"host": "[::1]:8000"}).status_code == 200
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        problem(client.post("/search", content=b'{"query": "a"}', headers={"content-type": kind}), 415)
    assert "access-control-allow-origin" not in client.options("/search").headers


def test_a_key_is_needed_where_there_is_one(open_server):
    client, _, _ = open_server(key="secret")
    for path in ("/indexes", "/metrics", "/openapi.json", "/v1/models", "/none"):
        for headers in ({}, {"authorization": "secret"}, {"authorization": "Bearer other"}):
            assert "WWW-Authenticate" in problem(client.get(path, headers=headers), 401, "the key").headers
    assert client.get("/indexes", headers={"authorization": "Bearer secret"}).status_code == 200
    assert {client.get(path).status_code for path in OPEN_PATHS} == {200}


def test_the_document_names_every_route_and_the_schemas_that_check(open_server):
    client, _, _ = open_server()
    paths = client.get("/openapi.json").json()["paths"]
    routes = {route.path: route for route in client.app._app.routes}
    assert set(paths) == set(routes) - {"/page.js", "/page.css"}
    for path, entry in paths.items():
        methods = {method.upper() for method in entry if method != "parameters"}
        assert methods == routes[path].methods - {"HEAD"}
    body = paths["/search"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["k"] == {"type": "integer", "minimum": 1, "maximum": 50}
    assert body["additionalProperties"] is False


def test_counts_and_logs_hold_no_texts(open_server, capsys):
    client, _, _ = open_server(log=True)
    client.post("/v1/embeddings", json={"input": ["secretive words"]})
    client.post("/search", json={"query": "secretive words"})
    client.post("/search", json={"query": "secretive words", "filter": "secretive = 1"})
    client.get("/indexes/secretive/rows?id=secretive")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    assert [(line["route"], line["status"]) for line in lines] == [
        ("/v1/embeddings", 200), ("/search", 200), ("/search", 400), ("/indexes/{name}/rows", 404),
    ]  # fmt: skip
    counts = client.get("/metrics").text
    assert 'sbmini_requests_total{route="/search",status="400"} 1.0' in counts
    assert "sbmini_texts_total 1.0" in counts
    assert "secretive" not in counts + json.dumps(lines)


def test_the_page_has_no_script_or_style_of_its_own_and_makes_no_markup_of_texts(open_server):
    client, _, _ = open_server()
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert re.findall(r"<script(?![^>]*\bsrc=)", page.text) == re.findall(r"<style|\son\w+=|\sstyle=", page.text) == []
    assert "//" not in re.sub(r"<!doctype.*?>", "", page.text)
    script = client.get("/page.js").text
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)
    assert re.findall(r"https?://", script) == []
