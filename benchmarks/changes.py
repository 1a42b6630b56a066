"""1,000 changes of one row each: how long a change takes, and a search after them beside one after a compaction.

    python -m benchmarks.changes --data /work/shared/data

The index holds 20,000 sentences of Wikipedia. Rows are added, replaced and deleted in turn, each by a writer of its own, as a
command does. Then the index is copied, the copy compacted, and the same queries searched in both, alternating, after a warm-up.
"""

import gzip
import itertools
import shutil
import statistics
import tempfile
from functools import partial
from pathlib import Path

from benchmarks import harness
from sbert_mini import Embedder, IndexWriter, SearchIndex
from sbert_mini.evaluation.measure import alternate, timed
from sbert_mini.evaluation.table import Json, Table
from sbert_mini.text.records import Record

SENTENCES = "sentences_wikipedia_1.txt.gz"
MODEL = "sbert-mini-fast"
ROWS, CHANGES, QUERIES = 20_000, 1_000, 50
TARGET = 1.3
"""A search after the changes takes at most so many times as long as after a compaction."""


def change(path: Path, embedder: Embedder, number: int, text: str) -> None:
    """Add, replace or delete one row."""
    if number % 3 == 0:
        IndexWriter(path, embedder).add([Record(text, f"new {number}")])
    elif number % 3 == 1:
        IndexWriter(path, embedder).update([Record(text, str(7 * number % ROWS))])
    else:
        IndexWriter(path).delete([str((7 * number + 3) % ROWS)])


def search_all(index: SearchIndex, queries: list[str], by: str) -> float:
    """Return the median milliseconds of a query."""
    return statistics.median(1000 * timed(partial(index.search, query, 10, by=by)) for query in queries)


def tables(result: Json) -> list[Table]:
    """Return the table of a result."""
    rows = [
        (
            f"one change, of {result['changes']:,}",
            f"{result['change_ms']['median']:.0f} ms, the slowest {result['change_ms']['worst']:.0f} ms",
        ),
        ("segments after them", f"{result['segments']}"),
    ]
    for by, figures in result["search"].items():
        compact = f"after a compaction {figures['compact_ms']:.2f} ms: {figures['ratio']:.2f} times"
        rows.append(
            (
                f"a search by {by} after them",
                f"{figures['changed_ms']:.2f} ms; {compact}",
            )
        )
    return [Table("Changes of single rows", (f"an index of {result['rows']:,} rows", "measured"), tuple(rows))]


def main() -> None:
    """Measure and save."""
    options = harness.arguments(__doc__.splitlines()[0], rounds=7)
    with gzip.open(harness.data_file(options.data, SENTENCES), "rt", encoding="utf-8") as stream:
        texts = [line.strip() for line in itertools.islice(stream, ROWS + CHANGES + QUERIES)]
    embedder = Embedder(MODEL, threads=options.threads)
    queries = texts[-QUERIES:]
    with tempfile.TemporaryDirectory(prefix="sbmini-changes-") as folder:
        path, compact = Path(folder) / "index", Path(folder) / "compact"
        IndexWriter(path, embedder).create(Record(text, str(i)) for i, text in enumerate(texts[:ROWS]))
        seconds = [timed(partial(change, path, embedder, i, texts[ROWS + i])) for i in range(CHANGES)]
        shutil.copytree(path, compact)
        IndexWriter(compact).compact()
        opened = {
            "changed": SearchIndex(path, threads=options.threads),
            "compact": SearchIndex(compact, threads=options.threads),
        }
        search = {}
        for by in ("meaning", "both"):
            for index in opened.values():
                search_all(index, queries, by)
            contestants = {name: partial(search_all, index, queries, by) for name, index in opened.items()}
            measured = {
                name: statistics.median(values) for name, values in alternate(contestants, options.rounds).items()
            }
            search[by] = {
                "changed_ms": measured["changed"],
                "compact_ms": measured["compact"],
                "ratio": measured["changed"] / measured["compact"],
            }
        result = {
            "rows": ROWS,
            "changes": CHANGES,
            "model": MODEL,
            "segments": opened["changed"].segments,
            "change_ms": {"median": 1000 * statistics.median(seconds), "worst": 1000 * max(seconds)},
            "search": search,
            "target": TARGET,
        }
    harness.save("changes", result, options)


if __name__ == "__main__":
    main()
