"""SQL conditions -> trees with types. What a filter may say is defined here, and nowhere else.

`search.sql` reads the syntax; this module gives it a meaning, and checks names and types:

* comparisons `= == <> != < <= > >=`, `is [not] distinct from`, `in (...)`, `between`, `like`, `ilike` (with `%`, `_`, `escape`),
  `is [not] null`, `is [not] true`, `is [not] false`, `and`, `or`, `not`;
* integers, numbers, texts in single quotes, `true`, `false`, `null`; columns, in `"..."`, `[...]` or backquotes where a name is
  not a plain word;
* `+ - * / %`, `||`, `cast(x as type)`, `try_cast(x as type)`, and the functions of `FUNCTIONS`.

The meaning is DuckDB's: NULL is unknown, texts compare by code point, `like` is case-sensitive and `ilike` is not, `/` gives a
number, a division by zero is NULL. Integers and numbers compare with each other; anything else only with its own type.

Names: a column's exact name first, then the only one that differs in case alone.
"""

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from sbert_mini.errors import UsageError
from sbert_mini.search import sql
from sbert_mini.search.columns import COLUMN_TYPES, ID
from sbert_mini.search.sql import MAX_DEPTH, RefusedError, Syntax, shortened

NULL = "null"
MAX_LENGTH = 1 << 20
"""Characters of a condition."""
_LISTED_COLUMNS, _LONGEST_ALIKE = 40, 200

FUNCTIONS: dict[str, tuple[tuple[str, ...], int, str]] = {
    "abs": (("numeric",), 1, "same"),
    "ceil": (("numeric",), 1, "same"),
    "coalesce": (("any", "..."), 1, "common"),
    "contains": (("text", "text"), 2, "boolean"),
    "ends_with": (("text", "text"), 2, "boolean"),
    "floor": (("numeric",), 1, "same"),
    "instr": (("text", "text"), 2, "integer"),
    "json_extract": (("text", "text"), 2, "text"),
    "length": (("text",), 1, "integer"),
    "lower": (("text",), 1, "text"),
    "ltrim": (("text",), 1, "text"),
    "nullif": (("any", "any"), 2, "common"),
    "round": (("numeric", "integer"), 1, "same"),
    "rtrim": (("text",), 1, "text"),
    "starts_with": (("text", "text"), 2, "boolean"),
    "substr": (("text", "integer", "integer"), 2, "text"),
    "trim": (("text",), 1, "text"),
    "upper": (("text",), 1, "text"),
}
"""Function -> the types of its arguments ("..." for any number more), the fewest arguments, and the type of its value."""
_OTHER_NAMES = {
    "ceiling": "ceil", "char_length": "length", "character_length": "length", "endswith": "ends_with", "ifnull": "coalesce",
    "lcase": "lower", "len": "length", "mod": "%", "nvl": "coalesce", "startswith": "starts_with", "strpos": "instr",
    "substring": "substr", "ucase": "upper",
}  # fmt: skip
"""Other names of functions, as some databases have them; `mod(a, b)` is `a % b`."""
_TYPE_NAMES = {
    **dict.fromkeys(("int", "bigint", "smallint", "tinyint", "long", "short"), "integer"),
    **dict.fromkeys(("int1", "int2", "int4", "int8", "int16", "int32", "int64"), "integer"),
    **dict.fromkeys(
        ("float", "double", "double precision", "real", "float4", "float8", "decimal", "numeric", "dec"), "number"
    ),
    **dict.fromkeys(("varchar", "char", "character", "string", "bpchar"), "text"),
    "bool": "boolean",
}
"""Other names of the types of columns, for `cast`."""
_CALLABLE = frozenset(FUNCTIONS) | frozenset(_OTHER_NAMES)


@dataclass(frozen=True)
class Constant:
    """A value. `type` is a `ColumnType`, or `null`."""

    type: str
    value: int | float | bool | str | None


@dataclass(frozen=True)
class ColumnValue:
    """A column's value. `type` is `null` for a column without any value yet."""

    type: str
    name: str


