"""WordPiece in native code against the `tokenizers` library: every character, odd texts under all options, real sentences."""

import gzip
import itertools
import os
import random
import subprocess
import sys
import threading

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_texts import ODD, odd_texts
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from sbert_mini.text import wordpiece
from sbert_mini.text.cutting import Cutter
from sbert_mini.text.pieces import LibraryPieces, NativePieces
from sbert_mini.text.tokenizer import TextTokenizer
from sbert_mini.text.wordpiece import open_wordpiece
from tests.native import unicode_tables

pytestmark = pytest.mark.skipif(wordpiece.library() is None, reason="no native code: not compiled")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
EVERY = [chr(code) for code in unicode_tables.ALL]
STARTS = [
    "a",
    "b",
    "re",
    "un",
    "the",
    "cat",
    "é",
    "e",
    "漢",
    "か",
    "д",
    "한",
    "ᄒ",
    ".",
    ",",
    "$",
    "[",
    "]",
    "sep",
    "SEP",
    "🎉",
]
CONTINUED = ["a", "b", "bc", "ing", "é", "e", "x", "か", "д", "ᅡ", "ᆫ", "\u0301", "\u302e", "1", "\U0001d165"]


def bert(words=(), prefix="##", longest=100, first=False, unknown="[UNK]", template=True, **flags):
    """Return a tokenizer of BERT's parts with a small vocabulary, as `TextTokenizer` sets it up."""
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys([*SPECIAL, unknown, *words]))}
    model = models.WordPiece(
        vocabulary, unk_token=unknown, max_input_chars_per_word=longest, continuing_subword_prefix=prefix
    )
    made = Tokenizer(model)
    normalizer = normalizers.BertNormalizer(**flags)
    made.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizer]) if first else normalizer
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(SPECIAL)
    made.encode_special_tokens = True
    marks = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    if template:
        pair = "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"
        made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", pair, marks)
    else:
        made.post_processor = processors.BertProcessing(marks[1], marks[0])
    return made


def both(tokenizer, longest):
    """Return what tokenizes by the library, and by native code."""
    native = open_wordpiece(tokenizer)
    assert native is not None
    tokenizer.enable_truncation(longest, strategy="longest_first")
    cutter = Cutter(tokenizer, longest)
    return LibraryPieces(tokenizer, longest, cutter, native.rules.unknown_id), NativePieces(native, longest, cutter)


def real(model, longest):
    """Return both for a model directory."""
    return both(TextTokenizer.from_directory(model, longest).backend, longest)


def unknown_words(tokenizer, text):
    """Return the words that the vocabulary lacks, by the library's parts alone.

    Its offsets, by which `LibraryPieces` finds them in the text, are off by some marks where NFD changes their order.
    """
    unknown = tokenizer.token_to_id(tokenizer.model.unk_token)
    for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)):
        for piece in tokenizer.model.tokenize(word):
            if piece.id == unknown:
                yield word.encode()[slice(*piece.offsets)].decode()


def compare(pair, texts):
    """Assert that both give the same tokens for texts and for their pairs."""
    library, native = pair
    expected, made = library.texts(texts), native.texts(texts)
    for text, theirs, ours in zip(texts, expected, made, strict=True):
        assert (ours.ids, ours.type_ids, ours.truncated) == (theirs.ids, theirs.type_ids, theirs.truncated), ascii(text)
        assert len(ours.unknown) == len(theirs.unknown), ascii(text)
        if ours.unknown != theirs.unknown:
            words = unknown_words(library._tokenizer, text)
            assert ours.unknown == tuple(itertools.islice(words, len(ours.unknown))), ascii(text)
    pairs = list(zip(texts, reversed(texts), strict=True))
    for sides, theirs, ours in zip(pairs, library.pairs(pairs), native.pairs(pairs), strict=True):
        assert ours == theirs, ascii(sides)


OPTIONS = [
    {"clean_text": clean, "handle_chinese_chars": chinese, "strip_accents": strip, "lowercase": lower, "first": first}
    for clean, chinese, strip, lower, first in itertools.product(
        (True, False), (True, False), (None, True, False), (True, False), (False, True)
    )
]
"""All combinations of the normalizer's flags."""


