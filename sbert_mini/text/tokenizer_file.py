"""A model directory's `tokenizer.json` or `vocab.txt` -> a tokenizer that is built here, of its vocabulary and a few flags.

A `tokenizer.json` may hold regular expressions, replacements and templates. Crafted ones make the library hang, fill the
memory or panic. BERT's tokenizer needs none: so one whose parts are exactly BERT's is built anew from its vocabulary, and
nothing else of the file is run. Any other is refused unless the user trusts it.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from sbert_mini.errors import CorruptModelError, UnsupportedModelError
from sbert_mini.files import json_schema
from sbert_mini.files.json_files import TOKENIZER
from sbert_mini.files.reading import read_whole

_MOST_BYTES = 1 << 26
"""The largest file of a vocabulary: each of its pieces takes many times its bytes in memory."""
_NORMALIZER_FLAGS = {"clean_text", "handle_chinese_chars", "strip_accents", "lowercase"}


@dataclass(frozen=True)
class TokenizerRead:
    """A tokenizer that was read.

    Attributes:
        tokenizer: the tokenizer.
        greatest_id: the greatest id that it gives.
        vocabulary: its model's; None where the tokenizer was taken as it is.
    """

    tokenizer: Tokenizer
    greatest_id: int
    vocabulary: Mapping[str, int] | None = None


def read_tokenizer(path: Path, settings: Mapping[str, Any], *, trust: bool = False) -> TokenizerRead:
    """Return the tokenizer of a folder (`tokenizer.json`, else `vocab.txt`).

    Args:
        path: the folder.
        settings: its `tokenizer_config.json`, for a `vocab.txt`.
        trust: take a `tokenizer.json` as it is.

    Raises:
        CorruptModelError: neither file is there, or it cannot be read.
        UnsupportedModelError: `tokenizer.json` is not BERT's, and is not trusted.
    """
    file = path / "tokenizer.json"
    if file.is_file():
        return _trusted(file) if trust else _rebuilt(file)
    if (path / "vocab.txt").is_file():
        return _from_vocabulary(path / "vocab.txt", settings)
    raise CorruptModelError(f"{path} has neither tokenizer.json nor vocab.txt")


def guarded(call: Callable[..., Any], *args: Any, what: object = "the tokenizer", **options: Any) -> Any:
    """Return what a function of `tokenizers` returns.

    Raises:
        CorruptModelError: it failed by a bare `Exception`, or panicked, which no `except Exception` catches.
    """
    try:
        return call(*args, **options)
    except BaseException as error:
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        text = " ".join(str(error).split())
        raise CorruptModelError(f"{what} failed: {text[:200]}") from None


def _trusted(file: Path) -> TokenizerRead:
    try:
        data = read_whole(file, _MOST_BYTES)
    except OSError as error:
        raise CorruptModelError(f"{file} cannot be read: {error.strerror or error}") from error
    tokenizer = guarded(Tokenizer.from_buffer, data, what=file)
    guarded(tokenizer.encode, "a", what=file)
    return TokenizerRead(tokenizer, max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0))


def _rebuilt(file: Path) -> TokenizerRead:
    """Return BERT's tokenizer with the vocabulary and the flags of a `tokenizer.json` that describes one."""
    data = json_schema.read_json(file, TOKENIZER, CorruptModelError, _MOST_BYTES)
    model = data["model"]
    if model.get("type", "WordPiece") != "WordPiece":
        _refuse(file, f"a model of type {model['type']!r}")
    word_pieces, greatest = _model(file, model)
    tokenizer = Tokenizer(word_pieces)
    tokenizer.normalizer = _normalizer(file, data.get("normalizer"))
    if data.get("pre_tokenizer") != {"type": "BertPreTokenizer"}:
        _refuse(file, "another pre-tokenizer")
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    added = data.get("added_tokens") or []
    _add_tokens(file, tokenizer, added)
    tokenizer.post_processor, marks = _post_processor(file, data.get("post_processor"), tokenizer)
    decoder = data.get("decoder")
    if isinstance(decoder, dict) and decoder.get("type") == "WordPiece":
        tokenizer.decoder = decoders.WordPiece(str(decoder.get("prefix", "##")), bool(decoder.get("cleanup", True)))
    in_texts = [token["id"] for token in added if not token["special"]]
    return TokenizerRead(tokenizer, max([greatest, *marks, *in_texts]), model["vocab"])


def _refuse(file: Path, what: str) -> NoReturn:
    raise UnsupportedModelError(
        f"{file} has {what}, and is not BERT's tokenizer: its rules could hang or stop this program. Where you trust the file: "
        "--trust-tokenizer for encode, index, search, dedup, predict, models convert, bench sts and bench search; in a recipe "
        "trust_tokenizer = true in [model], or in the [[task]] of a teacher; in Python trust_tokenizer=True"
    )


def _model(file: Path, data: Mapping[str, Any]) -> tuple[WordPiece, int]:
    """Return BERT's model and its greatest id. The library checks the vocabulary: here it would take as long again."""
    vocabulary: dict[str, int] = data["vocab"]
    try:
        model = WordPiece(
            vocabulary,
            unk_token=data["unk_token"],
            max_input_chars_per_word=data["max_input_chars_per_word"],
            continuing_subword_prefix=data["continuing_subword_prefix"],
        )
    except (TypeError, ValueError, OverflowError) as error:
        text = " ".join(str(error).split())[:200]
        raise CorruptModelError(f"{file}: model.vocab must give each piece a whole number: {text}") from None
    greatest = max(vocabulary.values(), default=0)
    if greatest >= 1 << 24:
        raise CorruptModelError(f"{file}: model.vocab must hold numbers from 0 to {(1 << 24) - 1}; found {greatest}")
    if data["unk_token"] not in vocabulary:
        raise CorruptModelError(f"{file}: model.vocab has no entry {data['unk_token']!r}")
    return model, greatest


