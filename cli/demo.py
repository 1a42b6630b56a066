"""`sbmini demo`: an index of the texts in the package, and four questions to it."""

import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .hits import Layout, print_readably
from .printing import in_colours, print_text

if TYPE_CHECKING:
    from sbert_mini.runtime.embedder import Embedder

EXAMPLE = """Examples:

  sbmini demo

  sbmini demo demo.index && sbmini search demo.index "who keeps bees"
"""
QUESTIONS = (
    "why does dough get bigger when it rests",
    "keeping two trains apart",
    "animals that find their way in the dark",
    "is a promise binding if nobody wrote it down",
)
_HITS = 2


def demo(
    directory: Annotated[
        Path | None,
        typer.Argument(help="Where to keep the index; by default it is temporary.", show_default=False),
    ] = None,
    model: options.Model = None,
    threads: options.Threads = None,
    offline: options.Offline = False,
) -> None:
    """Index the 240 passages that the package brings, and answer four questions: to see that an installation works."""
    from sbert_mini.runtime.embedder import Embedder

    embedder = Embedder(model, threads=threads, offline=offline)
    if directory is not None:
        _show(directory, embedder)
        print_text(f'\nNow try your own: sbmini search {directory} "your question"')
        return
    with tempfile.TemporaryDirectory(prefix="sbmini-demo-") as folder:
        _show(Path(folder) / "demo.index", embedder)
    print_text("\nNow try your own texts: sbmini index create my.index -i FILE, then sbmini search my.index")


def _show(directory: Path, embedder: "Embedder") -> None:
    from sbert_mini.search.writer import IndexWriter
    from sbert_mini.text.records import read_records

    with resources.as_file(resources.files("sbert_mini.examples") / "collection.jsonl") as file:
        print_text(f"$ sbmini index create {directory} -i {file}")
        index = IndexWriter(directory, embedder).create(read_records(file))
    print_text(f"{len(index)} rows, computed by {embedder.backend}")
    layout = Layout("readable", True, False, False, (), in_colours(), False)
    for question in QUESTIONS:
        print_text(f'\n$ sbmini search {directory} "{question}" -k {_HITS}')
        hits = index.search(question, k=_HITS, embedder=embedder)
        print_readably([(None, question)], [hits], layout, several=False, embedder=embedder)
