"""The index directory: its files, its names, its generations and its lock."""

import contextlib
import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from sbert_mini import Embedder, IndexWriter, SearchIndex
from sbert_mini.errors import (
    CorruptIndexError,
    IndexLockedError,
    InputError,
)
from sbert_mini.files.durable import json_bytes, read_sealed_json, write_sealed_json
from sbert_mini.files.json_files import POINTER
from sbert_mini.search.checksums import file_checksums
from sbert_mini.search.store import Store, publish, write_lock
from sbert_mini.text.records import Record


def test_the_directory_is_as_documented(collection_index, embedder, passages):
    segment = collection_index / "segments" / "000001"
    vectors = np.load(segment / "vectors.npy", allow_pickle=False)
    np.testing.assert_allclose(vectors, embedder.encode([row["text"] for row in passages]), atol=1e-3)
    np.testing.assert_array_equal(np.load(segment / "row_ids.npy", allow_pickle=False), np.arange(240))
    rows = [json.loads(line) for line in (segment / "rows.jsonl").read_text("utf-8").splitlines()]
    assert [row["id"] for row in rows] == [row["id"] for row in passages]
    manifest = json.loads((collection_index / "generations" / "000001.json").read_text())
    assert manifest["model"]["fingerprint"] == embedder.fingerprint
    assert (manifest["rows"], manifest["next_row"], manifest["metric"]) == (240, 240, "cosine")
    assert {p.name for p in collection_index.iterdir()} <= {
        "CURRENT",
        "LOCK",
        "generations",
        "segments",
        "faiss",
        "words",
    }


def test_a_manifest_that_points_elsewhere_or_is_newer_is_refused(copied_index):
    current = copied_index / "CURRENT"
    pointer = read_sealed_json(current, POINTER, CorruptIndexError)
    for change in ({"manifest": "../../etc/passwd"}, {"manifest": "generations/../CURRENT"}):
        write_sealed_json(current, {**pointer, **change})
        with pytest.raises(CorruptIndexError, match="CURRENT: manifest must be the name of a manifest"):
            SearchIndex(copied_index)
    write_sealed_json(current, {**pointer, "format_version": 5})
    with pytest.raises(CorruptIndexError, match="format version 5"):
        SearchIndex(copied_index)
    current.write_text("{")
    with pytest.raises(CorruptIndexError, match="damaged"):
        SearchIndex(copied_index)


def test_unknown_keys_of_a_manifest_are_ignored(copied_index):
    pointer = read_sealed_json(copied_index / "CURRENT", POINTER, CorruptIndexError)
    manifest = json.loads((copied_index / pointer["manifest"]).read_text())
    manifest["model"]["colour"], manifest["weather"], manifest["kind"]["shape"] = "blue", "fine", "round"
    data = json.dumps(manifest).encode()
    (copied_index / pointer["manifest"]).write_bytes(data)
    write_sealed_json(copied_index / "CURRENT", {**pointer, "sha256": hashlib.sha256(data).hexdigest()})
    assert len(SearchIndex(copied_index).search("bread", 3)) == 3


def hold(path, ready, release):
    with write_lock(path):
        ready.set()
        release.wait(30)


def test_one_writer_at_a_time(tmp_path, converted_model):
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(tmp_path / "index", ready, release))
    holder.start()
    try:
        assert ready.wait(30)
        with pytest.raises(IndexLockedError, match="being written by another process"):
            IndexWriter(tmp_path / "index", Embedder(converted_model())).create([Record("one")])
    finally:
        release.set()
        holder.join()
    IndexWriter(tmp_path / "index", Embedder(converted_model())).create([Record("one")])


def test_a_reader_keeps_the_generation_that_it_opened(copied_index, collection_index):
    index = SearchIndex(copied_index)
    before = index.search("bread", 3)
    manifest = index._store.manifest
    publish(copied_index, 2, index.model, manifest["segments"], 240, columns=manifest["columns"])
    assert SearchIndex(copied_index).generation == 2
    assert (index.generation, index.search("bread", 3)) == (1, before)


@pytest.fixture
def index(tmp_path, default_embedder):
    path = tmp_path / "my.index"
    IndexWriter(path, default_embedder).create([Record(f"text {i}", id=str(i)) for i in range(5)])
    return path


