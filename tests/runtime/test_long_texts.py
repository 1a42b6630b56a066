"""Long texts: their pieces are those of the whole text, while memory grows with what is read alone."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from sbert_mini.text.borders import Borders
from sbert_mini.text.tokenizer import TextTokenizer

# Letters of several alphabets, CJK (also of the later planes, and compatibility ideographs), all kinds of blanks, punctuation and
# ASCII symbols, combining marks of three kinds (removed and not, of class 0 and not), control, format and private-use
# characters, characters that decompose into punctuation, that grow when they are lower-cased, and unassigned ones.
ODD = "aB1é漢汉\U00020000\U0002f800豈かなд한ไทยאב .,$`~_-—“”·\t\n\r\u00a0\u1680\u2003\u2028\u3000\x85\x1c"
ODD += "\u0301\u0338\u0345\u0900\u0903\u093c\u1b44\u302e\u200b\u200d\u00ad\x00\x07\ufffd\ue000\u0378≠\u037e\u1fefİẞǅ№🎉🫠\ufe0f"


@pytest.fixture(scope="module")
def tokenizer(minilm):
    return TextTokenizer.from_directory(minilm, 256)


@pytest.fixture(scope="module")
def borders(tokenizer):
    return Borders(tokenizer.backend)


@pytest.fixture(scope="module")
def uncut(tokenizer):
    """The library's own tokenizer of the whole text, without truncation."""
    whole = Tokenizer.from_str(tokenizer.backend.to_str())
    whole.encode_special_tokens = True
    whole.no_truncation()
    return whole


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.one_of(st.sampled_from(ODD), st.characters(exclude_categories=["Cs"])), max_size=400), st.integers(2, 40)
)
def test_the_parts_of_a_text_have_the_pieces_of_the_whole(borders, uncut, text, size):
    parts = list(borders.parts(text, size))
    joined = [i for part in parts for i in uncut.encode(part, add_special_tokens=False).ids]
    assert joined == uncut.encode(text, add_special_tokens=False).ids
    assert uncut.encode("".join(parts)).ids == uncut.encode(text).ids


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(ODD), st.integers(1, 130)), max_size=12),
    st.integers(2, 60),
)
def test_words_near_the_greatest_length_stay_words_or_unknown(borders, uncut, runs, size):
    text = "".join(character * n for character, n in runs)
    parts = borders.parts(text, size)
    joined = [i for part in parts for i in uncut.encode(part, add_special_tokens=False).ids]
    assert joined == uncut.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("letters", [98, 99, 100, 101, 102])
def test_a_word_of_a_hundred_letters_among_a_thousand_marks_by_hand(borders, tokenizer, letters):
    text = ("a\u0301" + "\u0300\u200b" * 40) * letters
    (tokens,) = tokenizer.encode([" ".join(borders.parts(text, 64))])
    known = tokenizer.unknown_id not in tokens.ids
    assert known == (letters <= 100)
    assert len("".join(borders.parts(text, 64))) < len(text) / 10


@settings(max_examples=60, deadline=None)
@given(st.text(ODD, min_size=1, max_size=60), st.integers(1, 2000), st.text(ODD, max_size=30), st.integers(4, 40))
def test_truncated_texts_have_the_first_ids_of_the_whole(tokenizer, uncut, unit, repeats, start, longest):
    text = start + unit * repeats
    (tokens,) = tokenizer.with_max_seq_length(longest).encode([text])
    whole = uncut.encode(text).ids
    assert tokens.ids == (whole if len(whole) <= longest else [*whole[: longest - 1], whole[-1]])
    assert tokens.truncated == (len(whole) > longest)


@settings(max_examples=60, deadline=None)
@given(
    st.text(ODD, min_size=1, max_size=30),
    st.integers(1, 400),
    st.text(ODD, min_size=1, max_size=30),
    st.integers(1, 400),
    st.integers(7, 24),
)
def test_truncated_pairs_have_the_ids_of_the_whole_ones(tokenizer, uncut, a, times_a, b, times_b, longest):
    first, second = a * times_a, b * times_b
    (tokens,) = tokenizer.with_max_seq_length(longest).encode([(first, second)])
    ids = [uncut.encode(text, add_special_tokens=False).ids for text in (first, second)]
    # The library tells how many pieces of either side stay. For two long sides it makes all pairs of their parts that do not fit,
    # so it is asked about shorter ones: no longer than what is read, and the longer of the two still the longer one.
    longer = [int(len(ids[side]) > len(ids[1 - side])) for side in (0, 1)]
    short = [min(len(side), longest + more) for side, more in zip(ids, longer, strict=True)]
    library = Tokenizer.from_str(uncut.to_str())
    library.enable_truncation(longest, strategy="longest_first")
    kept = library.encode("." * short[0], "." * short[1])
    keep_b = kept.type_ids.count(1) - 1
    keep_a = len(kept.ids) - 3 - keep_b
    cls, sep = uncut.encode("").ids
    assert tokens.ids == [cls, *ids[0][:keep_a], sep, *ids[1][:keep_b], sep]
    assert tokens.type_ids == [0] * (keep_a + 2) + [1] * (keep_b + 1)
    assert tokens.truncated == (len(ids[0]) + len(ids[1]) > longest - 3)


