"""`sbmini mcp`: search as tools for agents."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sbert_mini.errors import UsageError

from . import options, signals
from .notes import note, quiet_notes
from .serve import AllowHost, KeyFile, api_key, named_indexes

if TYPE_CHECKING:
    from sbert_mini.agents.tools import Toolbox

EXAMPLE = """Examples:

  sbmini mcp notes.index

  sbmini mcp notes.index --allow-writes notes/

  sbmini mcp notes=/data/notes.index manuals.index --allow-writes notes=/data/notes

  sbmini mcp notes.index --http --port 8001
"""
Indexes = Annotated[
    list[str],
    typer.Argument(
        metavar="[NAME=]INDEX...",
        help="Index directories to search. The name is that of the directory unless another one is given.",
        show_default=False,
    ),
]
AllowWrites = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-writes",
        metavar="[NAME=]FOLDER",
        help="Offer the tool sync, which brings an index up to date with this folder. Repeatable.",
        show_default=False,
    ),
]
Http = Annotated[bool, typer.Option("--http", help="Listen on 127.0.0.1 (streamable HTTP, /mcp), not on stdin.")]
Port = Annotated[
    int | None,
    typer.Option("--port", min=0, max=65535, help="The port of --http: 8001, or 0 for any.", show_default=False),
]


def mcp(
    indexes: Indexes,
    allow_writes: AllowWrites = None,
    http: Http = False,
    port: Port = None,
    api_key_file: KeyFile = None,
    allow_host: AllowHost = None,
    filter_timeout: options.FilterTimeout = 10.0,
    threads: options.Threads = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
) -> None:
    """Offer indexes to agents and editors as tools, over the Model Context Protocol (MCP).

    An agent starts this command itself and talks to it on stdin and stdout; docs/integrations.md shows the settings of usual
    agents. The tools are search, similar, get, list_indexes and embed. Answers are short, and name places as path:line. With
    --allow-writes there is also sync; without it nothing is changed. An agent chooses no folder and no file.

    With --http the command listens on 127.0.0.1, with the guards of 'sbmini serve': requests of web pages are refused, and
    --api-key-file asks for a key. Changes of an index by other processes are seen at once.
    """
    quiet_notes(quiet)
    if not http and (given := [name for name, value in _of_http(port, api_key_file, allow_host) if value]):
        raise UsageError(f"{given[0]} is for --http")
    from sbert_mini.agents.allowed import agent_indexes

    allowed = agent_indexes(named_indexes(indexes), allow_writes or ())

    def tools() -> "Toolbox":
        from sbert_mini.agents.tools import Toolbox

        return Toolbox(allowed, threads=threads, offline=offline, filter_seconds=filter_timeout)

    if http:
        _listen(tools(), 8001 if port is None else port, api_key(api_key_file), tuple(allow_host or ()))
        return
    if sys.stdin.isatty():
        note(
            "waiting for an agent on stdin: docs/integrations.md shows how an agent starts this command; Ctrl-C ends it"
        )
    signals.end_at_once()  # a thread waits for stdin, which nothing else ends
    from sbert_mini.agents.protocol import serve_streams

    serve_streams(tools)


def _of_http(port: object, key: object, hosts: object) -> list[tuple[str, object]]:
    return [("--port", port is not None), ("--api-key-file", key is not None), ("--allow-host", hosts)]


def _listen(toolbox: "Toolbox", port: int, key: str | None, hosts: tuple[str, ...]) -> None:
    from sbert_mini.agents.protocol import PATH, HttpTools
    from sbert_mini.serve.running import bound, run
    from sbert_mini.serve.settings import Settings

    with bound("127.0.0.1", port) as listening:
        toolbox.wait()
        server = HttpTools(toolbox, Settings(hosts=hosts, key=key))
        run(server, listening, lambda address: note(f"ready on {address}{PATH}; Ctrl-C ends it"))
