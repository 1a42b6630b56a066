"""Kinds of index, filters, words, compaction, duplicates and reductions: against brute force in NumPy and by hand."""

import json
import math
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import replace

from sbert_mini import Embedder, IndexWriter, SearchIndex
from sbert_mini.errors import CorruptIndexError, InputError, UsageError
from sbert_mini.search.dedup import deduplicate
from sbert_mini.search.kinds import AUTOMATIC, EXACT, SearchKind, automatic, kind_of, lists_for
from sbert_mini.search.queries import fused
from sbert_mini.search.ranking import rows_by_words
from sbert_mini.search.reduction import Reduction, fit
from sbert_mini.search.segment import VECTOR_BLOCK_BYTES
from sbert_mini.search.words import Words, WordsWriter, stems_of, weights
from sbert_mini.text.records import Record

ROWS = 3001
KINDS = [
    "exact",
    "SQ8",
    "SQfp16",
    "IVF32,SQ8",
    "IVF32,Flat",
    "HNSW16_SQ8",
    "RaBitQ",
    "RaBitQ,Refine(SQ8)",
    "IVF32,RaBitQ",
]


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(7)
    centres = rng.standard_normal((40, 28))
    return unit(centres[rng.integers(0, 40, ROWS)] + 0.6 * rng.standard_normal((ROWS, 28)))


@pytest.fixture
def records():
    return [
        Record("the cat", str(i), {"n": i, "even": i % 2 == 0, "lang": ("en", "de", "fr")[i % 3]}) for i in range(ROWS)
    ]


def make(path, converted_model, records, vectors, **options):
    return IndexWriter(path, Embedder(converted_model())).create(records, vectors=vectors, **options)


