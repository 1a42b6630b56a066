"""Rows of several passages: search, filters, changes and damage, against the greatest cosine by brute force in NumPy."""

import itertools
import json
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import replace, tiny_converted_model
from indexes import unit

from sbert_mini import Embedder, IndexWriter, SearchIndex
from sbert_mini.errors import CorruptIndexError, TextTooLongError, UsageError
from sbert_mini.search.checksums import file_checksums
from sbert_mini.search.encoding import IndexCounts
from sbert_mini.search.passages import Passages
from sbert_mini.search.ranking import stored_cosines
from sbert_mini.text.records import Record

ROWS = 457
WORDS = [
    "the",
    "cat",
    "dog",
    "runs",
    "sleeps",
    "a",
    "red",
    "blue",
    "house",
    "tree",
    "bread",
    "dough",
    "rises",
    "zz",
    "qx",
]


def texts_of(rng, rows, most=90):
    """Return texts of 1 to `most` words, in sentences and paragraphs."""
    texts = []
    for _ in range(rows):
        words = rng.choice(WORDS, rng.integers(1, most)).tolist()
        for i in range(len(words)):
            words[i] += rng.choice([" ", " ", " ", ". ", ".\n\n"])
        texts.append("".join(words).strip())
    return texts


def records_of(rng, rows, first=0):
    return [
        Record(text, str(i), {"n": i, "lang": ("en", "de", "fr")[i % 3]})
        for i, text in enumerate(texts_of(rng, rows), start=first)
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Embedder(tiny_converted_model(tmp_path_factory.mktemp("model")), threads=1)


@pytest.fixture(scope="module")
def three_segments(tmp_path_factory, model):
    """An index of three segments with rows replaced and deleted, of about four passages a row."""
    path, rng = tmp_path_factory.mktemp("passages") / "index", np.random.default_rng(11)
    writer = IndexWriter(path, model, passage_tokens=13, overlap=3)
    writer.create(records_of(rng, ROWS))
    writer.update(records_of(rng, 31, first=100))
    writer.add(records_of(rng, 61, first=ROWS))
    writer.delete([str(i) for i in range(0, 90, 7)])
    return path


@pytest.fixture
def path(tmp_path, three_segments):
    """A copy of `three_segments`, which a test may change."""
    return shutil.copytree(three_segments, tmp_path / "index")


def stored(path):
    """Return id -> (text, columns, passages, vectors) of a generation, read without this package but for its manifest."""
    index = SearchIndex(path)
    alive = {row.id: row for row in index.rows()}
    rows = {}
    for entry in index._store.manifest["segments"]:
        folder = path / "segments" / entry["name"]
        vectors = np.load(folder / "vectors.npy")
        lines = [json.loads(line) for line in (folder / "rows.jsonl").read_text("utf-8").splitlines()]
        spans = [[i, 0, len(row["text"])] for i, row in enumerate(lines)]
        if (folder / "passages.npy").exists():
            spans = np.load(folder / "passages.npy").tolist()
        for i, row in enumerate(lines):
            if row["id"] in alive and alive[row["id"]].text == row["text"]:
                mine = [v for v, span in enumerate(spans) if span[0] == i]
                rows[row["id"]] = (row["text"], row["columns"], [spans[v][1:] for v in mine], vectors[mine])
    assert set(rows) == set(alive)
    return rows


def best(rows, query):
    """Return (cosine, id, start, end) of each row's best passage, nearest first."""
    ranked = []
    for identity, (_, _, spans, vectors) in rows.items():
        cosines = vectors @ query
        at = int(np.argmax(cosines))
        ranked.append((float(cosines[at]), identity, *spans[at]))
    return sorted(ranked, key=lambda row: -row[0])


def assert_finds(index, rows, queries, k, **options):
    for query, hits in zip(queries, index.search(queries, k, **options), strict=True):
        truth = best(rows, query)[:k]
        assert len(hits) == len(truth)
        np.testing.assert_allclose([hit.score for hit in hits], [row[0] for row in truth], atol=1e-5)
        assert len({hit.id for hit in hits}) == len(hits)
        by_id = {row[1]: row for row in best(rows, query)}
        for hit in hits:
            assert hit.score == pytest.approx(by_id[hit.id][0], abs=1e-5)
            assert hit.text == rows[hit.id][0]
            spans = {tuple(span): c for span, c in zip(rows[hit.id][2], rows[hit.id][3] @ query, strict=True)}
            assert spans[hit.start, hit.end] == pytest.approx(hit.score, abs=1e-5)
            assert hit.passage == hit.text[hit.start : hit.end]


@pytest.fixture
def queries(rng):
    return unit(rng.standard_normal((11, 28)))


def test_a_rows_vectors_are_those_of_its_passages(path, model):
    rows = stored(path)
    assert sum(len(spans) > 1 for _, _, spans, _ in rows.values()) > 300
    for text, _, spans, vectors in rows.values():
        assert sorted(spans) == spans
        assert spans[0][0] == 0
        assert spans[-1][1] == len(text)
        np.testing.assert_allclose(vectors, model.encode([text[a:b] for a, b in spans]), atol=1e-3)
        for (_, end), (start, _) in itertools.pairwise(spans):
            assert not text[end:start].strip()  # nothing between two passages is left out
        if len(spans) > 1:
            assert all(len(model.tokenize(text[a:b])["input_ids"][0]) <= 13 + 2 for a, b in spans)


@pytest.mark.parametrize("k", [1, 10, 400, 5000])
def test_hits_are_rows_by_their_best_passage(path, queries, k):
    index = SearchIndex(path)
    assert index.vectors > 2 * len(index)
    assert_finds(index, stored(path), queries, k)


def test_k_counts_rows_where_one_row_has_the_nearest_passages(tmp_path, model, queries):
    """One row of 300 passages around the query: a search of as many vectors as hits would find this row alone."""
    long = " ".join(["the cat runs. a red house."] * 300)
    path = tmp_path / "index"
    IndexWriter(path, model, passage_tokens=8, overlap=0).create([Record(long, "long"), *map(Record, WORDS)])
    query = model.encode(["the cat runs. a red house."])
    hits = SearchIndex(path).search(query, 5)[0]
    assert [len(hits), hits[0].id] == [5, "long"]
    assert_finds(SearchIndex(path), stored(path), np.concatenate([query, queries]), 12)


def test_filters_and_deletions_count_rows(path, queries):
    rows = {i: row for i, row in stored(path).items() if row[1]["lang"] == "en" and row[1]["n"] > 30}
    assert_finds(SearchIndex(path), rows, queries, 9, filter="lang = 'en' and n > 30")
    few = {i: row for i, row in rows.items() if row[1]["n"] < 40}
    assert len(few) == 3
    assert_finds(SearchIndex(path), few, queries, 9, filter="lang = 'en' and n > 30 and n < 40")


KINDS = ["SQ8", "IVF16,SQ8"] + [
    pytest.param(kind, marks=pytest.mark.long) for kind in ("SQfp16", "HNSW16_SQ8", "IVF16,RaBitQ")
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_finds_rows_by_their_best_passage(tmp_path, model, rng, kind, monkeypatch):
    monkeypatch.setattr("sbert_mini.search.nearest.SCANNED_ROWS", 20)  # so that FAISS is asked with a filter too
    path = tmp_path / "index"
    writer = IndexWriter(path, model, passage_tokens=9, overlap=0)
    writer.create(records_of(rng, ROWS), kind=kind)
    writer.delete([str(i) for i in range(0, ROWS, 5)])
    index, rows, queries = SearchIndex(path), stored(path), model.encode(texts_of(rng, 23, most=9))
    assert index.segment_kinds == [kind]
    assert index.vectors > 1000
    for options, keep in (({}, lambda n: True), ({"filter": "n % 4 = 1"}, lambda n: n % 4 == 1)):
        allowed = {i: row for i, row in rows.items() if keep(row[1]["n"])}
        overlap = []
        for query, hits in zip(queries, index.search(queries, 10, **options), strict=True):
            truth = best(allowed, query)
            scores = {row[1]: row[0] for row in truth}
            overlap.append(len({hit.id for hit in hits} & {row[1] for row in truth[:10]}))
            assert len({hit.id for hit in hits}) == 10
            assert all(hit.score == pytest.approx(scores[hit.id], abs=1e-5) for hit in hits)
        assert sum(overlap) >= 0.95 * 10 * len(queries)
    assert_finds(index, rows, queries, 10, exact=True)
    assert index.verify() == []


def test_compaction_keeps_passages(path, queries):
    before = stored(path)
    index = IndexWriter(path).compact()
    assert (index.segments, index.deleted_rows) == (1, 0)
    after = stored(path)
    assert {i: row[:3] for i, row in before.items()} == {i: row[:3] for i, row in after.items()}
    for identity, row in before.items():
        np.testing.assert_array_equal(row[3], after[identity][3])
    assert_finds(index, before, queries, 10)
    assert index.verify() == []
    assert index.long_texts.tokens == 13
    assert IndexWriter(path).compact(kind="SQ8").segment_kinds == ["SQ8"]


def test_an_update_replaces_all_passages_of_a_row(path, model, queries):
    IndexWriter(path, model).update([Record("the cat", "111", {"n": 111, "lang": "en"})])
    rows = stored(path)
    assert rows["111"][2] == [[0, 7]]
    assert_finds(SearchIndex(path), rows, queries, 500)


def test_an_index_follows_its_note(path, model, rng):
    long = texts_of(rng, 1, most=91)[0] + " the cat" * 40
    counts = IndexCounts()
    IndexWriter(path, model, counts=counts).add([Record(long, "new"), Record("the cat", "short")])
    assert (counts.rows, counts.split, counts.passages) == (2, 1, len(stored(path)["new"][2]))
    assert counts.encoding.truncated == 0
    assert all(len(model.tokenize(long[a:b])["input_ids"][0]) <= 15 for a, b in stored(path)["new"][2])
    IndexWriter(path, model, truncation="warn").add([Record(long, "cut")])
    assert stored(path)["cut"][2] == [[0, len(long)]]
    assert SearchIndex(path).long_texts.truncation == "passages"
    with pytest.raises(TextTooLongError, match="longer than 31 tokens"):
        IndexWriter(path, model, truncation="error").add([Record(long, "other")])


def test_short_texts_and_given_vectors_cost_nothing(tmp_path, model, clustered_vectors):
    path = tmp_path / "index"
    index = IndexWriter(path, model).create(["the cat", "a dog"])
    assert index.long_texts.truncation == "passages"
    long = "the cat " * 100
    index = IndexWriter(path, model).add([Record(long, "long")], vectors=clustered_vectors[:1])
    assert index.vectors == len(index) == 3
    assert not list(path.glob("segments/*/passages.npy"))
    assert json.loads((path / "generations" / "000002.json").read_text())["format_version"] == 3
    hit = index.search(clustered_vectors[:1], 1)[0][0]
    assert (hit.id, hit.start, hit.end, hit.passage) == ("long", 0, len(long), long)


def test_only_an_index_with_passages_is_of_format_4(path):
    assert json.loads((path / "CURRENT").read_bytes()[:-65])["format_version"] == 4


def test_options_that_do_not_fit_are_refused(tmp_path, model):
    for options, message in (
        ({"truncation": "warn", "overlap": 3}, "overlap is for truncation='passages', and truncation is 'warn'"),
        ({"truncation": "split"}, "truncation must be warn, error, chunk, passages or None; found 'split'"),
        ({"passage_tokens": 30}, "passage_tokens must be from 2 to 29, .*found 30"),
        ({"passage_tokens": 20, "overlap": 11}, "the overlap must be from 0 to 10 tokens.*found 11"),
        ({"overlap": -1}, "overlap must be at least 0; found -1"),
    ):
        with pytest.raises(UsageError, match=message):
            IndexWriter(tmp_path / "index", model, **options).create(["the cat"])
    with pytest.raises(UsageError, match="an index also has passages"):
        model.encode(["the cat"], truncation="passages")
    assert not (tmp_path / "index").exists()


def test_a_prompt_stands_before_every_passage(tmp_path, model):
    text = "the cat runs. " * 30
    index = IndexWriter(tmp_path / "index", model).create([Record(text, "a")], prompt="a red dog. ")
    assert index.long_texts.tokens == 31 - 2 - 4
    _, _, spans, vectors = stored(tmp_path / "index")["a"]
    np.testing.assert_allclose(vectors, model.encode([text[a:b] for a, b in spans], prompt="a red dog. "), atol=1e-3)
    assert all(len(model.tokenize("a red dog. " + text[a:b])["input_ids"][0]) <= 31 for a, b in spans)
    with pytest.raises(UsageError, match="leaves room for 0 tokens of a passage"):
        IndexWriter(tmp_path / "other", model).create([text], prompt="a red dog. " * 20)


def test_rows_with_their_mean_vectors(path):
    index, rows = SearchIndex(path), stored(path)
    seen = []
    for block, vectors in index.row_blocks():
        for row, vector in zip(block, vectors, strict=True):
            _, _, spans, passages = rows[row.id]
            mean = sum((b - a) * v for (a, b), v in zip(spans, passages, strict=True))
            np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)
            seen.append(row.id)
    assert seen == [row.id for row in index.rows()]


@pytest.mark.parametrize("by", ["meaning", "words", "both"])
def test_whatever_ranks_the_rows_a_hit_has_its_nearest_passage_and_its_cosine(path, model, by):
    rows = stored(path)
    query = "red bread zz"
    vector = model.encode_query(query)
    by_id = {row[1]: row for row in best(rows, vector)}
    hits = SearchIndex(path).search(query, 130, by=by)
    assert len(hits) == 130
    assert any(len(rows[hit.id][2]) > 1 for hit in hits)
    for hit in hits:
        assert (hit.start, hit.end) == tuple(by_id[hit.id][2:])
        assert hit.cosine == pytest.approx(by_id[hit.id][0], abs=1e-5)
    if by != "meaning":
        assert any(hit.rank_by_meaning is None for hit in hits)


def test_the_cosines_of_rows_are_those_of_their_nearest_passages(path, queries):
    index, rows = SearchIndex(path), stored(path)
    alive = [row for row in range(ROWS + 31 + 61) if not index._store.is_deleted(row)]
    for query in queries[:3]:
        expected = {identity: cosine for cosine, identity, *_ in best(rows, query)}
        for numbers in (alive, alive[::7], alive[:1], alive[-2:], []):
            cosines = stored_cosines(index._store.segments, query, reversed(numbers))
            ids = {row: segment.row(at).id for row in numbers for segment, at in [index._store.locate(row)]}
            assert cosines.keys() == set(numbers)
            assert all(cosines[row] == pytest.approx(expected[ids[row]], abs=1e-5) for row in numbers)


def test_pickles_search_the_same(path, queries):
    index = SearchIndex(path)
    copy = pickle.loads(pickle.dumps(index))  # noqa: S301
    assert copy.search(queries, 7) == index.search(queries, 7)
    hit = index.search(queries, 1)[0][0]
    assert pickle.loads(pickle.dumps(hit)) == hit  # noqa: S301


def test_every_flipped_bit_of_the_passages_is_found(path, rng):
    file = path / "segments" / "000001" / "passages.npy"
    data = file.read_bytes()
    for position in {0, len(data) - 1, *rng.integers(0, len(data), 20).tolist()}:
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(rng.integers(8))
        replace(file, damaged)
        assert "passages.npy" in SearchIndex(path).verify()[0]
        with pytest.raises(CorruptIndexError, match=r"passages\.npy"):
            SearchIndex(path).search(unit(rng.standard_normal((1, 28))), 3)
    replace(file, data)
    assert SearchIndex(path).verify() == []


def spans_of(change):
    """Return the passages of three rows, changed."""
    spans = np.array([[0, 0, 5], [0, 4, 9], [1, 0, 3], [2, 0, 2], [2, 2, 8]])
    change(spans)
    return spans


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.__setitem__((4, 0), 3),  # a row that the segment does not have
        lambda s: s.__setitem__((2, 0), 2),  # a row without a vector
        lambda s: s.__setitem__((slice(0, 2), 0), 1),  # the first row without a vector
        lambda s: s.__setitem__((1, 0), 2),  # not ascending
        lambda s: s.__setitem__((1, 1), 0),  # two passages that start at one place
        lambda s: s.__setitem__((4, 1), 8),  # an empty passage
        lambda s: s.__setitem__((4, 2), 1),  # a passage that ends before it starts
    ],
)
def test_passages_of_a_stranger_must_name_every_row_in_order(change, tmp_path):
    Passages(spans_of(lambda s: None), 3, tmp_path)
    with pytest.raises(CorruptIndexError, match="must name"):
        Passages(spans_of(change), 3, tmp_path)


