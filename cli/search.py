"""`sbmini search`: the rows closest to a query."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbert_mini.errors import UsageError
from sbert_mini.scale import address
from sbert_mini.text.shown import columns, fitted

from . import options
from .notes import quiet_notes
from .printing import print_json, print_text, visible

if TYPE_CHECKING:
    from sbert_mini.search.queries import Hit, Searchable

EXAMPLE = """Examples:

  sbmini search notes.index "how do I keep bread fresh"

  sbmini search notes.index "tax law" -k 3 --min-score 0.4 --json

  sbmini search notes.index --jsonl < queries.txt

  sbmini search news.index "interest rates" --filter "year >= 2020 and lang = 'en'"

  sbmini search manuals.index "error E-1042" --hybrid

  sbmini search manuals.index "reset the printer" --passages

  sbmini search milvus://search.example.org/news "interest rates"

  sbmini --raw search notes.index "tax law" > hits.tsv
"""


Index = Annotated[
    str,
    typer.Argument(metavar="INDEX", help=f"The index directory, or {address.FORM}.", show_default=False),
]
Query = Annotated[str | None, typer.Argument(help="The query; by default stdin, one a line.", show_default=False)]
MinScore = Annotated[
    float | None,
    typer.Option("--min-score", help="Leave out hits with a lower cosine, in [-1, 1].", show_default=False),
]
Input = Annotated[
    list[Path] | None,
    typer.Option(
        "--input",
        "-i",
        help="A file of queries: txt, csv, tsv, jsonl or parquet; - for stdin. Several are read in order as one.",
        show_default=False,
    ),
]


def search(
    directory: Index,
    query: Query = None,
    k: Annotated[int, typer.Option("-k", "--top-k", min=1, help="The highest number of hits per query.")] = 10,
    min_score: MinScore = None,
    filter: options.Filter = None,
    filter_timeout: options.FilterTimeout = 60.0,
    hybrid: Annotated[
        bool, typer.Option("--hybrid", help="Rank by meaning and by words (BM25).", show_default=False)
    ] = False,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare with every row, for any kind of index.", show_default=False)
    ] = False,
    input: Input = None,
    input_format: options.InputFormat = None,
    text_column: options.TextColumns = None,
    text_separator: options.TextSeparator = None,
    max_row_bytes: options.MaxRowBytes = None,
    as_json: Annotated[
        bool, typer.Option("--json", help='One JSON document: {"results": [{"query", "hits": [...]}]}.')
    ] = False,
    as_json_lines: Annotated[
        bool, typer.Option("--jsonl", help='One JSON object per query: {"query", "hits": [...]}.')
    ] = False,
    with_text: Annotated[
        bool, typer.Option("--with-text/--without-text", help="Whether hits show their text and columns.")
    ] = True,
    passages: Annotated[
        bool,
        typer.Option(
            "--passages", help="Show the passage of a row that is closest to the query, in place of its text."
        ),
    ] = False,
    fail_if_empty: Annotated[
        bool, typer.Option("--fail-if-empty", help="Exit with code 1 if no query has a hit.")
    ] = False,
    model: options.Model = None,
    threads: options.Threads = None,
    offline: options.Offline = False,
    trust_tokenizer: options.TrustTokenizer = False,
    quiet: options.Quiet = False,
) -> None:
    """Search an index for the rows closest in meaning to a query, closest first.

    On a terminal the hits are a table; in a pipe, lines of score, id and text, tab separated (a tab, newline or backslash
    of the text is written as \\t, \\n, \\r or \\\\). Other control characters, and those that reorder a line, are written as
    \\x1b or \\u202e; 'sbmini --raw search' prints them as they are. The score is the cosine similarity. The index's own model
    is used; --model names a copy of it in another place, and any other model is refused.

    --filter takes an SQL condition: comparisons, in, between, like, ilike, is null, and, or, not, arithmetic, cast and
    common functions. 'sbmini index info' lists the columns with their types; a column that a row does not have is NULL. The
    search finds the -k nearest of the rows that meet the condition. With --hybrid the score is the sum of two reciprocal
    ranks, 1 / (60 + rank): of the search by meaning and of BM25.

    A long row that is stored in passages has the score of its closest passage. --passages shows that passage; JSON then has
    "passage" in place of "text". "start" and "end" count the characters of the text.
    """
    if passages and not with_text:
        raise UsageError("--passages and --without-text exclude each other")
    if query is not None and input:
        raise UsageError("queries were given both as an argument and with --input; give one of the two")
    if as_json and as_json_lines:
        raise UsageError("--json and --jsonl exclude each other")
    if hybrid and min_score is not None:
        raise UsageError("--min-score is a least cosine, and the scores of --hybrid are none; give one of the two")
    reading = options.reading(input_format, text_column, text_separator, max_row_bytes=max_row_bytes)
    if query is not None:
        options.check_no_input_options(reading)
    options.check_trust(trust_tokenizer, model)
    quiet_notes(quiet)
    queries = [query] if query is not None else _queries(input, reading)
    if not all(q.strip() for q in queries):
        raise UsageError("the query is empty")

    index = _opened(directory, threads, offline, filter_timeout)
    embedder = None
    if model is not None:
        from sbert_mini.runtime.embedder import Embedder

        opening: dict[str, Any] = {"threads": threads, "offline": offline, "trust_tokenizer": trust_tokenizer}
        embedder = Embedder(model, graph=index.model.graph, **opening)  # type: ignore[arg-type]
    results = index.search(
        queries, k, min_score=min_score, filter=filter, hybrid=hybrid, exact=exact, embedder=embedder
    )
    if as_json or as_json_lines:
        answers = _answers(queries, results, with_text, passages)
        whole = [{"index": directory, "model": index.model.name, "results": answers}]
        for line in whole if as_json else answers:
            print_json(line)
    else:
        for text, hits in zip(queries, results, strict=True):
            _print(text if len(queries) > 1 else None, hits, with_text, passages)
    if fail_if_empty and not any(results):
        raise typer.Exit(1)


def _opened(directory: str, threads: int | None, offline: bool, filter_timeout_s: float) -> "Searchable":
    if directory.startswith(address.SCHEME):
        from sbert_mini.scale.milvus import MilvusIndex

        return MilvusIndex(directory, threads=threads, offline=offline)
    from sbert_mini.search.index import SearchIndex

    return SearchIndex(directory, threads=threads, offline=offline, filter_timeout_s=filter_timeout_s)


def _queries(input: list[Path] | None, reading: dict[str, Any]) -> list[str]:
    if not input:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("no query was given: name one, or --input FILE, or pipe queries in, one a line")
        input = [Path("-")]
    from sbert_mini.text.records import read_records

    queries = [record.text for record in read_records(input, **reading)]
    if not queries:
        raise UsageError("no query was given: the input held no text")
    return queries


def _answers(
    queries: list[str], results: "list[list[Hit]]", with_text: bool, passages: bool
) -> list[dict[str, object]]:
    """Return a JSON object a query."""
    return [
        {"query": query, "hits": [_shown(rank, hit, with_text, passages) for rank, hit in enumerate(hits, start=1)]}
        for query, hits in zip(queries, results, strict=True)
    ]


def _shown(rank: int, hit: "Hit", with_text: bool, passages: bool) -> dict[str, object]:
    if not with_text:
        return {"rank": rank, "id": hit.id, "score": hit.score}
    fields = {"passage" if key == "text" and passages else key: value for key, value in vars(hit).items()}
    return {"rank": rank, **fields, **({"passage": hit.passage} if passages else {})}


def _print(query: str | None, hits: "list[Hit]", with_text: bool, passages: bool) -> None:
    texts = [hit.passage if passages else hit.text for hit in hits]
    if not sys.stdout.isatty():
        for hit, text in zip(hits, texts, strict=True):
            fields = [f"{hit.score:.4f}", _escape(hit.id)] + ([_escape(text)] if with_text else [])
            print_text("\t".join([_escape(query), *fields] if query is not None else fields))
        return
    if query is not None:
        print_text(f"\n{query}")
    if not hits:
        print_text("no hits")
        return
    width = shutil.get_terminal_size().columns
    widest = min(max(columns(visible(hit.id)) for hit in hits), 28)
    for hit, text in zip(hits, texts, strict=True):
        identity = fitted(visible(hit.id), widest)
        start = f"{hit.score:7.4f}  {identity}{' ' * (widest - columns(identity))}"
        room = max(width - columns(start) - 2, 20)
        print_text(start + ("  " + fitted(visible(" ".join(text.split())), room) if with_text else ""))


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
