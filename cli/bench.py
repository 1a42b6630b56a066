"""`sbmini bench`: quality and speed, side by side with SentenceBERT."""

import json
import os
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbert_mini.errors import InputError, UsageError

from . import options
from .notes import note, progress_wanted, quiet_notes

if TYPE_CHECKING:
    from sbert_mini.evaluation.sets import PairSet
    from sbert_mini.evaluation.sts import StsResult

app = typer.Typer(
    help="Measure quality and speed, side by side with SentenceBERT.", no_args_is_help=True, rich_markup_mode=None
)


class RuntimeChoice(StrEnum):
    """What runs one of our model directories."""

    INT8 = "int8"
    FP32 = "fp32"
    TORCH = "torch"


class PoolingChoice(StrEnum):
    """How the subsets of a set become one figure."""

    ALL = "all"
    MEAN = "mean"
    WMEAN = "wmean"


Data = Annotated[
    Path | None,
    typer.Option("--data", help="The folder that holds the evaluation data. [env: SBMINI_DATA]", show_default=False),
]
PEER_MODEL = "all-MiniLM-L6-v2"
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
        print(json.dumps(result, ensure_ascii=False), flush=True)
    else:
        for table in TABLES[kind](result):
            print(table.terminal() + "\n")
        print(machine_note(result), flush=True)
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
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help="One of our models; may be repeated. [env: SBMINI_MODEL]", show_default=False
        ),
    ] = None,
    runtime: Annotated[
        list[RuntimeChoice] | None,
        typer.Option("--runtime", help="What runs our models; may be repeated. [default: int8]", show_default=False),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            "--peer", help="A model that sentence-transformers itself runs; may be repeated.", show_default=False
        ),
    ] = None,
    dim: Annotated[
        list[int] | None,
        typer.Option(
            "--dim",
            min=1,
            help="Also measure our models' vectors cut to this many components; may be repeated.",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--sets",
            help="sts12 to sts16, stsb_dev, stsb_test, sickr_test, sickr, builtin; several with commas. "
            "[default: all that are there]",
            show_default=False,
        ),
    ] = None,
    pairs: Annotated[
        list[Path] | None,
        typer.Option("--pairs", help="A file of your own: two columns of text and one of scores.", show_default=False),
    ] = None,
    columns: Annotated[str, typer.Option("--columns", help="The columns of --pairs.")] = "sentence1,sentence2,score",
    pooling: Annotated[
        PoolingChoice,
        typer.Option("--pooling", help="Subsets of a set: join their pairs (as MTEB does), or average them."),
    ] = PoolingChoice.ALL,
    resamples: Annotated[int, typer.Option("--resamples", min=100, help="Number of bootstrap resamples.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed for the bootstrap.")] = 0,
    as_json: AsJson = False,
    report: Report = None,
    threads: options.Threads = None,
    offline: options.Offline = False,
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
    from sbert_mini.evaluation import contestants
    from sbert_mini.evaluation.sts import score
    from sbert_mini.runtime.engine import thread_count

    found, absent = _sets(_folder(data), sets, pairs, columns, offline)
    budget = thread_count(threads)
    bar = progress_wanted(quiet)
    opened = []
    for name in model or [_name(None)]:
        for kind in runtime or [RuntimeChoice.INT8]:
            opened.append(contestants.open_contestant(name, kind.value, budget, offline=offline, progress=bar))
    for name in peer or []:
        opened.append(contestants.open_contestant(name, contestants.PEER, budget, offline=offline, progress=bar))
    labels = [c.label for c in opened]
    given = [n for n in model or [_name(None)] for _ in runtime or [RuntimeChoice.INT8]] + list(peer or [])
    opened = [replace(c, name=name) if labels.count(c.label) > 1 else c for c, name in zip(opened, given, strict=True)]
    ours = [c for c in opened if c.runtime != contestants.PEER]
    opened += [contestants.beginning(c, d) for c in ours for d in dim or []]
    result = score(
        opened, found, pooling=pooling.value, resamples=resamples, seed=seed, absent=absent, on_progress=note
    )
    _finish("sts", result.to_json(), budget, as_json, report, result)


def _name(model: str | None) -> str:
    from sbert_mini.model.registry import default_name

    return model or default_name()


