"""Why two texts have the cosine that they have: an exact sum over pairs of their words, and what each word's removal changes.

A sentence vector is the mean of its token vectors (mean pooling), brought to length 1. So with `t_i` the token vectors of the one
text and `u_j` those of the other

    cos = sum_ij t_i . u_j / (|sum_i t_i| |sum_j u_j|)

and the summand of a pair of tokens is its share. The shares of the tokens of two words add up to the share of the two words. They
add up to the cosine of `Embedder.similarity`, because both come from the same token vectors: with int8, from those of int8.

What the shares do not say (docs/explain.md): a token's vector depends on all of its text. `[CLS]` and `[SEP]` have shares too.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypedDict, Unpack

import numpy as np

from sbert_mini.cosine import as_cosines
from sbert_mini.errors import CorruptModelError, TextTooLongError, UnsupportedModelError, UsageError
from sbert_mini.model.layout import ModelLayout
from sbert_mini.runtime import arguments
from sbert_mini.runtime.engine import Engine
from sbert_mini.runtime.reading import prompt_text
from sbert_mini.runtime.stream import check_dimension, check_texts
from sbert_mini.shapes import AnyArray, FloatArray
from sbert_mini.text.alignment import Alignment, aligned
from sbert_mini.text.batching import batches_by_length
from sbert_mini.text.tokenizer import TextTokenizer

log = logging.getLogger("sbert_mini")

LINEAR_POOLINGS = ("mean", "mean_sqrt_len_tokens", "weightedmean")
"""Those whose vectors are sums over the tokens."""
_TEXTS = 32


class TokenOptions(TypedDict, total=False):
    """The options of `encode_tokens`. All are optional.

    Attributes:
        prompt_name, prompt: see `stream.EncodeOptions`.
        truncation: what happens to a text that is too long: `warn` (the default) cuts it and says how many were cut, `error`
            refuses it.
    """

    prompt_name: str | None
    prompt: str | None
    truncation: Literal["warn", "error"]


class ExplainOptions(TypedDict, total=False):
    """The options of `explain`. All are optional.

    Attributes:
        removal: whether the effect of each word's removal is computed, for which a text is encoded once for each of its words;
            True by default.
        prompts: put before the two texts; None, the default, for the model's own default prompt.
        truncate_dim: keep this many first components, as in `encode`.
    """

    removal: bool
    prompts: tuple[str | None, str | None]
    truncate_dim: int | None


@dataclass(frozen=True)
class Word:
    """A word of one of the two texts.

    Attributes:
        text: as it stands in the text; the name of a special token, such as `[CLS]`.
        kind: `word` (also a punctuation mark), `special` for a special token, `prompt` for a word of the prompt.
        start, end: where it stands in the text, in characters; both 0 if it is none of the text.
        share: its part of the cosine, the sum of its pairs with all words of the other text.
        removal: how much the cosine falls when the word is removed from its text, negative if it rises; None where that was not
            asked for, and for what is no word of the text.
    """

    text: str
    kind: Literal["word", "special", "prompt"]
    start: int
    end: int
    share: float
    removal: float | None = None


@dataclass(frozen=True)
class Pair:
    """A pair of words.

    Attributes:
        a, b: the words.
        share: the pair's part of the cosine.
    """

    a: Word
    b: Word
    share: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why two texts have their cosine.

    Attributes:
        a, b: the texts.
        cosine: of their vectors, in [-1, 1]: what `Embedder.similarity` gives, with the same graph.
        words_a, words_b: their words in order, special tokens and words of a prompt included.
        shares: the part of each pair of words, (words_a, words_b), float64. They add up to `cosine`.
        truncated: whether each of the texts is longer than the model reads: its end has no share.
    """

    a: str
    b: str
    cosine: float
    words_a: tuple[Word, ...]
    words_b: tuple[Word, ...]
    shares: AnyArray
    truncated: tuple[bool, bool]

    def pairs(self, most: int = 10, *, special: bool = True) -> list[Pair]:
        """Return the pairs with the greatest shares, by their amount: of equal ones, the first in the texts.

        Args:
            most: how many.
            special: False to leave out special tokens and the words of prompts.
        """
        arguments.integer(most, "most")
        amounts = np.abs(self.shares).ravel()
        if not special:
            amounts[~self._of_words().ravel()] = -1
        order = np.argsort(-amounts, kind="stable")[:most]
        places = [divmod(int(i), len(self.words_b)) for i in order if amounts[i] >= 0]
        return [Pair(self.words_a[i], self.words_b[j], float(self.shares[i, j])) for i, j in places]

    @property
    def special_share(self) -> float:
        """The share of all pairs in which a special token or a word of a prompt is."""
        return float(self.shares[~self._of_words()].sum())

    def _of_words(self) -> AnyArray:
        """Return which pairs are of two words of the texts. Shapes: as `shares`."""
        a, b = (np.array([word.kind == "word" for word in words]) for words in (self.words_a, self.words_b))
        return a[:, None] & b


