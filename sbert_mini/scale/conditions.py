"""SQL conditions, as `--filter` takes them, in Milvus's expression language.

sqlglot parses; this writes out the part of SQL that both engines mean alike: comparisons of a column with a value, `in`,
`between`, `like`, `is null`, a column by itself (true where it is neither 0 nor NULL), joined by `and`, `or` and `not`. Anything
else is refused in one line, rather than evaluated in another way. NULL is SQL's: `year <> 2020` holds for rows that have a year.
`like` heeds case in Milvus.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from sbert_mini.errors import MissingExtraError, UsageError

KEYS, ID = "keys", "id"


def key(value: Any) -> Any:
    """Return a column's value as filters compare it: what reads as a number as one, true and false as 1 and 0; None for NULL."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        return _number(value)
    return value if value is None or isinstance(value, (int, float)) else json.dumps(value, ensure_ascii=False)


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        plain = text.strip().replace("_", "x")  # Python reads 1_000 as a number, SQLite does not
        return number if math.isfinite(number) and plain[-1:].isdigit() and "x" not in plain.lower() else text
    return text


def keys(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is stored of a row's columns for filters: those that are not NULL."""
    found = {name: key(value) for name, value in columns.items() if name.lower() != ID}
    return {name: value for name, value in found.items() if value is not None}


def to_milvus(condition: str, columns: Iterable[str]) -> str:
    """Return an SQL condition as a Milvus expression.

    Args:
        condition: such as `year >= 2020 and lang = 'en'`.
        columns: the names that the rows have; they are found whatever their case, as in SQL.

    Raises:
        UsageError: it is no condition, names a column that is not there, or says what Milvus's expressions cannot.
        MissingExtraError: sqlglot is not installed.
    """
    try:
        import sqlglot
    except ModuleNotFoundError as error:
        raise MissingExtraError("filtering in Milvus", "sqlglot", "milvus") from error
    known = {name.lower(): name for name in columns}
    writer = _Writer(known, condition)
    try:
        tree = sqlglot.parse_one(condition, into=sqlglot.exp.Condition, dialect="sqlite")
    except sqlglot.errors.SqlglotError as error:
        raise writer.refusal("it is no SQL condition") from error
    return writer.condition(tree, positive=True)


class _Writer:
    """Writes one condition out; `not` is pushed down to the comparisons, so that NULL stays SQL's."""

    def __init__(self, known: Mapping[str, str], condition: str) -> None:
        from sqlglot import exp

        self._known, self._condition = known, condition
        self._negated = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
        self._flipped = {"==": "==", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
        self._signs: dict[type, str] = {
            exp.EQ: "==", exp.NEQ: "!=", exp.GT: ">", exp.GTE: ">=", exp.LT: "<", exp.LTE: "<="
        }  # fmt: skip

    def refusal(self, why: str) -> UsageError:
        names = ", ".join([ID, *self._known.values()])
        return UsageError(f"the filter {self._condition!r} cannot be evaluated by Milvus: {why}. Columns: {names}")

    def condition(self, tree: Any, *, positive: bool) -> str:
        from sqlglot import exp

        if tree.args.get("negate"):  # sqlglot keeps `not like` in one node
            positive = not positive
        if isinstance(tree, exp.Paren):
            return self.condition(tree.this, positive=positive)
        if isinstance(tree, exp.Not):
            return self.condition(tree.this, positive=not positive)
        if isinstance(tree, (exp.And, exp.Or)):
            word = "and" if isinstance(tree, exp.And) == positive else "or"
            left, right = (self.condition(part, positive=positive) for part in (tree.left, tree.right))
            return f"({left} {word} {right})"
        if isinstance(tree, exp.Column):
            return self._compared(tree, "!=" if positive else "==", 0)
        if isinstance(tree, exp.Is) and isinstance(tree.expression, exp.Null):
            if self._name(tree.this) is None:
                return f'{ID} == ""' if positive else f'{ID} != ""'  # an id is never NULL
            return f"{'not ' if positive else ''}exists {self._place(tree.this)}"
        if isinstance(tree, exp.Between):
            bounds = [(">=", tree.args["low"]), ("<=", tree.args["high"])]
            parts = [self._compared(tree.this, self._sign(sign, positive), self._value(v)) for sign, v in bounds]
            return f"({parts[0]} {'and' if positive else 'or'} {parts[1]})"
        if isinstance(tree, exp.In) and tree.expressions:
            sign, word = ("==", " or ") if positive else ("!=", " and ")
            return f"({word.join(self._compared(tree.this, sign, self._value(v)) for v in tree.expressions)})"
        if isinstance(tree, exp.Like):
            pattern = self._value(tree.expression)
            if not isinstance(tree.expression, exp.Literal) or "_" in str(pattern):
                raise self.refusal("like takes a text with % alone")
            like = f"{self._place(tree.this)} like {json.dumps(tree.expression.this, ensure_ascii=False)}"
            return self._guarded(tree.this, like if positive else f"not ({like})")
        if type(tree) in self._signs:
            sign = self._signs[type(tree)]
            if isinstance(tree.left, exp.Column):
                return self._compared(tree.left, self._sign(sign, positive), self._value(tree.right))
            return self._compared(tree.right, self._sign(self._flipped[sign], positive), self._value(tree.left))
        raise self.refusal(f"{tree.sql('sqlite')!r} is beyond comparisons, in, between, like, is null, and, or, not")

    def _sign(self, sign: str, positive: bool) -> str:
        return sign if positive else self._negated[sign]

    def _name(self, column: Any) -> str | None:
        """Return the stored name of a column; None for the row's id."""
        from sqlglot import exp

        if not isinstance(column, exp.Column):
            raise self.refusal(f"{column.sql('sqlite')!r} must be a column")
        if column.name.lower() == ID:
            return None
        if column.name.lower() not in self._known:
            raise self.refusal(f"no such column: {column.name}")
        return self._known[column.name.lower()]

    def _place(self, column: Any) -> str:
        name = self._name(column)
        return ID if name is None else f"{KEYS}[{json.dumps(name, ensure_ascii=False)}]"

    def _value(self, tree: Any) -> Any:
        from sqlglot import exp

        if isinstance(tree, exp.Neg):
            value = self._value(tree.this)
            if isinstance(value, (int, float)):
                return -value
        elif isinstance(tree, exp.Boolean):
            return int(tree.this)
        elif isinstance(tree, exp.Literal):
            return str(tree.this) if tree.is_string else _number(str(tree.this))
        raise self.refusal(f"{tree.sql('sqlite')!r} must be a number, a text, true or false")

    def _compared(self, column: Any, sign: str, value: Any) -> str:
        if self._name(column) is None:
            return f"{ID} {sign} {json.dumps(str(value), ensure_ascii=False)}"
        value = _number(value) if isinstance(value, str) else value
        return self._guarded(column, f"{self._place(column)} {sign} {json.dumps(value, ensure_ascii=False)}")

    def _guarded(self, column: Any, comparison: str) -> str:
        if self._name(column) is None:
            return comparison
        return f"(exists {self._place(column)} and {comparison})"