@pytest.mark.parametrize("pca", [None, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_finds_what_brute_force_finds(tmp_path, converted_model, records, vectors, rng, kind, pca):
    index = make(tmp_path / "index", converted_model, records, vectors, kind=kind, pca=pca)
    named = "exact" if kind == "exact" else kind if pca is None else f"PCA20,{kind}"
    assert index.segment_kinds == [named]
    queries = unit(vectors[:37] + 0.02 * rng.standard_normal((37, 28)))
    exact = queries @ vectors.T
    truth = np.argsort(-exact, axis=1)[:, :11]
    scores, rows = index.nearest(queries, 11)
    np.testing.assert_allclose(
        scores, np.take_along_axis(exact, rows, 1), atol=1e-5
    )  # rescored: the cosines, whatever the kind
    assert np.mean([len(set(a) & set(b)) / 11 for a, b in zip(rows, truth, strict=True)]) >= (0.9 if pca else 0.97)
    _, rows = index.nearest(queries, 11, exact=True)
    np.testing.assert_array_equal(rows, truth)
    again = SearchIndex(tmp_path / "index")
    np.testing.assert_array_equal(again.nearest(queries, 11)[1], index.nearest(queries, 11)[1])
    assert again.verify() == []
    faiss = sorted(file.name for file in (tmp_path / "index" / "faiss").glob("*"))
    assert faiss == ([] if kind == "exact" else ["000001.faiss", "000001.json"])


@pytest.mark.parametrize("kind", KINDS)
def test_with_a_filter_k_rows_come_back_where_k_exist(tmp_path, converted_model, records, vectors, kind, monkeypatch):
    monkeypatch.setattr("sbert_mini.search.nearest.SCANNED_ROWS", 20)  # so that FAISS is asked at this size too
    index = make(tmp_path / "index", converted_model, records, vectors, kind=kind)
    IndexWriter(tmp_path / "index").delete([str(i) for i in range(0, ROWS, 5)])
    index = SearchIndex(tmp_path / "index")
    queries = vectors[:13]
    exact = queries @ vectors.T
    for condition, keep in (
        ("n >= 0", lambda i: True),
        ("lang = 'en' and n < 2000", lambda i: i % 3 == 0 and i < 2000),
        ("n % 50 = 1", lambda i: i % 50 == 1),
        ("n in (1, 2, 3, 4)", lambda i: i in (1, 2, 3, 4)),
        ("n < 0", lambda i: False),
    ):
        allowed = np.array([keep(i) and i % 5 != 0 for i in range(ROWS)])
        _, rows = index.nearest(queries, 17, filter=condition)
        assert rows.shape == (13, min(17, allowed.sum())), condition
        assert allowed[rows].all()
        truth = np.argsort(-np.where(allowed, exact, -9), axis=1)[:, : rows.shape[1]]
        overlap = [len(set(a) & set(b)) for a, b in zip(rows, truth, strict=True)]
        assert sum(overlap) >= 0.95 * truth.size, condition
        assert all(len(set(row)) == len(row) for row in rows.tolist())


def test_the_kind_goes_by_the_number_of_rows():
    assert [automatic(n) for n in (1, 50_000, 50_001)] == ["exact", "exact", "IVF512,RaBitQ"]
    assert automatic(10**6) == "IVF2048,RaBitQ"
    assert automatic(3 * 10**7).endswith("RaBitQ")
    assert lists_for(10**6) == 2048
    assert kind_of("IVF,SQ8", 10**6) == "IVF2048,SQ8"
    assert kind_of("IVF256,SQ8", 900) == EXACT  # too few to train
    assert kind_of("IVF256,SQ8", 5000) == EXACT
    assert kind_of(AUTOMATIC, 30_000) == EXACT
    assert kind_of(AUTOMATIC, 30_000, 64) == "PCA64,SQ8"


@pytest.mark.parametrize(
    ("kind", "pca", "message"),
    [
        (
            "Nonsense",
            None,
            r"must be auto, exact, or a FAISS factory string such as SQ8, .* FAISS does not know 'Nonsense'",
        ),
        ("PQ9", None, r"does not know 'PQ9': The dimension of the vector \(d\) should be a multiple of"),
        ("PQ99999999999", None, "does not know 'PQ99999999999': one of its numbers is too large"),
        ("HNSW0_SQ8", None, "the number after HNSW in the kind 'HNSW0_SQ8' must be at least 2; found 0"),
        ("PCA8,HNSW1", None, "the number after HNSW .* must be at least 2; found 1"),
        ("NSG4", None, "the number after NSG .* must be at least 8; found 4"),
        ("IVF16,PQ0", None, "the number after PQ .* must be at least 1; found 0"),
        ("auto", 28, "below the 28"),
        ("auto", 0, "--pca"),
    ],
)
def test_a_kind_that_cannot_be_is_refused_before_anything_is_made(
    tmp_path, converted_model, records, vectors, kind, pca, message
):
    with pytest.raises(UsageError, match=message) as refused:
        make(tmp_path / "index", converted_model, records, vectors, kind=kind, pca=pca)
    assert not any(part in str(refused.value) for part in ("faiss::", ".cpp", "Error", "failed", "C++", "\n"))
    assert not (tmp_path / "index").exists()


def test_the_faiss_file_is_a_cache(tmp_path, converted_model, records, vectors, caplog):
    make(tmp_path / "index", converted_model, records, vectors, kind="SQ8")
    folder = tmp_path / "index" / "faiss"
    _, expected = SearchIndex(tmp_path / "index").nearest(vectors[:5], 5)
    for damage in (shutil.rmtree, lambda folder: (folder / "000001.faiss").write_bytes(b"nonsense")):
        damage(folder)
        for noted in (damage is not shutil.rmtree, False):
            caplog.clear()
            np.testing.assert_array_equal(SearchIndex(tmp_path / "index").nearest(vectors[:5], 5)[1], expected)
            assert ("making the FAISS file anew" in caplog.text) == noted


def test_damaged_lists_that_are_mapped_change_no_score(tmp_path, converted_model, records, vectors, rng):
    make(tmp_path / "index", converted_model, records, vectors, kind="IVF32,SQ8")
    file = tmp_path / "index" / "faiss" / "000001.faiss"
    start = json.loads((file.with_suffix(".json")).read_text().rsplit("\n", 2)[0])["lists_start"]
    data = bytearray(file.read_bytes())
    assert 0 < start < VECTOR_BLOCK_BYTES < len(data)
    np.testing.assert_array_less(len(data) - start - 1, ROWS * (28 + 8))
    for position in rng.integers(VECTOR_BLOCK_BYTES, len(data), 400):  # behind the block that holds the start
        data[position] ^= 255
    replace(file, data)
    index = SearchIndex(tmp_path / "index")
    try:
        scores, rows = index.nearest(vectors[:50], 5)
        np.testing.assert_allclose(scores, np.take_along_axis(vectors[:50] @ vectors.T, rows, 1), atol=1e-5)
    except CorruptIndexError as error:
        assert "names a row" in str(error)  # noqa: PT017
    (damage,) = index.verify()
    assert "does not match its checksum" in damage
    data[start - 5] ^= 1  # what stands before the lists is checked when it is opened, and the file made anew
    replace(file, data)
    index = SearchIndex(tmp_path / "index")
    index.prepare()
    assert index.verify() == []


def test_a_mapped_faiss_file_is_read_only_by_construction(tmp_path, converted_model, records, vectors):
    index = make(tmp_path / "index", converted_model, records, vectors, kind="IVF32,SQ8")
    (search,) = index._segment_searches()
    assert not any("add" in name or "remove" in name for name in dir(search))
    more = [Record("a dog", f"new {i}", {"n": -i}) for i in range(2000)]
    grown = IndexWriter(tmp_path / "index", index.embedder()).add(more, vectors=vectors[:2000])
    assert (len(grown), grown.segments, grown.segment_kinds) == (5001, 2, ["IVF32,SQ8", "IVF32,SQ8"])
    assert len(index) == ROWS


# --- vectors that are given ---


def test_given_vectors_must_fit(tmp_path, converted_model, records, vectors):
    for given, message in (
        (vectors[:-1], "3000 vectors, and more rows"),
        (np.concatenate([vectors, vectors[:2]]), "3003 vectors, and 3001 rows"),
        (vectors[:, :9], r"\(rows, 28\); found \(3001, 9\)"),
        (np.concatenate([vectors[:-1], 2 * vectors[-1:]]), "vector 3001 has the length 2.0"),
        (np.where(np.arange(ROWS)[:, None] == 11, np.nan, vectors), "vector 12 has the length nan"),
    ):
        with pytest.raises(InputError, match=message):
            make(tmp_path / "index", converted_model, records, given)
        assert not (tmp_path / "index").exists()


def test_given_vectors_stay_with_their_rows_where_rows_repeat(tmp_path, converted_model, vectors):
    rows = [Record("one"), Record("two"), Record("one"), Record("three")]
    index = make(tmp_path / "index", converted_model, rows, vectors[:4])
    assert [row.text for row in index.rows()] == ["one", "two", "three"]
    assert [index.search(vectors[i : i + 1], 1)[0][0].text for i in (0, 1, 3)] == ["one", "two", "three"]


# --- filters ---


def test_rows_are_deleted_by_a_filter(tmp_path, converted_model, records, vectors):
    make(tmp_path / "index", converted_model, records, vectors)
    assert IndexWriter(tmp_path / "index").delete(filter="lang = 'fr'") == 1000
    assert IndexWriter(tmp_path / "index").delete(filter="lang = 'fr'") == 0
    index = SearchIndex(tmp_path / "index")
    assert (len(index), index.generation) == (2001, 2)
    assert {row.columns["lang"] for row in index.rows()} == {"en", "de"}
    with pytest.raises(InputError, match="all 2001 rows"):
        IndexWriter(tmp_path / "index").delete(filter="true")
    with pytest.raises(UsageError, match="no id was given"):
        IndexWriter(tmp_path / "index").delete()


# --- words ---


@pytest.fixture
def words(tmp_path):
    def write(texts):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.sqlite"
        with WordsWriter(path) as writer:
            for text in texts:
                writer.write(text)
        return Words(path, len(texts))

    return write


def bm25(texts, query, k1=1.2, b=0.75):
    """Score texts of plain words by hand, all of one index."""
    docs = [text.split() for text in texts]
    mean = sum(map(len, docs)) / len(docs)
    scores = np.zeros(len(docs))
    for word in query.split():
        count = sum(word in doc for doc in docs)
        idf = max(math.log((len(docs) - count + 0.5) / (count + 0.5)), 1e-6)
        for i, doc in enumerate(docs):
            tf = doc.count(word)
            scores[i] += idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * len(doc) / mean))
    return scores


