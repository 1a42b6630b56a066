"""`sbmini search` on a terminal and in a pipe: what a person sees, what a script reads, and when."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import one_error, run_here

SBMINI = str(Path(sys.executable).with_name("sbmini"))
LIMIT_S = 120
BREAD = """# Kitchen

## Keeping bread

Bread goes stale because its starch crystallises. In a cloth bag bread stays fresh for two or three days.
Never put it in the refrigerator. My aunt lives in Lyon. Her house is red.

## Yeast

Yeast wants warm water, of about 35 degrees.
"""


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    """A folder with an index of documents, `n.index`."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "notes").mkdir()
    (folder / "notes" / "bread.md").write_text(BREAD)
    (folder / "notes" / "t.csv").write_text(
        "id,text,year\n7,新鲜的面包应该放在布袋里。他的房子是红色的。,2021\nk:1,\x1b[31m Lyon\u202e,\n"
    )
    done = run_here(folder, "index", "sync", "n.index", "notes", "-m", "sbert-mini-fast")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def search(notes):
    """Run `sbmini search n.index` in this process, in the folder of `notes`."""
    return lambda *arguments, **options: run_here(notes, "search", "n.index", *arguments, **options)


@pytest.fixture
def shown(search):
    """Return the lines that a terminal shows, without colours."""

    def run(*arguments, width=70, color="always"):
        done = search(*arguments, "--color", color, env={"COLUMNS": str(width)})
        assert done.returncode == 0, done.stderr
        return re.sub("\x1b\\[[0-9;]*m", "", done.stdout).splitlines()

    return run


@pytest.fixture
def terminal(notes):
    """Start a command on a terminal, in the folder of `notes`."""
    started = []

    def start(*command, **env):
        started.append(Terminal(notes, *command, **env))
        return started[-1]

    yield start
    for each in started:
        each.stop()


class Terminal:
    """A command on a terminal of 70 columns."""

    def __init__(self, folder, *command, **env):
        self._ours, theirs = pty.openpty()
        environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
        environment |= {"TERM": "dumb", "COLUMNS": "70", **env}
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
        self._run = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **streams)
        os.close(theirs)
        self._read = ""

    def type(self, text):
        os.write(self._ours, text.encode())

    def until(self, end):
        """Return what is shown up to and with this text, since the last call."""
        while end not in self._read:
            ready, _, _ = select.select([self._ours], [], [], LIMIT_S)
            assert ready, self._read
            self._read += os.read(self._ours, 65536).decode()
        before, _, self._read = self._read.partition(end)
        return before + end

    def interrupt(self):
        """Cancel the line. A signal just before readline waits is seen at the line's end alone."""
        self._run.send_signal(signal.SIGINT)
        if not select.select([self._ours], [], [], LIMIT_S / 4)[0]:
            self.type("\n")

    def stop(self):
        """End what is still running."""
        self._run.kill()
        self._run.wait()

    def end(self):
        """Return the rest of what is shown and the exit code."""
        try:
            while block := os.read(self._ours, 65536):
                self._read += block.decode()
        except OSError:  # the other end is closed
            pass
        os.close(self._ours)
        return self._read, self._run.wait(LIMIT_S)


def test_a_hit_is_its_score_place_headings_and_closest_sentences(shown):
    lines = shown("how does bread stay fresh in a bag", "-k", 1)
    assert re.fullmatch(r" 1  0\.\d{4}  notes/bread\.md:5  Kitchen > Keeping bread", lines[0])
    assert "  > In a cloth bag bread stays fresh for two or three days." in lines
    assert len(lines) == 4
    assert not any("Lyon" in line or "#" in line for line in lines)


def test_everything_is_shown_if_asked_for(shown):
    lines = shown("how does bread stay fresh in a bag", "-k", 1, "--full")
    body = " ".join(line[4:] for line in lines[1:])
    assert body.split() == BREAD.split()
    assert [line[:4] for line in lines if "cloth bag" in line] == ["  > "]
    passage = shown("how does bread stay fresh in a bag", "-k", 1, "--full", "--passages")
    assert 1 < len(passage) <= len(lines)
    assert len(shown("bread", "-k", 1, "--without-text")) == 1


def test_a_row_of_a_table_names_its_file_and_columns_and_wide_characters_take_two_columns(shown):
    lines = shown("面包", "-k", 1, "--by", "words", "--columns", "year,file_path", width=24)
    assert lines[0].endswith("  notes/t.csv:2")
    assert lines[1:] == [
        "  > 新鲜的面包应该放在布",
        "  > 袋里。",
        "    他的房子是红色的。",
        "    year: 2021",
        "    file_path: t.csv",
    ]
    assert shown("my aunt in Lyon", "-k", 1, "--by", "words")[0].endswith("  notes/bread.md:6  Kitchen > Keeping bread")


def test_characters_that_control_a_terminal_are_shown(search):
    done = search("Lyon", "--by", "words", "--color", "always")
    assert "\\x1b[31m" in done.stdout
    assert "\\u202e" in done.stdout
    assert "\x1b[31m" not in done.stdout
    assert "\u202e" not in done.stdout