def resealed_passages(path, spans):
    """Replace the passages of the first segment, every checksum right."""
    from tests.hostile.kinds import reseal

    np.save(path / "segments" / "000001" / "passages.npy", spans)
    reseal(path)


def test_a_passage_beyond_its_text_is_refused(path, queries):
    spans = np.load(path / "segments" / "000001" / "passages.npy")
    last = np.flatnonzero(np.diff(spans[:, 0], append=-1))
    spans[last, 2] += 1000
    resealed_passages(path, spans)
    assert file_checksums(path / "segments" / "000001" / "passages.npy")
    with pytest.raises(CorruptIndexError, match=r"passages\.npy: row \d+ has \d+ characters, and no \d+"):
        SearchIndex(path).search(queries, 500)


def test_passages_of_another_number_are_refused(path, queries):
    spans = np.load(path / "segments" / "000001" / "passages.npy")
    resealed_passages(path, spans[:-1])
    with pytest.raises(CorruptIndexError, match=r"must hold int64 of the shape \(\d+, 3\)"):
        SearchIndex(path).search(queries, 5)


def test_a_manifest_whose_vectors_do_not_fit_is_refused(path):
    from test_store import resealed

    for vectors in (1, ROWS, 2**53):
        resealed(path, lambda manifest, n=vectors: manifest["segments"][0].update(vectors=n))
        with pytest.raises(CorruptIndexError, match=f"{vectors} vectors of {ROWS} rows do not fit"):
            SearchIndex(path)