def check_every_character(flags):
    """Compare what becomes of each character alone and within a word: all words are unknown, and so tell what they are."""
    tokenizer = bert(**flags)
    native = open_wordpiece(tokenizer)
    for start in range(0, len(EVERY), 50_000):
        text = "".join(f"a{c}b {c} " for c in EVERY[start : start + 50_000])
        words = [w for w, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))]
        batch = native.encode([text], 10**9, special=False)
        assert set(batch.ids.tolist()) == {native.rules.unknown_id}
        assert len(batch.ids) == len(words)
        assert list(batch.unknown_of(0)) == words


@pytest.mark.long
def test_every_character_becomes_what_the_library_makes_of_it():
    check_every_character({})


@pytest.mark.long
@pytest.mark.parametrize("flags", OPTIONS, ids=str)
def test_every_character_under_every_option(flags):
    check_every_character(flags)


@pytest.mark.long
def test_the_tables_are_those_that_the_library_gives():
    if tokenizers.__version__ != unicode_tables.TOKENIZERS:
        pytest.skip(f"the tables are of tokenizers {unicode_tables.TOKENIZERS}")
    assert unicode_tables.header() == unicode_tables.HEADER.read_text("utf-8")


@pytest.mark.parametrize("flags", OPTIONS, ids=str)
def test_odd_texts_under_every_option(flags):
    rng = random.Random(str(flags))
    prefix = rng.choice(("##", "##", "@@", "", "a", "é"))
    words = [*STARTS, *(prefix + word for word in CONTINUED)]
    pair = both(bert(words, prefix, rng.choice((1, 3, 10, 100)), **flags), rng.choice((4, 5, 6, 9, 64)))
    compare(pair, list(odd_texts(rng.randrange(10**6), 150)))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(st.one_of(st.sampled_from(ODD), st.characters(exclude_categories=["Cs"]))), max_size=4))
def test_any_text_has_the_ids_of_the_library(minilm, texts):
    if not hasattr(test_any_text_has_the_ids_of_the_library, "pair"):
        test_any_text_has_the_ids_of_the_library.pair = real(minilm, 24)
    compare(test_any_text_has_the_ids_of_the_library.pair, texts)


@pytest.mark.parametrize("model", ["sbert-mini", "sbert-mini-fast", "all-MiniLM-L6-v2"])
def test_odd_texts_with_real_vocabularies(model):
    from sbert_mini.model.registry import resolve

    compare(real(resolve(model), 128), list(odd_texts(7, 2000)))


@pytest.mark.long
def test_two_hundred_thousand_odd_texts(minilm):
    pair = real(minilm, 128)
    for seed in range(100):
        compare(pair, list(odd_texts(1000 + seed, 2000)))


def sentences(data, count):
    with gzip.open(data / "sentences_wikipedia_1.txt.gz", "rt", encoding="utf-8") as lines:
        return [line.rstrip("\n") for line in itertools.islice(lines, count)]


def check_ids(tokenizer, native, texts):
    """Compare the ids alone, by the library's own batches, which are faster."""
    tokenizer.no_truncation()
    theirs = [encoded.ids for encoded in tokenizer.encode_batch_fast(texts)]
    ours = native.encode(texts, 10**6)
    assert np.array_equal(ours.lengths, [len(ids) for ids in theirs])
    assert np.array_equal(ours.ids, np.concatenate(theirs))


def test_real_sentences_have_the_ids_of_the_library(data, minilm):
    tokenizer = TextTokenizer.from_directory(minilm, 256).backend
    check_ids(tokenizer, open_wordpiece(tokenizer), sentences(data, 5000))


@pytest.mark.long
def test_a_million_real_sentences_have_the_ids_of_the_library(data, minilm):
    tokenizer = TextTokenizer.from_directory(minilm, 256).backend
    native, texts = open_wordpiece(tokenizer), sentences(data, None)
    assert len(texts) > 1_000_000
    for start in range(0, len(texts), 10_000):
        check_ids(tokenizer, native, texts[start : start + 10_000])


