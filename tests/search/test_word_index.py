"""Search by words: BM25 against NumPy, filters and deletions against brute force, damage, threads and processes."""

import copy
import json
import logging
import math
import os
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from conftest import replace

from sbert_mini import Embedder, IndexWriter, SearchIndex
from sbert_mini.errors import CorruptIndexError
from sbert_mini.files.durable import read_sealed_json, write_sealed_json
from sbert_mini.files.json_files import WORDS_VERSION
from sbert_mini.search import ranking, word_index
from sbert_mini.search.analyzer import query_terms, terms_of
from sbert_mini.search.ranking import rows_by_words
from sbert_mini.search.word_files import _SCHEMA, _SETTINGS
from sbert_mini.search.word_writer import index_in_memory
from sbert_mini.text.records import Record

pytestmark = pytest.mark.usefixtures("separate_segments")
VOCABULARY = [*"abcdefghijklm", "cats", "running", "Größe", "E-1042", "E-1043", "猫が", "naïve"]


def texts_of(rng, count):
    """Return texts of at most 40 words, whose lengths tantivy keeps as they are; frequent words first."""
    weights = 1 / np.arange(1, len(VOCABULARY) + 1)
    return [
        " ".join(rng.choice(VOCABULARY, rng.integers(1, 13), p=weights / weights.sum()).tolist()) for _ in range(count)
    ]


def bm25(texts, query, k1=1.2, b=0.75):
    """Return the scores of all texts, deleted ones included."""
    documents = [terms_of(text) for text in texts]
    mean = sum(map(len, documents)) / len(documents)
    scores = np.zeros(len(documents))
    for term in query_terms(query):
        count = sum(term in document for document in documents)
        weight = math.log(1 + (len(documents) - count + 0.5) / (count + 0.5))
        for row, document in enumerate(documents):
            frequency = document.count(term)
            scores[row] += (
                weight * frequency * (k1 + 1) / (frequency + k1 * (1 - b + b * len(document) / mean))
                if frequency
                else 0
            )
    return scores


def expected(texts, query, depth, counted=None):
    scores = bm25(texts, query)
    rows = [row for row in range(len(texts)) if scores[row] > 0 and (counted is None or counted[row])]
    return sorted(((row, round(scores[row], 4)) for row in rows), key=lambda pair: (-pair[1], pair[0]))[:depth]


def assert_ranked(found, right):
    """Scores agree to the precision of float32, and so does the order of rows whose scores differ by more."""
    assert [score for _, score in found] == pytest.approx([score for _, score in right], abs=3e-4)
    scores = dict(right)
    assert all(row not in scores or abs(scores[row] - score) < 3e-4 for row, score in found)
    assert len({row for row, _ in found}) == len(found)
    for (row, score), (other, lower) in pairwise(found):
        assert score > lower or (score == lower and row < other)


@pytest.fixture
def make(tmp_path, converted_model):
    """Make an index of texts, of which nothing is encoded."""
    embedder = Embedder(converted_model(), threads=1)

    def made(texts, path=tmp_path / "index", **options):
        records = [Record(text, str(i), {"n": i, "third": i % 3 == 0}) for i, text in enumerate(texts)]
        return IndexWriter(path, embedder, **options).create(records, vectors=vectors_of(len(texts)))

    made.embedder = embedder
    return made