def test_the_querys_words_and_the_closest_sentence_are_coloured(search):
    out = search("breads in a bag", "-k", 1, "--color", "always", env={"COLUMNS": "200"}).stdout
    assert "\x1b[1mIn a cloth \x1b[0m\x1b[1;33mbag\x1b[0m\x1b[1m \x1b[0m\x1b[1;33mbread\x1b[0m\x1b[1m stays" in out
    assert "\x1b[33mBread\x1b[0m goes" in out
    assert "\x1b" not in search("breads in a bag", "-k", 1, "--color", "never").stdout


def test_a_terminal_has_colours_unless_they_are_not_wanted(terminal):
    command = (SBMINI, "search", "n.index", "bread", "-k", "1")
    wanted = [
        ((), {"TERM": "xterm"}, True),
        ((), {"TERM": "xterm", "NO_COLOR": "1"}, False),
    ]
    for arguments, env, coloured in wanted:
        shown, code = terminal(*command, *arguments, **env).end()
        assert code == 0
        assert "notes/bread.md:5" in shown
        assert ("\x1b[" in shown) == coloured


def test_a_pipe_has_a_line_of_fields_a_hit(search):
    (line,) = search("cloth bag", "-k", 1).stdout.splitlines()
    score, identity, text = line.split("\t")
    assert (identity, text.replace("\\n", "\n")) == ("notes/bread.md", BREAD)
    assert float(score) > 0
    fields = search("面包", "-k", 1, "--by", "words", "--columns", "year,file_path").stdout.rstrip("\n").split("\t")
    assert fields[1:] == ["notes/t.csv#7", "新鲜的面包应该放在布袋里。他的房子是红色的。", "2021", "t.csv"]
    assert search("cloth bag", "-k", 1, "--full").stdout == line + "\n"
    assert search("-k", 1, stdin="cloth bag\n").stdout == line + "\n"
    assert search("-k", 1, stdin="\ncloth bag").stdout == line + "\n"
    several = search("-k", 1, stdin="cloth bag\n\ncloth bag").stdout
    assert several == f"cloth bag\t{line}\n" * 2


def test_queries_of_a_pipe_are_answered_as_they_arrive(notes):
    command = [SBMINI, "search", "n.index", "-k", "1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=notes, text=True, **pipes) as run:
        for query in ("bread", "yeast"):
            run.stdin.write(f"{query}\n")
            run.stdin.flush()
            assert run.stdout.readline().startswith(f"{query}\t0.")
        run.stdin.close()
        assert (run.stdout.read(), run.stderr.read()) == ("", "")
    assert run.returncode == 0


def test_a_terminal_asks_for_one_query_after_the_other(terminal):
    asked = terminal(SBMINI, "search", "n.index", "-k", "1")
    assert asked.until("query> ") == "query> "
    asked.type("cloth bag\n")
    assert "notes/bread.md:5" in asked.until("query> ")
    asked.type("half a li")
    asked.until("half a li")
    asked.interrupt()
    asked.until("query> ")
    asked.type("my aunt\n")
    assert "bread.md:6" in asked.until("query> ")
    asked.type("\x04")
    shown, code = asked.end()
    assert (shown.strip(), code) == ("", 0)


def test_an_error_does_not_end_the_questions_and_an_empty_line_does(terminal):
    asked = terminal(SBMINI, "search", "n.index", "--filter", "year / 0 > 'a'", "--fail-if-empty")
    for _ in range(2):
        asked.until("query> ")
        asked.type("bread\n")
        asked.until("sbmini: error: ")
    asked.until("query> ")
    asked.type("\n")
    assert asked.end()[1] == 1


def test_mistakes_are_told_with_their_remedy(search, notes):
    one_error(search("how", "are", "you"), 2, 'quote it: sbmini search n.index "how are you"')
    one_error(search("bread", "--min-score", 1.01), 2, "--min-score", "-1 to 1")
    one_error(search("bread", "--min-score", -2), 2, "--min-score")
    one_error(search("bread", "--columns", "yeer"), 2, "'yeer'", "year")
    one_error(search("bread", "--columns", "year,"), 2, "--columns")
    one_error(search("bread", "--columns", "year", "--json"), 2, "--columns")
    one_error(search("bread", "--full", "--without-text"), 2, "--full")
    one_error(run_here(notes, "search", "nowhere", "bread"), 1, "index create", "index sync")


def test_hits_say_why_they_were_found(search, shown):
    query = "how does bread stay fresh"
    hit = json.loads(search(query, "-k", 1, "--explain", "--json").stdout)["results"][0]["hits"][0]
    assert hit["explanation"]["cosine"] == pytest.approx(hit["cosine"], abs=1e-5)
    assert {"a": "bread", "b": "bread"}.items() <= hit["explanation"]["pairs"][0].items()
    assert any(line.startswith("    bread ~ bread 0.") for line in shown(query, "-k", "1", "--explain"))
    assert "explanation" not in json.loads(search(query, "-k", 1, "--json").stdout)["results"][0]["hits"][0]
    one_error(search(query, "--explain"), 2, "--explain is for a terminal and for JSON")
    one_error(search("--like", "7", "--explain", "--json"), 2, "--explain and --like exclude each other")
