"""SQL conditions, as `--filter` takes them, in Milvus's expression language.

`search.conditions` parses them and checks names and types. This writes out the part that both engines understand alike:
comparisons of a column with a value, `in`, `between`, `like` with `%`, `is null`, a true/false column by itself, joined by
`and`, `or` and `not`. Anything else is refused in one line, rather than evaluated in another way. NULL is SQL's: `year <> 2020`
holds for rows that have a year.
"""

import json
from collections.abc import Mapping
from typing import Any

from sbert_mini.errors import UsageError
from sbert_mini.search.columns import ID, converted
from sbert_mini.search.conditions import (
    MAX_LENGTH,
    NULL,
    ColumnValue,
    Comparison,
    Constant,
    Distinct,
    Joined,
    Membership,
    Negation,
    Node,
    NullTest,
    Pattern,
    parse,
    refusal,
)

KEYS = "keys"


def keys(columns: Mapping[str, Any], types: Mapping[str, str | None]) -> dict[str, Any]:
    """Return what is stored of a row's columns for filters: each value in its column's type, without NULLs."""
    values = {name: converted(value, types[name] or "text") for name, value in columns.items() if name != ID}
    return {name: value for name, value in values.items() if value is not None}


def to_milvus(condition: str, columns: Mapping[str, str | None]) -> str:
    """Return an SQL condition as a Milvus expression.

    Args:
        condition: such as `year >= 2020 and lang = 'en'`.
        columns: name -> type of the columns.

    Raises:
        UsageError: it is no condition on these columns, or Milvus has no expression for it.
    """
    writer, node = _Writer(condition, columns), parse(condition, columns)
    try:
        return writer.condition(node, positive=True)
    except RecursionError:
        raise writer.refusal("it is nested too deeply") from None


class _Writer:
    """Writes one condition out; `not` is pushed down to the comparisons, so that NULL stays SQL's."""

    _SIGNS: Mapping[str, str] = {"=": "==", "<>": "!=", "<": "<", ">": ">", "<=": "<=", ">=": ">="}
    _NEGATED: Mapping[str, str] = {"=": "<>", "<>": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
    _FLIPPED: Mapping[str, str] = {"=": "=", "<>": "<>", "<": ">", ">": "<", "<=": ">=", ">=": "<="}

    def __init__(self, condition: str, columns: Mapping[str, str | None]) -> None:
        self._condition, self._columns = condition, columns

    def refusal(self, why: str) -> UsageError:
        """Return the error for a condition that cannot be written out."""
        return refusal(self._condition, f"Milvus cannot evaluate it: {why}", self._columns)

    def condition(self, node: Node, *, positive: bool) -> str:
        """Return a condition's expression, or, where `positive` is False, that of its negation."""
        if isinstance(node, Negation):
            return self.condition(node.part, positive=not positive)
        if isinstance(node, Joined):
            word = "and" if (node.op == "and") == positive else "or"
            joined = f"({f' {word} '.join(self.condition(part, positive=positive) for part in node.parts)})"
            if len(joined) > MAX_LENGTH:  # nested between and in are written out twice at each level
                raise self.refusal(f"it would take more than {MAX_LENGTH} characters there")
            return joined
        if isinstance(node, ColumnValue):
            return self._guarded(node, f"{self._place(node)} == {json.dumps(positive)}")
        if isinstance(node, Constant):
            return f'{ID} != ""' if node.value is positive else f'{ID} == ""'  # an id is never empty
        if isinstance(node, NullTest):
            column = self._column(node.part)
            if column.name == ID:
                return f'{ID} == ""' if positive else f'{ID} != ""'
            return f"{'not ' if positive else ''}exists {self._place(column)}"
        if isinstance(node, Comparison):
            left, right, op = node.left, node.right, node.op
            if isinstance(left, Constant):
                left, right, op = right, left, self._FLIPPED[op]
            return self._compared(left, op if positive else self._NEGATED[op], right)
        if isinstance(node, Distinct) and isinstance(node.left, ColumnValue) and node.equal:
            same = self._compared(node.left, "=", node.right)
            return same if positive else f"(not ({same}))"
        if isinstance(node, Membership):
            op, word = ("=", " or ") if positive else ("<>", " and ")
            return f"({word.join(self._compared(node.part, op, value) for value in node.values)})"
        if isinstance(node, Pattern):
            column = self._column(node.part)
            if "_" in node.pattern or node.escape is not None or not node.case_sensitive:
                raise self.refusal("like takes a text with % only, and is case-sensitive")
            expression = f"{self._place(column)} like {json.dumps(node.pattern, ensure_ascii=False)}"
            return self._guarded(column, expression if positive else f"not ({expression})")
        raise self.refusal("it takes comparisons of a column with a value, in, between, like, is null, and, or, not")

    def _column(self, node: Node) -> ColumnValue:
        if not isinstance(node, ColumnValue):
            raise self.refusal("only a column can be compared, not a value that is computed from one")
        return node

    def _place(self, column: ColumnValue) -> str:
        return ID if column.name == ID else f"{KEYS}[{json.dumps(column.name, ensure_ascii=False)}]"

    def _compared(self, part: Node, op: str, value: Node) -> str:
        column = self._column(part)
        if not isinstance(value, Constant):
            raise self.refusal("a column is compared with a value, not with another column")
        if NULL in (value.type, column.type):
            return f'{ID} == ""'  # unknown: no row
        return self._guarded(
            column, f"{self._place(column)} {self._SIGNS[op]} {json.dumps(value.value, ensure_ascii=False)}"
        )

    def _guarded(self, column: ColumnValue, comparison: str) -> str:
        if column.name == ID:
            return comparison
        return f"(exists {self._place(column)} and {comparison})"
