"""HTML pages of one file: a heat map of a cosine's shares, and a list of groups. No script, nothing from elsewhere.

Texts are data: they are escaped, and control characters are visible. The page's policy (CSP) allows its own style alone.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from sbert_mini.atlas.labels import Label
from sbert_mini.runtime.explanation import Explanation, Word
from sbert_mini.text.shown import shown

_LEVELS = 10
"""Steps of a colour, from nothing to the greatest share."""
_CHARACTERS = 300
"""The beginning of a group's text that is shown."""
_STYLE = (
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;margin:2rem;max-width:70rem}"
    "table{border-collapse:collapse}th,td{padding:.15rem .4rem;text-align:left;font-weight:normal}"
    ".heat td{min-width:1.6rem;height:1.6rem;border:1px solid #8883}.heat{overflow:auto;margin:1rem 0}"
    ".heat thead th{writing-mode:vertical-rl;vertical-align:bottom}.list td,.list th{border-bottom:1px solid #8883}"
    ".list th{font-weight:bold}.number{text-align:right;font-variant-numeric:tabular-nums}.special{opacity:.55}"
    ".text span{border-radius:.2rem;white-space:pre-wrap}section{border-top:1px solid #8885;margin-top:1.5rem}"
    + "".join(f".p{i}{{background:rgba(20,140,70,{i / 12:.2f})}}" for i in range(1, _LEVELS + 1))
    + "".join(f".n{i}{{background:rgba(205,60,50,{i / 12:.2f})}}" for i in range(1, _LEVELS + 1))
)


def explanation_page(explanation: Explanation) -> str:
    """Return a page with the two texts, coloured by the shares of their words, and the shares of all pairs of words."""
    sides = (("a", explanation.a, explanation.words_a), ("b", explanation.b, explanation.words_b))
    greatest = max((abs(word.share) for _, _, words in sides for word in words), default=0.0)
    parts = [
        f"<p>cosine {explanation.cosine:.4f}, of which {explanation.special_share:.4f} are pairs with a special token</p>"
    ]
    parts += [
        f'<p class="text">{name}: {_coloured(text, words, greatest)}{_cut(cut)}</p>'
        for (name, text, words), cut in zip(sides, explanation.truncated, strict=True)
    ]
    parts += [
        "<p>Green words raise the cosine, red ones lower it; the shares of all pairs add up to it.</p>",
        _map(explanation),
    ]
    parts += [_word_table(name, words) for name, _, words in sides]
    return _page("Why two texts have their cosine", "\n".join(parts))


def groups_page(title: str, labels: Sequence[Label], texts: Mapping[int, str], rows: int) -> str:
    """Return a page with the groups of a collection: their words, sizes, and most central and most outlying texts.

    Args:
        title: what was grouped.
        labels: of the groups, in their order.
        texts: of the rows that the labels name.
        rows: of the collection.
    """
    inside = sum(label.size for label in labels)
    parts = [f"<p>{len(labels):,} groups hold {inside:,} of {rows:,} rows.</p>"]
    for number, label in enumerate(labels, start=1):
        parts.append(f"<section><h2>{number}. {_safe(label.name or 'no words')}</h2><p>{label.size:,} rows</p>")
        for kind, places in (("most central", label.central), ("most outlying", label.outlying)):
            if places:
                items = "".join(f"<li>{_safe(texts[place][:_CHARACTERS])}</li>" for place in places)
                parts.append(f"<p>{kind}</p><ul>{items}</ul>")
        parts.append("</section>")
    return _page(title, "\n".join(parts))


def _page(title: str, body: str) -> str:
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_safe(title)}</title><style>{_STYLE}</style></head>\n<body><h1>{_safe(title)}</h1>\n{body}\n</body></html>\n"
    )


def _safe(text: str) -> str:
    return escape(shown(text).encode("utf-8", "replace").decode())


def _level(share: float, greatest: float) -> str:
    step = round(_LEVELS * abs(share) / greatest) if greatest else 0
    return f"{'p' if share > 0 else 'n'}{step}" if step else ""


def _coloured(text: str, words: Iterable[Word], greatest: float) -> str:
    """Return a text in which each word has the colour of its share."""
    parts, end = [], 0
    for word in words:
        if word.kind == "word":
            title = f"share {word.share:.4f}"
            parts.append(_safe(text[end : word.start]))
            parts.append(f'<span class="{_level(word.share, greatest)}" title="{title}">{_safe(word.text)}</span>')
            end = word.end
    return "".join([*parts, _safe(text[end:])])


def _cut(cut: bool) -> str:
    return " (longer than the model reads: its end has no share)" if cut else ""


def _map(explanation: Explanation) -> str:
    greatest = float(abs(explanation.shares).max())
    heads = "".join(f"<th{_kind(word)}>{_safe(word.text)}</th>" for word in explanation.words_b)
    rows = []
    for word, shares in zip(explanation.words_a, explanation.shares.tolist(), strict=True):
        cells = "".join(f'<td class="{_level(share, greatest)}" title="{share:.4f}"></td>' for share in shares)
        rows.append(f"<tr><th{_kind(word)}>{_safe(word.text)}</th>{cells}</tr>")
    return (
        f'<div class="heat"><table><thead><tr><th></th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _kind(word: Word) -> str:
    return "" if word.kind == "word" else ' class="special"'


def _word_table(name: str, words: Iterable[Word]) -> str:
    rows = "".join(
        f'<tr><th{_kind(word)}>{_safe(word.text)}</th><td class="number">{word.share:.4f}</td>'
        f'<td class="number">{"" if word.removal is None else f"{word.removal:.4f}"}</td></tr>'
        for word in words
    )
    head = "<tr><th>word</th><th>share</th><th>the cosine falls without it by</th></tr>"
    return f'<h2>Words of {name}</h2><table class="list">{head}{rows}</table>'