def _normalizer(file: Path, data: Any) -> Any:
    """Return BERT's normalizer with the file's flags. A saved model that lower-cases by itself has `Lowercase` before it."""
    parts = [data]
    for _ in range(4):  # each saving of such a model nests it once more
        parts = [inner for part in parts for inner in (part["normalizers"] if _is_sequence(part) else [part])]
    *before, last = parts or [None]
    flags = {key: value for key, value in last.items() if key != "type"} if isinstance(last, dict) else {}
    is_bert = isinstance(last, dict) and last.get("type") == "BertNormalizer" and set(flags) == _NORMALIZER_FLAGS
    is_bert = is_bert and all(
        isinstance(value, bool) or (value is None and key == "strip_accents") for key, value in flags.items()
    )
    if not is_bert or any(part != {"type": "Lowercase"} for part in before):
        _refuse(file, "another normalizer")
    normalizer = normalizers.BertNormalizer(**flags)
    return normalizers.Sequence([normalizers.Lowercase(), normalizer]) if before else normalizer


def _is_sequence(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "Sequence" and isinstance(part.get("normalizers"), list)


def _post_processor(file: Path, data: Any, tokenizer: Tokenizer) -> tuple[Any, tuple[int, int]]:
    """Return what puts `[CLS]` and `[SEP]` around texts, as they are called here, and their ids."""
    try:
        if data["type"] == "BertProcessing":
            (sep, sep_id), (cls, cls_id) = data["sep"], data["cls"]
        else:
            cls, sep = data["single"][0]["SpecialToken"]["id"], data["single"][2]["SpecialToken"]["id"]
            cls_id, sep_id = (data["special_tokens"][token]["ids"][0] for token in (cls, sep))
        known = [tokenizer.token_to_id(token) for token in (cls, sep)] == [cls_id, sep_id]
        known = known and not any(set(" $:") & set(token) for token in (cls, sep))
        if known and data == {"type": "BertProcessing", "sep": [sep, sep_id], "cls": [cls, cls_id]}:
            return processors.BertProcessing((sep, sep_id), (cls, cls_id)), (cls_id, sep_id)
        if known and data == _template(cls, sep, cls_id, sep_id):
            return _marks((cls, cls_id), (sep, sep_id)), (cls_id, sep_id)
    except (KeyError, TypeError, IndexError, ValueError):
        pass
    _refuse(file, "another post-processor")


def _template(cls: str, sep: str, cls_id: int, sep_id: int) -> dict[str, Any]:
    """Return what `tokenizer.json` holds of `_marks`."""

    def mark(token: str, type_id: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": type_id}}

    first = [mark(cls, 0), {"Sequence": {"id": "A", "type_id": 0}}, mark(sep, 0)]
    return {
        "type": "TemplateProcessing",
        "single": first,
        "pair": [*first, {"Sequence": {"id": "B", "type_id": 1}}, mark(sep, 1)],
        "special_tokens": {
            token: {"id": token, "ids": [number], "tokens": [token]} for token, number in ((cls, cls_id), (sep, sep_id))
        },
    }


def _marks(*tokens: tuple[str, int]) -> Any:
    """Return the post-processor that makes `[CLS] a [SEP]` and `[CLS] a [SEP] b [SEP]`, of the two tokens and their ids."""
    (cls, _), (sep, _) = tokens
    return processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=list(tokens),
    )


def _add_tokens(file: Path, tokenizer: Tokenizer, added: list[dict[str, Any]]) -> None:
    for special, group in itertools.groupby(added, key=lambda token: bool(token["special"])):
        tokens = [
            AddedToken(
                token["content"],
                single_word=token["single_word"],
                lstrip=token["lstrip"],
                rstrip=token["rstrip"],
                normalized=token["normalized"],
                special=special,
            )
            for token in group
        ]
        guarded(tokenizer.add_special_tokens if special else tokenizer.add_tokens, tokens, what=file)
    for token in added:
        if tokenizer.token_to_id(token["content"]) != token["id"]:
            raise CorruptModelError(
                f"{file}: added_tokens must give {token['content']!r} the id "
                f"{tokenizer.token_to_id(token['content'])}, which follows from its vocabulary; found {token['id']}"
            )


def _from_vocabulary(path: Path, settings: Mapping[str, Any]) -> TokenizerRead:
    """Return BERT's word-piece tokenizer for a `vocab.txt`, as google-research/bert's `tokenization.py` reads it."""
    try:
        vocabulary = {piece: index for index, piece in enumerate(read_whole(path, _MOST_BYTES).decode().splitlines())}
    except (OSError, ValueError) as error:
        raise CorruptModelError(f"{path} cannot be read: {error}") from error
    special = {}
    for key in ("cls", "sep", "pad", "unk", "mask"):
        token = settings.get(f"{key}_token") or f"[{key.upper()}]"
        special[key] = str(token["content"] if isinstance(token, dict) else token)
    for token in (special["cls"], special["sep"], special["unk"]):
        if token not in vocabulary or set(" $:") & set(token):
            raise CorruptModelError(f"{path} has no entry {token!r}")
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=special["unk"], max_input_chars_per_word=100))
    lowercase, chinese = settings.get("do_lower_case"), settings.get("tokenize_chinese_chars")
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=chinese is None or chinese,
        strip_accents=settings.get("strip_accents"),
        lowercase=lowercase is None or lowercase,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([token for token in special.values() if token in vocabulary])
    tokenizer.post_processor = _marks(*((special[key], vocabulary[special[key]]) for key in ("cls", "sep")))
    return TokenizerRead(tokenizer, max(vocabulary.values()), vocabulary)