def renamed(path, name):
    """Give a segment another name in the manifest, all checksums right."""
    resealed(path, lambda manifest: manifest["segments"][0].update(name=name))


def resealed(path, change):
    """Change the manifest, all checksums right."""
    pointer = read_sealed_json(path / "CURRENT", POINTER, CorruptIndexError)
    file = path / pointer["manifest"]
    manifest = json.loads(file.read_bytes())
    change(manifest)
    file.write_bytes(json_bytes(manifest))
    pointer["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    write_sealed_json(path / "CURRENT", pointer)


@pytest.mark.parametrize("factory", ["HNSW1", "NSG1", "PQ4x0", "RQ0x8", "HNSW1000000", "RR100000,Flat", "LSQ48x8"])
def test_a_kind_that_ends_or_hangs_the_process_is_damage(index, factory):
    resealed(index, lambda manifest: manifest.update(kind={"factory": factory, "pca": None}))
    with pytest.raises(CorruptIndexError, match=r"my\.index is damaged: the number after"):
        SearchIndex(index)


def test_a_manifest_without_its_time_is_damage(index):
    resealed(index, lambda manifest: manifest.pop("created"))
    with pytest.raises(CorruptIndexError, match="created must be a text; found nothing"):
        SearchIndex(index)


@pytest.mark.parametrize("name", ["../../*", "a/*", "../../x", "00001", "٠٠٠٠٠١", "000001\n", "", "."])
def test_a_segments_name_is_digits(index, name, tmp_path):
    (tmp_path / "keys.kdbx").touch()
    renamed(index, name)
    for call in (
        SearchIndex,
        lambda path: IndexWriter(path).compact(kind="SQ8"),
        lambda path: IndexWriter(path).delete(["1"]),
    ):
        with pytest.raises(CorruptIndexError, match=r"segments\[0\]\.name must be a number of six digits or more"):
            call(index)
    assert (tmp_path / "keys.kdbx").exists()


def test_a_manifest_of_a_newer_version_is_refused(index):
    resealed(index, lambda manifest: manifest.update(format_version=5))
    with pytest.raises(CorruptIndexError, match=r"000001\.json is of format version 5.* reads up to 4"):
        SearchIndex(index)


def test_links_in_the_index_are_not_followed(index, tmp_path):
    victim = shutil.copytree(index, tmp_path / "victim.index")
    (index / "segments" / "000099").symlink_to(victim / "segments" / "000001")
    IndexWriter(index).delete(["1"])
    assert len(SearchIndex(victim)) == 5
    assert len(SearchIndex(index)) == 4
    for folder in ("segments", "faiss", "generations"):
        shutil.move(index / folder, tmp_path / folder)
        (index / folder).symlink_to(tmp_path / folder)
        with pytest.raises(CorruptIndexError, match=rf"{folder} is a symbolic link"):
            SearchIndex(index)
        (index / folder).unlink()
        shutil.move(tmp_path / folder, index / folder)
    assert len(SearchIndex(index)) == 4


def test_parts_of_dead_processes_are_removed(index):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = index / "faiss" / f".000001.faiss.{dead.pid}.part"
    alive = index / "faiss" / f".000001.faiss.{os.getppid()}.part"
    for file in (left, alive):
        file.touch()
    (index / "segments" / ".000009.part").mkdir()
    (index / "segments" / ".000009.part" / "rows.jsonl").touch()
    IndexWriter(index).delete(["1"])
    assert (left.exists(), alive.exists()) == (False, True)
    assert [folder.name for folder in (index / "segments").iterdir()] == ["000001"]


def test_a_row_or_a_segment_that_is_not_there_is_damage(index):
    assert Store(index).locate(4)[1] == 4
    with pytest.raises(CorruptIndexError, match="has no row 5, which its FAISS file names"):
        Store(index).locate(5)
    (index / "segments" / "000001" / "checksums.json").unlink()
    with pytest.raises(CorruptIndexError, match=r"checksums\.json cannot be opened: No such file"):
        SearchIndex(index)


@pytest.mark.usefixtures("separate_segments")
def test_an_index_of_an_earlier_version_is_searched_and_written_anew(tmp_path, default_embedder):
    path = tmp_path / "index"
    rows = [{"text": "a cat", "n": "7", "x": None}, {"text": "a dog", "n": "12", "x": "b"}]
    IndexWriter(path, default_embedder).create(rows)
    file = path / "segments" / "000001" / "checksums.json"
    described = json.loads(file.read_bytes())
    for name in ("columns.bin", "columns.json"):
        del described["files"][name]
    (file.parent / "words.sqlite").write_bytes(b"words")
    described["files"]["words.sqlite"] = file_checksums(file.parent / "words.sqlite")
    shutil.rmtree(path / "words")
    file.write_bytes(json_bytes(described))

    def change(manifest):
        del manifest["columns"], manifest["kind"]
        manifest["segments"][0]["checksums_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()

    resealed(path, change)
    index = SearchIndex(path)
    assert index.columns == {"n": "integer", "x": "text"}
    assert [hit.text for hit in index.search("a dog", 2)] == ["a dog", "a cat"]
    assert [hit.text for hit in index.search("a dog", 2, filter="n = 7")] == ["a cat"]
    assert index.search("dog", 1, hybrid=True)[0].text == "a dog"  # the words are made
    (file.parent / "words.sqlite").write_bytes(b"other")
    assert "words.sqlite: block 0" in index.verify()[0]
    after = IndexWriter(path).compact()
    assert [hit.text for hit in after.search("a dog", 2, filter="n = 7")] == ["a cat"]
    assert [hit.text for hit in after.search("dog", 1, hybrid=True)] == ["a dog"]


def open_files(folder):
    """Return the names of the files in a folder that this process has open."""
    paths = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the listing itself
            paths.append(descriptor.readlink())
    return {path.name for path in paths if path.is_relative_to(folder)}


def test_closing_a_store_closes_every_file(index):
    store = Store(index)
    (segment,) = store.segments
    columns = segment.columns
    assert columns.rows == 5  # a column that is read stays mapped as long as somebody holds it
    expected = {"checksums.json", "rows.jsonl", "vectors.npy", "columns.bin"}
    assert open_files(index) == expected
    store.close()
    assert open_files(index) == set()


@pytest.mark.usefixtures("separate_segments")
def test_a_reader_follows_a_writer_that_goes_on_in_between(index, default_embedder):
    """The reader waits for the lock of a segment, which is removed meanwhile: it opens the generation after it."""
    before = shutil.copytree(index, index.with_name("before"))
    IndexWriter(index, default_embedder).add(["more"])
    IndexWriter(index).compact()
    current = (index / "CURRENT").read_bytes()
    for name in ("CURRENT", "generations/000001.json"):
        shutil.copy(before / name, index / name)
    shutil.copytree(before / "segments" / "000001", index / "segments" / "000001", dirs_exist_ok=True)
    file = index / "segments" / "000001" / "checksums.json"
    opened = []
    with file.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        reader = threading.Thread(target=lambda: opened.append(SearchIndex(index)))
        reader.start()
        while not is_waited_for(file):
            assert reader.is_alive()
            time.sleep(0.01)
        (index / "CURRENT").write_bytes(current)
        file.unlink()
    reader.join()
    assert (opened[0].generation, len(opened[0])) == (3, 6)


def is_waited_for(file):
    """Return whether somebody waits for the lock of a file."""
    inode = f":{file.stat().st_ino} "
    return any("->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines())


def changed_npy(path, name, change):
    """Change an array of the first segment, all checksums right."""
    segment = path / "segments" / "000001"
    array = np.load(segment / name)
    np.save(segment / name, change(array))
    record = json.loads((segment / "checksums.json").read_text())
    record["files"][name] = file_checksums(segment / name)
    (segment / "checksums.json").write_text(json.dumps(record))
    sha256 = hashlib.sha256((segment / "checksums.json").read_bytes()).hexdigest()
    resealed(path, lambda manifest: manifest["segments"][0].update(checksums_sha256=sha256))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: np.stack([index[:, 0], np.zeros(5, "<u8")], 1), "does not name each row of the segment once"),
        (lambda index: np.stack([index[:, 0], index[:, 1] + np.uint64(1)], 1), "does not name each row"),
        (lambda index: index[::-1], "is not in the order of its digests"),
    ],
)
def test_an_index_of_ids_names_each_row_once_and_in_order(index, change, message):
    changed_npy(index, "id_index.npy", change)
    for call in (lambda: SearchIndex(index).get("1"), lambda: IndexWriter(index).delete(["1"])):
        with pytest.raises(CorruptIndexError, match=message):
            call()
    assert len(SearchIndex(index)) == 5


