"""Temporary files: whole or not there, removed after a dead process, kept beside a live one, of the usual mode."""

import os
import subprocess
import sys
from contextlib import ExitStack

import numpy as np
import pytest

from sbert_mini.errors import UsageError
from sbert_mini.files.durable import remove_dead_parts, remove_own_parts, replacing, scratch_folder, write_durably
from sbert_mini.runtime.npy import NpyWriter


def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="not a regular file"):
        write_durably(tmp_path / "pipe", b"x")
    assert (tmp_path / "pipe").is_fifo()
    assert [entry.name for entry in tmp_path.iterdir()] == ["pipe"]


def dead_process():
    """Return the number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    return child.pid


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_process_that_ends_removes_its_own_parts_and_nothing_else(tmp_path):
    """Whether or not the `with` that would remove them was entered yet; a forked child leaves its parent's alone."""
    (tmp_path / "kept.txt").write_text("kept")
    with ExitStack() as parts:
        parts.enter_context(scratch_folder(tmp_path / "out"))
        parts.enter_context(replacing(tmp_path / "out.npy")).write_bytes(b"half")
        if not (child := os.fork()):
            remove_own_parts()
            os._exit(0)
        os.waitpid(child, 0)
        assert len(names(tmp_path)) == 3
        remove_own_parts()
        assert names(tmp_path) == ["kept.txt"]
        with pytest.raises(FileNotFoundError):
            parts.close()


def test_parts_of_dead_processes_are_removed_by_whoever_writes_the_same_target(tmp_path):
    dead, target = dead_process(), tmp_path / "out.npy"
    (tmp_path / f".out.npy.{dead}.part").write_bytes(b"of an earlier version")
    (tmp_path / f".out.npy.{dead}.0123abcd.part").write_bytes(b"x")
    (tmp_path / f".out.npy.{os.getpid()}.0123abcd.part").write_bytes(b"of a process that had this number before")
    left = tmp_path / f".out.npy.{dead}.89abcdef.part"
    left.mkdir()
    (left / "vectors.npy").write_bytes(b"x")
    others = [
        f".out.npz.{dead}.part",  # of another target
        f".out.npy.{dead}.part.txt",
        f".out.npy.{os.getppid()}.part",  # of a process that runs
        f".out.npy.{dead}.0123ABCD.part",
        ".out.npy.0.part",
        ".out.npy.part",
        f"out.npy.{dead}.part",
    ]
    for name in others:
        (tmp_path / name).write_bytes(b"kept")
    (tmp_path / f".out.npy.{dead}.00000000.part").symlink_to(tmp_path / others[0])
    with NpyWriter(target, 3) as writer:
        writer.write(np.ones((2, 3), np.float32))
    assert names(tmp_path) == sorted([*others, "out.npy", f".out.npy.{dead}.00000000.part"])
    assert all((tmp_path / name).read_bytes() == b"kept" for name in others)
    np.testing.assert_array_equal(np.load(target), np.ones((2, 3)))


def test_a_part_that_somebody_writes_is_not_removed(tmp_path):
    """The lock decides where numbers of processes mislead: another machine's, another container's, another thread's."""
    target, dead = tmp_path / "out", dead_process()
    with replacing(target) as part:
        foreign = part.rename(part.with_name(f".out.{dead}.0123abcd.part"))  # as another machine's part looks here
        remove_dead_parts(target)
        assert names(tmp_path) == [foreign.name]
        foreign.rename(part)
        write_durably(target, b"another thread")
        assert part.exists()
        part.write_bytes(b"this one")
    assert target.read_bytes() == b"this one"
    assert names(tmp_path) == ["out"]


def test_a_failed_write_leaves_what_was_there(tmp_path):
    target = tmp_path / "out"
    target.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), replacing(target) as part:  # noqa: PT012
        part.write_bytes(b"half")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), NpyWriter(target, 2) as writer:  # noqa: PT012
        writer.write(np.ones((1, 2), np.float32))
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), scratch_folder(target) as folder:  # noqa: PT012
        (folder / "vectors.npy").write_bytes(b"half")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"before"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_files_have_the_mode_that_the_umask_leaves(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_durably(tmp_path / "a", b"x")
        with NpyWriter(tmp_path / "b", 2) as writer:
            writer.write(np.ones((1, 2), np.float32))
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [mode, mode]


def test_an_error_names_the_path_of_the_user_and_no_temporary_file(tmp_path):
    with pytest.raises(FileNotFoundError) as missing:
        write_durably(tmp_path / "none" / "v.npy", b"x")
    assert missing.value.filename == str(tmp_path / "none")
    with pytest.raises(FileNotFoundError) as missing, scratch_folder(tmp_path / "none" / "v.npy"):
        pass
    assert missing.value.filename == str(tmp_path / "none")
