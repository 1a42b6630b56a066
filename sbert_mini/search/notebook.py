"""An index and a hit as HTML, for notebooks.

All that stands in rows is escaped: a text of a row is shown, and never a part of the page.
"""

from collections.abc import Mapping
from html import escape
from typing import Any

from sbert_mini.text.shown import fitted, shown, shown_in_line

_CELL_COLUMNS = 200
_TEXT_CHARACTERS = 2000


class IndexTable:
    """An index that a notebook shows as a table."""

    def _repr_html_(self) -> str:
        names = ("path", "generation", "created", "model", "columns")
        values = {name: getattr(self, name) for name in names}
        rows: int = len(self)  # type: ignore[arg-type]
        return table({"rows": rows, **values, "model": values["model"].name})


def table(rows: Mapping[str, Any], text: str = "") -> str:
    """Return names and values as a table, and a text below it.

    Args:
        rows: the values by their names; long ones are cut.
        text: the first 2,000 characters of it are shown.
    """
    lines = "".join(f"<tr><th>{_cell(name)}</th><td>{_cell(value)}</td></tr>" for name, value in rows.items())
    more = " …" if len(text) > _TEXT_CHARACTERS else ""
    below = f"<pre>{escape(shown(text[:_TEXT_CHARACTERS]))}{more}</pre>" if text else ""
    return f"<table>{lines}</table>{below}"


def _cell(value: Any) -> str:
    return escape(fitted(shown_in_line(str(value)), _CELL_COLUMNS))
