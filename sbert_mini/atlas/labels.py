"""Groups of rows -> what they are called: their words, and their most central and most outlying rows."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sbert_mini.atlas.clusters import NO_GROUP, blocks_of
from sbert_mini.cosine import unit_rows
from sbert_mini.errors import InputError
from sbert_mini.search.analyzer import function_terms, terms_of
from sbert_mini.shapes import AnyArray, FloatArray, IntArray

WORDS, EXAMPLES = 4, 3
"""Words of a group's name, and rows that are shown of it on either side."""
CHARACTERS = 2000
"""The beginning of a text whose words are counted."""
_WORD = re.compile(r"[^\W\d_](?:[^\W_]|['’](?=[^\W_]))+")
_KEYS = 1 << 21
"""Words of texts that are counted together."""


@dataclass(frozen=True)
class Label:
    """What a group is called.

    Attributes:
        words: those that tell it from the others, the most telling first; empty where its texts have no words.
        size: rows.
        central: its rows with the greatest cosines to its centre, the greatest first.
        outlying: its rows with the least cosines to its centre, the least first; without those that are in `central`.
    """

    words: tuple[str, ...]
    size: int
    central: tuple[int, ...]
    outlying: tuple[int, ...]

    @property
    def name(self) -> str:
        """Its words, separated by commas."""
        return ", ".join(self.words)


def labels_of(
    numbers: IntArray, cosines: FloatArray, texts: Iterable[str], *, words: int = WORDS, examples: int = EXAMPLES
) -> list[Label]:
    """Return the label of each group, in their order.

    Args:
        numbers: the group of each row, from 0; -1 for none.
        cosines: of each row and its group's centre (`clusters.Groups.cosines`, or `mean_cosines`).
        texts: of the rows, in their order; read once.
        words: the most words of a name.
        examples: the most rows in `central` and in `outlying`.

    Shapes: numbers, cosines: (rows,).

    Raises:
        InputError: there are more or fewer texts than rows.
    """
    count = int(numbers.max(initial=NO_GROUP)) + 1
    named = words_of_groups(texts, numbers, words)
    rows = np.flatnonzero(numbers >= 0)
    order = rows[np.lexsort((rows, -cosines[rows], numbers[rows]))]
    sizes = np.bincount(numbers[rows], minlength=count)
    labels = []
    for group, members in zip(named, np.split(order, np.cumsum(sizes)[:-1]) if count else [], strict=True):
        outlying = members[max(examples, len(members) - examples) :][::-1]
        labels.append(Label(group, len(members), tuple(members[:examples].tolist()), tuple(outlying.tolist())))
    return labels


def mean_cosines(numbers: IntArray, vectors: AnyArray) -> tuple[FloatArray, FloatArray]:
    """Return the cosine of each row and the mean of its group, 0 for a row of no group; and the means, of length 1.

    Args:
        numbers: the group of each row, from 0; -1 for none.
        vectors: of the rows; may be an array that memory does not hold.

    Shapes: numbers: (rows,); vectors: (rows, dim); the results: (rows,) and (groups, dim).
    """
    count = int(numbers.max(initial=NO_GROUP)) + 1
    sums = np.zeros((count, vectors.shape[1]), np.float64)
    cosines = np.zeros(len(numbers), np.float32)
    first = 0
    for block in blocks_of(vectors):
        own = numbers[first : first + len(block)]
        order = np.argsort(own, kind="stable")
        groups, starts = np.unique(own[order], return_index=True)
        added = np.add.reduceat(unit_rows(block)[order], starts, axis=0)
        sums[groups[groups >= 0]] += added[groups >= 0]
        first += len(block)
    means = unit_rows(sums)
    first = 0
    for block in blocks_of(vectors):
        own = numbers[first : first + len(block)]
        inside = np.flatnonzero(own >= 0)
        cosines[first + inside] = np.einsum("rd,rd->r", unit_rows(block[inside]), means[own[inside]])
        first += len(block)
    return np.clip(cosines, -1, 1), means


