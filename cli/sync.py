"""`sbmini index sync`: make an index agree with folders of documents."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbert_mini.errors import InputError, UsageError

from . import options
from .amounts import amount
from .notes import Interrupted, note, progress_wanted, quiet_notes
from .printing import print_text, visible_in_line
from .rejects import PARTLY_DONE

if TYPE_CHECKING:
    from sbert_mini.documents.sync import FolderSync, SyncCounts
    from sbert_mini.runtime.embedder import Embedder

EXAMPLE = """Examples:

  sbmini index sync notes.index notes/

  sbmini index sync work.index manuals/ mail/ --exclude 'drafts/' --dry-run

  sbmini index sync code.index . --include '*.py' --include '*.md'

  sbmini index sync notes.index /media/backup/notes --as notes

  sbmini index sync notes.index notes/ --watch
"""
Folders = Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="The folders.", show_default=False)]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Print what would be added, changed and removed, and change nothing. Tables, HTML, PDF and DOCX are not read.",
    ),
]
Watch = Annotated[
    bool,
    typer.Option(
        "--watch",
        help="Go on until Ctrl-C: a file that changes is searchable within a second. Needs the extra 'documents'.",
    ),
]
Name = Annotated[
    str | None,
    typer.Option(
        "--as", metavar="NAME", help="What ids begin with, in place of the folder's path.", show_default=False
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        "--include", metavar="GLOB", help="Read only files that match, such as '*.md'. Repeatable.", show_default=False
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="GLOB",
        help="Leave out files and folders that match, such as 'drafts/'. Repeatable.",
        show_default=False,
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        "--encoding", help="The encoding of files that are not UTF-8; by default detected.", show_default=False
    ),
]
CompareContents = Annotated[
    bool,
    typer.Option(
        "--checksum", help="Compare the contents of files whose size and time of modification have not changed, too."
    ),
]
AllowRemovals = Annotated[
    bool, typer.Option("--allow-removals", help="Remove rows also where more than half of a folder's files are gone.")
]
Prompt = Annotated[
    str | None,
    typer.Option(
        "--prompt", help="For a new index: a prefix of each passage; by default the model's prompt.", show_default=False
    ),
]


def sync(
    directory: options.IndexDirectory,
    folders: Folders,
    dry_run: DryRun = False,
    watch: Watch = False,
    name: Name = None,
    include: Include = None,
    exclude: Exclude = None,
    encoding: Encoding = None,
    checksum: CompareContents = False,
    allow_removals: AllowRemovals = False,
    model: options.Model = None,
    prompt: Prompt = None,
    passage_tokens: options.PassageTokens = None,
    overlap: options.Overlap = None,
    batch_size: options.BatchSize = 32,
    threads: options.Threads = None,
    offline: options.Offline = False,
    trust_tokenizer: options.TrustTokenizer = False,
    quiet: options.Quiet = False,
) -> None:
    """Make an index agree with folders of documents; the index is created if there is none.

    New and changed files are read and encoded, unchanged ones are not, and rows whose files are gone are removed, all in one
    step. Rows that another command or the sync of another folder made stay. After Ctrl-C or a crash the index is as it was, and
    the same command continues: what was encoded is kept beside the index, in INDEX.partial.

    A file is a row. Its id is its path, beginning with the folder as it is given; --as gives another beginning, such as the
    former one of a folder that was moved. Its passages are divided at headings, paragraphs and functions. Each row of CSV, TSV
    and JSON lines is a row of the index. Also read are plain text, Markdown, reStructuredText, HTML and source code, and with
    the extra 'documents' PDF and DOCX.

    Hidden and binary files are left out, and what .gitignore or .sbminiignore names. No link leads out of a folder. A file that
    cannot be read keeps its rows, is named, and makes the exit code 4. If more than half of a folder's rows would be removed,
    nothing is done without --allow-removals.
    """
    if dry_run and watch:
        raise UsageError("--dry-run and --watch exclude each other")
    options.check_trust(trust_tokenizer, model)
    quiet_notes(quiet)
    from sbert_mini.documents.sync import FolderSync, SyncOptions

    reading = SyncOptions(
        name=name,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        encoding=encoding,
        compare_contents=checksum,
        allow_removals=allow_removals,
        prompt=prompt,
        passage_tokens=passage_tokens,
        overlap=overlap,
        batch_size=batch_size,
    )
    opening: dict[str, Any] = {"threads": threads, "offline": offline, "trust_tokenizer": trust_tokenizer}
    embedder = None if model is None or dry_run else _named_model(directory, model, opening)
    syncing = FolderSync(directory, folders, reading, embedder=embedder, threads=threads, offline=offline)
    if dry_run:
        _print_plan(syncing)
        return
    counts = _run(syncing, quiet)
    _tell(counts, directory)
    if watch:
        _watch(syncing)
    if counts.failed or counts.rejected:
        raise typer.Exit(PARTLY_DONE)


def _named_model(directory: Path, model: str, opening: dict[str, Any]) -> "Embedder":
    """Return the model that is named, with the graph that the index was made with."""
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.search.store import Store

    graph = Store(directory).model.graph if (directory / "CURRENT").exists() else "int8"
    return Embedder(model, graph=graph, **opening)  # type: ignore[arg-type]


def _print_plan(syncing: "FolderSync") -> None:
    plan = syncing.plan()
    for action, identity in plan.actions:
        print_text(f"{action}\t{visible_in_line(identity)}")
    for identity, why in plan.failed.items():
        note(f"{identity} cannot be read: {why}")
    numbers = {name: sum(action == name for action, _ in plan.actions) for name in ("add", "change", "remove")}
    parts = [f"{count} to {name}" for name, count in numbers.items()]
    parts += [f"{count} {name}" for name, count in (("empty", plan.empty), ("binary", plan.binary)) if count]
    note(f"{', '.join(parts)}; nothing was changed")
    if plan.refusal is not None:
        raise InputError(plan.refusal)


def _run(syncing: "FolderSync", quiet: bool) -> "SyncCounts":
    """Run a sync with a progress bar; after Ctrl-C say what was kept."""
    from sbert_mini.progress import ProgressBar
    from sbert_mini.search.journal import journal_folder

    bar: ProgressBar | None = None

    def show(done: int, total: int, passages: int) -> None:
        nonlocal bar
        if bar is None and progress_wanted(quiet):
            bar = ProgressBar("files", total)
        if bar is not None:
            bar.move_to(done, total)
            bar.describe(f"files ({passages:,} passages)")

    try:
        return syncing.run(show)
    except KeyboardInterrupt:
        kept = journal_folder(syncing.path)
        if not kept.exists():
            raise
        raise Interrupted(
            f"the index is as it was; {kept} keeps what was encoded, and the same command continues"
        ) from None
    finally:
        if bar is not None:
            bar.close()


def _watch(syncing: "FolderSync") -> None:
    """Sync again after each change, until Ctrl-C."""
    from sbert_mini.documents.watch import watch

    note(f"watching {', '.join(str(folder.path) for folder in syncing.folders)}; Ctrl-C ends it")
    try:
        for counts in watch(syncing):
            if counts.is_change or counts.failed or counts.rejected:
                _tell(counts, syncing.path)
    except KeyboardInterrupt:
        raise Interrupted("the index holds every sync that was reported") from None


def _tell(counts: "SyncCounts", directory: Path) -> None:
    """Print what a sync did."""
    for identity, why in counts.failed.items():
        note(f"{identity} could not be read, and its rows stay as they were: {why}")
    for identity, why in counts.rejected.items():
        note(f"{identity}: {why}")
    if counts.encodings:
        told = ", ".join(f"{count} in {name}" for name, count in sorted(counts.encodings.items()))
        note(f"not in UTF-8, read as detected or stated: {told}")
    left_out = {
        "hidden": counts.hidden,
        "ignored": counts.ignored,
        "binary": counts.binary,
        "without text": counts.empty,
        "links out of the folder or to folders": counts.links,
    }
    if any(left_out.values()):
        note(f"left out: {', '.join(f'{count} {name}' for name, count in left_out.items() if count)}")
    if counts.resumed:
        passages = amount(counts.resumed, "passage")
        note(f"{passages} had been encoded by an earlier sync that did not end")
    done = f"{counts.added} added, {counts.changed} changed, {counts.removed} removed, {counts.unchanged} unchanged"
    failed = f", {len(counts.failed)} failed" if counts.failed else ""
    note(f"{done}{failed} -> {directory}")
