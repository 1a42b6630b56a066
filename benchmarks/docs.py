"""Write the generated parts of README.md and docs/: tables of results, commands from `--help`, keys of recipes and JSON files.

    python -m benchmarks.docs

Each module of `benchmarks/` makes the tables of its own record, `benchmarks/results/*.json`. The texts about recipe keys are the
docstrings of their classes, those about JSON files the schemas in `files.json_files`.
"""

import ast
import inspect
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from sbert_mini.cli.main import app  # type: ignore[import-not-found]  # mapped from cli/
from typer.core import TyperGroup
from typer.main import get_command

from benchmarks import (
    ablations,
    answers,
    changes,
    encoding,
    filters,
    fusion,
    hybrid,
    large_index,
    levels,
    libraries,
    memory,
    mining,
    optimizer,
    passages,
    processes,
    surgery,
    tokenizing,
    training,
    words,
)
from benchmarks.harness import RESULTS
from benchmarks.models import card, static_card
from benchmarks.paper import train as paper
from sbert_mini.evaluation import tables
from sbert_mini.evaluation.table import Json, Table
from sbert_mini.files import json_files as schemas
from sbert_mini.files.json_schema import Either, ListOf, MapOf, Object, Required, Schema
from sbert_mini.recipes.recipe import TABLES, PhasePart, TaskPart
from sbert_mini.training.config import LoraConfig
from sbert_mini.training.task_config import MarginConfig, TaskConfig

ROOT = Path(__file__).parent.parent


def markdown(made: Iterable[Table], *, titles: bool = False) -> str:
    """Return tables in Markdown, one below the other, each below its title if `titles`."""
    return "\n\n".join((f"**{table.title}**\n\n" if titles else "") + table.markdown() for table in made)


def record(name: str) -> dict[str, Any]:
    """Return what a measurement wrote into `benchmarks/results/`."""
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    return result


def capacity() -> str:
    """Return the table of what more rows need, from the records of `large_index` and `processes`."""
    encoded = record("processes")["end_to_end"]["sbert-mini"]
    return markdown(large_index.capacity(record("large_index"), encoded["rows"] / encoded["seconds"]))


def recipe_keys() -> str:
    """Return a table of every key of a recipe, from the docstrings and defaults of `recipes.recipe`."""
    rows = ["| key | default | what it says |", "| --- | --- | --- |"]
    for table, kind in RECIPE:
        text = inspect.getdoc(kind) or ""
        for field in fields(kind):
            if field.type is TaskConfig:
                continue  # its fields stand in the same table, and have rows of their own
            description = re.search(rf"^    {field.name}: (.*(?:\n        .*)*)", text, re.MULTILINE)
            assert description is not None, f"{kind.__name__}.{field.name} is not described"
            words = " ".join(description[1].split())
            choices = field.metadata.get("choices")
            words += f" One of {', '.join(f'`{c}`' for c in choices)}." if choices else ""
            rows.append(f"| `{table}` {field.name} | {_default(field)} | {words} |")
    return "\n".join(rows)


RECIPE: Sequence[tuple[str, type]] = (
    *((f"[{name}]", kind) for name, kind in TABLES.items()),
    ("[lora]", LoraConfig),
    ("[[phase]]", PhasePart),
    ("[[task]]", TaskConfig),
    ("[[task]]", TaskPart),
    ("[task.margin]", MarginConfig),
)


