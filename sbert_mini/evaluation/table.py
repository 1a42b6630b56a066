"""A table of texts: for a terminal, for Markdown and for HTML."""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sbert_mini.text.markdown import no_markup, table_cell

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: one line.
        header: a cell a column; the first column is aligned left, the others right.
        rows: cells, as many as the header's.
        notes: lines below it.
        section: the part of a report that it stands in; "" for the part of its result.
        is_text: whether its cells are texts that are read, rather than figures that are compared.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    section: str = ""
    is_text: bool = False

    def markdown(self) -> str:
        """Return it as a Markdown table with its notes, without the title. Names from files are no markup in it."""
        lines = [self.header, ("---",) * len(self.header), *self.rows]
        table = "\n".join("| " + " | ".join(map(table_cell, line)) + " |" for line in lines)
        return "\n\n".join([table, *map(no_markup, self.notes)])

    def html(self) -> str:
        """Return it as an HTML table with its title and notes."""
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.header)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in self.rows)
        notes = "".join(f"<p class=note>{html.escape(note)}</p>" for note in self.notes)
        kind = " class=texts" if self.is_text else ""
        table = (
            f"<div class=wide tabindex=0><table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )
        return f"<h3>{html.escape(self.title)}</h3>{table}{notes}"

    def terminal(self) -> str:
        """Return it as aligned text; a cell of more than 60 characters is shortened."""
        lines_of_text = [tuple(" ".join(cell.splitlines()) for cell in row) for row in (self.header, *self.rows)]
        cells = [tuple(c if len(c) <= 60 else c[:59] + "…" for c in row) for row in lines_of_text]
        widths = [max(len(row[column]) for row in cells) for column in range(len(self.header))]
        lines = [self.title]
        for row in cells:
            padded = [
                cell.ljust(width) if not column else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(padded).rstrip())
        return "\n".join([*lines, *self.notes])