def test_words_are_ranked_by_bm25(words):
    texts = [
        "red fox",
        "red red dog dog",
        "blue fox in a box",
        "cat",
        "a cat and a dog",
        "green",
        "an owl",
        "a hat",
        "red hat cat",
    ]
    held = words(texts)
    for query in ("red dog", "cat hat", "fox", "a", "unknown", "owl unknown"):
        found = dict(held.ranked(weights(query, [held]), 100))
        scores = bm25(texts, query)
        assert set(found) == set(np.flatnonzero(scores).tolist())
        for position, score in found.items():
            assert score == pytest.approx(scores[position], rel=1e-6)
        ranked = [position for position, _ in held.ranked(weights(query, [held]), 2)]
        assert ranked == sorted(found, key=lambda i: (-found[i], i))[:2]
    allowed = np.array([i != 1 for i in range(9)])
    assert [p for p, _ in held.ranked(weights("red dog", [held]), 9, allowed)] == [
        p for p, _ in held.ranked(weights("red dog", [held]), 9) if p != 1
    ]


def test_weights_of_words_are_those_of_all_segments(words):
    large = words([f"plain word{i}" for i in range(20)])
    small = words(["rare plain"])
    assert weights("rare plain", [large, small])["rare"][1] == pytest.approx(math.log(20.5 / 1.5))
    ((position, score),) = small.ranked(weights("rare", [large, small]), 5)
    assert position == 0
    assert score == pytest.approx(math.log(20.5 / 1.5), rel=1e-6)  # tf 1 in a row of the mean length
    assert set(weights("rare plain", [large, small])) == {"rare"}  # plain stands in all rows, and says nothing
    assert set(weights("plain", [large, small])) == {"plain"}
    assert set(weights("plain word1 word2", [large, small])) == {"word1", "word2"}
    snake = words(["set max_rows here", "rows of a table", *["other"] * 9])
    assert set(weights("max_rows", [snake])) == {"max", "row"}  # split as FTS5 splits the texts
    assert [p for p, _ in snake.ranked(weights("MAX_ROWS", [snake]), 5)] == [0, 1]
    far = words(["Über_größe हिनदी", *["other"] * 9])
    for query in ("uber", "हिनदी", "GRÖSSE größe"):
        assert [p for p, _ in far.ranked(weights(query, [far]), 5)] == [0], query
    assert stems_of('running "runs" OR near(x) ran*') == {
        "run": "running",
        "or": "or",
        "near": "near",
        "x": "x",
        "ran": "ran",
    }


