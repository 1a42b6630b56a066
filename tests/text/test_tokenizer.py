"""Tokenizing against transformers, batching by its laws, and reading files."""

import copy
import gzip
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from sbert_mini.errors import CorruptModelError, InputError, UsageError
from sbert_mini.text.batching import batches_by_length, pad
from sbert_mini.text.records import ReadCounts, Record, format_of, read_records
from sbert_mini.text.tokenizer import TextTokenizer
from sbert_mini.text.tokens import Tokens

TEXTS = [
    "A cat sleeps.",
    "naïve café — Dvořák",
    "",
    "多言語",
    "[SEP] [CLS] [MASK] [PAD] [UNK]",
    "x" * 150,
    "a\tb\n c\x00d",
]


@pytest.fixture(scope="module")
def tokenizer(minilm):
    return TextTokenizer.from_directory(minilm, 256)


@pytest.fixture(scope="module")
def reference(minilm):
    return AutoTokenizer.from_pretrained(minilm, split_special_tokens=True)


def test_tokens_equal_transformers_with_split_special_tokens(tokenizer, reference):
    for tokens, ids in zip(tokenizer.encode(TEXTS), reference(TEXTS)["input_ids"], strict=True):
        assert tokens.ids == ids
        assert set(tokens.type_ids) == {0}
    pairs = [(a, b) for a in TEXTS for b in TEXTS]
    theirs = reference([a for a, _ in pairs], [b for _, b in pairs])
    for tokens, ids, types in zip(tokenizer.encode(pairs), theirs["input_ids"], theirs["token_type_ids"], strict=True):
        assert tokens.ids == ids
        assert tokens.type_ids == types


def test_special_tokens_in_a_text_stay_text(tokenizer, minilm):
    ids = tokenizer.encode(["one [SEP] two [CLS]"])[0].ids
    cls, sep = ids[0], ids[-1]
    assert ids.count(sep) == ids.count(cls) == 1
    forged = tokenizer.encode([("one [SEP] two", "three")])[0]
    assert forged.ids.count(sep) == 2
    assert forged.type_ids.count(1) == len(tokenizer.encode(["three"])[0].ids) - 1
    unprotected = AutoTokenizer.from_pretrained(minilm)("one [SEP] two [CLS]")["input_ids"]
    assert unprotected.count(sep) == 2  # what is guarded against


def test_a_tokenizer_that_is_copied_or_sent_to_a_process_still_keeps_special_tokens_text(tokenizer):
    for made in (copy.deepcopy(tokenizer), tokenizer.with_max_seq_length(99)):
        assert made.encode(TEXTS) == tokenizer.encode(TEXTS)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert pool.submit(tokenizer.encode, TEXTS).result() == tokenizer.encode(TEXTS)


def test_vocabulary_file_gives_the_same_tokenizer_as_tokenizer_json(tokenizer, minilm, tmp_path):
    (tmp_path / "vocab.txt").write_bytes((minilm / "vocab.txt").read_bytes())
    (tmp_path / "tokenizer_config.json").write_bytes((minilm / "tokenizer_config.json").read_bytes())
    from_vocabulary = TextTokenizer.from_directory(tmp_path, 256)
    assert from_vocabulary.encode(TEXTS) == tokenizer.encode(TEXTS)
    assert from_vocabulary.vocab_size == tokenizer.vocab_size == 30522