def test_by_hand():
    native = open_wordpiece(bert(["un", "##aff", "##able", "a", "##b", "the", "##the"], prefix="##"))
    pieces = native.encode(["unaffable", "The áb thethe [SEP]", "", "abx a"], 9)  # un is 5, ##aff 6, ..., ##the 11
    assert pieces[0].ids == [2, 5, 6, 7, 3]
    assert pieces[1].ids == [2, 10, 8, 9, 10, 11, 1, 1, 1, 3]
    assert pieces[1].unknown == ("[", "sep", "]")
    assert pieces[2].ids == [2, 3]
    assert (pieces[3].ids, pieces[3].unknown) == ([2, 1, 8, 3], ("abx",))
    cut = native.encode(["unaffable a"], 3)[0]
    assert (cut.ids, cut.truncated) == ([2, 5, 6, 7, 3], True)
    assert not native.encode(["unaffable"], 3)[0].truncated


@pytest.mark.parametrize("template", [True, False])
def test_both_post_processors_of_bert_are_known(template):
    compare(both(bert(STARTS, template=template), 16), ["the cat", "", "a b"])


def test_marks_around_marks_are_sorted_by_their_class():
    pair = both(bert(["a", "##\u302e", "##\U0001d165"]), 64)
    rng = random.Random(3)
    compare(
        pair,
        [
            "".join(rng.choices("a \u302e\U0001d165\u1b44\U0001d16d\u0301\u0338\u034f\u0e31\u08d4", k=12))
            for _ in range(900)
        ],
    )


@pytest.mark.parametrize("letters", [99, 100, 101, 5000])
@pytest.mark.parametrize("letter", ["x", "é", "e\u0301", "İ", "\U0001d165"])
def test_words_near_the_greatest_length(letters, letter):
    for flags in ({}, {"lowercase": False}, {"lowercase": False, "strip_accents": True}):
        compare(
            both(bert(["x", "##x", "e", "##e", "é", "##é", "i", "##i"], **flags), 300),
            [letter * letters, f"a {letter * letters}b."],
        )


def test_a_vocabulary_may_hold_anything():
    words = [
        "a\0b",
        "\0",
        "",
        "##",
        "a" * 3000,
        "##" + "a" * 3000,
        "a b",
        "##.",
        "\ufffd",
        "é" * 9,
        "##" + "é" * 9,
        "12345678",
        "123456789",
    ]
    for clean in (True, False):
        pair = both(bert(words, longest=10_000, clean_text=clean), 64)
        compare(
            pair,
            [
                "a\0b \0",
                "a" * 3001,
                "a" * 6000,
                "a" * 2999,
                "é" * 18,
                "é" * 19,
                "123456789 12345678 1234567",
                "a##",
                "\ufffd",
            ],
        )


def test_an_unknown_token_that_is_a_word_is_counted_as_the_library_does():
    compare(both(bert(["##x", "##unk", "x"], unknown="unk"), 16), ["unk x unkx xunk unkunk yunk y"])


def test_texts_that_are_hostile(minilm):
    library, native = real(minilm, 64)
    compare((library, native), ["", "\0", "\0\0", "a\0b", " ", "\u200b", "x" * 9000, "e\u0301" * 9000, "[SEP]" * 99])
    for text in ("\ud800", "a\udfffb", "\ud83d\ude00"):
        with pytest.raises(TypeError):
            library.texts([text])
        with pytest.raises(TypeError, match="valid Unicode"):
            native.texts(["a", text])
    with pytest.raises(TypeError):
        native._wordpiece.encode(["a", 5], 9)
    assert len(native.texts([])) == len(native.pairs([])) == 0


