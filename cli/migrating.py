"""`sbmini index migrate`: an index's rows, encoded again with another model."""

from typing import Annotated

import typer

from . import options
from .amounts import amount
from .notes import Interrupted, note, progress_wanted, quiet_notes

EXAMPLE = """Examples:

  sbmini index migrate news.index --model sbert-mini-fast

  sbmini index migrate news.index --model ./my-model --passage-tokens 128
"""
NewModel = Annotated[
    str,
    typer.Option("--model", "-m", help="The new model: a directory, a built-in name, or a hub id.", show_default=False),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        "--prompt", help="A prefix of each text; by default the new model's prompt for documents.", show_default=False
    ),
]


def migrate(
    directory: options.IndexDirectory,
    model: NewModel,
    graph: options.GraphOption = "int8",
    prompt: Prompt = None,
    passage_tokens: options.PassageTokens = None,
    overlap: options.Overlap = None,
    batch_size: options.BatchSize = 32,
    threads: options.Threads = None,
    offline: options.Offline = False,
    trust_tokenizer: options.TrustTokenizer = False,
    quiet: options.Quiet = False,
) -> None:
    """Encode an index's rows again with another model, and switch to it in one step.

    Rows keep their ids, texts and columns, and what 'sbmini index sync' knows of their files. Until the end searches go on with
    the old model; no other command can change the index meanwhile. After Ctrl-C or a crash the index is as it was, and the same
    command continues: what was encoded is kept beside the index, in INDEX.migrating.
    """
    quiet_notes(quiet)
    from sbert_mini.documents.migration import migrate_index
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.search.encoding import IndexCounts
    from sbert_mini.search.journal import MIGRATING, journal_folder
    from sbert_mini.search.store import require_index

    require_index(directory)
    embedder = Embedder(model, graph=graph, threads=threads, offline=offline, trust_tokenizer=trust_tokenizer)
    counts, kept = IndexCounts(), journal_folder(directory, MIGRATING)
    try:
        migrate_index(
            *(directory, embedder),
            prompt=prompt,
            passage_tokens=passage_tokens,
            overlap=overlap,
            batch_size=batch_size,
            show_progress_bar=progress_wanted(quiet),
            counts=counts,
        )
    except KeyboardInterrupt:
        if not kept.exists():
            raise
        text = f"the index is as it was; {kept} keeps what was encoded, and the same command continues"
        raise Interrupted(text) from None
    if not counts.rows:
        note(f"{directory} was made with this model and prompt already")
        return
    if counts.resumed:
        note(f"{amount(counts.resumed, 'passage')} had been encoded by an earlier command that did not end")
    note(f"{amount(counts.rows, 'row')} of {directory} encoded with {embedder.model_name}")