@pytest.mark.parametrize("longest", [10, 11])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_of_two_long_sides_the_longer_one_keeps_the_odd_token(tokenizer, longest, more):
    small = tokenizer.with_max_seq_length(longest)
    (tokens,) = small.encode([("." * (9000 + more), "," * 9000)])
    room = longest - 3
    firsts = room // 2 + (room % 2) * (more > 0)
    assert tokens.type_ids.count(1) == room - firsts + 1
    assert tokens.truncated


@settings(max_examples=40, deadline=None)
@given(st.text(ODD, min_size=1, max_size=40), st.integers(1, 1500), st.integers(4, 30))
def test_windows_hold_every_piece_once(tokenizer, uncut, unit, repeats, longest):
    windows = tokenizer.with_max_seq_length(longest).windows(unit * repeats)
    whole = uncut.encode(unit * repeats, add_special_tokens=False).ids
    assert [i for window in windows for i in window.ids[1:-1]] == whole
    assert all(len(window.ids) == longest for window in windows[:-1])
    assert len(windows) == max(-(-len(whole) // (longest - 2)), 1)


@pytest.mark.parametrize(
    "unit", [".", "x", "é", "漢字", "\u3000東京", "aGVsbG8/", "\u0301", "\u200b", "x" * 300 + "-", "ไทย"]
)
def test_memory_does_not_grow_with_what_is_not_read(tokenizer, unit):
    text = unit * (1_000_000 // len(unit))
    tokenizer.encode([unit * (30_000 // len(unit))])  # what is asked of the tokenizer once
    tracemalloc.start()
    try:
        tokenizer.encode([text, text])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000


def test_different_words_that_are_shortened_stay_different(borders):
    first, second = ("".join(borders.parts("x" * 5000 + end, 64)) for end in ("a", "b"))
    assert first != second
    assert max(len(first), len(second)) < 300


def wordpiece(**options):
    words = ["[UNK]", "[CLS]", "[SEP]", "a", "b", ".", "##a", "##b", "##.", "c d", "▁a", "▁b"]
    made = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]", **options))  # noqa: S106
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    made.add_special_tokens(["[UNK]", "[CLS]", "[SEP]"])
    return made


def other_tokenizers():
    plain = wordpiece()
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    yield "splits at blanks", plain, (True, False)
    added = wordpiece()
    added.normalizer, added.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    added.add_tokens([AddedToken("a.b")])
    yield "an added token with a full stop", added, (True, False)
    blank = wordpiece()
    blank.normalizer, blank.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    blank.add_tokens([AddedToken("c d")])
    yield "an added token with a blank", blank, (False, False)
    metaspace = wordpiece()
    metaspace.pre_tokenizer = pre_tokenizers.Metaspace()
    yield "Metaspace", metaspace, (False, False)
    replaced = wordpiece()
    replaced.normalizer = normalizers.Sequence([normalizers.Replace(" ", "a"), normalizers.BertNormalizer()])
    replaced.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    yield "a normalizer that replaces", replaced, (False, False)
    short = wordpiece(max_input_chars_per_word=5)
    short.normalizer, short.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    yield "BERT's with short words", short, (True, True)


@pytest.mark.parametrize(("made", "where"), [pytest.param(t, w, id=name) for name, t, w in other_tokenizers()])
@settings(max_examples=40, deadline=None)
@given(unit=st.text("ab. cd\u0301\u3000", min_size=1, max_size=12), repeats=st.integers(1, 1500))
def test_other_tokenizers_are_cut_only_where_it_is_safe(made, where, unit, repeats):
    borders = Borders(made)
    assert (borders.at_blanks, borders.everywhere) == where
    text = unit * repeats
    whole = Tokenizer.from_str(made.to_str())
    whole.encode_special_tokens = True
    expected = whole.encode(text).ids
    (tokens,) = TextTokenizer(Tokenizer.from_str(made.to_str()), 9).encode([text])
    assert tokens.ids == (expected if len(expected) <= 9 else [*expected[:8], expected[-1]])
    assert tokens.truncated == (len(expected) > 9)
