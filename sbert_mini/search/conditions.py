"""SQL conditions -> trees with types. What a filter may say is defined here, and nowhere else.

sqlglot parses (it is imported when a filter is used); this module accepts a part of SQL and checks names and types:

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
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from sbert_mini.errors import UsageError
from sbert_mini.search.columns import COLUMN_TYPES, ID

NULL = "null"
MAX_LENGTH = 1 << 20
"""Characters of a condition."""
MAX_DEPTH = 200
_LISTED_COLUMNS = 40

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


def columns_in(node: Node) -> set[str]:
    """Return the names of the columns that a condition reads."""
    names = {node.name} if isinstance(node, ColumnValue) else set()
    return names.union(*map(columns_in, parts_of(node)))


def refusal(condition: str, why: str, columns: Mapping[str, str | None]) -> UsageError:
    """Return the error for a condition that cannot be evaluated: it lists the columns and their types."""
    shown = [f"{name} ({type or 'no value yet'})" for name, type in columns.items() if name != ID]
    more = f" and {len(shown) - _LISTED_COLUMNS} more" if len(shown) > _LISTED_COLUMNS else ""
    listed = ", ".join([f"{ID} (text)", *shown[:_LISTED_COLUMNS]]) + more
    condition = condition if len(condition) <= 300 else condition[:299] + "…"
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
    import sqlglot

    try:
        tree = sqlglot.parse_one(condition, into=sqlglot.exp.Condition, dialect="sqlite")
    except (sqlglot.errors.SqlglotError, RecursionError, ValueError, IndexError) as error:
        raise refused(f"it is not one SQL condition ({_reason(error)})") from error
    try:
        node = _Reader(columns).read(tree, 0)
    except _RefusedError as error:
        raise refused(str(error)) from error
    except RecursionError as error:
        raise refused("it is nested too deeply") from error
    if node.type not in ("boolean", NULL):
        raise refused(f"it must be a condition, which is true or false, and is {node.type}: compare it with something")
    return node


def _reason(error: Exception) -> str:
    details = getattr(error, "errors", None)
    if not details:
        return "nested too deeply" if isinstance(error, RecursionError) else "it cannot be read"
    first = details[0]
    where, what = str(first.get("highlight") or "").strip(), str(first.get("description") or "it cannot be read")
    if what.startswith("Required keyword"):
        what = "something is missing"
    what = what.partition(". Line")[0].rstrip(".")
    return f"{what}, at {where!r}" if where else what


class _RefusedError(Exception):
    """A condition cannot be evaluated; the text says why."""


class _Reader:
    """Reads one sqlglot tree.

    Args:
        columns: name -> type of the index's columns; None for the type of a column without a value.
    """

    def __init__(self, columns: Mapping[str, str | None]) -> None:
        from sqlglot import exp

        self._exp = exp
        self._columns = columns
        self._comparisons: dict[type, str] = {
            exp.EQ: "=", exp.NEQ: "<>", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">="
        }  # fmt: skip
        self._arithmetic: dict[type, str] = {
            exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%", exp.DPipe: "||"
        }  # fmt: skip
        self._functions: dict[type, tuple[str, tuple[str, ...]]] = {
            exp.Abs: ("abs", ("this",)),
            exp.Ceil: ("ceil", ("this",)),
            exp.Coalesce: ("coalesce", ("this", "expressions")),
            exp.Contains: ("contains", ("this", "expression")),
            exp.EndsWith: ("ends_with", ("this", "expression")),
            exp.Floor: ("floor", ("this",)),
            exp.StrPosition: ("instr", ("this", "substr")),
            exp.Length: ("length", ("this",)),
            exp.Lower: ("lower", ("this",)),
            exp.Nullif: ("nullif", ("this", "expression")),
            exp.Round: ("round", ("this", "decimals")),
            exp.StartsWith: ("starts_with", ("this", "expression")),
            exp.Substring: ("substr", ("this", "start", "length")),
            exp.Upper: ("upper", ("this",)),
        }

    def read(self, tree: Any, depth: int) -> Node:
        """Return a node for a sqlglot expression."""
        exp, below = self._exp, depth + 1
        if depth > MAX_DEPTH:
            raise _RefusedError("it is nested too deeply")
        if isinstance(tree, exp.Paren):
            return self.read(tree.this, below)
        if isinstance(tree, (exp.And, exp.Or)):
            op = "and" if isinstance(tree, exp.And) else "or"
            parts = tuple(self._condition_of(part, below) for part in _chain(tree))
            return Joined(op, parts)
        if isinstance(tree, exp.Not):
            return Negation(self._condition_of(tree.this, below))
        if isinstance(tree, exp.Column):
            return self._column(tree)
        if isinstance(tree, exp.Neg) and isinstance(tree.this, exp.Literal) and not tree.this.is_string:
            return _number(f"-{tree.this.this}")
        if isinstance(tree, exp.Literal):
            return Constant("text", str(tree.this)) if tree.is_string else _number(str(tree.this))
        if isinstance(tree, exp.Boolean):
            return Constant("boolean", bool(tree.this))
        if isinstance(tree, exp.Null):
            return Constant(NULL, None)
        if type(tree) in self._comparisons:
            left, right = self._compared(tree.left, tree.right, tree, below)
            return Comparison(self._comparisons[type(tree)], left, right)
        if isinstance(tree, (exp.NullSafeEQ, exp.NullSafeNEQ)):
            left, right = self._compared(tree.this, tree.expression, tree, below)
            return Distinct(left, right, equal=isinstance(tree, exp.NullSafeEQ))
        if isinstance(tree, exp.Is):
            return self._is(tree, below)
        if isinstance(tree, exp.In):
            return self._membership(tree, below)
        if isinstance(tree, exp.Between):
            return self._between(tree, below)
        if isinstance(tree, (exp.Like, exp.ILike, exp.Escape)):
            return self._pattern(tree, below)
        if type(tree) in self._arithmetic:
            return self._calculation(tree, below)
        if isinstance(tree, exp.Neg):
            part = self.read(tree.this, below)
            _require(part, ("integer", "number"), tree)
            return Arithmetic("-", Constant("integer", 0), part, part.type)
        if isinstance(tree, (exp.Cast, exp.TryCast)):
            return self._cast(tree, below)
        return self._call(tree, below)

    def _column(self, tree: Any) -> ColumnValue:
        if tree.args.get("table") is not None:
            raise _RefusedError(
                f"{_sql(tree)!r} names a table; a column is named by itself, in double quotes if it has a dot"
            )
        name = str(tree.this.this) if isinstance(tree.this, self._exp.Identifier) else _sql(tree)
        if name == ID or name in self._columns:
            return self._column_named(name)
        alike = [known for known in (ID, *self._columns) if known.lower() == name.lower()]
        if len(alike) > 1:
            raise _RefusedError(
                f"the name {name} fits the columns {' and '.join(alike)}; write it as it is spelled, in double quotes"
            )
        if alike:
            return self._column_named(alike[0])
        near = difflib.get_close_matches(name, [ID, *self._columns], 1)
        quoted = tree.this.args.get("quoted") and not near
        hint = f" (did you mean {near[0]}?)" if near else ""
        hint = " (a text stands in single quotes: '…')" if quoted else hint
        raise _RefusedError(f"no such column: {name}{hint}")

    def _column_named(self, name: str) -> ColumnValue:
        return ColumnValue("text" if name == ID else self._columns[name] or NULL, name)

    def _condition_of(self, tree: Any, depth: int) -> Node:
        node = self.read(tree, depth)
        _require(node, ("boolean",), tree)
        return node

    def _compared(self, left: Any, right: Any, tree: Any, depth: int) -> tuple[Node, Node]:
        first, second = self.read(left, depth), self.read(right, depth)
        _common((first, second), tree)
        return first, second

    def _is(self, tree: Any, depth: int) -> Node:
        if isinstance(tree.expression, self._exp.Null):
            return NullTest(self.read(tree.this, depth))
        return Distinct(self._condition_of(tree.this, depth), self._condition_of(tree.expression, depth), equal=True)

    def _membership(self, tree: Any, depth: int) -> Node:
        part = self.read(tree.this, depth)
        if not tree.expressions or tree.args.get("query") or tree.args.get("unnest") or tree.args.get("field"):
            raise _RefusedError(f"{_sql(tree)!r}: in takes a list of values in parentheses")
        values = [self.read(value, depth) for value in tree.expressions]
        _common((part, *values), tree)
        constants = tuple(value for value in values if isinstance(value, Constant))
        if len(constants) == len(values):
            return Membership(part, constants)
        return Joined("or", tuple(Comparison("=", part, value) for value in values))

    def _between(self, tree: Any, depth: int) -> Node:
        if tree.args.get("symmetric"):
            raise _RefusedError(f"{_sql(tree)!r}: between symmetric is not known")
        part, low, high = (self.read(tree.args[name], depth) for name in ("this", "low", "high"))
        _common((part, low, high), tree)
        return Joined("and", (Comparison(">=", part, low), Comparison("<=", part, high)))

    def _pattern(self, tree: Any, depth: int) -> Node:
        exp, escape, like = self._exp, None, tree
        if isinstance(tree, exp.Escape):
            like, mark = tree.this, tree.expression
            if not isinstance(mark, exp.Literal) or not mark.is_string or len(mark.this) != 1:
                raise _RefusedError(f"{_sql(tree)!r}: escape takes one character in single quotes")
            escape = str(mark.this)
        if not isinstance(like, (exp.Like, exp.ILike)):
            raise _RefusedError(f"{_sql(tree)!r}: escape goes with like")
        part = self.read(like.this, depth)
        _require(part, ("text",), like.this)
        if not isinstance(like.expression, exp.Literal) or not like.expression.is_string:
            raise _RefusedError(f"{_sql(tree)!r}: like takes a text in single quotes")
        pattern = Pattern(part, str(like.expression.this), escape, case_sensitive=isinstance(like, exp.Like))
        return Negation(pattern) if like.args.get("negate") else pattern

    def _calculation(self, tree: Any, depth: int) -> Node:
        op = self._arithmetic[type(tree)]
        left, right = self.read(tree.left, depth), self.read(tree.right, depth)
        types = ("text",) if op == "||" else ("integer", "number")
        _require(left, types, tree.left)
        _require(right, types, tree.right)
        type_ = "text" if op == "||" else _common((left, right), tree)
        if op == "/" and type_ != NULL:
            type_ = "number"
        return Arithmetic(op, left, right, type_)

    def _cast(self, tree: Any, depth: int) -> Node:
        exp = self._exp
        part, to = self.read(tree.this, depth), tree.args["to"]
        kinds = exp.DataType.Type
        names = {
            **dict.fromkeys((kinds.INT, kinds.BIGINT, kinds.SMALLINT, kinds.TINYINT), "integer"),
            **dict.fromkeys((kinds.FLOAT, kinds.DOUBLE, kinds.DECIMAL), "number"),
            **dict.fromkeys((kinds.TEXT, kinds.VARCHAR, kinds.CHAR), "text"),
            kinds.BOOLEAN: "boolean",
        }
        target = names.get(to.this) or str(to.args.get("kind") or to).lower()
        if target not in COLUMN_TYPES:
            raise _RefusedError(f"{_sql(tree)!r}: a value can be cast to {', '.join(COLUMN_TYPES)}")
        return Cast(part, target, strict=not isinstance(tree, exp.TryCast))

    def _call(self, tree: Any, depth: int) -> Node:
        exp = self._exp
        if isinstance(tree, exp.Trim):
            position = str(tree.args.get("position") or "").lower()
            name = {"leading": "ltrim", "trailing": "rtrim"}.get(position, "trim")
            arguments = [tree.this, *([tree.expression] if tree.args.get("expression") is not None else [])]
        elif isinstance(tree, (exp.JSONExtract, exp.JSONExtractScalar)):
            path = tree.expression
            text = path if isinstance(path, exp.Literal) else exp.Literal.string(_path(path))
            name, arguments = "json_extract", [tree.this, text, *tree.expressions]
        elif type(tree) in self._functions:
            name, keys = self._functions[type(tree)]
            given = [tree.args.get(key) for key in keys]
            arguments = [
                one for item in given if item is not None for one in (item if isinstance(item, list) else [item])
            ]
            extra = [key for key, value in tree.args.items() if key not in keys and isinstance(value, exp.Expression)]
            if extra:
                raise _RefusedError(f"{_sql(tree)!r}: {name} takes fewer arguments")
        else:
            raise _RefusedError(
                f"{_sql(tree)!r} is not known here. Besides comparisons, in, between, like, ilike, is null, and, or, not, "
                f"+ - * / % || and cast there are the functions {', '.join(FUNCTIONS)}"
            )
        return self._checked_call(name, [self.read(argument, depth) for argument in arguments], arguments, tree)

    def _checked_call(self, name: str, nodes: list[Node], trees: list[Any], tree: Any) -> Node:
        kinds, least, result = FUNCTIONS[name]
        most = math.inf if "..." in kinds else len(kinds)
        if not least <= len(nodes) <= most:
            count = f"{least}" if least == most else f"{least} to {most}"
            raise _RefusedError(f"{_sql(tree)!r}: {name} takes {count} argument{'' if count == '1' else 's'}")
        for number, (node, part) in enumerate(zip(nodes, trees, strict=True)):
            kind = kinds[min(number, len(kinds) - 1)]
            if kind not in ("any", "..."):
                _require(node, ("integer", "number") if kind == "numeric" else (kind,), part)
        if name in ("round", "substr", "json_extract") and not all(isinstance(n, Constant) for n in nodes[1:]):
            raise _RefusedError(f"{_sql(tree)!r}: {name} takes values, not columns, after its first argument")
        types = {"same": nodes[0].type, "common": ""}
        type_ = types.get(result, result) or _common(tuple(nodes), tree)
        return Call(name, tuple(nodes), type_)


def _number(text: str) -> Constant:
    try:
        value = float(text)
    except ValueError as error:
        raise _RefusedError(f"{text!r} is not a number") from error
    if not math.isfinite(value):
        raise _RefusedError(f"{text[:40]} is too large for a number")
    return Constant("number", value) if set(text) & set(".eE") else Constant("integer", int(text))


def _require(node: Node, types: tuple[str, ...], tree: Any) -> None:
    if node.type not in (*types, NULL):
        expected = " or ".join(types)
        advice = ": compare it with something" if types == ("boolean",) else ""
        raise _RefusedError(f"{_sql(tree)!r} must be {expected} here, and is {node.type}{advice}")


def _common(nodes: tuple[Node, ...], tree: Any) -> str:
    """Return the type that all of some nodes have.

    Raises:
        _RefusedError: they cannot be compared.
    """
    types = {node.type for node in nodes} - {NULL}
    if types <= {"integer", "number"}:
        return NULL if not types else "integer" if types == {"integer"} else "number"
    if len(types) == 1:
        return types.pop()
    first, other = _incomparable(nodes)
    comma = "," if isinstance(first, ColumnValue) else ""
    raise _RefusedError(
        f"{_sql(tree)!r} compares {_described(first)}{comma} with {_described(other)}, which cannot be compared"
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


def _chain(tree: Any) -> list[Any]:
    """Return the operands of a chain of one operator, however long, in their order."""
    kind, operands, pending = type(tree), [], [tree]
    while pending:
        part = pending.pop()
        if type(part) is kind:
            pending += [part.right, part.left]
        else:
            operands.append(part)
    return operands


def _sql(tree: Any) -> str:
    """Return an expression as SQL, shortened."""
    from sqlglot import ErrorLevel

    text = (
        tree.sql("sqlite", comments=False, unsupported_level=ErrorLevel.IGNORE) if hasattr(tree, "sql") else str(tree)
    )
    return text if len(text) <= 80 else text[:79] + "…"


def _path(tree: Any) -> str:
    return str(tree.sql("duckdb")).strip("'")
