"""BERT's tokenizer in native code (`sbert_mini/native/wordpiece.cpp`): the ids of the `tokenizers` library, many times as fast.

It takes the place of the library where a tokenizer has BERT's parts and no others:

* the model `WordPiece`, with any prefix, unknown token and longest word;
* `BertNormalizer` with any flags, or `Lowercase` and then `BertNormalizer`;
* `BertPreTokenizer`;
* a post-processor that makes `[CLS] a [SEP]` and `[CLS] a [SEP] b [SEP]` with the segments 0 and 1;
* no added tokens but special ones, which are plain text inside a text.

The library tokenizes with all others: another model, normalizer, pre-tokenizer or template, and added tokens that are no special
ones. So it does where the package was installed without a compiler.
"""

import ctypes
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from sbert_mini.native.library import NO_MEMORY, Array, Signatures, load
from sbert_mini.shapes import AnyArray, IntArray
from sbert_mini.text.tokenizer_file import guarded
from sbert_mini.text.tokens import TokenBatch, UnknownWords

_INT, _LONG, _MODEL = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
SIGNATURES: Signatures = {
    "sbmini_error": (ctypes.c_char_p, [_INT]),
    "sbmini_wordpiece_open": (
        _INT,
        [*[Array] * 4, _INT, _LONG, _INT, ctypes.c_uint64, ctypes.POINTER(_MODEL)],
    ),
    "sbmini_wordpiece_encode": (_INT, [_MODEL, *[Array] * 2, _LONG, _INT, _INT, *[Array] * 5]),
    "sbmini_wordpiece_close": (None, [_MODEL]),
}
CLEAN_TEXT, HANDLE_CHINESE, STRIP_ACCENTS, LOWERCASE, LOWERCASE_FIRST = 1, 2, 4, 8, 16
"""Steps of the normalizer, as bits."""
GREATEST_ID = 2**31 - 1
_BYTES_OF_UNKNOWN = 4
"""A normalized word has at most as many bytes for each one of the text: a Hangul syllable has three times as many."""


@cache
def library() -> Any | None:
    """Return the compiled library, or None where it was not compiled."""
    return load(SIGNATURES)


@dataclass(frozen=True)
class Rules:
    """What a tokenizer of BERT's does beside its vocabulary.

    Attributes:
        steps: of the normalizer, as bits.
        prefix: of pieces that continue a word.
        unknown_id: the id of a word that the vocabulary lacks.
        longest_word: in characters; a longer word is unknown.
        first: the id of the token before a text.
        last: the id of the token after it.
    """

    steps: int
    prefix: str
    unknown_id: int
    longest_word: int
    first: int
    last: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self | None:
        """Return a tokenizer's rules; None where native code does not cover what it does."""
        model = tokenizer.model
        steps = _steps(tokenizer.normalizer)
        added = tokenizer.get_added_tokens_decoder().values()
        splitter = tokenizer.pre_tokenizer
        if not isinstance(model, WordPiece) or steps is None or not all(token.special for token in added):
            return None
        if splitter is None or json.loads(splitter.__getstate__()) != {"type": "BertPreTokenizer"}:
            return None
        unknown_id, marks = model.token_to_id(model.unk_token), _marks(tokenizer)
        if unknown_id is None or marks is None or unknown_id in marks or max(unknown_id, *marks) > GREATEST_ID:
            return None
        return cls(
            steps, model.continuing_subword_prefix, unknown_id, min(model.max_input_chars_per_word, 2**62), *marks
        )


def _steps(normalizer: Any) -> int | None:
    """Return the steps of BERT's normalizer, or of one that lower-cases before it; None for any other."""
    state = json.loads(normalizer.__getstate__()) if normalizer is not None else {}
    *before, flags = _parts(state)
    if flags.get("type") != "BertNormalizer" or any(part != {"type": "Lowercase"} for part in before):
        return None
    strips = flags["lowercase"] if flags["strip_accents"] is None else flags["strip_accents"]
    return (
        CLEAN_TEXT * flags["clean_text"]
        + HANDLE_CHINESE * flags["handle_chinese_chars"]
        + STRIP_ACCENTS * strips
        + LOWERCASE * flags["lowercase"]
        + LOWERCASE_FIRST * bool(before)
    )


