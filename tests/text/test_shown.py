"""Texts of strangers: visible on a terminal and in a pipe, no markup in Markdown and HTML, unchanged in data."""

import ast
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import one_error
from hypothesis import given
from hypothesis import strategies as st

from sbert_mini import cli
from sbert_mini.evaluation.table import Table
from sbert_mini.evaluation.tables import machine_note
from sbert_mini.text.markdown import code, code_block, no_markup, plain, table_cell
from sbert_mini.text.shown import columns, fitted, shown, shown_json, wrapped

ESCAPES = "\x1b[31mred\x1b]0;title\x07 \x9b1m \x00\x7f"
ORDER = "\u202eevil\u202c \u2066x\u2069 \u200e\u200f\u061c"
VISIBLE = r"\x1b[31mred\x1b]0;title\x07 \x9b1m \x00\x7f", r"\u202eevil\u202c \u2066x\u2069 \u200e\u200f\u061c"
HIDDEN = [*map(chr, (*range(9), *range(11, 32), *range(127, 160))), *"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e"]
HIDDEN += list("\u2066\u2067\u2068\u2069")


def test_each_control_character_is_visible_and_nothing_else_changes():
    assert (shown(ESCAPES), shown(ORDER)) == VISIBLE
    for character in HIDDEN:
        code_point = ord(character)
        assert shown(f"a{character}b") == (f"a\\x{code_point:02x}b" if code_point < 256 else f"a\\u{code_point:04x}b")
    same = "tab\tline\n naïve 数据 🎉 \u200b\u200d\xa0 שלום \\x1b"
    assert shown(same) == same


def test_a_json_document_keeps_its_value():
    value = {"text": ESCAPES + ORDER + '数据 \\ " \n', ORDER: ["\x85"]}
    document = shown_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(document) == value
    assert not set(HIDDEN) & set(document)
    assert "数据" in document


@pytest.mark.parametrize(
    ("text", "width"),
    [("cat", 3), ("数据", 4), ("한국어", 6), ("🎉", 2), ("e\u0301", 1), ("naïve", 5), ("a\u200db", 2), ("", 0)],
)
def test_wide_characters_take_two_columns_of_a_terminal(text, width):
    assert columns(text) == width
    assert fitted(text, width) == text


def test_a_text_that_is_cut_fits_a_terminal():
    assert fitted("数据数据", 7) == "数据数…"
    assert fitted("数据数据", 6) == "数据…"
    assert fitted("abcdef", 4) == "abc…"
    assert columns(fitted("a数据数据" * 50, 80)) <= 80


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("the cat sleeps", 8, ["the cat", "sleeps"]),
        ("the cat  sleeps ", 7, ["the cat", "sleeps"]),
        ("abcdefgh ij", 3, ["abc", "def", "gh", "ij"]),
        ("a 数据数据 b", 5, ["a 数", "据数", "据 b"]),
        ("cafe\u0301s a", 5, ["cafe\u0301s", "a"]),
        ("    deep code", 9, ["    deep", "code"]),
        ("    longword", 6, ["    lo", "ngword"]),
        ("", 5, [""]),
    ],
)
def test_a_text_is_wrapped_at_blanks_else_beside_wide_characters_else_in_words(text, width, lines):
    assert [text[start:end] for start, end in wrapped(text, width)] == lines


@given(st.text(st.sampled_from("ab 数\u0301")), st.integers(2, 9))
def test_wrapped_lines_fit_and_lose_blanks_alone(text, width):
    lines = [text[start:end] for start, end in wrapped(text, width)]
    assert all(columns(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_every_print_of_the_commands_goes_through_one_module():
    for file in Path(cli.__file__).parent.glob("*.py"):
        calls = {node.func.id for node in ast.walk(ast.parse(file.read_text())) if _is_name(node)}
        assert "print" not in calls or file.name == "printing.py", file
        assert "typer.echo" not in file.read_text()


def _is_name(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


@pytest.fixture
def strange_index(sbmini_here, tmp_path, converted_model):
    """An index of one row whose text, id and column are full of controls; its folder."""
    row = {"id": f"id{ORDER}", "text": f"cat {ESCAPES} {ORDER}", "note": ESCAPES, f"c{ORDER}": 1}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    done = sbmini_here("index", "create", "x.index", "-i", "rows.jsonl", "-m", converted_model(), "-q")
    assert done.returncode == 0, done.stderr
    return tmp_path / "x.index"


def test_a_search_shows_them_in_a_pipe_and_keeps_them_with_raw_and_in_json(strange_index, sbmini_here):
    done = sbmini_here("search", strange_index, f"cat{ORDER}")
    assert VISIBLE[0] in done.stdout
    assert VISIBLE[1] in done.stdout
    assert not set(HIDDEN) & set(done.stdout + done.stderr)
    raw = sbmini_here("--raw", "search", strange_index, "cat")
    assert f"id{ORDER}\tcat {ESCAPES} {ORDER}\n" in raw.stdout
    lines = sbmini_here("search", strange_index, "cat", "--jsonl")
    assert not set(HIDDEN) & set(lines.stdout)
    hit = json.loads(lines.stdout)["hits"][0]
    assert hit["text"] == f"cat {ESCAPES} {ORDER}"
    assert hit["id"] == f"id{ORDER}"
    assert not set(HIDDEN) & set(sbmini_here("index", "info", strange_index).stdout)


def test_a_search_shows_them_on_a_terminal(strange_index):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "sbert_mini", "search", str(strange_index), "cat"]
    done = subprocess.run(
        command,
        stdout=theirs,
        stderr=subprocess.PIPE,
        check=True,
        env={**os.environ, "COLUMNS": "300", "NO_COLOR": "1"},
    )
    os.close(theirs)
    printed = os.read(ours, 65536).decode()
    os.close(ours)
    assert VISIBLE[0] in printed
    assert VISIBLE[1] in printed
    assert not set(HIDDEN) - {"\r"} & set(printed), done.stderr


def test_an_id_with_a_line_feed_stays_on_one_line(sbmini_here, tmp_path):
    """Otherwise a row could show lines that look like another hit."""
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "a\n 2  0.9999\tb", "text": "a cat"}) + "\n")
    assert sbmini_here("index", "create", "x.index", "-i", "rows.jsonl", "-q").returncode == 0
    done = sbmini_here("search", "x.index", "cat", "--color", "always")
    assert r"a\n 2  0.9999\tb" in done.stdout.splitlines()[0]
    assert sbmini_here("index", "list", "x.index").stdout == "a\\n 2  0.9999\\tb\n"
    assert sbmini_here("--raw", "index", "list", "x.index").stdout == "a\n 2  0.9999\tb\n"
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a\nb.md").write_text("a cat")
    (tmp_path / "d" / "c\nd.pdf").write_text("junk")
    done = sbmini_here("index", "sync", "y.index", "d", "--dry-run")
    assert done.stdout == "add\td/a\\nb.md\nadd\td/c\\nd.pdf\n"
    done = sbmini_here("index", "sync", "y.index", "d")
    assert r"sbmini: d/c\nd.pdf could not be read" in done.stderr.splitlines()[0]


