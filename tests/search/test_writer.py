"""Changes of an index: what is stored, replaced and deleted, and what is refused before anything changes."""

import json

import numpy as np
import pytest
from indexes import ROWS, make

from sbert_mini import Embedder, IndexWriter, SearchIndex
from sbert_mini.errors import (
    IndexExistsError,
    IndexNotFoundError,
    InputError,
    ModelMismatchError,
    UsageError,
)
from sbert_mini.search.encoding import IndexCounts, VectorsById
from sbert_mini.text.records import Record


def by_brute_force(index, embedder, query, k):
    rows = list(index.rows())
    scores = embedder.encode(query) @ embedder.encode([row.text for row in rows]).T
    return [rows[i].id for i in np.argsort(-scores)[:k]]


def test_rows_are_added_replaced_and_deleted(copied_index, embedder, passages):
    new = [
        Record("Bread keeps best in a linen bag.", "bread-bag", {"topic": "cooking"}, 1),
        Record("Trains wait at red signals.", "red-signal", {"topic": "railways"}, 2),
    ]
    before = SearchIndex(copied_index)
    counts = IndexCounts()
    index = IndexWriter(copied_index, embedder, counts=counts).add(new)
    assert (len(index), index.generation, counts.rows) == (242, 2, 2)
    assert index.search("a bag for bread", 1)[0].id == "bread-bag"

    changed = [Record("A linen bag is where stars are kept.", "bread-bag"), Record("Entirely new.", "new")]
    counts = IndexCounts()
    index = IndexWriter(copied_index, embedder, counts=counts).update(changed)
    assert (len(index), index.generation, counts.rows, counts.replaced) == (243, 3, 2, 1)
    assert index.get("bread-bag").text == "A linen bag is where stars are kept."

    assert IndexWriter(copied_index).delete(["new", passages[5]["id"]]) == 2
    index = SearchIndex(copied_index)
    assert (len(index), index.generation) == (241, 4)
    assert index.get("new") is None
    assert index.get(passages[5]["id"]) is None
    for query in ("bread", "stars in a bag", passages[5]["text"], "red lights"):
        assert [hit.id for hit in index.search(query, 9, by="meaning")] == by_brute_force(index, embedder, query, 9)
    everything = index.search("bread", 1000)
    assert len(everything) == len({hit.id for hit in everything}) == 241
    assert {hit.id for hit in everything} == {row.id for row in index.rows()}
    numbers = [int(n) for s in index._store.segments for n in s.row_ids]
    assert numbers == [*range(240), 241, 242, 243]  # a number is never given twice; 240 was replaced, and merged away
    assert index.verify() == []
    assert (len(before), len(before.search("bread", 1000))) == (240, 240)  # opened before: as it was


def test_changes_that_cannot_be_made_change_nothing(copied_index, embedder, passages, converted_model):
    writer = IndexWriter(copied_index, embedder)
    with pytest.raises(InputError, match=rf"line 9: the id '{passages[3]['id']}' is in the index already"):
        writer.add([Record("x", "fresh"), Record("y", passages[3]["id"], line=9)])
    with pytest.raises(InputError, match="'nothing' is not in the index; nothing was deleted"):
        IndexWriter(copied_index).delete([passages[0]["id"], "nothing"])
    with pytest.raises(InputError, match="all 240 rows"):
        IndexWriter(copied_index).delete([row["id"] for row in passages])
    with pytest.raises(ModelMismatchError):
        IndexWriter(copied_index, Embedder(converted_model())).add([Record("x")])
    with pytest.raises(IndexNotFoundError):
        IndexWriter(copied_index / "nowhere", embedder).add([Record("x")])
    assert not (copied_index / "nowhere").exists()
    counts = IndexCounts()
    index = IndexWriter(copied_index, embedder, counts=counts).add([Record("new one"), Record("new one")])
    assert (len(index), counts.repeated) == (241, 1)
    counts = IndexCounts()
    index = IndexWriter(copied_index, embedder, counts=counts).add([Record("new one")])
    assert (len(index), index.generation, counts.repeated, counts.rows) == (241, 2, 1, 0)
    assert sorted(p.name for p in (copied_index / "segments").iterdir()) == ["000001", "000002"]
    assert index.verify() == []


