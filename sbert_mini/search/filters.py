"""Which rows meet a condition: a typed tree (`search.conditions`) over a segment's columns, block by block with NumPy.

Memory depends on the block, not on the segment. Between blocks the time limit is checked, and Ctrl-C takes effect. A condition on
a single column that has a list of its different texts is evaluated once for that list, and looked up for the rows.
"""

import copy
import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from sbert_mini.errors import UsageError
from sbert_mini.search.column_reader import Column, Columns, Texts, Values, all_valid
from sbert_mini.search.conditions import (
    NULL,
    Arithmetic,
    Call,
    Cast,
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
    columns_in,
    nodes_in,
    parts_of,
)
from sbert_mini.search.deadline import Deadline
from sbert_mini.search.text_functions import (
    INT64,
    FilterValueError,
    cast_one,
    json_value,
    like,
    plain_pieces,
    text_function,
)
from sbert_mini.shapes import AnyArray

BLOCK_ROWS = 1 << 16
_BLOCKS_A_THREAD = 4
"""A second thread evaluates from twice as many blocks on."""
_FEW_RUNS = 4
_MOST_TEXT = 1 << 26
"""Characters that the texts made for a block of rows have together: for longer ones the block is divided."""
_TOO_MUCH_TEXT = f"the filter makes a text of more than {_MOST_TEXT:,} characters of a row"
_TEXT_BETWEEN_CHECKS = 1 << 20
_MOST_TABLES = 1 << 28
"""Bytes of the values that are kept for the texts of dictionaries."""
_PIECES: dict[str, Callable[[str], list[str]]] = {
    "contains": lambda text: ["", text, ""], "starts_with": lambda text: [text, ""], "ends_with": lambda text: ["", text]
}  # fmt: skip
"""Function of two texts -> the pieces that its first text is made of, with any text between them."""
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq, "<>": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge
}  # fmt: skip
_DTYPES = {"integer": np.int64, "number": np.float64, "boolean": bool, "text": object, NULL: bool}
_EMPTY = {"integer": 0, "number": 0.0, "boolean": False, "text": "", NULL: False}


class _TooMuchTextError(Exception):
    """The texts that are made for a block of rows are too long together."""