def words_of_groups(texts: Iterable[str], numbers: IntArray, words: int = WORDS) -> list[tuple[str, ...]]:
    """Return the words that tell each group from the others, the most telling first, by class TF-IDF.

    `W = tf * log(1 + A / f)`: `tf` is the number of the group's texts with the word, `f` that of all texts, and `A` the mean
    number of words of a group. Words are compared by their stems and shown in their most frequent form. English function words,
    numbers and words of one letter are left out; of scripts without spaces, pairs of characters count as words.

    Args:
        texts: of the rows, in their order; of each the first 2,000 characters are read.
        numbers: the group of each row, from 0; -1 for none: its words count in `f` alone.
        words: the most words of a group.

    Shapes: numbers: (rows,).

    Raises:
        InputError: there are more or fewer texts than rows.

    Source: Grootendorst 2022, "BERTopic", arXiv 2203.05794, section 3.3.
    """
    count = int(numbers.max(initial=NO_GROUP)) + 1
    vocabulary = _Vocabulary()
    keys, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    pending: list[int] = []
    for text, number in itertools.zip_longest(texts, numbers.tolist()):
        if text is None or number is None:
            raise InputError(f"there are {'fewer' if text is None else 'more'} texts than {len(numbers)} rows")
        pending += [((number + 1) << 32) | term for term in vocabulary.terms(text)]
        if len(pending) >= _KEYS:
            keys, counts = _merged(keys, counts, pending)
            pending = []
    keys, counts = _merged(keys, counts, pending)
    if not len(keys):
        return [()] * count
    groups, terms = (keys >> 32) - 1, keys & 0xFFFFFFFF
    frequency = np.bincount(terms, counts, len(vocabulary))
    mean_words = counts.sum() / max(len(np.unique(groups)), 1)
    weights = counts * np.log1p(mean_words / frequency[terms])
    bounds = np.searchsorted(groups, np.arange(count + 1)).tolist()
    forms = vocabulary.forms()
    return [_best(terms[start:end], weights[start:end], forms, words) for start, end in itertools.pairwise(bounds)]


def _merged(keys: IntArray, counts: IntArray, pending: Sequence[int]) -> tuple[IntArray, IntArray]:
    """Return ascending keys with their counts, and those of some more."""
    joined = np.concatenate([keys, np.array(pending, np.int64)])
    unique, inverse = np.unique(joined, return_inverse=True)
    weights = np.concatenate([counts, np.ones(len(pending), np.int64)])
    return unique, np.bincount(inverse, weights, len(unique)).astype(np.int64)


def _best(terms: IntArray, weights: AnyArray, forms: Sequence[str], words: int) -> tuple[str, ...]:
    """Return the words with the greatest weights; of equal ones, the first in the alphabet."""
    if not len(terms):
        return ()
    least = np.partition(weights, -words)[-words] if len(weights) > words else weights.min()
    chosen = [
        (-weight, forms[term]) for term, weight in zip(terms.tolist(), weights.tolist(), strict=True) if weight >= least
    ]
    return tuple(word for _, word in sorted(chosen)[:words])


class _Vocabulary:
    """The terms of words: a number each, and how often each word came."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._known: dict[str, tuple[int, ...]] = {}
        self._times: Counter[str] = Counter()
        self._left_out = function_terms()

    def __len__(self) -> int:
        return len(self._numbers)

    def terms(self, text: str) -> set[int]:
        """Return the numbers of the different terms of a text."""
        words = {word.lower() for word in _WORD.findall(text[:CHARACTERS])}
        self._times.update(words)
        found: set[int] = set()
        for word in words:
            numbers = self._known.get(word)
            if numbers is None:
                numbers = self._known[word] = self._new(word)
            found.update(numbers)
        return found

    def _new(self, word: str) -> tuple[int, ...]:
        terms = dict.fromkeys(terms_of(re.split("['’]", word)[0]))
        kept = (term for term in terms if len(term) > 1 and term not in self._left_out)
        return tuple(self._numbers.setdefault(term, len(self._numbers)) for term in kept)

    def forms(self) -> list[str]:
        """Return the most frequent word of each term, by its number; of equally frequent ones, the first in the alphabet."""
        forms = list(self._numbers)
        best = [0] * len(forms)
        for word in sorted(self._known):
            numbers = self._known[word]
            if len(numbers) == 1 and self._times[word] > best[numbers[0]]:
                forms[numbers[0]], best[numbers[0]] = word, self._times[word]
        return forms
