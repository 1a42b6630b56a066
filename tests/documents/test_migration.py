"""An index moves to another model: rows stay, a reader keeps its generation, and an interrupted migration continues."""

import signal
import subprocess
import sys

import numpy as np
import pytest

from sbert_mini import Collection, Embedder, FolderSync, IndexWriter, SearchIndex, migrate_index
from sbert_mini.errors import IndexLockedError, IndexNotFoundError, InputError, UsageError
from sbert_mini.search.encoding import IndexCounts
from sbert_mini.search.journal import MIGRATING, journal_folder
from sbert_mini.search.store import write_lock
from sbert_mini.text.records import Record


@pytest.fixture
def model(converted_model):
    return Embedder(converted_model(), threads=1)


@pytest.fixture(scope="module")
def fast():
    return Embedder("sbert-mini-fast", threads=1)


@pytest.fixture
def path(tmp_path, model):
    """An index with deleted and replaced rows."""
    path = tmp_path / "index"
    IndexWriter(path, model).create([Record(f"bread number {i}", str(i), {"n": i}) for i in range(40)])
    IndexWriter(path, model).update([Record("water", "3", {"n": 300}), Record("wine", "new", {"n": 1})])
    IndexWriter(path).delete(["5"])
    return path


def test_rows_stay_and_vectors_are_those_of_the_new_model(path, model, fast):
    before = SearchIndex(path)
    rows = list(before.rows())
    numbers = {row.id: before._store.find(row.id) for row in rows}
    counts = IndexCounts()
    index = migrate_index(path, fast, counts=counts)
    assert list(index.rows()) == rows
    assert (counts.rows, index.segments, index.deleted_rows) == (40, 1, 0)
    assert {row.id: index._store.find(row.id) for row in rows} == numbers
    assert (index.model.fingerprint, index.model.dimension) == (fast.fingerprint, fast.dimension)
    assert index.columns == before.columns
    expected = fast.encode([row.text for row in rows], prompt=index.model.prompt)
    np.testing.assert_allclose([index.vector(row.id) for row in rows], expected, atol=1e-6)
    assert index.search("wine", 1)[0].id == "new"
    assert index.verify() == []
    # the reader that was open goes on with its generation and its model
    assert before.search("water", 40, embedder=model, by="meaning")[0].text in {row.text for row in rows}
    assert list(before.rows()) == rows
    generation = index.generation
    assert migrate_index(path, fast).generation == generation  # nothing to do
    grown = IndexWriter(path).add([Record("milk", "milk", {"n": 0})])
    assert grown.search("milk", 1)[0].id == "milk"


def test_what_cannot_be_migrated_is_left_as_it_was(tmp_path, path, model, fast):
    with pytest.raises(IndexNotFoundError):
        migrate_index(tmp_path / "nothing", fast)
    with write_lock(path), pytest.raises(IndexLockedError):
        migrate_index(path, fast)
    with pytest.raises(UsageError, match="passage_tokens"):
        migrate_index(path, fast, passage_tokens=100_000)
    assert SearchIndex(path).model.fingerprint == model.fingerprint


def test_a_collection_follows_a_migration(path, model, fast):
    collection = Collection(path, threads=1)
    assert collection.query("water", 1)[0].id == "3"
    migrate_index(path, fast)
    assert collection.query("water", 1)[0].id == "3"
    assert collection.upsert([{"id": "tea", "text": "tea"}]).rows == 1
    migrate_index(path, model)
    assert collection.upsert([{"id": "tea", "text": "green tea"}]).rows == 1
    assert collection.query("tea", 1, by="words")[0].id == "tea"


def test_synced_files_stay_known(tmp_path, monkeypatch, model, fast):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    sections = [f"# Part {i}\n\n" + "the cat and a dog. " * 30 for i in range(3)]
    (tmp_path / "notes" / "a.md").write_text("\n\n".join(sections))
    FolderSync("x.index", ["notes"], embedder=model).run()
    FolderSync("new.index", ["notes"], embedder=fast).run()
    index, new = migrate_index("x.index", fast), SearchIndex("new.index")
    spans, expected = (opened._store.segments[0].passages.spans.tolist() for opened in (index, new))
    assert spans == expected  # cut at headings, as a sync does
    assert list(index.rows()) == list(new.rows())
    counts = FolderSync("x.index", ["notes"], threads=1).run()
    assert (counts.unchanged, counts.is_change) == (1, False)


WRITER = """
import sys
from sbert_mini import Embedder, migrate_index
from sbert_mini.search import journal
journal._WINDOW = 4
append = journal.Journal.append
def told(self, digests, vectors):
    append(self, digests, vectors)
    print(len(self), flush=True)
journal.Journal.append = told
migrate_index(sys.argv[1], Embedder("sbert-mini-fast", threads=1))
print("done", flush=True)
"""


def test_kill_9_leaves_the_old_model_and_the_same_call_continues(path, model, fast):
    before = list(SearchIndex(path).rows())
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "4\n"
    child.send_signal(signal.SIGKILL)
    assert "done" not in child.communicate()[0]
    index = SearchIndex(path)
    assert (list(index.rows()), index.model.fingerprint, index.verify()) == (before, model.fingerprint, [])
    with pytest.raises(InputError, match="left by a migration to another model, or with another prompt"):
        migrate_index(path, fast, prompt="passage: ")
    counts = IndexCounts()
    index = migrate_index(path, fast, counts=counts)
    assert counts.resumed >= 4
    assert counts.encoding.texts + counts.resumed == 40
    assert (list(index.rows()), index.model.fingerprint, index.verify()) == (before, fast.fingerprint, [])
    assert not journal_folder(path, MIGRATING).exists()
