"""The index directory: what is stored, found, checked, and kept through failures."""

import hashlib
import json
import multiprocessing
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from sbert_mini import Embedder, IndexWriter, SearchIndex
from sbert_mini.errors import (
    CorruptIndexError,
    CorruptModelError,
    IndexExistsError,
    IndexLockedError,
    IndexNotFoundError,
    InputError,
    ModelMismatchError,
    ModelNotFoundError,
    UsageError,
)
from sbert_mini.files.durable import read_sealed_json, write_sealed_json
from sbert_mini.search.checksums import CheckedFile, file_checksums
from sbert_mini.search.segment import SegmentWriter
from sbert_mini.search.store import publish, write_lock
from sbert_mini.search.writer import IndexCounts
from sbert_mini.text.records import Record


def records_of(passages):
    return [
        Record(row["text"], row["id"], {key: row[key] for key in ("topic", "title", "level")}, line)
        for line, row in enumerate(passages, start=1)
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory, embedder, passages):
    path = tmp_path_factory.mktemp("index") / "collection"
    IndexWriter(path, embedder).create(records_of(passages))
    return path


@pytest.fixture
def copy(made, tmp_path):
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def test_hits_are_those_of_brute_force(made, embedder, passages, rng):
    index = SearchIndex(made)
    assert len(index) == 240
    vectors = embedder.encode([row["text"] for row in passages])
    queries = ["why does dough rise?", "keeping time on a railway", "how do bats see", "a contract nobody signed"]
    exact = embedder.encode(queries) @ vectors.T
    for query, scores, hits in zip(queries, exact, index.search(queries, 7), strict=True):
        best = np.argsort(-scores)[:7]
        assert [hit.id for hit in hits] == [passages[i]["id"] for i in best]
        np.testing.assert_allclose([hit.score for hit in hits], scores[best], atol=1e-3)
        assert hits[0].text == passages[best[0]]["text"]
        assert hits[0].columns == {key: passages[best[0]][key] for key in ("topic", "title", "level")}
        assert index.search(query, 7) == hits or [h.id for h in index.search(query, 7)] == [h.id for h in hits]
    random = rng.standard_normal((5, 384)).astype(np.float32)
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    scores, rows = index.nearest(random, 11)
    np.testing.assert_array_equal(rows, np.argsort(-(random @ vectors.T), axis=1)[:, :11])


def by_brute_force(index, embedder, query, k):
    rows = list(index.rows())
    scores = embedder.encode(query) @ embedder.encode([row.text for row in rows]).T
    return [rows[i].id for i in np.argsort(-scores)[:k]]


def test_rows_are_added_replaced_and_deleted(copy, embedder, passages):
    new = [
        Record("Bread keeps best in a linen bag.", "bread-bag", {"topic": "cooking"}, 1),
        Record("Trains wait at red signals.", "red-signal", {"topic": "railways"}, 2),
    ]
    before = SearchIndex(copy)
    counts = IndexCounts()
    index = IndexWriter(copy, embedder, counts=counts).add(new)
    assert (len(index), index.generation, counts.rows) == (242, 2, 2)
    assert index.search("a bag for bread", 1)[0].id == "bread-bag"

    changed = [Record("A linen bag is where stars are kept.", "bread-bag"), Record("Entirely new.", "new")]
    counts = IndexCounts()
    index = IndexWriter(copy, embedder, counts=counts).update(changed)
    assert (len(index), index.generation, counts.rows, counts.replaced) == (243, 3, 2, 1)
    assert index.get("bread-bag").text == "A linen bag is where stars are kept."

    assert IndexWriter(copy).delete(["new", passages[5]["id"]]) == 2
    index = SearchIndex(copy)
    assert (len(index), index.generation) == (241, 4)
    assert index.get("new") is None
    assert index.get(passages[5]["id"]) is None
    for query in ("bread", "stars in a bag", passages[5]["text"], "red lights"):
        assert [hit.id for hit in index.search(query, 9)] == by_brute_force(index, embedder, query, 9)
    everything = index.search("bread", 1000)
    assert len(everything) == len({hit.id for hit in everything}) == 241
    assert {hit.id for hit in everything} == {row.id for row in index.rows()}
    numbers = [int(n) for s in index._store.segments for n in s.row_ids]
    assert numbers == list(range(244))  # a number is never given twice
    assert index.verify() == []
    assert (len(before), len(before.search("bread", 1000))) == (240, 240)  # opened before: as it was


