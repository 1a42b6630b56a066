"""`sbmini bench`: quality and speed, side by side with SentenceBERT."""

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbert_mini.errors import UsageError
from sbert_mini.evaluation.choices import OWN_RUNTIMES, PEER_MODEL, Pooling

from . import options
from .notes import note, progress_wanted, quiet_notes
from .printing import print_json, print_text

if TYPE_CHECKING:
    from sbert_mini.evaluation.sts import StsResult

app = typer.Typer(
    help="Measure quality and speed, side by side with SentenceBERT.", no_args_is_help=True, rich_markup_mode=None
)


RuntimeChoice = StrEnum("RuntimeChoice", [(name, name) for name in OWN_RUNTIMES])  # type: ignore[misc]
"""What runs one of our models. An enum, because typer takes no list of `Literal`s."""
Data = Annotated[
    Path | None,
    typer.Option("--data", help="The folder that holds the evaluation data. [env: SBMINI_DATA]", show_default=False),
]
Peer = Annotated[
    str,
    typer.Option(
        "--peer",
        help="The model that sentence-transformers runs.",
    ),
]
NoPeer = Annotated[bool, typer.Option("--no-peer", help="Measure only our models; needs no torch.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document, the last line of stdout, and no tables.")]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        help="A folder for tables, pictures, JSON and one HTML page; several benchmarks share it.",
        show_default=False,
    ),
]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="Alternations of all contestants.")]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", "-m", help="One of our models; may be repeated. [env: SBMINI_MODEL]", show_default=False),
]
Peers = Annotated[
    list[str] | None,
    typer.Option("--peer", help="A model that sentence-transformers itself runs; may be repeated.", show_default=False),
]
Dims = Annotated[
    list[int] | None,
    typer.Option(
        "--dim",
        min=1,
        help="Also measure our models' vectors cut to this many components; may be repeated.",
        show_default=False,
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--sets",
        help="sts12 to sts16, stsb_dev, stsb_test, sickr_test, sickr, builtin; several with commas. "
        "[default: all that are there]",
        show_default=False,
    ),
]
Collections = Annotated[
    list[Path] | None,
    typer.Option(
        "--collection",
        help="A folder in BEIR's layout; may be repeated. [default: those in the data folder]",
        show_default=False,
    ),
]
Binary = Annotated[
    bool,
    typer.Option(
        "--binary", help="Count every judgment above 0 as 1: for grades that are not gains, such as Cranfield's."
    ),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        help="A FAISS factory string to measure beside exact search, such as SQ8; may be repeated.",
        show_default=False,
    ),
]


OwnIndex = Annotated[
    Path | None,
    typer.Option("--index", help="Evaluate this index on --queries and --qrels instead.", show_default=False),
]
OwnQueries = Annotated[
    Path | None,
    typer.Option("--queries", help="The queries: a table or JSON lines with ids, or TREC's tsv.", show_default=False),
]
Qrels = Annotated[
    Path | None,
    typer.Option("--qrels", help="The judgments: BEIR's or TREC's qrels, or a CSV with a header.", show_default=False),
]
RunFile = Annotated[
    Path | None,
    typer.Option(
        "--run",
        help="Write TREC runs: out.trec gives out.meaning.trec, out.words.trec and out.both.trec.",
        show_default=False,
    ),
]
Resamples = Annotated[int, typer.Option("--resamples", min=100, help="Number of bootstrap resamples.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Random seed for the bootstrap.")]


def _folder(data: Path | None) -> Path | None:
    if data is None and os.environ.get("SBMINI_DATA"):
        data = Path(os.environ["SBMINI_DATA"])
    if data is not None and not data.is_dir():
        raise UsageError(f"the data folder {data} does not exist")
    return data


def _finish(
    kind: str,
    result: dict[str, Any],
    threads: int,
    as_json: bool,
    report: Path | None,
    measured: "StsResult | None" = None,
) -> None:
    """Print the result, and write it into the report folder."""
    from sbert_mini.evaluation.measure import command_line, machine
    from sbert_mini.evaluation.tables import TABLES, machine_note

    result = {"command": command_line(), "machine": machine(threads), **result}
    if as_json:
        print_json(result, flush=True)
    else:
        for table in TABLES[kind](result):
            print_text(table.terminal() + "\n")
        print_text(machine_note(result), flush=True)
    if report is not None:
        from sbert_mini.evaluation.report import write_report

        note(f"report -> {write_report(report, kind, result, measured)}")


def _check(report: Path | None) -> None:
    """Refuse a report folder that cannot be used before anything is measured."""
    if report is not None:
        from sbert_mini.evaluation.report import check_folder

        check_folder(report)


