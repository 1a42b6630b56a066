"""The tools of an agent, called by the official client: in the process, over stdio, and over HTTP."""

import asyncio
import json
import sys

import numpy as np
import pytest

pytest.importorskip("mcp")

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from starlette.testclient import TestClient

from sbert_mini import Embedder, FolderSync, IndexWriter, SearchIndex
from sbert_mini.agents.allowed import agent_indexes
from sbert_mini.agents.protocol import HttpTools, mcp_server
from sbert_mini.agents.tools import Toolbox
from sbert_mini.errors import IndexNotFoundError, UsageError
from sbert_mini.serve.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
HIDDEN = "\x1b[31m\u202e\U000e0041"
BREAD = f"# Bread\n\nFresh bread needs yeast.\n\n## Sourdough\n\nIt rises slowly{HIDDEN}.\n"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A folder of documents, an index of it, and an index of rows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "bread.md").write_text(BREAD, "utf-8")
    (tmp_path / "notes" / "cats.md").write_text("# Cats\n\nThe cat sleeps all day.\n", "utf-8")
    model = Embedder(threads=1)
    FolderSync("notes.index", ["notes"], embedder=model).run()
    rows = [{"id": f"r{i}", "text": f"row {i} " + "word " * (3000 if not i else 1), "n": i} for i in range(30)]
    IndexWriter("rows.index", model).create(rows)
    return {"notes": tmp_path / "notes.index", "rows": tmp_path / "rows.index"}


def talk(paths, conversation, folders=()):
    """Run a conversation of the official client with a server in this process."""

    async def run():
        toolbox = Toolbox(agent_indexes(paths, folders), threads=1)
        try:
            async with Client(mcp_server(lambda: toolbox)) as client:
                return await conversation(client)
        finally:
            toolbox.close()

    return asyncio.run(run())


async def answer(client, tool, **arguments):
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return result.content[0].text, result.structured_content


async def refusal(client, tool, **arguments):
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert "\n" not in result.content[0].text
    return result.content[0].text


def test_what_a_client_lists(places):
    async def listed(client):
        return (await client.list_tools()).tools

    tools = {tool.name: tool for tool in talk(places, listed)}
    assert set(tools) == {"search", "similar", "get", "list_indexes", "embed"}
    assert all(tool.description and tool.output_schema and tool.annotations.read_only_hint for tool in tools.values())
    search = tools["search"].input_schema
    assert (search["required"], search["properties"]["k"]["maximum"]) == (["query"], 50)
    assert all(part["description"] for tool in tools.values() for part in tool.input_schema["properties"].values())
    assert "sync" in {tool.name for tool in talk(places, listed, ["notes=notes"])}


def test_hits_have_places_and_show_what_is_hidden(places):
    async def ask(client):
        return await answer(client, "search", query="how does sourdough rise", index="notes", k=1)

    text, data = talk(places, ask)
    (hit,) = data["hits"]
    assert (hit["id"], hit["place"], hit["is_cut"]) == ("notes/bread.md", "notes/bread.md:1", False)
    for shown in (text, hit["text"]):
        assert r"It rises slowly\x1b[31m\u202e\U000e0041." in shown
        assert not set(HIDDEN[:1] + HIDDEN[5:]) & set(shown)
    assert text.startswith("1. notes/bread.md:1  (")


def test_answers_agree_with_the_index(places):
    async def ask(client):
        found = await answer(client, "search", query="row 7", index="rows", k=4, filter="n > 5", by="words")
        near = await answer(client, "similar", id="r7", index="rows", k=3)
        described = await answer(client, "list_indexes")
        return (
            found[1],
            near[1],
            described[1],
            (await answer(client, "embed", texts=["a dog", "a cat"], dimensions=8))[1],
        )

    found, near, described, embedded = talk(places, ask)
    index = SearchIndex(places["rows"], threads=1)
    hits = index.search("row 7", 4, filter="n > 5", by="words")
    assert [(hit["id"], hit["score"], hit["columns"]) for hit in found["hits"]] == [
        (hit.id, round(hit.score, 4), dict(hit.columns)) for hit in hits
    ]
    assert len(near["hits"]) == 3
    assert "r7" not in {hit["id"] for hit in near["hits"]}
    assert [(one["name"], one["rows"], one["is_writable"]) for one in described["indexes"]] == [
        ("notes", 2, False),
        ("rows", 30, False),
    ]
    expected = index.embedder().encode_document(["a dog", "a cat"], truncate_dim=8)
    np.testing.assert_allclose(embedded["vectors"], expected, atol=1e-6)
    assert embedded["cosines"][0][1] == pytest.approx(float(expected[0] @ expected[1]), abs=1e-4)


