"""The headings of a document, or the definitions of source code, and where its text is divided.

The rules look at one line at a time, and perhaps the next one. They do not parse a language: a line that defines something in one
of the usual languages starts a part of its own, and so does the first line after its body, by the indentation.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from sbert_mini.text.passages import Span

SHORT = 200
"""A part of fewer characters is joined with the next one: it says little by itself."""
_SHOWN = 120
"""The most characters of a title."""
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]|$)")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_SETEXT = re.compile(r" {0,3}(?:=+|-+)[ \t]*$")
_BREAK = re.compile(r" {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$")
_NO_PARAGRAPH = re.compile(r" {0,3}(?:[-*+>|]|\d{1,9}[.)])(?:[ \t]|$)|(?: {4}|\t)")
_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1*[ \t]*$")
_MODIFIERS = (
    "export default public private protected internal static final abstract async pub unsafe extern inline virtual "
    "override open data sealed local const partial"
)
_DEFINED = re.compile(
    rf"(?:(?:{'|'.join(_MODIFIERS.split())})(?:\([a-z]+\))?[ \t]+)*"
    r"(?:def|defp|defmodule|class|function\*?|func|fun|fn|struct|enum|interface|trait|impl|module|namespace|protocol|object|sub"
    r"|macro_rules!)[ \t(<]"
)
_ASSIGNED = re.compile(
    r"(?:export[ \t]+)?(?:const|let|var)[ \t]+\w+[ \t]*=[ \t]*(?:async[ \t]*)?(?:function\b|\([^()]*\)[ \t]*=>)"
)
_SHELL = re.compile(r"[A-Za-z_][\w-]*[ \t]*\(\)[ \t]*\{?[ \t]*$")
_CALLABLE = re.compile(r"[A-Za-z_~][^;={}()\"']*\([^;{}\"']*\)[^;{}()\"']*\{?[ \t]*$")
_BRACES_WORDS = ".c .h .cc .cpp .cxx .hh .hpp .hxx .m .mm .java .cs .js .mjs .cjs .jsx .ts .tsx .dart .php .groovy"
_BRACES = frozenset(_BRACES_WORDS.split())
_NO_NAME_WORDS = "if for while switch else return do case catch try with throw new delete using await yield assert"
_NO_NAME = frozenset(_NO_NAME_WORDS.split())
_BEFORE = ("#", "//", "/*", "*", "@", "--", ";;")
"""How a line begins that belongs to the definition after it: a comment, a decorator, an attribute."""
_CLOSERS = frozenset(("}", "};", "})", "});", ")", ");", "]", "];", "end", "end;", "fi", "done", "{"))


@dataclass(frozen=True, slots=True)
class Heading:
    """Where a part of a document starts.

    Attributes:
        start: its first character, in the text.
        body: the first character after the lines of the heading.
        level: from 1; a heading ends the parts of its level and of the levels below it.
        title: its text; "" where a part ends and no other one starts.
    """

    start: int
    body: int
    level: int
    title: str


def outline(text: str, format: str, path: str = "") -> list[Heading]:
    """Return the headings of a text, in their order.

    Args:
        text: the text.
        format: a `formats.DocumentFormat`; the text of HTML and DOCX has Markdown's headings.
        path: the file's, whose suffix tells the language of code.
    """
    if format in ("markdown", "html", "docx"):
        return list(_markdown(text))
    if format == "rst":
        return list(_rst(text))
    if format == "code":
        return list(_code(text, PurePosixPath(path).suffix.lower()))
    return []


def parts(text: str, headings: Sequence[Heading]) -> list[Span]:
    """Return consecutive parts of a text, cut at its headings; a short part is joined with the one after it.

    The last part is joined with the one before it where it is short.
    """
    starts = [0]
    for heading in headings:
        if heading.start - starts[-1] >= SHORT:
            starts.append(heading.start)
    if len(starts) > 1 and len(text) - starts[-1] < SHORT:
        starts.pop()
    return list(zip(starts, [*starts[1:], len(text)], strict=True))


def trail(text: str, headings: Sequence[Heading], start: int, end: int) -> tuple[str, ...]:
    """Return the titles above the first line of a passage that is no heading, from the outermost.

    Args:
        text: the text.
        headings: of the text.
        start: of the passage.
        end: of the passage.
    """
    starts = [heading.start for heading in headings]
    last = bisect_right(starts, start)
    position = start
    while last and position < (body := headings[last - 1].body) <= end:
        position = body + len(text[body:end]) - len(text[body:end].lstrip())
        last = bisect_right(starts, position)
    above: list[Heading] = []
    for heading in headings[:last]:
        while above and above[-1].level >= heading.level:
            above.pop()
        above.append(heading)
    return tuple(heading.title for heading in above if heading.title)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield where each line starts, and the line without its end."""
    start = 0
    for line in text.split("\n"):
        yield start, line.rstrip("\r")
        start += len(line) + 1


