"""Texts -> the terms that BM25 compares: lower case, without diacritics, stemmed.

tantivy splits at everything that is neither a letter nor a digit, and stems by Snowball's English rules. A pass in Python over
texts that are not ASCII comes first: it unifies characters (NFKC), removes diacritics of every alphabet, and puts each character
of a script without spaces (such as Chinese and Japanese) as a word of its own, and each two neighbours as another.
"""

import re
import unicodedata
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tantivy import TextAnalyzer

ANALYZER_VERSION = 1
"""Stands in the record of an index of words. Another one makes it anew: raise it when a text gives other terms."""
ANALYZER_NAME = "words"
MAX_WORDS = 256
LONGEST_TERM = 256
"""Bytes of a term; words of so many or more are dropped."""

_MARKS = re.compile("[\u0300-\u036f]+")
_UNSPACED = re.compile(
    "["
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Myanmar, Khmer
    "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # radicals, Japanese
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese
    "\uac00-\ud7af"  # Korean, whose particles are not spaced
    "]+"
)


def normalized(text: str) -> str:
    """Return a text as tantivy's splitter is given it; a text in ASCII is returned as it is."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFKC", _MARKS.sub("", unicodedata.normalize("NFKD", text)))
    return _UNSPACED.sub(_spaced, text).encode("utf-8", "replace").decode()


def _spaced(run: re.Match[str]) -> str:
    """Return the characters of a run one by one, and then in pairs of neighbours."""
    characters = [character for character in run[0] if character.isalnum()]
    pairs = [first + second for first, second in zip(characters, characters[1:], strict=False)]
    return f" {' '.join(characters + pairs)} "


@cache
def analyzer() -> "TextAnalyzer":
    """Return tantivy's part of the analysis."""
    from tantivy import Filter, TextAnalyzerBuilder, Tokenizer

    builder = TextAnalyzerBuilder(Tokenizer.simple())
    for step in (Filter.remove_long(LONGEST_TERM), Filter.lowercase(), Filter.ascii_fold(), Filter.stemmer("english")):
        builder = builder.filter(step)
    return builder.build()


def terms_of(text: str) -> list[str]:
    """Return the terms of a text, in order, with their repetitions."""
    return analyzer().analyze(normalized(text))


def query_terms(query: str) -> list[str]:
    """Return the different terms of a query, at most `MAX_WORDS` of them, the first ones."""
    return list(dict.fromkeys(terms_of(query)))[:MAX_WORDS]
