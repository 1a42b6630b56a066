"""Headings and definitions, against markdown-it and Python's own parser."""

import ast
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from sbert_mini.documents.outline import SHORT, outline, parts, trail

ROOT = Path(__file__).parent.parent.parent
LINES = st.sampled_from(
    [
        "# One",
        "## Two ##",
        "### Three",
        "####### no",
        "#no",
        "text",
        "more text",
        "",
        "",
        "Title",
        "===",
        "---",
        "```",
        "~~~~",
        "    # code",
    ]
)


def markdown_it_headings(text):
    """(level, first line, title) of the headings at the top of a document, by markdown-it."""
    tokens = MarkdownIt("commonmark").parse(text)
    return [
        (int(token.tag[1]), token.map[0], " ".join(tokens[i + 1].content.split()))
        for i, token in enumerate(tokens)
        if token.type == "heading_open" and token.level == 0 and tokens[i + 1].content.strip()
    ]


def ours(text, format="markdown"):
    return [(h.level, text.count("\n", 0, h.start), h.title) for h in outline(text, format) if h.title]


@given(st.lists(LINES, max_size=13).map("\n".join))
def test_markdown_headings_are_those_of_markdown_it(text):
    if text.startswith("---"):  # front matter, which CommonMark does not have
        return
    assert ours(text) == markdown_it_headings(text)


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/trust.md", "docs/search.md"])
def test_headings_of_our_own_documents(name):
    text = (ROOT / name).read_text("utf-8")
    expected = [(level, line, title) for level, line, title in markdown_it_headings(text)]
    assert [(level, line) for level, line, _ in ours(text)] == [(level, line) for level, line, _ in expected]


def test_front_matter_is_no_heading():
    assert ours("---\ntitle: x\n---\n\n# Real\n") == [(1, 4, "Real")]


def test_rst_headings_by_hand():
    text = "=====\nTitle\n=====\n\nIntro\n\nFirst\n-----\n\nBody\n\nInner\n~~~~~\n\nSecond\n------\nnot\n--\n"
    assert ours(text, "rst") == [(1, 0, "Title"), (2, 6, "First"), (3, 11, "Inner"), (2, 14, "Second")]


@pytest.mark.parametrize("path", ["sbert_mini/documents/outline.py", "sbert_mini/search/store.py", "cli/main.py"])
def test_python_definitions_are_those_of_its_parser(path):
    text = (ROOT / path).read_text("utf-8")
    expected = {
        node.lineno
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef))
    }
    found = {text.count("\n", 0, h.body - 1) + 1 for h in outline(text, "code", path) if h.title}
    assert found == expected


CODE = """import os

// A point.
struct Point {
    int x;
};

static int add(int a, int b) {
    if (a > b) {
        return a;
    }
    call(a, b);
    return a + b;
}
"""


def test_definitions_of_c():
    assert [(h.level, h.title) for h in outline(CODE, "code", "a.c") if h.title] == [
        (1, "struct Point"),
        (1, "static int add(int a, int b)"),
    ]
    assert outline(CODE, "code", "a.c")[0].start == CODE.index("// A point")


@pytest.mark.parametrize(
    ("path", "line", "title"),
    [
        ("a.js", "export const f = async (a) => {", "export const f = async (a) =>"),
        ("a.rs", "pub(crate) fn find(&self) -> Option<u32> {", "pub(crate) fn find(&self) -> Option<u32>"),
        ("a.go", "func (s *Store) Find(id string) int {", "func (s *Store) Find(id string) int"),
        ("a.sh", "deploy() {", "deploy()"),
        ("a.java", "    public List<String> names(int k) {", "public List<String> names(int k)"),
    ],
)
def test_definitions_of_other_languages(path, line, title):
    assert [h.title for h in outline(f"{line}\n  x;\n}}\n", "code", path) if h.title] == [title]


NO_DEFINITIONS = [("a.c", "foo(bar);"), ("a.c", "} else if (x) {"), ("a.c", "while (x) {"), ("a.py", "define = 1")]


@pytest.mark.parametrize(("path", "line"), NO_DEFINITIONS)
def test_no_definitions(path, line):
    assert [h.title for h in outline(f"{line}\n", "code", path) if h.title] == []


@given(st.text(alphabet="ab# \n", max_size=3000))
def test_parts_are_the_text_and_none_but_a_whole_one_is_short(text):
    spans = parts(text, outline(text, "markdown"))
    assert "".join(text[start:end] for start, end in spans) == text
    assert len(spans) == 1 or all(end - start >= SHORT for start, end in spans)


def test_a_trail_is_of_the_first_line_that_is_no_heading():
    text = "# Guide\n\n## Install\n\npip install x\n\n## Use\n\nrun it\n"
    headings = outline(text, "markdown")
    assert trail(text, headings, 0, len(text)) == ("Guide", "Install")
    assert trail(text, headings, text.index("run"), len(text)) == ("Guide", "Use")
    assert trail(text, headings, 0, 7) == ("Guide",)


def test_code_after_a_function_is_not_in_it():
    text = "class A:\n    def f(self):\n        return 1\n\n    x = 2\n\nz = 3\n"
    headings = outline(text, "code", "a.py")
    assert trail(text, headings, text.index("return"), len(text)) == ("class A", "def f(self)")
    assert trail(text, headings, text.index("x ="), len(text)) == ("class A",)
    assert trail(text, headings, text.index("z ="), len(text)) == ()


@pytest.mark.parametrize("format", ["markdown", "rst", "code", "html"])
@pytest.mark.parametrize("unit", ["# ", " ", "#", "-", "=", "(", "def ", "\t", "```", "- ", "a(", "async "])
def test_a_long_line_takes_no_quadratic_time(format, unit):
    text = "x\n" + unit * 300_000 + "x\n"
    for suffix in (".py", ".c", ".js"):
        assert parts(text, outline(text, format, f"a{suffix}"))[-1][1] == len(text)


def test_windows_line_ends():
    text = "# A\r\n\r\nbody\r\n\r\nB\r\n---\r\nmore"
    assert ours(text) == [(1, 0, "A"), (2, 4, "B")]
    assert not re.search("\r", "".join(h.title for h in outline(text, "markdown")))