WRITER = """
import sys
from sbert_mini import Embedder, IndexWriter
from sbert_mini.text.records import Record
model = Embedder(sys.argv[1], threads=1)
print("ready", flush=True)
writer = IndexWriter(sys.argv[2], model, passage_tokens=9)
first = int(sys.argv[3])
while True:
    rows = [Record("the cat runs. " * (i % 29 + 1) + str(i), str(i)) for i in range(first, first + 37)]
    (writer.add if first else writer.create)(rows)
    first += 37
    print(first, flush=True)
    if first % 148 == 0:
        writer.compact()
"""


def test_a_killed_writer_loses_no_acknowledged_passage(tmp_path, model, rng):
    path, acknowledged = tmp_path / "index", 0
    for delay_s in rng.uniform(0.0, 0.5, 4):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, model.path, path, str(acknowledged)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout.readline() == "ready\n"
        acknowledged = int(child.stdout.readline())
        time.sleep(delay_s)
        child.send_signal(signal.SIGKILL)
        output, _ = child.communicate()
        acknowledged = int(output.splitlines()[-1]) if output else acknowledged
        index = SearchIndex(path)
        assert index.verify() == []
        assert len(index) in (acknowledged, acknowledged + 37)
        acknowledged = len(index)
        for text, _, spans, _ in stored(path).values():
            assert [spans[0][0], spans[-1][1]] == [0, len(text)]
    assert acknowledged >= 4 * 37
