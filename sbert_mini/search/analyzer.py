"""Texts -> the terms that BM25 compares: lower case, without diacritics, stemmed.

tantivy splits at everything that is neither a letter nor a digit, and stems by Snowball's English rules. A pass in Python comes
first. In texts that are not ASCII it unifies characters (NFKC), removes the diacritics of every alphabet, and makes each
character of a script without spaces (such as Chinese and Japanese) a word, and each two neighbours another. And it adds compounds
that hold a digit as one word, so that `E-1042` and `E1042` find each other.
"""

import re
import unicodedata
from functools import cache
from itertools import pairwise
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
_DIGIT = re.compile(r"\d")
_COMPOUND = re.compile(r"(?<![^\W_])[^\W_]++(?:-[^\W_]++)++")


def normalized(text: str) -> str:
    """Return a text as tantivy's splitter is given it."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _MARKS.sub("", unicodedata.normalize("NFKD", text)))
        text = _UNSPACED.sub(_spaced, text).encode("utf-8", "replace").decode()
    if "-" not in text:
        return text
    joined = [compound.replace("-", "") for compound in _COMPOUND.findall(text) if _DIGIT.search(compound)]
    return " ".join([text, *joined])


def _spaced(run: re.Match[str]) -> str:
    """Return the characters of a run one by one, and then in pairs of neighbours."""
    characters = [character for character in run[0] if character.isalnum()]
    pairs = [first + second for first, second in pairwise(characters)]
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


@cache
def function_terms() -> frozenset[str]:
    """Return the terms of English function words."""
    words = (
        "a about after all also am an and any are as at be because been before being between both but by can could did do does "
        "doing during each for from had has have having he her here hers him his how i if in into is it its just me more most my "
        "no nor not of on once only or other our out over own same she should so some such than that the their them then there "
        "these they this those through to too under until up very was we were what when where which while who whom why will "
        "with would you your"
    )
    return frozenset(terms_of(words))