def test_changes_that_cannot_be_made_change_nothing(copy, embedder, passages, converted_model):
    writer = IndexWriter(copy, embedder)
    with pytest.raises(InputError, match=rf"line 9: the id '{passages[3]['id']}' is in the index already"):
        writer.add([Record("x", "fresh"), Record("y", passages[3]["id"], line=9)])
    with pytest.raises(InputError, match="'nothing' is not in the index; nothing was deleted"):
        IndexWriter(copy).delete([passages[0]["id"], "nothing"])
    with pytest.raises(InputError, match="all 240 rows"):
        IndexWriter(copy).delete([row["id"] for row in passages])
    with pytest.raises(ModelMismatchError):
        IndexWriter(copy, Embedder(converted_model())).add([Record("x")])
    with pytest.raises(IndexNotFoundError):
        IndexWriter(copy / "nowhere", embedder).add([Record("x")])
    assert not (copy / "nowhere").exists()
    counts = IndexCounts()
    index = IndexWriter(copy, embedder, counts=counts).add([Record("new one"), Record("new one")])
    assert (len(index), counts.repeated) == (241, 1)
    counts = IndexCounts()
    index = IndexWriter(copy, embedder, counts=counts).add([Record("new one")])
    assert (len(index), index.generation, counts.repeated, counts.rows) == (241, 2, 1, 0)
    assert sorted(p.name for p in (copy / "segments").iterdir()) == ["000001", "000002"]
    assert index.verify() == []


def test_rows_are_found_by_id_however_their_digests_fall(tmp_path, converted_model):
    records = [Record("the cat", f"id {i}", {"n": i}) for i in range(500)]
    index = IndexWriter(tmp_path / "index", Embedder(converted_model())).create(records)
    assert [index.get(r.id).columns["n"] for r in records] == list(range(500))
    assert index.get("id 500") is None


def test_each_text_finds_itself(made, passages):
    index = SearchIndex(made)
    for row, hits in zip(passages, index.search([row["text"] for row in passages], 1), strict=True):
        assert hits[0].id == row["id"]
        assert hits[0].score >= 0.9999


def test_k_and_min_score_combine(made):
    index = SearchIndex(made)
    everything = index.search("yeast and dough", 1000)
    assert len(everything) == 240
    scores = [hit.score for hit in everything]
    assert scores == sorted(scores, reverse=True)
    above = index.search("yeast and dough", 1000, min_score=scores[5])
    assert len(above) == 6
    assert len(index.search("yeast and dough", 3, min_score=scores[5])) == 3
    assert index.search("yeast and dough", 3, min_score=1.01) == []
    with pytest.raises(UsageError, match="k must be at least 1; found 0"):
        index.search("x", 0)
    with pytest.raises(UsageError, match=r"\(queries, 384\); found \(2, 5\)"):
        index.search(np.zeros((2, 5), np.float32))
    with pytest.raises(UsageError, match="finite"):
        index.search(np.full((1, 384), np.nan, np.float32))


def test_the_directory_is_as_documented(made, embedder, passages):
    segment = made / "segments" / "000001"
    vectors = np.load(segment / "vectors.npy", allow_pickle=False)
    np.testing.assert_allclose(vectors, embedder.encode([row["text"] for row in passages]), atol=1e-3)
    np.testing.assert_array_equal(np.load(segment / "row_ids.npy", allow_pickle=False), np.arange(240))
    rows = [json.loads(line) for line in (segment / "rows.jsonl").read_text("utf-8").splitlines()]
    assert [row["id"] for row in rows] == [row["id"] for row in passages]
    manifest = json.loads((made / "generations" / "000001.json").read_text())
    assert manifest["model"]["fingerprint"] == embedder.fingerprint
    assert (manifest["rows"], manifest["next_row"], manifest["metric"]) == (240, 240, "cosine")
    assert {p.name for p in made.iterdir()} <= {"CURRENT", "LOCK", "generations", "segments", "faiss"}


