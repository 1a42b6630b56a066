"""`sbmini search`: the rows closest to a query."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbert_mini.errors import InputError, UsageError
from sbert_mini.scale import address
from sbert_mini.search.fusion import DEFAULT_WEIGHT, SearchBy
from sbert_mini.text.shown import columns, fitted

from . import options
from .notes import note_input, quiet_notes
from .printing import print_json, print_text, visible

if TYPE_CHECKING:
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.search.queries import Hit, Searchable

EXAMPLE = """Examples:

  sbmini search notes.index "how do I keep bread fresh"

  sbmini search notes.index "tax law" -k 3 --min-score 0.4 --json

  sbmini search notes.index --jsonl < queries.txt

  sbmini search news.index "interest rates" --filter "year >= 2020 and lang = 'en'"

  sbmini search manuals.index "error E-1042" --by words

  sbmini search news.index -i questions.csv --id-column number --text-column question --jsonl

  sbmini search manuals.index "reset the printer" --passages

  sbmini search notes.index --like notes/bread.md

  sbmini search milvus://search.example.org/news "interest rates"

  sbmini --raw search notes.index "tax law" > hits.tsv
"""


Index = Annotated[
    str,
    typer.Argument(metavar="INDEX", help=f"The index directory, or {address.FORM}.", show_default=False),
]
Query = Annotated[str | None, typer.Argument(help="The query; by default stdin, one a line.", show_default=False)]
Like = Annotated[
    str | None,
    typer.Option("--like", metavar="ID", help="In place of a query: the rows closest to this one.", show_default=False),
]
MinScore = Annotated[
    float | None,
    typer.Option("--min-score", help="Leave out hits with a lower cosine, in [-1, 1].", show_default=False),
]
Input = Annotated[
    list[Path] | None,
    typer.Option(
        "--input",
        "-i",
        callback=options.matching_files,
        help="A file of queries: txt, csv, tsv, jsonl, json or parquet, or a pattern; - for stdin. "
        "Several are read in order as one.",
        show_default=False,
    ),
]


TopK = Annotated[int, typer.Option("-k", "--top-k", min=1, help="The highest number of hits per query.")]
By = Annotated[
    SearchBy | None,
    typer.Option(
        "--by",
        help="Rank by meaning (cosine), by words (BM25), or by both. [default: both; in Milvus meaning]",
        show_default=False,
    ),
]
Hybrid = Annotated[bool, typer.Option("--hybrid", help="The same as --by both.", show_default=False)]
Weight = Annotated[
    float | None,
    typer.Option(
        "--weight",
        min=0,
        max=1,
        help=f"In a search by both: the share of meaning in the score. [default: {DEFAULT_WEIGHT}]",
        show_default=False,
    ),
]
Exact = Annotated[
    bool, typer.Option("--exact", help="Compare with every row, for any kind of index.", show_default=False)
]
AsJson = Annotated[
    bool, typer.Option("--json", help='One JSON document: {"results": [{"query_id", "query", "hits": [...]}]}.')
]
AsJsonLines = Annotated[
    bool, typer.Option("--jsonl", help='One JSON object per query: {"query_id", "query", "hits": [...]}.')
]
WithText = Annotated[bool, typer.Option("--with-text/--without-text", help="Whether hits show their text and columns.")]
ShowPassages = Annotated[
    bool,
    typer.Option("--passages", help="Show the passage of a row that is closest to the query, in place of its text."),
]
FailIfEmpty = Annotated[bool, typer.Option("--fail-if-empty", help="Exit with code 1 if no query has a hit.")]


def search(
    context: typer.Context,
    directory: Index,
    query: Query = None,
    like: Like = None,
    k: TopK = 10,
    min_score: MinScore = None,
    filter: options.Filter = None,
    filter_timeout: options.FilterTimeout = 60.0,
    by: By = None,
    hybrid: Hybrid = False,
    weight: Weight = None,
    exact: Exact = False,
    input: Input = None,
    input_format: options.InputFormat = None,
    text_column: options.TextColumns = None,
    text_separator: options.TextSeparator = None,
    id_column: options.IdColumn = None,
    delimiter: options.Delimiter = None,
    max_row_bytes: options.MaxRowBytes = None,
    as_json: AsJson = False,
    as_json_lines: AsJsonLines = False,
    with_text: WithText = True,
    passages: ShowPassages = False,
    fail_if_empty: FailIfEmpty = False,
    model: options.Model = None,
    threads: options.Threads = None,
    offline: options.Offline = False,
    trust_tokenizer: options.TrustTokenizer = False,
    quiet: options.Quiet = False,
) -> None:
    """Search an index for the rows closest to a query in meaning or in words, closest first.

    On a terminal the hits are a table; in a pipe, lines of score, id and text, tab separated (a tab, newline or backslash
    of the text is written as \\t, \\n, \\r or \\\\). Other control characters, and those that reorder a line, are written as
    \\x1b or \\u202e; 'sbmini --raw search' prints them as they are. With several queries a line begins with its query. If the
    queries of --input have ids, it begins with the query's id and the query. The index's own model is used; --model names a copy
    of it in another place, and any other model is refused.

    --filter takes an SQL condition: comparisons, in, between, like, ilike, is null, and, or, not, arithmetic, cast and
    common functions. 'sbmini index info' lists the columns with their types; a column that a row does not have is NULL. The
    search finds the -k nearest of the rows that meet the condition.

    The score is what ranks the hits: weight * cosine + (1 - weight) * BM25 / (the greatest BM25 score possible + 30), over the
    first 100 rows by meaning and by words. With --by meaning it is the cosine, with --by words the BM25 score. --json and --jsonl
    give for each hit the cosine, the BM25 score ("bm25") and its two ranks ("rank_by_meaning", "rank_by_words"), or null.

    A long row that is stored in passages has the cosine of its closest passage. --passages shows that passage; JSON then has
    "passage" in place of "text". "start" and "end" count the characters of the text.
    """
    _check_exclusive({"--passages": passages, "--without-text": not with_text})
    _check_exclusive({"--json": as_json, "--jsonl": as_json_lines})
    ranked_by = _ranked_by(by, hybrid, weight)
    reading = options.reading(input_format, text_column, text_separator, id_column, max_row_bytes, delimiter)
    options.check_trust(trust_tokenizer, model)
    if directory.startswith(address.SCHEME) and "filter_timeout" in options.given(context):
        raise UsageError("--filter-timeout is not for Milvus: its server evaluates the filter, and takes no time limit")
    quiet_notes(quiet)
    if like is not None and (query is not None or input or (ranked_by or "meaning") != "meaning"):
        raise UsageError(
            "--like takes the place of the query, and compares by meaning: give no query, --input or --by with it"
        )
    queries: list[tuple[str | None, str]] = [(None, like)] if like is not None else _queries(query, input, reading)
    index = _opened(directory, threads, offline, filter_timeout)
    embedder = None if model is None else _embedder(model, index, threads, offline, trust_tokenizer)
    asked: dict[str, Any] = {"min_score": min_score, "filter": filter, "by": ranked_by, "weight": weight}
    if like is None:
        results = index.search([text for _, text in queries], k, embedder=embedder, exact=exact, **asked)
    else:
        results = [_similar(index, like, k, exact=exact, min_score=min_score, filter=filter)]
    if as_json or as_json_lines:
        answers = _answers(queries, results, with_text, passages)
        whole = [{"index": directory, "model": index.model.name, "results": answers}]
        for line in whole if as_json else answers:
            print_json(line)
    else:
        _print_all(queries, results, with_text, passages)
    if fail_if_empty and not any(results):
        raise typer.Exit(1)


def _similar(index: "Searchable", identity: str, k: int, **asked: Any) -> "list[Hit]":
    """Return the rows closest to a row of the index, without itself.

    Raises:
        UsageError: the index is in Milvus.
        InputError: there is no row with this id.
    """
    from sbert_mini.search.index import SearchIndex

    if not isinstance(index, SearchIndex):
        raise UsageError("--like is not for Milvus: give the row's text as the query")
    vector = index.vector(identity)
    if vector is None:
        raise InputError(f"the id {identity!r} is not in the index {index.path}")
    (hits,) = index.search(vector[None], k + 1, **asked)
    return [hit for hit in hits if hit.id != identity][:k]


def _check_exclusive(flags: dict[str, bool]) -> None:
    """Refuse two flags of which one excludes the other.

    Raises:
        UsageError: all of them are given.
    """
    if all(flags.values()):
        raise UsageError(f"{' and '.join(flags)} exclude each other")


def _ranked_by(by: SearchBy | None, hybrid: bool, weight: float | None) -> SearchBy | None:
    """Return what ranks the rows; None for the default.

    Raises:
        UsageError: options contradict each other.
    """
    if hybrid and by not in (None, "both"):
        raise UsageError(f"--hybrid is --by both, and --by {by} was given too; give one of the two")
    ranked_by: SearchBy | None = "both" if hybrid else by
    if weight is not None and ranked_by not in (None, "both"):
        raise UsageError(f"--weight is the share of meaning in a search by both, and --by {by} was given too")
    return ranked_by


def _opened(directory: str, threads: int | None, offline: bool, filter_timeout_s: float) -> "Searchable":
    if directory.startswith(address.SCHEME):
        from sbert_mini.scale.milvus import MilvusIndex

        return MilvusIndex(directory, threads=threads, offline=offline)
    from sbert_mini.search.index import SearchIndex

    return SearchIndex(directory, threads=threads, offline=offline, filter_timeout_s=filter_timeout_s)


def _embedder(model: str, index: "Searchable", threads: int | None, offline: bool, trust_tokenizer: bool) -> "Embedder":
    """Return the model of --model, opened with the graph that the index was made with."""
    from sbert_mini.runtime.embedder import Embedder

    opening: dict[str, Any] = {"threads": threads, "offline": offline, "trust_tokenizer": trust_tokenizer}
    return Embedder(model, graph=index.model.graph, **opening)  # type: ignore[arg-type]


def _queries(query: str | None, input: list[Path] | None, reading: dict[str, Any]) -> list[tuple[str | None, str]]:
    """Return the queries' ids, None where there is none, and texts.

    Raises:
        UsageError: there is no query, one is empty, or they are given in two ways.
    """
    if query is not None:
        if input:
            raise UsageError("queries were given both as an argument and with --input; give one of the two")
        options.check_no_input_options(reading)
    queries: list[tuple[str | None, str]] = [(None, query)] if query is not None else _read_queries(input, reading)
    if not all(text.strip() for _, text in queries):
        raise UsageError("the query is empty")
    return queries


def _read_queries(input: list[Path] | None, reading: dict[str, Any]) -> list[tuple[str | None, str]]:
    """Return the ids, None where there is none, and texts of the queries in files, or on stdin where none is named."""
    if not input:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("no query was given: name one, or --input FILE, or pipe queries in, one a line")
        input = [Path("-")]
    from sbert_mini.text.records import ReadCounts, read_records

    read = ReadCounts()
    queries = [(record.id, record.text) for record in read_records(input, counts=read, **reading)]
    if not queries:
        raise UsageError("no query was given: the input held no text")
    note_input(read, "not searched")
    return queries


def _answers(
    queries: list[tuple[str | None, str]], results: "list[list[Hit]]", with_text: bool, passages: bool
) -> list[dict[str, object]]:
    """Return a JSON object a query, with the query's id where queries have ids."""
    with_ids = any(identity is not None for identity, _ in queries)
    return [
        {
            **({"query_id": identity} if with_ids else {}),
            "query": text,
            "hits": [_shown(rank, hit, with_text, passages) for rank, hit in enumerate(hits, start=1)],
        }
        for (identity, text), hits in zip(queries, results, strict=True)
    ]


