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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Encoding, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from sbert_mini.errors import CorruptModelError, UsageError
from sbert_mini.layout import read_json

_CHARACTERS_PER_TOKEN = 16
"""A text of more than this many characters a token is first cut to a prefix: word pieces of 16 characters are rare."""
_SHORTEST_CUT = 8192


@dataclass(frozen=True)
class Tokens:
    """The word pieces of one text, or of one pair, special tokens included.

    Attributes:
        ids: word-piece ids, at most `max_seq_length`.
        type_ids: segment ids: 0 for the first text and its marks, 1 for the second.
        truncated: whether the text held more tokens than `ids` keeps.
    """

    ids: list[int]
    type_ids: list[int]
    truncated: bool


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
        cls, path: str | Path, max_seq_length: int, pad_id: int = 0, *, lowercase: bool = False
    ) -> "TextTokenizer":
        """Return the tokenizer of the model directory `path` (`tokenizer.json`, else `vocab.txt`).

        Args:
            path: the directory that holds the files.
            max_seq_length: see the class.
            pad_id: see the class.
            lowercase: lower-case texts first, whatever the tokenizer itself does.

        Raises:
            CorruptModelError: neither file is there, or it cannot be read.
        """
        path = Path(path)
        settings = read_json(path / "tokenizer_config.json") if (path / "tokenizer_config.json").is_file() else {}
        if (path / "tokenizer.json").is_file():
            try:
                tokenizer = Tokenizer.from_buffer((path / "tokenizer.json").read_bytes())
            except Exception as error:  # the library raises bare Exception
                raise CorruptModelError(f"{path / 'tokenizer.json'} cannot be read: {error}") from error
        elif (path / "vocab.txt").is_file():
            tokenizer = _from_vocabulary(path / "vocab.txt", settings)
        else:
            raise CorruptModelError(f"{path} has neither tokenizer.json nor vocab.txt")
        if lowercase:
            own = [tokenizer.normalizer] if tokenizer.normalizer is not None else []
            tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
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

    def encode(self, texts: Sequence[str | tuple[str, str]]) -> list[Tokens]:
        """Return the tokens of each text `[CLS] a [SEP]`, or pair `[CLS] a [SEP] b [SEP]` with segment ids 0 and 1.

        A single text that is too long loses its end. A pair that is too long loses tokens from the end of whichever
        side is longer at the time. Either is told by `Tokens.truncated`.
        """
        cut = [self._cut(text) for text in texts]
        # One text at a time: encode_batch would start threads of its own, beside those that the caller counts.
        encoded = [
            self._tokenizer.encode(text) if isinstance(text, str) else self._tokenizer.encode(*text) for text, _ in cut
        ]
        return [
            Tokens(e.ids, e.type_ids, truncated or bool(e.overflowing))
            for e, (_, truncated) in zip(encoded, cut, strict=True)
        ]

    def windows(self, text: str, prompt: str = "") -> list[Tokens]:
        """Return the whole text as consecutive windows of at most `max_seq_length` tokens, each with its special tokens.

        Nothing is lost: without the special tokens and the prompt's, the windows' ids joined are the text's ids.

        Args:
            text: the text.
            prompt: put before the text in each window.

        Raises:
            UsageError: the prompt leaves no room for the text.
        """
        before: list[int] = self._tokenizer.encode(prompt, add_special_tokens=False).ids if prompt else []
        room = self.max_seq_length - len(before)
        if room < 4:
            raise UsageError(f"the prompt takes {len(before)} of the {self.max_seq_length} tokens that the model reads")
        encoded: Encoding = (self.with_max_seq_length(room) if before else self)._tokenizer.encode(text)
        return [
            Tokens([e.ids[0], *before, *e.ids[1:]], [0] * (len(before) + len(e.ids)), False)
            for e in (encoded, *encoded.overflowing)
        ]

    def _cut(self, text: str | tuple[str, str]) -> tuple[str | tuple[str, str], bool]:
        # Tokenizing a text of many megabytes costs seconds and memory for ids that truncation throws away. A prefix
        # that already holds more than max_seq_length tokens before its last blank gives the same ids.
        if not isinstance(text, str):
            (first, one), (second, two) = self._cut(text[0]), self._cut(text[1])
            return (str(first), str(second)), one or two
        limit = max(self.max_seq_length * _CHARACTERS_PER_TOKEN, _SHORTEST_CUT)
        while limit < len(text):
            border = max(text.rfind(blank, 0, limit) for blank in " \n\t")
            prefix = text[:border] if border > 0 else text[:limit]
            if border > 0 and self._tokenizer.encode(prefix).overflowing:
                return prefix, True
            limit *= 4
        return text, False

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, the latter with `split_special_tokens: true`."""
        path = Path(path)
        plain = Tokenizer.from_str(self._tokenizer.to_str())
        plain.no_truncation()
        plain.save(str(path / "tokenizer.json"))
        settings = {
            "tokenizer_class": "BertTokenizer",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "mask_token": "[MASK]",
            **self.settings,
            "model_max_length": self.max_seq_length,
            "split_special_tokens": True,
        }
        for stale in ("is_local", "local_files_only", "name_or_path", "tokenizer_file", "special_tokens_map_file"):
            settings.pop(stale, None)
        (path / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", "utf-8")


def _rebuilt(
    tokenizer: str, max_seq_length: int, pad_id: int, settings: dict[str, Any], lowercase: bool
) -> TextTokenizer:
    return TextTokenizer(Tokenizer.from_str(tokenizer), max_seq_length, pad_id, settings, lowercase=lowercase)


def _from_vocabulary(path: Path, settings: dict[str, Any]) -> Tokenizer:
    """Return BERT's word-piece tokenizer for a `vocab.txt`, as google-research/bert's `tokenization.py` reads it."""
    try:
        vocabulary = {piece: index for index, piece in enumerate(path.read_text(encoding="utf-8").splitlines())}
    except (OSError, ValueError) as error:
        raise CorruptModelError(f"{path} cannot be read: {error}") from error
    special = {
        key: str(settings.get(f"{key}_token", f"[{key.upper()}]")) for key in ("cls", "sep", "pad", "unk", "mask")
    }
    for token in (special["cls"], special["sep"], special["unk"]):
        if token not in vocabulary:
            raise CorruptModelError(f"{path} has no entry {token!r}")
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=special["unk"], max_input_chars_per_word=100))
    lowercase = bool(settings.get("do_lower_case", True))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
        strip_accents=settings.get("strip_accents"),
        lowercase=lowercase,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([token for token in special.values() if token in vocabulary])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{special['cls']}:0 $A:0 {special['sep']}:0",
        pair=f"{special['cls']}:0 $A:0 {special['sep']}:0 $B:1 {special['sep']}:1",
        special_tokens=[(special[key], vocabulary[special[key]]) for key in ("cls", "sep")],
    )
    return tokenizer
