"""Which files are documents, against git's own answer."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sbert_mini.documents.ignoring import Globs
from sbert_mini.documents.selection import (
    FolderFile,
    folders_of,
    modified_text,
    select,
    settled_text,
)
from sbert_mini.errors import InputError, UsageError

NONE = Globs((), "--include")


def chosen(folder: Path, include=(), exclude=(), left_out=()):
    selection = select(folders_of([folder])[0], Globs(include, "--include"), Globs(exclude, "--exclude"), left_out)
    return [file.path for file in selection.files]


def put(folder: Path, *names: str, text: str = "x"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


PATTERNS = st.sampled_from(
    [
        "*.md",
        "!a.md",
        "/a.md",
        "b/",
        "!b/",
        "b/a.md",
        "**/c",
        "c/**",
        "a*",
        "?.txt",
        "[ab].md",
        "# note",
        "",
        "\\!x",
        "b",
        "!b/a.md",
    ]
)


@settings(max_examples=40)
@example(outer=[], inner=["c/**", "!a.md"])
@example(outer=["c/", "!c/**"], inner=[])
@example(outer=["*.md", "!c/**"], inner=["*.txt"])
@given(st.lists(PATTERNS, max_size=4), st.lists(PATTERNS, max_size=3))
def test_ignore_files_mean_what_git_says(tmp_path_factory, outer, inner):
    folder = tmp_path_factory.mktemp("repo")
    put(folder, "a.md", "b.md", "c.txt", "b/a.md", "b/x.txt", "b/c/a.md", "c/a.txt", "c/b/a.md")
    (folder / ".gitignore").write_text("\n".join(outer))
    (folder / "b" / ".gitignore").write_text("\n".join(inner))
    subprocess.run(["git", "init", "-q", folder], check=True)
    listed = subprocess.run(
        ["git", "-C", folder, "ls-files", "--others", "--exclude-standard"], check=True, capture_output=True, text=True
    ).stdout.split()
    assert chosen(folder) == sorted(name for name in listed if ".gitignore" not in name)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfa.md\r\nb.md\r\n",  # as Windows' editor saves it
        b"caf\xe9.md\n",  # a name in Latin-1
        "a.md\x0cb.md\nc\x85c.txt\nx\u2028a.md\n".encode(),  # only a line feed ends a line
        b"a.md\r",
    ],
)
def test_ignore_files_have_gits_lines(tmp_path, content):
    for name in (b"a.md", b"b.md", b"c.txt", b"caf\xe9.md"):
        (tmp_path / os.fsdecode(name)).write_text("x")
    (tmp_path / ".gitignore").write_bytes(content)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    command = ["git", "-C", tmp_path, "ls-files", "-z", "--others", "--exclude-standard"]
    listed = map(os.fsdecode, subprocess.run(command, check=True, capture_output=True).stdout.split(b"\0"))
    assert chosen(tmp_path) == sorted(name for name in listed if name not in ("", ".gitignore"))


def test_an_ignore_file_that_is_no_utf8_is_named(tmp_path, caplog):
    put(tmp_path, "a.md", "b.md")
    (tmp_path / ".gitignore").write_text("a.md\n", "utf-16")
    assert chosen(tmp_path) == ["a.md", "b.md"]
    assert "is not text in UTF-8 (a NUL byte), and ignores nothing" in caplog.text


def test_our_ignore_file_wins_over_gits(tmp_path):
    put(tmp_path, "a.md", "b.md")
    (tmp_path / ".gitignore").write_text("*.md\n")
    (tmp_path / ".sbminiignore").write_text("!b.md\n")
    assert chosen(tmp_path) == ["b.md"]


def test_globs(tmp_path):
    put(tmp_path, "a.md", "a.py", "drafts/a.md", "x/drafts/b.md", "x/c.md")
    assert chosen(tmp_path, ["*.md"]) == ["a.md", "drafts/a.md", "x/c.md", "x/drafts/b.md"]
    assert chosen(tmp_path, ["*.md"], ["drafts/"]) == ["a.md", "x/c.md"]
    assert chosen(tmp_path, ["/a.*"]) == ["a.md", "a.py"]
    with pytest.raises(UsageError, match="--include takes a pattern"):
        Globs(["!x"], "--include")
    with pytest.raises(UsageError, match="at most 3 stars"):
        Globs(["*a*a*a*a"], "--exclude")


def test_hidden_binary_and_indexes_are_left_out_and_counted(tmp_path):
    put(
        tmp_path,
        "a.md",
        ".b.md",
        ".git/c.md",
        "d.png",
        "x.index/CURRENT",
        "x.index/generations/1.json",
        "x.index/segments/1",
    )
    selection = select(folders_of([tmp_path])[0], NONE, NONE)
    assert [file.path for file in selection.files] == ["a.md"]
    assert (selection.hidden, selection.binary, selection.ignored) == (2, 1, 1)


def test_links_do_not_lead_out(tmp_path):
    put(tmp_path, "in/a.md", "in/sub/b.md", "out/secret.md")
    inside = tmp_path / "in"
    (inside / "same.md").symlink_to("a.md")
    (inside / "secret.md").symlink_to(tmp_path / "out" / "secret.md")
    (inside / "folder").symlink_to(tmp_path / "out")
    (inside / "loop").symlink_to(inside)
    (inside / "gone.md").symlink_to("nowhere")
    (inside / "round.md").symlink_to("round.md")
    selection = select(folders_of([inside])[0], NONE, NONE)
    assert [file.path for file in selection.files] == ["a.md", "same.md", "sub/b.md"]
    assert selection.links == 5


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    put(tmp_path, "a/x.md", "b.md")
    if os.getuid():
        (tmp_path / "a").chmod(0)
        selection = select(folders_of([tmp_path])[0], NONE, NONE)
        (tmp_path / "a").chmod(0o755)
    else:  # root reads everything
        os.chmod(tmp_path / "a", 0o700)  # noqa: PTH101
        for folder in (tmp_path, *tmp_path.parents):
            if folder.is_relative_to(tempfile.gettempdir()) and folder != Path(tempfile.gettempdir()):
                folder.chmod(0o755)
        os.seteuid(65534)
        try:
            selection = select(folders_of([tmp_path])[0], NONE, NONE)
        finally:
            os.seteuid(0)
    assert [file.path for file in selection.files] == ["b.md"]
    assert list(selection.unreadable) == ["a/"]


def test_folders_that_are_none(tmp_path):
    put(tmp_path, "file", "a/b/x.md")
    for path in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(InputError, match="nothing was changed"):
            folders_of([tmp_path / "a", path])
    with pytest.raises(UsageError, match="lies in"):
        folders_of([tmp_path / "a", tmp_path / "a" / "b"])
    with pytest.raises(UsageError, match="--as names one folder, and 2"):
        folders_of([tmp_path / "a", tmp_path / "a" / "b"], "x")
    with pytest.raises(UsageError, match="takes a name"):
        folders_of([tmp_path / "a"], "x/../y")


GIVEN = [("notes/", "notes/"), ("./notes", "notes/"), (".", ""), ("notes/../notes", "notes/")]


@pytest.mark.parametrize(("given", "prefix"), GIVEN)
def test_ids_begin_with_the_folder_as_given(tmp_path, monkeypatch, given, prefix):
    (tmp_path / "notes").mkdir()
    monkeypatch.chdir(tmp_path)
    assert folders_of([given])[0].id_of("a.md") == f"{prefix}a.md"
    assert folders_of([given], "other")[0].id_of("a.md") == "other/a.md"


def test_a_file_that_was_just_changed_is_compared_by_content_later():
    file = FolderFile("a", 1, 10**18)
    assert modified_text(10**18, 10**9 + 5.0) == settled_text(file) == "2001-09-09T01:46:40.000000000Z"
    assert modified_text(10**18, 10**9 + 1.0) == "2001-09-09T01:46:40Z" != settled_text(file)
