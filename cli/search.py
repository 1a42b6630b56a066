"""`sbmini search`: the rows closest to a query."""

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbert_mini.errors import UsageError
from sbert_mini.scale import address
from sbert_mini.search.fusion import DEFAULT_WEIGHT, SearchBy
from sbert_mini.text.arrivals import Arrivals

from . import asking, hits, options
from .hits import Layout, Query
from .notes import note_input, quiet_notes
from .printing import in_colours, print_json

if TYPE_CHECKING:
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.runtime.explanation import Explanation
    from sbert_mini.search.queries import Hit, Searchable
    from sbert_mini.shapes import FloatArray

EXAMPLE = """Examples:

  sbmini search notes.index "how do I keep bread fresh"

  sbmini search notes.index "tax law" -k 3 --min-score 0.4 --json

  sbmini search notes.index

  sbmini search notes.index "bread" --full --columns author,year --color always | less -R

  sbmini search notes.index --jsonl < queries.txt

  sbmini search news.index "interest rates" --filter "year >= 2020 and lang = 'en'"

  sbmini search manuals.index "error E-1042" --by words

  sbmini search news.index -i questions.csv --id-column number --text-column question --jsonl

  sbmini search manuals.index "reset the printer" --passages

  sbmini search notes.index --like notes/bread.md

  sbmini search milvus://search.example.org/news "interest rates"

  sbmini --raw search notes.index "tax law" > hits.tsv
"""


_MOST_TOGETHER = 2048
"""Queries of a pipe that are answered together."""
_PATIENCE_S = 0.2
"""How long the end of a pipe is waited for after its first query, which is printed beside its hits unless it is the only one."""
Index = Annotated[
    str,
    typer.Argument(metavar="INDEX", help=f"The index directory, or {address.FORM}.", show_default=False),
]
QueryWords = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[QUERY]",
        help="The query. By default a terminal asks for one after the other, and a pipe has one a line.",
        show_default=False,
    ),
]
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
ShownColumns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="NAMES",
        help="Show these columns of a row, too, separated by commas; in a pipe they are further fields.",
        show_default=False,
    ),
]
Full = Annotated[
    bool, typer.Option("--full", help="On a terminal: show all of the text, in place of its closest sentences.")
]
Explain = Annotated[
    bool,
    typer.Option(
        "--explain", help="Show the pairs of words with the greatest shares of a hit's cosine (see 'sbmini explain')."
    ),
]
FailIfEmpty = Annotated[bool, typer.Option("--fail-if-empty", help="Exit with code 1 if no query has a hit.")]


def search(
    context: typer.Context,
    directory: Index,
    words: QueryWords = None,
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
    full: Full = False,
    columns: ShownColumns = None,
    color: options.ColorOption = "auto",
    explain: Explain = False,
    fail_if_empty: FailIfEmpty = False,
    model: options.Model = None,
    threads: options.Threads = None,
    offline: options.Offline = False,
    trust_tokenizer: options.TrustTokenizer = False,
    quiet: options.Quiet = False,
) -> None:
    """Search an index for the rows closest to a query in meaning or in words, closest first.

    On a terminal a hit is its rank, its score, where it stands (path:line of its closest sentence, else its id) and its headings.
    Below are the sentences that are closest to the query, the closest one marked. Without a query a terminal asks for one after
    the other: Ctrl-C cancels a line, an empty line or Ctrl-D ends. In a pipe a hit is a line of score, id and text, tab separated
    (a tab, newline or backslash of the text is written as \\t, \\n, \\r or \\\\), and queries are answered as they arrive. Other
    control characters, and those that reorder a line, are written as \\x1b or \\u202e; 'sbmini --raw search' prints them as they
    are. With several queries, or one of a pipe that stays open, a line begins with its query, after its id if there are ids. The
    index's own model is used; --model names a copy of it in another place, and any other model is refused.

    --filter takes an SQL condition: comparisons, in, between, like, ilike, is null, and, or, not, arithmetic, cast and
    common functions. 'sbmini index info' lists the columns with their types; a column that a row does not have is NULL. The
    search finds the -k nearest of the rows that meet the condition.

    The score is what ranks the hits: weight * cosine + (1 - weight) * BM25 / (the greatest BM25 score possible + 30), over the
    first 100 rows by meaning and by words. With --by meaning it is the cosine, with --by words the BM25 score. --json and --jsonl
    give for each hit the cosine, the BM25 score ("bm25") and its two ranks ("rank_by_meaning", "rank_by_words"), or null.
    With --explain a hit has the five pairs of words with the greatest shares of its cosine, in JSON under "explanation".

    A long row that is stored in passages has the cosine of its closest passage. --passages shows that passage; JSON then has
    "passage" in place of "text". "start" and "end" count the characters of the text.
    """
    ranked_by = _ranked_by(by, hybrid, weight)
    shown = {"with_text": with_text, "passages": passages, "full": full, "explain": explain}
    layout = _layout(as_json, as_json_lines, columns, color, by_words=ranked_by == "words", **shown)
    reading = options.reading(input_format, text_column, text_separator, id_column, max_row_bytes, delimiter)
    options.check_trust(trust_tokenizer, model)
    if directory.startswith(address.SCHEME) and "filter_timeout" in options.given(context):
        raise UsageError("--filter-timeout is not for Milvus: its server evaluates the filter, and takes no time limit")
    quiet_notes(quiet)
    opened = partial(_Session, directory, model, threads, offline, trust_tokenizer, filter_timeout, layout)
    asked: dict[str, Any] = {"k": k, "exact": exact, "min_score": min_score, "filter": filter}
    ranking: dict[str, Any] = {"by": ranked_by, "weight": weight}
    if like is not None:
        _check_exclusive({"--explain": explain, "--like": True})
        if words or input or (ranked_by or "meaning") != "meaning":
            raise UsageError("--like takes the place of the query, by meaning: give no query, --input or --by with it")
        found = opened().print_similar(like, **asked)
    elif not words and not input and asking.is_possible():
        options.check_no_input_options(reading)
        found = opened().ask(**asked, **ranking)
    else:
        found = _answer_all(_groups(_query(directory, words), input, reading), opened, {**asked, **ranking})
    if fail_if_empty and not found:
        raise typer.Exit(1)


