"""Where a planted fault stands: the files of each room, and the place of a pattern in them.

A fault is a row of `faults.json`: the lines as they are (`before`), the lines with the fault (`after`), and the function or class
that they stand in (`scope`). No file and no line number is needed to find it, so a row survives a move of the code.
"""

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FAULTS = Path(__file__).with_name("faults.json")
ROOMS = {
    "training": "sbert_mini/training",
    "encoder": "sbert_mini/encoder",
    "runtime": "sbert_mini/runtime",
    "search": "sbert_mini/search",
    "text": "sbert_mini/text",
    "cli": "cli",
    "native": "sbert_mini/native",
}
CODE = ("sbert_mini", "cli")
SUFFIXES = {"python": (".py",), "native": (".cpp", ".h")}


@dataclass(frozen=True)
class Fault:
    """One planted fault."""

    name: str
    room: str
    drawn: bool
    scope: str
    before: str
    after: str
    kind: str
    """The operator that drew it, or what it stands for where it was written by hand."""
    survives: str = ""
    """Why no test catches it, where none does."""


@dataclass(frozen=True)
class Place:
    """The first and the last line of a pattern in a file, counted from 1."""

    file: Path
    first: int
    last: int


def read_faults(file: Path = FAULTS) -> list[Fault]:
    """Return the rows of the table."""
    return [Fault(**row) for row in json.loads(file.read_text("utf-8"))]


def write_faults(faults: list[Fault], file: Path = FAULTS) -> None:
    """Write the table, a key a line, so that a change of it is readable."""
    rows: list[dict[str, Any]] = []
    for fault in faults:
        row = dict(vars(fault))
        if not fault.survives:
            del row["survives"]
        rows.append(row)
    file.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", "utf-8")


def sources(root: Path = ROOT) -> list[Path]:
    """Return every file of code, in an order that does not depend on the machine."""
    files: list[Path] = []
    for folder in CODE:
        files += [
            file for suffix in SUFFIXES["python"] + SUFFIXES["native"] for file in (root / folder).rglob(f"*{suffix}")
        ]
    return sorted(files)


def scopes(file: Path) -> list[str]:
    """Return for each line of a Python file the qualified name of what it stands in; "" for the module, and for C++."""
    lines = [""] * (len(file.read_text("utf-8").splitlines()) + 1)
    if file.suffix != ".py":
        return lines

    def visit(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{name}.{child.name}" if name else child.name
                first = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
                for number in range(first, (child.end_lineno or first) + 1):
                    lines[number] = inner
                visit(child, inner)
            else:
                visit(child, name)

    visit(ast.parse(file.read_text("utf-8")), "")
    return lines


def _occurrences(file: Path, before: list[str]) -> Iterator[Place]:
    lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
    for start in range(len(lines) - len(before) + 1):
        if lines[start : start + len(before)] == before:
            yield Place(file, start + 1, start + len(before))


def find(fault: Fault, root: Path = ROOT) -> Place:
    """Return where a fault is to be planted.

    Where the lines stand in several places, those in a scope of the same last name are taken.

    Raises:
        LookupError: the lines are not in the code any more, or in more than one place.
    """
    before = [line.strip() for line in fault.before.splitlines()]
    suffixes = SUFFIXES["native" if fault.room == "native" else "python"]
    places = [place for file in sources(root) if file.suffix in suffixes for place in _occurrences(file, before)]
    last = fault.scope.rpartition(".")[2]
    for narrower in (lambda scope: scope.rpartition(".")[2] == last, lambda scope: scope == fault.scope):
        if len(places) > 1:
            places = [place for place in places if narrower(scopes(place.file)[place.first])]
    if len(places) != 1:
        state = "is no longer in the code" if not places else f"stands in {len(places)} places"
        raise LookupError(f"{fault.name}: the pattern {state}: {fault.before.strip()}")
    return places[0]


def plant(fault: Fault, root: Path) -> tuple[Place, str]:
    """Write the fault into the tree below `root`; return its place and the text of the file before."""
    place = find(fault, root)
    text = place.file.read_text("utf-8")
    lines = text.splitlines()
    first_line = lines[place.first - 1]
    indent = first_line[: len(first_line) - len(first_line.lstrip())]
    depth = len(fault.before) - len(fault.before.lstrip())
    after = [indent + line[depth:] if line.strip() else line for line in fault.after.splitlines()]
    lines[place.first - 1 : place.last] = after
    place.file.write_text("\n".join(lines) + "\n", "utf-8")
    return place, text