def test_a_hybrid_search_adds_up_reciprocal_ranks(tmp_path, embedder, passages):
    odd = [Record(f"Ticket {n}: the printer on floor {n % 7} is out of paper.", f"T{n}") for n in range(1000, 1060)]
    rows = [Record(row["text"], row["id"], {"topic": row["topic"]}) for row in passages]
    index = IndexWriter(tmp_path / "index", embedder).create(rows + odd)
    (hit, *_) = index.search("Ticket 1033", 3, hybrid=True)
    assert hit.id == "T1033"
    assert hit.score <= 2 / 61
    query = "how does yeast make dough rise"
    near = [h.id for h in index.search(query, 100)]
    words = [index._store.segments[0].row(n).id for n in rows_by_words(index._store.segments, query, 100, [None])]
    scores = {i: sum(1 / (61 + ranking.index(i)) for ranking in (near, words) if i in ranking) for i in {*near, *words}}
    hits = index.search(query, 12, hybrid=True)
    assert [h.score for h in hits] == pytest.approx(sorted(scores.values(), reverse=True)[:12])
    assert all(h.score == pytest.approx(scores[h.id]) for h in hits)
    assert {h.columns["topic"] for h in index.search(query, 9, hybrid=True, filter="topic = 'railways'")} == {
        "railways"
    }
    assert len(index.search("?!", 5, hybrid=True)) == 5  # no word at all
    for wrong in ({"min_score": 0.1}, {}):
        with pytest.raises(UsageError, match="hybrid"):
            index.search(np.zeros((1, 384), np.float32) if not wrong else query, 5, hybrid=True, **wrong)
    assert fused([5, 3], [3, 9]) == [(3, 1 / 61 + 1 / 62), (5, 1 / 61), (9, 1 / 62)]