@dataclass
class _Arriving:
    """Queries of an input, in groups: those that are there together.

    Attributes:
        groups: the queries.
        arrivals: tells whether the input goes on.
    """

    groups: Iterator[list[Query]]
    arrivals: Arrivals


class _Session:
    """An opened index, which answers queries.

    Args:
        directory: of the index, or its address.
        model: of --model.
        threads, offline, trust_tokenizer: of the model.
        filter_timeout_s: see --filter-timeout.
        layout: how hits are printed.
    """

    def __init__(
        self,
        directory: str,
        model: str | None,
        threads: int | None,
        offline: bool,
        trust_tokenizer: bool,
        filter_timeout_s: float,
        layout: Layout,
    ) -> None:
        self._directory, self._layout = directory, layout
        self._index = _opened(directory, threads, offline, filter_timeout_s)
        self._embedder = None if model is None else _embedder(model, self._index, threads, offline, trust_tokenizer)
        _check_columns(layout.columns, self._index)
        self._answers: list[dict[str, object]] = []

    @property
    def names_queries(self) -> bool:
        """Whether several queries are printed beside their hits, and a single one is not."""
        return self._layout.format in ("fields", "readable")

    def search(self, queries: list[Query], k: int, **asked: Any) -> "list[list[Hit]]":
        """Return the hits of each query."""
        return self._index.search([text for _, text in queries], k, embedder=self._embedder, **asked)

    def print(
        self,
        queries: list[Query],
        results: "list[list[Hit]]",
        *,
        several: bool,
        vector: "FloatArray | None" = None,
    ) -> bool:
        """Print the hits, or keep them for one JSON document, and return whether there are any."""
        layout = self._layout
        explained = self._explained if layout.explain else None
        if layout.format == "json":
            self._answers += hits.answers(queries, results, layout, explained)
        elif layout.format == "jsonl":
            hits.print_answers(queries, results, layout, explained)
        elif layout.format == "fields":
            hits.print_fields(queries, results, layout, several=several)
        else:
            embedder = (self._embedder or self._index.embedder()) if layout.with_text else None
            shown: dict[str, Any] = {"several": several, "embedder": embedder, "vector": vector, "explained": explained}
            hits.print_readably(queries, results, layout, **shown)
        sys.stdout.flush()
        return any(results)

    def _explained(self, query: str, found: "list[Hit]") -> "list[Explanation]":
        from sbert_mini.search.explaining import explain_hits

        return explain_hits(query, found, self._embedder or self._index.embedder(), self._index.model.prompt)

    def print_document(self) -> None:
        """Print the JSON document of all that was kept, if JSON is printed so."""
        if self._layout.format == "json":
            print_json({"index": self._directory, "model": self._index.model.name, "results": self._answers})
            self._answers = []

    def print_similar(self, identity: str, k: int, **asked: Any) -> bool:
        """Print the rows closest to a row, and return whether there are any."""
        found, vector = _similar(self._index, identity, k, **asked)
        any_found = self.print([(None, identity)], [found], several=False, vector=vector)
        self.print_document()
        return any_found

    def ask(self, **asked: Any) -> bool:
        """Print the hits of the queries that a person types, and return whether any had one."""
        if self._embedder is None:
            self._index.embedder()  # opened now, so that a query is answered at once
        found = []

        def answer(query: str) -> None:
            queries: list[Query] = [(None, query)]
            found.append(self.print(queries, self.search(queries, **asked), several=False))
            self.print_document()

        asking.ask(answer)
        return any(found)