@dataclass(frozen=True)
class Comparison:
    """`left op right`; op is one of `=`, `<>`, `<`, `<=`, `>`, `>=`."""

    op: str
    left: "Node"
    right: "Node"
    type: str = "boolean"


@dataclass(frozen=True)
class Distinct:
    """`left is distinct from right`, or the opposite where `equal` is True: never NULL."""

    left: "Node"
    right: "Node"
    equal: bool
    type: str = "boolean"


@dataclass(frozen=True)
class Joined:
    """Two or more conditions, joined by `and` or `or`."""

    op: str
    parts: tuple["Node", ...]
    type: str = "boolean"


@dataclass(frozen=True)
class Negation:
    """`not part`."""

    part: "Node"
    type: str = "boolean"


@dataclass(frozen=True)
class NullTest:
    """`part is null`."""

    part: "Node"
    type: str = "boolean"


@dataclass(frozen=True)
class Membership:
    """`part in (values)`, the values constants of a type that compares with `part`, or NULL."""

    part: "Node"
    values: tuple[Constant, ...]
    type: str = "boolean"


@dataclass(frozen=True)
class Pattern:
    """`part like pattern`; `case_sensitive` is False for `ilike`."""

    part: "Node"
    pattern: str
    escape: str | None
    case_sensitive: bool
    type: str = "boolean"


@dataclass(frozen=True)
class Arithmetic:
    """`left op right`; op is one of `+`, `-`, `*`, `/`, `%`, `||`."""

    op: str
    left: "Node"
    right: "Node"
    type: str


@dataclass(frozen=True)
class Call:
    """A function of `FUNCTIONS`, with its arguments."""

    name: str
    arguments: tuple["Node", ...]
    type: str


@dataclass(frozen=True)
class Cast:
    """`cast(part as type)`; where `strict` is False a value that cannot be converted gives NULL."""

    part: "Node"
    type: str
    strict: bool


Node: TypeAlias = (
    Constant
    | ColumnValue
    | Comparison
    | Distinct
    | Joined
    | Negation
    | NullTest
    | Membership
    | Pattern
    | Arithmetic
    | Call
    | Cast
)


def parts_of(node: Node) -> tuple[Node, ...]:
    """Return the nodes directly below a node."""
    if isinstance(node, (Comparison, Distinct, Arithmetic)):
        return node.left, node.right
    if isinstance(node, Joined):
        return node.parts
    if isinstance(node, (Negation, NullTest, Membership, Pattern, Cast)):
        return (node.part,)
    return node.arguments if isinstance(node, Call) else ()


def nodes_in(node: Node) -> tuple[list[Node], set[int]]:
    """Return a node and all below it, each once, and the ids of those that stand in several places.

    `between` and `in` compare one node several times. Nested ones would be looked at, or evaluated, twice as often at each level.
    """
    nodes: list[Node] = [node]
    seen, repeated = {id(node)}, set[int]()
    for one in nodes:  # it grows
        for part in parts_of(one):
            (repeated if id(part) in seen else seen).add(id(part))
            if id(part) not in repeated:
                nodes.append(part)
    return nodes, repeated


def columns_in(node: Node) -> set[str]:
    """Return the names of the columns that a condition reads."""
    return {one.name for one in nodes_in(node)[0] if isinstance(one, ColumnValue)}


def refusal(condition: str, why: str, columns: Mapping[str, str | None]) -> UsageError:
    """Return the error for a condition that cannot be evaluated: it lists the columns and their types."""
    shown = [f"{name} ({type or 'no value yet'})" for name, type in columns.items() if name != ID]
    more = f" and {len(shown) - _LISTED_COLUMNS} more" if len(shown) > _LISTED_COLUMNS else ""
    listed = ", ".join([f"{ID} (text)", *shown[:_LISTED_COLUMNS]]) + more
    condition = condition if len(condition) <= 300 else condition[:299] + "…"
    why = why if len(why) <= 2000 else why[:1999] + "…"
    return UsageError(f"the filter {condition!r} cannot be evaluated: {why}. Columns: {listed}")


