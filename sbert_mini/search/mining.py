"""Hard negatives: for each pair of a query and a positive, texts that the model finds near to the query and that are not its
positive.

The texts to mine from are encoded window by window, and each window is held against all queries (`search.scoring.merged`). So the
search is exact, and memory holds the queries' vectors and their nearest texts, not the corpus. Names of options, and what a
margin means, are those of sentence-transformers' `mine_hard_negatives`. No torch.

Source:
    Moreira et al. 2024, "NV-Retriever: Improving text embedding models with effective hard-negative mining", arXiv 2407.15831,
    for margins relative to the positive's score.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeAlias

import numpy as np

from sbert_mini.cosine import TOLERANCE, as_cosines
from sbert_mini.errors import InputError, UsageError
from sbert_mini.progress import Counted, expected
from sbert_mini.runtime import arguments
from sbert_mini.runtime.choices import Truncation
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.runtime.stream import EncodedWindow, HasText, join_records
from sbert_mini.search.index import SearchIndex
from sbert_mini.search.scoring import merged
from sbert_mini.shapes import AnyArray, FloatArray, IntArray
from sbert_mini.text.words import is_silent

Sampling: TypeAlias = Literal["top", "random"]
WIDER = 10
"""Texts that are looked at for each negative that is wanted, where some may be discarded by their scores."""
_PRUNED_ABOVE = 10_000
_BLOCK = 4096


@dataclass(frozen=True)
class MiningOptions:
    """Which of the texts nearest to a query are its negatives.

    Attributes:
        num_negatives: negatives of a query.
        range_min: the first of the nearest texts that may be one; 0 for the nearest. Positives and the query's own text have no
            place in this order.
        range_max: the place after the last; None for `range_min + 10 * num_negatives`, or without any condition on scores for
            `range_min + num_negatives`.
        absolute_margin: how far a negative's score must lie below that of the query's lowest positive; None for any distance.
        relative_margin: the same as a share of the positive's score.
        max_score, min_score: the highest and lowest score of a negative.
        sampling_strategy: `top` for the nearest that remain, `random` for a draw among them.
        seed: of the draw.

    Raises:
        UsageError: a value is out of range.
    """

    num_negatives: int = 3
    range_min: int = 0
    range_max: int | None = None
    absolute_margin: float | None = None
    relative_margin: float | None = None
    max_score: float | None = None
    min_score: float | None = None
    sampling_strategy: Sampling = "top"
    seed: int = 0

    def __post_init__(self) -> None:
        arguments.integer(self.num_negatives, "num_negatives")
        arguments.integer(self.range_min, "range_min", least=0)
        for name in ("absolute_margin", "relative_margin", "max_score", "min_score"):
            if getattr(self, name) is not None:
                arguments.number(getattr(self, name), name)
        if self.range_max is not None and self.range_max - self.range_min < self.num_negatives:
            raise UsageError(
                f"range_max must be at least range_min + num_negatives ({self.range_min + self.num_negatives}); found "
                f"{self.range_max}"
            )
        if self.max_score is not None and self.min_score is not None and self.min_score > self.max_score:
            raise UsageError(f"min_score must not be above max_score; found {self.min_score} and {self.max_score}")

    @property
    def has_conditions(self) -> bool:
        """Whether a score can discard a text."""
        limits = (self.absolute_margin, self.relative_margin, self.max_score, self.min_score)
        return any(limit is not None for limit in limits)

    @property
    def depth(self) -> int:
        """How many of the nearest texts are looked at."""
        if self.range_max is not None:
            return self.range_max
        return self.range_min + self.num_negatives * (WIDER if self.has_conditions else 1)


@dataclass
class MiningCounts:
    """What was mined from and found, filled in while mining.

    Attributes:
        pairs: different pairs.
        repeated_pairs: pairs that stand again, left out.
        queries: different queries.
        silent_queries: pairs whose query holds nothing that can be read, which have no negatives.
        texts: different texts to mine from, the positives among them.
        repeated_texts: texts that stand again, apart from case and blanks, left out.
        silent_texts: texts that hold nothing that can be read, left out.
        equal: texts that were left out for a query, because they are its own text or one of its positives.
        absolute_margin, relative_margin, max_score, min_score: texts in the range of ranks that this condition discarded, in
            this order.
    """

    pairs: int = 0
    repeated_pairs: int = 0
    queries: int = 0
    silent_queries: int = 0
    texts: int = 0
    repeated_texts: int = 0
    silent_texts: int = 0
    equal: int = 0
    absolute_margin: int = 0
    relative_margin: int = 0
    max_score: int = 0
    min_score: int = 0


@dataclass(frozen=True)
class Mined:
    """A pair with its negatives.

    Attributes:
        query: the query.
        positive: its positive.
        score: their score; NaN where the query is not readable.
        negatives: the nearest first; at most `num_negatives`.
        scores: theirs.
        discarded: condition -> how many of the query's near texts it discarded.
    """

    query: str
    positive: str
    score: float
    negatives: tuple[str, ...]
    scores: tuple[float, ...]
    discarded: Mapping[str, int] = field(default_factory=dict)


def mine_hard_negatives(
    pairs: Iterable[tuple[str, str]],
    embedder: Embedder,
    corpus: Iterable[HasText] | SearchIndex | None = None,
    *,
    options: MiningOptions | None = None,
    teacher: Embedder | None = None,
    batch_size: int = 32,
    truncation: Truncation = "warn",
    show_progress_bar: bool = False,
    counts: MiningCounts | None = None,
) -> list[Mined]:
    """Return each different pair with its hard negatives, in the order of the pairs.

    The negatives come from the corpus and from the positives of all pairs. A text is never a negative of a query that it equals,
    apart from case and blanks, or of whose positives it equals one. A query with several positives has the same negatives with
    each. The result follows from the arguments and the seed.

    Args:
        pairs: queries and their positives.
        embedder: the model that finds texts near to a query.
        corpus: records to mine from, or an index of the embedder's vectors; None for the positives alone.
        options: which texts are negatives.
        teacher: another model: its scores of positives and negatives, in place of the embedder's, must meet the conditions of
            `options`. Ranks and order stay the embedder's.
        batch_size: see `Embedder.encode`.
        truncation: see `Embedder.encode`.
        show_progress_bar: draw progress bars on stderr.
        counts: filled in, if given.

    Raises:
        UsageError: a teacher is given, and no condition that it could judge.
        ModelMismatchError: the corpus is an index of another model.
        InputError: there is no pair, or none whose query can be read.
    """
    options = options if options is not None else MiningOptions()
    if teacher is not None and not options.has_conditions:
        raise UsageError("a teacher judges by a margin, max_score or min_score: give at least one of them")
    counts = counts if counts is not None else MiningCounts()
    found = _Pairs(pairs, counts)
    if isinstance(corpus, SearchIndex):
        corpus.check_model(embedder)
    encode = {"batch_size": batch_size, "truncation": truncation}
    bar = {**encode, "show_progress_bar": show_progress_bar}
    queries = embedder.encode_query(found.queries, **bar)
    nearest = _Nearest(queries, found, options.depth, embedder.threads)
    texts = _Corpus(found.positives, corpus, counts)
    for block, vectors in texts.blocks(embedder, **bar):
        nearest.add(block, vectors, counts)
    scores = positives = None
    if teacher is not None:
        judge = _Teacher(teacher, teacher.encode_query(found.queries, **bar), encode)
        positives = judge.of_positives(found)
        scores = judge.of_candidates(nearest, show_progress_bar)
    return list(_chosen(found, nearest, options, scores, positives, counts))


def same_text(text: str) -> str:
    """Return what two texts have in common that are equal apart from case and blanks."""
    return " ".join(text.casefold().split())


def _cosines(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the cosine of each row of one to that row of the other. Shapes: (rows, dim) each -> (rows,)."""
    return as_cosines(np.einsum("ij,ij->i", a, b))


