"""A creation that was interrupted continues, and an index is replaced in one step."""

import shutil

import pytest

from sbert_mini import Embedder, IndexWriter, SearchIndex
from sbert_mini.errors import IndexExistsError, InputError
from sbert_mini.search import journal
from sbert_mini.search.journal import journal_folder
from sbert_mini.text.records import Record

TEXTS = [
    "the cat",
    "a dog",
    "the tree and a cat",
    "a dog. the cat. a tree. the dog.",
    "a cat",
    "the dog",
    "tree",
    "cat",
]


def records(texts=TEXTS):
    return [Record(text, str(i), {"n": i}) for i, text in enumerate(texts)]


def interrupted(rows, after):
    yield from rows[:after]
    raise KeyboardInterrupt


@pytest.fixture
def model(converted_model):
    return Embedder(converted_model(), threads=1)


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(journal, "_WINDOW", 2)


@pytest.mark.parametrize("options", [{"passage_tokens": 4, "overlap": 0}, {"truncation": "chunk"}])
@pytest.mark.usefixtures("small_windows")
def test_an_interrupted_creation_continues(tmp_path, model, options):
    path = tmp_path / "index"
    with pytest.raises(KeyboardInterrupt):
        IndexWriter(path, model, **options).create(interrupted(records(), 6), resume=True)
    assert not path.exists()
    assert journal_folder(path).exists()
    changed = [*TEXTS[:2], "the tree, changed", *TEXTS[3:]]  # the input may change: what is stored is what it holds now
    writer = IndexWriter(path, model, **options)
    index = writer.create(records(changed), resume=True)
    plain = IndexWriter(tmp_path / "plain", model, **options).create(records(changed))
    assert 0 < writer.counts.encoding.texts < index.vectors
    assert writer.counts.encoding.texts + writer.counts.resumed == index.vectors == plain.vectors
    assert list(index.rows()) == list(plain.rows())
    for segment in ("000001",):
        one, other = ((p / "segments" / segment / "vectors.npy").read_bytes() for p in (path, tmp_path / "plain"))
        assert one == other
    assert not journal_folder(path).exists()


@pytest.mark.usefixtures("small_windows")
def test_what_another_model_left_is_refused(tmp_path, model):
    path = tmp_path / "index"
    with pytest.raises(KeyboardInterrupt):
        IndexWriter(path, model).create(interrupted(records(), 6), resume=True)
    with pytest.raises(InputError, match="left by a command with another model, prompt or way with long texts"):
        IndexWriter(path, model).create(records(), resume=True, prompt="the ")
    assert not path.exists()
    with pytest.raises(InputError, match="no text to index"):
        IndexWriter(tmp_path / "empty", model).create([], resume=True)
    assert not journal_folder(tmp_path / "empty").exists()


def test_an_index_is_replaced_in_one_step(tmp_path, model):
    path = tmp_path / "index"
    IndexWriter(path, model).create(records())
    reader = SearchIndex(path)
    with pytest.raises(IndexExistsError, match=r"holds an index already.*--overwrite"):
        IndexWriter(path, model).create(records(TEXTS[:2]))
    with pytest.raises(InputError, match="stands on line 1 and again"):
        IndexWriter(path, model).create([*records(), Record("again", "0")], overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        IndexWriter(path, model).create(interrupted(records(), 3), overwrite=True)
    assert (SearchIndex(path).generation, SearchIndex(path).verify()) == (1, [])
    (path / "notes.txt").write_text("mine")
    fast = Embedder("sbert-mini-fast", threads=1)
    index = IndexWriter(path, fast).create([Record("bread", "0", {"n": "text now"})], overwrite=True)
    assert (len(index), index.generation, index.columns, index.model.dimension) == (1, 2, {"n": "text"}, fast.dimension)
    assert index.search("bread", 1)[0].id == "0"
    assert index.verify() == []
    assert [row.id for row in reader.rows()] == [str(i) for i in range(len(TEXTS))]  # opened before: as it was
    assert len(reader.search("cat", 3, embedder=model)) == 3
    del reader
    IndexWriter(path, fast).add([Record("water", "1", {"n": "x"})])
    assert not (path / "segments" / "000001").exists()
    assert (path / "notes.txt").read_text() == "mine"
    shutil.rmtree(path)
    assert len(IndexWriter(path, model).create(records(), overwrite=True)) == len(TEXTS)
