"""Draw faults by seed: Cosmic Ray's operators for Python, a few of the same kind for C++, on lines that a test runs.

Cosmic Ray is needed for drawing alone (`pip install cosmic-ray`): the table holds what it drew. In each room a place in the
code is drawn first and then one of the changes that are possible there, so that places with many changes do not count more.
"""

import ast
import json
import random
import re
from collections import defaultdict
from pathlib import Path

from tests.mutants.measure import DATA, WORK
from tests.mutants.source import FAULTS, ROOMS, ROOT, Fault, find, read_faults, scopes, write_faults

UNUSED = ("VariableInserter", "VariableReplacer")
"""They put random names in, which fail at once as unknown names: too easy to catch."""
CPP_OPERATORS: dict[str, tuple[str, str]] = {
    "less-to-less-or-equal": (r"(?<![<\w]) < ", " <= "),
    "less-or-equal-to-less": (r" <= ", " < "),
    "greater-to-greater-or-equal": (r" > (?!>)", " >= "),
    "greater-or-equal-to-greater": (r" >= ", " > "),
    "equal-to-unequal": (r" == ", " != "),
    "unequal-to-equal": (r" != ", " == "),
    "and-to-or": (r" && ", " || "),
    "or-to-and": (r" \|\| ", " && "),
    "plus-to-minus": (r" \+ ", " - "),
    "minus-to-plus": (r" - ", " + "),
    "times-to-plus": (r" \* ", " + "),
    "divide-to-times": (r" / ", " * "),
    "remainder-to-divide": (r" % ", " / "),
    "zero-to-one": (r"(?<![\w.])0(?![\w.])", "1"),
    "one-to-zero": (r"(?<![\w.])1(?![\w.])", "0"),
    "max-to-min": (r"_mm512_max_", "_mm512_min_"),
    "min-to-max": (r"_mm512_min_", "_mm512_max_"),
    "add-to-sub": (r"_mm512_add_", "_mm512_sub_"),
    "sub-to-add": (r"_mm512_sub_", "_mm512_add_"),
    "fmadd-to-fmsub": (r"_mm512_fmadd_", "_mm512_fmsub_"),
}


def _changed(before: str, after: str) -> tuple[int, int, str, str] | None:
    """Return the first and last line of a change, and the lines before and after."""
    old, new = before.splitlines(), after.splitlines()
    start = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), None)
    if start is None:
        return None
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    last = len(old) - end
    return start + 1, last, "\n".join(old[start:last]), "\n".join(new[start : len(new) - end])


def _in_annotation(text: str, line: int, column: int) -> bool:
    for node in ast.walk(ast.parse(text)):
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if part is not None and (part.lineno, part.col_offset) <= (line, column) < (
                part.end_lineno,
                part.end_col_offset,
            ):
                return True
    return False


def _compiles(code: str) -> bool:
    """Return whether Python accepts the code: a fault that stops at its import says nothing about the tests."""
    try:
        compile(code, "mutated", "exec")
    except SyntaxError:
        return False
    return True


def _is_found(fault: Fault) -> bool:
    """Return whether the pattern of a fault stands in the code in one place that can be told from others."""
    try:
        find(fault)
    except LookupError:
        return False
    return True


def python_faults(room: str, count: int, random_source: random.Random) -> list[Fault]:
    """Draw `count` faults of a room."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names
    from coverage import CoverageData

    data = CoverageData(str(DATA))
    data.read()
    operators = {n: get_operator(n)() for n in sorted(operator_names()) if not any(word in n for word in UNUSED)}
    places: dict[tuple[str, int, int], list[tuple[str, int]]] = defaultdict(list)
    for file in sorted((ROOT / ROOMS[room]).glob("*.py")):
        contexts = data.contexts_by_lineno(str(file))
        covered = {line for line, names in contexts.items() if any(names)}
        seen: dict[str, int] = defaultdict(int)
        for node in ast_nodes(get_ast(file.read_text("utf-8"))):
            for name, operator in operators.items():
                for (line, column), _ in operator.mutation_positions(node):
                    if line in covered:
                        places[str(file), line, column].append((name, seen[name]))
                    seen[name] += 1
    drawn: list[Fault] = []
    keys = sorted(places)
    random_source.shuffle(keys)
    for file_name, line, column in keys:
        if len(drawn) == count:
            break
        file = Path(file_name)
        text = file.read_text("utf-8")
        name, occurrence = random_source.choice(places[file_name, line, column])
        if _in_annotation(text, line, column):
            continue
        mutated = mutate_code(text, operators[name], occurrence)
        change = _changed(text, mutated) if mutated is not None and _compiles(mutated) else None
        if change is None:
            continue
        first, _, before, after = change
        fault = Fault(
            f"{room}-{len(drawn) + 1}", room, True, scopes(file)[first], before, after, name.removeprefix("core/")
        )
        if _is_found(fault):
            drawn.append(fault)
    return drawn


def native_faults(count: int, random_source: random.Random) -> list[Fault]:
    """Draw `count` faults of the C++ code."""
    covered: dict[str, list[int]] = json.loads((WORK / "native.json").read_text())
    places: list[tuple[str, int, int, str]] = []
    for name, lines in sorted(covered.items()):
        text = (ROOT / ROOMS["native"] / name).read_text("utf-8").splitlines()
        for line in lines:
            code = text[line - 1].split("//")[0]
            for operator, (pattern, _) in CPP_OPERATORS.items():
                places += [(name, line, match.start(), operator) for match in re.finditer(pattern, code)]
    random_source.shuffle(places)
    drawn: list[Fault] = []
    for name, line, column, operator in places:
        if len(drawn) == count:
            break
        before = (ROOT / ROOMS["native"] / name).read_text("utf-8").splitlines()[line - 1]
        pattern, replacement = CPP_OPERATORS[operator]
        after = before[:column] + re.sub(pattern, replacement, before[column:], count=1)
        fault = Fault(f"native-{len(drawn) + 1}", "native", True, "", before, after, operator)
        if _is_found(fault):
            drawn.append(fault)
    return drawn


def draw(seed: int, per_room: int) -> list[Fault]:
    """Draw from each room, write the table with the rows that were written by hand kept, and return all."""
    drawn: list[Fault] = []
    for room in ROOMS:
        random_source = random.Random(f"{seed} {room}")
        drawn += (
            native_faults(per_room, random_source) if room == "native" else python_faults(room, per_room, random_source)
        )
    by_hand = [fault for fault in read_faults() if not fault.drawn] if FAULTS.is_file() else []
    write_faults([*drawn, *by_hand])
    return [*drawn, *by_hand]
