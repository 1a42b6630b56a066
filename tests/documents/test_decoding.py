"""Bytes -> text: Python's codecs are the oracle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbert_mini.documents.decoding import check_encoding, decode, is_binary
from sbert_mini.errors import InputError, UsageError

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"), max_size=50)


@given(TEXTS, st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]))
def test_unicode_is_read_by_its_mark(text, encoding):
    data = text.encode(encoding)
    assert not is_binary(data)
    read = decode(data)
    assert read.text == text
    if encoding != "utf-8":
        assert read.encoding == encoding


def test_big_endian_too():
    assert decode(b"\xfe\xff\0a\0b").text == "ab"
    assert is_binary(b"a\0b")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Straße, Öl, Größe: ein Satz über Äpfel und Bäume.", "cp1252"),
        ("café au lait, déjà vu", "cp1252"),
        ("Привет, как дела? Это обычный русский текст.", "cp1251"),
        ("Zażółć gęślą jaźń. Pchnąć w tę łódź jeża lub ośm skrzyń fig.", "cp1250"),
    ],
)
def test_detected_encodings(text, encoding):
    read = decode(text.encode(encoding))
    assert (read.text, read.encoding) == (text, encoding)


def test_a_stated_encoding_is_taken_for_what_is_not_utf8():
    data = "naïve".encode("latin-1")
    assert decode(data, check_encoding("Latin-1")).encoding == "iso8859-1"
    assert decode("naïve".encode(), "iso8859-1").encoding == "utf-8"
    with pytest.raises(InputError, match="not ascii"):
        decode(data, "ascii")
    for name in ("hex", "nothing", "rot13", "zip"):
        with pytest.raises(UsageError, match="cp1252"):
            check_encoding(name)


def test_html_states_its_encoding():
    page = '<html><head><meta charset="koi8-r"></head><body>Привет</body></html>'
    assert decode(page.encode("koi8-r"), is_html=True).text == page
