"""Making an index where a creation died: what it left is removed, by name, and nothing else is."""

import pytest

from sbert_mini import IndexWriter, SearchIndex
from sbert_mini.errors import CorruptIndexError, IndexExistsError, IndexNotFoundError, InputError

LEFT = (
    "generations/000001.json",
    "generations/000001.npy",
    "generations/.000001.json.999999999.2750ed92.part",
    "segments/.000001.part/rows.jsonl",
    "segments/.000001.part/columns.spool",
    "segments/.000001.part/.vectors.npy.999999999.2750ed92.part",
    "segments/000001/checksums.json",
    "segments/000001/passages.npy",
    "faiss/000001.faiss",
    "faiss/000001.json",
    "faiss/000001.repeats.npy",
    "words/000001/record.json",
    "words/000001/0123456789abcdef0123456789abcdef.term",
    "words/.000001.999999999.2750ed92.part/new/meta.json",
)
FOREIGN = (
    "generations/thesis.json",
    "generations/x/000001.json",
    "segments/thesis.docx",
    "segments/thesis/rows.jsonl",
    "segments/000001/thesis.docx",
    "segments/000001/x/rows.jsonl",
    "faiss/thesis.faiss",
    "faiss/000001/000001.faiss",
    "words/thesis",
    "words/000001/thesis.term",
    "thesis.docx",
)


def placed(path, *names):
    """Write files, and the mark of a creation."""
    path.mkdir(exist_ok=True)
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name)
    (path / "CREATING").touch()
    return path


def test_what_a_dead_creation_left_is_removed(tmp_path, default_embedder):
    path = placed(tmp_path / "x", *LEFT)
    with pytest.raises(IndexNotFoundError, match=r"its creation goes on, or was interrupted.*--resume"):
        SearchIndex(path)
    IndexWriter(path, default_embedder).create(["text one"])
    assert SearchIndex(path).verify() == []
    assert not any((path / name).exists() and (path / name).read_bytes() == name.encode() for name in LEFT)
    assert [folder.name for folder in (path / "segments").iterdir()] == ["000001"]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_directory_with_another_file_is_left_as_it_is(tmp_path, default_embedder, name):
    path = placed(tmp_path / "x", *LEFT, name)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(IndexExistsError, match=rf"must be empty or absent for a new index, and holds {name}"):
        IndexWriter(path, default_embedder).create(["text one"])
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("folder", ["generations", "segments", "faiss", "words"])
def test_a_link_is_not_followed(tmp_path, default_embedder, folder):
    victim = placed(tmp_path / "victim", *LEFT)
    path = placed(tmp_path / "x")
    (path / folder).symlink_to(victim / folder)
    with pytest.raises(CorruptIndexError, match=f"{folder} is a symbolic link"):
        IndexWriter(path, default_embedder).create(["text one"])
    assert all((victim / name).exists() for name in LEFT)


def test_a_link_in_the_place_of_a_file_is_removed_alone(tmp_path, default_embedder):
    (tmp_path / "thesis").write_text("thesis")
    path = placed(tmp_path / "x")
    (path / "faiss").mkdir()
    (path / "faiss" / "000001.faiss").symlink_to(tmp_path / "thesis")
    IndexWriter(path, default_embedder).create(["text one"])
    assert (tmp_path / "thesis").read_text() == "thesis"
    assert not (path / "faiss" / "000001.faiss").exists()


def test_a_creation_that_fails_leaves_nothing(tmp_path, default_embedder):
    for existed in (False, True):
        path = tmp_path / "x"
        if existed:
            placed(path, *LEFT)
        with pytest.raises(InputError, match="no text to index"):
            IndexWriter(path, default_embedder).create([])
        assert not path.exists() or not [file for file in path.rglob("*") if file.is_file() and file.suffix != ".part"]


def test_a_writer_removes_segments_and_words_by_name_alone(tmp_path, default_embedder):
    path = tmp_path / "x"
    writer = IndexWriter(path, default_embedder)
    writer.create([{"id": str(i), "text": f"text {i}"} for i in range(5)])
    for name in ("segments/000001/thesis.docx", "words/000001/thesis.docx"):
        (path / name).write_text("thesis")
    writer.delete(["1"])
    writer.compact()
    assert (path / "segments" / "000001" / "thesis.docx").read_text() == "thesis"
    assert (path / "words" / "000001" / "thesis.docx").read_text() == "thesis"
    assert [file.name for file in (path / "segments" / "000001").iterdir()] == ["thesis.docx"]
    assert SearchIndex(path).verify() == []