def _sets(
    folder: Path | None, names: list[str] | None, files: list[Path] | None, columns: str, offline: bool
) -> "tuple[list[PairSet], list[str]]":
    """Return the sets that were asked for and are there, and the names of the others."""
    from sbert_mini.evaluation import sets
    from sbert_mini.model.registry import is_offline

    found = [sets.read_pairs(file, columns=[c.strip() for c in columns.split(",")]) for file in files or []]
    wanted = [name.strip() for item in names or [] for name in item.split(",") if name.strip()]
    if not wanted and not files:
        wanted = list(sets.KNOWN)
    if unknown := [name for name in wanted if name not in (*sets.KNOWN, sets.BUILTIN)]:
        raise UsageError(
            f"there is no set {unknown[0]!r}; known are {', '.join((*sets.KNOWN, sets.BUILTIN))}, and files with --pairs"
        )
    absent = []
    for name in wanted:
        if name == sets.BUILTIN:
            held: PairSet | None = sets.builtin_pairs()
        elif folder is not None:
            held = sets.find_set(folder, name)
        elif offline or is_offline():
            raise InputError(
                f"{name} is needed, no folder of data is named (--data or SBMINI_DATA), and the network is switched off. "
                f"The built-in pairs need neither: --sets {sets.BUILTIN}. Published: {sets.PUBLISHED}"
            )
        else:
            held = sets.fetch_set(name)
        if held is None:
            absent.append(name)
        else:
            found.append(held)
    if not found:
        where = folder if folder is not None else "the Hugging Face hub"
        raise InputError(
            f"none of {', '.join(absent)} is in {where}: name another folder with --data, or try --sets {sets.BUILTIN}. "
            f"Published: {sets.PUBLISHED}"
        )
    return found, absent


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
    quiet: options.Quiet = False,
) -> None:
    """Measure cold start, latency, throughput, memory and size, against sentence-transformers and ONNX Runtime's own int8.

    The texts are those of --input, else Quora questions of the data folder, else the passages in the package. All contestants
    have the same thread budget, and alternate. Figures are medians; ratios are medians of the rounds' ratios.
    """
    quiet_notes(quiet)
    _check(report)
    from sbert_mini.evaluation import speed as measured
    from sbert_mini.runtime.engine import thread_count

    budget = thread_count(threads)
    os.environ["OMP_NUM_THREADS"] = str(budget)  # before torch is loaded
    held = _texts(input, _folder(data), "quora_cs224n_dev.tsv.gz", "question1", texts)
    name = _name(model)
    result = measured.measure(
        name,
        held,
        peer=None if no_peer else peer,
        threads=budget,
        rounds=rounds,
        offline=offline,
        on_progress=note,
    )
    _finish("speed", result.to_json(), budget, as_json, report)


def _texts(input: list[Path] | None, folder: Path | None, name: str, column: str | None, count: int) -> list[str]:
    """Return at most `count` texts of a file, of a file of the data folder, or of the passages in the package."""
    import itertools

    import sbert_mini
    from sbert_mini.text.records import read_records

    if input:
        records = read_records(input)
    elif folder is not None and (folder / name).is_file():
        records = read_records(folder / name, text_column=column)
    else:
        records = read_records(Path(sbert_mini.__file__).parent / "examples" / "collection.jsonl")
        return [s for r in records for s in r.text.replace("? ", ". ").split(". ") if s][:count]
    return [record.text for record in itertools.islice(records, count)]