def parse(condition: str, columns: Mapping[str, str | None]) -> Node:
    """Return a condition as a tree whose types fit.

    Args:
        condition: such as `year >= 2020 and lang = 'en'`.
        columns: name -> type of the index's columns; None for the type of a column without a value. `id`, the row's id, is text.

    Raises:
        UsageError: it is not one condition, names a column that is not there, compares what cannot be compared, or uses SQL that
            is not listed above. The text lists the columns and their types.
    """
    refused = partial(refusal, condition, columns=columns)
    if not isinstance(condition, str):
        raise UsageError(f"the filter must be a string; found {type(condition).__name__}")
    if len(condition) > MAX_LENGTH:
        raise refused(f"it has {len(condition)} characters, and may have {MAX_LENGTH}")
    try:
        node = _Reader(columns).read(sql.parse(condition, _CALLABLE), 0)
    except sql.NotOneConditionError as error:
        raise refused(f"it is not one SQL condition ({error})") from error
    except sql.UnknownSqlError as error:
        raise refused(
            f"{shortened(str(error))!r} is not known here. Besides comparisons, in, between, like, ilike, is null, and, or, not, "
            f"+ - * / % || and cast there are the functions {', '.join(FUNCTIONS)}"
        ) from error
    except RefusedError as error:
        raise refused(str(error)) from error
    except (sql.NestedTooDeeplyError, RecursionError) as error:
        raise refused("it is nested too deeply") from error
    if node.type not in ("boolean", NULL):
        raise refused(f"it must be a condition, which is true or false, and is {node.type}: compare it with something")
    return node


