"""A crafted index names nothing outside of its own directory; what dead processes left in it is removed."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest

from sbert_mini import IndexWriter, SearchIndex
from sbert_mini.errors import CorruptIndexError
from sbert_mini.files.durable import json_bytes, read_sealed_json, write_sealed_json
from sbert_mini.text.records import Record


@pytest.fixture
def index(tmp_path, default_embedder):
    path = tmp_path / "my.index"
    IndexWriter(path, default_embedder).create([Record(f"text {i}", id=str(i)) for i in range(5)])
    return path


def renamed(path, name):
    """Give a segment another name in the manifest, all checksums right."""
    pointer = read_sealed_json(path / "CURRENT", CorruptIndexError)
    file = path / pointer["manifest"]
    manifest = json.loads(file.read_bytes())
    manifest["segments"][0]["name"] = name
    file.write_bytes(json_bytes(manifest))
    pointer["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    write_sealed_json(path / "CURRENT", pointer)


@pytest.mark.parametrize("name", ["../../*", "a/*", "../../x", "00001", "٠٠٠٠٠١", "000001\n", "", "."])
def test_a_segments_name_is_digits(index, name, tmp_path):
    (tmp_path / "keys.kdbx").touch()
    renamed(index, name)
    for call in (
        SearchIndex,
        lambda path: IndexWriter(path).compact(kind="SQ8"),
        lambda path: IndexWriter(path).delete(["1"]),
    ):
        with pytest.raises(CorruptIndexError, match="a segment's name must be six digits or more"):
            call(index)
    assert (tmp_path / "keys.kdbx").exists()


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
    IndexWriter(index).delete(["1"])
    assert (left.exists(), alive.exists()) == (False, True)