# --- compaction ---


def test_compaction_keeps_rows_ids_numbers_and_order(tmp_path, converted_model, records, vectors):
    path = tmp_path / "index"
    index = make(path, converted_model, records, vectors, kind="SQ8")
    writer = IndexWriter(path, index.embedder())
    writer.add([Record("a dog", f"new {i}", {"n": -i}) for i in range(30)], vectors=-vectors[30:60])
    writer.update([Record("a tree", str(i), {"n": i}) for i in range(7)], vectors=-vectors[100:107])
    IndexWriter(path).delete([str(i) for i in range(50, 80)])
    before = SearchIndex(path)
    rows, found = list(before.rows()), before.nearest(vectors[:9], 13, exact=True)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    after = IndexWriter(path).compact()
    assert (len(after), after.segments, after.deleted_rows, after.generation) == (3001, 1, 0, 5)
    assert list(after.rows()) == rows
    for one, other in zip(found, after.nearest(vectors[:9], 13, exact=True), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert after.get("3").text == "a tree"
    assert after.get("60") is None
    assert after.verify() == []
    # `before` reads on, and what it reads stays until it is gone
    assert list(before.rows()) == rows
    np.testing.assert_array_equal(before.nearest(vectors[:9], 13, exact=True)[1], found[1])
    assert len(list((path / "segments").iterdir())) == 4
    del before, index, writer
    assert IndexWriter(path).delete(["90"]) == 1
    assert [folder.name for folder in (path / "segments").iterdir()] == ["000005"]
    assert sorted(file.name for file in (path / "faiss").iterdir()) == ["000005.faiss", "000005.json"]
    assert sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) < size
    added = IndexWriter(path, after.embedder()).add([Record("x", "last")], vectors=vectors[:1])
    assert added.nearest(vectors[:1], 1)[1][0, 0] in (0, 3038)  # numbers go on where they were


def test_compaction_changes_the_kind(tmp_path, converted_model, records, vectors):
    path = tmp_path / "index"
    make(path, converted_model, records, vectors)
    index = IndexWriter(path).compact(kind="HNSW16", pca=16)
    assert (index.kind, index.segment_kinds, index.generation) == (SearchKind("HNSW16", 16), ["PCA16,HNSW16"], 2)
    assert IndexWriter(path).compact().generation == 2  # nothing to gain
    with pytest.raises(UsageError, match="does not know"):
        IndexWriter(path).compact(kind="Nonsense")
    assert SearchIndex(path).generation == 2


READER = """
import sys
from sbert_mini import IndexWriter, SearchIndex
index = SearchIndex(sys.argv[1])
print(len(index), flush=True)
sys.stdin.readline()
segment = index._store.segments[0]
print(len(list(index.rows())), index.nearest(segment.vectors_at(segment.row_ids[:1], 28), 5)[1].shape[1])
"""


def test_another_process_keeps_what_it_opened(tmp_path, converted_model, records, vectors):
    path = tmp_path / "index"
    make(path, converted_model, records, vectors, kind="IVF32,SQ8")
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert reader.stdout.readline() == "3001\n"
        IndexWriter(path).delete(filter="n > 9")
        assert len(IndexWriter(path).compact()) == 10
        assert {f.name for f in (path / "segments").iterdir()} == {"000001", "000003"}
        out, _ = reader.communicate("\n", timeout=600)
        assert out == "3001 5\n"
    finally:
        reader.kill()
    IndexWriter(path).delete(["3"])
    assert {f.name for f in (path / "segments").iterdir()} == {"000003"}


# --- duplicates, reductions ---