@app.command(
    "sts",
    epilog="""Examples:

  sbmini bench sts --sets builtin

  sbmini bench sts --data data/ -m ./my-model --peer all-MiniLM-L6-v2 --report report/

  sbmini bench sts -m ./my-model --dim 256 --dim 128      # vectors cut to their beginnings

  sbmini bench sts --pairs my-pairs.csv --columns left,right,grade --json
""",
)
def sts(
    model: Models = None,
    runtime: Annotated[
        list[RuntimeChoice] | None,
        typer.Option("--runtime", help="What runs our models; may be repeated. [default: int8]", show_default=False),
    ] = None,
    peer: Peers = None,
    dim: Dims = None,
    data: Data = None,
    sets: Sets = None,
    pairs: Annotated[
        list[Path] | None,
        typer.Option("--pairs", help="A file of your own: two columns of text and one of scores.", show_default=False),
    ] = None,
    columns: Annotated[str, typer.Option("--columns", help="The columns of --pairs.")] = "sentence1,sentence2,score",
    pooling: Annotated[
        Pooling,
        typer.Option("--pooling", help="Subsets of a set: join their pairs (as MTEB does), or average them."),
    ] = "all",
    resamples: Resamples = 1000,
    seed: Seed = 0,
    as_json: AsJson = False,
    report: Report = None,
    threads: options.Threads = None,
    offline: options.Offline = False,
    trust_tokenizer: options.TrustTokenizer = False,
    quiet: options.Quiet = False,
) -> None:
    """Score models on semantic textual similarity: Spearman and Pearson, intervals, and whether models differ.

    A set is found by its name in the data folder, in several formats; without a folder it is downloaded from the Hugging
    Face hub. The mean is over the seven usual tasks if all are there. A set that a model's card names as training data is marked,
    and left out of that model's mean.

    --json prints {"models": [{"model", "runtime", "mean", "mean_of", "sets": [{"set", "n", "spearman", "pearson",
    "spearman_interval", "pearson_interval", "trained_on", ...}]}], "comparisons": [...], "absent": [...]}, correlations x 100.
    """
    quiet_notes(quiet)
    _check(report)
    from sbert_mini.evaluation.contestants import open_contestants
    from sbert_mini.evaluation.sets import choose_sets
    from sbert_mini.evaluation.sts import score
    from sbert_mini.runtime.engine import thread_count

    budget = thread_count(threads)
    set_names = [name.strip() for item in sets or [] for name in item.split(",") if name.strip()]
    names = [column.strip() for column in columns.split(",")]
    pair_sets, absent = choose_sets(_folder(data), set_names, pairs or [], names, offline=offline)
    opened = open_contestants(
        model or [_name(None)],
        [choice.value for choice in runtime or []] or ["int8"],
        peer or [],
        dim or [],
        threads=budget,
        offline=offline,
        trust_tokenizer=trust_tokenizer,
        progress=progress_wanted(quiet),
    )
    result = score(opened, pair_sets, pooling=pooling, resamples=resamples, seed=seed, absent=absent, on_progress=note)
    _finish("sts", result.to_json(), budget, as_json, report, result)


def _name(model: str | None) -> str:
    from sbert_mini.model.registry import default_name

    return model or default_name()


