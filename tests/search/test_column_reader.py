"""Columns as filters read them: texts found by their hashes, with and without collisions, and what is checked of a file."""

import json
import random
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typed_rows import columns_of

from sbert_mini.errors import CorruptIndexError
from sbert_mini.search.checksums import CheckedFile, file_checksums
from sbert_mini.search.column_reader import Columns, Texts
from sbert_mini.search.columns import DATA, DESCRIPTION, Schema
from sbert_mini.search.conditions import parse
from sbert_mini.search.deadline import Deadline
from sbert_mini.search.filters import matching
from sbert_mini.search.text_functions import like

ALIKE = ("plumless", "buckeroo")
"""Two texts of one CRC-32."""


def reopened(folder, rows, *, hashed=True, checksums=None):
    """Return the columns in a folder; without hashes as before they were stored."""
    description = json.loads((folder / DESCRIPTION).read_text())
    if not hashed:
        for entry in description["columns"]:
            del entry["hashes"]
    return Columns(description, CheckedFile(folder / DATA, checksums or file_checksums(folder / DATA)), rows)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A folder with a column of many different texts, most of them in one row, and the texts; None in a tenth."""
    folder, rng = tmp_path_factory.mktemp("columns"), random.Random(11)
    texts = [rng.choice([*[f"key {row}"] * 4, f"é{row}", f"ü{row}", "x" * (row % 40), *ALIKE]) for row in range(1009)]
    texts = [None if rng.random() < 0.1 else text for text in texts]
    assert not columns_of(folder, [{"s": text} for text in texts], Schema()).column("s").has_dictionary
    return folder, texts


def test_two_texts_have_one_hash():
    assert zlib.crc32(ALIKE[0].encode()) == zlib.crc32(ALIKE[1].encode())


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize(
    "sought",
    [["key 0"], ["plumless"], ["nothing"], [""], ["x" * 7, "buckeroo"], [f"key {n}" for n in range(500)], ["é5", *"abcdefgh"]],
)  # fmt: skip
def test_texts_are_found_as_python_finds_them(stored, hashed, sought):
    folder, texts = stored
    column = reopened(folder, len(texts), hashed=hashed).column("s")
    for first, last in ((0, 1009), (1, 400), (400, 1009), (7, 8)):
        equal, valid = column.equal_to(first, last, Texts(sought))
        assert valid.tolist() == [text is not None for text in texts[first:last]]
        assert (equal & valid).tolist() == [text in sought for text in texts[first:last]]


@pytest.mark.parametrize(
    "condition", ["s = 'plumless'", "s <> 'buckeroo'", "'key 5' = s", "s in ('key 5', 'plumless', null)"]
)
def test_conditions_on_many_different_texts(stored, condition):
    folder, texts = stored
    values = {"plumless", "key 5"} if " in " in condition else {condition.split("'")[1]}
    expected = [i for i, text in enumerate(texts) if text is not None and (text in values) != ("<>" in condition)]
    for hashed in (True, False):
        columns = reopened(folder, len(texts), hashed=hashed)
        assert np.flatnonzero(matching(parse(condition, {"s": "text"}), columns, Deadline(None))).tolist() == expected


@settings(deadline=None)
@given(
    st.lists(st.none() | st.text("aé日\ud800", max_size=5), min_size=1, max_size=12),
    st.lists(st.text("aé日\ud800", max_size=2), min_size=2, max_size=3),
)
def test_pieces_are_found_as_like_finds_them(tmp_path_factory, texts, pieces):
    """Unpaired surrogates are texts too; a piece over the border of two texts is in neither."""
    folder = tmp_path_factory.mktemp("pieces")
    rows = [*({"s": text} for text in texts), *({"s": f"other {i}"} for i in range(2 * len(texts)))]
    column = columns_of(folder, rows, Schema()).column("s")
    made, valid = column.made_of(1, len(texts), pieces)
    test = like("%".join(pieces), None, case_sensitive=True)
    assert (made & valid).tolist() == [text is not None and test(text) for text in texts[1:]]


@pytest.mark.parametrize(
    "condition",
    [
        "s like '%y 4%'",
        "s like 'key %'",
        "s not like '%7'",
        "contains(s, 'less')",
        "starts_with(s, 'é')",
        "ends_with(s, '')",
    ],
)
def test_conditions_on_parts_of_many_different_texts(stored, condition):
    folder, texts = stored
    tests = {
        "s like '%y 4%'": lambda text: "y 4" in text, "s like 'key %'": lambda text: text.startswith("key "),
        "s not like '%7'": lambda text: not text.endswith("7"), "contains(s, 'less')": lambda text: "less" in text,
        "starts_with(s, 'é')": lambda text: text.startswith("é"), "ends_with(s, '')": lambda text: True,
    }  # fmt: skip
    rows = np.flatnonzero(matching(parse(condition, {"s": "text"}), reopened(folder, len(texts)), Deadline(None)))
    assert rows.tolist() == [i for i, text in enumerate(texts) if text is not None and tests[condition](text)]


def test_only_the_texts_that_may_match_are_checked(stored, tmp_path):
    folder, texts = stored
    checksums = file_checksums(folder / DATA, 64)
    (tmp_path / DESCRIPTION).write_bytes((folder / DESCRIPTION).read_bytes())
    data = bytearray((folder / DATA).read_bytes())
    rows = [row for row, text in enumerate(texts) if (text or "").startswith("key")]
    near, far = rows[0], rows[-1]
    entry = next(e for e in json.loads((folder / DESCRIPTION).read_text())["columns"] if e["name"] == "s")
    byte = data.index(texts[far].encode(), entry["values"][0])
    data[byte] ^= 1
    (tmp_path / DATA).write_bytes(data)
    column = reopened(tmp_path, len(texts), checksums=checksums).column("s")
    assert np.flatnonzero(column.equal_to(0, 1009, Texts([texts[near]]))[0]).tolist() == [near]
    with pytest.raises(CorruptIndexError, match=r"block \d+ of 64 bytes does not match"):
        column.equal_to(0, 1009, Texts([texts[far]]))
    with pytest.raises(CorruptIndexError, match=r"block \d+ of 64 bytes does not match"):
        column.values(0, 1009)


@pytest.mark.parametrize("array", ["hashes", "values", "offsets"])
def test_an_array_outside_of_the_file_is_refused(stored, array):
    folder, texts = stored
    description = json.loads((folder / DESCRIPTION).read_text())
    next(e for e in description["columns"] if e["name"] == "s")[array][0] += 1 << 20
    columns = Columns(description, CheckedFile(folder / DATA, file_checksums(folder / DATA)), len(texts))
    with pytest.raises(CorruptIndexError, match=r"columns\.bin holds \d+ bytes, and not \d+ from \d+ on"):
        columns.column("s")


def test_threads_check_what_one_thread_checks(tmp_path):
    path = tmp_path / "file"
    data = np.random.default_rng(3).bytes(9 << 20)
    path.write_bytes(data)
    checksums = file_checksums(path)
    for threads in (1, 2, 5):
        CheckedFile(path, checksums).check(5, 9 << 20, threads)
    for block in (0, 4, 8):
        damaged = bytearray(data)
        damaged[block << 20] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CorruptIndexError, match=f"block {block} of 1048576 bytes does not match"):
            CheckedFile(path, checksums).check(0, 9 << 20, 3)


def test_spans_check_the_blocks_that_they_touch(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(250)))
    checksums = file_checksums(path, 10)
    path.write_bytes(bytes([1, *range(1, 99), 0, *range(100, 250)]))  # the blocks 0 and 9 are damaged
    file = CheckedFile(path, checksums)
    file.check_spans(np.array([10, 100, 232]), 18)
    for start in (9, 99, 82, 90):
        with pytest.raises(CorruptIndexError, match=f"block {0 if start < 10 else 9} of 10 bytes"):
            CheckedFile(path, checksums).check_spans(np.array([200, start]), 18)
    with pytest.raises(CorruptIndexError, match="not every span of 18"):
        file.check_spans(np.array([233]), 18)


@pytest.mark.parametrize(
    ("low", "high", "width"),
    [
        (-128, 127, 1), (-129, 0, 2), (0, 32_767, 2), (-1, 32_768, 4), (-(2**31), 2**31 - 1, 4), (0, 2**31, None),
        (-(2**63), 2**63 - 1, None), (2**53, 2**53 + 1, None),
    ],
)  # fmt: skip
def test_integers_that_fit_fewer_bits_are_the_same_numbers(tmp_path, low, high, width):
    rng = random.Random(5)
    numbers = [low, None, high, *(rng.randint(low, high) for _ in range(500)), None]
    columns_of(tmp_path, [{"n": number} for number in numbers], Schema(), values_in_memory=100)
    description = json.loads((tmp_path / DESCRIPTION).read_text())
    (entry,) = (entry for entry in description["columns"] if entry["name"] == "n")
    assert (entry["narrow"][1] // entry["count"] if entry["narrow"] else None) == width
    middle = sorted(number for number in numbers if number is not None)[250]
    for narrow in (entry["narrow"], None):  # None: as an earlier version wrote it
        entry["narrow"] = narrow
        columns = Columns(description, CheckedFile(tmp_path / DATA, file_checksums(tmp_path / DATA)), len(numbers))
        values = columns.column("n").values(0, len(numbers))
        assert values.values.dtype == np.int64
        assert [n if ok else None for n, ok in zip(values.values.tolist(), values.valid, strict=True)] == numbers
        for bound in (low, middle, high):
            for op, compare in (("<", lambda a, b: a < b), ("=", lambda a, b: a == b), (">", lambda a, b: a > b)):
                rows = np.flatnonzero(matching(parse(f"n {op} {bound}", {"n": "integer"}), columns, Deadline(None)))
                assert rows.tolist() == [i for i, n in enumerate(numbers) if n is not None and compare(n, bound)]


@pytest.mark.parametrize("size", [0, 3, 502 * 8, 501, 503])
def test_integers_of_another_width_are_refused(tmp_path, size):
    columns_of(tmp_path, [{"n": number % 100} for number in range(502)], Schema())
    description = json.loads((tmp_path / DESCRIPTION).read_text())
    next(entry for entry in description["columns"] if entry["name"] == "n")["narrow"][1] = size
    columns = Columns(description, CheckedFile(tmp_path / DATA, file_checksums(tmp_path / DATA)), 502)
    with pytest.raises(CorruptIndexError, match=r"does not hold 502 values of the column 'n'|columns\.bin holds"):
        columns.column("n")
