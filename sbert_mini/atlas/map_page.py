"""A map as one HTML page that needs nothing from elsewhere.

Points and texts are data: base64, or JSON in which no markup can stand. The page's policy (CSP) allows its own style and script
alone. The texts are compressed, so the page is small, and the browser draws the points before it reads them.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template

import numpy as np

from sbert_mini.shapes import AnyArray, FloatArray, IntArray
from sbert_mini.text.shown import shown, shown_in_line

_GRID = 65535


@dataclass(frozen=True)
class Coloring:
    """What points are coloured by.

    Attributes:
        name: of the column.
        names: of its values; the last is drawn grey.
        codes: the place in `names` of each row's value, (rows,).
    """

    name: str
    names: Sequence[str]
    codes: IntArray


def map_page(
    title: str,
    positions: FloatArray,
    ids: Sequence[str],
    texts: Sequence[str],
    colorings: Sequence[Coloring],
    labels: Sequence[tuple[int, str]],
) -> bytes:
    """Return the page.

    Args:
        title: what is drawn.
        positions: of the rows.
        ids: of the rows.
        texts: of the rows; their control characters are shown.
        colorings: what points can be coloured by, the groups first.
        labels: a group's number and what it is called, the most important first; a label that has no room is not drawn.

    Shapes: positions: (rows, 2).
    """
    grid = on_grid(positions)
    groups = colorings[0].codes
    drawn = []
    for group, name in labels:
        x, y = np.median(grid[groups == group], axis=0).tolist()
        drawn.append({"group": group, "name": shown_in_line(name), "x": round(x), "y": round(y)})
    colors = [
        {"name": shown_in_line(c.name), "names": [shown_in_line(name) for name in c.names], "codes": _base64(c.codes)}
        for c in colorings
    ]
    head = {"rows": len(ids), "places": _base64(grid), "colors": colors, "labels": drawn}
    rows = json.dumps({"ids": list(ids), "texts": [shown(text) for text in texts]}).encode()
    folder = files("sbert_mini.atlas") / "page"
    html, style, script = ((folder / name).read_text("utf-8") for name in ("map.html", "map.css", "map.js"))
    sources = f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    policy = f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"
    page = Template(html).substitute(
        title=escape(shown_in_line(title)),
        policy=policy,
        style=style,
        script=script,
        head=json.dumps(head).replace("<", "\\u003c"),
        rows=base64.b64encode(gzip.compress(rows, 6, mtime=0)).decode(),
    )
    return page.encode("utf-8", "replace")


def on_grid(positions: FloatArray) -> AnyArray:
    """Return places on a square grid from 0 to 65535, the map in its middle. Shapes: (rows, 2) -> (rows, 2) uint16."""
    low, high = positions.min(0), positions.max(0)
    scaled = (positions - (low + high) / 2) / max(float((high - low).max()), 1e-12) + 0.5
    return np.rint(np.clip(scaled, 0, 1) * _GRID).astype("<u2")


def _base64(values: AnyArray) -> str:
    return base64.b64encode(np.ascontiguousarray(values, "<u2").tobytes()).decode()


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