@pytest.mark.parametrize("unit", ["x", ".", "é", "한", "\u0301", "\U0001d165", "İ", "\0", " "])
def test_ten_megabytes_of_one_character(unit):
    native = open_wordpiece(bert(["x", "##x", "."]))
    text = unit * (10_000_000 // len(unit.encode()))
    batch = native.encode([text], 5)
    assert len(batch.ids) <= 7
    assert len(native.encode([text], 10**9).ids) <= 10_000_002
    words = "".join(batch.unknown_of(0))
    assert len(words.encode()) <= 3 * 10_000_000


def test_what_native_code_does_not_cover_is_left_to_the_library():
    def changed(change):
        made = bert(["a"])
        change(made)
        return made

    def template(single, pair):
        return processors.TemplateProcessing(single, pair, [("[CLS]", 2), ("[SEP]", 3)])

    bpe = Tokenizer(models.BPE({"a": 0, "[UNK]": 1}, [], unk_token="[UNK]"))  # noqa: S106
    bert_pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
    sequence = normalizers.Sequence
    others = [
        bpe,
        changed(lambda t: t.add_tokens([AddedToken("a b")])),
        changed(lambda t: setattr(t, "normalizer", normalizers.NFC())),
        changed(lambda t: setattr(t, "normalizer", sequence([normalizers.BertNormalizer(), normalizers.Lowercase()]))),
        changed(lambda t: setattr(t, "normalizer", sequence([normalizers.NFD(), normalizers.BertNormalizer()]))),
        changed(lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Whitespace())),
        changed(lambda t: setattr(t, "post_processor", template("$A [SEP]", bert_pair))),
        changed(lambda t: setattr(t, "post_processor", template("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]"))),
        changed(lambda t: setattr(t, "post_processor", template("[CLS] $A [SEP]", "[CLS] $B [SEP] $A:1 [SEP]:1"))),
        bert(unknown="[CLS]"),
    ]
    for made in others:
        assert open_wordpiece(made) is None
        expected = made.encode("a b. A")
        tokens = TextTokenizer(Tokenizer.from_str(made.to_str()), 16).encode(["a b. A"])[0]
        assert (tokens.ids, tokens.type_ids) == (expected.ids, expected.type_ids)


def test_a_sequence_that_was_saved_again_is_known():
    made = bert(STARTS, lowercase=False)
    for _ in range(3):
        made.normalizer = normalizers.Sequence([normalizers.Lowercase(), made.normalizer])
    compare(both(made, 16), ["The CAT İ É", "[SEP]"])


def test_threads_share_one_vocabulary(minilm):
    _, native = real(minilm, 64)
    texts = list(odd_texts(5, 300))
    expected, failed = native.texts(texts), []

    def work():
        for _ in range(10):
            if native.texts(texts).ids.tolist() != expected.ids.tolist():
                failed.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_tokenizes_and_closes():
    code = """
import os
from sbert_mini.model.registry import resolve
from sbert_mini.text.tokenizer import TextTokenizer
tokenizer = TextTokenizer.from_directory(resolve("sbert-mini"), 64)
expected = tokenizer.encode(["the cat sleeps"]).ids.tolist()
child = os.fork()
same = tokenizer.encode(["the cat sleeps"]).ids.tolist() == expected
if not child:
    del tokenizer
    os._exit(0 if same else 1)
assert same and os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


SETUP = """
import ctypes
import numpy as np
from sbert_mini.native.library import Array
from sbert_mini.text.wordpiece import library, side_by_side

lib, keep = library(), []


def at(values, dtype):
    keep.append(np.array(values, dtype))
    return Array.of(keep[-1])


def text(data):
    return at(np.frombuffer(data or b"?", np.uint8), np.uint8) if data else Array(at([0], np.uint8).data, 0)


def said(status):
    return lib.sbmini_error(status).decode()


def opened(pieces=b"[UNK] a ##b", ends=(5, 7, 11), ids=(0, 1, 2), prefix=b"##", unknown=0, longest=100, steps=31, **arrays):
    model = ctypes.c_void_p(7)
    given = {"pieces": text(pieces), "ends": at(ends, np.int64), "ids": at(ids, np.int32), "prefix": text(prefix), **arrays}
    status = lib.sbmini_wordpiece_open(*given.values(), unknown, longest, steps, 5, ctypes.byref(model))
    assert bool(model.value) == (status == 0)
    return said(status), model


def encode(model, data=b"ab a", at_ends=(4,), limit=9, first=8, last=9, room=99, **arrays):
    given = {
        "texts": text(data), "ends": at(at_ends, np.int64), "ids": at([0] * room, np.int32),
        "id_ends": at([0] * len(at_ends), np.int64), "cut": at([0] * len(at_ends), np.uint8),
        "words": at([0] * room, np.uint8), "word_ends": at([0] * room, np.int64),
    }
    texts, ends, *others = {**given, **arrays}.values()
    return said(lib.sbmini_wordpiece_encode(model, texts, ends, limit, first, last, *others))


