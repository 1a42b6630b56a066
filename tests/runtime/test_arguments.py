"""What Python callers give: taken as it is meant or refused by its name, alike in every method."""

import numpy as np
import pandas as pd
import pytest

from sbert_mini import IndexWriter, Predictor, SearchIndex
from sbert_mini.errors import InputError, UsageError
from sbert_mini.model.heads import HeadConfig
from sbert_mini.runtime import arguments
from sbert_mini.runtime.stream import EncodeCounts
from sbert_mini.search.dedup import deduplicate
from sbert_mini.search.store import Store
from sbert_mini.text.records import Record

TEXTS = ["a dog", "stock prices", "bread"]


@pytest.fixture(scope="module")
def index(default_embedder, tmp_path_factory):
    rows = ["The cat sleeps on the sofa.", "A dog runs in the park.", "Stock prices fell on Monday.", "Bread is baked."]
    records = [Record(t, id=i) for t, i in zip(rows, "abcd", strict=True)]
    return IndexWriter(tmp_path_factory.mktemp("arguments") / "x.index", default_embedder).create(records)


def forms():
    frame = pd.DataFrame({"t": ["a dog", "x", "stock prices", "bread"]}).drop(index=1)
    yield "tuple", lambda: tuple(TEXTS)
    yield "generator", lambda: (t for t in TEXTS)
    yield "array of str", lambda: np.array(TEXTS)
    yield "array of objects", lambda: np.array(TEXTS, dtype=object)
    yield "array of StringDType", lambda: np.array(TEXTS, dtype=np.dtypes.StringDType())
    yield "list of NumPy strings", lambda: [np.str_(t) for t in TEXTS]
    yield "Series with gaps", lambda: frame["t"]
    yield "Series of strings", lambda: frame["t"].astype("string")
    yield "categories", lambda: frame["t"].astype("category")
    yield "Index", lambda: pd.Index(TEXTS)
    yield "keys of a dict", lambda: dict.fromkeys(TEXTS).keys().__iter__()
    arrow = pytest.importorskip("pyarrow")
    yield "Arrow", lambda: arrow.array(TEXTS)
    yield "Arrow, in pieces", lambda: arrow.chunked_array([TEXTS[:1], TEXTS[1:]])


@pytest.mark.parametrize("form", [pytest.param(make, id=name) for name, make in forms()])
def test_texts_in_every_form_are_taken_alike(default_embedder, index, tmp_path, form):
    expected = default_embedder.encode(TEXTS)
    for method in (default_embedder.encode, default_embedder.encode_query, default_embedder.encode_document):
        np.testing.assert_array_equal(method(form()), expected)
    np.testing.assert_array_equal(np.concatenate(list(default_embedder.encode_stream(form()))), expected)
    assert default_embedder.encode_to_npy(form(), tmp_path / "v.npy") == expected.shape
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), expected)
    assert [[hit.id for hit in hits] for hits in index.search(form(), 1)] == [["b"], ["c"], ["d"]]
    assert [v.record.text for v in deduplicate(form(), default_embedder)] == TEXTS
    tokens = default_embedder.tokenize(form())
    assert tokens["input_ids"].shape == (3, 4)
    assert tokens["attention_mask"].sum(axis=1).tolist() == [4, 4, 3]


def test_one_text_is_one_text_in_every_form(default_embedder, index):
    for text in ("a dog", np.str_("a dog"), np.array("a dog")):
        np.testing.assert_array_equal(default_embedder.encode(text), default_embedder.encode(["a dog"])[0])
        assert [hit.id for hit in index.search(text, 1)] == ["b"]


STRANGE = [
    (None, "None"),
    (b"a dog", "bytes"),
    ({"a": "a dog"}, "dict"),
    ({"a dog"}, "set"),
    (5, "int"),
    (pd.DataFrame({"t": TEXTS}), "DataFrame.*one of its columns"),
    (np.array([["a dog"]]), r"one dimension.*shape \(1, 1\)"),
    (np.array([b"a dog"]), r"type \|S5"),
    ([["a dog"]], "list"),
    ([b"a dog"], "bytes"),
    (["a dog", None], "None"),
    (pd.Series(["a dog", np.nan]), "1 is a float"),
    (pd.Series(["a dog", pd.NA], dtype="string"), "1 is a NAType"),
]


@pytest.mark.parametrize(("given", "named"), STRANGE, ids=[str(n) for _, n in STRANGE])
def test_what_is_no_text_is_refused_by_its_name(default_embedder, index, tmp_path, given, named):
    e = default_embedder
    for call in (
        e.encode,
        e.encode_query,
        e.encode_document,
        e.tokenize,
        lambda x: list(e.encode_stream(x)),
        lambda x: e.encode_to_npy(x, tmp_path / "v.npy"),
        lambda x: index.search(x, 1),
    ):
        with pytest.raises(UsageError, match=named):
            call(given)
    assert not (tmp_path / "v.npy").exists()
    with pytest.raises((UsageError, InputError)):
        list(deduplicate(given, e))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_vectors_of_any_float_type_are_taken(default_embedder, index, dtype):
    vector = default_embedder.encode_query(["a dog"])
    expected = index.search("a dog", 4, by="meaning")
    (found,) = index.search(vector.astype(dtype), 4)
    assert [h.id for h in found] == [h.id for h in expected]
    assert [h.score for h in found] == pytest.approx(
        [h.score for h in expected], abs=1e-3 if dtype == np.float16 else 1e-6
    )
    scores, _ = index.nearest(vector.astype(dtype), np.int64(4))
    assert scores[0].tolist() == [h.score for h in found]
    np.testing.assert_allclose(default_embedder.similarity(vector.astype(dtype), vector), 1, atol=1e-6)


