"""SQL conditions -> syntax trees, before names and types are looked at (`search.conditions`).

Operators, the loosest first; those of one line are read from the left, and `not x` takes what binds as tightly as `=` or tighter:

    or
    and
    =  ==  <>  !=  <=>  is [not] null, true, false, x;  is [not] distinct from x
    <  <=  >  >=
    [not] between, [not] in, [not] like, [not] ilike, isnull, notnull, not null
    +  -
    *  /  %
    ||
    -x  +x
    x::type  x -> 'path'  x ->> 'path'

Comments (`-- ...`, `/* ... */`) are skipped.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_DEPTH = 200
_OR, _AND, _EQUALITY, _COMPARISON, _RANGE, _SUM, _PRODUCT, _CONCATENATION, _UNARY, _POSTFIX = range(1, 11)
_LEVELS: dict[str, int] = {
    "or": _OR, "and": _AND,
    "=": _EQUALITY, "==": _EQUALITY, "<>": _EQUALITY, "!=": _EQUALITY, "<=>": _EQUALITY, "is": _EQUALITY,
    "<": _COMPARISON, "<=": _COMPARISON, ">": _COMPARISON, ">=": _COMPARISON,
    "not": _RANGE, "between": _RANGE, "in": _RANGE, "like": _RANGE, "ilike": _RANGE, "isnull": _RANGE, "notnull": _RANGE,
    "+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "%": _PRODUCT, "||": _CONCATENATION,
    "::": _POSTFIX, "->": _POSTFIX, "->>": _POSTFIX,
}  # fmt: skip
_SIGNS = {"==": "=", "!=": "<>"}
_NO_NAMES = frozenset(_LEVELS) | {"escape", "as", "distinct"}
_ELSEWHERE = frozenset(
    {"select", "case", "exists", "glob", "regexp", "rlike", "match", "similar", "collate", "div", "mod"}
)
"""Words of SQL that have no meaning here."""
_TIMES = frozenset({"date", "time", "timestamp", "timestamptz", "datetime", "interval"})
"""Words of SQL before a text that stands for a moment."""
_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*|/\*.*?\*/)
    |(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d*)?)
    |(?P<word>[^\W\d$][\w$]*)
    |(?P<text>'[^']*(?:''[^']*)*')
    |(?P<quoted>"(?!"(?!"))[^"]*(?:""[^"]*)*"|`(?!`(?!`))[^`]*(?:``[^`]*)*`|\[[^\]]+\])
    |(?P<comment>/\*)
    |(?P<sign><=>|->>|<>|<=|>=|==|!=|\|\||->|::|[=<>+\-*/%(),.])
    |(?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)


_OPENING = "'\"`["


class NotOneConditionError(ValueError):
    """A text that is not one SQL condition; the message says why."""


class RefusedError(ValueError):
    """A condition cannot be evaluated; the message says why."""


class UnknownSqlError(ValueError):
    """SQL that has no meaning here; the message is how it is written."""


class NestedTooDeeplyError(ValueError):
    """A condition that is nested too deeply."""


@dataclass(frozen=True, slots=True)
class Syntax:
    """An expression as it is written.

    Attributes:
        kind: `name`, `quoted` (a name in quotes), `number`, `text`, `boolean`, `null`; `and`, `or`, `not`, `compare`, `distinct`,
            `is`, `in`, `between`, `like`, `ilike`; `calculate`, `negative`, `cast`, `try_cast`, `call`.
        condition: the whole condition.
        start, stop: where it stands in the condition.
        value: of a name, a text, a number or a boolean; the sign of an operator; the name of a type or a function.
        parts: the expressions directly below it, in the order of its text: for `in` the expression and the values, for `like` the
            expression, the pattern and perhaps the escape character.
    """

    kind: str
    condition: str = field(repr=False)
    start: int
    stop: int
    value: str = ""
    parts: tuple["Syntax", ...] = ()

    @property
    def source(self) -> str:
        """How it is written. It is not kept: each part of a nested condition holds all that is nested in it."""
        return self.condition[self.start : self.stop]


class _Token(NamedTuple):
    kind: str
    text: str
    lower: str
    start: int
    stop: int


_NULL = Syntax("null", "null", 0, 4)


def parse(condition: str, functions: Collection[str]) -> Syntax:
    """Return the syntax tree of a condition.

    Args:
        condition: in SQL.
        functions: the names of those that there are, in small letters.

    Raises:
        NotOneConditionError: it cannot be read, or something follows it.
        RefusedError: it uses something of SQL for which there is another way.
        UnknownSqlError: it uses something of SQL that is not listed above, or a function that there is not.
        NestedTooDeeplyError: it is nested more than `MAX_DEPTH` deep.
    """
    return _Parser(condition, functions).whole()


def shortened(source: str) -> str:
    """Return a part of a condition as an error shows it."""
    text = " ".join(source.split())
    return text if len(text) <= 80 else text[:79] + "…"


def _tokens(condition: str) -> list[_Token]:
    """Return the tokens of a condition, up to a quote or bracket that is not closed: looking for the end of each one takes long.

    Raises:
        NotOneConditionError: a comment is not closed.
    """
    tokens = []
    for match in _TOKEN.finditer(condition):
        kind, text = str(match.lastgroup), match.group()
        if kind == "space":
            continue
        if kind == "comment":
            raise NotOneConditionError("a comment is not closed: */ is missing")
        lower = text.lower() if kind in ("word", "sign") else ""
        tokens.append(_Token(kind, text, lower, match.start(), match.end()))
        if kind == "other" and text in _OPENING:
            break
    return [*tokens, _Token("end", "", "", len(condition), len(condition))]


def _of_time(source: str, text: str) -> str:
    """Return why a moment is refused, which is written as a text after the name of a type."""
    return f"{shortened(source)!r}: dates are texts here, which sort as dates do in the form 2026-01-31: write {text} alone"


def _unquoted(text: str) -> str:
    """Return what stands in quotes."""
    return text[1:-1] if text[0] == "[" else text[1:-1].replace(text[0] * 2, text[0])


class _Parser:
    """Reads one condition by the levels of its operators (Pratt's method)."""

    def __init__(self, condition: str, functions: Collection[str]) -> None:
        self._condition = condition
        self._functions = functions
        self._tokens = _tokens(condition)
        self._at = 0
        self._depth = 0

    def whole(self) -> Syntax:
        """Return the condition, which must end with the text."""
        node = self.expression(_OR)
        if self._next.kind != "end":
            raise self._unexpected()
        return node

    def expression(self, level: int) -> Syntax:
        """Return the expression that begins here, of operators of this level and tighter ones."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NestedTooDeeplyError
        start = self._next.start
        left = self._operand()
        operations = 0
        while _LEVELS.get(self._next.lower, 0) >= level:
            left = self._operation(left, start)
            operations += 1
            if operations > MAX_DEPTH:  # each lies in the next one
                raise NestedTooDeeplyError
        self._depth -= 1
        return left

    # --- tokens

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._next
        self._at += 1
        return token

    def _accept(self, *lower: str) -> bool:
        """Take these tokens if they come next; return whether they do."""
        if all(self._tokens[self._at + i].lower == text for i, text in enumerate(lower)):  # the last token has no text
            self._at += len(lower)
            return True
        return False

    def _expect(self, lower: str) -> None:
        if not self._accept(lower):
            raise self._unexpected(f"{lower!r} is missing")

    def _unexpected(self, what: str = "") -> ValueError:
        """Return the error for the next token."""
        token = self._next
        if token.kind == "end":
            return NotOneConditionError(f"{what or 'something is missing'}, at the end")
        if (token.kind == "other" and token.text not in f";{_OPENING}") or token.lower in _ELSEWHERE:
            return UnknownSqlError(token.text)
        if token.kind == "other" and token.text != ";":
            return NotOneConditionError(f"a closing quote is missing, after {token.text}")
        return NotOneConditionError(f"{what or 'it is not expected'}, at {token.text[:40]!r}")

    def _node(self, kind: str, start: int, value: str = "", parts: tuple[Syntax, ...] = ()) -> Syntax:
        """Return a node that ends before the next token."""
        return Syntax(kind, self._condition, start, self._tokens[self._at - 1].stop, value, parts)

    # --- operands

    def _operand(self) -> Syntax:
        token = self._next
        start = token.start
        if token.kind == "word":
            return self._word()
        if token.kind in ("number", "text", "quoted"):
            self._at += 1
            value = token.text if token.kind == "number" else _unquoted(token.text)
            return (
                self._name("quoted", start, value) if token.kind == "quoted" else self._node(token.kind, start, value)
            )
        if self._accept("("):
            inner = self.expression(_OR)
            self._expect(")")
            return inner
        if self._accept("-"):
            if self._next.kind == "number":
                return self._node("number", start, f"-{self._take().text}")
            part = self.expression(_UNARY)
            return self._node("negative", start, "-", (part,))
        if self._accept("+"):
            return self.expression(_UNARY)
        raise self._unexpected()

    def _word(self) -> Syntax:
        token, following = self._next, self._tokens[self._at + 1]
        lower, start = token.lower, token.start
        if self._accept("not"):
            part = self.expression(_EQUALITY)
            return self._node("not", start, "not", (part,))
        if lower in _NO_NAMES:
            raise self._unexpected("something is missing")
        if lower in _TIMES and following.kind == "text":
            raise RefusedError(_of_time(self._condition[start : following.stop], following.text))
        if following.text == "(":
            if lower not in self._functions and lower not in ("cast", "try_cast", "position"):
                raise UnknownSqlError(f"{token.text}(...)")
            self._at += 2
            return self._cast(lower, start) if lower in ("cast", "try_cast") else self._call(lower, start)
        if lower in _ELSEWHERE:
            raise UnknownSqlError(token.text)
        self._at += 1
        if lower in ("true", "false"):
            return self._node("boolean", start, lower)
        return self._node("null", start) if lower == "null" else self._name("name", start, token.text)

    def _name(self, kind: str, start: int, value: str) -> Syntax:
        """Return a name, which no dot follows."""
        if not self._accept("."):
            return self._node(kind, start, value)
        source = shortened(self._condition[start : self._next.stop])
        raise RefusedError(f"{source!r} names a table; a column is named by itself, in double quotes if it has a dot")

    def _cast(self, kind: str, start: int) -> Syntax:
        part = self.expression(_OR)
        self._expect("as")
        type_ = self._type()
        self._expect(")")
        return self._node(kind, start, type_, (part,))

    def _type(self) -> str:
        """Return the name of a type, without its sizes."""
        if self._next.kind not in ("word", "quoted"):
            raise self._unexpected("a type is missing")
        name = self._take().text.lower().strip('"`[]')
        if name == "double" and self._next.lower == "precision":  # the only type of two words
            name += f" {self._take().lower}"
        if self._accept("("):
            while self._next.kind == "number" or self._next.text == ",":
                self._at += 1
            self._expect(")")
        return name

    def _call(self, name: str, start: int) -> Syntax:
        """Return a call, whose name and parenthesis were read; also `trim(leading from x)`, `substring(x from 1 for 2)`."""
        side = self._next.lower if name == "trim" else ""
        after = self._tokens[self._at + 1].text if side else ""  # a word has a next
        if side in ("leading", "trailing", "both") and after not in (")", ","):
            self._at += 1
            name = {"leading": "ltrim", "trailing": "rtrim", "both": "trim"}[side]
            characters = () if self._next.lower == "from" else (self.expression(_OR),)
            self._expect("from")
            arguments = (self.expression(_OR), *characters)
        elif name == "position":
            part = self.expression(_SUM)
            self._expect("in")
            name, arguments = "instr", (self.expression(_OR), part)
        else:
            arguments = self._list()
            for word in ("from", "for"):
                if name == "substring" and self._accept(word):
                    arguments += (self.expression(_OR),)
        self._expect(")")
        return self._node("call", start, name, arguments)

    def _list(self) -> tuple[Syntax, ...]:
        """Return expressions with commas between them, up to a closing parenthesis."""
        if self._next.text == ")":
            return ()
        parts = [self.expression(_OR)]
        while self._accept(","):
            parts.append(self.expression(_OR))
        return tuple(parts)

    # --- operators

    def _operation(self, left: Syntax, start: int) -> Syntax:
        """Return the operation that begins with an operand and the operator after it."""
        operator = self._take().lower
        level = _LEVELS[operator]
        if operator in ("and", "or"):
            parts = [left, self.expression(level + 1)]
            while self._accept(operator):
                parts.append(self.expression(level + 1))
            return self._node(operator, start, operator, tuple(parts))
        if operator == "is":
            return self._is(left, start)
        if operator == "::":
            return self._node("cast", start, self._type(), (left,))
        if level == _RANGE:
            return self._range(left, operator, start)
        right = self.expression(level + 1)
        if level == _POSTFIX:
            return self._node("call", start, "json_extract", (left, right))
        if operator == "<=>":
            return self._node("distinct", start, "=", (left, right))
        kind = "compare" if level in (_EQUALITY, _COMPARISON) else "calculate"
        return self._node(kind, start, _SIGNS.get(operator, operator), (left, right))

    def _is(self, left: Syntax, start: int) -> Syntax:
        negative = self._accept("not")
        if self._accept("distinct", "from"):
            parts = (left, self.expression(_COMPARISON))
            return self._node("distinct", start, "=" if negative else "<>", parts)
        right = self.expression(_COMPARISON)
        if right.kind not in ("null", "boolean"):
            return self._node("distinct", start, "<>" if negative else "=", (left, right))
        return self._negated(negative, self._node("is", start, "is", (left, right)))

    def _range(self, left: Syntax, operator: str, start: int) -> Syntax:
        negative = operator == "not"
        if negative:
            operator = self._next.lower
            if self._accept("null"):
                return self._negated(negative, self._node("is", start, "is", (left, _NULL)))
            if operator not in ("between", "in", "like", "ilike"):
                raise self._unexpected()
            self._at += 1
        if operator in ("isnull", "notnull"):
            test = self._node("is", start, "is", (left, _NULL))
            return self._negated(operator == "notnull", test)
        if operator == "between":
            if self._accept("symmetric"):
                source = self._condition[start : self._next.start].strip()
                raise RefusedError(f"{shortened(source)!r}: between symmetric is not known")
            low = self.expression(_SUM)
            self._expect("and")
            return self._negated(negative, self._node("between", start, "", (left, low, self.expression(_SUM))))
        if operator == "in":
            return self._negated(negative, self._in(left, start))
        parts = [left, self.expression(_SUM)]
        if self._accept("escape"):
            parts.append(self.expression(_SUM))
        return self._negated(negative, self._node(operator, start, operator, tuple(parts)))

    def _in(self, left: Syntax, start: int) -> Syntax:
        parts: tuple[Syntax, ...] = ()
        if self._accept("(") and self._next.lower != "select":
            parts = self._list()
            self._expect(")")
        if not parts:
            source = self._condition[start : self._next.stop]
            raise RefusedError(f"{shortened(source)!r}: in takes a list of values in parentheses")
        return self._node("in", start, "in", (left, *parts))

    def _negated(self, negative: bool, node: Syntax) -> Syntax:
        return Syntax("not", node.condition, node.start, node.stop, "not", (node,)) if negative else node