def test_duplicates_name_the_row_that_they_repeat(embedder):
    rows = [
        Record("How do I reset my password?", line=1),
        Record("How can I reset my password?", line=2),
        Record("how do i  RESET my password?", line=3),
        Record("The train to Basel leaves at nine.", line=4),
        Record("At nine the train leaves for Basel.", line=5),
        Record("Bread needs yeast.", line=6),
    ]
    found = list(deduplicate(rows, embedder, threshold=0.85, batch_size=2))
    assert [(v.record.line, v.of.line if v.of else None, v.reason) for v in found] == [
        (1, None, None),
        (2, 1, "near"),
        (3, 1, "same text"),
        (4, None, None),
        (5, 4, "near"),
        (6, None, None),
    ]
    cosine = float(embedder.encode(rows[1].text) @ embedder.encode(rows[0].text))
    assert found[1].score == pytest.approx(cosine, abs=1e-3)
    assert [v.of for v in deduplicate(rows[:2], embedder, threshold=1.0)] == [None, None]
    with pytest.raises(UsageError, match="above 0"):
        list(deduplicate(rows, embedder, threshold=0))


def test_duplicates_are_found_beyond_the_exact_rows(converted_model, monkeypatch):
    monkeypatch.setattr("sbert_mini.search.dedup.EXACT_ROWS", 300)
    model = Embedder(converted_model())
    words = ["the", "cat", "dog", "red", "house", "tree", "a"]
    texts = [" ".join(words[(i // 7**p) % 7] for p in range(5)) for i in range(0, 16807, 23)]
    vectors = model.encode(texts)
    found = list(deduplicate([Record(t, line=i) for i, t in enumerate(texts)], model, threshold=0.9999))
    kept: list[int] = []
    for i, verdict in enumerate(found):
        best = max((float(vectors[i] @ vectors[j]), j) for j in kept) if kept else (-1.0, -1)
        if abs(best[0] - 0.9999) > 2e-4:  # half precision
            assert (verdict.of is not None) == (best[0] > 0.9999)
        if verdict.of is None:
            kept.append(i)
    assert len(kept) > 300


@pytest.mark.parametrize("whiten", [False, True])
def test_a_reduction_is_that_of_the_covariance(tmp_path, rng, whiten):
    x = (rng.standard_normal((500, 13)) @ rng.standard_normal((13, 13)) + rng.standard_normal(13)).astype(np.float32)
    values, directions = np.linalg.eigh(np.cov(x.T, bias=True))
    expected = (x - x.mean(0)) @ directions[:, ::-1][:, :5]
    if whiten:
        expected /= np.sqrt(values[::-1][:5])
    reduction = fit(x, 5, whiten=whiten)
    got = reduction.apply(x, normalize=False)
    np.testing.assert_allclose(np.abs(got), np.abs(expected), atol=2e-3 * np.abs(expected).max())
    assert reduction.explained == pytest.approx(values[::-1][:5].sum() / values.sum(), abs=1e-4)
    reduction.save(tmp_path / "pca.safetensors")
    again = Reduction.load(tmp_path / "pca.safetensors")
    np.testing.assert_array_equal(again.apply(x), reduction.apply(x))
    np.testing.assert_allclose(np.linalg.norm(again.apply(x), axis=1), 1, atol=1e-5)
    assert (again.whitened, again.dimension) == (whiten, 5)
    np.testing.assert_array_equal(
        np.concatenate(list(again.blocks(np.tile(x, (9, 1))))), np.tile(again.apply(x), (9, 1))
    )


def test_reductions_that_cannot_be_are_errors(tmp_path, rng):
    x = rng.standard_normal((20, 7)).astype(np.float32)
    with pytest.raises(UsageError, match="from 1 to the 7"):
        fit(x, 8)
    with pytest.raises(InputError, match="more than 5 rows"):
        fit(x[:5], 5)
    with pytest.raises(InputError, match="finite"):
        fit(np.where(np.arange(20)[:, None] == 3, np.inf, x).astype(np.float32), 3)
    with pytest.raises(UsageError, match=r"\(rows, 7\); found \(20, 6\)"):
        fit(x, 3).apply(x[:, :6])
    (tmp_path / "x.safetensors").write_bytes(os.urandom(64))
    with pytest.raises(InputError, match="cannot be read as a reduction"):
        Reduction.load(tmp_path / "x.safetensors")
