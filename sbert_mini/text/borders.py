"""Where a long text may be cut, so that its parts have the word pieces of the whole.

BERT's tokenizer works in three steps: it normalizes characters, splits at white space and around punctuation and CJK
characters, and breaks each word into pieces. A text may be cut before any character around which it splits, and each part
then has the pieces that it has in the whole. A word of more than 100 characters is one unknown piece, whatever it holds: so a
run of millions of letters has the pieces of its first hundred.

Which character does what is asked of the tokenizer itself, one character at a time. That is sound where a character's part
does not depend on its neighbours: so for BERT's normalizer and pre-tokenizer with a WordPiece model. Other tokenizers that
split at blanks are cut before a blank alone, and the rest is not cut.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from sbert_mini.shapes import AnyArray

_UNASKED, _BORDER, _EMPTY = 0, 1, 2
"""What a character is: not asked yet, one that the tokenizer splits around, or one that normalization removes; `_EMPTY + n` is
one that becomes n characters of a word."""
_BLANKS = " \t\n"
_PLAIN_NORMALIZERS = {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents"}
_SPLIT_AT_BLANKS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}


class Borders:
    """Cuts long texts for one tokenizer.

    Args:
        tokenizer: the tokenizer, as `TextTokenizer` sets it up: special tokens inside a text are text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        normalizers = _types(tokenizer.normalizer, "normalizers")
        splitters = _types(tokenizer.pre_tokenizer, "pretokenizers")
        added = [token.content for token in tokenizer.get_added_tokens_decoder().values() if not token.special]
        self._normalizer: Any = tokenizer.normalizer
        self._splitter: Any = tokenizer.pre_tokenizer
        self._kinds: AnyArray | None = None
        self.at_blanks = (
            set(normalizers) <= _PLAIN_NORMALIZERS
            and len(splitters) == 1
            and splitters[0] in _SPLIT_AT_BLANKS
            and not any(character.isspace() for content in added for character in content)
        )
        """Whether a text may be cut before a blank, a tab or a newline."""
        self.everywhere = (
            self.at_blanks
            and not added
            and isinstance(tokenizer.model, WordPiece)
            and splitters == ["BertPreTokenizer"]
            and normalizers in (["BertNormalizer"], ["Lowercase", "BertNormalizer"])
        )
        """Whether a text may be cut before every character that the tokenizer splits around, and long words be shortened."""
        self._longest_word = int(tokenizer.model.max_input_chars_per_word) if self.everywhere else 0

    def parts(self, text: str, size: int) -> Iterator[str]:
        """Yield consecutive parts of a text, of about `size` characters, whose pieces joined are those of the text.

        A word that is longer than `size` is shortened to one of the same pieces, where that is possible; two different words
        stay different.
        """
        start = 0
        while len(text) - start > size and self.at_blanks:
            border = self._last_border(text, start, start + size)
            if border > start:
                yield text[start:border]
                start = border
                continue
            if not self.everywhere:
                size *= 2
                continue
            word, start = self._word(text, start, size)
            yield word
        if start < len(text):
            yield text[start:]

    def _last_border(self, text: str, start: int, stop: int) -> int:
        """Return the last place in a stretch of a text where it may be cut; `start` or less for none."""
        if not self.everywhere:
            return max(text.rfind(blank, start + 1, stop) for blank in _BLANKS)
        borders = np.flatnonzero(self._kinds_of(text[start:stop]) == _BORDER)
        return start + int(borders[-1]) if len(borders) else -1

    def _word(self, text: str, start: int, size: int) -> tuple[str, int]:
        """Return the word that starts at `start`, shortened, and where it ends.

        What stands at `start` may be a border, which comes before the word then.
        """
        parts, length, position = [text[start]], max(int(self._kinds_of(text[start])[0]) - _EMPTY, 0), start + 1
        digest = hashlib.blake2b(digest_size=16)
        removed = ""
        while position < len(text):
            block = text[position : position + size]
            kinds = self._kinds_of(block)
            borders = np.flatnonzero(kinds == _BORDER)
            end = int(borders[0]) if len(borders) else len(block)
            digest.update(block[:end].encode("utf-32-le", "surrogatepass"))
            first = 0
            while length <= self._longest_word and first < end:
                counted = np.flatnonzero(kinds[first:end] > _EMPTY)
                at = first + int(counted[0]) if len(counted) else end
                # Characters that are removed matter only by keeping others apart: one of each does that.
                if other := block[first:at].strip(removed):
                    new = "".join(sorted(set(other).difference(removed)))
                    parts.append(new)
                    removed += new
                if at < end:
                    parts.append(block[at])
                    length += int(kinds[at]) - _EMPTY
                    removed = ""
                first = at + 1
            position += end
            if end < len(block):
                break
        if length > self._longest_word:  # some more letters tell it from other unknown words that start alike
            parts.append(digest.hexdigest())
        return "".join(parts), position

    def _kinds_of(self, text: str) -> AnyArray:
        """Return what each character is. Shapes: the result: (characters,)."""
        if self._kinds is None:
            self._kinds = np.zeros(0x110000, np.uint8)
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        kinds = self._kinds[codes]
        if not kinds.all():
            for code in np.unique(codes[kinds == _UNASKED]).tolist():
                self._kinds[code] = self._kind(chr(code))
            kinds = self._kinds[codes]
        return kinds

    def _kind(self, character: str) -> int:
        between = f"a{character}a"
        normalized = self._normalizer.normalize_str(between)
        words = [word for word, _ in self._splitter.pre_tokenize_str(normalized)]
        return _EMPTY + len(words[0]) - 2 if len(words) == 1 else _BORDER


def _types(component: Any, parts: str) -> list[str]:
    """Return the types that a normalizer or pre-tokenizer is made of."""
    if component is None:
        return []
    state = json.loads(component.__getstate__())
    return [part["type"] for part in state[parts]] if state["type"] == "Sequence" else [state["type"]]