def test_errors_and_notes_show_them(sbmini_here, tmp_path):
    for arguments in (
        ["search", f"no{ESCAPES.replace(chr(0), '')}{ORDER}", "q"],
        ["encode", "-m", f"no{ORDER}\x1b[31m", "text"],
        ["encode", "-i", f"no{ORDER}\x1b[31m.txt"],
        ["encode", f"--no{ORDER}\x1b[31m", "text"],
        [f"no{ORDER}\x1b[31m"],
    ):
        done = sbmini_here(*arguments)
        assert done.returncode in (1, 2)
        assert r"\x1b[31m" in done.stderr
        assert r"\u202e" in done.stderr
        assert not set(HIDDEN) & set(done.stderr)
    name = f"a{ORDER}\x1b[31m.csv"
    (tmp_path / name).write_text("text\ncat\n")
    one_error(sbmini_here("encode", "-i", name, "--text-column", "body"), 1, r"\u202e")
    assert ORDER in sbmini_here("--raw", "search", f"no{ORDER}", "q").stderr


def test_files_keep_the_text_and_standard_output_too_where_it_is_data(sbmini_here, tmp_path, converted_model):
    text = f"cat {ORDER} \x1b[31m"
    (tmp_path / "t.txt").write_text(text + "\n")
    model = converted_model()
    assert sbmini_here("dedup", "-i", "t.txt", "-m", model, "-q").stdout == text + "\n"
    assert sbmini_here("dedup", "-i", "t.txt", "-o", "kept.txt", "-m", model, "-q").returncode == 0
    assert (tmp_path / "kept.txt").read_text() == text + "\n"
    done = sbmini_here("encode", "-i", "t.txt", "-m", model, "-q")
    assert json.loads(done.stdout)["text"] == text
    assert not set(HIDDEN) & set(done.stdout)
    assert sbmini_here("encode", "-i", "t.txt", "-o", "v.csv", "-m", model, "-q").returncode == 0
    assert text in (tmp_path / "v.csv").read_text()
    assert sbmini_here("encode", "-i", "t.txt", "-o", "v.jsonl", "-m", model, "-q").returncode == 0
    assert ORDER in (tmp_path / "v.jsonl").read_text()


HOSTILE = "a|b `x` <script>alert(1)</script> [x](javascript:1) \\| &lt;\n\n---\n# head\x1b"


def test_markdown_holds_names_as_text():
    for made in (plain(HOSTILE), table_cell(HOSTILE), no_markup(HOSTILE), code(HOSTILE)):
        assert "\n" not in made
        assert "\x1b" not in made
    assert "<" not in plain(HOSTILE) + table_cell(HOSTILE) + no_markup(HOSTILE)
    assert "](" not in plain(HOSTILE)
    assert plain("naïve (a) [b] 1 < 2 & 3") == "naïve (a) [b] 1 &lt; 2 & 3"
    assert code("a`b") == "`a'b`"
    assert code_block("a\n````\nb", "toml").splitlines()[0] == "`````toml"


def test_tables_hold_names_as_text():
    markdown = pytest.importorskip("markdown")
    table = Table("title", ("name", HOSTILE), ((HOSTILE, "1"),), (HOSTILE,))
    assert len(table.terminal().splitlines()) == len(
        Table("", ("name", "x"), (("y", "1"),), (HOSTILE,)).terminal().splitlines()
    )
    rendered = markdown.markdown(table.markdown(), extensions=["tables"])
    for text in (rendered, table.html()):
        assert "<script" not in text
        assert 'javascript:1"' not in text
    assert rendered.count("<td") == 2
    assert table.html().count("<td") == 2


def test_the_command_line_under_a_figure_is_one_code_span():
    machine = {"packages": {}, "date": "d", "cpu": "c", "python": "3"}
    assert machine_note({"command": "sbmini `x`\n<b>", "machine": machine}).startswith("`sbmini 'x' <b>`, ")


def test_the_traceback_of_an_unexpected_error_shows_them(tmp_path):
    code = f"""import sys
from sbert_mini.cli import main, models
main._prepare()
raise RuntimeError({ORDER!r} + chr(27))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith(f"RuntimeError: {VISIBLE[1]}\\x1b\n")