def encode_tokens(
    texts: str | Iterable[str],
    layout: ModelLayout,
    tokenizer: TextTokenizer,
    engine: Engine,
    **options: Unpack[TokenOptions],
) -> list[FloatArray]:
    """Return the vectors of each text's tokens, as the encoder's last layer gives them: before pooling, projections and length 1.

    Their tokens are those of `Embedder.tokenize`, `[CLS]` and `[SEP]` included. The result takes `4 * hidden` bytes a token.

    Args:
        texts: the texts; a single string is a list of one.
        layout, tokenizer, engine: of the model.
        options: see `TokenOptions`.

    Shapes: each array of the result: (seq, hidden).

    Raises:
        UsageError: an argument is invalid.
        TextTooLongError: a text is too long, and `truncation` is `error`.
    """
    truncation = options.get("truncation", "warn")
    if truncation not in ("warn", "error"):
        raise UsageError(f"truncation must be warn or error for tokens; found {truncation!r}")
    prefix = prompt_text(layout, options.get("prompt_name"), options.get("prompt"))
    several = list(check_texts([str(texts)] if arguments.is_one_text(texts) else texts))
    tokens = tokenizer.encode([prefix + text for text in several])
    if cut := int(np.count_nonzero(tokens.truncated)):
        longest = tokenizer.max_seq_length
        if truncation == "error":
            first = int(np.flatnonzero(tokens.truncated)[0])
            raise TextTooLongError(f"text {first + 1} is longer than {longest} tokens")
        log.warning("%d of %d texts were longer than %d tokens, and were cut", cut, len(several), longest)
    vectors: list[FloatArray] = [np.empty((0, 0), np.float32)] * len(several)
    for positions in batches_by_length(tokens.lengths, _TEXTS, engine.tokens_per_batch):
        for position, rows in zip(positions.tolist(), engine.run_tokens(tokens.take(positions)), strict=True):
            vectors[position] = rows
    if not all(np.isfinite(rows).all() for rows in vectors):
        raise CorruptModelError(f"{layout.path} gave a vector that holds NaN or infinity: its weights overflow")
    return vectors


def check_explainable(layout: ModelLayout) -> None:
    """Raise where a model's cosine is no sum over tokens.

    Raises:
        UnsupportedModelError: its pooling is no mean, or projections come after it.
    """
    if len(layout.pooling) != 1 or layout.pooling[0] not in LINEAR_POOLINGS:
        raise UnsupportedModelError(
            f"a cosine has parts by words where the pooling is a mean ({', '.join(LINEAR_POOLINGS)}); that of {layout.path} is "
            + " and ".join(layout.pooling)
        )
    if layout.dense:
        raise UnsupportedModelError(
            f"a cosine has parts by words where nothing comes after the pooling; {layout.path} has a projection there (Dense)"
        )