def test_rows_without_ids_are_known_by_their_content(tmp_path, converted_model):
    model = Embedder(converted_model())
    records = [Record("the cat"), Record("a dog"), Record("the cat"), Record("the cat", None, {"n": 1})]
    counts = IndexCounts()
    index = IndexWriter(tmp_path / "index", model, counts=counts).create(records)
    assert (counts.rows, counts.repeated, len(index)) == (3, 1, 3)
    assert [row.id for row in index.rows()] == [records[i].content_id() for i in (0, 1, 3)]


def test_what_cannot_be_stored_leaves_nothing_behind(tmp_path, converted_model):
    model = Embedder(converted_model())
    path = tmp_path / "index"
    twice = [Record("one", "a", line=2), Record("two", "b", line=3), Record("three", "a", line=4)]
    with pytest.raises(InputError, match="the id 'a' stands on line 2 and again on line 4"):
        IndexWriter(path, model).create(twice)
    with pytest.raises(InputError, match="no text to index"):
        IndexWriter(path, model).create([])
    assert not path.exists()
    with pytest.raises(IndexNotFoundError, match="does not exist"):
        SearchIndex(path)
    IndexWriter(path, model).create([Record("one")])
    with pytest.raises(IndexExistsError, match="holds an index already"):
        IndexWriter(path, model).create([Record("two")])
    assert [row.text for row in SearchIndex(path).rows()] == ["one"]


def test_a_folder_of_something_else_is_not_touched(tmp_path, converted_model):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"jpg")
    with pytest.raises(IndexExistsError, match=r"holds cat\.jpg"):
        IndexWriter(tmp_path / "photos", Embedder(converted_model())).create([Record("one")])
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"jpg"
    with pytest.raises(IndexNotFoundError, match="holds no index"):
        SearchIndex(tmp_path / "photos")
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["cat.jpg"]
    (tmp_path / "work" / "segments").mkdir(parents=True)  # a name that an index uses, too
    (tmp_path / "work" / "segments" / "thesis.txt").write_text("years of work")
    for records in ([Record("one")], []):
        with pytest.raises(IndexExistsError, match="holds segments"):
            IndexWriter(tmp_path / "work", Embedder(converted_model())).create(records)
    assert (tmp_path / "work" / "segments" / "thesis.txt").read_text() == "years of work"


def test_an_index_without_its_pointer_is_not_written_over(copied_index, embedder):
    (copied_index / "CURRENT").unlink()
    with pytest.raises(IndexExistsError, match="must be empty or absent"):
        IndexWriter(copied_index, embedder).create([Record("one")])
    assert len(list((copied_index / "segments" / "000001").iterdir())) == 8


def test_records_that_cannot_be_stored_are_errors_with_their_position(tmp_path, converted_model):
    writer = IndexWriter(tmp_path / "index", Embedder(converted_model()))
    for wrong, message in (
        (Record("a", 5.5), "the id must be a string, an integer or None; found 5.5"),
        (Record(" "), "must be a string that is not blank"),
        (Record("a", "x", {"d": np.zeros(2)}), "cannot be stored as JSON"),
        ({"txt": "a"}, "a dict must have the key 'text'; found 'txt'"),
        (5, "a row must be a text, a dict, or a Record; found a int"),
        (Record("a", "x", {"d": float("nan")}), "cannot be stored as JSON"),
    ):
        with pytest.raises(InputError, match=f"line 2: .*{message}"):
            writer.create([Record("good"), wrong])
    assert not (tmp_path / "index").exists()