def _answer_all(arriving: _Arriving, opened: Callable[[], _Session], asked: dict[str, Any]) -> bool:
    """Print the hits of all queries, and return whether any had one."""
    first = next(arriving.groups)  # before anything is opened, which takes time
    session, found, several = opened(), False, len(first) > 1
    for group in itertools.chain([first], arriving.groups):
        results = session.search(group, **asked)
        several = several or (session.names_queries and not arriving.arrivals.is_over(_PATIENCE_S))
        found = session.print(group, results, several=several) or found
    session.print_document()
    return found


def _similar(index: "Searchable", identity: str, k: int, **asked: Any) -> "tuple[list[Hit], FloatArray]":
    """Return the rows closest to a row of the index, without itself, and its vector.

    Raises:
        UsageError: the index is in Milvus.
        InputError: there is no row with this id.
    """
    from sbert_mini.search.index import SearchIndex
    from sbert_mini.search.similar import similar_rows

    if not isinstance(index, SearchIndex):
        raise UsageError("--like is not for Milvus: give the row's text as the query")
    return similar_rows(index, identity, k, **asked)


def _layout(
    as_json: bool,
    as_json_lines: bool,
    columns: str | None,
    color: options.Color,
    *,
    with_text: bool,
    passages: bool,
    full: bool,
    by_words: bool,
    explain: bool,
) -> Layout:
    """Return how hits are printed.

    Raises:
        UsageError: options contradict each other, or a column's name is empty.
    """
    _check_exclusive({"--passages": passages, "--without-text": not with_text})
    _check_exclusive({"--json": as_json, "--jsonl": as_json_lines})
    _check_exclusive({"--full": full, "--without-text": not with_text})
    _check_exclusive({"--columns": columns is not None, "--without-text": not with_text})
    if columns is not None and (as_json or as_json_lines):
        raise UsageError("--columns is for a terminal and for lines of fields: JSON has all columns")
    names = options.names_in("--columns", columns) or ()
    on_terminal = sys.stdout.isatty()
    coloured = color == "always" or (color == "auto" and in_colours())
    format = "readable" if on_terminal or color == "always" else "fields"
    format = "json" if as_json else "jsonl" if as_json_lines else format
    if explain and format == "fields":
        raise UsageError("--explain is for a terminal and for JSON: add --json, --jsonl or --color always")
    return Layout(format, with_text, passages, full, names, coloured, by_words, explain)


def _check_columns(names: tuple[str, ...], index: "Searchable") -> None:
    """Refuse columns that an index does not have.

    Raises:
        UsageError: there is one.
    """
    for name in names:
        if name not in index.columns:
            raise UsageError(f"the index has no column {name!r}; it has: {', '.join(index.columns) or 'none'}")


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


def _query(directory: str, words: list[str] | None) -> str | None:
    """Return the query that is an argument; None for none.

    Raises:
        UsageError: there are several arguments.
    """
    if words and len(words) > 1:
        whole = " ".join(words).replace('"', '\\"')
        raise UsageError(f'the query has {len(words)} parts: quote it: sbmini search {directory} "{whole}"')
    return words[0] if words else None


def _groups(query: str | None, input: list[Path] | None, reading: dict[str, Any]) -> _Arriving:
    """Return the queries of an argument, of files, or of stdin where neither is given.

    Raises:
        UsageError: there is no query, one is empty, or they are given in two ways.
    """
    arrivals = Arrivals()
    if query is None:
        if not input and (sys.stdin is None or sys.stdin.isatty()):
            raise UsageError("no query was given: name one, or --input FILE, or pipe queries in, one a line")
        return _Arriving(_read_groups(input or [Path("-")], arrivals, reading), arrivals)
    if input:
        raise UsageError("queries were given both as an argument and with --input; give one of the two")
    options.check_no_input_options(reading)
    if not query.strip():
        raise UsageError("the query is empty")
    return _Arriving(iter([[(None, query)]]), arrivals)


def _read_groups(input: list[Path], arrivals: Arrivals, reading: dict[str, Any]) -> Iterator[list[Query]]:
    """Yield the queries of files all together, and those of a pipe as they arrive.

    Raises:
        UsageError: there is no query.
    """
    from sbert_mini.text.records import ReadCounts, read_records

    read = ReadCounts()
    records = read_records(input, counts=read, arrivals=arrivals, **reading)
    group: list[Query] = []
    for record in records:
        group.append((record.id, record.text))
        if arrivals.waits() or (arrivals.is_pipe and len(group) == _MOST_TOGETHER):
            yield group
            group = []
    if group:
        yield group
    elif not read.records:
        raise UsageError("no query was given: the input held no text")
    note_input(read, "not searched")
