"""What a model reads of a text: its prompt before it, the tokens that are the text's own, and whether it is too long."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from sbert_mini.errors import UnsupportedModelError, UsageError
from sbert_mini.model.layout import ModelLayout
from sbert_mini.runtime import arguments
from sbert_mini.shapes import IntArray
from sbert_mini.text.batching import pad
from sbert_mini.text.records import Record, Reject
from sbert_mini.text.tokenizer import TextTokenizer
from sbert_mini.text.tokens import Tokens
from sbert_mini.text.words import Words

QUERY_PROMPTS = ("query",)
DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""Names that models give to the prompt of queries, and of documents."""


def prompt_text(layout: ModelLayout, name: str | None, prompt: str | None) -> str:
    """Return the text that is put before each text: `prompt`, else the prompt of that name, else the model's default one.

    Raises:
        UsageError: the model has no prompt of that name, or the prompt is no valid text.
        UnsupportedModelError: the model leaves its prompt out of the pooling.
    """
    for parameter, value in (("prompt_name", name), ("prompt", prompt)):
        if value is not None and not isinstance(value, str):
            raise UsageError(f"{parameter} must be a string or None; found {type(value).__name__} {value!r}")
    if prompt is None:
        name = name or layout.default_prompt_name
        if name is not None and name not in layout.prompts:
            known = ", ".join(layout.prompts) or "none"
            raise UsageError(f"the model has no prompt named {name!r}; it has: {known}")
        prompt = layout.prompts[name] if name is not None else ""
    if arguments.holds_half_a_character(prompt):
        raise UsageError(f"the prompt is not valid Unicode: {prompt!r} holds half a character")
    if prompt and not layout.include_prompt:
        raise UnsupportedModelError("this model leaves its prompt out of the pooling, which the runtime does not do")
    return prompt


def with_prompt(options: dict[str, Any], layout: ModelLayout, names: Sequence[str]) -> dict[str, Any]:
    """Return the options; if they set no prompt, with the first of these names for which the model has one."""
    if options.get("prompt") is None and options.get("prompt_name") is None:
        return {**options, "prompt_name": next((name for name in names if name in layout.prompts), None)}
    return options


def document_prompt(layout: ModelLayout) -> str:
    """Return the text that the model puts before each document; an empty string for none."""
    name = with_prompt({}, layout, DOCUMENT_PROMPTS)["prompt_name"]
    return layout.prompts[name] if name is not None else ""


def tokens_around(tokenizer: TextTokenizer, prefix: str) -> int:
    """Return how many tokens of an encoded text are special ones or the prompt's."""
    return len(tokenizer.encode([prefix])[0].ids)


def words_in(pieces: Sequence[Tokens], tokenizer: TextTokenizer, around: int) -> Words:
    """Return what the model reads of a text, as far as it tells texts from each other.

    Args:
        pieces: the text's tokens; several, where it was split.
        tokenizer: made them.
        around: special tokens and prompt tokens of each piece (`tokens_around`).
    """
    special, unknown_id = tokenizer.special_ids, tokenizer.unknown_id
    prompt = around - tokenizer.special_tokens()
    text_ids = [[i for i in piece.ids if i not in special][prompt:] for piece in pieces]
    unknown = [
        piece.unknown[len(piece.unknown) - ids.count(unknown_id) :] for piece, ids in zip(pieces, text_ids, strict=True)
    ]
    return Words(tuple(itertools.chain(*text_ids)), tuple(itertools.chain(*unknown)))


def words_of(
    texts: Sequence[str], layout: ModelLayout, tokenizer: TextTokenizer, prompt: str | None = None
) -> list[Words]:
    """Return what the model reads of each text, as far as it tells texts from each other.

    Args:
        texts: the texts.
        layout: of the model.
        tokenizer: of the model.
        prompt: put before each text; None for the model's default one.
    """
    prefix = prompt_text(layout, None, prompt)
    around = tokens_around(tokenizer, prefix)
    return [words_in([tokens], tokenizer, around) for tokens in tokenizer.encode([prefix + text for text in texts])]


def padded_tokens(texts: Sequence[str], tokenizer: TextTokenizer) -> dict[str, IntArray]:
    """Return the texts' tokens as a BERT model takes them, padded to the longest. Shapes: each (texts, seq)."""
    padded = pad(tokenizer.encode(texts), tokenizer.pad_id)
    return dict(zip(("input_ids", "attention_mask", "token_type_ids"), padded, strict=True))


def are_longer(texts: Sequence[str], tokenizer: TextTokenizer, prefix: str) -> list[bool]:
    """Return which texts, with the prompt `prefix` before them, are longer than the model reads."""
    return tokenizer.encode([prefix + text for text in texts]).truncated.tolist()


def short_enough(
    records: Iterable[Record], tokenizer: TextTokenizer, prefix: str, on_reject: Callable[[Reject], None]
) -> Iterator[Record]:
    """Yield the records whose text, with the prompt, the tokenizer keeps whole, and hand over the others as rejects."""
    for record in records:
        if tokenizer.encode([prefix + record.text])[0].truncated:
            reason = f"the text is longer than {tokenizer.max_seq_length} tokens"
            on_reject(Reject(record.line, reason, record.text[:1000], record.file))
        else:
            yield record