def test_rows_may_be_texts_dicts_records_and_rows_of_an_index(tmp_path, converted_model):
    writer = IndexWriter(tmp_path / "index", Embedder(converted_model()))
    index = writer.create(
        ["a cat", {"text": "a dog", "id": 7, "year": np.int64(2020)}, Record("a fox", np.int32(8), {"year": 1})]
    )
    assert index.columns == {"year": "integer"}
    assert [(row.id, row.text, row.columns) for row in index.rows()][1:] == [
        ("7", "a dog", {"year": 2020}),
        ("8", "a fox", {"year": 1}),
    ]
    other = IndexWriter(tmp_path / "other", Embedder(converted_model())).create(index.rows())
    assert list(other.rows()) == list(index.rows())
    assert writer.delete(filter="year > 5") == 1
    assert [row.id for row in SearchIndex(tmp_path / "index").rows()][1:] == ["8"]


def test_a_writer_takes_the_model_that_the_index_notes(tmp_path, converted_model):
    path = tmp_path / "index"
    with pytest.raises(IndexNotFoundError, match="does not exist"):
        IndexWriter(path).add(["a cat"])
    with pytest.raises(UsageError, match=r"a new index needs a model: IndexWriter\(.*index', Embedder\(\)\)"):
        IndexWriter(path).create(["a cat"])
    assert not path.exists()
    model = Embedder(converted_model(), threads=1)
    IndexWriter(path, model).create([{"text": "a cat", "id": "cat"}, {"text": "a dog", "id": "dog"}])
    index = IndexWriter(path, threads=1).add([{"text": "the fox", "id": "fox"}])
    np.testing.assert_array_equal(np.concatenate([v for _, v in index.row_blocks()])[2], model.encode("the fox"))
    writer = IndexWriter(path)
    writer.update([{"text": "the cow", "id": "cat"}])
    assert writer.delete(["dog"]) == 1
    assert [row.text for row in writer.compact().rows()] == ["the fox", "the cow"]
    with pytest.raises(ModelMismatchError, match="is another"):
        IndexWriter(path, Embedder(converted_model(seed=1), threads=1)).add(["a cow"])


def test_rows_that_do_not_fit_are_rejects_where_rejects_are_taken(tmp_path, converted_model):
    rejects = []
    writer = IndexWriter(tmp_path / "index", Embedder(converted_model()), on_reject=rejects.append)
    rows = [
        {"text": "one", "n": 1},
        {"text": " "},
        {"text": "two", "n": float("inf")},
        {"text": "three", "n": 3, "id": "x"},
        {"text": "four", "id": "x"},
    ]
    index = writer.create(rows, column_types={"n": "integer"})
    assert [row.text for row in index.rows()] == ["one", "three"]
    assert [(reject.line, reject.error.split(":")[0]) for reject in rejects] == [
        (2, "the text must be a string that is not blank; found ' '"),
        (3, "the columns cannot be stored as JSON"),
        (5, "the id 'x' stands on line 4 and again on line 5; ids must be unique"),
    ]
    writer.add([{"text": "five", "n": "x"}, {"text": "six", "n": "6"}])
    assert rejects[-1].error == "the column 'n' was declared integer, and \"x\" does not fit"
    assert [row.columns for row in SearchIndex(tmp_path / "index").rows()][-1] == {"n": 6}
    assert SearchIndex(tmp_path / "index").search("six", 9, filter="n = 6")[0].text == "six"


def test_the_models_prompt_for_documents_is_used_and_kept(tmp_path, converted_model):
    path = converted_model()
    (path / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "cat ", "passage": "dog "}})
    )
    model = Embedder(path)
    index = IndexWriter(tmp_path / "index", model).create([Record("a red house")])
    assert index.model.prompt == "dog "
    (hit,) = index.search("a red house", 1)
    assert hit.cosine == pytest.approx(
        float(model.encode("cat a red house") @ model.encode("dog a red house")), abs=1e-3
    )


