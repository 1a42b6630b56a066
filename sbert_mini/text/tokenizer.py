"""Texts and pairs of texts -> word-piece ids, by native code or the `tokenizers` library.

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
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

from tokenizers import Tokenizer, normalizers

from sbert_mini.errors import CorruptModelError, UsageError
from sbert_mini.files.json_files import TOKENIZER_CONFIG
from sbert_mini.model.layout import ModelLayout, read_json
from sbert_mini.text.cutting import Cutter
from sbert_mini.text.pieces import Pieces, pieces_of
from sbert_mini.text.tokenizer_file import guarded, read_tokenizer
from sbert_mini.text.tokens import TokenBatch, Tokens
from sbert_mini.text.wordpiece import NativeWordPiece, open_wordpiece


class TextTokenizer:
    """The word-piece tokenizer of a model directory.

    Args:
        tokenizer: a `tokenizers.Tokenizer` whose post-processor adds the special tokens.
        max_seq_length: the longest result in tokens, special tokens included; at least 4.
        pad_id: the id that fills up a batch.
        settings: the directory's `tokenizer_config.json`, kept for `save`.
        lowercase: whether the tokenizer lower-cases because the directory's `sentence_bert_config.json` asks for it.
        wordpiece: native code for the tokenizer; None to open it at the first text, where it covers what the tokenizer does.

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
        wordpiece: NativeWordPiece | None = None,
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
        self._wordpiece = wordpiece
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
        file_read = read_tokenizer(path, settings, trust=trust)
        tokenizer, greatest = file_read.tokenizer, file_read.greatest_id
        if vocab_size is not None and greatest >= vocab_size:
            raise CorruptModelError(
                f"{path}: its tokenizer gives ids up to {greatest}, and its vocab_size is {vocab_size}"
            )
        if lowercase:
            others = [tokenizer.normalizer] if tokenizer.normalizer is not None else []
            tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *others])
        wordpiece = open_wordpiece(tokenizer, file_read.vocabulary) if file_read.vocabulary is not None else None
        return cls(tokenizer, max_seq_length, pad_id, settings, lowercase=lowercase, wordpiece=wordpiece)

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
                self._tokenizer.to_str(),
                max_seq_length,
                self.pad_id,
                dict(self.settings),
                self.lowercase,
                self._wordpiece,
            )
        return self._shorter[max_seq_length]

    @cached_property
    def _pieces(self) -> Pieces:
        self._wordpiece = self._wordpiece or open_wordpiece(self._tokenizer)
        return pieces_of(self._wordpiece, self._tokenizer, self._cutter, self.max_seq_length, self.unknown_id)

    @cached_property
    def _cutter(self) -> Cutter:
        return Cutter(self._tokenizer, self.max_seq_length)

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

    def encode(self, texts: Sequence[str | tuple[str, str]]) -> TokenBatch:
        """Return the tokens of each text `[CLS] a [SEP]`, or pair `[CLS] a [SEP] b [SEP]` with segment ids 0 and 1.

        A single text that is too long loses its end. A pair that is too long loses tokens from the end of whichever
        side is longer at the time; where both sides hold more than 200,000 characters, more characters count as longer.
        Either is told by `Tokens.truncated`. Memory and time do not grow with the part of a text that is not read.
        """
        single = [isinstance(text, str) for text in texts]
        if all(single):
            return self._pieces.texts(texts)  # type: ignore[arg-type]
        if not any(single):
            return self._pieces.pairs(texts)  # type: ignore[arg-type]
        return TokenBatch.of([tokens for text in texts for tokens in self.encode([text])])

    @overload
    def windows(self, text: str, prompt: str = "") -> list[Tokens]: ...

    @overload
    def windows(self, text: str, prompt: str, most_tokens: int) -> list[Tokens] | None: ...

    def windows(self, text: str, prompt: str = "", most_tokens: int | None = None) -> list[Tokens] | None:
        """Return the whole text as consecutive windows of at most `max_seq_length` tokens, each with its special tokens.

        Nothing is lost: without the special tokens and the prompt's, the windows' ids joined are the text's ids. The text is
        tokenized part by part: beyond the result, memory does not grow with it.

        Args:
            text: the text.
            prompt: put before the text in each window.
            most_tokens: where the text has more, a word that the vocabulary lacks counting twice, it is not read on, and None is
                returned; None for no limit.

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
        for part in self._cutter.parts(text):
            pieces, words = self._pieces.all_of(part)
            unknown |= {len(ids) + position: word for position, word in words.items()}
            ids += pieces
            if most_tokens is not None and len(ids) + len(unknown) > most_tokens:
                return None
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


def open_tokenizer(layout: ModelLayout, *, trust: bool = False) -> TextTokenizer:
    """Return a model directory's tokenizer; one that is not BERT's is taken only with `trust`.

    Raises:
        CorruptModelError: its file is missing, or cannot be read.
        UnsupportedModelError: it is not BERT's, and is not trusted.
    """
    return TextTokenizer.from_directory(
        layout.encoder_path,
        layout.max_seq_length,
        0 if layout.bert is None else layout.bert.pad_token_id,
        lowercase=layout.lowercase,
        vocab_size=layout.vocab_size,
        trust=trust,
    )


def _rebuilt(
    tokenizer: str,
    max_seq_length: int,
    pad_id: int,
    settings: dict[str, Any],
    lowercase: bool,
    wordpiece: NativeWordPiece | None = None,
) -> TextTokenizer:
    made = Tokenizer.from_str(tokenizer)
    return TextTokenizer(made, max_seq_length, pad_id, settings, lowercase=lowercase, wordpiece=wordpiece)