def _title(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def _unclosed(title: str) -> str:
    """Return a title without the # signs that may close it after a blank."""
    bare = title.rstrip("#")
    return bare if not bare or bare[-1].isspace() else title


def _markdown(text: str) -> Iterator[Heading]:
    fence, paragraph, front = "", "", text.startswith("---\n") or text.startswith("---\r\n")
    paragraph_start = 0
    for start, line in _lines(text):
        after = min(start + len(line) + 1, len(text))
        if front:
            front = start == 0 or line not in ("---", "...")
            continue
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1][0] == fence[0] and len(mark[1]) >= len(fence) and not line[mark.end() :].strip():
                fence = ""
            continue
        if mark:
            fence, paragraph = mark[1], ""
        elif match := _ATX.match(line):
            paragraph = ""
            if title := _title(_unclosed(line[match.end() :].strip())):
                yield Heading(start, after, len(match[1]), title)
        elif paragraph and _SETEXT.match(line):
            yield Heading(paragraph_start, after, 1 if line.lstrip()[0] == "=" else 2, _title(paragraph))
            paragraph = ""
        elif not line.strip() or _BREAK.match(line) or (not paragraph and _NO_PARAGRAPH.match(line)):
            paragraph = ""
        else:
            paragraph_start = paragraph_start if paragraph else start
            paragraph = f"{paragraph} {line}"[: 2 * _SHOWN]


def _rst(text: str) -> Iterator[Heading]:
    lines = list(_lines(text))
    levels: dict[tuple[str, bool], int] = {}
    for i in range(1, len(lines)):
        start, line = lines[i]
        match = _ADORNMENT.match(line)
        title_start, title = lines[i - 1]
        if match is None or not title.strip() or _ADORNMENT.match(title) or len(line.rstrip()) < len(title.rstrip()):
            continue
        above = lines[i - 2] if i > 1 else None
        overlined = above is not None and above[1].rstrip() == line.rstrip()
        blank_before = above is None or overlined or not above[1].strip()
        if not blank_before or (title[0].isspace() and not overlined):
            continue
        level = levels.setdefault((match[1], overlined), len(levels) + 1)
        first = above[0] if overlined and above is not None else title_start
        yield Heading(first, min(start + len(line) + 1, len(text)), level, _title(title))


def _code(text: str, suffix: str) -> Iterator[Heading]:
    open_definitions: list[int] = []  # their indentations
    before: int | None = None  # where the comments and decorators start that stand directly above
    for start, line in _lines(text):
        stripped = line.strip()
        if not stripped:
            before = None
            continue
        indent = len(line) - len(line.lstrip())
        after = min(start + len(line) + 1, len(text))
        if _is_definition(stripped, suffix):
            while open_definitions and open_definitions[-1] >= indent:
                open_definitions.pop()
            open_definitions.append(indent)
            first = start if before is None else before
            yield Heading(first, after, len(open_definitions), _title(stripped.rstrip("{: \t")))
            before = None
        elif stripped.startswith(_BEFORE):
            before = start if before is None else before
        else:
            if open_definitions and indent <= open_definitions[-1] and stripped not in _CLOSERS:
                while open_definitions and indent <= open_definitions[-1]:
                    open_definitions.pop()
                first = start if before is None else before
                yield Heading(first, first, len(open_definitions) + 1, "")
            before = None


def _is_definition(line: str, suffix: str) -> bool:
    """Return whether a line without its indentation defines a function, a class or the like."""
    if _DEFINED.match(line):
        return not line.endswith(";")
    if _ASSIGNED.match(line):
        return True
    if suffix in (".sh", ".bash", ".zsh"):
        return _SHELL.match(line) is not None
    if suffix in _BRACES and len(line) <= 2 * _SHOWN and _CALLABLE.match(line):
        return re.split(r"\W", line, maxsplit=1)[0] not in _NO_NAME and not _is_call(line)
    return False


def _is_call(line: str) -> bool:
    """Return whether a line that has the form of a signature calls a function: nothing precedes the name, and no body follows."""
    return not line.rstrip().endswith("{") and " " not in line.partition("(")[0].strip()