def test_tensors_are_taken_as_arrays(default_embedder, index):
    torch = pytest.importorskip("torch")
    vector = torch.tensor(default_embedder.encode_query(["a dog"]), requires_grad=True)
    assert [hit.id for hit in index.search(vector, 1)[0]] == ["b"]
    assert [hit.id for hit in index.search(vector.detach().bfloat16(), 1)[0]] == ["b"]
    assert default_embedder.similarity(vector, vector).tolist() == [[1.0]]


def wrong_vectors(e):
    v = e.encode_query(["a dog"])
    ranges = np.stack([np.full(384, -0.2), np.full(384, 0.2)]).astype("f4")
    yield 3 * v, r"vector 0 \(counted from 0\) has the length 3\.0000"
    yield e.encode(["a dog"], precision="int8", ranges=ranges), r"has the length \d{3}\.\d{4}"
    yield np.concatenate([v, 0 * v]), r"vector 1 .* has the length 0\.0000"
    yield v[0], r"\(queries, 384\); found \(384,\): one vector v is v\[None\]"
    yield v[:, :64], r"found \(1, 64\)"
    yield np.where(np.arange(384) == 3, np.nan, v), "finite"
    yield v.astype(complex), "complex"
    yield v > 0, "bool"
    yield [v[0]], r"np\.stack"


def test_wrong_vectors_are_refused_with_their_length_or_shape(default_embedder, index):
    for vectors, named in wrong_vectors(default_embedder):
        with pytest.raises(UsageError, match=named):
            index.search(vectors, 1)
        if isinstance(vectors, np.ndarray):
            with pytest.raises(UsageError, match=named):
                index.nearest(vectors, 1)


def test_vectors_of_rows_are_checked_alike(default_embedder, tmp_path):
    texts = ["one", "two"]
    vectors = default_embedder.encode(texts)
    for number, (given, kind, named) in enumerate(
        [
            (3 * vectors, InputError, r"vector 1 has the length 3\.0000"),
            (vectors[0], InputError, r"found \(384,\)"),
            (vectors.astype(complex), UsageError, "complex"),
            ("vectors.npy", UsageError, "a str"),
            ([[1.0], [2.0, 3.0]], UsageError, "of one length"),
        ]
    ):
        with pytest.raises(kind, match=named):
            IndexWriter(tmp_path / f"{number}", default_embedder).create(map(Record, texts), vectors=given)
    for number, given in enumerate([vectors.tolist(), vectors.astype(np.float64), vectors.astype(np.float16)]):
        made = IndexWriter(tmp_path / f"good{number}", default_embedder).create(map(Record, texts), vectors=given)
        assert [h[0].cosine for h in made.search(texts, 1)] == [1.0, 1.0]


def test_numbers_of_numpy_are_numbers_and_other_things_are_refused(default_embedder, index):
    assert [h.id for h in index.search("a dog", np.int64(1))] == ["b"]
    assert len(index.search("a dog", np.uint8(2), min_score=np.float32(-1))) == 2
    for k, named in (
        (2.0, "k must be a whole number.*float 2.0"),
        (True, "bool True"),
        ("2", "str '2'"),
        (None, "None"),
    ):
        with pytest.raises(UsageError, match=named):
            index.search("a dog", k)
        with pytest.raises(UsageError, match=named):
            index.nearest(default_embedder.encode(["a dog"]), k)
    for score in (float("nan"), float("inf"), "0.5", True):
        with pytest.raises(UsageError, match="min_score must be a finite number"):
            index.search("a dog", 1, min_score=score)
        with pytest.raises(UsageError, match="threshold must be a finite number"):
            list(deduplicate(["x"], default_embedder, threshold=score))
    assert default_embedder.encode(["x"], truncate_dim=np.int32(64), batch_size=np.int64(2)).shape == (1, 64)
    for name in ("batch_size", "truncate_dim"):
        for value in (True, 2.0, "3"):
            with pytest.raises(UsageError, match=f"{name} must be a whole number"):
                default_embedder.encode(["x"], **{name: value})
    with pytest.raises(UsageError, match="batch_size must be at least 1; found 0"):
        default_embedder.encode_pairs([("a", "b")], batch_size=0)
    for name in ("prompt", "prompt_name"):
        with pytest.raises(UsageError, match=f"{name} must be a string or None; found int 5"):
            default_embedder.encode(["x"], **{name: 5})