def _parts(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the normalizers that one is made of, at least one."""
    if state.get("type") != "Sequence":
        return [state]
    return [part for inner in state["normalizers"] for part in _parts(inner)] or [{}]


def _marks(tokenizer: Tokenizer) -> tuple[int, int] | None:
    """Return the ids of `[CLS]` and `[SEP]`, as they are called; None where texts and pairs are not marked as BERT's are."""
    if tokenizer.post_processor is None:
        return None
    one, two = (guarded(tokenizer.encode, text, add_special_tokens=False) for text in (".", ". ."))
    single = guarded(tokenizer.post_processor.process, one)
    pair = guarded(tokenizer.post_processor.process, one, two)  # told apart by their lengths
    if len(one) != 1 or len(two) != 2 or len(single) != 3:
        return None
    first, last = single.ids[0], single.ids[2]
    as_bert = single.ids == [first, *one.ids, last] and pair.ids == [first, *one.ids, last, *two.ids, last]
    as_bert = as_bert and single.type_ids == [0, 0, 0] and pair.type_ids == [0, 0, 0, 1, 1, 1]
    return (first, last) if as_bert else None


class NativeWordPiece:
    """A vocabulary and its rules, opened by native code. Several threads may use it at the same time.

    Args:
        rules: see there.
        vocabulary: pieces and their ids, from 0 to 2³¹ - 1.

    Raises:
        ValueError: there are more than 2²⁴ pieces, or an id is out of range.
        MemoryError: there is not enough memory.
    """

    def __init__(self, rules: Rules, vocabulary: Mapping[str, int]) -> None:
        self.rules = rules
        self._library: Any = library()
        self._model: int | None = None
        self._open(vocabulary)

    def _open(self, vocabulary: Mapping[str, int]) -> None:
        rules, model = self.rules, ctypes.c_void_p()
        pieces, ends = side_by_side(list(vocabulary))
        ids = np.fromiter(vocabulary.values(), np.int64, len(vocabulary))
        if len(ids) and ids.max() > GREATEST_ID:
            raise ValueError(f"the vocabulary has ids up to {ids.max()}")
        prefix = rules.prefix.encode()
        texts = (_bytes(pieces), _bytes(prefix))
        status = self._library.sbmini_wordpiece_open(
            Array(texts[0].ctypes.data, len(pieces)),
            Array.of(ends),
            Array.of(ids := ids.astype(np.int32)),
            Array(texts[1].ctypes.data, len(prefix)),
            rules.unknown_id,
            rules.longest_word,
            rules.steps,
            int.from_bytes(os.urandom(8), "little"),
            ctypes.byref(model),
        )
        self._model = model.value
        self._check(status)

    def __repr__(self) -> str:
        return f"NativeWordPiece({self.rules})"

    def __del__(self) -> None:
        if getattr(self, "_model", None) is not None:
            self._library.sbmini_wordpiece_close(self._model)

    def encode(self, texts: Sequence[str], limit: int, *, special: bool = True) -> TokenBatch:
        """Return the ids of each text, at most `limit`; with the special tokens around them, or without.

        Raises:
            TypeError: a text is not a string, or not valid Unicode.
            MemoryError: there is not enough memory.
        """
        try:
            data, ends = side_by_side(texts)
        except (TypeError, UnicodeEncodeError) as error:
            raise TypeError(f"a text must be a string of valid Unicode: {error}") from None
        around = 2 if special else 0
        room = max(min(limit, len(data)), 0)
        room = min(len(texts) * room, len(data)) + around * len(texts)
        ids, id_ends = np.empty(room, np.int32), np.empty(len(texts), np.int64)
        truncated = np.empty(len(texts), np.bool_)
        words, word_ends = np.empty(_BYTES_OF_UNKNOWN * len(data), np.uint8), np.empty(room, np.int64)
        text, arrays = _bytes(data), (ids, id_ends, truncated, words, word_ends)
        status = self._library.sbmini_wordpiece_encode(
            self._model,
            Array(text.ctypes.data, len(data)),
            Array.of(ends),
            limit,
            *((self.rules.first, self.rules.last) if special else (-1, -1)),
            *(Array.of(array) for array in arrays),
        )
        self._check(status)
        offsets = np.concatenate([_ZERO, id_ends])
        ids = ids[: offsets[-1]].copy()
        return TokenBatch(ids, offsets, truncated, unknown=self._unknown(ids, offsets, words, word_ends))

    def _unknown(self, ids: AnyArray, offsets: IntArray, words: AnyArray, ends: IntArray) -> UnknownWords | None:
        before = np.concatenate([_ZERO, np.cumsum(ids == self.rules.unknown_id)])[offsets]
        count = int(before[-1])
        if not count:
            return None
        ends = np.concatenate([_ZERO, ends[:count]])
        return UnknownWords(words[: ends[-1]].tobytes(), ends, before)

    def _check(self, status: int) -> None:
        if status == NO_MEMORY:
            raise MemoryError("no memory for the tokenizer")
        if status:
            raise ValueError(str(self._library.sbmini_error(status), "ascii"))


_ZERO = np.zeros(1, np.int64)


def side_by_side(texts: Sequence[str]) -> tuple[bytes, IntArray]:
    """Return texts in UTF-8, with one byte between two, and where each ends."""
    joined = "\0".join(texts).encode()
    if not texts:
        return joined, np.empty(0, np.int64)
    data = np.frombuffer(joined, np.uint8) if joined else np.empty(0, np.uint8)
    ends = np.flatnonzero(data == 0)
    if len(ends) == len(texts) - 1:
        return joined, np.append(ends, len(joined)).astype(np.int64)
    lengths = np.fromiter((len(text.encode()) + 1 for text in texts), np.int64, len(texts))  # a text holds a NUL
    return joined, np.cumsum(lengths) - 1


def _bytes(data: bytes) -> AnyArray:
    """Return bytes as an array that begins somewhere, where they are none too."""
    return np.frombuffer(data or b"\0", np.uint8)


def open_wordpiece(tokenizer: Tokenizer, vocabulary: Mapping[str, int] | None = None) -> NativeWordPiece | None:
    """Return native code for a tokenizer; None where it does not cover what the tokenizer does, or was not compiled.

    Args:
        tokenizer: the tokenizer, with special tokens as text.
        vocabulary: its model's, where the caller has it; None to ask for it, which takes longer than all else.
    """
    if library() is None or (rules := Rules.of(tokenizer)) is None:
        return None
    if vocabulary is None:
        vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    try:
        return NativeWordPiece(rules, vocabulary)
    except ValueError:
        return None