def test_every_flipped_bit_is_found(copy, rng):
    assert SearchIndex(copy).verify() == []
    files = [p for p in copy.rglob("*") if p.is_file() and p.name != "LOCK"]
    assert len(files) == 11
    for file in files:
        data = file.read_bytes()
        for position in {0, len(data) - 1, *rng.integers(0, len(data), 10).tolist()}:
            damaged = bytearray(data)
            damaged[position] ^= 1 << int(rng.integers(8))
            file.write_bytes(damaged)
            try:
                found = bool(SearchIndex(copy).verify())
            except CorruptIndexError:
                found = True
            assert found, f"{file} bit flip at byte {position}"
        file.write_bytes(data)
    assert SearchIndex(copy).verify() == []


def test_a_damaged_row_is_an_error_when_it_is_read(copy):
    rows = copy / "segments" / "000001" / "rows.jsonl"
    data = bytearray(rows.read_bytes())
    data[1000] ^= 1
    rows.write_bytes(data)
    index = SearchIndex(copy)
    with pytest.raises(CorruptIndexError, match=r"rows\.jsonl: block 0 .* does not match"):
        index.search("bread", 3)
    rows.write_bytes(data[:-3])
    with pytest.raises(CorruptIndexError, match=r"must hold 95382 bytes, and holds 95379"):
        SearchIndex(copy)


def test_a_part_of_a_file_is_checked_by_its_blocks_alone(tmp_path, rng):
    file = tmp_path / "file"
    data = rng.bytes(64 * 5 + 9)
    file.write_bytes(data)
    checksums = file_checksums(file, block_bytes=64)
    assert len(checksums["sha256"]) == 6
    with CheckedFile(file, checksums) as checked:
        for _ in range(200):
            start, stop = sorted(rng.integers(0, len(data) + 1, 2).tolist())
            if stop > start:
                assert checked.read(start, stop) == data[start:stop]
        assert b"".join(checked.blocks(13)) == data[13:]
    damaged = bytearray(data)
    damaged[64 * 3 + 5] ^= 4
    file.write_bytes(damaged)
    with CheckedFile(file, checksums) as checked:
        assert checked.read(0, 64 * 3) == data[: 64 * 3]
        with pytest.raises(CorruptIndexError, match="block 3 of 64 bytes"):
            checked.read(64 * 3 - 1, 64 * 3 + 1)


def test_a_manifest_that_points_elsewhere_or_is_newer_is_refused(copy):
    current = copy / "CURRENT"
    pointer = read_sealed_json(current, CorruptIndexError)
    for change in ({"manifest": "../../etc/passwd"}, {"manifest": "generations/../CURRENT"}):
        write_sealed_json(current, {**pointer, **change})
        with pytest.raises(CorruptIndexError, match="damaged"):
            SearchIndex(copy)
    write_sealed_json(current, {**pointer, "format_version": 4})
    with pytest.raises(CorruptIndexError, match="format version 4"):
        SearchIndex(copy)
    current.write_text("{")
    with pytest.raises(CorruptIndexError, match="damaged"):
        SearchIndex(copy)


def test_another_model_is_refused_naming_both(made, converted_model):
    other = Embedder(converted_model())
    with pytest.raises(ModelMismatchError, match=r"'.*all-MiniLM.*|gt_all.*' .*model-1"):
        SearchIndex(made).search("bread", embedder=other)


def test_a_model_that_changed_or_vanished_under_its_name_is_refused(converted_model, tmp_path):
    path = converted_model()
    IndexWriter(tmp_path / "index", Embedder(path)).create([Record("the cat")])
    (path / "vocab.txt").write_text((path / "vocab.txt").read_text().replace("cat", "cow"))
    with pytest.raises(ModelMismatchError, match="is another"):
        SearchIndex(tmp_path / "index").search("cat")
    shutil.rmtree(path)
    with pytest.raises(ModelNotFoundError, match="was made with the model"):
        SearchIndex(tmp_path / "index").search("cat")


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