def test_a_saved_tokenizer_is_the_same_one(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert TextTokenizer.from_directory(tmp_path, 256).encode(TEXTS) == tokenizer.encode(TEXTS)
    plain = AutoTokenizer.from_pretrained(tmp_path)
    assert [plain(t)["input_ids"] for t in TEXTS] == [t.ids for t in tokenizer.encode(TEXTS)]
    assert plain.model_max_length == 256


@pytest.mark.parametrize("text", ["word " * 254, "word " * 255, "word " * 400, "x" * 90 + " " + "a b " * 5000])
def test_truncation_is_told_and_cuts_where_transformers_cuts(tokenizer, reference, text):
    tokens = tokenizer.encode([text])[0]
    whole = reference(text)["input_ids"]
    assert tokens.ids == reference(text, truncation=True, max_length=256)["input_ids"]
    assert tokens.truncated == (len(whole) > 256)


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet="ab .\n\t漢é[", max_size=60), st.integers(1, 400))
def test_cutting_a_huge_text_before_tokenizing_changes_no_id(tokenizer, unit, repeats):
    text = unit * repeats
    small = tokenizer.with_max_seq_length(8)
    plain = small.backend.encode(text)
    tokens = small.encode([text])[0]
    assert tokens.ids == plain.ids
    assert tokens.truncated == bool(plain.overflowing)


def test_ten_megabytes_are_cut_without_being_tokenized_whole(tokenizer):
    tokens = tokenizer.encode(["the cat " * 1_300_000, "x" * 10_000_000])
    assert tokens[0].truncated
    assert len(tokens[0].ids) == 256
    assert len(tokens[1].ids) == 3  # one word of too many characters is [UNK]
    assert not tokens[1].truncated


def test_windows_hold_the_whole_text(tokenizer):
    text = " ".join(f"word{i}" for i in range(500))
    whole = tokenizer.with_max_seq_length(100_000).encode([text])[0].ids
    windows = tokenizer.windows(text)
    assert len(windows) > 1
    assert all(len(w.ids) <= 256 and w.ids[0] == whole[0] and w.ids[-1] == whole[-1] for w in windows)
    assert [i for w in windows for i in w.ids[1:-1]] == whole[1:-1]
    prompt = tokenizer.encode(["query: "])[0].ids[1:-1]
    prompted = tokenizer.windows(text, "query: ")
    assert all(len(w.ids) == len(w.type_ids) <= 256 and w.ids[1 : 1 + len(prompt)] == prompt for w in prompted)
    assert [i for w in prompted for i in w.ids[1 + len(prompt) : -1]] == whole[1:-1]
    with pytest.raises(UsageError, match="the prompt takes 256 of the 256 tokens"):
        tokenizer.windows(text, "word " * 300)


def test_a_broken_tokenizer_file_is_an_error_of_ours(tmp_path):
    with pytest.raises(CorruptModelError, match=r"neither tokenizer\.json nor vocab\.txt"):
        TextTokenizer.from_directory(tmp_path, 16)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CorruptModelError, match="cannot be read"):
        TextTokenizer.from_directory(tmp_path, 16)


@given(st.lists(st.integers(0, 70), max_size=80), st.integers(1, 9), st.integers(1, 64))
def test_batches_hold_every_text_once_within_their_limits(lengths, max_texts, max_tokens):
    batches = batches_by_length(lengths, max_texts, max_tokens)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        assert 1 <= len(batch) <= max_texts
        assert len(batch) == 1 or len(batch) * longest <= max_tokens
    flat = [lengths[i] for batch in batches for i in batch]
    assert flat == sorted(lengths, reverse=True)


def test_padding_by_hand():
    ids, mask, types = pad([Tokens([5, 6, 7], [0, 0, 1], False), Tokens([8], [0], False)], pad_id=9)
    np.testing.assert_array_equal(ids, [[5, 6, 7], [8, 9, 9]])
    np.testing.assert_array_equal(mask, [[1, 1, 1], [1, 0, 0]])
    np.testing.assert_array_equal(types, [[0, 0, 1], [0, 0, 0]])