@app.command(
    "search",
    epilog="""Examples:

  sbmini bench search --data data/

  sbmini bench search --collection beir/scifact --kind SQ8 --kind HNSW32 --report report/
""",
)
def search(
    model: options.Model = None,
    graph: options.GraphOption = options.Graph.INT8,
    peer: Peer = PEER_MODEL,
    no_peer: NoPeer = False,
    collection: Annotated[
        list[Path] | None,
        typer.Option(
            "--collection",
            help="A folder in BEIR's layout; may be repeated. [default: those in the data folder]",
            show_default=False,
        ),
    ] = None,
    binary: Annotated[
        bool,
        typer.Option(
            "--binary", help="Count every judgment above 0 as 1: for grades that are not gains, such as Cranfield's."
        ),
    ] = False,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            help="A FAISS factory string to measure beside exact search, such as SQ8; may be repeated.",
            show_default=False,
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Hits per query, for recall.")] = 10,
    rows: Annotated[int, typer.Option("--rows", min=100, help="The highest number of vectors to search.")] = 20000,
    input: options.InputFiles = None,
    data: Data = None,
    rounds: Rounds = 3,
    as_json: AsJson = False,
    report: Report = None,
    threads: options.Threads = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure kinds of index (recall, rate, build time, bytes) and retrieval quality (nDCG@10, recall@100, MRR@10).

    Kinds are measured on the vectors of --input's texts, else of Wikipedia sentences of the data folder, else of the first
    collection; the last tenth of the texts, at most 1,000, are the queries. Retrieval is measured on folders in BEIR's layout,
    by exact search, against sentence-transformers on the same texts.
    """
    quiet_notes(quiet)
    _check(report)
    from sbert_mini.evaluation import contestants, retrieval
    from sbert_mini.runtime.engine import thread_count
    from sbert_mini.search.kinds import EXACT

    budget = thread_count(threads)
    os.environ["OMP_NUM_THREADS"] = str(budget)
    folder, name, bar = _folder(data), _name(model), progress_wanted(quiet)
    folders = collection or (retrieval.find_collections(folder) if folder is not None else [])
    collections = [retrieval.read_collection(place, binary=binary) for place in folders]
    texts = list(collections[0].documents.values()) if collections else []
    if input or (folder is not None and (folder / "sentences_wikipedia_1.txt.gz").is_file()):
        texts = _texts(input, folder, "sentences_wikipedia_1.txt.gz", None, rows + min(1000, rows // 9))
    texts = list(dict.fromkeys(texts or _texts(None, None, "", None, rows)))[: rows + min(1000, rows // 9)]
    held_out = max(min(len(texts) // 10, 1000), 50)
    if len(texts) < 2 * held_out:
        raise UsageError(f"at least {2 * held_out} distinct texts are needed to measure with; found {len(texts)}")
    opened = [contestants.open_contestant(name, graph.value, budget, offline=offline, progress=bar)]
    if not no_peer:
        opened.append(contestants.open_contestant(peer, contestants.PEER, budget, offline=offline, progress=bar))
    scores = []
    for held in collections:
        found = []
        for contestant in opened:
            note(f"{held.name}: {contestant.label} encodes {len(held.documents):,} documents")
            found.append(retrieval.score_retrieval(contestant, held))
        sizes = {"documents": len(held.documents), "queries": len(held.queries)}
        scores.append({"dataset": held.name, **sizes, "models": found})
    note(f"encoding {len(texts):,} texts for the kinds of index")
    vectors = opened[0].encode(texts)
    kinds = retrieval.measure_kinds(
        vectors[:-held_out],
        vectors[-held_out:],
        [EXACT, *(kind or [])],
        k=k,
        threads=budget,
        rounds=rounds,
        with_peer=not no_peer,
        on_progress=note,
    )
    result = retrieval.SearchResult(
        rows=len(vectors) - held_out,
        dim=vectors.shape[1],
        queries=held_out,
        k=k,
        reference=None if no_peer else retrieval.SEMANTIC_SEARCH,
        kinds=kinds,
        retrieval=tuple(scores),
    )
    _finish("search", result.to_json(), budget, as_json, report)


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
    from sbert_mini.runtime.engine import thread_count

    budget = thread_count(threads)
    os.environ["OMP_NUM_THREADS"] = str(budget)
    sizes = sorted(set(n or [1000, 10_000, 100_000]))
    folder, name = _folder(data), "sentences_wikipedia_1.txt.gz"
    if not input and (folder is None or not (folder / name).is_file()):
        raise UsageError(
            f"no sentences: name a file with --input, or a folder that holds {name} with --data or SBMINI_DATA"
        )
    sentences = _texts(input, folder, name, None, max(sizes) + max(sizes) // 10)
    result = measured.measure(
        _name(model),
        sentences,
        sizes,
        sample=sample,
        threads=budget,
        rounds=rounds,
        offline=offline,
        on_progress=note,
    )
    _finish("pairs", result.to_json(), budget, as_json, report)
