"""The terms of texts: what finds what."""

import pytest

from sbert_mini.search.analyzer import LONGEST_TERM, MAX_WORDS, query_terms, terms_of


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", []),
        ("?! ... _", []),
        ("Running RUNS run", ["run", "run", "run"]),
        ("set max_rows, or not", ["set", "max", "row", "or", "not"]),
        ("Über größe naïve", ["uber", "gross", "naiv"]),
        ("u\u0308ber", ["uber"]),  # decomposed
        ("й Ελλάδα", ["и", "ελλαδα"]),
        ("Ｆｕｌｌ ﬁne", ["full", "fine"]),
        ("日本", ["日", "本", "日本"]),
        ("a 猫 b", ["a", "猫", "b"]),
        ("한국", ["한", "국", "한국"]),
        ("हिनदी", ["हिनदी"]),
        ("E-1042", ["e", "1042", "e1042"]),
        ("E1042", ["e1042"]),
        ("well-known 2020-01-15", ["well", "known", "2020", "01", "15", "20200115"]),
        ("half \ud800 of a pair", ["half", "of", "a", "pair"]),
        ("x" * (LONGEST_TERM - 1) + " " + "y" * LONGEST_TERM, ["x" * (LONGEST_TERM - 1)]),
    ],
)
def test_the_terms_of_a_text(text, terms):
    assert terms_of(text) == terms


def test_a_query_has_each_term_once_and_so_many_at_most():
    assert query_terms("the cats and the cat") == ["the", "cat", "and"]
    assert query_terms(" ".join(f"w{i}" for i in range(1000))) == [f"w{i}" for i in range(MAX_WORDS)]
    assert query_terms('running "runs" OR near(x) ran* a:b ^2') == ["run", "or", "near", "x", "ran", "a", "b", "2"]


@pytest.mark.parametrize("part", ["a", "a-", "a-1", "1", "é", "日", "-", "e\u0301"])
def test_the_terms_of_a_long_text_are_as_many_as_its_length_gives(part):
    """In proportion; work that is not would take hours here."""
    short, longer, long = (len(terms_of(part * count)) for count in (3_000, 6_000, 300_000))
    assert long == short + 99 * (longer - short)