def vectors_of(count, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((count, 28)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def add(make, index, texts, first):
    records = [
        Record(text, str(first + i), {"n": first + i, "third": (first + i) % 3 == 0}) for i, text in enumerate(texts)
    ]
    return IndexWriter(index.path, make.embedder).add(records, vectors=vectors_of(len(texts)))


def by_words(index, query, depth=10, filter=None):
    return rows_by_words(index._words, index._store.segments, query, depth, index._allowed(filter))


QUERIES = (
    "a",
    "b c",
    "cat running",
    "größe",
    "E-1042",
    "e1043 猫",
    "naive unknown",
    "unknown",
    "",
    "a b c d e f g h cats",
)


def test_words_are_ranked_by_bm25(make, rng):
    texts = texts_of(rng, 300)
    index = make(texts)
    for query in QUERIES:
        for depth in (1, 10, 400, 10**12):
            assert_ranked(by_words(index, query, depth), expected(texts, query, depth))


def test_statistics_are_those_of_all_segments_and_count_deleted_rows(make, rng):
    texts = texts_of(rng, 200)
    index = make(texts[:120])
    add(make, index, texts[120:150], 120)
    index = add(make, index, texts[150:], 150)
    gone = [3, 7, 119, 120, 149, 199]
    counted = np.ones(200, bool)
    for query in QUERIES:
        assert_ranked(by_words(index, query, 30), expected(texts, query, 30))
    IndexWriter(index.path).delete(str(row) for row in gone)
    counted[gone] = False
    index = SearchIndex(index.path)
    for query in QUERIES:
        assert_ranked(by_words(index, query, 300), expected(texts, query, 300, counted))
    index = IndexWriter(index.path).compact()
    left = np.flatnonzero(counted)
    for query in QUERIES:  # none of the deleted rows counts any more
        right = expected([texts[row] for row in left], query, 300)
        assert_ranked(by_words(index, query, 300), [(int(left[row]), score) for row, score in right])
    assert index.verify() == []


@pytest.mark.parametrize(
    ("few", "deepest", "one_by_one"), [(0, 7, 2000), (0, 20_000, 2000), (1000, 20_000, 2000), (1000, 20_000, 6)]
)
def test_a_filter_leaves_as_many_rows_as_meet_it_with_the_same_scores(make, rng, monkeypatch, few, deepest, one_by_one):
    monkeypatch.setattr(word_index, "FEW_ROWS", one_by_one)
    monkeypatch.setattr(ranking, "SCORED_ROWS", few)
    monkeypatch.setattr(ranking, "DEEPEST", deepest)
    texts = texts_of(rng, 400)
    index = make(texts[:300])
    index = add(make, index, texts[300:], 300)
    numbers = np.arange(400)
    for filter, counted in (
        ("third", numbers % 3 == 0),
        ("n >= 395", numbers >= 395),
        ("n = 17", numbers == 17),
        ("n < 390", numbers < 390),
        ("n < 0", numbers < 0),
    ):
        for query in QUERIES:
            for depth in (1, 5, 100):
                assert_ranked(by_words(index, query, depth, filter), expected(texts, query, depth, counted))


def test_few_rows_are_scored_by_many_words(make, rng):
    """256 look-ups, one inside the other."""
    words = [f"w{number}" for number in range(300)]
    texts = [" ".join(rng.choice(words, 12)) for _ in range(300)]
    index, counted = make(texts), np.arange(300) < 40
    query = " ".join(words)
    assert len(query_terms(query)) == 256
    assert_ranked(by_words(index, query, 100, "n < 40"), expected(texts, query, 100, counted))


def test_rows_of_equal_scores_come_in_the_order_of_their_numbers(make):
    texts = ["the same words", "other"] * 300
    index = add(make, make(texts), texts, 600)
    for depth in (1, 3, 100, 600):
        assert [row for row, _ in by_words(index, "same", depth)] == list(range(0, 1200, 2))[:depth]
        assert [row for row, _ in by_words(index, "same", depth, "n >= 11")] == list(range(12, 1200, 2))[:depth]


def test_identifiers_and_texts_without_spaces_are_found_first(make):
    texts = [f"Error E-{n}: the printer is out of paper" for n in range(1000, 1100)]
    texts += ["吾輩は猫である", "黒い猫と白い犬", "犬が好き", "서울은 큰 도시이다", "Die Größe der Übung"]
    index = make(texts)

    def first(query):
        return texts[by_words(index, query)[0][0]]

    assert "E-1042" in first("E-1042")
    assert "E-1042" in first("error e1042")
    assert first("白い犬") == "黒い猫と白い犬"
    assert first("서울") == "서울은 큰 도시이다"
    assert first("grosse ubung") == "Die Größe der Übung"
    assert len(by_words(index, "猫")) == 2


def test_queries_are_not_parsed(make):
    index = make(["a cat AND a dog", "text row and not", "plain"])
    for query in (
        "row:5",
        "text:[a TO z]",
        "NOT cat",
        "+cat -dog",
        "cat^9",
        '"cat dog"~3',
        "*",
        "/x/",
        "cat\\",
        "((",
        "\0",
    ):
        assert {row for row, _ in by_words(index, query)} == {
            row for row, _ in expected(["a cat AND a dog", "text row and not", "plain"], query, 9)
        }, query


def test_threads_and_forked_processes_share_an_index(make, rng):
    texts = texts_of(rng, 500)
    index = make(texts)
    right = {query: by_words(index, query, 50) for query in QUERIES}
    with ThreadPoolExecutor(8) as pool:
        for query, found in zip(QUERIES * 20, pool.map(lambda q: by_words(index, q, 50), QUERIES * 20), strict=True):
            assert found == right[query]
    for unopened in (False, True):
        shared = SearchIndex(index.path) if unopened else index
        child = os.fork()
        if child == 0:
            os._exit(0 if all(by_words(shared, query, 50) == right[query] for query in QUERIES) else 1)
        assert os.waitpid(child, 0)[1] == 0
    for other in (pickle.loads(pickle.dumps(index)), copy.copy(index), copy.deepcopy(index)):  # noqa: S301
        assert by_words(other, "b c", 50) == right["b c"]


def test_threads_that_find_no_words_make_them_once(make, rng, caplog):
    index = make(texts_of(rng, 100))
    right = by_words(index, "a b")
    shutil.rmtree(index.path / "words")
    index = SearchIndex(index.path)
    barrier = threading.Barrier(4)

    def search():
        barrier.wait()
        return by_words(index, "a b")

    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(search) for _ in range(4)]
        assert all(result.result() == right for result in results)
    assert [path.name for path in (index.path / "words").iterdir()] == ["000001"]
    assert caplog.text == ""


def words_files(path):
    """Return tantivy's files of the latest generation: their names and inodes."""
    folder = max((path / "words").iterdir())
    return {file.name: file.stat().st_ino for file in folder.iterdir() if file.suffix != ".json"}


def test_a_small_change_links_the_files_that_are_there(make, rng):
    index = make(texts_of(rng, 200))
    before = words_files(index.path)
    index = add(make, index, ["one more row"], 200)
    after = words_files(index.path)
    assert before.items() < after.items()
    assert len(after) == 2 * len(before)
    IndexWriter(index.path).delete(["5"])
    assert after.items() < words_files(index.path).items()
    for number in range(20):
        index = add(make, index, [f"row {number}"], 300 + number)
    assert len(words_files(index.path)) < 8 * 12  # tantivy merged small segments
    assert index.verify() == []
    assert len(by_words(index, "row", 100)) == 21


def test_an_index_that_cannot_be_linked_is_copied(make, rng, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    index = make(texts_of(rng, 50))
    monkeypatch.setattr(os, "link", refuse)
    before = words_files(index.path)
    index = add(make, index, ["one more row"], 50)
    assert before.keys() < words_files(index.path).keys()
    assert not set(before.values()) & set(words_files(index.path).values())
    assert [row for row, _ in by_words(index, "more")] == [50]


def test_a_reader_keeps_its_generation(make, rng, tmp_path):
    texts = texts_of(rng, 100)
    index = make(texts)
    add(make, index, ["unique"], 100)
    IndexWriter(index.path).delete(["1", "2"])
    assert {p.name for p in (index.path / "words").iterdir()} == {"000001", "000003"}
    assert by_words(index, "unique") == []
    assert_ranked(by_words(index, "a b", 100), expected(texts, "a b", 100))
    del index
    IndexWriter(tmp_path / "index").delete(["3"])
    assert {p.name for p in (tmp_path / "index" / "words").iterdir()} == {"000004"}


# --- the cache ----------------------------------------------------------------------------------------------------------------


def record_of(folder):
    return read_sealed_json(folder / "record.json", WORDS_VERSION, CorruptIndexError)


def test_words_are_a_cache(make, rng, caplog):
    index = make(texts_of(rng, 100))
    right = by_words(index, "a b")
    folder = index.path / "words" / "000001"
    for damage, noted in (
        (lambda: shutil.rmtree(folder.parent), ""),
        (lambda: shutil.rmtree(folder), ""),
        ((folder / "record.json").unlink, ""),
        (lambda: (folder / "record.json").write_text("{}"), "does not match the checksum"),
        (lambda: next(folder.glob("*.idx")).unlink(), "cannot be opened: No such file"),
        (lambda: os.truncate(next(folder.glob("*.term")), 50), "must hold"),
        (lambda: replace(next(folder.glob("*.idx")), b"x" * next(folder.glob("*.idx")).stat().st_size), "its checksum"),
        (lambda: write_sealed_json(folder / "record.json", record_of(folder) | {"analyzer": 0}), ""),
        (lambda: write_sealed_json(folder / "record.json", record_of(folder) | {"content": "0" * 64}), "other rows"),
        (lambda: write_sealed_json(folder / "record.json", record_of(folder) | {"rows": 1, "segments": []}), "list"),
        (lambda: _as_link(folder), "symbolic link"),
        (lambda: _as_link(next(folder.glob("*.idx"))), "not a regular file"),
    ):
        damage()
        for message in (noted, ""):
            caplog.clear()
            index = SearchIndex(index.path)
            assert (len(index.verify()) == 1) == bool(message)
            assert by_words(index, "a b") == right
            assert message in caplog.text
            assert ("making the index of words anew" in caplog.text) == bool(message)
        assert [path.name for path in folder.parent.iterdir()] == ["000001"]
        assert index.verify() == []


def _as_link(path):
    moved = path.parents[2] / "moved"
    shutil.rmtree(moved, ignore_errors=True)
    path.rename(moved)
    path.symlink_to(moved)


def test_files_that_are_damaged_in_a_running_process_are_made_anew(make, rng, caplog):
    index = make(texts_of(rng, 100))
    right = by_words(index, "a b")
    for change in (lambda file: os.truncate(file, 10), lambda file: file.write_bytes(bytes(file.stat().st_size))):
        for name in ("*.idx", "*.term", "*.fast"):
            change(next((index.path / "words" / "000001").glob(name)))
            caplog.clear()
            assert by_words(index, "a b") == right
            assert "making the index of words anew" in caplog.text
    shutil.rmtree(index.path / "words")
    caplog.clear()
    assert by_words(index, "a b") == right  # what was mapped stays
    assert caplog.text == ""


def sealed(folder):
    """Make the checksums of a folder agree with what lies there."""
    import hashlib

    record = record_of(folder)
    for name, entry in record["files"].items():
        data = (folder / name).read_bytes()
        entry.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    write_sealed_json(folder / "record.json", record)


def test_damaged_files_whose_checksums_agree_give_an_answer(make, rng, caplog):
    texts = texts_of(rng, 100)
    index = make(texts)
    right = by_words(index, "a b")
    folder = index.path / "words" / "000001"
    whole = shutil.copytree(folder, index.path.with_name("whole"))
    for kind in ("idx", "term", "fast", "fieldnorm", "store", "pos"):
        for damage in (
            lambda data: b"",
            lambda data: data[:-20],
            lambda data: bytes(len(data)),
            lambda data: data[::-1],
        ):
            shutil.rmtree(folder)
            shutil.copytree(whole, folder)
            file = next(folder.glob(f"*.{kind}"))
            replace(file, damage(file.read_bytes()))
            sealed(folder)
            index = SearchIndex(index.path)
            assert index.verify() == []
            found = by_words(index, "a b")
            assert found == right, kind


def test_a_writer_deletes_rows_where_words_of_right_checksums_are_damaged(make, rng, caplog):
    """tantivy deletes in a thread of its own, where a panic would end the process."""
    from tests.hostile.kinds import reseal

    index = make(texts_of(rng, 100))
    terms = next((index.path / "words" / "000001").glob("*.term"))
    data = terms.with_suffix(".pos").read_bytes()
    terms.unlink()  # generations share files
    terms.write_bytes(data)
    reseal(index.path)
    gone = next(hit.id for hit in index.search("a", 1))
    assert IndexWriter(index.path).delete([gone]) == 1
    assert "making the index of words anew" in caplog.text
    assert gone not in [hit.id for hit in SearchIndex(index.path).search("a b", 100, by="words")]


def test_a_writer_goes_on_from_words_that_are_damaged(make, rng, caplog):
    texts = texts_of(rng, 100)
    index = make(texts)
    folder = index.path / "words" / "000001"
    for number, kind in enumerate(("idx", "term", "fast", "record")):
        folder = index.path / "words" / f"{number + 1:06d}"
        file = next(folder.glob(f"*.{kind}"), folder / "record.json")
        os.truncate(file, 30)
        texts.append(f"new {number}")
        index = add(make, index, [f"new {number}"], 100 + number)
        assert_ranked(by_words(index, "new a", 200), expected(texts, "new a", 200))
        assert index.verify() == []


def test_an_index_that_cannot_be_written_is_searched(make, rng, caplog):
    index = make(texts_of(rng, 100))
    right = by_words(index, "a b")
    shutil.rmtree(index.path / "words")
    (index.path / "words").touch()
    index = SearchIndex(index.path)
    for _ in range(2):
        assert by_words(index, "a b") == right
    assert caplog.text.count("was not kept: ") == 1
    assert len(add(make, index, ["more"], 100)) == 101
    assert "was not made" in caplog.text


def test_words_open_where_nothing_can_be_written(make, rng, monkeypatch):
    index = make(texts_of(rng, 100))
    right = by_words(index, "a b")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("sbert_mini.search.word_files.scratch_folder", refuse)
    assert by_words(SearchIndex(index.path), "a b") == right


def test_the_lists_of_tantivy_that_are_written_are_those_that_it_would_write(tmp_path):
    from tantivy import Index

    Index(index_in_memory().schema, path=str(tmp_path))
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert meta["schema"] == _SCHEMA
    assert meta["segments"] == []
    assert meta["index_settings"].keys() == _SETTINGS.keys()


# --- crashes --------------------------------------------------------------------------------------------------------------------

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink"}


def dies_after(steps, change):
    """Make a change in a forked child that ends at some step; return whether it ended before."""
    child = os.fork()
    if child == 0:
        import sys

        logging.disable()
        left = [steps]

        def hook(event, arguments):
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if event in CHANGES or writes:
                left[0] -= 1
                if left[0] < 0:
                    os._exit(7)

        sys.addaudithook(hook)
        try:
            change()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 7)
    return status == 0


KINDS = ("add", "update", "delete", "compact")


@pytest.mark.parametrize("kind", KINDS)
def test_a_writer_that_dies_leaves_words_that_are_right(make, rng, tmp_path, kind):
    through_steps(make, rng, tmp_path, kind, KINDS.index(kind), 17)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_writer_that_dies_at_any_step_leaves_words_that_are_right(make, rng, tmp_path, kind):
    assert through_steps(make, rng, tmp_path, kind, 0, 1) > 40


def through_steps(make, rng, tmp_path, kind, first, stride):
    """Let a writer die at every so many steps of a change; return after how many it lives."""
    texts = texts_of(rng, 60)
    base = make(texts[:40], tmp_path / "base")
    base = add(make, base, texts[40:], 40)
    before = {query: by_words(base, query, 100) for query in QUERIES}
    del base
    path = tmp_path / "index"

    def change():
        writer = IndexWriter(path, make.embedder)
        if kind == "add":
            writer.add([Record("a unique row", "new", {"n": 1, "third": True})], vectors=vectors_of(1))
        elif kind == "update":
            writer.update([Record("a unique row", "3", {"n": 1, "third": True})], vectors=vectors_of(1))
        elif kind == "delete":
            writer.delete(["3"])
        else:
            writer.compact()

    steps, finished = first, False
    while not finished:
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(tmp_path / "base", path)
        finished = dies_after(steps, change)
        index = SearchIndex(path)
        assert index.verify() == [], steps
        rows = {row.id: row.text for row in index.rows()}
        assert {rows_id(index, row) for row, _ in by_words(index, "a unique", 100)} == {
            identity for identity, text in rows.items() if {"a", "unique"} & set(terms_of(text))
        }
        if index.generation == 2:  # as it was
            assert {query: by_words(index, query, 100) for query in QUERIES} == before
        del index
        IndexWriter(path).delete(["10"])  # the next writer goes on, and removes what was left
        index = SearchIndex(path)
        assert index.verify() == []
        assert [p.name for p in (path / "words").iterdir()] == [f"{index.generation:06d}"]
        steps += stride
    return steps


def rows_id(index, row):
    segment, position = index._store.locate(row)
    return segment.row(position).id
