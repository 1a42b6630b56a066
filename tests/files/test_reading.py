"""Files of models and indexes: a name that leads to a device or a FIFO is one line of error, at once."""

import ast
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import pytest

import sbert_mini
from sbert_mini import Embedder, IndexWriter, SearchIndex
from sbert_mini.errors import CorruptModelError, InputError, SbertMiniError
from sbert_mini.files.json_schema import Anything, read_json
from sbert_mini.files.reading import check_regular, open_regular, open_stream, read_whole
from sbert_mini.text.records import Record


@pytest.fixture(autouse=True)
def _no_waiting():
    """End a test that waits on a FIFO."""
    signal.alarm(400)
    yield
    signal.alarm(0)


@pytest.fixture(params=["fifo", "device", "folder", "link to a fifo"])
def other(request, tmp_path):
    """Return a path that is no regular file."""
    path = tmp_path / "other"
    if "fifo" in request.param:
        os.mkfifo(tmp_path / "fifo")
        path.symlink_to("fifo")
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return path


@pytest.mark.parametrize("read", [check_regular, open_regular, open_stream, read_whole])
def test_only_regular_files_are_opened(other, read):
    with pytest.raises(OSError, match="not a regular file"):
        read(other)


def test_a_file_that_is_read_whole_has_a_greatest_size(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"12345")
    assert read_whole(file, 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_whole(file, 4)


def test_json(other):
    with pytest.raises(InputError, match="not a regular file"):
        read_json(other, Anything(), InputError)


def _files_of(folder):
    return sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())


def _to(file, target):
    file.unlink()
    if target == "fifo":
        os.mkfifo(file)
    else:
        file.symlink_to(target)


@pytest.mark.parametrize("target", ["fifo", "/dev/zero"])
def test_every_file_of_a_model(tmp_path, converted_model, target):
    """Each file of a model becomes a FIFO or a link to a device: an error of ours, or an answer without it."""
    first = converted_model()
    for name in _files_of(first):
        model = tmp_path / "model"
        shutil.copytree(first, model)
        _to(model / name, target)
        with suppress(SbertMiniError):
            Embedder(model, threads=1).encode(["the cat"])
        shutil.rmtree(model)


@pytest.mark.parametrize("target", ["fifo", "/dev/zero"])
def test_every_file_of_an_index(tmp_path, converted_model, target):
    first = tmp_path / "first"
    writer = IndexWriter(first, Embedder(converted_model(), threads=1))
    writer.create([Record("the cat", "a", {"n": 1}), Record("a dog", "b", {"n": 2})])
    writer.delete(["b"])
    for name in _files_of(first):
        if name.name == "LOCK":
            continue
        path = tmp_path / "index"
        shutil.copytree(first, path)
        _to(path / name, target)
        for options in ({}, {"filter": "n > 1"}, {"hybrid": True}):
            with suppress(SbertMiniError):
                SearchIndex(path, threads=1).search("the cat", 1, **options)
        with suppress(SbertMiniError):
            IndexWriter(path).delete(["a"])
        shutil.rmtree(path)


def test_a_soup_copies_no_device(tmp_path, make_model):
    from sbert_mini.training.averaging import soup

    first = make_model()
    for name in ("a", "b"):
        shutil.copytree(first, tmp_path / name)
    (tmp_path / "a" / "extra").symlink_to("/dev/zero")
    with pytest.raises(CorruptModelError, match="extra cannot be copied"):
        soup([tmp_path / "a", tmp_path / "b"], tmp_path / "out")


READERS = {
    "files": {"json_schema.py"},
    "model": {"heads.py", "int8_weights.py", "layout.py", "onnx_file.py", "weights.py"},
    "runtime": {"fingerprint.py", "graph_record.py"},
    "search": {"checksums.py", "faiss_file.py", "reduction.py", "store.py", "word_index.py", "passages.py"},
    "text": {"tokenizer_file.py"},
}
"""Modules that read files of models and indexes, and write none by an `open` of their own."""


def _opens(source):
    """Return the lines on which a module opens a file itself, or hands an unchecked path to a library that does."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        checked = any(isinstance(n, ast.Name) and n.id == "check_regular" for n in ast.walk(node))
        is_method_of_own = name == "open" and isinstance(node.func, ast.Attribute) and not node.args
        if name in {"read_bytes", "read_text", "safe_open", "open"} and not checked and not is_method_of_own:
            lines.append(node.lineno)
    return lines


def test_what_the_reader_of_the_source_finds():
    assert _opens("path.read_bytes()") == [1]
    assert _opens("os.open(path, 0)") == [1]
    assert _opens("with safe_open(path, 'numpy') as f:\n    pass") == [1]
    assert not _opens("safe_open(check_regular(path), 'numpy'); read_whole(path); file.open()")


def test_modules_that_read_models_and_indexes_open_files_in_one_way():
    package = Path(sbert_mini.__file__).parent
    found = {
        f"{room}/{name}": lines
        for room, names in READERS.items()
        for name in names
        if (lines := _opens((package / room / name).read_text("utf-8")))
    }
    assert found == {}
