"""`sbmini serve`: vectors and search over HTTP, and a page in the browser."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sbert_mini.errors import UsageError

from . import options
from .notes import note, quiet_notes

if TYPE_CHECKING:
    from sbert_mini.runtime.embedder import Embedder

EXAMPLE = """Examples:

  sbmini serve notes.index

  sbmini serve news=/data/news.index manuals.index --port 9000

  sbmini serve notes.index --allow-writes notes.index

  curl http://127.0.0.1:8000/search -H 'Content-Type: application/json' -d '{"query": "fresh bread", "k": 3}'

  SBMINI_API_KEY=... sbmini serve notes.index --host 0.0.0.0 --allow-host search.example.org
"""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")

Indexes = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[[NAME=]INDEX]...",
        help="Index directories to search. The name is that of the directory unless another one is given.",
        show_default=False,
    ),
]
Host = Annotated[str, typer.Option("--host", help="The address to listen on. Others than 127.0.0.1 need a key.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes any that is free.")]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file",
        help="A file that holds the key which every request must bring (Authorization: Bearer KEY). [env: SBMINI_API_KEY]",
        show_default=False,
    ),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option("--allow-host", metavar="NAME", help="A further name of this server.", show_default=False),
]
AllowWrites = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-writes", metavar="NAME", help="An index that requests may change; may be repeated.", show_default=False
    ),
]
MostTexts = Annotated[int, typer.Option("--max-texts", min=1, help="The most texts of a request for vectors.")]
MostTokens = Annotated[int, typer.Option("--max-tokens", min=1, help="The most tokens of a request for vectors.")]
MostBytes = Annotated[int, typer.Option("--max-body-bytes", min=1, help="The most bytes of a request's body.")]


def serve(
    indexes: Indexes = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key_file: KeyFile = None,
    allow_host: AllowHost = None,
    allow_writes: AllowWrites = None,
    truncation: options.Truncation = "warn",
    max_texts: MostTexts = 2048,
    max_tokens: MostTokens = 300_000,
    max_body_bytes: MostBytes = 8 << 20,
    filter_timeout: options.FilterTimeout = 10.0,
    model: options.Model = None,
    threads: options.Threads = None,
    offline: options.Offline = False,
    trust_tokenizer: options.TrustTokenizer = False,
    quiet: options.Quiet = False,
) -> None:
    """Serve vectors and search over HTTP, with a page to search in the browser at /.

    POST /v1/embeddings and GET /v1/models are those of OpenAI's API. POST /search takes the options of 'sbmini search'. GET
    /indexes lists the indexes with their columns; /indexes/NAME/rows gives rows, and with --allow-writes takes and deletes them.
    /openapi.json describes all. /health, /ready and /metrics are for operators.

    Without -m the model is that of the first index. On another address than 127.0.0.1 every request needs the key. Each request
    is a line of JSON on stderr, without texts; --quiet leaves it out. Changes of an index by other processes are seen at once.
    SIGTERM and Ctrl-C end the server after the requests that it has.
    """
    from sbert_mini.serve.settings import Limits, Settings

    quiet_notes(quiet)
    options.check_trust(trust_tokenizer, model)
    paths = named_indexes(indexes or [])
    if unknown := [name for name in allow_writes or () if name not in paths]:
        raise UsageError(f"--allow-writes names no index that is served: {unknown[0]!r}; there are: {', '.join(paths)}")
    limits = Limits(body_bytes=max_body_bytes, texts=max_texts, tokens=max_tokens, filter_seconds=filter_timeout)
    settings = Settings(host, tuple(allow_host or ()), api_key(api_key_file), truncation, limits, not quiet)
    if not settings.is_local and settings.key is None:
        raise UsageError(f"on {host} a key is needed: set SBMINI_API_KEY, or pass --api-key-file")
    from sbert_mini.serve.app import Server
    from sbert_mini.serve.embedding import EmbeddingService
    from sbert_mini.serve.running import bound, run
    from sbert_mini.serve.searching import IndexService

    with bound(host, port) as listening:
        embedder = _embedder(model, next(iter(paths.values()), None), threads, offline, trust_tokenizer)
        writable = set(allow_writes or ())
        services = {
            name: IndexService(name, path, settings, embedder, threads, offline, name in writable)
            for name, path in paths.items()
        }
        run(
            Server(EmbeddingService(embedder, settings), services, settings),
            listening,
            lambda address: note(f"ready on {address} with {embedder.model_name}; Ctrl-C ends it"),
        )


def named_indexes(indexes: list[str]) -> dict[str, Path]:
    """Return the directories of indexes by their names."""
    paths: dict[str, Path] = {}
    for given in indexes:
        name, equals, path = given.partition("=")
        if not equals or not _NAME.fullmatch(name):
            name, path = Path(given).resolve().name, given
        if not _NAME.fullmatch(name):
            raise UsageError(f"{given!r} needs a name of letters, digits, ., - and _: NAME={given}")
        if name in paths:
            raise UsageError(f"two indexes are called {name!r}: give one another name, NAME=INDEX")
        paths[name] = Path(path)
    return paths


def api_key(file: Path | None) -> str | None:
    """Return the key that requests must bring."""
    if file is None:
        return os.environ.get("SBMINI_API_KEY") or None
    try:
        key = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UsageError(f"--api-key-file: {file} cannot be read: {reason}") from error
    if not key or not key.isascii() or not key.isprintable():
        raise UsageError(f"--api-key-file: {file} must hold a key in printable ASCII")
    return key


def _embedder(
    model: str | None, index: Path | None, threads: int | None, offline: bool, trust_tokenizer: bool
) -> "Embedder":
    """Return the model of --model, or that of an index, or the default one."""
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.search.index import SearchIndex

    if model is None and index is not None:
        return SearchIndex(index, threads=threads, offline=offline).embedder()
    return Embedder(model, threads=threads, offline=offline, trust_tokenizer=trust_tokenizer)