def _shown(rank: int, hit: "Hit", with_text: bool, passages: bool) -> dict[str, object]:
    """Return a hit's fields; with `passages` its passage has the place of its text."""
    without = set() if with_text else {"text", "columns", "start", "end"}
    fields = {name: value for name, value in vars(hit).items() if name not in without}
    if passages:
        fields = {"passage" if name == "text" else name: value for name, value in fields.items()}
        fields["passage"] = hit.passage
    if with_text and "file_path" in hit.columns:
        from sbert_mini.documents.places import place_of

        if (place := place_of(hit)) is not None:
            fields["place"] = vars(place)
    return {"rank": rank, **fields}


def _print_all(
    queries: list[tuple[str | None, str]], results: "list[list[Hit]]", with_text: bool, passages: bool
) -> None:
    """Print the hits of every query: in a pipe as lines of fields, on a terminal as tables."""
    with_ids = any(identity is not None for identity, _ in queries)
    for (identity, query), hits in zip(queries, results, strict=True):
        named = ([identity or ""] if with_ids else []) + ([query] if with_ids or len(queries) > 1 else [])
        texts = [hit.passage if passages else hit.text for hit in hits] if with_text else None
        if sys.stdout.isatty():
            if named:
                print_text("\n" + "  ".join(named).strip())
            _print_table(hits, texts)
        else:
            for i, hit in enumerate(hits):
                fields = [f"{hit.score:.4f}", _escape(hit.id)] + ([_escape(texts[i])] if texts is not None else [])
                print_text("\t".join([*map(_escape, named), *fields]))


def _print_table(hits: "list[Hit]", texts: list[str] | None) -> None:
    if not hits:
        print_text("no hits")
        return
    width = shutil.get_terminal_size().columns
    widest = min(max(columns(visible(hit.id)) for hit in hits), 28)
    for i, hit in enumerate(hits):
        identity = fitted(visible(hit.id), widest)
        start = f"{hit.score:7.4f}  {identity}{' ' * (widest - columns(identity))}"
        room = max(width - columns(start) - 2, 20)
        text = "" if texts is None else "  " + fitted(visible(" ".join(texts[i].split())), room)
        print_text(start + text)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