class _Pairs:
    """The pairs by query.

    Attributes:
        queries: different ones, readable.
        positives: different ones, of all queries.
        all: the different pairs, in order.
        number_of: query -> its number.
        of_query: query number -> numbers of its positives.
        left_out: what no negative of some queries may equal -> the numbers of those queries.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]], counts: MiningCounts) -> None:
        self.all = list(dict.fromkeys(given := list(arguments.pairs_of(pairs))))
        counts.pairs, counts.repeated_pairs = len(self.all), len(given) - len(self.all)
        if not self.all:
            raise InputError("there is no pair to mine negatives for")
        queries = dict.fromkeys(query for query, _ in self.all)
        self.queries = [query for query in queries if not is_silent(query)]
        counts.queries = len(queries)
        counts.silent_queries = sum(is_silent(query) for query, _ in self.all)
        if not self.queries:
            raise InputError("no query holds anything that can be read")
        self.positives = list(dict.fromkeys(positive for _, positive in self.all))
        self.number_of = {query: number for number, query in enumerate(self.queries)}
        numbers = {positive: number for number, positive in enumerate(self.positives)}
        self.of_query: list[list[int]] = [[] for _ in self.queries]
        self.left_out: dict[str, list[int]] = {}
        for query, number in self.number_of.items():
            self.left_out.setdefault(same_text(query), []).append(number)
        for query, positive in self.all:
            if query in self.number_of:
                self.of_query[self.number_of[query]].append(numbers[positive])
                self.left_out.setdefault(same_text(positive), []).append(self.number_of[query])

    def owners(self) -> tuple[IntArray, IntArray]:
        """Return the query and the positive of each pair, sorted by positive. Shapes: (pairs,) each."""
        pairs = [(number, positive) for number, several in enumerate(self.of_query) for positive in several]
        flat = np.asarray(pairs, np.int64).reshape(-1, 2)
        flat = flat[np.argsort(flat[:, 1], kind="stable")]
        return flat[:, 0], flat[:, 1]


@dataclass(frozen=True)
class _Text:
    """A text to mine from; `positive` is its number among the positives, -1 for none."""

    text: str
    positive: int = -1
    mined: bool = True


class _Corpus:
    """The texts to mine from: the positives, then the corpus, each text once."""

    def __init__(
        self, positives: Sequence[str], corpus: Iterable[HasText] | SearchIndex | None, counts: MiningCounts
    ) -> None:
        self._positives, self._corpus, self._counts = positives, corpus, counts
        self._seen: set[bytes] = set()

    def blocks(self, embedder: Embedder, **options: object) -> Iterator[tuple[list[_Text], FloatArray]]:
        """Yield the texts and their vectors, window by window."""
        prompt = embedder.document_prompt()
        encode = partial(embedder.encode_windows, prompt=prompt, **options)  # type: ignore[arg-type]
        index = self._corpus if isinstance(self._corpus, SearchIndex) else None
        more = 0 if self._corpus is None or isinstance(self._corpus, SearchIndex) else expected(self._corpus)
        total = None if more is None else len(self._positives) + more
        for block, window in join_records(Counted(self._texts(), total), encode):
            yield block, window.vectors
        for rows, vectors in index.row_blocks() if index is not None else ():
            kept = [i for i, row in enumerate(rows) if self._is_new(row.text)]
            if kept:
                yield [_Text(rows[i].text) for i in kept], np.ascontiguousarray(vectors[kept])

    def _texts(self) -> Iterator[_Text]:
        for number, text in enumerate(self._positives):
            yield _Text(text, number, mined=self._is_new(text))  # its score is needed in any case
        if self._corpus is not None and not isinstance(self._corpus, SearchIndex):
            for record in self._corpus:
                if self._is_new(record.text):
                    yield _Text(record.text)

    def _is_new(self, text: str) -> bool:
        if is_silent(text):
            self._counts.silent_texts += 1
            return False
        digest = hashlib.blake2b(same_text(text).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest in self._seen:
            self._counts.repeated_texts += 1
            return False
        self._seen.add(digest)
        self._counts.texts += 1
        return True


class _Nearest:
    """The texts nearest to each query so far.

    Args:
        queries: their vectors, (queries, dim).
        pairs: the pairs.
        depth: texts a query.
        threads: for FAISS.

    Attributes:
        texts: number -> text, of all texts that are near to some query.
        scores: (queries, depth), the greatest first.
        numbers: of the texts, (queries, depth); -1 for none.
        positives: score of each pair, in the order of `pairs.owners()`.
    """

    def __init__(self, queries: FloatArray, pairs: _Pairs, depth: int, threads: int) -> None:
        self._queries, self._pairs, self._depth, self._threads = queries, pairs, depth, threads
        self._owners, self._positive_of = pairs.owners()
        self.texts: dict[int, str] = {}
        self.scores = np.empty((len(queries), 0), np.float32)
        self.numbers = np.empty((len(queries), 0), np.int64)
        self.positives = np.empty(len(self._owners), np.float32)
        self._count, self._kept = 0, 0

    def add(self, block: Sequence[_Text], vectors: FloatArray, counts: MiningCounts) -> None:
        """Take in some texts and their vectors, (some, dim)."""
        first = next((text.positive for text in block if text.positive >= 0), None)
        if first is not None:
            last = max(text.positive for text in block)
            of_block = slice(*np.searchsorted(self._positive_of, [first, last + 1]))
            theirs = vectors[self._positive_of[of_block] - first]
            self.positives[of_block] = _cosines(self._queries[self._owners[of_block]], theirs)
        kept = [i for i, text in enumerate(block) if text.mined]
        if not kept:
            return
        excluded = [
            (query, column)
            for column, i in enumerate(kept)
            for query in dict.fromkeys(self._pairs.left_out.get(same_text(block[i].text), ()))
        ]
        counts.equal += len(excluded)
        numbers = np.arange(self._count, self._count + len(kept))
        mined = np.ascontiguousarray(vectors[kept])
        best = (self.scores, self.numbers)
        self.scores, self.numbers = merged(
            best, (numbers, mined), self._queries, self._depth, excluded, threads=self._threads
        )
        self.texts |= {self._count + column: block[i].text for column, i in enumerate(kept)}
        self._count += len(kept)
        if len(self.texts) > max(2 * self._kept, _PRUNED_ABOVE):
            self._prune()

    def _prune(self) -> None:
        """Forget the texts that are near to no query."""
        self.texts = {number: self.texts[number] for number in np.unique(self.numbers).tolist() if number >= 0}
        self._kept = len(self.texts)


class _Teacher:
    """The scores of another model.

    Args:
        embedder: the model.
        queries: its vectors of the queries, (queries, dim).
        options: for its encoding.
    """

    def __init__(self, embedder: Embedder, queries: FloatArray, options: Mapping[str, object]) -> None:
        self._queries = queries
        self._encode: Callable[..., Iterator[EncodedWindow]] = partial(
            embedder.encode_windows,
            prompt=embedder.document_prompt(),
            **options,  # type: ignore[arg-type]
        )

    def of_positives(self, pairs: _Pairs) -> FloatArray:
        """Return the score of each pair, in the order of `pairs.owners()`. Shapes: (pairs,)."""
        owners, positives = pairs.owners()
        return self._scores(pairs.positives, owners, positives, show_progress_bar=False)

    def of_candidates(self, nearest: _Nearest, show_progress_bar: bool) -> FloatArray:
        """Return the scores of the texts that are near to each query. Shapes: (queries, depth)."""
        there = nearest.numbers >= 0
        flat = nearest.numbers[there]
        owners = np.nonzero(there)[0]
        unique, inverse = np.unique(flat, return_inverse=True)
        order = np.argsort(inverse, kind="stable")
        texts = [nearest.texts[number] for number in unique.tolist()]
        scores = np.full(nearest.numbers.shape, -np.inf, np.float32)
        of_all = np.empty(len(flat), np.float32)
        of_all[order] = self._scores(texts, owners[order], inverse[order], show_progress_bar=show_progress_bar)
        scores[there] = of_all
        return scores

    def _scores(
        self, texts: Sequence[str], owners: IntArray, columns: IntArray, *, show_progress_bar: bool
    ) -> FloatArray:
        """Return the cosine of some queries to some texts; `columns` ascends. Shapes: owners, columns, result (pairs,)."""
        scores = np.empty(len(owners), np.float32)
        first = 0
        for window in self._encode(texts, show_progress_bar=show_progress_bar):
            last = first + len(window.vectors)
            begin, end = np.searchsorted(columns, [first, last])
            for start in range(begin, end, _BLOCK):  # a text may be near to many queries
                part = slice(start, min(start + _BLOCK, end))
                scores[part] = _cosines(self._queries[owners[part]], window.vectors[columns[part] - first])
            first = last
        return scores


def _chosen(
    pairs: _Pairs,
    nearest: _Nearest,
    options: MiningOptions,
    scores: FloatArray | None,
    positives: FloatArray | None,
    counts: MiningCounts,
) -> Iterator[Mined]:
    """Yield each pair with its negatives.

    Args:
        pairs: the pairs.
        nearest: the texts near to each query.
        options: which of them are negatives.
        scores, positives: a teacher's, as `nearest` has the model's; None for the model's.
        counts: filled in.
    """
    judged = scores if scores is not None else as_cosines(nearest.scores)
    of_pairs = positives if positives is not None else nearest.positives
    owners, positive_of = pairs.owners()
    score_of = {
        (owner, pairs.positives[positive]): score
        for owner, positive, score in zip(owners.tolist(), positive_of.tolist(), of_pairs.tolist(), strict=True)
    }
    lowest = np.full(len(pairs.queries), np.inf, np.float32)
    np.minimum.at(lowest, owners, of_pairs)
    in_range = np.zeros(nearest.numbers.shape, bool)
    in_range[:, options.range_min :] = True
    meets, discarded = _meeting(in_range & (nearest.numbers >= 0), judged, lowest, options)
    for name, rows in discarded.items():
        setattr(counts, name, int(rows.sum()))
    picked: dict[int, list[int]] = {}
    for query, positive in pairs.all:
        number = pairs.number_of.get(query)
        if number is None:
            yield Mined(query, positive, float("nan"), (), ())
            continue
        if number not in picked:
            picked[number] = _picked(np.flatnonzero(meets[number]), options, number)
        places = picked[number]
        yield Mined(
            query,
            positive,
            score_of[number, positive],
            tuple(nearest.texts[int(nearest.numbers[number, place])] for place in places),
            tuple(float(judged[number, place]) for place in places),
            {name: int(rows[number]) for name, rows in discarded.items() if rows[number]},
        )


def _meeting(
    near: AnyArray, scores: FloatArray, lowest: FloatArray, options: MiningOptions
) -> tuple[AnyArray, dict[str, IntArray]]:
    """Return which near texts meet all conditions, and how many each condition discards of a query's.

    Shapes: near, scores (queries, depth); lowest (queries,); the result (queries, depth), and (queries,) each.
    """
    limits: dict[str, AnyArray] = {}
    least = lowest[:, None]
    if options.absolute_margin is not None:
        limits["absolute_margin"] = scores <= least - options.absolute_margin + TOLERANCE
    if options.relative_margin is not None:
        limits["relative_margin"] = scores <= least - np.abs(least) * options.relative_margin + TOLERANCE
    if options.max_score is not None:
        limits["max_score"] = scores <= options.max_score + TOLERANCE
    if options.min_score is not None:
        limits["min_score"] = scores >= options.min_score - TOLERANCE
    discarded = {}
    for name, allowed in limits.items():
        discarded[name] = (near & ~allowed).sum(axis=1)
        near = near & allowed
    return near, discarded


def _picked(places: IntArray, options: MiningOptions, number: int) -> list[int]:
    """Return the places of a query's negatives among those that may be, ascending."""
    if options.sampling_strategy == "random" and len(places) > options.num_negatives:
        rng = np.random.default_rng([options.seed, number])
        places = np.sort(rng.choice(places, options.num_negatives, replace=False))
    return [int(place) for place in places[: options.num_negatives]]