def explain(
    a: str,
    b: str,
    layout: ModelLayout,
    tokenizer: TextTokenizer,
    engine: Engine,
    encode_stream: Callable[..., Iterator[FloatArray]],
    **options: Unpack[ExplainOptions],
) -> Explanation:
    """Return why two texts have their cosine.

    Args:
        a, b: the texts.
        layout, tokenizer, engine: of the model.
        encode_stream: `Embedder.encode_stream`, for the effect of each word's removal.
        options: see `ExplainOptions`.

    Raises:
        UsageError: an argument is invalid.
        InputError: a text is not valid Unicode.
        UnsupportedModelError: the model's cosine is no sum over tokens (`check_explainable`).
    """
    arguments.check_options(options, ExplainOptions)
    check_explainable(layout)
    for position, text in enumerate((a, b)):
        arguments.check_text(text, position)
    dimension = check_dimension(layout, options.get("truncate_dim"))
    prompts = options.get("prompts", (None, None))
    if not isinstance(prompts, (tuple, list)) or len(prompts) != 2:
        raise UsageError(f"prompts must be two, of a and of b; found {prompts!r}", "prompts")
    before = [prompt_text(layout, None, prompt) for prompt in prompts]
    sides = [aligned(prefix + text, tokenizer) for prefix, text in zip(before, (a, b), strict=True)]
    sums = [_sums_by_words(side, engine, layout, dimension) for side in sides]
    x, y = (rows / max(float(np.linalg.norm(rows.sum(axis=0))), 1e-12) for rows in sums)
    shares = x @ y.T
    cosine = float(as_cosines(shares.sum()))
    words = [
        list(_words(text, prefix, side, own))
        for text, prefix, side, own in zip((a, b), before, sides, (shares.sum(axis=1), shares.sum(axis=0)), strict=True)
    ]
    if options.get("removal", True):
        without = partial(encode_stream, truncate_dim=dimension, warn_of_unknown=False, warn_of_cut=False)
        vectors = [vector / max(float(np.linalg.norm(vector)), 1e-12) for vector in (x.sum(axis=0), y.sum(axis=0))]
        for text, prefix, own, other in zip((a, b), before, words, reversed(vectors), strict=True):
            _add_removals(text, prefix, own, other, cosine, without)
    truncated = (sides[0].tokens.truncated, sides[1].tokens.truncated)
    return Explanation(a, b, cosine, tuple(words[0]), tuple(words[1]), shares, truncated)


def _sums_by_words(side: Alignment, engine: Engine, layout: ModelLayout, dimension: int) -> AnyArray:
    """Return the sum of each word's token vectors, as the pooling weighs them, float64. Shapes: (words, dim)."""
    rows = engine.run_tokens([side.tokens])[0][:, :dimension].astype(np.float64)
    if not np.isfinite(rows).all():
        raise CorruptModelError(f"{layout.path} gave a vector that holds NaN or infinity: its weights overflow")
    if layout.pooling[0] == "weightedmean":
        rows *= np.arange(1, len(rows) + 1)[:, None]
    sums: AnyArray = np.add.reduceat(rows, [word.first for word in side.words], axis=0)
    return sums


def _words(text: str, prefix: str, side: Alignment, shares: AnyArray) -> Iterator[Word]:
    for word, share in zip(side.words, shares.tolist(), strict=True):
        if word.span is None:
            yield Word(word.name, "special", 0, 0, share)
            continue
        start, end = (place - len(prefix) for place in word.span)
        if end <= 0:
            yield Word(prefix[slice(*word.span)], "prompt", 0, 0, share)
        else:
            start = max(start, 0)
            yield Word(text[start:end], "word", start, end, share)


def _add_removals(
    text: str,
    prefix: str,
    words: list[Word],
    other: AnyArray,
    cosine: float,
    encode: Callable[..., Iterator[FloatArray]],
) -> None:
    """Give each word of a text the effect of its removal. Shapes: other: (dim,), of the other text, of length 1."""
    places = [i for i, word in enumerate(words) if word.kind == "word"]
    if not places:
        return
    without = [text[: words[i].start] + text[words[i].end :] for i in places]
    cosines = np.concatenate([vectors @ other for vectors in encode(without, prompt=prefix)])
    for i, left in zip(places, cosines.tolist(), strict=True):
        word = words[i]
        words[i] = Word(word.text, word.kind, word.start, word.end, word.share, cosine - left)
