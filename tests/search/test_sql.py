"""The syntax of SQL conditions: how operators bind, worked by hand, and what is not one condition."""

import random
from contextlib import suppress

import pytest

from sbert_mini.search.sql import (
    NestedTooDeeplyError,
    NotOneConditionError,
    RefusedError,
    Syntax,
    UnknownSqlError,
    parse,
)

FUNCTIONS = {"lower", "substring", "trim"}


def shown(node: Syntax) -> str:
    """Return a tree as nested parentheses: the kind or the sign, then the parts."""
    if not node.parts:
        return node.value or node.kind
    name = node.value if node.kind in ("compare", "calculate", "call", "distinct") else node.kind
    return f"({name} {' '.join(map(shown, node.parts))})"


@pytest.mark.parametrize(
    ("condition", "tree"),
    [
        ("a or b and not c = d", "(or a (and b (not (= c d))))"),
        ("a and b and c or d", "(or (and a b c) d)"),
        ("(a and b) and c", "(and (and a b) c)"),
        ("not not a", "(not (not a))"),
        ("a = not b = c and d", "(and (= a (not (= b c))) d)"),
        ("a < b = c > d", "(= (< a b) (> c d))"),
        ("a = b = c", "(= (= a b) c)"),
        ("a - b - c * d % e", "(- (- a b) (% (* c d) e))"),
        ("a + b || c", "(+ a (|| b c))"),
        ("-a * -1", "(* (negative a) -1)"),
        ("- -1.5e3 < +b", "(< (negative -1.5e3) b)"),
        ("a between 1 + 1 and 2 and b", "(and (between a (+ 1 1) 2) b)"),
        ("a not between b and c", "(not (between a b c))"),
        ("a in (1, -2, (b or c)) is true", "(is (in a 1 -2 (or b c)) true)"),
        ("a not in ('x', 'it''s')", "(not (in a x it's))"),
        ("a like 'b' || 'c' escape '!' or d", "(or (like a (|| b c) !) d)"),
        ("a not ilike 'b'", "(not (ilike a b))"),
        ("a = 1 is null", "(is (= a 1) null)"),
        ("a is not null is true", "(is (not (is a null)) true)"),
        ("a isnull or b notnull or c not null", "(or (is a null) (not (is b null)) (not (is c null)))"),
        ("a is b", "(= a b)"),
        ("a is not b + 1", "(<> a (+ b 1))"),
        ("a is not distinct from b or a <=> b", "(or (= a b) (= a b))"),
        ("a is distinct from b < c", "(<> a (< b c))"),
        ("cast(a or b as Double Precision) > 1", "(> (cast (or a b)) 1)"),
        ("-a::decimal(10, 2) < 1", "(< (negative (cast a)) 1)"),
        (
            "a::boolean and a::text is null or a::int in (1, 2)",
            "(or (and (cast a) (is (cast a) null)) (in (cast a) 1 2))",
        ),
        ("a -> 'x' ->> 'y' = 'z'", "(= (json_extract (json_extract a x) y) z)"),
        ("trim(trailing from a) = lower(b)", "(= (rtrim a) (lower b))"),
        ("substring(a from 2 for 3) = position('b' in c)", "(= (substring a 2 3) (instr c b))"),
        ('"a b" = [c\'d] /* 1 */ -- 2\n and `e``f` = """"', "(and (= a b c'd) (= e`f \"))"),
        ("order = 1.5 and größe=.5", "(and (= order 1.5) (= größe .5))"),
        ("a=1and b", "(and (= a 1) b)"),
    ],
)
def test_how_operators_bind(condition, tree):
    assert shown(parse(condition, FUNCTIONS)) == tree


@pytest.mark.parametrize("number", ["1e", "1.e5", "2.", "007", "1E+3"])
def test_a_number_is_kept_as_it_is_written(number):
    assert parse(f"a < {number}", FUNCTIONS).parts[1].value == number