def matching(node: Node, columns: Columns, deadline: Deadline, threads: int = 1) -> AnyArray:
    """Return which rows of a segment meet a condition: those for which it is true, neither false nor NULL.

    Args:
        node: the condition.
        columns: of the segment. A column that it lacks is NULL in all its rows.
        deadline: when it must be done.
        threads: for checking the columns' bytes, the first time, and for evaluating: NumPy computes without Python's lock.

    Raises:
        UsageError: the time is up.
        FilterValueError: an expression is not defined for a row's value.

    Shapes:
        the result: (rows,), bool.
    """
    for name in columns_in(node):
        columns.column(name, threads)
    matched = np.zeros(columns.rows, dtype=bool)
    evaluation = _Evaluation(node, columns, deadline)
    blocks = [(first, min(first + BLOCK_ROWS, columns.rows)) for first in range(0, columns.rows, BLOCK_ROWS)]
    threads = min(threads, len(blocks) // _BLOCKS_A_THREAD)
    if threads < 2:
        evaluation.write(node, blocks, matched)
        return matched
    from concurrent.futures import ThreadPoolExecutor

    evaluation.write(node, blocks[:1], matched)  # makes what all blocks need, such as a result for each text of a list
    shares = [blocks[1 + part :: threads] for part in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        try:
            for _ in pool.map(lambda share: evaluation.beside().write(node, share, matched), shares):
                pass
        except BaseException:
            deadline.end()
            raise
    return matched


def _has_no_null(values: Values) -> bool:
    """Return whether it is known that no value is NULL."""
    return values.valid is all_valid(len(values.valid))


def _constant(type: str, value: Any, rows: int) -> Values:
    """Return the same value for each of some rows; None for NULL."""
    if type == "integer" and value is not None and value not in INT64:  # None would be looked for number by number
        raise FilterValueError(f"{value} is beyond 64 bits")
    filled = np.empty(rows, _DTYPES[type])
    filled.fill(_EMPTY[type] if value is None else value)  # np.full would copy a text for each row
    return Values(type, filled, np.full(rows, value is not None))


class _Table:
    """What a node gives for each text of a column that has a list of them, looked up for the rows.

    Args:
        column: the column.
        values: for each of its texts, and at last for NULL.
    """

    def __init__(self, column: Column, values: Values) -> None:
        self._column = column
        self._values = values
        self._is_strict = bool(values.valid[:-1].all()) and not values.valid[-1]  # NULL for NULL, and for nothing else
        self._runs: list[tuple[Any, Any]] | None = None
        if values.type == "boolean" and self._is_strict:
            edges = np.flatnonzero(np.diff(values.values[:-1].astype(np.int8), prepend=0, append=0))
            if len(edges) <= 2 * _FEW_RUNS:
                self._runs = [
                    (np.uint16(low), np.uint16(high - low - 1)) for low, high in edges.reshape(-1, 2).tolist()
                ]

    def rows(self, first: int, last: int) -> Values:
        """Return the values for the rows from `first` up to, without, `last`."""
        codes, valid = self._column.codes(first, last)
        if self._runs is not None:  # texts next to each other in the list: faster than to look each code up
            true = np.zeros(last - first, dtype=bool)
            for low, width in self._runs:
                true |= (codes - low) <= width
            return Values("boolean", true, valid)
        if self._is_strict and len(self._values.values) > 1:
            return Values(self._values.type, self._values.values[codes], valid)
        codes = np.where(valid, codes.astype(np.intp), len(self._values.values) - 1)  # the last is that of NULL
        return Values(self._values.type, self._values.values[codes], self._values.valid[codes])


class _Evaluation:
    """Evaluates one condition over one segment.

    Nodes that stand in several places (`conditions.nodes_in`) are evaluated once: their values are kept until what they stand in
    is done.
    """

    def __init__(self, condition: Node, columns: Columns, deadline: Deadline) -> None:
        self._columns = columns
        self._deadline = deadline
        self._repeated = nodes_in(condition)[1]
        self._values: dict[tuple[int, tuple[int, int] | None], Values] = {}
        self._table_bytes = 0
        self._tables: dict[int, _Table | None] = {}
        self._sought: dict[int, Texts] = {}
        self._block: tuple[tuple[int, int], dict[str, Values]] = ((-1, -1), {})
        self._read: dict[int, frozenset[str]] = {}

    def beside(self) -> "_Evaluation":
        """Return another one that has what this one made of the condition, for another thread."""
        other = copy.copy(self)
        other._values, other._block = {}, ((-1, -1), {})
        return other

    def write(self, node: Node, blocks: Iterable[tuple[int, int]], matched: AnyArray) -> None:
        """Write which rows of some blocks meet a condition. Shapes: matched: (rows,), bool."""
        waiting = list(blocks)
        while waiting:
            first, last = waiting.pop()
            try:
                result = self.block(node, first, last)
            except _TooMuchTextError:
                if last - first == 1:
                    raise UsageError(_TOO_MUCH_TEXT) from None
                waiting += [((first + last) // 2, last), (first, (first + last) // 2)]
                continue
            except RecursionError:
                raise FilterValueError("it is nested too deeply") from None
            matched[first:last] = result.values if _has_no_null(result) else result.values & result.valid

    def block(self, node: Node, first: int, last: int) -> Values:
        """Return a node's values for the rows from `first` up to, without, `last`."""
        self._deadline.check()
        table = self._table(node)
        if table is not None:
            return table.rows(first, last)
        return self._evaluated(node, last - first, lambda name: self._column(name, first, last), (first, last))

    def _names(self, node: Node) -> frozenset[str]:
        if id(node) not in self._read:
            self._read[id(node)] = frozenset(columns_in(node))
        return self._read[id(node)]

    def _table(self, node: Node) -> "_Table | None":
        """Return a node's values for each text of the one column that it reads, and for NULL; None where that is not so."""
        if isinstance(node, (ColumnValue, Constant)):
            return None
        if id(node) not in self._tables:
            self._tables[id(node)] = None
            names = self._names(node)
            column = self._dictionary_column(next(iter(names))) if len(names) == 1 else None
            if column is not None and self._table_bytes < _MOST_TABLES:
                domain = np.append(column.dictionary, "")
                values = Values("text", domain, np.arange(len(domain)) < len(domain) - 1)
                with suppress(FilterValueError, _TooMuchTextError):  # perhaps by a row outside of this generation
                    self._tables[id(node)] = _Table(column, self._evaluated(node, len(domain), lambda _: values, None))
                    self._table_bytes += 16 * len(domain)
                self._values = {key: values for key, values in self._values.items() if key[1] is not None}
        return self._tables[id(node)]

    def _dictionary_column(self, name: str) -> Column | None:
        column = self._columns.column(name)
        return column if column is not None and column.has_dictionary else None

    def _column(self, name: str, first: int, last: int) -> Values:
        if self._block[0] != (first, last):
            self._block = ((first, last), {})
        read = self._block[1]
        if name not in read:
            column = self._columns.column(name)
            read[name] = _constant(NULL, None, last - first) if column is None else column.values(first, last)
        return read[name]

    def _evaluated(
        self, node: Node, rows: int, column: Callable[[str], Values], span: tuple[int, int] | None
    ) -> Values:
        """Return a node's values for some rows.

        Args:
            node: the node.
            rows: how many rows.
            column: a column's name -> its values for these rows.
            span: the first row and the one after the last; None where the rows are the texts of a dictionary.
        """

        def computed(part: Node) -> Values:
            return self._evaluated(part, rows, column, None) if span is None else self.block(part, *span)

        def value(part: Node) -> Values:
            if id(part) not in self._repeated:
                return computed(part)
            if (id(part), span) not in self._values:
                self._values[id(part), span] = computed(part)
            return self._values[id(part), span]

        self._deadline.check()

        if isinstance(node, Constant):
            return _constant(node.type, node.value, rows)
        if isinstance(node, ColumnValue):
            return column(node.name)
        if isinstance(node, Joined):
            joined = _joined(node.op, map(value, node.parts), rows)
            for compared in (below for one in node.parts for below in parts_of(one)):
                self._values.pop((id(compared), span), None)
            return joined
        if isinstance(node, Negation):
            part = value(node.part)
            return Values("boolean", ~part.values.astype(bool, copy=False), part.valid)
        if isinstance(node, NullTest):
            return Values("boolean", ~value(node.part).valid, np.ones(rows, dtype=bool))
        if isinstance(node, Comparison):
            equal = self._equal_text(node, span)
            return equal if equal is not None else _compared(node, value, rows)
        if isinstance(node, Distinct):
            return _distinct(node, value, rows)
        if isinstance(node, Membership):
            return self._membership(node, value, rows, span)
        if isinstance(node, Pattern):
            pieces = plain_pieces(node.pattern, node.escape, case_sensitive=node.case_sensitive)
            fitting = self._made_of(node.part, pieces, span)
            if fitting is not None:
                return fitting
            part = value(node.part)
            test = like(node.pattern, node.escape, case_sensitive=node.case_sensitive, check=self._deadline.check)
            return Values("boolean", self._each(test, part.values, part.valid, bool), part.valid)
        if isinstance(node, Arithmetic):
            return _calculated(node, value(node.left), value(node.right))
        if isinstance(node, Cast):
            return _cast(node, value(node.part))
        if node.name in _PIECES and isinstance(node.arguments[1], Constant) and node.arguments[1].value is not None:
            fitting = self._made_of(node.arguments[0], _PIECES[node.name](str(node.arguments[1].value)), span)
            if fitting is not None:
                return fitting
        if node.name == "coalesce":
            return _coalesced(node.type, map(value, node.arguments))
        return self._called(node, [value(argument) for argument in node.arguments])

    def _made_of(self, part: Node, pieces: list[str] | None, span: tuple[int, int] | None) -> Values | None:
        """Return for a column of many different texts which rows are pieces with any text between them, without decoding them.

        None for anything else.
        """
        column = self._plain_column(part) if span is not None else None
        if column is None or span is None or pieces is None or len(pieces) < 2:
            return None
        return Values("boolean", *column.made_of(*span, pieces))

    def _plain_column(self, part: Node) -> Column | None:
        """Return the column of many different texts that a node is, or None."""
        column = self._columns.column(part.name) if isinstance(part, ColumnValue) else None
        return None if column is None or column.type != "text" or column.has_dictionary else column

    def _equal_text(self, node: Comparison, span: tuple[int, int] | None) -> Values | None:
        """Return `column = 'text'` or `column <> 'text'` for a column of many different texts; None for anything else."""
        name, text = node.left, node.right
        if isinstance(name, Constant):
            name, text = text, name
        if node.op not in ("=", "<>") or not isinstance(text, Constant):
            return None
        equal = self._one_of(node, name, [text], span)
        if equal is None or node.op == "=":
            return equal
        return Values("boolean", ~equal.values, equal.valid)

    def _one_of(self, node: Node, part: Node, constants: list[Constant], span: tuple[int, int] | None) -> Values | None:
        """Return for a column of many different texts which rows have one of some, without decoding them.

        None for anything else.
        """
        column = self._plain_column(part)
        if span is None or column is None or any(constant.type != "text" for constant in constants):
            return None
        if id(node) not in self._sought:
            self._sought[id(node)] = Texts(str(constant.value) for constant in constants)
        return Values("boolean", *column.equal_to(*span, self._sought[id(node)]))

    def _membership(
        self, node: Membership, value: Callable[[Node], Values], rows: int, span: tuple[int, int] | None
    ) -> Values:
        constants = [constant for constant in node.values if constant.value is not None]
        has_null = len(constants) < len(node.values)
        equal = self._one_of(node, node.part, constants, span) if constants else None
        if equal is not None:
            return Values("boolean", equal.values, equal.valid & equal.values if has_null else equal.valid)
        if len(constants) <= 8:
            parts = [Comparison("=", node.part, constant) for constant in node.values]
            return _joined("or", (_compared(part, value, rows) for part in parts), rows)
        part = value(node.part)
        values = {constant.value for constant in constants}
        if part.type in ("integer", "number"):
            numbers = [v for v in values if not isinstance(v, int) or v in INT64]
            exact = part.type == "integer" and all(isinstance(v, int) for v in numbers)
            inside = np.isin(part.values, np.array(numbers, np.int64 if exact else np.float64))
        else:
            inside = self._each(values.__contains__, part.values, part.valid, bool)
        return Values("boolean", inside, part.valid & inside if has_null else part.valid)

    def _each(self, function: Callable[..., Any], values: AnyArray, valid: AnyArray, dtype: Any) -> AnyArray:
        """Return a Python function's results for the valid values, looking at the clock now and then."""
        computed = np.full(len(values), "", object) if dtype is object else np.zeros(len(values), dtype)
        positions = np.flatnonzero(valid)
        for start in range(0, len(positions), 4096):
            some = positions[start : start + 4096]
            results, unchecked = [], _TEXT_BETWEEN_CHECKS
            for value in values[some].tolist():
                unchecked += len(value) if isinstance(value, str) else 1
                if unchecked >= _TEXT_BETWEEN_CHECKS:
                    self._deadline.check()
                    unchecked = 0
                results.append(function(value))
            computed[some] = np.array(results, dtype=dtype) if dtype is not object else _objects(results)
        return computed

    def _called(self, node: Call, arguments: list[Values]) -> Values:
        name, first = node.name, arguments[0]
        if name == "nullif":
            same = _joined("and", [_pair("=", *arguments)], len(first.valid))
            return Values(node.type, _as(first, node.type), first.valid & ~(same.values & same.valid))
        if name in ("abs", "ceil", "floor", "round"):
            return _rounded(node, first)
        valid = np.logical_and.reduce([argument.valid for argument in arguments])
        if name in ("contains", "starts_with", "ends_with", "instr") and not isinstance(node.arguments[1], Constant):
            two: dict[str, Callable[[str, str], Any]] = {
                "contains": lambda a, b: b in a, "starts_with": str.startswith, "ends_with": str.endswith,
                "instr": lambda a, b: a.find(b) + 1,
            }  # fmt: skip
            both = _objects(list(zip(first.values.tolist(), arguments[1].values.tolist(), strict=True)))
            dtype = np.int64 if name == "instr" else bool
            return Values(node.type, self._each(lambda pair: two[name](*pair), both, valid, dtype), valid)
        constants = [part.value for part in node.arguments[1:] if isinstance(part, Constant)]
        if None in constants:
            return _constant(node.type, None, len(valid))
        if name == "json_extract":
            texts = self._each(lambda text: json_value(text, str(constants[0])), first.values, valid, object)
            there = valid & np.array([text is not None for text in texts], dtype=bool)
            return Values("text", np.where(there, texts, ""), there)
        function = text_function(name, constants)
        return Values(node.type, self._each(function, first.values, valid, _DTYPES[node.type]), valid)


def _objects(values: list[Any]) -> AnyArray:
    return np.fromiter(values, object, len(values))


# --- logic -----------------------------------------------------------------------------------------------------------


def _joined(op: str, parts: Iterable[Values], rows: int) -> Values:
    """Return Kleene's `and` or `or`: false and NULL is false, true or NULL is true."""
    function = np.logical_or if op == "or" else np.logical_and
    decides = op == "or"  # the value that settles it
    whole = settled = known = None  # of the parts without NULL; and of the others
    for part in parts:  # one after the other: memory holds few of them
        if _has_no_null(part):
            whole = part.values if whole is None else function(whole, part.values)
            continue
        if settled is None or known is None:
            settled, known = np.zeros(rows, dtype=bool), np.ones(rows, dtype=bool)
        settled |= (part.values.astype(bool, copy=False) == decides) & part.valid
        known &= part.valid
    if settled is None or known is None:
        assert whole is not None  # noqa: S101
        return Values("boolean", whole.astype(bool, copy=False), all_valid(rows))
    if whole is not None:
        settled |= whole.astype(bool, copy=False) == decides
    return Values("boolean", settled == decides, settled | known)


def _compared(node: Comparison, value: Callable[[Node], Values], rows: int) -> Values:
    for constant, other, flipped in ((node.right, node.left, False), (node.left, node.right, True)):
        if isinstance(constant, Constant) and constant.type == "integer" and constant.value not in INT64:
            part = value(other)  # larger or smaller than every number of 64 bits
            if part.type == NULL:
                return _constant("boolean", None, rows)
            beyond = np.full(rows, float(constant.value))  # type: ignore[arg-type]
            values = part.values if part.type == "number" else np.zeros(rows)
            sides = (beyond, values) if flipped else (values, beyond)
            return Values("boolean", np.asarray(_OPERATORS[node.op](*sides), dtype=bool), part.valid)
    one = isinstance(node.left, Constant) != isinstance(node.right, Constant)
    left, right = (_scalar(p) if one and isinstance(p, Constant) else value(p) for p in (node.left, node.right))
    return _pair(node.op, left, right)


def _scalar(constant: Constant) -> Values:
    """Return a constant as one value, which every row is compared with."""
    value = _EMPTY[constant.type] if constant.value is None else constant.value
    return Values(constant.type, np.array(value, _DTYPES[constant.type]), np.array(constant.value is not None))


def _both_valid(left: Values, right: Values) -> AnyArray:
    """Return where both values are there, (rows,) bool; one of them may be one value for all rows."""
    for one, other in ((left, right), (right, left)):
        if one.valid.ndim == 0 and bool(one.valid):
            return other.valid
    return left.valid if left.valid is right.valid else left.valid & right.valid


def _pair(op: str, left: Values, right: Values) -> Values:
    valid = _both_valid(left, right)
    if NULL in (left.type, right.type):
        return Values("boolean", np.zeros(len(valid), dtype=bool), np.zeros(len(valid), dtype=bool))
    return Values("boolean", np.asarray(_OPERATORS[op](left.values, right.values), dtype=bool), valid)


def _distinct(node: Distinct, value: Callable[[Node], Values], rows: int) -> Values:
    computed: dict[int, Values] = {}

    def once(part: Node) -> Values:
        if id(part) not in computed:
            computed[id(part)] = value(part)
        return computed[id(part)]

    left, right = (
        np.full(rows, part.value is not None) if isinstance(part, Constant) else once(part).valid
        for part in (node.left, node.right)
    )
    same = _compared(Comparison("=", node.left, node.right), once, rows)
    equal = (same.values & same.valid) | (~left & ~right)
    return Values("boolean", equal == node.equal, np.ones(rows, dtype=bool))


# --- numbers ---------------------------------------------------------------------------------------------------------


def _as(values: Values, type: str) -> AnyArray:
    """Return values in the type that they were found to have in common with others."""
    if values.type == NULL:
        return np.full(len(values.valid), _EMPTY[type], _DTYPES[type])
    return values.values if values.type == type else values.values.astype(_DTYPES[type])


def _calculated(node: Arithmetic, left: Values, right: Values) -> Values:
    valid = left.valid & right.valid
    if node.type == NULL or NULL in (left.type, right.type):
        return Values(NULL, np.zeros(len(valid), dtype=bool), np.zeros(len(valid), dtype=bool))
    if node.op == "||":
        if sum(map(len, left.values)) + sum(map(len, right.values)) > _MOST_TEXT:
            raise _TooMuchTextError
        return Values("text", np.asarray(left.values + right.values, dtype=object), valid)
    if node.op in ("/", "%"):
        return _divided(node, left, right, valid)
    function = {"+": operator.add, "-": operator.sub, "*": operator.mul}[node.op]
    with np.errstate(all="ignore"):
        numbers = function(_as(left, node.type), _as(right, node.type))
        if node.type == "integer":
            roughly = function(left.values.astype(np.float64), right.values.astype(np.float64))
            _refuse(valid & (np.abs(roughly) >= 2.0**63), f"an integer beyond 64 bits ({node.op})")
        else:
            _refuse(valid & ~np.isfinite(numbers), f"a number that is too large ({node.op})")
    return Values(node.type, numbers, valid)


def _divided(node: Arithmetic, left: Values, right: Values, valid: AnyArray) -> Values:
    valid = valid & (right.values != 0)
    divisor = np.where(right.values == 0, 1, right.values)
    with np.errstate(all="ignore"):
        if node.op == "/":
            quotients = left.values.astype(np.float64) / divisor.astype(np.float64)
            _refuse(valid & ~np.isfinite(quotients), "a number that is too large (/)")
        else:
            quotients = np.fmod(
                _as(left, node.type), divisor.astype(_DTYPES[node.type])
            )  # has the sign of the left side
    return Values(node.type, quotients, valid)


def _rounded(node: Call, part: Values) -> Values:
    if part.type == NULL:
        return part
    if node.name == "abs":
        _refuse(part.valid & (part.values == -(2**63)) & (part.type == "integer"), "an integer beyond 64 bits (abs)")
        return Values(part.type, np.abs(part.values), part.valid)
    if node.name in ("ceil", "floor"):
        function = np.ceil if node.name == "ceil" else np.floor
        return Values(part.type, part.values if part.type == "integer" else function(part.values), part.valid)
    digits = node.arguments[1] if len(node.arguments) > 1 else Constant("integer", 0)
    if not isinstance(digits, Constant) or digits.value is None:
        return Values(part.type, part.values, np.zeros(len(part.valid), dtype=bool))
    decimals = int(digits.value)
    if part.type == "integer" and decimals >= 0:
        return part
    if not -15 <= decimals <= 15:
        raise FilterValueError(f"round takes from -15 to 15 digits; found {decimals}")
    scale = 10.0**decimals
    shifted = part.values * scale
    rounded = np.trunc(shifted + np.copysign(0.5, shifted)) / scale  # half away from zero
    return Values(part.type, rounded.astype(_DTYPES[part.type]), part.valid)


def _refuse(where: AnyArray, what: str) -> None:
    if np.any(where):
        raise FilterValueError(f"a row gives {what}")


# --- types -----------------------------------------------------------------------------------------------------------


def _coalesced(type: str, arguments: Iterator[Values]) -> Values:
    first = next(arguments)
    values, valid = _as(first, type).copy(), first.valid.copy()
    for argument in arguments:
        fill = ~valid & argument.valid
        values[fill] = _as(argument, type)[fill]
        valid |= fill
    return Values(type, values, valid)


def _cast(node: Cast, part: Values) -> Values:
    if part.type == NULL:
        return _constant(node.type, None, len(part.valid))
    if part.type == node.type:
        return part
    if (part.type, node.type) == ("integer", "number"):
        return Values("number", part.values.astype(np.float64), part.valid)
    values = np.full(len(part.valid), _EMPTY[node.type], _DTYPES[node.type])
    valid = part.valid.copy()
    for row in np.flatnonzero(part.valid).tolist():
        try:
            values[row] = cast_one(part.values[row], part.type, node.type)
        except ValueError:
            if node.strict:
                shown = str(part.values[row])[:60]
                raise FilterValueError(
                    f"a row's value {shown!r} cannot be cast to {node.type}; try_cast gives NULL for it"
                ) from None
            valid[row] = False
    return Values(node.type, values, valid)