class _Reader:
    """Gives one syntax tree its meaning.

    Args:
        columns: name -> type of the index's columns; None for the type of a column without a value.
    """

    def __init__(self, columns: Mapping[str, str | None]) -> None:
        self._columns = columns
        self._alike: dict[str, list[str]] = {}
        self._kinds: dict[str, Callable[[Syntax, int], Node]] = {
            "and": self._joined, "or": self._joined, "not": self._negation, "compare": self._comparison,
            "distinct": self._distinct, "is": self._is, "in": self._membership, "between": self._between,
            "like": self._pattern, "ilike": self._pattern, "calculate": self._calculation, "negative": self._negative,
            "cast": self._cast, "try_cast": self._cast, "call": self._call,
        }  # fmt: skip

    def read(self, tree: Syntax, depth: int) -> Node:
        """Return the node of an expression."""
        if depth > MAX_DEPTH:
            raise sql.NestedTooDeeplyError
        if tree.kind == "number":
            return _number(tree.value)
        if tree.kind == "text":
            return Constant("text", tree.value)
        if tree.kind == "boolean":
            return Constant("boolean", tree.value == "true")
        if tree.kind == "null":
            return Constant(NULL, None)
        if tree.kind in ("name", "quoted"):
            return self._column(tree)
        return self._kinds[tree.kind](tree, depth + 1)

    def _column(self, tree: Syntax) -> ColumnValue:
        name = tree.value
        if name == ID or name in self._columns:
            return self._column_named(name)
        if name not in self._alike:
            self._alike[name] = [known for known in (ID, *self._columns) if known.lower() == name.lower()]
        alike = self._alike[name]
        if len(alike) > 1:
            raise RefusedError(
                f"the name {name} fits the columns {' and '.join(alike)}; write it as it is spelled, in double quotes"
            )
        if alike:
            return self._column_named(alike[0])
        short = [known for known in (ID, *self._columns) if max(len(known), len(name)) <= _LONGEST_ALIKE]
        near = difflib.get_close_matches(name, short, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        hint = " (a text stands in single quotes: '…')" if tree.kind == "quoted" and not near else hint
        raise RefusedError(f"no such column: {name}{hint}")

    def _column_named(self, name: str) -> ColumnValue:
        return ColumnValue("text" if name == ID else self._columns[name] or NULL, name)

    def _condition_of(self, tree: Syntax, depth: int) -> Node:
        node = self.read(tree, depth)
        _require(node, ("boolean",), tree)
        return node

    def _joined(self, tree: Syntax, depth: int) -> Node:
        return Joined(tree.kind, tuple(self._condition_of(part, depth) for part in tree.parts))

    def _negation(self, tree: Syntax, depth: int) -> Node:
        return Negation(self._condition_of(tree.parts[0], depth))

    def _compared(self, tree: Syntax, depth: int) -> tuple[Node, Node]:
        left, right = (self.read(part, depth) for part in tree.parts)
        _common((left, right), tree)
        return left, right

    def _comparison(self, tree: Syntax, depth: int) -> Node:
        return Comparison(tree.value, *self._compared(tree, depth))

    def _distinct(self, tree: Syntax, depth: int) -> Node:
        return Distinct(*self._compared(tree, depth), equal=tree.value == "=")

    def _is(self, tree: Syntax, depth: int) -> Node:
        part, value = tree.parts
        if value.kind == "null":
            return NullTest(self.read(part, depth))
        return Distinct(self._condition_of(part, depth), self._condition_of(value, depth), equal=True)

    def _membership(self, tree: Syntax, depth: int) -> Node:
        part, *values = (self.read(one, depth) for one in tree.parts)
        _common((part, *values), tree)
        constants = tuple(value for value in values if isinstance(value, Constant))
        if len(constants) == len(values):
            return Membership(part, constants)
        return Joined("or", tuple(Comparison("=", part, value) for value in values))

    def _between(self, tree: Syntax, depth: int) -> Node:
        part, low, high = (self.read(one, depth) for one in tree.parts)
        _common((part, low, high), tree)
        return Joined("and", (Comparison(">=", part, low), Comparison("<=", part, high)))

    def _pattern(self, tree: Syntax, depth: int) -> Node:
        text, pattern, *escape = tree.parts
        if escape and (escape[0].kind != "text" or len(escape[0].value) != 1):
            raise RefusedError(f"{shortened(tree.source)!r}: escape takes one character in single quotes")
        part = self.read(text, depth)
        _require(part, ("text",), text)
        if pattern.kind != "text":
            raise RefusedError(f"{shortened(tree.source)!r}: like takes a text in single quotes")
        mark = escape[0].value if escape else None
        return Pattern(part, pattern.value, mark, case_sensitive=tree.kind == "like")

    def _calculation(self, tree: Syntax, depth: int) -> Node:
        left, right = (self.read(part, depth) for part in tree.parts)
        return _calculated(tree.value, (left, right), tree)

    def _negative(self, tree: Syntax, depth: int) -> Node:
        part = self.read(tree.parts[0], depth)
        _require(part, ("integer", "number"), tree)
        return Arithmetic("-", Constant("integer", 0), part, part.type)

    def _cast(self, tree: Syntax, depth: int) -> Node:
        part, target = self.read(tree.parts[0], depth), _TYPE_NAMES.get(tree.value, tree.value)
        if target not in COLUMN_TYPES:
            why = f"{shortened(tree.source)!r}: a value can be cast to {', '.join(COLUMN_TYPES)}"
            is_time = target.startswith(("date", "time"))
            raise RefusedError(f"{why}; compare a date as a text, such as '2026-01-31'" if is_time else why)
        return Cast(part, target, strict=tree.kind == "cast")

    def _call(self, tree: Syntax, depth: int) -> Node:
        name = _OTHER_NAMES.get(tree.value, tree.value)
        nodes = [self.read(part, depth) for part in tree.parts]
        kinds, least, result = FUNCTIONS.get(name, (("numeric", "numeric"), 2, "common"))
        most = math.inf if "..." in kinds else len(kinds)
        if not least <= len(nodes) <= most:
            count = f"at least {least}" if most == math.inf else f"{least}" if least == most else f"{least} to {most}"
            plural = "" if count.endswith(" 1") or count == "1" else "s"
            raise RefusedError(
                f"{shortened(tree.source)!r}: {tree.value} takes {count} argument{plural}; found {len(nodes)}"
            )
        if name == "json_extract" and isinstance(nodes[1], Constant):
            nodes[1] = _json_path(nodes[1])
        if name == "%":
            return _calculated(name, (nodes[0], nodes[1]), tree)
        for number, (node, part) in enumerate(zip(nodes, tree.parts, strict=True)):
            kind = kinds[min(number, len(kinds) - 1)]
            if kind not in ("any", "..."):
                _require(node, ("integer", "number") if kind == "numeric" else (kind,), part)
        if name in ("round", "substr", "json_extract") and not all(isinstance(n, Constant) for n in nodes[1:]):
            raise RefusedError(
                f"{shortened(tree.source)!r}: {name} takes values, not columns, after its first argument"
            )
        types = {"same": nodes[0].type, "common": ""}
        return Call(name, tuple(nodes), types.get(result, result) or _common(tuple(nodes), tree))


def _calculated(op: str, sides: tuple[Node, Node], tree: Syntax) -> Arithmetic:
    """Return a calculation, whose sides must fit the sign."""
    for side, part in zip(sides, tree.parts, strict=True):
        _require(side, ("text",) if op == "||" else ("integer", "number"), part)
    type_ = "text" if op == "||" else _common(sides, tree)
    return Arithmetic(op, *sides, "number" if op == "/" and type_ != NULL else type_)


def _json_path(path: Constant) -> Constant:
    """Return the path that a key or a place in a list stands for: `tags -> 0`, `json_extract(tags, 'name')`."""
    if path.type == "integer":
        return Constant("text", f"$[{path.value}]")
    return (
        path
        if path.type != "text" or str(path.value).lstrip()[:1] in ("$", "")
        else Constant("text", f"$.{path.value}")
    )


def _number(text: str) -> Constant:
    try:
        value = float(text)
    except ValueError as error:
        raise RefusedError(f"{text!r} is not a number") from error
    if not math.isfinite(value):
        raise RefusedError(f"{text[:40]} is too large for a number")
    return Constant("number", value) if set(text) & set(".eE") else Constant("integer", int(text))


def _require(node: Node, types: tuple[str, ...], tree: Syntax) -> None:
    if node.type not in (*types, NULL):
        expected = " or ".join(types)
        advice = ": compare it with something" if types == ("boolean",) else ""
        raise RefusedError(f"{shortened(tree.source)!r} must be {expected} here, and is {node.type}{advice}")


def _common(nodes: tuple[Node, ...], tree: Syntax) -> str:
    """Return the type that all of some nodes have.

    Raises:
        RefusedError: they cannot be compared.
    """
    types = {node.type for node in nodes} - {NULL}
    if types <= {"integer", "number"}:
        return NULL if not types else "integer" if types == {"integer"} else "number"
    if len(types) == 1:
        return types.pop()
    first, other = _incomparable(nodes)
    comma = "," if isinstance(first, ColumnValue) else ""
    raise RefusedError(
        f"{shortened(tree.source)!r} compares {_described(first)}{comma} with {_described(other)}, which cannot be compared"
        f"{_advice(first, other)}"
    )


def _incomparable(nodes: tuple[Node, ...]) -> tuple[Node, Node]:
    """Return the first two of some nodes that cannot be compared; there are two."""
    typed = [node for node in nodes if node.type != NULL]
    first = typed[0]
    alike = {"integer", "number"} if first.type in ("integer", "number") else {first.type}
    return first, next(node for node in typed if node.type not in alike)


def _described(node: Node) -> str:
    if isinstance(node, ColumnValue):
        return f"{node.name}, which is {node.type}"
    if not isinstance(node, Constant):
        return f"a value of type {node.type}"
    if node.type == "boolean":
        return "true or false"
    return f"{'a text' if node.type == 'text' else f'the {node.type}'} {node.value!r}"


def _advice(first: Node, other: Node) -> str:
    if not isinstance(first, ColumnValue):
        first, other = other, first
    if not isinstance(first, ColumnValue):
        return ""
    if first.type == "text":
        return f": write a text in single quotes, or cast({first.name} as {other.type})"
    return f": compare it with {'true or false' if first.type == 'boolean' else 'a number, without quotes'}"