def test_an_index_of_ids_that_names_other_rows_finds_no_other_row(index):
    changed_npy(index, "id_index.npy", lambda array: np.stack([array[:, 0], array[::-1, 1]], 1))
    opened = SearchIndex(index)
    for number in range(5):
        row = opened.get(str(number))
        assert row is None or row.id == str(number)
        if row is None:
            with pytest.raises(InputError, match="is not in the index; nothing was deleted"):
                IndexWriter(index).delete([str(number)])
    assert len(SearchIndex(index)) == 5


@pytest.mark.usefixtures("separate_segments")
def test_two_rows_of_one_id_are_damage(index, default_embedder):
    IndexWriter(index, default_embedder).update([{"id": "1", "text": "another"}])
    resealed(index, lambda manifest: manifest.update(deleted=None, rows=6))
    for call in (
        lambda: SearchIndex(index).get("1"),
        lambda: IndexWriter(index).delete(["1"]),
        lambda: IndexWriter(index, default_embedder).update([{"id": "1", "text": "a third"}]),
    ):
        with pytest.raises(CorruptIndexError, match="2 rows have the id '1'"):
            call()
    assert len(SearchIndex(index)) == 6
    assert SearchIndex(index).get("2").text == "text 2"


@pytest.mark.usefixtures("separate_segments")
def test_two_segments_with_a_row_of_one_number_are_damage(index, default_embedder):
    IndexWriter(index, default_embedder).add([{"id": "new", "text": "another"}])
    shutil.copytree(index, index.with_name("copy"))
    changed_npy(index, "row_ids.npy", lambda rows: rows + 1)
    with pytest.raises(CorruptIndexError, match="two of its segments have rows of one number"):
        SearchIndex(index)
    resealed(index.with_name("copy"), lambda manifest: manifest["segments"].reverse())
    with pytest.raises(CorruptIndexError, match="two of its segments have rows of one number"):
        SearchIndex(index.with_name("copy"))


