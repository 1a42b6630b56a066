"""Recipes from TOML. The rules are those of the settings themselves; this adds file, line and near misses to their errors."""

import re
import tomllib
import types
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from sbert_mini.errors import UsageError
from sbert_mini.evaluation.sets import KNOWN
from sbert_mini.recipes.recipe import TABLES, PhasePart, Recipe, TaskPart, built_in
from sbert_mini.training.config import LoraConfig, needs_dropout
from sbert_mini.training.fields import near_miss

T = TypeVar("T")
_NAMES = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
_LISTS_OF = {str: "a list of strings", float: "a list of numbers", int: "a list of whole numbers"}
_LISTS: dict[str, type] = {"task": TaskPart, "phase": PhasePart}
_PLACES: Mapping[str, tuple[str, ...]] = {
    "batch_size": ("train", "batch_size"),
    "lora": ("lora",),
    "unfreeze_every": ("optimizer", "unfreeze_every"),
    "regularization": ("regularization",),
    "regularization.tasks": ("regularization", "tasks"),
    "average": ("average", "kind"),
    "encoder": ("model", "encoder"),
    "tasks": ("task",),
}
"""A setting of the fitter -> the recipe's key that it comes from."""


def read_recipe(path: Path) -> Recipe:
    """Return a recipe, checked as far as it can be without its data.

    Raises:
        UsageError: the file cannot be read, or a key is unknown, missing, or breaks a rule; the text names key and line.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the recipe {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the recipe {path} is not TOML: {error}") from error
    reader = _Reader(path, text)
    _check_tables(parsed, reader)
    parts: dict[str, Any] = {name: reader.table(kind, parsed.get(name, {}), [name]) for name, kind in TABLES.items()}
    recipe = Recipe(
        path=path.resolve(),
        folder=Path.cwd() if path in built_in().values() else path.resolve().parent,
        text=text,
        tasks=tuple(reader.table(TaskPart, task, ["task", number]) for number, task in enumerate(parsed["task"])),
        phases=tuple(
            reader.table(PhasePart, phase, ["phase", number]) for number, phase in enumerate(parsed.get("phase", []))
        ),
        lora=reader.table(LoraConfig, parsed["lora"], ["lora"]) if "lora" in parsed else None,
        **parts,
    )
    _check_steps(recipe, reader)
    _check_evaluation(recipe, reader)
    _check_tasks(recipe, reader)
    return recipe


def _check_tables(parsed: Mapping[str, Any], reader: "_Reader") -> None:
    """Refuse tables that a recipe does not have, and one without a task."""
    known = [*TABLES, "lora", *_LISTS]
    for name, value in parsed.items():
        if name not in known:
            raise reader.error([name], f"there is no table or key {name!r}{_near(name, known)}")
        if name not in _LISTS and not isinstance(value, dict):
            raise reader.error([name], f"[{name}] must be a table")
        if name in _LISTS and not (isinstance(value, list) and all(isinstance(entry, dict) for entry in value)):
            raise reader.error([name], f"[[{name}]] is written with two brackets")
    if not parsed.get("task"):
        raise reader.error(["task"], "at least one [[task]] is needed (with two brackets)")


def _check_steps(recipe: Recipe, reader: "_Reader") -> None:
    """Refuse a recipe that does not say once how long it trains."""
    train = recipe.train
    if recipe.phases:
        if train.steps is not None or train.epochs is not None:
            raise reader.error(["train"], "train.steps and train.epochs are the phases' own, where there are phases")
    elif (train.steps is None) == (train.epochs is None):
        raise reader.error(["train"], "train.steps or train.epochs is needed, one of the two")
    for number, phase in enumerate(recipe.phases):
        if (phase.steps is None) == (phase.epochs is None):
            raise reader.error(["phase", number], "phase.steps or phase.epochs is needed, one of the two")
    if recipe.lora and sum(part.model.encoder == "trained" for part in recipe.in_phases()) > 1:
        raise reader.error(
            ["lora"],
            "[lora]: one phase at most may train the encoder: its updates are kept beside the weights that it began with",
        )


def _check_evaluation(recipe: Recipe, reader: "_Reader") -> None:
    """Refuse keys that need dev files or sets where there are none."""
    drop = recipe.data.drop_evaluation
    if drop and recipe.data.evaluation is None:
        raise reader.error(
            ["data", "drop_evaluation"], "data.drop_evaluation needs data.evaluation, the folder of the sets"
        )
    if isinstance(drop, list) and (unknown := [name for name in drop if name not in KNOWN]):
        raise reader.error(
            ["data", "drop_evaluation"],
            f"data.drop_evaluation: there is no set {unknown[0]!r}{_near(unknown[0], KNOWN)}",
        )
    with_dev = any(task.dev for task in recipe.tasks)
    if recipe.train.save_every is not None and with_dev:
        raise reader.error(
            ["train", "save_every"],
            "train.save_every is for runs without a dev file: each evaluation (evaluation.every) saves",
        )
    if recipe.evaluation.keep == "not-worse" and not with_dev:
        raise reader.error(["evaluation", "keep"], 'evaluation.keep = "not-worse" needs a task with a dev file')
    if recipe.evaluation.patience and not with_dev:
        raise reader.error(["evaluation", "patience"], "evaluation.patience needs a task with a dev file")


def _check_tasks(recipe: Recipe, reader: "_Reader") -> None:
    """Refuse tasks that do not fit each other or the fitter's settings of a phase."""
    configs = [task.config for task in recipe.tasks]
    needs = needs_dropout([task.config for task in recipe.tasks if task.files("train")], recipe.regularization)
    if recipe.model.dropout == 0 and needs:
        raise reader.error(
            ["model", "dropout"], f"model.dropout is 0, and {needs} compares two dropout masks of a text"
        )
    names = [config.name for config in configs]
    phases = recipe.in_phases()
    if recipe.phases and all(phase.model.encoder == "frozen" for phase in phases):
        # A frozen phase leaves out what is for the encoder: refuse it where no phase uses it.
        phases = (replace(recipe, model=replace(recipe.model, encoder="frozen"), phases=()), *phases)
    for phase in phases:
        trained = {task.name for task in recipe.tasks if task.files("train")}
        if recipe.phases and phase.model.encoder == "frozen":  # tasks without a head wait for another phase
            trained &= {config.name for config in configs if config.has_weights}
        try:
            phase.fitter().check_tasks(configs, trained, [task.name for task in recipe.tasks if task.dev])
        except UsageError as error:
            if error.parameter == "name":
                second = next(number for number, name in enumerate(names) if name in names[:number])
                raise reader.error(["task", second, "name"], f"task.name: {error}") from error
            path = _PLACES[error.parameter or "tasks"]
            text = re.sub(rf"^{re.escape(str(error.parameter))}\b", ".".join(path), str(error))
            if error.parameter == "regularization.tasks":
                text += _near_first(recipe.regularization.tasks, names)
            raise reader.error(list(path), text) from error