SIZE = "a size is outside the range that native code computes"
ARRAY = "an array is absent, not aligned, or has another length than the sizes ask for"
TOKEN = "an id or a segment is not in the model's vocabulary"
LENGTH = "a text is empty, or has more tokens than the model has positions"
"""


def in_a_child(code):
    """What this is for would end the process."""
    done = subprocess.run([sys.executable, "-c", SETUP + code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_opening_checks_its_arguments():
    in_a_child("""
assert opened()[0] == "done"
for change in ({"unknown": -1}, {"longest": -1}, {"steps": 32}, {"steps": -1}, {"ends": (), "ids": ()}):
    assert opened(**change)[0] == SIZE, change
for ends in ((5, 4, 11), (5, 5, 11), (-1, 7, 11), (5, 7, 12), (2**62, 7, 11), (5, 7, -2**63)):
    assert opened(ends=ends)[0] == LENGTH, ends
assert opened(ids=(0, -1, 2))[0] == TOKEN
assert opened(ids=(0, 1))[0] == ARRAY
good = [text(b"[UNK] a ##b"), at((5, 7, 11), np.int64), at((0, 1, 2), np.int32), text(b"##")]
for number in range(4):
    for wrong in (Array(None, good[number].count), Array(good[number].data, -1), Array(2**64 - 1, good[number].count)):
        arrays = [*good]
        arrays[number] = wrong
        model = ctypes.c_void_p(7)
        status = lib.sbmini_wordpiece_open(*arrays, 0, 100, 31, 5, ctypes.byref(model))
        assert status and not model.value, number
assert said(lib.sbmini_wordpiece_open(*good, 0, 100, 31, 5, None)) == ARRAY
lib.sbmini_wordpiece_close(None)
""")


def test_encoding_checks_its_arguments():
    in_a_child("""
_, model = opened()
assert encode(model) == "done"
assert encode(model, b"", (0,)) == encode(model, b"", ()) == "done"
assert encode(None) == ARRAY
for change in ({"limit": -1}, {"first": -2}, {"last": -2}):
    assert encode(model, **change) == SIZE, change
for ends in ((5,), (-1,), (2, 2), (3, 1), (2**62,), (-2**63,)):
    assert encode(model, at_ends=ends) == LENGTH, ends
for name in ("texts", "ends", "ids", "id_ends", "cut", "words", "word_ends"):
    for wrong in (Array(None, 1), Array(2**64 - 2, 8), Array(keep[0].ctypes.data, -1)):
        assert encode(model, **{name: wrong}) == ARRAY, name
for name in ("id_ends", "cut"):
    assert encode(model, **{name: at([0, 0], np.int64 if name == "id_ends" else np.uint8)}) == ARRAY
ROOM = "an array has no room for what is to be written"
for room in range(4):
    assert encode(model, b"ab a", room=room) == ROOM, room
assert encode(model, b"xyz", (3,), words=at([0, 0], np.uint8)) == ROOM
assert encode(model, b"xyz", (3,), word_ends=Array(keep[0].ctypes.data, 0)) == ROOM
lib.sbmini_wordpiece_close(model)
""")


def test_texts_that_are_not_utf8_are_refused():
    in_a_child(r"""
_, model = opened()
bad = [b"\x80", b"\xc0\x80", b"\xc1\xbf", b"\xc3", b"\xe0\x80\x80", b"\xe4\xb8", b"\xed\xa0\x80", b"\xf0\x80\x80\x80",
       b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xff", b"a\xf0\x9f\x8e", b"\xe4a\xb8"]
for data in bad:
    for text_ in (data, b"a " + data, data + b" a"):
        assert encode(model, text_, (len(text_),)) == "a text is not UTF-8", text_
rng = np.random.default_rng(1)
for _ in range(3000):
    data = rng.integers(0, 256, rng.integers(1, 30)).astype(np.uint8).tobytes()
    try:
        data.decode()
        expected = "done"
    except UnicodeDecodeError:
        expected = "a text is not UTF-8"
    assert encode(model, data, (len(data),), limit=10**9) == expected, data
""")