@pytest.mark.parametrize("next_row", [0, 4])
def test_the_next_row_has_a_new_number(index, next_row):
    resealed(index, lambda manifest: manifest.update(next_row=next_row))
    with pytest.raises(CorruptIndexError, match="the number of its next row is not above those of its rows"):
        SearchIndex(index)


@pytest.mark.parametrize(
    ("key", "greatest"), [("generation", 1 << 40), ("next_row", 1 << 48)], ids=["generation", "next_row"]
)
def test_numbers_that_a_writer_goes_on_from_have_room(index, default_embedder, key, greatest):
    for value in (greatest + 1, 2**53, 2**53 - 1):
        resealed(index, lambda manifest, value=value: manifest.update({key: value}))
        with pytest.raises(
            CorruptIndexError, match=f"{key} must be a whole number from . to {greatest}; found {value}"
        ):
            SearchIndex(index)
    resealed(index, lambda manifest: manifest.update({key: greatest}))
    before = {file: file.read_bytes() for file in index.rglob("*") if file.is_file() and "words" not in str(file)}
    with pytest.raises(
        CorruptIndexError, match=f"{key} must be a whole number from . to {greatest}; found {greatest + 1}"
    ):
        IndexWriter(index, default_embedder).add([{"id": "new", "text": "another"}])
    assert len(SearchIndex(index)) == 5
    after = {file: file.read_bytes() for file in index.rglob("*") if file.is_file() and "words" not in str(file)}
    assert {file: after[file] for file in before} == before


def test_deleted_rows_stand_in_order(index):
    IndexWriter(index).delete(["1", "3"])
    file = index / "generations" / "000002.npy"
    np.save(file, np.array([3, 1]))
    resealed(index, lambda manifest: manifest.update(deleted=file_checksums(file)))
    with pytest.raises(CorruptIndexError, match="does not hold ascending row numbers"):
        SearchIndex(index)