@pytest.mark.parametrize("condition", ["cast(a as varchar(3)) = 'b'", "a in (1,\n2)", "not a", "lower( a )=b"])
def test_an_expression_knows_how_it_is_written(condition):
    assert parse(condition, FUNCTIONS).source == condition


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("", "something is missing, at the end"),
        ("a =", "something is missing, at the end"),
        ("a = = b", "it is not expected, at '='"),
        ("(a", r"'\)' is missing, at the end"),
        ("a b", "it is not expected, at 'b'"),
        ("a)", r"it is not expected, at '\)'"),
        ("a; b", "it is not expected, at ';'"),
        ("a = 'b", "a closing quote is missing, after '"),
        ('"a', 'a closing quote is missing, after "'),
        ("a in (1,, 2)", "it is not expected, at ','"),
        ("lower(a,) = 'b'", r"it is not expected, at '\)'"),
        ("a not b", "it is not expected, at 'b'"),
        ("cast(a as 'b')", "a type is missing, at \"'b'\""),
        ("cast(a)", r"'as' is missing, at '\)'"),
        ("between = 1", "something is missing, at 'between'"),
    ],
)
def test_what_is_not_one_condition(condition, why):
    with pytest.raises(NotOneConditionError, match=why):
        parse(condition, FUNCTIONS)


@pytest.mark.parametrize(
    ("condition", "what"),
    [
        ("select = 1", "select"),
        ("exists (select 1)", r"exists\(\.\.\.\)"),
        ("upper(a) = 'b'", r"upper\(\.\.\.\)"),
        ("a & 1 = 1", "&"),
        ("a = ?", r"\?"),
        ("a collate nocase = 'b'", "collate"),
    ],
)
def test_what_has_no_meaning_here(condition, what):
    with pytest.raises(UnknownSqlError, match=what):
        parse(condition, FUNCTIONS)


def test_names_of_tables_and_selections_are_refused():
    for condition, why in (("t.a = 1", "'t.a' names a table"), ("a in b", "'a in b': in takes a list of values")):
        with pytest.raises(RefusedError, match=why):
            parse(condition, FUNCTIONS)


@pytest.mark.parametrize("type", ["date", "TIMESTAMP", "interval"])
def test_a_date_is_a_text(type):
    with pytest.raises(RefusedError, match=f"{type} '2020-01-31'\": dates are texts .* write '2020-01-31' alone"):
        parse(f"a >= {type} '2020-01-31'", FUNCTIONS)
    assert parse(f"{type} = 'x' and {type} > a", FUNCTIONS).kind == "and"  # a column may have this name


def test_a_long_chain_is_flat_and_a_deep_nest_is_refused():
    assert len(parse(" or ".join(["a = 1"] * 10_000), FUNCTIONS).parts) == 10_000
    assert parse("(" * 150 + "a" + ")" * 150, FUNCTIONS).value == "a"
    for deep in (
        "(" * 5000 + "a",
        "not " * 300 + "a",
        " - " * 300 + "a",
        "a" + " + a" * 200_000,
        "a" + " is null" * 300,
    ):
        with pytest.raises(NestedTooDeeplyError):
            parse(deep, FUNCTIONS)
    assert len(parse(f"a in ({', '.join(map(str, range(100_000)))})", FUNCTIONS).parts) == 100_001


def test_random_tokens_end_in_a_tree_or_in_an_error_of_this_module():
    rng = random.Random(5)
    words = [
        "a",
        "1",
        "'b'",
        "and",
        "not",
        "in",
        "(",
        ")",
        ",",
        "=",
        "-",
        "is",
        "null",
        "between",
        "like",
        "cast(",
        "as",
        "::",
        ".",
    ]
    for _ in range(20_000):
        condition = " ".join(rng.choices(words, k=rng.randint(1, 9)))
        with suppress(NotOneConditionError, RefusedError, UnknownSqlError, NestedTooDeeplyError):
            parse(condition, FUNCTIONS)