def test_long_texts_come_in_parts(places):
    whole = SearchIndex(places["rows"]).get("r0").text

    async def read(client):
        parts, start = [], 0
        while start is not None:
            _, data = await answer(client, "get", ids=["r0"], index="rows", start=start, characters=6000)
            parts.append(data["rows"][0]["text"])
            start = data["rows"][0].get("next_start")
        (hit,) = (await answer(client, "search", query=whole[:500], index="rows", k=1))[1]["hits"]
        many = (await answer(client, "get", ids=["r0"] * 20, index="rows", characters=20_000))[0]
        return parts, hit, many, (await answer(client, "get", ids=["none"], index="rows"))[1]

    parts, hit, many, none = talk(places, read)
    assert "".join(parts) == whole
    assert len(parts) == 3
    assert len(hit["text"]) <= 1500
    assert len(many) < 22_000
    assert none["rows"] == [{"id": "none", "is_there": False}]


def test_what_is_refused(places):
    async def ask(client):
        return [
            await refusal(client, "search", query="a"),
            await refusal(client, "search", query="a", index="none"),
            await refusal(client, "search", query="a", index="rows", filter="m > 1"),
            await refusal(client, "search", query="a", index="rows", k=51),
            await refusal(client, "search", query="a", index="rows", top=5),
            await refusal(client, "search", query="a" * 5000, index="rows"),
            await refusal(client, "similar", id="x\ny", index="rows"),
            await refusal(client, "embed", texts=["a"] * 17),
            await refusal(client, "sync", index="rows"),
            await refusal(client, "delete", index="rows"),
        ]

    expected = [
        "name an index",
        "there is no index 'none'",
        "no such column: m",
        "51",
        "no argument 'top'",
        "4000 characters",
        r"x\ny",
    ]
    for said, part in zip(talk(places, ask), [*expected, "texts", "no tool 'sync'", "no tool 'delete'"], strict=True):
        assert part in said


def test_sync_reads_the_folder_that_was_allowed_and_no_other(places, tmp_path):
    (tmp_path / "notes" / "dogs.md").write_text("A dog runs.", "utf-8")

    async def ask(client):
        planned = await answer(client, "sync", index="notes", dry_run=True)
        done = await answer(client, "sync", index="notes")
        found = await answer(client, "search", query="running dog", index="notes", k=1)
        return planned[1], done[1], found[1], await refusal(client, "sync", index="rows")

    planned, done, found, refused = talk(places, ask, ["notes=notes"])
    assert planned["actions"] == [{"action": "add", "id": "notes/dogs.md"}]
    assert (done["added"], done["unchanged"], done["failed"]) == (1, 2, 0)
    assert found["hits"][0]["id"] == "notes/dogs.md"
    assert "may not be changed" in refused


def test_indexes_and_folders_must_be_there(places, tmp_path):
    with pytest.raises(IndexNotFoundError, match="there is no index"):
        agent_indexes({"none": tmp_path}, ())
    with pytest.raises(UsageError, match="which index 'notes' belongs to"):
        agent_indexes(places, ["notes"])
    with pytest.raises(UsageError, match="no folder 'nowhere'"):
        agent_indexes(places, ["notes=nowhere"])


def test_the_command_on_standard_streams(places, tmp_path):
    arguments = ["-m", "sbert_mini.cli.main", "mcp", str(places["notes"]), "--allow-writes", "notes"]
    script = "from sbert_mini.cli.main import main; main()"
    server = StdioServerParameters(command=sys.executable, args=["-c", script, *arguments[2:]], cwd=tmp_path)

    async def run():
        async with Client(server) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            return names, await answer(client, "search", query="bread")

    names, (text, _) = asyncio.run(run())
    assert "sync" in names
    assert text.startswith("1. notes/bread.md:1")


def test_behind_http_with_the_guard_of_the_server(places):
    toolbox = Toolbox(agent_indexes(places, ()), threads=1)
    settings = Settings(key="secret", log=False, hosts=("testserver",))
    headers = {"Authorization": "Bearer secret", "Accept": "application/json, text/event-stream"}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
    call["params"] = {"name": "get", "arguments": {"ids": ["r1"], "index": "rows"}}
    with TestClient(HttpTools(toolbox, settings).app()) as client:
        done = client.post("/mcp", json=call, headers=headers)
        assert done.json()["result"]["structuredContent"]["rows"][0]["id"] == "r1"
        assert client.post("/mcp", json=call).status_code == 401
        for name, value in (("Host", "evil.example"), ("Origin", "http://evil.example")):
            assert client.post("/mcp", json=call, headers={**headers, name: value}).status_code == 403
        assert client.post("/mcp", content=json.dumps(call), headers=headers).status_code == 415
        assert client.post("/other", json=call, headers=headers).status_code == 404
