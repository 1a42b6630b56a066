"""Indexes that earlier commits made (`fixtures/make.py`) open, search, change, verify and compact."""

import json
import logging
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from fixtures.make import COMMITS, HERE, ROWS

from sbert_mini import IndexWriter, SearchIndex
from sbert_mini.text.records import Record

VERSIONS = {name: int(name.partition("-")[0]) for name in COMMITS}
NEWEST = 3
SBMINI = str(Path(sys.executable).with_name("sbmini"))


@pytest.fixture(params=COMMITS)
def old(request, tmp_path):
    """The directory of an index, and the version of its format."""
    with tarfile.open(HERE / f"format{request.param}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "index", VERSIONS[request.param]


def selected(test):
    """Return the ids of the rows for which a test holds."""
    return {identity for identity, entry in ROWS.items() if test(entry)}


def ids_of(index, condition):
    located = (index._store.locate(int(row)) for row in index.matching(condition))
    return {segment.row(position).id for segment, position in located}


FILTERS = [
    ("year between 2004 and 2009", lambda row: 2004 <= row["year"] <= 2009),
    ("lang = 'de' and price > 1", lambda row: row["lang"] == "de" and row.get("price", 0) > 1),
    ("price is null", lambda row: "price" not in row),
    ("title in ('title 4é', 'title 14é', 'title 1é')", lambda row: row["id"] in ("row 4", "row 14")),
    ("id = 'row 3'", lambda row: row["id"] == "row 3"),
]


def check(index, expected):
    """Compare all rows, and what searches return, with the rows that there must be."""
    assert {row.id: (row.text, dict(row.columns)) for row in index.rows()} == {
        identity: (entry["text"], {key: value for key, value in entry.items() if key not in ("id", "text")})
        for identity, entry in expected.items()
    }
    assert index.search("hail fell on the greenhouse", 1)[0].id == "row 3"
    assert index.search("hail fell on the greenhouse", 1)[0].cosine == pytest.approx(
        1, abs=0.002
    )  # ONNX Runtime made it
    vectors = np.concatenate([vectors for _, vectors in index.row_blocks()])
    scores, rows = index.nearest(vectors, 1)
    np.testing.assert_allclose(scores, 1, atol=1e-5)
    assert len({*rows[:, 0].tolist()}) == len(expected)


def test_a_fixture_is_small_and_each_format_has_one():
    assert {*VERSIONS.values()} == {1, 2, 3}
    for name in COMMITS:
        assert (HERE / f"format{name}.tar.gz").stat().st_size < 200_000


def test_an_old_index_is_searched_filtered_and_verified(old, caplog):
    path, version = old
    index = SearchIndex(path)
    check(index, ROWS)
    assert index.verify() == []
    assert index._store.format_version == version
    assert index.columns == {"year": "integer", "lang": "text", "title": "text", "price": "number"}
    with caplog.at_level(logging.WARNING, "sbert_mini"):
        for condition, test in FILTERS:
            assert ids_of(index, condition) == selected(test), condition
        hits = index.search("the train left the station late", 3, filter="lang = 'fr'")
    assert {hit.columns["lang"] for hit in hits} == {"fr"}
    warnings = [record for record in caplog.records if "is of an earlier format" in record.message]
    assert len(warnings) == (version < NEWEST)
    assert SearchIndex(path).matching("title = 'title 0é'").tolist() == [0]


def test_an_old_index_is_changed_compacted_and_searched_again(old):
    path, _ = old
    writer = IndexWriter(path)
    new = {"id": "new", "text": "a new violin", "year": 2030, "lang": "en", "title": "new"}
    row = ROWS["row 5"] | {"text": "the train was early"}
    writer.add([Record(new["text"], "new", {key: new[key] for key in ("year", "lang", "title")})])
    writer.update([Record(row["text"], "row 5", {key: row[key] for key in row if key not in ("id", "text")})])
    writer.delete(["row 0"])
    assert IndexWriter(path).delete(filter="year = 2009") == 1  # row 9
    expected = ROWS | {"new": new, "row 5": row}
    del expected["row 0"], expected["row 9"]
    changed = SearchIndex(path)
    check(changed, expected)
    assert changed.verify() == []
    assert ids_of(changed, "year > 2010") == {i for i, entry in expected.items() if entry["year"] > 2010}
    after = IndexWriter(path).compact()
    check(after, expected)
    assert after.verify() == []
    assert (after._store.format_version, after.segments, after.deleted_rows) == (NEWEST, 1, 0)
    assert after._store.segments[0].is_current
    assert ids_of(after, "year > 2010") == {i for i, entry in expected.items() if entry["year"] > 2010}
    assert ids_of(after, "title = 'new'") == {"new"}
    assert after.search("E-1042", 1, hybrid=True)[0].id == "row 6"
    assert IndexWriter(path).compact().generation == after.generation  # nothing to gain


def test_compaction_alone_brings_an_index_of_one_segment_to_the_present_format(old):
    path, _ = old
    IndexWriter(path).compact()
    data = path / "segments"
    described = json.loads(next(data.glob("*/columns.json")).read_bytes())
    assert {entry["name"] for entry in described["columns"] if entry["hashes"] is not None} == {"id", "title"}
    assert SearchIndex(path)._store.format_version == NEWEST


def test_info_names_the_format(old):
    path, version = old
    text, about = (
        subprocess.run([SBMINI, "index", "info", path, *more], capture_output=True, text=True, check=True).stdout
        for more in ((), ("--json",))
    )
    about = json.loads(about)
    assert (about["format"], about["made_by"]) == (version, "0.1.0")
    line = next(line for line in text.splitlines() if line.startswith("format "))
    if version < NEWEST:
        assert line.split(maxsplit=1)[1] == f"{version}; 'sbmini index compact {path}' brings it to format {NEWEST}"
    else:
        assert line.split() == ["format", str(version)]