def test_given_vectors_must_fit(tmp_path, converted_model, numbered_records, clustered_vectors):
    for given, message in (
        (clustered_vectors[:-1], "3000 vectors, and more rows"),
        (np.concatenate([clustered_vectors, clustered_vectors[:2]]), "3003 vectors, and 3001 rows"),
        (clustered_vectors[:, :9], r"\(rows, 28\); found \(3001, 9\)"),
        (np.concatenate([clustered_vectors[:-1], 2 * clustered_vectors[-1:]]), "vector 3001 has the length 2.0"),
        (np.where(np.arange(ROWS)[:, None] == 11, np.nan, clustered_vectors), "vector 12 has the length nan"),
    ):
        with pytest.raises(InputError, match=message):
            make(tmp_path / "index", converted_model, numbered_records, given)
        assert not (tmp_path / "index").exists()


def test_given_vectors_stay_with_their_rows_where_rows_repeat(tmp_path, converted_model, clustered_vectors):
    rows = [Record("one"), Record("two"), Record("one"), Record("three")]
    index = make(tmp_path / "index", converted_model, rows, clustered_vectors[:4])
    assert [row.text for row in index.rows()] == ["one", "two", "three"]
    assert [index.search(clustered_vectors[i : i + 1], 1)[0][0].text for i in (0, 1, 3)] == ["one", "two", "three"]


def test_rows_are_deleted_by_a_filter(tmp_path, converted_model, numbered_records, clustered_vectors):
    make(tmp_path / "index", converted_model, numbered_records, clustered_vectors)
    assert IndexWriter(tmp_path / "index").delete(filter="lang = 'fr'") == 1000
    assert IndexWriter(tmp_path / "index").delete(filter="lang = 'fr'") == 0
    index = SearchIndex(tmp_path / "index")
    assert (len(index), index.generation) == (2001, 2)
    assert {row.columns["lang"] for row in index.rows()} == {"en", "de"}
    with pytest.raises(InputError, match="all 2001 rows"):
        IndexWriter(tmp_path / "index").delete(filter="true")
    with pytest.raises(UsageError, match="no id was given"):
        IndexWriter(tmp_path / "index").delete()


def test_vectors_by_id_go_to_the_rows_of_their_ids(tmp_path, converted_model, clustered_vectors):
    rows = [Record(text, identity) for text, identity in (("one", "a"), ("two", "b"), ("three", "c"))]
    given = VectorsById(clustered_vectors[:3], {"c": 0, "a": 1, "b": 2})
    index = make(tmp_path / "index", converted_model, rows, given)
    for identity, place in given.places.items():
        assert index.search(clustered_vectors[place : place + 1], 1)[0][0].id == identity
    with pytest.raises(InputError, match="the row 'b' has no vector"):
        make(tmp_path / "two", converted_model, rows, VectorsById(clustered_vectors[:3], {"c": 0, "a": 1}))
    with pytest.raises(InputError, match="there are 4 vectors, and 3 rows of their ids"):
        make(tmp_path / "two", converted_model, rows, VectorsById(clustered_vectors[:4], given.places))
    with pytest.raises(InputError, match="no text to index"):
        make(tmp_path / "two", converted_model, [], clustered_vectors[:0])
    assert not (tmp_path / "two").exists()


def test_a_file_is_no_place_for_an_index(tmp_path, converted_model):
    (tmp_path / "a.txt").write_text("a cat")
    with pytest.raises(IndexExistsError, match=r"a\.txt is a file; name a directory for the new index"):
        IndexWriter(tmp_path / "a.txt", Embedder(converted_model())).create(["a cat"])
    with pytest.raises(IndexNotFoundError, match=r"a\.txt is a file, and no index: make one of it with 'sbmini index"):
        SearchIndex(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "a cat"


def test_an_empty_folder_stays_where_no_index_can_be_made_in_it(tmp_path, converted_model):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no text to index"):
        IndexWriter(tmp_path / "empty", Embedder(converted_model())).create([])
    assert list((tmp_path / "empty").iterdir()) == []
