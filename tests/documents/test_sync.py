"""An index agrees with its folders after every sync, whatever happened to the files, the process or the index."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from documents.made import text_docx, text_pdf
from hypothesis import given, settings
from hypothesis import strategies as st

from sbert_mini import IndexWriter, Record, SearchIndex
from sbert_mini.documents.sync import FolderSync, RemovalError, SyncOptions
from sbert_mini.documents.watch import watch
from sbert_mini.errors import IndexNotFoundError, InputError, UsageError
from sbert_mini.search import journal
from sbert_mini.search.journal import journal_folder


def put(folder: Path, **files: str | bytes):
    """Write files; in a name, _ stands for a dot and __ for a slash."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def rows(index: Path) -> dict[str, str]:
    return {row.id: row.text for row in SearchIndex(index).rows()}


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """The folder `notes` in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


@pytest.fixture
def sync(default_embedder):
    def run(*folders, index="x.index", **options):
        return FolderSync(index, folders or ("notes",), SyncOptions(**options), embedder=default_embedder).run()

    return run


NAMES = ("a.md", "b.txt", "c/d.md", "c/e.py")
STEP = st.dictionaries(st.sampled_from(NAMES), st.sampled_from([None, "one", "two", "three words here"]), max_size=4)


@settings(max_examples=15)
@given(st.lists(STEP, min_size=1, max_size=4))
def test_after_any_changes_the_index_holds_the_files_and_only_new_texts_were_encoded(
    tmp_path_factory, default_embedder, history
):
    place = tmp_path_factory.mktemp("x")
    folder, index = place / "notes", place / "index"
    put(folder, kept_md="always there")
    held: dict[str, str] = {}
    for step in history:
        for name, text in step.items():
            path = folder / name
            if text is None:
                path.unlink(missing_ok=True)
            else:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
        files = {f"notes/{p.relative_to(folder)}": p.read_text() for p in folder.rglob("*") if p.is_file()}
        options = SyncOptions(name="notes", allow_removals=True)
        syncing = FolderSync(index, [folder], options, embedder=default_embedder)
        planned = syncing.plan().actions
        generation = SearchIndex(index).generation if held else 0
        counts = syncing.run()
        assert rows(index) == files
        new = {name for name, text in files.items() if held.get(name) != text}
        assert counts.index.encoding.texts == len(new)
        assert {name for action, name in planned if action != "remove"} == new
        assert {name for action, name in planned if action == "remove"} == set(held) - set(files)
        assert SearchIndex(index).generation == generation + (files != held)
        assert SearchIndex(index).verify() == []
        assert not journal_folder(index).exists()
        held = files


def test_touched_files_are_not_encoded_again_and_checksum_sees_what_times_hide(notes, sync):
    put(notes, a_md="one", b_md="two")
    old = time.time() - 1000
    for name in ("a.md", "b.md"):
        os.utime(notes / name, (old, old))
    sync()
    os.utime(notes / "a.md")
    assert sync().unchanged == 2
    put(notes, b_md="six")
    os.utime(notes / "b.md", (old, old))
    assert sync().unchanged == 2
    assert sync(compare_contents=True).changed == 1
    assert rows("x.index") == {"notes/a.md": "one", "notes/b.md": "six"}


def test_a_change_of_the_same_size_right_after_a_sync_is_seen(notes, sync):
    for text in ("one", "two", "six", "ten"):
        put(notes, a_md=text)
        sync()
        assert rows("x.index") == {"notes/a.md": text}


def test_only_rows_of_the_folders_named_are_touched(notes, sync, default_embedder):
    put(notes, a_md="one", b_md="two", c_md="three")
    put(notes.parent / "other", a_md="four", b_md="five")
    IndexWriter("x.index", default_embedder).create(
        [Record("mine", "mine"), Record("x", "y", {"synced_from": "notes"})]
    )
    sync("notes", "other")
    (notes / "a.md").unlink()
    shutil.rmtree("other")
    assert sync("notes").removed == 1
    assert set(rows("x.index")) == {"mine", "y", "notes/b.md", "notes/c.md", "other/a.md", "other/b.md"}
    with pytest.raises(InputError, match="other cannot be read: No such file or directory; nothing was changed"):
        sync("notes", "other")
    assert len(rows("x.index")) == 6


def test_a_row_that_no_sync_made_is_not_replaced(notes, sync, default_embedder):
    put(notes, a_md="one", b_md="two")
    IndexWriter("x.index", default_embedder).create([Record("mine", "notes/a.md")])
    counts = sync()
    assert rows("x.index") == {"notes/a.md": "mine", "notes/b.md": "two"}
    assert "no sync of this file made" in counts.rejected["notes/a.md"]


def test_more_than_half_of_a_folders_rows_need_a_word(notes, sync):
    put(notes, a_md="one", b_md="two", c_md="three", d_md="four")
    sync()
    (notes / "a.md").unlink()
    (notes / "b.md").unlink()
    sync()
    (notes / "c.md").unlink()
    put(notes, d_md="changed")
    sync()
    put(notes, _gitignore="*")
    refusal = r"1 of the 1 rows of notes would be removed.*--allow-removals"
    with pytest.raises(RemovalError, match=refusal):
        sync()
    plan = FolderSync("x.index", ["notes"]).plan()
    assert plan.actions == [("remove", "notes/d.md")]
    assert re.match(refusal, plan.refusal)
    assert FolderSync("x.index", ["notes"], SyncOptions(allow_removals=True)).plan().refusal is None
    assert rows("x.index") == {"notes/d.md": "changed"}
    with pytest.raises(InputError, match="no row would be left"):
        sync(allow_removals=True)
    put(notes.parent / "other", e_md="five")
    sync("notes", "other", allow_removals=True)
    assert rows("x.index") == {"other/e.md": "five"}


def test_a_file_that_fails_keeps_its_rows_and_is_read_again(notes, sync):
    put(notes, a_pdf=text_pdf(["the old page"]), b_md="two")
    sync()
    put(notes, a_pdf=b"%PDF junk", b_md="changed", c_docx=b"junk")
    counts = sync()
    assert set(counts.failed) == {"notes/a.pdf", "notes/c.docx"}
    assert rows("x.index") == {"notes/a.pdf": "the old page", "notes/b.md": "changed"}
    put(notes, a_pdf=text_pdf(["the new page"]), c_docx=text_docx())
    assert (sync().added, rows("x.index")["notes/a.pdf"]) == (1, "the new page")


def test_blank_and_binary_files_leave_no_rows(notes, sync):
    put(notes, a_md=" \n", b_foo=b"\0\1", c_md="three", d_foo=b"\xff\xfe\xfd")
    counts = sync()
    assert (counts.empty, counts.binary, counts.added) == (1, 2, 1)
    put(notes, e_md="five")
    sync()
    put(notes, c_md="")
    assert sync().removed == 1
    assert rows("x.index") == {"notes/e.md": "five"}


LINES = '{"question": "why", "n": 3}\n{"bad\n{"text": "yes", "id": 5}\n'


def test_tables_are_rows(notes, sync):
    put(
        notes,
        a_csv="id,text,year\n7,Cats sleep,1999\n8,,\n",
        b_jsonl='{"question": "why", "n": 3}\n{"bad\n{"text": "yes", "id": 5}\n',
    )
    counts = sync()
    index = SearchIndex("x.index")
    assert rows("x.index") == {
        "notes/a.csv#7": "Cats sleep",
        "notes/b.jsonl:1": "question: why\nn: 3",
        "notes/b.jsonl#5": "yes",
    }
    assert index.get("notes/a.csv#7").columns["year"] == 1999
    assert index.get("notes/b.jsonl:1").columns["file_line"] == 1
    assert set(counts.rejected) == {"notes/a.csv", "notes/b.jsonl"}
    assert sync().unchanged == 2
    put(notes, a_csv="id,text,year\n9,Dogs bark,2001\n7,Cats sleep,1999\n")
    assert (sync().changed, len(rows("x.index"))) == (1, 4)
    (notes / "b.jsonl").unlink()
    sync()
    assert set(rows("x.index")) == {"notes/a.csv#7", "notes/a.csv#9"}


def test_passages_end_at_headings(notes, sync):
    section = "Some words about the subject of this section. " * 8
    put(notes, a_md=f"# One\n\n{section}\n\n## Two\n\n{section}\n")
    sync(passage_tokens=200)
    store = SearchIndex("x.index")._store
    (passages,) = (segment.passages for segment in store.segments)
    text = rows("x.index")["notes/a.md"]
    assert [text[start : start + 6].strip() for _, start, _ in passages.spans] == ["# One", "## Two"]


def test_the_index_in_its_own_folder_is_left_out(notes, sync):
    put(notes, a_md="one")
    sync(index="notes/x.index")
    put(notes, b_md="two")
    assert sync(index="notes/x.index").added == 1
    assert set(rows("notes/x.index")) == {"notes/a.md", "notes/b.md"}


def test_nothing_to_index_leaves_nothing(notes, sync):
    with pytest.raises(InputError, match="the folders hold no text to index"):
        sync()
    put(notes, a_md=" ")
    with pytest.raises(InputError, match="the folders hold no text to index"):
        sync()
    with pytest.raises(IndexNotFoundError):
        SearchIndex("x.index")
    put(notes, a_md="one")
    assert sync().added == 1


def test_a_package_that_is_missing_fails_its_files_alone(notes, sbmini_here):
    put(notes, a_md="one", b_pdf=b"x")
    put(notes.parent / "site", pypdf_py="raise ModuleNotFoundError(name='pypdf')")
    done = sbmini_here("index", "sync", "x.index", "notes", env={"PYTHONPATH": str(notes.parent / "site")})
    assert done.returncode == 4
    assert "pip install 'sbert-mini[documents]'" in done.stderr
    assert rows("x.index") == {"notes/a.md": "one"}


# --- crashes ---------------------------------------------------------------------------------------------------------

WRITER = """
import sys
from sbert_mini import Embedder
from sbert_mini.search import journal
from sbert_mini.documents.sync import FolderSync
journal._WINDOW = 8
print("ready", flush=True)
FolderSync(sys.argv[1], ["notes"], embedder=Embedder(threads=1)).run(lambda *done: print(*done, flush=True))
print("done", flush=True)
"""


def started(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def fill(folder: Path, version: str, count: int = 60):
    for i in range(count):
        (folder / f"{i:03}.md").write_text(f"# Number {i}\n\nThe words of version {version} of note {i}.\n")


def vectors_of(index: Path) -> dict[str, np.ndarray]:
    return {
        row.id: vector
        for block, vectors in SearchIndex(index).row_blocks()
        for row, vector in zip(block, vectors, strict=True)
    }


def test_kill_9_leaves_the_old_generation_whole_and_the_next_sync_continues(notes, sync, rng):
    fill(notes, "one")
    sync()
    before = rows("x.index")
    fill(notes, "two")
    kills = 0
    for lines in (1, 3, 5):
        child = started("x.index")
        for _ in range(1 + lines):
            assert child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        finished = "done" in child.communicate()[0]
        assert not finished
        kills += 1
        assert rows("x.index") == before
        assert SearchIndex("x.index").verify() == []
        assert journal_folder(Path("x.index")).exists()
    counts = sync()
    assert counts.resumed >= 8 * 5
    assert counts.index.encoding.texts <= 60 - 8 * 5
    assert rows("x.index") == {f"notes/{p.name}": p.read_text() for p in notes.iterdir()}
    sync(index="other.index")
    resumed, whole = vectors_of("x.index"), vectors_of("other.index")
    assert all(np.array_equal(resumed[name], whole[name]) for name in whole)
    assert not journal_folder(Path("x.index")).exists()
    assert kills == 3


def test_ctrl_c_keeps_what_was_encoded_for_a_new_index_too(notes, sync):
    fill(notes, "one")
    child = started("new.index")
    for _ in range(4):
        assert child.stdout.readline()
    child.send_signal(signal.SIGINT)
    child.communicate()
    assert child.returncode
    assert not Path("new.index", "CURRENT").exists()
    counts = sync(index="new.index")
    assert counts.added == 60
    assert counts.resumed >= 16


def test_a_folder_that_is_gone_in_the_middle_stops_the_sync(notes, sync, default_embedder, monkeypatch):
    monkeypatch.setattr(journal, "_WINDOW", 4)
    put(notes, a_md="one", b_md="two", c_md="three")
    sync()
    before = rows("x.index")
    put(notes, **{f"n{i}_md": f"new {i}" for i in range(30)}, a_md="changed")
    syncing = FolderSync("x.index", ["notes"], embedder=default_embedder)
    moved = notes.with_name("moved")
    with pytest.raises(InputError, match="the folder notes is gone; nothing was changed"):
        syncing.run(lambda *_: moved.exists() or notes.rename(moved))
    assert moved.exists()
    assert rows("x.index") == before
    moved.rename(notes)
    counts = sync()
    assert (counts.added, counts.changed, counts.resumed > 0) == (30, 1, True)


def test_a_folder_that_is_in_the_index_under_another_name_is_told(notes, sync, caplog):
    put(notes, a_md="one", b_md="two", c__d_md="three", t_csv="text\nx\ny\n")
    sync()
    sync("notes")
    put(Path("other"), a_md="one more", e_md="five")
    sync("other")
    assert "second time" not in caplog.text
    notes.rename("it's")
    sync("it's")
    assert "4 of the 4 files of it's are in the index already, as files of notes" in caplog.text
    assert "--filter \"synced_from = 'notes'\"" in caplog.text
    caplog.clear()
    sync("it's")
    assert not caplog.text
    assert len(rows("x.index")) == 12
    IndexWriter("x.index").delete(filter="synced_from = 'notes'")
    assert len(rows("x.index")) == 7


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_did(notes, sbmini_here):
    put(
        notes,
        a_md="# Bread\n\nKeep it in a paper bag.",
        l_txt="déjà vu, crème brûlée".encode("latin-1"),
        b_png=b"x",
        c_pdf=b"junk",
    )
    put(notes, _hidden="x", e_md=" ", n_txt=b"a\0b")
    planned = sbmini_here("index", "sync", "x.index", "notes", "--dry-run")
    assert planned.stdout == "add\tnotes/a.md\nadd\tnotes/c.pdf\nadd\tnotes/l.txt\n"
    assert planned.stderr == "sbmini: 3 to add, 0 to change, 0 to remove, 1 empty, 1 binary; nothing was changed\n"
    assert not Path("x.index").exists()
    (notes / "e.md").unlink()
    (notes / "n.txt").unlink()
    done = sbmini_here("index", "sync", "x.index", "notes/")
    assert done.returncode == 4
    assert done.stdout == ""
    assert "notes/c.pdf could not be read" in done.stderr
    assert "not in UTF-8, read as detected or stated: 1 in cp1252" in done.stderr
    assert "left out: 1 hidden, 1 binary" in done.stderr
    assert done.stderr.splitlines()[-1] == "sbmini: 2 added, 0 changed, 0 removed, 0 unchanged, 1 failed -> x.index"
    (notes / "c.pdf").unlink()
    notes.rename(notes.with_name("moved"))
    again = sbmini_here("index", "sync", "x.index", "moved", "--as", "notes")
    assert again.returncode == 0
    assert "2 unchanged" in again.stderr
    shutil.rmtree("moved")
    gone = sbmini_here("index", "sync", "x.index", "moved", "--as", "notes")
    assert gone.returncode == 1
    assert (
        gone.stderr
        == "sbmini: error: the folder moved cannot be read: No such file or directory; nothing was changed\n"
    )


def test_options_that_do_not_fit(notes, default_embedder):
    with pytest.raises(UsageError, match="no folder is named"):
        FolderSync("x.index", [])
    put(notes, a_md="x")
    syncing = FolderSync("x.index", ["notes"], SyncOptions(encoding="hex"), embedder=default_embedder)
    with pytest.raises(UsageError, match="encoding must be"):
        syncing.run()


def test_watching_makes_a_change_searchable(notes):
    put(notes, a_md="about bread", b_md="about cats")
    command = [str(Path(sys.executable).with_name("sbmini")), "index", "sync", "x.index", "notes", "--watch"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        for line in child.stderr:
            if "watching notes" in line:
                break
        for text in ("one", "two"):
            put(notes, c_md=text)
            deadline = time.monotonic() + 60
            while rows("x.index").get("notes/c.md") != text:
                assert time.monotonic() < deadline
                time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGINT)
        errors = child.communicate()[1]
    assert child.returncode == 130
    assert errors.splitlines()[-1] == "sbmini: interrupted; the index holds every sync that was reported"


def test_a_change_before_the_folders_are_watched_is_not_lost(notes, default_embedder):
    put(notes, a_md="about bread")
    syncing = FolderSync("x.index", ["notes"], embedder=default_embedder)
    syncing.run()
    put(notes, b_md="about cats")  # after the sync, before the watch
    watching, later = (
        watch(syncing),
        threading.Timer(30, put, [notes], {"c_md": "too late"}),
    )  # so that a fault does not wait for ever
    later.start()
    try:
        assert next(watching).added == 1
    finally:
        later.cancel()
        watching.close()
    assert rows("x.index")["notes/b.md"] == "about cats"