def test_pairs_in_every_form_are_taken_alike(default_embedder):
    pairs = [("a dog", "a cat"), ("bread", "stocks")]
    expected = default_embedder.encode_pairs(pairs)
    columns = pd.DataFrame(pairs)
    for given in (
        iter(pairs),
        [list(p) for p in pairs],
        np.array(pairs),
        columns.to_numpy(),
        [np.array(p) for p in pairs],
        zip(columns[0], columns[1], strict=True),
    ):
        np.testing.assert_array_equal(default_embedder.encode_pairs(given), expected)
    for given, named in (
        (["a dog", "a cat"], "pair 0 is a str"),
        ([("a",)], r"pair 0 is \('a',\)"),
        ([("a", "b"), ("c", 5)], "text 1 is a int"),
        ("ab", "found a str"),
        (columns, "DataFrame"),
        (None, "found None"),
        (dict(pairs), "found a dict"),
    ):
        with pytest.raises(UsageError, match=named):
            default_embedder.encode_pairs(given)


def test_names_of_sentence_transformers(default_embedder):
    expected = default_embedder.encode(TEXTS)
    np.testing.assert_array_equal(
        default_embedder.encode(TEXTS, convert_to_numpy=True, convert_to_tensor=False), expected
    )
    assert default_embedder.get_sentence_embedding_dimension() == default_embedder.get_embedding_dimension() == 384
    other = default_embedder.encode(TEXTS[::-1])
    pairwise = default_embedder.similarity_pairwise(expected, other)
    np.testing.assert_allclose(pairwise, np.diag(default_embedder.similarity(expected, other)), atol=1e-6)
    np.testing.assert_allclose(pairwise, (expected * other).sum(axis=1), atol=1e-6)
    with pytest.raises(UsageError, match="found 3 and 2"):
        default_embedder.similarity_pairwise(expected, other[:2])
    with pytest.raises(UsageError, match=r"\(3, 384\) and \(3, 64\)"):
        default_embedder.similarity(expected, other[:, :64])
    with pytest.raises(UsageError, match="found a str"):
        default_embedder.similarity("a dog", expected)


def test_tokens_are_those_of_transformers(minilm, embedder):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(minilm)(TEXTS, padding=True, return_tensors="np")
    ours = embedder.tokenize(TEXTS)
    assert set(ours) == {"input_ids", "attention_mask", "token_type_ids"}
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name])


def test_objects_show_what_they_are(default_embedder, index):
    assert repr(default_embedder).startswith("Embedder('sbert-mini', graph='int8', threads=2, dimension=384")
    shown = repr(SearchIndex(index.path))
    assert shown.startswith("SearchIndex(")
    assert all(part in shown for part in ("x.index", "rows=4", "sbert-mini", "dimension=384", "generation=1"))
    rows = f"rows={len(index)}, model='sbert-mini', dimension=384"
    assert repr(IndexWriter(index.path)) == f"IndexWriter({str(index.path)!r}, {rows})"
    assert repr(Store(index.path)) == f"Store({str(index.path)!r}, {rows}, generation={index.generation})"
    assert repr(IndexWriter("x", default_embedder)) == "IndexWriter('x', rows=0, model='sbert-mini', dimension=384)"
    assert repr(IndexWriter("x")) == "IndexWriter('x', no index yet)"


def test_lengths_within_half_precision_are_made_good_and_own_vectors_left_alone(default_embedder):
    vectors = default_embedder.encode(TEXTS)
    np.testing.assert_array_equal(arguments.unit_vectors(vectors, 384, "vectors"), vectors)
    longer = arguments.unit_vectors(vectors * 1.0015, 384, "vectors")
    np.testing.assert_allclose(longer, vectors, atol=1e-7)


def test_predictors_take_inputs_in_every_form_and_refuse_others_by_name(make_model):
    path = make_model()
    HeadConfig(task="alike", structure="siamese", kind="similarity", dimension=28).write(path / "heads" / "alike")
    predictor = Predictor(path, threads=1)
    pairs = [("the cat", "a dog"), ("red bread", "red bread"), ("the tree", "the tree runs")]
    expected = predictor.predict(pairs)
    assert expected[1].cosine == 1
    for given in (iter(pairs), np.array(pairs), [list(p) for p in pairs], pd.DataFrame(pairs).to_numpy()):
        assert predictor.predict(given) == expected
    for given, named in (
        ("the cat", "found a str"),
        (["the cat"], "reads two texts an input"),
        ([("the cat",)], "pair 0 is"),
        ([("the cat", None)], "text 0 is None"),
        (None, "found None"),
        (pd.DataFrame(pairs), "DataFrame"),
    ):
        with pytest.raises(UsageError, match=named):
            predictor.predict(given)
    assert predictor.predict([]) == []
    assert repr(predictor) == f"Predictor({str(path)!r}, task='alike', kind='similarity')"
    counts = EncodeCounts()
    predictor.predict([("\u200b", "🎉")], counts=counts)
    assert (counts.texts, counts.empty, counts.unknown) == (2, 1, 1)