def write(path, content):
    if path.suffix == ".gz":
        content = gzip.compress(content.encode() if isinstance(content, str) else content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_every_format_gives_its_records(tmp_path):
    expected = [
        Record('a "cat"', "7", {"year": "1999"}, 2, typed=False),
        Record("two\nlines, quoted", "8", {"year": ""}, 3, typed=False),
        Record("ünï", "9", {"year": "x"}, 5, typed=False),
    ]
    table = 'id,text,year\n7,"a ""cat""",1999\n8,"two\nlines, quoted",\n9,ünï,x\n'
    assert list(read_records(write(tmp_path / "a.csv", table))) == expected
    assert list(read_records(write(tmp_path / "a.csv.gz", "\ufeff" + table.replace("\n9", "\r\n9")))) == expected
    assert list(read_records(write(tmp_path / "a", table), format="csv")) == expected
    tsv = 'body\tkey\nsays "hi\tk1\n'
    assert list(read_records(write(tmp_path / "a.tsv", tsv), text_column="body", id_column="key")) == [
        Record('says "hi', "k1", {}, 2, typed=False)
    ]
    rows = [{"text": "one", "n": [1, None]}, {"id": 5, "text": "two"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    assert list(read_records(write(tmp_path / "a.jsonl", lines))) == [
        Record("one", None, {"n": [1, None]}, 1),
        Record("two", "5", {}, 2),
    ]
    counts = ReadCounts()
    text = "one\r\n\n  \ntwo\u2028still two\nthree"
    assert [r.text for r in read_records(write(tmp_path / "a.txt", text), counts=counts)] == [
        "one", "two\u2028still two", "three",
    ]  # fmt: skip
    assert (counts.records, counts.blank) == (3, 2)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"good\nbad \xff byte\n", r"line 2: not UTF-8 \(byte 0xff at position 5\)"),
        ("a.csv", "name,body\nx,y\n", "line 1: no column 'text' for the text; there are: name, body"),
        ("a.csv", "", "is empty"),
        ("a.csv", "text,text\n", "column 'text' stands twice"),
        ("a.csv", "id,text\n1,one\n2\n", "line 3: 1 columns, and the header names 2"),
        ("a.csv", 'id,text\n1,"open\n', "line 2: a quotation mark is opened in this row, and not closed"),
        ("a.csv", "id,text\n1,\n", "line 2: the text is empty"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "line 2: not JSON"),
        ("a.jsonl", "[1]\n", "line 1: a JSON object is required, and this is a list"),
        ("a.jsonl", '{"text": 5}\n', "line 1: 'text' must be a string; found int"),
        ("a.jsonl", '{"body": "x"}\n', "no column 'text' for the text; there are: body"),
        ("a.jsonl", '{"text": "a\\ud800"}\n', "line 1: not valid Unicode"),
        ("a.jsonl", '{"text": "a", "n": "\\udfff"}\n', "line 1: not valid Unicode"),
        ("a.jsonl", '{"text": "a", "n": NaN}\n', "line 1: not JSON"),
        ("a.jsonl", '{"text": "a"}\n\n', "line 2: the line is blank"),
        ("a.txt.gz", b"", "cannot be read after line 0"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    if name == "a.txt.gz":
        path.write_bytes(gzip.compress(b"line\n" * 9)[:-9])
        message = "cannot be read after line"
    with pytest.raises(InputError, match=message):
        list(read_records(path))


def test_formats_and_columns_that_make_no_sense_are_usage_errors(tmp_path):
    with pytest.raises(UsageError, match="no suffix"):
        format_of("README")
    with pytest.raises(UsageError, match="'xml'"):
        format_of("a.txt", "xml")
    with pytest.raises(InputError, match="No such file"):
        list(read_records(tmp_path / "a.txt"))
    (tmp_path / "a.txt").write_text("a\n")
    with pytest.raises(UsageError, match="plain text"):
        list(read_records(tmp_path / "a.txt", text_column="x"))
    with pytest.raises(UsageError, match="is a directory"):
        list(read_records(tmp_path, format="txt"))


def test_content_ids_depend_on_content_alone():
    record = Record("a", None, {"x": 1, "y": 2}, 3)
    assert record.content_id() == Record("a", None, {"y": 2, "x": 1}, 9).content_id()
    others = [Record("b", None, {"x": 1, "y": 2}), Record("a", None, {"x": 1}), Record("a", None, {"x": "1", "y": 2})]
    assert len({record.content_id(), *(o.content_id() for o in others)}) == 4
    assert len(record.content_id()) == 20
