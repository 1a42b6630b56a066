"""`sbmini explain`: which words two texts have their cosine from."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbert_mini.errors import UsageError
from sbert_mini.text.shown import columns, fitted

from . import options
from .notes import note, quiet_notes
from .printing import in_colours, print_json, print_styled, print_text, visible_in_line

if TYPE_CHECKING:
    from sbert_mini.runtime.explanation import Explanation, Pair, Word

EXAMPLE = """Examples:

  sbmini explain "How do I keep bread fresh?" "Bread stays fresh in a cloth bag."

  sbmini explain "a cat sleeps" "a dog sleeps" --json

  sbmini explain "a cat sleeps" "a dog sleeps" --html why.html
"""
_STRONG, _MIDDLE, _WEAK, _AGAINST = "1;32", "32", "2", "31"
"""Styles: bold green, green, faint, red."""
_WIDEST = 24
"""Columns of a word in a table."""

Pairs = Annotated[int, typer.Option("--pairs", min=1, help="The highest number of pairs in the table.")]
Html = Annotated[
    Path | None,
    typer.Option("--html", help="Write a page with a heat map of all pairs of words, too.", show_default=False),
]


def explain(
    a: Annotated[str, typer.Argument(metavar="A", help="The first text.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="The second text.", show_default=False)],
    pairs: Pairs = 10,
    removal: Annotated[
        bool,
        typer.Option("--removal/--no-removal", help="Whether to encode the texts without each of their words, too."),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, with the shares of all pairs.")] = False,
    html: Html = None,
    color: options.ColorOption = "auto",
    model: options.Model = None,
    graph: options.GraphOption = "int8",
    threads: options.Threads = None,
    offline: options.Offline = False,
    trust_tokenizer: options.TrustTokenizer = False,
    quiet: options.Quiet = False,
) -> None:
    """Show which words two texts have their cosine from.

    With mean pooling a cosine is a sum over all pairs of their tokens. The table has the pairs of words with the greatest shares
    of it; all shares add up to the cosine. [CLS] and [SEP], which the model puts around a text, have shares too. A token's vector
    depends on all of its text: a share says what is in the sum, not what the cosine would be without the word. That is the
    column "removed": how much the cosine falls if the word is taken out. Models with another pooling, or a projection after it,
    are refused.
    """
    quiet_notes(quiet)
    if any(not text.strip() for text in (a, b)):
        raise UsageError("one of the texts is empty")
    if html is not None and html.exists() and not html.is_file():
        raise UsageError(f"--html must be a regular file, and {str(html)!r} is none")
    from sbert_mini.runtime.embedder import Embedder

    embedder = Embedder(model, graph=graph, threads=threads, offline=offline, trust_tokenizer=trust_tokenizer)
    explanation = embedder.explain(a, b, removal=removal)
    if html is not None:
        from sbert_mini.atlas.pages import explanation_page
        from sbert_mini.files.durable import write_durably

        write_durably(html, explanation_page(explanation).encode())
    for name, cut in zip("ab", explanation.truncated, strict=True):
        if cut:
            note(
                f"text {name} is longer than the {embedder.max_seq_length} tokens that the model reads: its end has no share"
            )
    if as_json:
        print_json(document(explanation, pairs))
    else:
        _print(explanation, pairs, coloured=color == "always" or (color == "auto" and in_colours()))
    if html is not None:
        note(f"heat map -> {html}")


def document(explanation: "Explanation", most: int) -> dict[str, Any]:
    """Return an explanation as JSON: its words, its strongest pairs, and the shares of all pairs."""
    sides = zip(
        "ab",
        (explanation.a, explanation.b),
        (explanation.words_a, explanation.words_b),
        explanation.truncated,
        strict=True,
    )
    return {
        "cosine": explanation.cosine,
        "special_share": explanation.special_share,
        **{
            name: {"text": text, "truncated": cut, "words": [vars(word) for word in words]}
            for name, text, words, cut in sides
        },
        "pairs": [pair_fields(pair) for pair in explanation.pairs(most)],
        "shares": explanation.shares.tolist(),
    }


def pair_fields(pair: "Pair") -> dict[str, Any]:
    """Return a pair of words as JSON."""
    return {"a": pair.a.text, "b": pair.b.text, "share": pair.share}


def pairs_in_line(pairs: "list[Pair]") -> str:
    """Return pairs of words on one line: `bread ~ loaf 0.031, fresh ~ fresh 0.020`."""
    return ", ".join(f"{pair.a.text} ~ {pair.b.text} {pair.share:.3f}" for pair in pairs)


def _print(explanation: "Explanation", most: int, *, coloured: bool) -> None:
    print_text(
        f"cosine {explanation.cosine:.4f}, of which {explanation.special_share:.4f} in pairs with a special token"
    )
    sides = (("a", explanation.a, explanation.words_a), ("b", explanation.b, explanation.words_b))
    greatest = max(abs(word.share) for _, _, words in sides for word in words)
    for name, text, words in sides:
        print_styled([(f"{name}  ", ""), *_pieces(text, words, greatest, coloured=coloured)])
    print_text()
    rows = [
        (f"{pair.share:.4f}", _part(pair.share, explanation.cosine), _cell(pair.a), _cell(pair.b))
        for pair in explanation.pairs(most)
    ]
    _print_table(("share", "of cosine", "a", "b"), rows)
    for name, _, words in sides:
        print_text()
        removals = ["" if word.removal is None else f"{word.removal:.4f}" for word in words]
        _print_table(
            ("share", "removed", f"words of {name}"),
            [(f"{word.share:.4f}", left, _cell(word)) for word, left in zip(words, removals, strict=True)],
        )


def _pieces(text: str, words: "tuple[Word, ...]", greatest: float, *, coloured: bool) -> list[tuple[str, str]]:
    """Return the parts of a text with the styles of their shares."""
    pieces, end = [], 0
    for word in words:
        if word.kind == "word":
            pieces += [
                (visible_in_line(text[end : word.start]), ""),
                (visible_in_line(word.text), _style(word.share, greatest)),
            ]
            end = word.end
    pieces.append((visible_in_line(text[end:]), ""))
    return [(piece, style if coloured else "") for piece, style in pieces]


def _style(share: float, greatest: float) -> str:
    if share < 0:
        return _AGAINST
    return _STRONG if share > 0.66 * greatest else _MIDDLE if share > 0.33 * greatest else _WEAK


def _part(share: float, cosine: float) -> str:
    return f"{share / cosine:.1%}" if cosine else ""


def _cell(word: "Word") -> str:
    return fitted(visible_in_line(word.text), _WIDEST)


def _print_table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print columns: numbers to the right, words to the left."""
    words = sum(not head.startswith(("share", "of cosine", "removed")) for head in heads)
    widths = [max(columns(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    for row in (heads, *rows):
        cells = [
            " " * (width - columns(cell)) + cell if i < len(heads) - words else cell + " " * (width - columns(cell))
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print_text("  ".join(cells).rstrip())
