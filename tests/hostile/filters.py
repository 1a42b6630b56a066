"""Hostile conditions of `--filter`."""

import random
import shutil
from functools import partial
from pathlib import Path

from tests.hostile import kinds
from tests.native import messages

_ATOMS = [
    "n",
    "b",
    "l",
    "1",
    "-1",
    "1e999",
    "'en'",
    "null",
    "true",
    "''",
    '"n"',
    "id",
    "text",
    "nothing",
    "x'00'",
    "9" * 400,
    "n.m",
    "*",
    "count(*)",
    "randomblob(9)",
    "load_extension('x')",
    "readfile('/etc/passwd')",
    "(select 1)",
    "sqlite_version()",
    "upper(l)",
    "length(text)",
    "abs(n)",
    "cast(n as text)",
    "coalesce(n, 1)",
    "'a' || l",
    "repeat('a', 1000000000)",
    "pi()",
]
_OPERATORS = [
    "=",
    "<>",
    "<",
    "<=",
    "+",
    "-",
    "*",
    "/",
    "%",
    "and",
    "or",
    "like",
    "ilike",
    "in",
    "is",
    "||",
    "between",
    "union select",
    ";",
    ",",
    "->",
]


def condition(rng: random.Random, depth: int = 0) -> str:
    """Return an SQL condition, mostly a wrong one."""
    if depth > 5 or rng.random() < 0.3:
        return rng.choice(_ATOMS)
    inner = partial(condition, rng, depth + 1)
    return rng.choice(
        [
            lambda: f"{inner()} {rng.choice(_OPERATORS)} {inner()}",
            lambda: f"({inner()})",
            lambda: f"not {inner()}",
            lambda: f"{inner()} in ({inner()}, {inner()})",
            lambda: f"{inner()} between {inner()} and {inner()}",
            lambda: f"case when {inner()} then {inner()} end",
            lambda: f"l like '{'%_' * rng.choice((1, 3, 40))}'",
            lambda: f"{inner()}) or (1=1",
        ]
    )()


_WORDS = (
    "n", "b", "l", "id", "nothing", "1", "2.5", "-1", "1e5", ".5", "5.", "1e", "'a'", "''", "'x", "null", "true",
    "false", "(", ")", "[", "]", "[n]", '"n"', "`n`", ",", ".", ":", "::", ";", "=", "==", "<>", "!=", "<", ">", "<=",
    ">=", "<=>", "+", "-", "*", "/", "%", "||", "->", "->>", "--", "/*", "*/", "and", "or", "not", "in", "is",
    "distinct", "from", "between", "symmetric", "like", "ilike", "escape", "isnull", "notnull", "cast", "try_cast",
    "as", "text", "integer", "decimal(1,2)", "boolean", "double", "precision", "trim", "leading", "trailing", "both",
    "ltrim", "substring", "for", "substr", "position", "instr", "json_extract", "'$.a'", "'$[0]'", '\'$."\\q"\'',
    "coalesce", "nullif", "abs", "round", "length", "lower", "contains", "starts_with", "mod", "case", "when", "then",
    "end", "exists", "select", "\u202e", "\ufffd", "\x00", "\xa0", "\u0663", "!", "?", "@", "#", "$", "~", "^", "&",
    "|", "{", "}", "\\",
)  # fmt: skip
"""The syntax of `search.sql`, and what is no part of it."""
_MANY = (
    *("(", "not ", "- ", "/* ", "[", "'", '"', "n = 1 or ", "n::"),
    *("b is true is ", "lower(", "a ", "1,", "-- x\n", "nn", "||", ".", "9"),
)


def nested(rng: random.Random) -> str:
    """Return a condition that is nested in one way."""
    depth = rng.choice((3, 30, 60, 199, 1000))
    before, inner, after = rng.choice(
        (
            ("(", "b", " between b and b)"),
            ("(", "b", " in (b, true))"),
            ("(", "b", " is distinct from b)"),
            ("", "b", " is true"),
            ("", "b", " = true"),
            ("abs(", "n", ")"),
            ("coalesce(", "n", ", n + 1)"),
            ("lower(", "l", " || l)"),
            ("cast(", "n", " as integer)"),
            ("(n + ", "1", ")"),
            ("not (", "b", " and b)"),
            ("json_extract(", "l", ", '$.a')"),
            ("nullif(", "b", ", b is null)"),
            ("(l in (", "l", ", 'en'))::text"),
        )
    )
    return before * depth + inner + after * depth + rng.choice(("", " = 1", " = 'a'", " is null"))


def filter_case(bases: Path, folder: Path, rng: random.Random) -> kinds.Case:
    """Search an index with any condition."""
    shutil.copytree(bases / rng.choice(("index0", "index0", "large0")), folder / "x.index")
    roll = rng.random()
    text = condition(rng)
    if roll < 0.03:
        text = "(" * (depth := rng.choice((100, 5000, 100_000))) + "n > 1" + ")" * depth
    elif roll < 0.06:
        text = " or ".join(["n = 1"] * rng.choice((100, 3000)))
    elif roll < 0.2:
        text = nested(rng)
    elif roll < 0.35:
        text = " ".join(rng.choice(_WORDS) for _ in range(rng.randint(1, 25)))
    elif roll < 0.4:
        text = rng.choice(_MANY) * rng.choice((1, 100, 5000, 100_000))
    elif roll < 0.45:
        text = messages.damage(text.encode(), rng).decode("utf-8", "surrogateescape")
    return kinds.Case(text[:300], partial(_use_filter, text=text))


def _use_filter(folder: Path, text: str) -> str:
    from sbert_mini import SearchIndex

    index = SearchIndex(folder / "x.index", threads=1, offline=True, filter_timeout_s=10)
    return f"read {len(index.search('the cat', 3, filter=text))}"