@app.command(
    "speed",
    epilog="""Examples:

  sbmini bench speed

  sbmini bench speed -m ./my-model --peer all-MiniLM-L6-v2 --threads 1 --report report/
""",
)
def speed(
    model: options.Model = None,
    peer: Peer = PEER_MODEL,
    no_peer: NoPeer = False,
    input: options.InputFiles = None,
    texts: Annotated[
        int, typer.Option("--texts", min=64, help="The highest number of texts to encode in a measurement.")
    ] = 1024,
    data: Data = None,
    rounds: Rounds = 5,
    as_json: AsJson = False,
    report: Report = None,
    threads: options.Threads = None,
    offline: options.Offline = False,
    trust_tokenizer: options.TrustTokenizer = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure cold start, latency, throughput, memory and size, against sentence-transformers and ONNX Runtime's own int8.

    The texts are those of --input, else Quora questions of the data folder, else the passages in the package. All contestants
    have the same thread budget, and alternate. Figures are medians; ratios are medians of the rounds' ratios.
    """
    quiet_notes(quiet)
    _check(report)
    from sbert_mini.evaluation import speed as measured
    from sbert_mini.evaluation.texts import QUESTION_COLUMN, QUESTIONS, read_texts
    from sbert_mini.runtime.engine import thread_count

    budget = thread_count(threads)
    os.environ["OMP_NUM_THREADS"] = str(budget)  # before torch is loaded
    folder = _folder(data)
    questions = None if folder is None else folder / QUESTIONS
    result = measured.measure(
        _name(model),
        read_texts(texts, input, questions, QUESTION_COLUMN),
        peer=None if no_peer else peer,
        threads=budget,
        rounds=rounds,
        offline=offline,
        trust_tokenizer=trust_tokenizer,
        on_progress=note,
    )
    _finish("speed", result.to_json(), budget, as_json, report)


@app.command(
    "search",
    epilog="""Examples:

  sbmini bench search --data data/

  sbmini bench search --collection beir/scifact --kind SQ8 --kind HNSW32 --report report/

  sbmini bench search --index news.index --queries queries.jsonl --qrels qrels.tsv

  sbmini bench search --index news.index --queries q.csv --id-column number --text-column question --qrels r.csv --run out.trec
""",
)
def search(
    context: typer.Context,
    index: OwnIndex = None,
    queries: OwnQueries = None,
    qrels: Qrels = None,
    text_column: options.TextColumns = None,
    id_column: options.IdColumn = None,
    exact: Annotated[bool, typer.Option("--exact", help="With --index: compare with every row.")] = False,
    run: RunFile = None,
    resamples: Resamples = 10_000,
    seed: Seed = 0,
    model: options.Model = None,
    graph: options.GraphOption = "int8",
    peer: Peer = PEER_MODEL,
    no_peer: NoPeer = False,
    collection: Collections = None,
    binary: Binary = False,
    kind: Kinds = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Hits per query, for recall.")] = 10,
    rows: Annotated[int, typer.Option("--rows", min=100, help="The highest number of vectors to search.")] = 20000,
    input: options.InputFiles = None,
    data: Data = None,
    rounds: Rounds = 3,
    as_json: AsJson = False,
    report: Report = None,
    threads: options.Threads = None,
    offline: options.Offline = False,
    trust_tokenizer: options.TrustTokenizer = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure kinds of index and retrieval quality; or, with --index, your own index on your own queries.

    Kinds (recall, rate, build time, bytes) are measured on the vectors of --input's texts, else of Wikipedia sentences of the
    data folder, else of the first collection; the last tenth of the texts, at most 1,000, are the queries. Retrieval (nDCG@10,
    recall@100, MRR@10) is measured on folders in BEIR's layout, by exact search, against sentence-transformers on the same texts.

    With --index: nDCG@10, recall@10, recall@100 and MRR@10 of the search by meaning, by words and by both, with 95 % intervals
    and paired significance (bootstrap over the queries). --queries is a CSV, TSV, Parquet or JSON-lines file with ids (BEIR's
    queries.jsonl too), or TREC's: id and text, tab separated, no header. --qrels has TREC's four fields, or a header that names
    query, document and grade (BEIR: query-id, corpus-id, score). A grade above 0 is relevant. Judged documents that the index
    does not have, queries without judgments and repeated judgments are counted. --json has the figures of each query.
    """
    quiet_notes(quiet)
    _check_search_options(context, own=index is not None)
    _check(report)
    if index is not None:
        if queries is None or qrels is None:
            raise UsageError("--index is evaluated on --queries and --qrels: give both")
        columns = {"text_column": text_column, "id_column": id_column}
        asked = {"binary": binary, "exact": exact, "resamples": resamples, "seed": seed}
        _evaluate_own((index, queries, qrels), columns, asked, run, (as_json, report), threads, offline=offline)
        return
    from sbert_mini.evaluation import retrieval
    from sbert_mini.evaluation.contestants import open_contestants
    from sbert_mini.runtime.engine import thread_count

    budget = thread_count(threads)
    os.environ["OMP_NUM_THREADS"] = str(budget)
    folder = _folder(data)
    folders = collection or (retrieval.find_collections(folder) if folder is not None else [])
    collections = [retrieval.read_collection(path, binary=binary) for path in folders]
    texts = retrieval.texts_to_search(rows, collections, input, folder)
    peers, bar = [] if no_peer else [peer], progress_wanted(quiet)
    opened = open_contestants(
        [_name(model)], [graph], peers, threads=budget, offline=offline, trust_tokenizer=trust_tokenizer, progress=bar
    )
    sizes: dict[str, Any] = {"k": k, "threads": budget, "rounds": rounds, "with_peer": not no_peer}
    result = retrieval.measure(opened, collections, texts, kind or [], on_progress=note, **sizes)
    _finish("search", result.to_json(), budget, as_json, report)


_OWN_OPTIONS = {"index", "queries", "qrels", "text_column", "id_column", "exact", "run", "resamples", "seed"}
_SHARED_OPTIONS = {"binary", "as_json", "report", "threads", "offline", "quiet"}


def _check_search_options(context: typer.Context, *, own: bool) -> None:
    """Refuse options of the one kind of measurement with the other.

    Raises:
        UsageError: one is given.
    """
    others = [name for name in options.given(context) if name not in _SHARED_OPTIONS and (name in _OWN_OPTIONS) != own]
    if others:
        names = ", ".join("-k" if name == "k" else f"--{name.replace('_', '-')}" for name in others)
        raise UsageError(
            f"{names}: {'not for the evaluation of an --index' if own else 'for the evaluation of an --index'}"
        )


def _evaluate_own(
    files: tuple[Path, Path, Path],
    columns: dict[str, Any],
    asked: dict[str, Any],
    run: Path | None,
    output: tuple[bool, Path | None],
    threads: int | None,
    *,
    offline: bool,
) -> None:
    """Evaluate an index on queries and judgments.

    Args:
        files: the index, the queries and the judgments.
        columns: see `judgments.read_queries`.
        asked: see `own_data.evaluate`.
        run: where TREC runs go, or None.
        output: --json and --report.
        threads: --threads.
        offline: --offline.
    """
    from sbert_mini.evaluation import own_data
    from sbert_mini.evaluation.judgments import read_judgments, read_queries
    from sbert_mini.runtime.engine import thread_count
    from sbert_mini.search.index import SearchIndex

    directory, queries, qrels = files
    budget = thread_count(threads)
    judgments, texts = read_judgments(qrels), read_queries(queries, **columns)
    index = SearchIndex(directory, threads=budget, offline=offline)
    result, runs = own_data.evaluate(index, texts, judgments, on_progress=note, **asked)
    if run is not None:
        for file in own_data.write_runs(run, runs):
            note(f"run -> {file}")
    _finish("own_data", result.to_json(), budget, *output)


@app.command(
    "pairs",
    epilog="""Examples:

  sbmini bench pairs --data data/

  sbmini bench pairs -i sentences.txt --n 1000 --n 10000 --report report/
""",
)
def pairs(
    model: options.Model = None,
    input: options.InputFiles = None,
    n: Annotated[
        list[int] | None,
        typer.Option(
            "--n", min=2, help="Sentences; may be repeated. [default: 1000, 10000, 100000]", show_default=False
        ),
    ] = None,
    sample: Annotated[
        int, typer.Option("--sample", min=8, help="Pairs on which the cross-encoder's rate is measured.")
    ] = 256,
    data: Data = None,
    rounds: Rounds = 3,
    as_json: AsJson = False,
    report: Report = None,
    threads: options.Threads = None,
    offline: options.Offline = False,
    trust_tokenizer: options.TrustTokenizer = False,
    quiet: options.Quiet = False,
) -> None:
    """Find the most similar pair among n sentences, and estimate the time of a cross-encoder for the same.

    This repeats SentenceBERT's best-known figure on this machine. Embeddings and FAISS are measured in full. The cross-encoder's
    rate is measured on a sample of pairs, and its cost extrapolated. The sentences are those of --input, else Wikipedia
    sentences of the data folder.
    """
    quiet_notes(quiet)
    _check(report)
    from sbert_mini.evaluation import pairs as measured
    from sbert_mini.evaluation.texts import SENTENCES, read_texts
    from sbert_mini.runtime.engine import thread_count

    budget = thread_count(threads)
    os.environ["OMP_NUM_THREADS"] = str(budget)
    sizes = sorted(set(n or [1000, 10_000, 100_000]))
    folder = _folder(data)
    sentences = None if folder is None else folder / SENTENCES
    if not input and (sentences is None or not sentences.is_file()):
        raise UsageError(
            f"no sentences: name a file with --input, or a folder that holds {SENTENCES} with --data or SBMINI_DATA"
        )
    result = measured.measure(
        _name(model),
        read_texts(max(sizes) + max(sizes) // 10, input, sentences),
        sizes,
        sample=sample,
        threads=budget,
        rounds=rounds,
        offline=offline,
        trust_tokenizer=trust_tokenizer,
        on_progress=note,
    )
    _finish("pairs", result.to_json(), budget, as_json, report)


@app.command(
    "audit",
    epilog="""Examples:

  sbmini bench audit -m ./my-model

  sbmini bench audit -m ./my-model -i texts.txt --report report/
""",
)
def audit(
    model: options.Model = None,
    input: options.InputFiles = None,
    as_json: AsJson = False,
    report: Report = None,
    threads: options.Threads = None,
    offline: options.Offline = False,
    trust_tokenizer: options.TrustTokenizer = False,
    quiet: options.Quiet = False,
) -> None:
    """Show what a model associates: occupations with women or men, groups with pleasant or unpleasant sentences.

    The sentences are a few templates in English. With --input, also how unevenly up to 10,000 of your texts are neighbours of
    others (hubness).
    """
    quiet_notes(quiet)
    _check(report)
    from sbert_mini.evaluation import audit as measured
    from sbert_mini.evaluation.texts import read_texts
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.runtime.engine import thread_count

    budget = thread_count(threads)
    texts = read_texts(10_000, input, None) if input else ()
    embedder = Embedder(_name(model), threads=budget, offline=offline, trust_tokenizer=trust_tokenizer)
    _finish("audit", measured.audit(embedder, texts), budget, as_json, report)