def _near_first(requested: Sequence[str], known: Collection[str]) -> str:
    """Return what the first unknown name may stand for, in words; nothing where all are known."""
    unknown = [name for name in requested if name not in known]
    return _near(unknown[0], list(known)) if unknown else ""


_NESTED = "config"
"""A field whose fields are keys of the same table."""


def keys_of(part: type) -> list[Field[Any]]:
    """Return the fields of a table's class that are keys of the table."""
    keys: list[Field[Any]] = []
    for spec in fields(part):
        keys += keys_of(get_type_hints(part)[_NESTED]) if spec.name == _NESTED else [spec]
    return keys


class _Reader:
    """Turns tables into dataclasses, and says where a mistake stands."""

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._lines = path, text.splitlines()

    def error(self, path: Sequence[str | int], text: str) -> UsageError:
        return UsageError(f"{self._path}, line {self._line(path)}: {text}")

    def _line(self, path: Sequence[str | int]) -> int:
        """Return the line of a key or of its table, the last that is found on the way to it."""
        names = [p for p in path if isinstance(p, str)]
        number = next((p for p in path if isinstance(p, int)), 0)
        table: list[str] = []
        lists = {"task", "phase"} & set(names[:1])
        seen, best = -1, 1
        for line, text in enumerate(self._lines, start=1):
            header = re.match(r"\s*\[\[?\s*([\w.-]+)\s*\]\]?", text)
            if header:
                table = header[1].split(".")
                seen += table == names[:1] and bool(lists)
                if table == names[: len(table)] and (table[0] not in lists or seen == number):
                    best = line
                continue
            key = re.match(r"\s*([\w.-]+)\s*=", text)
            if not key or len(names) <= len(table) or (table[0:1] == names[:1] and lists and seen != number):
                continue
            if [*table, *key[1].split(".")][: len(names)] == names:
                return line
        return best

    def table(self, kind: type[T], values: Mapping[str, Any], path: list[str | int]) -> T:
        """Return an object of a dataclass from a table; the fields of its `config` are keys of the same table."""
        shown = ".".join(p for p in path if isinstance(p, str))
        known = [spec.name for spec in keys_of(kind)]
        for name in values:
            if name not in known:
                raise self.error([*path, name], f"there is no key {shown}.{name}{_near(name, known)}")
        return self._object(kind, values, path, shown)

    def _object(self, kind: type[T], values: Mapping[str, Any], path: list[str | int], shown: str) -> T:
        hints = get_type_hints(kind)
        settings: dict[str, Any] = {}
        for spec in fields(kind):  # type: ignore[arg-type]
            name = spec.name
            if name == _NESTED:
                settings[name] = self._object(hints[name], values, path, shown)
            elif name in values:
                settings[name] = self._value(values[name], hints[name], [*path, name], f"{shown}.{name}")
            elif spec.default is MISSING and spec.default_factory is MISSING:
                raise self.error(path, f"{shown}.{name} is missing")
        try:
            return kind(**settings)
        except UsageError as error:
            raise self.error([*path, error.parameter or ""], str(error)) from error

    def _value(self, value: Any, hint: Any, path: list[str | int], shown: str) -> Any:
        """Return a value as its field takes it: whole numbers as floats, lists as tuples, tables as objects."""
        options = get_args(hint) if get_origin(hint) in (types.UnionType, Union) else (hint,)
        options = tuple(option for option in options if option is not type(None))
        for option in options:
            if is_dataclass(option) and isinstance(value, dict):
                return self.table(option, value, path)  # type: ignore[arg-type]
            if get_origin(option) in (list, tuple) and isinstance(value, list):
                entry = get_args(option)[0]
                entries = [self._float(x, path, shown) if entry is float and type(x) is int else x for x in value]
                if all(type(x) is entry for x in entries):
                    return get_origin(option)(entries)
            if option is float and type(value) is int:
                return self._float(value, path, shown)
            if type(value) is (str if get_origin(option) is Literal else option):
                return value
        expected = " or ".join(
            _NAMES.get(str if get_origin(o) is Literal else o) or _LISTS_OF.get((*get_args(o), None)[0], "a table")
            for o in options
        )
        raise self.error(path, f"{shown} must be {expected}; found {_toml(value)}")

    def _float(self, value: int, path: list[str | int], shown: str) -> float:
        try:
            return float(value)
        except OverflowError as error:
            raise self.error(path, f"{shown} is too large: a number of {len(str(value))} digits") from error


def _toml(value: Any) -> str:
    """Return a value as a recipe spells it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(part)}" for key, part in value.items()) + "}"
    return repr(value) if isinstance(value, str) else str(value)


def _near(name: str, known: Sequence[str]) -> str:
    """Return the known name that a name may stand for, in words; else all known names."""
    return near_miss(name, known) or f"; known are {', '.join(known)}"