def test_an_index_without_its_pointer_is_not_written_over(copy, embedder):
    (copy / "CURRENT").unlink()
    with pytest.raises(IndexExistsError, match="must be empty or absent"):
        IndexWriter(copy, embedder).create([Record("one")])
    assert len(list((copy / "segments" / "000001").iterdir())) == 9


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
    assert [row.columns for row in SearchIndex(tmp_path / "index").rows()][-1] == {"n": "6"}
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
    assert hit.score == pytest.approx(
        float(model.encode("cat a red house") @ model.encode("dog a red house")), abs=1e-3
    )


def test_another_dimension_or_graph_of_the_same_model_is_refused(tmp_path, converted_model):
    path = converted_model()
    config = path / "config_sentence_transformers.json"
    config.write_text(json.dumps({"truncate_dim": 12}))
    IndexWriter(tmp_path / "index", Embedder(path)).create([Record("a red house")])
    with pytest.raises(ModelMismatchError, match="the int8 graph"):
        IndexWriter(tmp_path / "index", Embedder(path, graph="fp32")).add([Record("a tree")])
    config.write_text("{}")
    with pytest.raises(ModelMismatchError, match=r"12 components, and .* gives 28 now"):
        IndexWriter(tmp_path / "index", Embedder(path)).add([Record("a tree")])
    with pytest.raises(ModelMismatchError, match="12 components"):
        SearchIndex(tmp_path / "index").search("a tree")


def test_unknown_keys_of_a_manifest_are_ignored(copy):
    pointer = read_sealed_json(copy / "CURRENT", CorruptIndexError)
    manifest = json.loads((copy / pointer["manifest"]).read_text())
    manifest["model"]["colour"], manifest["weather"] = "blue", "fine"
    data = json.dumps(manifest).encode()
    (copy / pointer["manifest"]).write_bytes(data)
    write_sealed_json(copy / "CURRENT", {**pointer, "sha256": hashlib.sha256(data).hexdigest()})
    assert len(SearchIndex(copy).search("bread", 3)) == 3


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


def test_nan_vectors_are_not_stored(tmp_path):
    with (
        pytest.raises(CorruptModelError, match="NaN"),
        SegmentWriter(tmp_path, "000001", 3, 0) as segment,
    ):
        segment.write([], np.array([[1, np.nan, 0]], np.float32))
    assert list(tmp_path.iterdir()) == []


def test_a_reader_keeps_the_generation_that_it_opened(copy, made):
    index = SearchIndex(copy)
    before = index.search("bread", 3)
    manifest = index._store.manifest
    publish(copy, 2, index.model, manifest["segments"], 240, columns=manifest["columns"])
    assert SearchIndex(copy).generation == 2
    assert (index.generation, index.search("bread", 3)) == (1, before)


WRITER = """
import sys
from sbert_mini import Embedder, IndexWriter
from sbert_mini.text.records import Record
model = Embedder(sys.argv[1])
print("ready", flush=True)
IndexWriter(sys.argv[2], model).create((Record("the cat " * (i % 9 + 1) + str(i), str(i)) for i in range(160)))
print("done", flush=True)
"""


def test_a_killed_writer_leaves_an_index_or_none(tmp_path, converted_model, rng):
    model = converted_model()
    Embedder(model)
    path = tmp_path / "index"
    for delay_s in rng.uniform(0, 0.12, 8):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(model), str(path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout.readline() == "ready\n"
        time.sleep(delay_s)
        child.send_signal(signal.SIGKILL)
        acknowledged = "done" in child.stdout.read()
        child.wait()
        child.stdout.close()
        if (path / "CURRENT").exists():
            index = SearchIndex(path)
            assert index.verify() == []
            assert [row.id for row in index.rows()] == [str(i) for i in range(160)]
            shutil.rmtree(path)
        else:
            assert not acknowledged
            IndexWriter(path, Embedder(model)).create([Record("again")])  # what was left there is in nobody's way
            shutil.rmtree(path)