def _default(field: Field[Any]) -> str:
    if field.default is MISSING:
        return "required" if field.default_factory is MISSING else ""
    if field.default in (None, ()):
        return ""
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def json_files() -> str:
    """Return for each kind of JSON file a table of its keys, from the schemas in `files.json_files`."""
    body = ast.parse(inspect.getsource(schemas)).body
    parts = []
    for statement, text in itertools.pairwise(body):
        if isinstance(statement, ast.Assign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            assert isinstance(statement.targets[0], ast.Name)
            rows = list(_keys(getattr(schemas, statement.targets[0].id), ""))
            if rows:
                lines = ["| key | must be | required |", "| --- | --- | --- |", *rows]
                parts.append("\n".join([f"**{' '.join(str(text.value.value).split())}**", "", *lines]))
    return "\n\n".join(parts)


def _keys(schema: Schema, path: str, *, required: bool = True) -> Iterator[str]:
    """Yield a row for each key below a schema."""
    if isinstance(schema, Either) and isinstance(schema.schemas[0], (Object, ListOf, MapOf)):
        schema, required = schema.schemas[0], False  # or null
    if isinstance(schema, Object):
        for key, entry in schema.keys.items():
            needed = isinstance(entry, Required)
            part = entry.schema if isinstance(entry, Required) else entry
            yield from _keys(part, f"{path}.{key}".removeprefix("."), required=needed)
    elif isinstance(schema, ListOf) and isinstance(schema.items, Object):
        yield from _keys(schema.items, f"{path}[]", required=required)
    elif isinstance(schema, MapOf) and isinstance(schema.values, Object):
        yield from _keys(schema.values, f"{path}.*", required=required)
    elif path:
        yield f"| `{path}` | {schema.name} | {'yes' if required else ''} |"


def command_names() -> list[str]:
    """Return the name of every command, in the order of the help; first the empty one of `sbmini` itself."""

    def below(group: TyperGroup, words: tuple[str, ...]) -> Iterator[str]:
        for name, command in group.commands.items():
            if isinstance(command, TyperGroup):
                yield from below(command, (*words, name))
            else:
                yield " ".join((*words, name))

    root = get_command(app)
    assert isinstance(root, TyperGroup)
    return ["", *below(root, ())]


def commands() -> str:
    """Return the help of every command, as the command prints it."""
    sbmini = str(Path(sys.executable).with_name("sbmini"))
    blocks = []
    for command in command_names():
        done = subprocess.run(
            [sbmini, *command.split(), "--help"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"},
        )
        lines = "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())
        blocks.append(f"### `sbmini {command}`\n```text\n{lines}\n```" if command else f"```text\n{lines}\n```")
    return "\n\n".join(blocks)


MEASURED: dict[str, Callable[[Json], list[Table]]] = {
    "sts": lambda result: tables.sts(result)[:1],
    "pairs": lambda result: tables.pairs(result)[:1],
    "encoding": encoding.tables,
    "processes": processes.tables,
    "tokenizing": tokenizing.tables,
    "memory": memory.tables,
    "mining": mining.tables,
    "large_index": large_index.tables,
    "changes": changes.tables,
    "hybrid": hybrid.tables,
    "passages": passages.tables,
    "surgery": surgery.tables,
    "optimizer": optimizer.tables,
    "training": training.tables,
    "model": card.tables,
    "paper": paper.tables,
    "ablations": ablations.tables,
}
"""The parts whose tables stand without titles, each with the function that makes them of `results/<part>.json`."""
TITLED: dict[str, Callable[[Json], list[Table]]] = {
    "speed": tables.speed,
    "search": tables.search,
    "filters": filters.tables,
    "words": words.tables,
    "fusion": fusion.tables,
    "libraries": libraries.tables,
    "levels": levels.tables,
    "model_static": static_card.tables,
}
"""The parts whose tables stand below their titles."""
SCRIPTS = {"model": "models.figures", "model_static": "models.static_figures"}
"""The parts that a script of another name measures."""


def documents() -> dict[Path, str]:
    """Return README.md and every page of docs/, a text by its file."""
    return {path: path.read_text("utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}


def updated(texts: dict[Path, str]) -> dict[Path, str]:
    """Return the texts with each generated part made anew between its two markers."""
    parts = {"commands": commands(), "recipe": recipe_keys(), "files": json_files(), "capacity": capacity()}
    for name, function in (MEASURED | TITLED).items():
        parts[name] = f"Not measured yet: `python -m benchmarks.{SCRIPTS.get(name, name)}`."
        if (RESULTS / f"{name}.json").exists():
            made = markdown(function(record(name)), titles=name in TITLED)
            parts[name] = f"{made}\n\n{tables.machine_note(record(name))}"
    asked = record("answers")
    parts["answers"] = f"{answers.blocks(asked)}\n\n{tables.machine_note(asked)}"
    shipped = record("model")
    parts["summary"] = f"{markdown(card.summary_tables(shipped))}\n\n{tables.machine_note(shipped)}"
    texts = dict(texts)
    for name, part in parts.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        homes = [path for path, text in texts.items() for _ in range(text.count(start))]
        if len(homes) != 1 or texts[homes[0]].count(end) != 1:
            raise SystemExit(f"the markers of {name!r} must occur once in README.md and docs/; found {len(homes)}")
        before, rest = texts[homes[0]].split(start)
        texts[homes[0]] = f"{before}{start}{part}\n{end}{rest.split(end)[1]}"
    return texts


def main() -> None:
    for path, text in updated(documents()).items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
