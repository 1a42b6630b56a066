"""Texts and pairs of texts -> word-piece ids, through the `tokenizers` library.

**A user's text never becomes structure.** BERT marks the start and the end of a text with the special tokens `[CLS]` and
`[SEP]`, and pairs are told apart by the second `[SEP]`. By default the `tokenizers` library also reads the literal
strings "[CLS]", "[SEP]", "[MASK]", "[PAD]" and "[UNK]" *inside a text* as those tokens, so that a text holding "[SEP]"
could forge the border of a pair. De La Cruz, Musa and Ndotu (section "Ethics") name this risk for separator-token pair
input. Here `encode_special_tokens` is switched on: such strings are split like any other text ("[", "sep", "]"), and the
special tokens come from the template alone.

Plain sentence-transformers does the same for a directory whose `tokenizer_config.json` says
`"split_special_tokens": true`, and the directories that this package saves say so. A published directory is left as
it is: for a text that holds such a literal, and for no other, its vector from plain sentence-transformers differs from ours.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Encoding, Tokenizer, normalizers

from sbert_mini.errors import CorruptModelError, UsageError
from sbert_mini.files.json_files import TOKENIZER_CONFIG
from sbert_mini.model.layout import ModelLayout, read_json
from sbert_mini.text.borders import Borders
from sbert_mini.text.tokenizer_file import guarded, read_tokenizer

_CHARACTERS_PER_TOKEN = 16
"""A text of more than this many characters a token is first cut to a prefix: word pieces of 16 characters are rare."""
_SHORTEST_CUT = 8192
_PART = 16_384
"""Characters of a long text that are tokenized at a time, where all of it is."""
_COMPARED = 200_000
"""Where both texts of a pair hold more characters than that, their pieces are not counted to tell which is longer."""


@dataclass(frozen=True)
class Tokens:
    """The word pieces of one text, or of one pair, special tokens included.

    Attributes:
        ids: word-piece ids, at most `max_seq_length`.
        type_ids: segment ids: 0 for the first text and its marks, 1 for the second.
        truncated: whether the text held more tokens than `ids` keeps.
        unknown: of a text, the normalized words among them that the vocabulary lacks, in their order: texts of the same pieces
            differ in these alone. Empty for a pair.
    """

    ids: list[int]
    type_ids: list[int]
    truncated: bool
    unknown: tuple[str, ...] = ()


class TextTokenizer:
    """The word-piece tokenizer of a model directory.

    Args:
        tokenizer: a `tokenizers.Tokenizer` whose post-processor adds the special tokens.
        max_seq_length: the longest result in tokens, special tokens included; at least 4.
        pad_id: the id that fills up a batch.
        settings: the directory's `tokenizer_config.json`, kept for `save`.
        lowercase: whether the tokenizer lower-cases because the directory's `sentence_bert_config.json` asks for it.

    Raises:
        UsageError: `max_seq_length` is below 4.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_seq_length: int,
        pad_id: int = 0,
        settings: dict[str, Any] | None = None,
        *,
        lowercase: bool = False,
    ) -> None:
        if max_seq_length < 4:
            raise UsageError(f"max_seq_length must be at least 4 tokens; found {max_seq_length}")
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        tokenizer.enable_truncation(max_length=max_seq_length, strategy="longest_first")
        self._tokenizer = tokenizer
        self.max_seq_length = max_seq_length
        self.pad_id = pad_id
        self.settings = settings or {}
        self.lowercase = lowercase
        self._shorter: dict[int, TextTokenizer] = {}

    def __repr__(self) -> str:
        return f"TextTokenizer(vocab_size={self.vocab_size}, max_seq_length={self.max_seq_length})"

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickled or copied tokenizers.Tokenizer forgets encode_special_tokens: it is always made anew through __init__.
        return _rebuilt, (
            self._tokenizer.to_str(),
            self.max_seq_length,
            self.pad_id,
            dict(self.settings),
            self.lowercase,
        )

    @classmethod
    def from_directory(
        cls,
        path: str | Path,
        max_seq_length: int,
        pad_id: int = 0,
        *,
        lowercase: bool = False,
        vocab_size: int | None = None,
        trust: bool = False,
    ) -> "TextTokenizer":
        """Return the tokenizer of the model directory `path` (`tokenizer.json`, else `vocab.txt`).

        Args:
            path: the directory that holds the files.
            max_seq_length: see the class.
            pad_id: see the class.
            lowercase: lower-case texts first, whatever the tokenizer itself does.
            vocab_size: word pieces of the model; None for as many as the tokenizer has.
            trust: take a `tokenizer.json` that is not BERT's as it is.

        Raises:
            CorruptModelError: neither file is there, it cannot be read, or has ids that the model lacks.
            UnsupportedModelError: `tokenizer.json` is not BERT's, and is not trusted.
        """
        path = Path(path)
        file = path / "tokenizer_config.json"
        settings = read_json(file, TOKENIZER_CONFIG) if file.is_file() else {}
        tokenizer, greatest = read_tokenizer(path, settings, trust=trust)
        if vocab_size is not None and greatest >= vocab_size:
            raise CorruptModelError(
                f"{path}: its tokenizer gives ids up to {greatest}, and its vocab_size is {vocab_size}"
            )
        if lowercase:
            others = [tokenizer.normalizer] if tokenizer.normalizer is not None else []
            tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *others])
        return cls(tokenizer, max_seq_length, pad_id, settings, lowercase=lowercase)

    @property
    def backend(self) -> Tokenizer:
        """The `tokenizers.Tokenizer` underneath."""
        return self._tokenizer

    @property
    def vocab_size(self) -> int:
        """Word pieces, special tokens included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def with_max_seq_length(self, max_seq_length: int) -> "TextTokenizer":
        """Return the same tokenizer for another greatest length."""
        if max_seq_length not in self._shorter:
            self._shorter[max_seq_length] = _rebuilt(
                self._tokenizer.to_str(), max_seq_length, self.pad_id, dict(self.settings), self.lowercase
            )
        return self._shorter[max_seq_length]

    @cached_property
    def _borders(self) -> Borders:
        return Borders(self._tokenizer)

    @cached_property
    def unknown_id(self) -> int:
        """The id of the piece that stands for a word that the vocabulary lacks; -1 where there is none."""
        token = getattr(self._tokenizer.model, "unk_token", None)
        number = None if token is None else self._tokenizer.token_to_id(token)
        return -1 if number is None else int(number)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The ids that are put around texts. No text has them: it is all text."""
        return frozenset(guarded(self._tokenizer.encode, "", "").ids)

    def special_tokens(self, *, pair: bool = False) -> int:
        """Return how many special tokens are put around a text, or a pair."""
        return int(guarded(self._tokenizer.num_special_tokens_to_add, pair))

    def encode(self, texts: Sequence[str | tuple[str, str]]) -> list[Tokens]:
        """Return the tokens of each text `[CLS] a [SEP]`, or pair `[CLS] a [SEP] b [SEP]` with segment ids 0 and 1.

        A single text that is too long loses its end. A pair that is too long loses tokens from the end of whichever
        side is longer at the time; where both sides hold more than `_COMPARED` characters, more characters count as longer.
        Either is told by `Tokens.truncated`. Memory and time do not grow with the part of a text that is not read.
        """
        # One text at a time: encode_batch would start threads of its own, beside those that the caller counts.
        return [self._text(text) if isinstance(text, str) else self._pair(*text) for text in texts]

    def _text(self, text: str) -> Tokens:
        read, encoded = self._beginning(text)
        ids = encoded.ids
        if self.unknown_id not in ids:
            return Tokens(ids, encoded.type_ids, bool(encoded.overflowing))
        words = _unknown_in(encoded, read, self.unknown_id, self._tokenizer.normalizer)
        return Tokens(ids, encoded.type_ids, bool(encoded.overflowing), tuple(word for _, word in words))

    def _pair(self, first: str, second: str) -> Tokens:
        # Each side by itself: for two long sides the library makes all pairs of their parts that do not fit.
        (_, a), (_, b) = (self._beginning(text, special=False) for text in (first, second))
        room = self.max_seq_length - self.special_tokens(pair=True)
        truncated = bool(a.overflowing or b.overflowing) or len(a) + len(b) > room
        if truncated:
            share = self._share(first, second, a, b, room)
            a.truncate(share)
            b.truncate(room - share)
        encoded = guarded(self._tokenizer.post_process, a, b)
        return Tokens(encoded.ids, encoded.type_ids, truncated)

    def _share(self, first: str, second: str, a: Encoding, b: Encoding, room: int) -> int:
        """Return how many pieces the first side of a pair keeps, where both do not fit.

        The shorter side keeps all of its pieces, up to half of the room. Of an odd room the longer side has one more, and of
        equal ones the second.
        """
        if not b.overflowing and len(b) <= room // 2:
            return room - len(b)
        if not a.overflowing and len(a) <= room // 2:
            return len(a)
        if not room % 2:
            return room // 2
        if a.overflowing and b.overflowing:
            return room // 2 + self._holds_more(first, second)
        return room // 2 + (bool(a.overflowing) or (not b.overflowing and len(a) > len(b)))

    def _holds_more(self, first: str, second: str) -> bool:
        """Return whether the first text has more pieces than the second."""
        if min(len(first), len(second)) > _COMPARED:
            return len(first) > len(second)
        pieces, parts = [0, 0], [self._borders.parts(text, _PART) for text in (first, second)]
        while True:
            behind = int(pieces[0] > pieces[1])
            part = next(parts[behind], None)
            if part is None:
                return behind == 1
            pieces[behind] += len(self._pieces(part)[0])

    @cached_property
    def _shortest_cut(self) -> int:
        return max(self.max_seq_length * _CHARACTERS_PER_TOKEN, _SHORTEST_CUT)

    def _beginning(self, text: str, *, special: bool = True) -> tuple[str, Encoding]:
        """Return a beginning of a text that has all the pieces that are read, and one more if there is one; and its encoding.

        Tokenizing a text of many megabytes costs seconds and memory for pieces that truncation throws away.
        """
        if len(text) <= self._shortest_cut:
            return text, guarded(self._tokenizer.encode, text, add_special_tokens=special)
        beginning, length, due = [], 0, 0
        for part in self._borders.parts(text, self._shortest_cut):
            beginning.append(part)
            length += len(part)
            if length >= due:
                encoded = guarded(self._tokenizer.encode, read := "".join(beginning), add_special_tokens=special)
                if encoded.overflowing:
                    return read, encoded
                due = 4 * length
        return (read := "".join(beginning)), guarded(self._tokenizer.encode, read, add_special_tokens=special)

    def _pieces(self, text: str) -> tuple[list[int], dict[int, str]]:
        """Return all pieces of a text, without special tokens, and the unknown words by their places among them."""
        encoded = guarded(self._tokenizer.encode, text, add_special_tokens=False)
        ids: list[int] = []
        unknown: dict[int, str] = {}
        for block in (encoded, *encoded.overflowing):
            if self.unknown_id in block.ids:
                words = _unknown_in(block, text, self.unknown_id, self._tokenizer.normalizer)
                unknown |= {len(ids) + position: word for position, word in words}
            ids += block.ids
        return ids, unknown

    def windows(self, text: str, prompt: str = "") -> list[Tokens]:
        """Return the whole text as consecutive windows of at most `max_seq_length` tokens, each with its special tokens.

        Nothing is lost: without the special tokens and the prompt's, the windows' ids joined are the text's ids. The text is
        tokenized part by part: beyond the result, memory does not grow with it.

        Args:
            text: the text.
            prompt: put before the text in each window.

        Raises:
            UsageError: the prompt leaves no room for the text.
        """
        before: list[int] = guarded(self._tokenizer.encode, prompt, add_special_tokens=False).ids if prompt else []
        around = guarded(self._tokenizer.encode, "").ids
        room = self.max_seq_length - len(before) - len(around)
        if room < 2:
            raise UsageError(f"the prompt takes {len(before)} of the {self.max_seq_length} tokens that the model reads")
        ids: list[int] = []
        unknown: dict[int, str] = {}
        for part in self._borders.parts(text, _PART):
            pieces, words = self._pieces(part)
            unknown |= {len(ids) + position: word for position, word in words.items()}
            ids += pieces
        windows = []
        for start in range(0, max(len(ids), 1), room):
            stop = min(start + room, len(ids))
            window = [*around[:1], *before, *ids[start:stop], *around[1:]]
            words_here = tuple(unknown[i] for i in range(start, stop) if i in unknown) if unknown else ()
            windows.append(Tokens(window, [0] * len(window), False, words_here))
        return windows

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, the latter with `split_special_tokens: true`."""
        path = Path(path)
        plain = Tokenizer.from_str(self._tokenizer.to_str())
        plain.no_truncation()
        plain.save(str(path / "tokenizer.json"))
        settings = _settings_to_save(self.settings, self.max_seq_length)
        (path / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", "utf-8")


def _settings_to_save(settings: Mapping[str, Any], max_seq_length: int) -> dict[str, Any]:
    """Return the content of a `tokenizer_config.json`, made of the one that was read."""
    stale = ("is_local", "local_files_only", "name_or_path", "tokenizer_file", "special_tokens_map_file")
    return {
        "tokenizer_class": "BertTokenizer",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "mask_token": "[MASK]",
        **{key: value for key, value in settings.items() if key not in stale},
        "model_max_length": max_seq_length,
        "split_special_tokens": True,
    }


def _unknown_in(encoded: Encoding, text: str, unknown_id: int, normalizer: Any) -> Iterator[tuple[int, str]]:
    """Yield the words of a text that the vocabulary lacks, normalized, each with its position among the pieces."""
    offsets = encoded.offsets
    for position, piece in enumerate(encoded.ids):
        if piece == unknown_id:
            word = text[slice(*offsets[position])]
            yield position, word if normalizer is None else normalizer.normalize_str(word).strip()


def open_tokenizer(layout: ModelLayout, *, trust: bool = False) -> TextTokenizer:
    """Return a model directory's tokenizer; one that is not BERT's is taken only with `trust`.

    Raises:
        CorruptModelError: its file is missing, or cannot be read.
        UnsupportedModelError: it is not BERT's, and is not trusted.
    """
    return TextTokenizer.from_directory(
        layout.encoder_path,
        layout.max_seq_length,
        layout.config.pad_token_id,
        lowercase=layout.lowercase,
        vocab_size=layout.config.vocab_size,
        trust=trust,
    )


def _rebuilt(
    tokenizer: str, max_seq_length: int, pad_id: int, settings: dict[str, Any], lowercase: bool
) -> TextTokenizer:
    return TextTokenizer(Tokenizer.from_str(tokenizer), max_seq_length, pad_id, settings, lowercase=lowercase)
